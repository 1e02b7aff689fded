import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_sets import KINDS, make, write_all
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn import datamodules
from lightning_cnn.datamodules import MaskDataModule
from lightning_cnn.figures import segmentation
from lightning_cnn.options import IGNORE

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
SMALL: dict[str, Any] = {"image_size": 32, "batch_size": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("masked"))


class Pixelwise(LightningModule):
    """A 1x1 convolution; keeps what it has seen."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.network = nn.Conv2d(channels, classes, 1)
        self.seen: list[Tensor] = []
        self.measured: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, masks = batch
        self.seen += [images.detach().clone(), masks.clone()]
        return F.cross_entropy(self.network(images), masks, ignore_index=IGNORE)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.measured += [*batch]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(data: MaskDataModule, **options: Any) -> Pixelwise:
    model = Pixelwise(data.in_channels, data.num_classes)
    silent: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**silent, **{"max_epochs": 2, "accelerator": "cpu", **options}, enable_checkpointing=False)
    trainer.fit(model, data)
    return model


def test_all_are_here() -> None:
    ours = {getattr(datamodules, name) for name in datamodules.__all__}
    found = {kind for kind in ours if issubclass(kind, MaskDataModule) and kind is not MaskDataModule}
    assert {kind for kind in found if kind.__module__.startswith("lightning_cnn.datamodules.segmentation.")} >= {*KINDS}


@each_kind
def test_facts_are_known_before_any_image_is_read(
    kind: type[MaskDataModule], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.open", None)
    data = make(kind, root)
    names = ("num_classes", "in_channels", "image_size", "has_background", "object_classes")
    assert data.facts() == {name: getattr(data, name) for name in names}
    assert len(data.class_names) == data.num_classes > 1
    assert data.has_background == (data.class_names[0] == "background")
    assert data.preprocessing.resize == "keep"
    assert make(kind, root, image_size=40).image_size == 40


@each_kind
def test_batches_fit_the_contract(kind: type[MaskDataModule], root: Path) -> None:
    data = make(kind, root, **SMALL)
    for stage in ("fit", "test"):
        data.prepare_data()
        data.setup(stage)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        count = 0
        for images, masks in loader:
            count += len(images)
            assert images.dtype == masks.dtype == torch.uint8
            assert images.shape == (len(masks), data.in_channels, *masks.shape[1:])
            scaled, classes = data.on_after_batch_transfer((images, masks), 0)
            assert (scaled.dtype, scaled.shape) == (torch.float32, images.shape)
            assert classes.dtype == torch.int64 and torch.equal(classes, masks.long())
            assert set(classes.unique().tolist()) <= {*range(data.num_classes), IGNORE}
            if loader.sampler.__class__.__name__ == "CropSampler":
                assert masks.shape[1:] == (32, 32)
            else:
                assert all(side % 32 == 0 for side in masks.shape[1:])
        assert count == len(loader.dataset)  # type: ignore[arg-type]


@each_kind
def test_the_whole_images_are_those_of_the_set(kind: type[MaskDataModule], root: Path) -> None:
    data = make(kind, root, **SMALL)
    data.setup("test")
    tested = data.dataset("test")
    position = 0
    for images, masks in data.test_dataloader():
        for image, mask in zip(images, masks, strict=True):
            own, classes = tested.whole(position)
            height, width = classes.shape
            assert torch.equal(image[:, :height, :width], own) and torch.equal(mask[:height, :width], classes)
            assert (mask[height:] == IGNORE).all() and (mask[:, width:] == IGNORE).all()
            assert torch.equal(image[:, height:, :width], own[:, -1:].expand_as(image[:, height:, :width]))
            assert torch.equal(tested.sizes[position], torch.tensor(classes.shape))
            position += 1
    assert position == len(tested)


@each_kind
def test_a_model_trains_on_it(kind: type[MaskDataModule], root: Path) -> None:
    data = make(kind, root, **SMALL, augment={"rotation": 20, "flip": True})
    model = fitted(data, fast_dev_run=True)
    images, masks = model.seen
    assert images.shape[2:] == masks.shape[1:] == (32, 32) and masks.dtype == torch.int64


@each_kind
def test_the_figures(kind: type[MaskDataModule], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    draw = segmentation.masked_grid

    def noted(pairs: Any, *content: Any, **layout: Any) -> Figure:
        given.append(pairs)
        return draw(pairs, *content, **layout)

    monkeypatch.setattr(segmentation, "masked_grid", noted)
    data = make(kind, root, **SMALL, augment={"rotation": 30})
    assert isinstance(data.plot(2), Figure)
    assert isinstance(data.plot(2, augmented=True), Figure)
    whole, pairs = given
    for (image, mask), position in zip(whole, (0, len(data.dataset("train")) - 1), strict=True):
        own, classes = data.dataset("train").whole(position)
        assert torch.equal(image, own / 255) and torch.equal(mask, classes)
    assert len(pairs) == 4
    middles = data.preprocessing.unscale(data.training_images(2))
    assert torch.allclose(torch.stack([pairs[0][0], pairs[2][0]]), middles, atol=1e-6)
    assert not torch.equal(pairs[0][0], pairs[1][0])


@each_kind
def test_scaling_is_measured_on_the_pixels_of_training_alone(kind: type[MaskDataModule], root: Path) -> None:
    data = make(kind, root, **SMALL)
    data.setup("fit")
    train = data.dataset("train")
    pixels = torch.cat([train.whole(position)[0].flatten(1) for position in range(len(train))], 1).double() / 255
    assert data.preprocessing.mean == pytest.approx(pixels.mean(1).tolist())
    assert data.preprocessing.std == pytest.approx(pixels.std(1, correction=0).tolist())
    other = make(kind, root, **SMALL)
    other.load_state_dict(data.state_dict())
    other.setup("test")
    assert "train" not in other._sets and other.preprocessing == data.preprocessing


@each_kind
def test_all_arguments_are_hyperparameters(kind: type[MaskDataModule], root: Path) -> None:
    data = make(kind, root)
    signature = inspect.signature(kind).parameters
    assert data.hparams.keys() == signature.keys()
    assert all(option not in signature for option in kind.fixed)
    assert data.again(kind, batch_size=2).hparams == {**data.hparams, "batch_size": 2}


def test_overfitting_sees_the_same_crops(root: Path) -> None:
    model = fitted(make(KINDS[0], root, **SMALL), overfit_batches=1)
    first, masks, second, again = model.seen
    assert first.shape[2:] == (32, 32) and torch.equal(first, second) and torch.equal(masks, again)


def test_epochs_and_seeds_have_their_own_crops(root: Path) -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(fitted(make(KINDS[0], root, **SMALL, augment={"zoom": 0.2})).seen)
    assert all(map(torch.equal, runs[0], runs[1]))
    assert not torch.equal(runs[0][0], runs[2][0])
    first, second = (torch.cat(runs[0][place : place + 4 : 2]) for place in (0, 4))  # the images of two epochs
    assert len(first) == len(second) == 5
    assert not any(torch.equal(one, other) for one in first for other in second)


def test_a_resumed_run_sees_what_an_unbroken_one_sees(root: Path) -> None:
    """The crops and their augmentation, also from the middle of an epoch on."""
    data = make(KINDS[0], root, image_size=32, batch_size=2, augment={"rotation": 20})
    data.setup("fit")
    whole = data.train_dataloader()
    whole.sampler.set_epoch(3)  # type: ignore[attr-defined]
    unbroken = list(whole)
    other = data.train_dataloader()
    other.sampler.go_on(3, 1)  # type: ignore[attr-defined]
    for (images, masks), (own, classes) in zip(unbroken[1:], other, strict=True):
        assert torch.equal(images, own) and torch.equal(masks, classes)
