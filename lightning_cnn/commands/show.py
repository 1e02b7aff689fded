"""`show`: draws the training images of an experiment, augmented ones beside their originals, without training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cnn.commands.parser import VerbParser
from lightning_cnn.errors import UserError

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


def main(verb: str, argv: list[str]) -> int:
    """Writes the picture. Returns the exit code."""
    options, experiment = _parser(verb).parse_known_args(argv)
    if options.count is not None and options.count < 1:
        raise UserError(f"--count {options.count}: it must be at least 1")
    data: Any = _data_of(experiment)
    if not hasattr(data, "plot"):
        raise UserError(f"{type(data).__name__} has no method plot: only data of an ImageDataModule can be drawn")
    data.prepare_data()
    augmented = data.augmentation.active
    figure = data.plot(options.count, augmented=augmented)

    from lightning_cnn import plots

    try:
        plots.save(figure, Path(options.output))
    except (OSError, ValueError) as error:  # ValueError: a suffix that matplotlib does not know
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write {options.output} ({reason}): choose another place with --output") from None
    print(f"{'augmented' if augmented else 'plain (no --data.augment is given)'}, drawn in {options.output}")
    return 0


def _data_of(argv: list[str]) -> "LightningDataModule":
    """The data that a command line of `fit` describes."""
    from lightning_cnn.wiring import ExperimentCLI, mendable

    class DataCLI(ExperimentCLI):
        """Makes the data alone: the picture must not wait for a network or its weights."""

        def instantiate_classes(self) -> None:
            config = self.config.clone()
            del config["model"]
            with mendable():
                self.datamodule = self.parser.instantiate_classes(config)["data"]

    return DataCLI("fit", argv).datamodule


def _parser(verb: str) -> VerbParser:
    parser = VerbParser(
        verb,
        "Draws training images, beside each what augmentation makes of it. It takes the options of `fit`, such as "
        "--config, --data and --data.augment.",
    )
    parser.add_argument("--output", default="examples.png", help="the picture to write")
    parser.add_argument("--count", type=int, help="how many images; default 6 with augmentation, else 25")
    return parser
