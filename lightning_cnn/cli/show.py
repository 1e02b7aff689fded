"""`lightning-cnn show`: draws training images, or describes a price file; the options of `fit` name the data."""

from lightning_cnn.cli.messages import as_typed
from lightning_cnn.cli.parser import parser_for
from lightning_cnn.cli.tables import text_table


def main(verb: str, argv: list[str]) -> int:
    """Writes the figure, or prints the description. Returns the exit code."""
    parser = parser_for(verb, "engine/show")
    parser.description = f"{parser.description} It takes the options of `fit`, such as --config and --data.augment."
    options, words = parser.parse_known_args(argv)

    from lightning_cnn.cli.words import read_words
    from lightning_cnn.config.schema import FIT
    from lightning_cnn.datamodules import MonthlyReturns
    from lightning_cnn.engine.build import build_data
    from lightning_cnn.engine.show import show
    from lightning_cnn.engine.user_errors import user_errors
    from lightning_cnn.errors import UserError

    data = build_data(read_words(FIT, words).config())
    if isinstance(data, MonthlyReturns):
        with user_errors():
            found = data.describe()
        print(as_typed(text_table([[str(cell) for cell in row] for row in found.itertuples(index=False)])))
        if any(word.partition("=")[0] == "--output" for word in argv):
            print(f"windows, written to {show(data, **parser.arguments(options))}")
        elif options.count is not None:
            raise UserError("--count is for the figure of windows: add --output FILE, or remove it")
        return 0
    path = show(data, **parser.arguments(options))
    print(f"{'augmented' if data.augmentation.active else 'plain (no --data.augment is given)'}, written to {path}")
    return 0
