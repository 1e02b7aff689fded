import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from image_sets import fails, make, ready, write_all
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from lightning_cnn import datamodules, modules
from lightning_cnn.datamodules import (
    BoxDataModule,
    DigitBoxes,
    Digits,
    HouseNumbers,
    ImageDataModule,
    ImageFolder,
    MaskDataModule,
    OverlappingDigits,
    RotatedDigits,
)
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.figures import images as grids
from lightning_cnn.modules import (
    CapsuleClassifier,
    ImageClassifier,
)

OURS = [
    kind
    for kind in (getattr(datamodules, name) for name in datamodules.__all__)
    if issubclass(kind, ImageDataModule)
    and kind not in (ImageDataModule, HouseNumbers, BoxDataModule, DigitBoxes)
    and not issubclass(kind, MaskDataModule)  # of these tests of their own are in segmentation/
]
each_of_ours = pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root that every data set of ours can read."""
    folder = tmp_path_factory.mktemp("root")
    write_all(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *("SVHNBoxes", "SyntheticNumbers", "SyntheticReturns"),
        *("DetectionFolder", "SyntheticShipBoxes", "SyntheticShips"),
    ],
)
def test_the_command_line_takes_the_options_of_the_signature(name: str) -> None:
    """It reads the source: what a class sets itself it must set by name, in the call of its base."""
    kind, parser = getattr(datamodules, name), ArgumentParser()
    parser.add_class_arguments(kind, "data", fail_untyped=False)
    assert vars(parser.get_defaults()["data"]).keys() == inspect.signature(kind).parameters.keys()


@each_of_ours
def test_facts_are_known_before_any_data_is_loaded(
    kind: type[ImageDataModule], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not issubclass(kind, ImageFolder):  # whose classes are the names of the folders, or in a table
        root = root / "nowhere"
    monkeypatch.setattr("PIL.Image.open", None)
    data = make(kind, root)
    names = ("num_classes", "in_channels", "image_size", *["labels_per_image"] * (kind is OverlappingDigits))
    assert data.facts() == {name: getattr(data, name) for name in names}
    assert len(data.class_names) == (10 if issubclass(kind, HouseNumbers) else data.num_classes) > 0
    assert all(isinstance(name, str) for name in data.class_names)
    assert data.in_channels in (1, 3)
    assert data.image_size == data.preprocessing.image_size > 0
    padding = {} if issubclass(kind, HouseNumbers | BoxDataModule) else {"padding": 2}
    assert make(kind, root, image_size=32, **padding).image_size == 32


@each_of_ours
def test_batches_fit_the_facts(kind: type[ImageDataModule], root: Path) -> None:
    data = make(kind, root, batch_size=6)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert isinstance(loader, DataLoader)
        found = list(loader)
        assert len(found) == len(loader) > 0
        for images, labels, *more in found:
            assert images.shape == (len(labels), data.in_channels, data.image_size, data.image_size)
            assert images.dtype == torch.uint8
            if isinstance(data, BoxDataModule):
                assert labels.dtype == torch.float32 and labels.shape[1:] == (data.max_boxes, 5)
            elif issubclass(kind, HouseNumbers):
                assert labels.dtype == torch.int64 and labels.shape[1:] == (6,)
            elif data.label_kind == "numbers":
                assert labels.dtype == torch.float32 and labels.shape[1:] == (data.num_classes,)
            else:
                assert labels.dtype == torch.int64 and labels.min() >= 0 and labels.max() < data.num_classes
            scaled, same, *alone = cast(Any, data).on_after_batch_transfer((images, labels, *more), 0)
            assert len(alone) == len(more) == (2 if kind is OverlappingDigits else 0)
            assert (scaled.dtype, scaled.shape) == (torch.float32, images.shape)
            assert torch.equal(same, labels)
    assert len(next(iter(data.train_dataloader()))[1]) == 6


@each_of_ours
def test_a_model_trains_on_it(kind: type[ImageDataModule], root: Path) -> None:
    data = make(kind, root, batch_size=8, image_size=32)
    shape: dict[str, Any] = {"in_channels": data.in_channels, "image_size": data.image_size}
    task: Any = getattr(modules, kind.default_model)
    measured = "test/loss"
    if issubclass(kind, BoxDataModule):
        model, measured = task(num_classes=data.num_classes, image_size=data.image_size), "test/map"
    elif issubclass(kind, HouseNumbers):
        model = task("ffnn", **shape)
    elif kind is OverlappingDigits:
        model = CapsuleClassifier("efficient_capsnet", labels_per_image=2, **shape)
    else:
        model = task("ffnn", num_classes=data.num_classes, **shape)
    trainer = Trainer(
        fast_dev_run=True, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    assert trainer.callback_metrics[measured].isfinite()


@each_of_ours
def test_the_checkpoint_carries_the_scaling(kind: type[ImageDataModule], root: Path) -> None:
    data = ready(make(kind, root, normalize="auto"))
    torch.save(data.state_dict(), "state.pt")
    state = torch.load("state.pt", weights_only=True)
    state["preprocessing"]["mean"] = [0.5] * data.in_channels
    other = make(kind, root, normalize="auto")
    other.load_state_dict(state)
    other.setup("test")
    assert "train" not in other._sets  # nothing to be measured
    assert other.preprocessing.mean == (0.5,) * data.in_channels
    assert other.preprocessing.std == data.preprocessing.std
    assert Preprocessing.from_dict(data.state_dict()["preprocessing"]) == data.preprocessing


@each_of_ours
def test_the_pictures_of_the_training_data(
    kind: type[ImageDataModule], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    draw = grids.image_grid

    def noted(*content: Any, **layout: Any) -> Figure:
        given.append(content)
        return draw(*content, **layout)

    monkeypatch.setattr(grids, "image_grid", noted)
    if issubclass(kind, BoxDataModule | RotatedDigits):  # with boxes, or rotated: they have tests of their own
        assert isinstance(make(kind, root).plot(3), Figure)
        return
    if "augment" in kind.fixed:
        assert isinstance(make(kind, root).plot(3), Figure)
        return
    change = "shift" if "rotation" in kind.unfit else "rotation"
    data = make(kind, root, augment={change: 0.3 if change == "shift" else 30})
    assert isinstance(data.plot(3, augmented=True), Figure)
    assert isinstance(data.plot(3), Figure)
    (both, titles), (plain, names) = given
    count = len(data._sets["train"])  # type: ignore[arg-type]
    images, labels = data._sets["train"][torch.tensor([0, round((count - 1) / 2), count - 1])]
    assert torch.equal(plain, images / 255)
    assert names == [data.title(label) for label in labels]
    assert torch.equal(both[::2], plain) and titles[::2] == names
    assert both.shape[0] == 6 and titles[1::2] == ["augmented"] * 3
    assert not torch.equal(both[1::2], plain)


@each_of_ours
def test_all_arguments_are_hyperparameters(kind: type[ImageDataModule], root: Path) -> None:
    data = make(kind, root, split_seed=np.int64(3))
    signature = inspect.signature(kind).parameters
    assert data.hparams.keys() == signature.keys()
    assert type(data.hparams["split_seed"]) is int
    usual = {name for name in signature if data.hparams[name] == signature[name].default}
    given = {"root", "split_seed", "check_md5", "handwriting", "train_images", "test_images"}
    assert signature.keys() - usual <= given
    assert all(option not in signature for option in kind.fixed)


def test_the_data_of_a_checkpoint_of_lightnings_trainer(root: Path) -> None:
    data = make(ImageFolder, root, image_size=8, padding=1, batch_size=8)
    model = ImageClassifier("ffnn", num_classes=2, in_channels=3, image_size=8)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(model, data)
    trainer.save_checkpoint("data.ckpt")
    again = ImageFolder.load_from_checkpoint("data.ckpt", weights_only=True)
    assert again.hparams == data.hparams
    assert again.preprocessing == data.preprocessing


def test_options_that_are_no_plain_data() -> None:
    assert "`data.root`: object is not plain data" in fails(lambda: Digits(object()))  # type: ignore[arg-type]


def test_the_room_loads_what_is_used() -> None:
    code = "import sys, lightning_cnn.datamodules as room; assert 'torch' not in sys.modules; room.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "has no attribute nothing" in done.stderr
