"""Every module and every data module in a Trainer of Lightning's, without our engine."""

import inspect
from pathlib import Path
from typing import Any

import mask_sets
import pytest
import pytorch_lightning as pl
import torch
from image_sets import make, write_all
from price_files import panel, write

import lightning_cnn as lc
from lightning_cnn.datamodules.base import DataModule
from lightning_cnn.datamodules.house_numbers.whole_numbers import HouseNumbers
from lightning_cnn.engine.catalogue import NOT_FOR_TRAINING
from lightning_cnn.resume.checkpoints import BestCheckpoint

MODULES = [getattr(lc.modules, name) for name in lc.modules.__all__]
DATA = [getattr(lc.datamodules, name) for name in lc.datamodules.__all__ if name not in NOT_FOR_TRAINING]
RETURNS = (lc.modules.ReturnClassifier, lc.modules.ReturnRegressor)


def fits(module: type, data: type) -> bool:
    """Whether a module learns from such data."""
    if issubclass(data, lc.datamodules.ReturnDataModule):
        return issubclass(module, RETURNS)
    if issubclass(data, HouseNumbers):
        return module is lc.modules.HouseNumberReader
    if issubclass(data, lc.datamodules.DigitBoxes):
        return issubclass(module, lc.modules.Detector)
    if module is lc.modules.CapsuleClassifier:  # which also takes the classes of any images
        return data in (lc.datamodules.Digits, lc.datamodules.OverlappingDigits)
    return module is getattr(lc.modules, data.default_model)  # type: ignore[attr-defined]


PAIRS = [(module, data) for module in MODULES for data in DATA if fits(module, data)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every data set of ours can read."""
    folder = tmp_path_factory.mktemp("root")
    write_all(folder)
    mask_sets.write_all(folder / "masks")
    write(panel(8), folder / "prices.parquet")
    return folder


def made(kind: Any, root: Path) -> Any:
    if kind is lc.datamodules.MonthlyReturns:
        return kind(str(root / "prices.parquet"), lags=6, val_months=6)
    if kind in mask_sets.KINDS:
        return mask_sets.make(kind, root / "masks", batch_size=8, image_size=32)
    if issubclass(kind, lc.datamodules.ReturnDataModule):
        return kind(stocks=20, months=60, lags=6, val_months=6)
    return make(kind, root, batch_size=8, image_size=32)


def test_each_module_and_each_data_set_is_in_some_pair() -> None:
    assert {module for module, _ in PAIRS} == {*MODULES} and {data for _, data in PAIRS} == {*DATA}


@pytest.mark.parametrize(("kind", "of"), PAIRS, ids=lambda kind: kind.__name__)
def test_it_trains(kind: type[pl.LightningModule], of: type[DataModule], root: Path, tmp_path: Path) -> None:
    """With its checkpoints, its logger and our callback, and then from the checkpoint."""
    data = made(of, root)
    facts = {name: value for name, value in data.facts().items() if name in inspect.signature(kind).parameters}
    architecture = {} if issubclass(kind, lc.modules.Detector) else {"architecture": "ffnn"}
    if issubclass(kind, RETURNS):
        architecture = {"architecture": "returns_ffnn"}
    if kind is lc.modules.CapsuleClassifier:
        architecture = {"architecture": "efficient_capsnet"}
    if kind is lc.modules.Segmenter:
        architecture = {"architecture": "unet_small"}
    model = kind(**architecture, **facts)
    # a detector has no loss in its validation
    best = BestCheckpoint(getattr(kind, "monitor", "val/loss"))
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=2,
        limit_test_batches=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=pl.loggers.CSVLogger(tmp_path),
        callbacks=[best],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    assert trainer.global_step >= 1 and Path(best.best_model_path).name == "best.ckpt"
    trainer.test(model, data, verbose=False)
    assert torch.isfinite(torch.as_tensor(trainer.callback_metrics.get("test/loss", 0.0)))
    again = kind.load_from_checkpoint(best.best_model_path, weights_only=True)
    trainer.test(again, data, verbose=False)
    trainer.validate(again, data, verbose=False)


def test_the_example_of_the_manual(root: Path, tmp_path: Path) -> None:
    """All defaults; and a metric is known that is better when it is higher."""
    best = BestCheckpoint("val/acc")
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, default_root_dir=tmp_path, callbacks=[best]
    )
    trainer.fit(lc.modules.ImageClassifier("lenet5"), lc.datamodules.MNIST(str(root)))
    assert trainer.global_step == 1 and best.mode == "max"
