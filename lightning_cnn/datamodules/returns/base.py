"""The base of data sets of returns: parts in memory, as batches, arrays and tables."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_cnn.datamodules.base import DataModule
from lightning_cnn.datamodules.returns.windows import ReturnBatch, Scaling, Windows

PLOTTED = 12  # windows of a picture


class ReturnDataModule(DataModule):
    """Windows of returns in memory, in parts `train`, `val`, `test` and `predict`; a subclass makes them in `setup`.

    A batch is windows float32 `(b, channels, length)`, or pictures `(b, 1, 15, 15)`; returns of the month of outcome,
    float32 `(b,)`; and these months since 1970-01, int64 `(b,)`.

    Args:
        batch_size: Windows per batch, over all processes together.
    """

    num_classes = 1
    default_model = "ReturnClassifier"
    label_kind = "monthly returns"
    extra_needed = "returns"
    lags = 24

    def __init__(self, batch_size: int = 256) -> None:
        super().__init__(batch_size)
        self._sets: dict[str, Windows] = {}
        self.tickers: list[str] = []
        self.scaling: Scaling | None = None

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

    def predict_dataloader(self) -> DataLoader[ReturnBatch]:
        """Batches of the windows whose outcome is not known yet: the month after the prices."""
        return self._loader("predict")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint carries of the data: clipping and scaling."""
        return {} if self.scaling is None else {"scaling": self.scaling.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes clipping and scaling from a checkpoint, so that new prices are seen as those of the training were."""
        self.scaling = Scaling.from_dict(state_dict["scaling"])
        for windows in self._sets.values():
            windows.scale(self.scaling)

    def plot(self, count: int = PLOTTED) -> Any:
        """Figure of evenly spaced training windows, as the network sees them, with their outcomes.

        Args:
            count: How many.

        Returns:
            A matplotlib `Figure`.
        """
        from lightning_cnn.figures.returns import picture_grid, window_grid

        self.setup("fit")
        rows = self._sample(count)
        windows, outcomes, _ = self._sets["train"][rows]
        about = self.frame("train").iloc[rows.numpy()]
        titles = [
            f"{ticker}, {date:%Y-%m}: {100 * outcome:+.1f} %"
            for date, ticker, outcome in zip(about.date, about.ticker, outcomes.tolist(), strict=True)
        ]
        grid = picture_grid if windows.ndim == 4 else window_grid
        return grid(windows, titles, self.lags)
