"""`show`: draws the training images of an experiment, augmented ones beside their originals, without training."""

from pathlib import Path

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.errors import UserError
from lightning_cnn.resume.files import make_folder


def main(verb: str, argv: list[str]) -> int:
    """Writes the picture. Returns the exit code."""
    options, experiment = _parser(verb).parse_known_args(argv)
    if options.count is not None and options.count < 1:
        raise UserError(f"--count {options.count}: it must be at least 1")

    from lightning_cnn.datamodules import ImageDataModule
    from lightning_cnn.engine.data_source import make_data
    from lightning_cnn.engine.wiring import mendable
    from lightning_cnn.figures import plots

    data = make_data(experiment)
    if not isinstance(data, ImageDataModule):
        raise UserError(f"{type(data).__name__} is no ImageDataModule: show draws the images of such data only")
    augmented = data.augmentation.active
    with mendable():
        figure = data.plot(options.count, augmented=augmented)
    path, hint = Path(options.output), "choose another place with --output"
    make_folder(path.parent, hint)
    try:
        plots.save(figure, path, hint)
    except ValueError as error:  # a suffix that matplotlib does not know
        raise UserError(f"can't write {path} ({error}): {hint}") from None
    print(f"{'augmented' if augmented else 'plain (no --data.augment is given)'}, drawn in {options.output}")
    return 0


def _parser(verb: str) -> VerbParser:
    parser = VerbParser(
        verb,
        "Draws training images, beside each what augmentation makes of it. It takes the options of `fit`, such as "
        "--config, --data and --data.augment.",
    )
    parser.add_argument("--output", default="examples.png", help="the picture to write")
    parser.add_argument("--count", type=int, help="how many images; default 6 with augmentation, else 25")
    return parser
