"""Predictions of the test months of a run on returns, beside those of the baselines."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lightning_cnn.config.config import Config
from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.trainer import SILENT
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.baselines import Rows, baselines
from lightning_cnn.evaluation.returns.month_split import check_apart
from lightning_cnn.evaluation.returns.predictions import KEYS, KIND, LOST
from lightning_cnn.resume.files import replacing
from lightning_cnn.tracking.record import BASELINES, CONFIG, PREDICTIONS
from lightning_cnn.tracking.run import RunFolder


def predict_test(run: RunFolder, embargo: int | None = None) -> None:
    """Writes `predictions.parquet` and `baselines.parquet` into the folder of a run.

    The network is that of the best checkpoint, on the data and the device of the run; the baselines are fitted on the
    rows that the network was trained on.

    Args:
        run: A training on `MonthlyReturns` with a best checkpoint.
        embargo: Months that must lie between training and test, None: not looked at.

    Raises:
        UserError: If the run has other data, or its price file has been continued.
    """
    best = run.checkpoint("best")
    experiment = Experiment(Config.load(run.folder / CONFIG, ckpt_path=best))
    data = experiment.data
    if not isinstance(data, MonthlyReturns):
        raise UserError(f"{run.folder} was trained on {type(data).__name__}: only runs on MonthlyReturns have a report")
    with user_errors():
        data.setup("fit")
        data.setup("test")
    before, now = run.record.data.get("months"), data.description().get("months")
    if data.hparams["test_end"] is None and before not in (None, now):
        raise UserError(
            f"the prices have other months than when {run.folder} was trained ({now}; then {before}), and with them "
            "other test months: restore the price file"
        )
    if embargo is not None:
        trained = np.concatenate([data.arrays(part)[2] for part in ("train", "val")])
        check_apart(
            trained.astype("datetime64[M]"), data.arrays("test")[2].astype("datetime64[M]"), data.window_months, embargo
        )
    # whatever it was trained on: other processes would begin this one's script anew
    alone = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    trainer = experiment.trainer(**SILENT, **alone, callbacks=[])
    with user_errors():
        found = trainer.predict(experiment.model, data.ordered_batches("test"), ckpt_path=str(best), weights_only=True)
    frame = data.frame("test")
    frame.insert(2, "prediction", torch.cat(found).double().numpy())  # type: ignore[arg-type]
    frame.attrs |= {KIND: getattr(experiment.model, "gives", "score"), LOST: data.without_outcome["test"]}
    write_frame(frame[KEYS].join(_baselines(data, run.record.seed or 0)), run.folder / BASELINES)
    write_frame(frame, run.folder / PREDICTIONS)  # the last: where it is, both are whole


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes Parquet in one step: a reader sees the old file or the new one.

    Raises:
        StorageError: If it can't be written.
    """
    with replacing(path) as file:
        frame.to_parquet(file, index=False)


def _baselines(data: MonthlyReturns, seed: int) -> pd.DataFrame:
    prices, frame = data.prices, data.frame("test")
    assert prices is not None
    train, test = (Rows(windows, outcomes > 0) for windows, outcomes, _ in map(data.arrays, ("train", "test")))
    columns = {ticker: column for column, ticker in enumerate(prices.tickers)}
    months = frame["date"].to_numpy().astype("datetime64[M]")
    return baselines(
        train,
        test,
        prices.changes(),
        (months - prices.months[0]).astype(np.intp),
        frame["ticker"].map(columns).to_numpy(np.intp),
        seed,
    )
