"""The figures and tables of a classification: confusion matrix, precision and recall, the worst images, a sample."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_cnn.figures.collected import IMAGES, ORDER, Table
from lightning_cnn.figures.images import image_grid
from lightning_cnn.figures.style import shortened

MOST_CLASSES = 40  # of a confusion matrix in which counts can be read
NAME = 24  # characters of the name of a class at an axis


def class_figures(
    kept: Mapping[str, Mapping[str, Any]], class_names: Sequence[str], title: str
) -> Iterator[tuple[str, Figure]]:
    """Names and figures.

    Args:
        kept: Rows of `labels` and `predictions`, both classes: `answers`, all of them; `worst`, ordered by their loss,
            and `sample`, both with their `images`, float, 0 to 1, where these can be shown.
        class_names: Names of the classes.
        title: Of the confusion matrix.
    """
    counts = confusions(kept["answers"]["labels"], kept["answers"]["predictions"], len(class_names))
    yield "confusion", confusion_matrix(counts, class_names, f"{title}: {int(counts.sum()):,} images")
    worst, sample = kept["worst"], kept["sample"]
    if IMAGES not in sample:
        return
    if len(worst.get(IMAGES, ())):
        columns = (worst[name].tolist() for name in (ORDER, "labels", "predictions"))
        titles = [
            f"{class_names[true]}, taken for\n{shortened(class_names[guess], 13)} (loss {loss:.1f})"
            for loss, true, guess in zip(*columns, strict=True)
        ]
        yield "worst", image_grid(worst[IMAGES], titles)
    titles = [
        f"\u2713 {class_names[true]}" if true == guess else f"\u2717 {class_names[guess]},\nis {class_names[true]}"
        for true, guess in zip(*(sample[name].tolist() for name in ("labels", "predictions")), strict=True)
    ]
    yield "predictions", image_grid(sample[IMAGES], titles, columns=8)


def confusions(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """How often each class (row) was taken for each class (column), int64 `(classes, classes)`.

    Args:
        labels: True classes, int64 `(n,)`.
        predictions: Predicted ones, int64 `(n,)`.
        classes: Number of classes.
    """
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def class_tables(answers: Mapping[str, Tensor], class_names: Sequence[str]) -> Iterator[tuple[str, Table]]:
    """Names and tables.

    `confusion`: how often each class (row) was taken for each class (column). `confused`: pairs of classes, the most
    often confused first. `classes`: as of `scores`; it is the only one where an image has any number of labels.

    Args:
        answers: `labels` and `predictions`, both classes, int64 `(n,)`, or 1 for each label that an image has, int64
            `(n, classes)`.
        class_names: Names of the classes.
    """
    names = [*class_names]
    labels, predictions = answers["labels"], answers["predictions"]
    if labels.ndim == 2:
        yield "classes", scores((labels * predictions).sum(0), predictions.sum(0), labels.sum(0), names)
        return
    counts = confusions(labels, predictions, len(names)).cpu()
    yield "confusion", (["true", *names], [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)])
    wrong, support = counts.clone().fill_diagonal_(0), counts.sum(1)
    pairs = wrong.nonzero()[wrong[wrong > 0].argsort(descending=True, stable=True)].tolist()
    yield (
        "confused",
        (
            ["true", "predicted", "images", "share"],
            [
                [names[true], names[guess], int(wrong[true, guess]), float(wrong[true, guess] / support[true])]
                for true, guess in pairs
            ],
        ),
    )
    yield "classes", scores(counts.diagonal(), counts.sum(0), support, names)


def scores(right: Tensor, predicted: Tensor, support: Tensor, class_names: Sequence[str]) -> Table:
    """Precision, recall and F1 of each class, empty where they are not defined, and its support.

    Args:
        right: Number of images of each class that were recognized, int64 `(classes,)`.
        predicted: Number of images that were taken for each class, int64 `(classes,)`.
        support: Number of images of each class, int64 `(classes,)`.
        class_names: Names of the classes.
    """
    rows = [
        [
            name,
            hits / guesses if guesses else None,
            hits / images if images else None,
            2 * hits / (guesses + images) if guesses + images else None,
            images,
        ]
        for name, hits, guesses, images in zip(
            class_names, right.tolist(), predicted.tolist(), support.tolist(), strict=True
        )
    ]
    return ["class", "precision", "recall", "f1", "support"], rows


def confusion_matrix(counts: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """How often each class (row) was taken for each class (column), shaded by the share of the row.

    The row of a class that does not occur is gray. Of more than 40 classes it shows the 40 with the most mistakes.

    Args:
        counts: `(classes, classes)`, rows are the truth.
        class_names: Names of the classes.
        title: The title.
    """
    shares = counts / counts.sum(1, keepdim=True)  # NaN, not drawn, where a class does not occur
    if len(class_names) > MOST_CLASSES:
        mistakes = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
        shown = mistakes.argsort(descending=True, stable=True)[:MOST_CLASSES].sort().values
        counts, shares = (each[shown][:, shown] for each in (counts, shares))
        title += f"\nthe {MOST_CLASSES} of {len(class_names):,} classes with the most mistakes"
        class_names = [class_names[number] for number in shown.tolist()]
    n = len(class_names)
    size = min(14.0, max(4.5, 1.5 + 0.45 * n))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#dddddd")
    axes.imshow(shares.cpu().numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in counts.nonzero().tolist():
        color = "white" if shares[row, column] > 0.5 else "black"
        inside = axes.text(
            column, row, str(int(counts[row, column])), ha="center", va="center", color=color, fontsize=7
        )
        inside.set_in_layout(False)  # needs no room of its own, and there may be 1,600
    names = [shortened(name, NAME) for name in class_names]
    axes.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(n), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    return figure
