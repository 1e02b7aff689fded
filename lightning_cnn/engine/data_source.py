"""Where `show` and `features` take their images from: the data that a command line of `fit` describes."""

from typing import Any

from lightning_cnn.engine.wiring import ExperimentCLI, mendable
from lightning_cnn.tracking.checkpoint import preprocessing_of


def make_data(argv: list[str]) -> Any:
    """The data module of a command line, without the network that would go with it.

    Args:
        argv: Options of `fit`, such as `--config`, `--data` and `--data.root`; of a `--ckpt_path` the data module of
            its run, with the scaling of its images.

    Raises:
        UserError: If the command line can't be used, or the data are missing.
    """
    data = _DataCLI("fit", argv).datamodule
    data.prepare_data()
    return data


class _DataCLI(ExperimentCLI):
    """Makes the data alone: nobody should wait for a network or its weights to look at images."""

    def instantiate_classes(self) -> None:
        config = self.config.clone()
        del config["model"]
        with mendable():
            self.datamodule = self.parser.instantiate_classes(config)["data"]
        preprocessing = preprocessing_of(self.checkpoint) if self.checkpoint else None
        if preprocessing is not None and hasattr(self.datamodule, "preprocessing"):
            self.datamodule.load_state_dict({"preprocessing": preprocessing})
