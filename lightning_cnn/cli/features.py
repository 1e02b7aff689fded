"""`lightning-cnn features`: what was written, and what to do with it."""

import shlex

from lightning_cnn.cli.parser import parser_for, source_of
from lightning_cnn.errors import UserError


def main(verb: str, argv: list[str]) -> int:
    """Writes the file. Returns the exit code."""
    parser = parser_for(verb, "engine/features")
    parser.description = f"{parser.description} " + (
        "They are named by --config, --data and --data.*, as `fit` takes them; of a checkpoint, by default, they are "
        "those of its run."
    )
    parser.add_argument("--pixels", action="store_true", help="instead of a network: the scaled pixels themselves")
    options, words = parser.parse_known_args(argv)
    if options.pixels and (options.ckpt_path or options.architecture or options.weights):
        raise UserError("--pixels uses no network: remove --ckpt_path, --architecture and --weights")
    source = None if options.pixels else source_of(options)

    from lightning_cnn.cli.words import read_words
    from lightning_cnn.config.schema import FIT
    from lightning_cnn.engine.build import build_data
    from lightning_cnn.engine.feature_file import check_suffix
    from lightning_cnn.engine.features import features
    from lightning_cnn.engine.quiet import be_quiet

    be_quiet()
    check_suffix(options.output)  # before anything is downloaded
    words += [word for module in options.trust for word in ("--trust", module)]
    words = ["--ckpt_path", options.ckpt_path, *words] if options.ckpt_path else words
    data = build_data(read_words(FIT, words).config())
    written = features(source, data, **parser.arguments(options))
    for part, count in written.images.items():
        print(f"{part}: {count:,} images")
    print(f"written to {written.path}: {sum(written.images.values()):,} images")
    print(f"\nnext: lightning-cnn probe {shlex.quote(str(written.path))} --method logistic")
    return 0
