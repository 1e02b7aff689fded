"""Tables and figures of a classification: every number against scikit-learn, every name where it can be read."""

import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics

from lightning_cnn.figures.attribution import map_grid, png
from lightning_cnn.figures.classification import class_figures, class_tables, confusion_matrix
from lightning_cnn.figures.collected import IMAGES
from lightning_cnn.figures.images import LINE, as_rgb, curves, image_grid
from lightning_cnn.figures.segmentation import compared, masked_grid
from lightning_cnn.figures.style import shortened

NAMES = ["cat", "dog", "emu", "yak", "ape"]


def answers() -> dict[str, torch.Tensor]:
    """Of 200 images of four classes, three of four right; the fifth class does not occur, and is predicted once."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 200)
    predictions = np.where(random.random(200) < 0.75, labels, random.integers(0, 4, 200))
    predictions[labels.argmax()] = 4
    return {"labels": torch.from_numpy(labels), "predictions": torch.from_numpy(predictions)}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels_are_shown(channels: int) -> None:
    images = torch.rand(3, channels, 8, 8)
    (shown,) = image_grid(images, ["a", "b", "c"], columns=3).axes[0].images
    pixels = shown.get_array()
    assert pixels is not None
    expected = images[:, :3] if channels > 2 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    first = np.round(255 * expected[0].permute(1, 2, 0).numpy())
    assert np.abs(pixels[-8:, :8].astype(float) - first).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_masks_and_maps_over_images_of_any_number_of_channels(channels: int) -> None:
    images, masks = torch.rand(2, channels, 8, 8), torch.randint(0, 2, (2, 8, 8))
    plain = as_rgb(images)
    pairs, names = [*zip(images, masks, strict=True)], ["background", "cell"]
    drawn = (masked_grid(pairs, names), compared(images, masks, masks, ["a", "b"], names))
    assert all(len(figure.axes[0].images) == 1 for figure in drawn)
    map_grid(images, torch.rand(2, 8, 8), [("a", "b")] * 2)
    with Image.open(io.BytesIO(png(images[0]))) as picture:
        shown = np.asarray(picture)
    assert np.array_equal(shown, np.round(255 * plain[0].permute(1, 2, 0).numpy()).astype(np.uint8))


def test_tables_of_classes() -> None:
    kept = answers()
    labels, predictions = kept["labels"].numpy(), kept["predictions"].numpy()
    tables = dict(class_tables(kept, NAMES))
    header, rows = tables["confusion"]
    assert header == ["true", *NAMES] and [row[0] for row in rows] == NAMES
    true = metrics.confusion_matrix(labels, predictions, labels=range(5))
    assert np.array_equal([row[1:] for row in rows], true)

    header, rows = tables["confused"]
    assert header == ["true", "predicted", "images", "share"]
    pairs = {(NAMES[a], NAMES[b]): true[a, b] for a in range(5) for b in range(5) if a != b and true[a, b]}
    assert {(row[0], row[1]): row[2] for row in rows} == pairs and len(rows) == len(pairs)
    assert [row[2] for row in rows] == sorted(pairs.values(), reverse=True)
    assert [row[3] for row in rows] == pytest.approx([row[2] / true[NAMES.index(row[0])].sum() for row in rows])

    header, rows = tables["classes"]
    assert header == ["class", "precision", "recall", "f1", "support"]
    expected = metrics.precision_recall_fscore_support(labels, predictions, labels=range(5), zero_division=np.nan)
    assert [row[2] for row in rows][4] is None  # no recall without an image
    found = np.array([row[1:] for row in rows], dtype=float)
    assert found[:4] == pytest.approx(np.array(expected).T[:4])
    assert found[4][[0, 2, 3]] == pytest.approx([0, 0, 0])


def test_table_of_any_number_of_labels() -> None:
    random = np.random.default_rng(1)
    labels, predictions = random.integers(0, 2, (2, 60, 4))
    labels[:, 3] = predictions[:, 3] = 0
    kept = {"labels": torch.from_numpy(labels), "predictions": torch.from_numpy(predictions)}
    ((name, (_, rows)),) = class_tables(kept, NAMES[:4])
    expected = metrics.precision_recall_fscore_support(labels, predictions, zero_division=np.nan)
    assert name == "classes" and rows[3] == ["yak", None, None, None, 0]
    assert np.array([row[1:] for row in rows[:3]], dtype=float) == pytest.approx(np.array(expected, dtype=float).T[:3])


def test_a_confusion_matrix_of_many_classes_shows_those_with_the_most_mistakes() -> None:
    counts = torch.diag(torch.full((100,), 1000))
    counts[90, 95], counts[95, 7] = 3, 2
    names = [f"class number {number}" for number in range(100)]
    axes = confusion_matrix(counts, names, "test").axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == 40 and {"class number 90", "class number 95", "class number 7"} <= {*shown}
    assert "40 of 100 classes with the most mistakes" in axes.get_title()
    assert sorted(text.get_text() for text in axes.texts) == ["1000"] * 40 + ["2", "3"]


def test_only_wrong_predictions_are_the_worst_and_without_one_there_is_no_figure() -> None:
    kept: dict[str, dict[str, torch.Tensor]] = {
        "answers": answers(),
        "sample": {IMAGES: torch.rand(2, 1, 8, 8)},
        "worst": {},
    }
    kept["sample"] |= {"labels": torch.tensor([0, 1]), "predictions": torch.tensor([0, 0])}
    figures = dict(class_figures(kept, NAMES, "test"))
    assert {*figures} == {"confusion", "predictions"}
    kept["worst"] = {name: part[1:] for name, part in kept["sample"].items()} | {"order": torch.tensor([2.5])}
    assert texts(dict(class_figures(kept, NAMES, "test"))["worst"]) == ["dog, taken for\ncat (loss 2.5)"]


def test_long_names_are_shortened_in_the_middle() -> None:
    long = "n02085620_Black_and_white_warbler_of_the_northern_woods_2"
    assert shortened(long, 12) == "n02085\u2026ods_2" and len(shortened(long, 12)) == 12
    assert shortened("short", 12) == "short"
    figure = image_grid(torch.rand(2, 3, 8, 8), [f"{long}, taken for\nemu", "emu"])
    first, second = texts(figure)
    assert first.split("\n")[0].endswith(", taken for") and max(map(len, first.split("\n"))) == LINE and second == "emu"
    # drawn, a title is no wider than its image
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    drawn = figure.axes[0].texts[0].get_window_extent(renderer)
    assert drawn.width < 0.95 * figure.dpi * 1.7


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_curves_have_whole_epochs_and_mark_the_best(epochs: int) -> None:
    points = [(float(epoch), 1.0 / (1 + epoch)) for epoch in range(epochs)]
    figure = curves({"train/loss": points, "val/loss": points}, best=epochs // 2)
    axes = figure.axes[0]
    figure.canvas.draw()  # type: ignore[attr-defined]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks and all(tick == round(tick) for tick in ticks) and high - low >= 1
    assert [line.get_xdata()[0] for line in axes.lines if line.get_label() == "best epoch"] == [epochs // 2]  # type: ignore[index]
    assert not [line for line in curves({"val/loss": points}).axes[0].lines if line.get_label() == "best epoch"]
