"""Mean average precision: what pycocotools says of the same boxes, written as files of COCO."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from lightning_cnn.modules.detection_metrics import DetectionMetrics, NumberDetectionMetrics

Predictions = list[dict[str, Tensor]]


def by_pycocotools(predictions: Predictions, labels: Tensor, folder: Path) -> dict[str, float]:
    """`map`, `map50` and `map_<digit>` from a ground-truth file and a results file, one evaluation each."""
    true: list[Any] = []
    found: list[Any] = []
    for image, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        for digit, *box in label[label[:, 0] != -1].tolist():
            left, top, right, bottom = box
            kind, crowd = (int(digit), 0) if digit >= 0 else (int(-2 - digit), 1)
            entry: dict[str, Any] = {"id": len(true) + 1, "image_id": image, "category_id": kind, "iscrowd": crowd}
            true.append(entry | {"bbox": [left, top, right - left, bottom - top], "area": 1000.0})
        for digit, box, score in zip(*(prediction[name] for name in ("labels", "boxes", "scores")), strict=True):
            left, top, right, bottom = box.float().tolist()
            entry = {"image_id": image, "category_id": int(digit), "score": score.float().item()}
            found.append(entry | {"bbox": [left, top, right - left, bottom - top]})
    images, kinds = [{"id": image} for image in range(len(labels))], [{"id": digit} for digit in range(10)]
    content = {"info": {}, "images": images, "categories": kinds, "annotations": true}
    (folder / "true.json").write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(found))
    truth = COCO(str(folder / "true.json"))
    if not found:
        return {"map": 0.0, "map50": 0.0} | {f"map_{entry['category_id']}": 0.0 for entry in true}
    results = truth.loadRes(str(folder / "found.json"))

    def stats(digits: list[int]) -> Any:
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.catIds = digits
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats

    every = stats(list(range(10)))
    each = {
        f"map_{digit}": stats([digit])[0] for digit in {entry["category_id"] for entry in true if not entry["iscrowd"]}
    }
    return {"map": every[0], "map50": every[1]} | each


def measured(predictions: Predictions, labels: Tensor) -> dict[str, float]:
    metric = NumberDetectionMetrics(per_class=True)
    metric.update(predictions, labels, torch.zeros(len(labels), dtype=torch.bool))
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values.pop("acc") == 0
    return values


def label_of(*rows: list[float], room: int = 6) -> Tensor:
    """`(room, 5)` of rows of digit, left, top, right, bottom."""
    found = torch.full((room, 5), -1.0)
    found[: len(rows)] = torch.tensor(rows).reshape(-1, 5)
    return found


def sampled(images: int, most: int, seed: int, digits: int = 10, side: float = 128) -> tuple[Predictions, Tensor]:
    """Images with boxes of broken sizes, of which some are found, some are found askew, and some are invented."""
    random = np.random.default_rng(seed)
    predictions, labels = [], []
    for image in range(images):
        count = random.integers(0, 6) if image % 5 else 0
        corner, size = random.uniform(0, side - 40, (count, 2)), random.uniform(5, 40, (count, 2))
        true = np.concatenate([random.integers(0, digits, (count, 1)), corner, corner + size], 1)
        labels.append(label_of(*true.tolist()))
        told = true[random.random(count) < 0.8].repeat(random.integers(1, 3), axis=0) if count else true
        told[:, 1:] += random.normal(0, 2, (len(told), 4)) * random.integers(0, 2, (len(told), 1))
        wrong = random.integers(0, most) if image % 7 else 0
        corner, size = random.uniform(0, side - 40, (wrong, 2)), random.uniform(5, 40, (wrong, 2))
        told = np.concatenate(
            [told, np.concatenate([random.integers(0, 10, (wrong, 1)), corner, corner + size], 1)]
        ).astype(np.float32)
        if image % 7 == 3:
            told = told[:0]
        scores = random.random(len(told)).astype(np.float32)
        predictions.append(
            {
                "labels": torch.from_numpy(told[:, 0]).long(),
                "boxes": torch.from_numpy(told[:, 1:]),
                "scores": torch.from_numpy(scores),
            }
        )
    return predictions, torch.stack(labels)


def test_three_of_five_photos(tmp_path: Path) -> None:
    """61 of 101 recalls are reached: 0.6040, not 0.5941 as with recalls of float32."""
    box = [3.0, 10, 10, 30, 50]
    labels = torch.stack([label_of(box)] * 5)
    one = {"labels": torch.tensor([3]), "boxes": torch.tensor([box[1:]]), "scores": torch.tensor([0.9])}
    none = {"labels": one["labels"][:0], "boxes": one["boxes"][:0], "scores": one["scores"][:0]}
    values = measured([one, none, one, none, one], labels)
    assert values == pytest.approx({"map": 61 / 101, "map50": 61 / 101, "map_3": 61 / 101})
    assert values == pytest.approx(by_pycocotools([one, none, one, none, one], labels, tmp_path))


@pytest.mark.parametrize(
    ("images", "most", "digits"),
    [(60, 6, 10), (12, 400, 10), (30, 6, 3)],
    ids=["some", "over 100 found", "few classes"],
)
def test_precision_is_that_of_pycocotools(images: int, most: int, digits: int, tmp_path: Path) -> None:
    """Also in images without boxes or detections, of classes that occur nowhere, and with more than 100 detections."""
    predictions, labels = sampled(images, most, seed=images, digits=digits)
    if most > 100:  # of one class
        for found in predictions:
            found["labels"][len(found["labels"]) // 8 :] = 4
        assert max(int((found["labels"] == 4).sum()) for found in predictions) > 120
    values, wanted = measured(predictions, labels), by_pycocotools(predictions, labels, tmp_path)
    assert values == pytest.approx(wanted, abs=1e-6) and 0.1 < values["map"] < values["map50"] < 1
    assert len(values) == 2 + len(labels[..., 0][labels[..., 0] >= 0].unique()) <= 2 + digits


def test_crowds_empties_and_ties(tmp_path: Path) -> None:
    """A crowd takes any number of detections of its class, and hides none of another; equal scores keep their order."""
    predictions, labels = sampled(60, 6, seed=9, digits=4)
    draw = torch.Generator().manual_seed(1)
    for found, label in zip(predictions, labels, strict=True):
        found["scores"] = (found["scores"] * 4).round() / 4
        crowds = (torch.rand(len(label), generator=draw) < 0.25) & (label[:, 0] >= 0)
        label[crowds, 0] = -2 - label[crowds, 0]
        label[crowds, 1:3] -= 20
        label[crowds, 3:] += 20
    labels[:, 5] = torch.tensor([-2.0 - 7, 0, 0, 60, 60])  # a class that has crowds only
    values, wanted = measured(predictions, labels), by_pycocotools(predictions, labels, tmp_path)
    assert values == pytest.approx(wanted, abs=1e-6) and 0.1 < values["map"] < values["map50"] < 1
    assert "map_7" not in values
    objects = torch.where(labels[..., :1] <= -2, -1.0, labels)  # as if the crowds were background
    assert measured(predictions, objects)["map"] < values["map"]
    only_crowds = torch.where(labels[..., :1] >= 0, -1.0, labels)
    assert str(measured(predictions, only_crowds)) == "{'map': nan, 'map50': nan}"


def test_curves_are_those_of_pycocotools(tmp_path: Path) -> None:
    predictions, labels = sampled(30, 6, seed=12, digits=3)
    metric = DetectionMetrics()
    metric.update(predictions, labels)
    values = metric.compute()
    assert metric.curves is not None
    precision, classes = metric.curves
    assert precision.shape == (101, 3) and classes == [0, 1, 2]
    by_pycocotools(predictions, labels, tmp_path)
    truth = COCO(str(tmp_path / "true.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "found.json")), "bbox")
    evaluation.params.catIds = classes
    evaluation.evaluate()
    evaluation.accumulate()
    assert np.array_equal(precision.numpy(), evaluation.eval["precision"][0, :, :, 0, 2])
    assert float(values["map50"]) == pytest.approx(float(precision.mean()), abs=1e-6)


def test_half_precision_is_that_of_the_same_numbers(tmp_path: Path) -> None:
    predictions, labels = sampled(40, 6, seed=3)
    half = [
        {name: part.bfloat16() if part.is_floating_point() else part for name, part in found.items()}
        for found in predictions
    ]
    values = measured(half, labels)
    assert values == pytest.approx(by_pycocotools(half, labels, tmp_path), abs=1e-6)
    assert values["map"] != pytest.approx(measured(predictions, labels)["map"], abs=1e-4)


def test_nothing_found_and_nothing_there(tmp_path: Path) -> None:
    predictions, labels = sampled(20, 6, seed=4)
    nothing = [{name: part[:0] for name, part in found.items()} for found in predictions]
    assert measured(nothing, labels) == by_pycocotools(nothing, labels, tmp_path)
    assert str(measured(predictions, torch.full_like(labels, -1))) == "{'map': nan, 'map50': nan}"


def test_processes_and_batches_make_no_difference(tmp_path: Path) -> None:
    """Three processes with unlike counts of images, one of which has found nothing; gathered as Lightning does it."""
    predictions, labels = sampled(31, 6, seed=5)
    for found in predictions[20:22]:
        found.update({name: part[:0] for name, part in found.items()})
    whole = NumberDetectionMetrics(per_class=True)
    whole.update(predictions, labels, torch.arange(31) % 2 == 0)
    parts = [NumberDetectionMetrics(per_class=True) for _ in range(3)]
    for metric, borders in zip(parts, ([0, 1, 9, 20], [20, 22], [22, 31]), strict=True):
        for first, last in pairwise(borders):
            metric.update(predictions[first:last], labels[first:last], torch.arange(first, last) % 2 == 0)
    states = iter([[torch.cat(getattr(part, name)) for part in parts] for name in ("found", "true", "counts", "right")])
    parts[0].distributed_available_fn = lambda: True
    parts[0].dist_sync_fn = lambda own, group=None: next(states)
    assert parts[0].compute() == whole.compute()
    wanted = by_pycocotools(predictions, labels, tmp_path) | {"acc": 16 / 31}
    assert {name: float(value) for name, value in whole.compute().items()} == pytest.approx(wanted, abs=1e-6)
