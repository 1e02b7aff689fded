"""Small images in the first epochs of a training: their sizes, their pixels, and who can't take them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from run_folders import learned, logged, same

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.datamodules import Digits
from lightning_cnn.datamodules.images.augmentation import Augmentation

SMALL = ["--data.augment.small_epochs", "2", "--data.augment.crop", "2", "--data.augment.cutout", "0.2"]
FIT = [
    *[
        "fit",
        "--data",
        "Digits",
        "--data.batch_size",
        "256",
        "--model.architecture",
        "resnet20_cifar",
        "--model.lr",
        "0.01",
    ],
    *[*SMALL, "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--wandb", "disabled"],
]


SEEN: set[tuple[str, int, int]] = set()  # part, epoch and side


class Sizes(Callback):
    """Notes the sizes of the images that each part shows."""

    def note(self, part: str, trainer: Trainer, batch: Any) -> None:
        if not trainer.sanity_checking:
            SEEN.add((part, trainer.current_epoch, batch[0].shape[-1]))

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        self.note("train", trainer, batch)

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, *_: Any) -> None:
        self.note("val", trainer, batch)


@pytest.mark.parametrize(("scale", "side"), [(0.75, 24), (0.5, 16), (0.7, 22), (1.0, 32), (0.001, 1)])
def test_pixels_are_those_of_pillow(scale: float, side: int) -> None:
    """Whose resampling looks at all pixels, too."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    change = Augmentation(small_epochs=3, small_scale=scale)
    small = change.shrink(images, 2)
    wanted = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)) for image in pixels]
    assert small.shape == (4, 3, side, side)
    assert np.abs(small.permute(0, 2, 3, 1).numpy() * 255 - np.stack(wanted)).max() < 1.01
    assert change.shrink(images, 3) is images and Augmentation().shrink(images, 0) is images


def test_the_scale_alone_changes_nothing() -> None:
    assert not Digits(augment={"small_scale": 0.5}).augmentation.active
    assert Digits(augment={"small_epochs": 1}).augmentation.active


def test_the_first_epochs_see_small_images() -> None:
    """And the validation none; the network learns from both sizes."""
    SEEN.clear()
    more = ["--trainer.max_epochs", "6", "--data.batch_size", "64", "--trainer.callbacks+=test_small_images.Sizes"]
    assert main([*FIT, *more]) == 0
    train = {(epoch, side) for part, epoch, side in SEEN if part == "train"}
    assert train == {(0, 21), (1, 21), (2, 28), (3, 28), (4, 28), (5, 28)}
    assert {side for part, _, side in SEEN if part == "val"} == {28}
    (folder,) = Path("runs").glob("*/*")
    assert lc.load_run(folder).metrics["val/acc"] > 0.8


@pytest.mark.slow
def test_both_sizes_are_compiled() -> None:
    assert main([*FIT, "--model.compile", "true"]) == 0
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled >= 2


@pytest.mark.parametrize("batch", [3, 9])
def test_a_run_that_goes_on_equals_an_unbroken_one(batch: int) -> None:
    """Broken off among small images, and after them."""
    assert main([*FIT, "--experiment", "whole"]) == 0
    crash = ["--trainer.callbacks+=disturbing.Crash", "--trainer.callbacks.batch", str(batch)]
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main([*FIT, *crash, "--checkpoint.every_n_steps", "1", "--experiment", "parts"])
    (whole,), (parts,) = Path("runs/whole").iterdir(), Path("runs/parts").iterdir()
    assert main(["fit", "--resume", str(parts)]) == 0
    assert same(learned(parts, "last.ckpt"), learned(whole, "last.ckpt"))
    assert logged(parts) == logged(whole)


def test_a_network_of_one_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, "--model.architecture", "lenet5"]) == 2
    said = capsys.readouterr().err.strip()
    assert "--data.augment.small_epochs: lenet5 does not take images of 21 pixels (" in said
    assert said.endswith("remove it, or set another --data.augment.small_scale") and len(said.splitlines()) == 1
    assert not [*Path("runs").rglob("run.json")]


def test_a_training_with_small_images_alone_says_so(recwarn: pytest.WarningsRecorder) -> None:
    for epochs, said in ((3, False), (2, True)):
        recwarn.clear()
        assert main([*FIT, "--trainer.max_epochs", str(epochs), "--trainer.limit_train_batches", "1"]) == 0
        assert any("small_epochs 2 of 2 epochs: no image of full size" in str(each.message) for each in recwarn) == said


@pytest.mark.parametrize("data", ["SyntheticShips", "SyntheticShipBoxes", "SyntheticBoxes"])
def test_masks_and_boxes_keep_their_size(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data", data, "--data.augment.small_epochs", "2", "--wandb", "disabled"]) == 2
    assert "--data.augment.small_epochs " in capsys.readouterr().err


def test_a_figure_shows_them(tmp_path: Path) -> None:
    words = ["--data", "Digits", "--data.augment.small_epochs", "1", "--data.augment.small_scale", "0.3"]
    assert main(["show", *words, "--output", "small.png"]) == 0
    assert Path("small.png").stat().st_size > 1000
