"""Weights of classes: as scikit-learn and torch have them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import fails, write_folder, write_table
from mask_sets import write_folder as write_masks
from PIL import Image
from pytorch_lightning import Trainer
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from lightning_cnn.datamodules import ImageFolder, ImageTable, SegmentationFolder
from lightning_cnn.modules import CapsuleClassifier, ImageClassifier, MultiLabelClassifier, Segmenter
from lightning_cnn.modules.class_weights import balanced, balanced_labels
from lightning_cnn.options import IGNORE

WEIGHTS = [1.0, 2.0, 0.5]
SILENT: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    counts = torch.tensor([50, 10, 0, 4])
    classes = np.repeat(np.arange(4), counts)
    found = balanced(counts)
    expected = compute_class_weight("balanced", classes=np.unique(classes), y=classes)
    assert found[[0, 1, 3]].tolist() == pytest.approx(expected) and found[2] == 1
    assert float((found * counts).sum()) == pytest.approx(64)  # the mean over the images is 1
    assert balanced_labels(torch.tensor([5, 20, 0, 20]), 25).tolist() == [4, 0.25, 1, 0.25]


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, 28, 28, generator=generator), torch.randint(0, 3, (count,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_classifier(smoothing: float) -> None:
    images, labels = batch()
    model = ImageClassifier("ffnn", num_classes=3, class_weights=WEIGHTS, label_smoothing=smoothing).eval()
    logits = model(images)
    each = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS), reduction="none", label_smoothing=smoothing)
    assert float(model.loss((images, labels))[0]) == pytest.approx(float(each.mean()), rel=1e-6)
    # the mean over two shares is that over both: on any number of processes the same
    halves = [model.loss((images[half], labels[half]))[0] for half in (slice(0, 4), slice(4, 8))]
    assert float(sum(halves)) / 2 == pytest.approx(float(each.mean()), rel=1e-6)
    mixed = model.loss((images, F.one_hot(labels, 3).float()))[0]
    assert float(mixed) == pytest.approx(float(each.mean()), rel=1e-6)
    assert float(model.measure((images, labels), model.metrics["val"])["loss"]) == pytest.approx(
        float(F.cross_entropy(logits, labels)), rel=1e-6
    )
    plain = ImageClassifier("ffnn", num_classes=3).eval()
    plain.load_state_dict(model.state_dict())  # weights of classes are no weights of the network
    assert torch.equal(plain.loss((images, labels))[0], F.cross_entropy(plain(images), labels))


def test_the_loss_of_several_labels_and_of_capsules() -> None:
    images, labels = batch()
    several = torch.stack([labels > 0, labels > 1, labels < 2], 1).long()
    model = MultiLabelClassifier("ffnn", num_classes=3, class_weights=WEIGHTS).eval()
    logits, true = model(images), several.float()
    weights = true * torch.tensor(WEIGHTS) + (1 - true)
    each = F.binary_cross_entropy_with_logits(logits, true, weight=weights)
    assert float(model.loss((images, several))[0]) == pytest.approx(float(each), rel=1e-6)
    options: dict[str, Any] = {"num_classes": 3, "reconstruction_weight": 0}
    capsules = CapsuleClassifier("efficient_capsnet", class_weights=WEIGHTS, **options).eval()
    capsules._trainer = Trainer(**SILENT, accelerator="cpu")
    losses = capsules._losses((images, labels))[2]
    expected = (losses * torch.tensor(WEIGHTS)[labels]).mean()
    assert float(capsules.loss((images, labels))[0]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", [ImageClassifier, MultiLabelClassifier, Segmenter])
@pytest.mark.parametrize(
    ("weights", "telling"),
    [
        ([1.0, 2.0], "has 2 numbers, but there are 3 classes"),
        ([1.0, 2.0, -1.0], "`model.class_weights` -1.0"),
        ([1.0, 2.0, float("inf")], "`model.class_weights` inf"),
        ([0.0, 0.0, 0.0], "at least one must be above 0"),
    ],
)
def test_weights_that_do_not_fit(kind: Any, weights: list[float], telling: str) -> None:
    architecture = "unet_small" if kind is Segmenter else "ffnn"
    assert telling in fails(lambda: kind(architecture, num_classes=3, class_weights=weights))


def test_they_are_counted_in_the_training_part(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/often": 30, "train/rare": 10}, side=8)
    data = ImageFolder(str(tmp_path), image_size=8)
    options: dict[str, Any] = {"in_channels": 3, "image_size": 8, "class_weights": "balanced"}
    model = ImageClassifier("ffnn", num_classes=2, **options)
    trainer = Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", **SILENT)
    trainer.fit(model, data)
    assert model.class_weights.tolist() == pytest.approx([32 / 48, 32 / 16])
    assert "class_weights" not in model.state_dict()
    write_table(tmp_path, "train/often", "train/rare")
    table = ImageTable(str(tmp_path), image_size=8, val_split="last", val_fraction=0.25)
    several = MultiLabelClassifier("ffnn", num_classes=3, **options)
    Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", **SILENT).fit(several, table)
    assert several.class_weights.tolist() == pytest.approx(
        [1, 4 / 26, 1]
    )  # odd, large (26 of 30), and none of the test


def test_pixels_of_masks_are_counted(tmp_path: Path) -> None:
    write_masks(tmp_path, count=4)
    masks = [np.array(Image.open(path)) for path in sorted((tmp_path / "train" / "masks").iterdir())]
    pixels = np.concatenate([mask.ravel() for mask in masks])
    pixels = pixels[pixels != IGNORE]
    data = SegmentationFolder(str(tmp_path), image_size=32, batch_size=2, val_split="last", val_fraction=0.25)
    rest = np.concatenate([mask.ravel() for mask in masks[:3]])
    rest = rest[rest != IGNORE]
    model = Segmenter("unet_small", num_classes=3, class_weights="balanced", image_size=32, in_channels=3)
    Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", **SILENT).fit(model, data)
    expected = compute_class_weight("balanced", classes=np.unique(rest), y=rest)
    assert model.class_weights.tolist() == pytest.approx(expected) and len({*expected}) == 3
    assert len(rest) < len(pixels) and "class_weights" not in model.state_dict()
    images, labels = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer((images, labels), 0)
    model.eval()
    logits = model(batch[0])
    weighted, plain = (
        F.cross_entropy(logits, batch[1], weights, ignore_index=IGNORE) for weights in (model.class_weights, None)
    )
    assert float(model.loss(batch)[0]) == pytest.approx(float(weighted), rel=1e-5)
    metrics = model.make_metrics("val")
    model.measure(batch, metrics)
    of_images = [
        F.cross_entropy(logits[row : row + 1], batch[1][row : row + 1], ignore_index=IGNORE)
        for row in range(len(labels))
    ]
    assert float(metrics["loss"].compute()) == pytest.approx(float(sum(of_images)) / len(labels), rel=1e-5)
    assert float(plain) != pytest.approx(float(weighted), rel=1e-3)


def test_data_that_can_not_be_counted() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch()), batch_size=4)
    model = ImageClassifier("ffnn", num_classes=3, class_weights="balanced")
    trainer = Trainer(max_steps=1, accelerator="cpu", **SILENT)
    assert "`model.class_weights` balanced requires data that count" in fails(lambda: trainer.fit(model, loader))
