"""The base of data sets of returns: parts in memory, as batches, arrays and tables."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from lightning_cnn.datamodules.batches import BatchSampler, OrderedBatchSampler, batch_loader
from lightning_cnn.datamodules.returns.windows import ReturnBatch, Scaling, Windows

PLOTTED = 12  # windows of a picture


class ReturnDataModule(LightningDataModule):
    """Windows of returns in memory, in parts `train`, `val`, `test` and `predict`; a subclass makes them in `setup`.

    A batch is windows float32 `(b, channels, length)`, or pictures `(b, 1, 15, 15)`; returns of the month of outcome,
    float32 `(b,)`; and these months since 1970-01, int64 `(b,)`.
    """

    num_classes = 1
    default_model = "ReturnClassifier"
    batches_per_load = 1  # training batches that the loader gives at once; the module may ask for more
    lags = 24
    stages: tuple[str, ...] = ("train", "test")

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.tickers: list[str] = []
        self.scaling: Scaling | None = None
        self._sets: dict[str, Windows] = {}
        self._seed = 0

    def dataset(self, part: str) -> Windows:
        """The windows of `train`, `val`, `test` or `predict`, as `setup` has made them; by month, then by ticker."""
        return self._sets[part]

    def arrays(self, part: str) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """All windows of a part, for scikit-learn and the like, in the order of `ordered_batches`.

        Args:
            part: `train`, `val`, `test` or `predict`.

        Returns:
            Windows `(n, channels, length)`, outcomes `(n,)`, and months of outcome since 1970-01 `(n,)`.
        """
        windows, outcomes, months = self._sets[part][torch.arange(len(self._sets[part]))]
        return windows.numpy(), outcomes.numpy(), months.numpy()

    def frame(self, part: str) -> pd.DataFrame:
        """What belongs to each window of a part, in the order of `ordered_batches`.

        Args:
            part: `train`, `val`, `test` or `predict`.

        Returns:
            Columns `date` (last day of the month of outcome), `ticker` and `outcome` (its return, not clipped; NaN
            in `predict`).
        """
        windows = self._sets[part]
        dates = pd.PeriodIndex.from_ordinals(windows.months.numpy(), freq="M").to_timestamp(how="end").normalize()
        tickers = np.asarray(self.tickers, dtype=object)[windows.tickers]
        return pd.DataFrame(
            {"date": dates.astype("datetime64[ns]"), "ticker": tickers, "outcome": windows.outcomes.numpy()}
        )

    def train_dataloader(self) -> DataLoader[ReturnBatch]:
        """Batches of training windows, in a new random order each epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[ReturnBatch]:
        """Batches of the validation part."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[ReturnBatch]:
        """Batches of the test part."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[ReturnBatch]:
        """Batches of the windows whose outcome is not known yet: the month after the prices."""
        return self._loader("predict")

    def ordered_batches(self, part: str) -> DataLoader[ReturnBatch]:
        """Batches of a part, in the order of `dataset`."""
        return self._loader(part)

    def _loader(self, part: str, shuffle: bool = False) -> DataLoader[ReturnBatch]:
        trainer, dataset = self.trainer, self._sets[part]
        shuffle = shuffle and not (trainer and trainer.overfit_batches)  # type: ignore[attr-defined]
        sampler = (BatchSampler if shuffle else OrderedBatchSampler)(
            len(dataset),
            self.batch_size * (self.batches_per_load if shuffle else 1),
            shuffle,
            self._seed,
            trainer.global_rank if trainer else 0,
            trainer.world_size if trainer else 1,
        )
        pin_memory = trainer is not None and trainer.strategy.root_device.type == "cuda"
        return batch_loader(dataset, sampler, pin_memory=pin_memory)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint carries of the data: clipping and scaling."""
        return {} if self.scaling is None else {"scaling": self.scaling.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes clipping and scaling from a checkpoint, so that new prices are seen as those of the training were."""
        self.scaling = Scaling.from_dict(state_dict["scaling"])
        for windows in self._sets.values():
            windows.scale(self.scaling)

    def plot(self, count: int = PLOTTED) -> Any:
        """Draws training windows, evenly spread, as the network sees them, with their outcomes.

        Args:
            count: How many.

        Returns:
            A matplotlib `Figure`.
        """
        from lightning_cnn.figures.window_plots import picture_grid, window_grid

        self.setup("fit")
        rows = torch.linspace(0, len(self._sets["train"]) - 1, min(count, len(self._sets["train"]))).round().long()
        windows, outcomes, _ = self._sets["train"][rows]
        about = self.frame("train").iloc[rows.numpy()]
        titles = [
            f"{ticker}, {date:%Y-%m}: {100 * outcome:+.1f} %"
            for date, ticker, outcome in zip(about.date, about.ticker, outcomes.tolist(), strict=True)
        ]
        draw = picture_grid if windows.ndim == 4 else window_grid
        return draw(windows, titles, self.lags)
