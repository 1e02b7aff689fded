"""Detection of digits: boxes of photos, the grid detector by hand-computed cases, metrics, and real training."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from run_folders import only_run, record
from svhn_files import write_folder
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_cnn.architectures.grid_detector import GridDetector, _boxes, assign
from lightning_cnn.cli import main
from lightning_cnn.datamodules.batches import Batch
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.boxes import DigitBoxes
from lightning_cnn.datamodules.house_numbers.letterbox import letterbox, unletterbox
from lightning_cnn.datamodules.house_numbers.svhn_boxes import SVHNBoxes
from lightning_cnn.datamodules.house_numbers.synthetic_boxes import SyntheticBoxes
from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError
from lightning_cnn.figures.collected import Collected
from lightning_cnn.figures.detection import draw_detections
from lightning_cnn.modules.detection_metrics import NumberDetectionMetrics
from lightning_cnn.modules.detection_networks import DetectorName, create_detector
from lightning_cnn.modules.detector import targets
from lightning_cnn.modules.digit_detector import DigitDetector, number_of, read_number

SIDE = 64
SOLO = [7.0, 8.0, 26.0, 28.0, 60.0]


def annotations_of(*images: list[list[float]]) -> DigitAnnotations:
    """Rows of digit, left, top, right, bottom for each image."""
    rows = np.array([row for image in images for row in image], dtype=np.float32).reshape(-1, 5)
    starts = np.cumsum([0, *map(len, images)])
    names = [f"{number}.png" for number in range(1, 1 + len(images))]
    return DigitAnnotations(names, starts, rows[:, 0].astype(np.uint8), rows[:, 1:], np.zeros((len(images), 2), int))


class FourPhotos(DigitBoxes):
    """Four rendered photos, the same in training, validation and test: whoever sees them often knows them by heart."""

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        return SyntheticBoxes(
            image_size=self.image_size, handwriting=0, train_images=4, test_images=4, normalize="unit"
        ).load(train=True)

    def open_parts(self, parts: object) -> dict[str, Dataset[Batch]]:
        four = super().open_parts(["test"])["test"]
        many: Dataset[Batch] = type(four)(four.images.repeat(25, 1, 1, 1), four.labels.repeat(25, 1, 1))  # type: ignore[attr-defined, call-arg]
        return {"train": many, "val": four, "test": four}

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train")  # in order, so that all four are in each batch


TRAIN = ["train", "--data", "test_digit_detector.FourPhotos", "--data.image_size", str(SIDE), "--data.batch_size", "4"]
TRAIN += ["--model", "lightning_cnn.modules.digit_detector.DigitDetector", "--wandb", "disabled"]
TRAIN += ["--checkpoint.monitor", "val/map", "--trainer.gradient_clip_val", "5"]
TRAIN += ["--trainer.check_val_every_n_epoch", "2"]
PIXELS = ["--data", "Digits", "--data.image_size", "32", "--trainer.check_val_every_n_epoch", "1"]


# geometry


@pytest.mark.parametrize(("width", "height"), [(100, 40), (40, 100), (33, 33), (200, 201), (300, 17)])
def test_boxes_lie_where_pillow_puts_the_photo(width: int, height: int) -> None:
    photo = Image.new("RGB", (width, height), "white")
    square = np.asarray(ImageOps.pad(photo, (SIDE, SIDE)))[..., 0] > 127
    rows, columns = np.flatnonzero(square.any(1)), np.flatnonzero(square.any(0))
    whole = [[0, 0, width, height]]
    box = letterbox(whole, [(width, height)], SIDE)
    assert box.tolist() == [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]
    assert np.allclose(unletterbox(box, [(width, height)], SIDE), whole, atol=1e-4)


def test_letterbox_by_hand() -> None:
    # 100x50 becomes 64x32 with bars of 16 above and below
    assert letterbox([[25, 10, 50, 40]], [(100, 50)], 64)[0].tolist() == pytest.approx([16, 22.4, 32, 41.6])
    assert unletterbox([[-5, 0, 32, 48]], [(100, 50)], 64).tolist() == [[0, 0, 50, 50]]


# data


def test_labels_and_targets_there_and_back() -> None:
    data = DigitBoxes(image_size=SIDE, max_boxes=3)
    first, second = [[3.0, 1, 2, 11, 22], [0.0, 12, 2, 20, 22]], [SOLO]
    labels = data.boxes_as_labels(annotations_of(first, second, []))
    assert labels.shape == (3, 3, 5) and labels.dtype == torch.float32
    found = targets(labels)
    assert [target["labels"].tolist() for target in found] == [[4, 1], [8], []]
    assert found[0]["boxes"].tolist() == [row[1:] for row in first]
    assert found[1]["boxes"].tolist() == [SOLO[1:]] and found[2]["boxes"].shape == (0, 4)
    assert [number_of(label) for label in labels] == ["30", "7", ""]


def test_boxes_beyond_the_photo(recwarn: pytest.WarningsRecorder) -> None:
    data = DigitBoxes(image_size=SIDE, max_boxes=2)
    labels = data.boxes_as_labels(annotations_of([[5.0, -9, 10, 9, 80], [6.0, 64, 0, 80, 9]], [SOLO]))
    assert labels[0].tolist() == [[5, 0, 10, 9, 64], [-1] * 5]
    (warning,) = [str(entry.message) for entry in recwarn if "skipped" in str(entry.message)]
    assert "1 of 3 boxes" in warning and "1.png" in warning
    with pytest.raises(UserError, match=r"1.png has 3 digits: try `data.max_boxes` 3"):
        data.boxes_as_labels(annotations_of([SOLO] * 3))


def photos() -> Iterator[tuple[NDArray[np.uint8], list[list[float]]]]:
    """Grey photos with a red field for each digit; label, left, top, width and height as in the official file."""
    for number, (height, width) in enumerate([(40, 100), (90, 30), (48, 48), (60, 120)]):
        photo = np.full((height, width, 3), 90, dtype=np.uint8)
        digits = [[10.0, 4, 6, 8, 24], [number + 1.0, 14, 8, 10, 20]]
        for _, left, top, wide, high in digits:
            photo[int(top) : int(top + high), int(left) : int(left + wide)] = (255, 0, 0)
        yield photo, digits


def test_svhn_boxes(tmp_path: Path) -> None:
    content = list(photos())
    for part in ("train", "test"):
        write_folder(tmp_path / part, [photo for photo, _ in content], [digits for _, digits in content])
    data = SVHNBoxes(root=str(tmp_path), image_size=96, normalize="unit", val_split="last", val_fraction=0.25)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert [len(data.dataset(part)) for part in ("train", "val", "test")] == [3, 1, 4]  # type: ignore[arg-type]
    images, labels = data.load(train=True)
    assert images.shape == (4, 3, 96, 96) and images.dtype == torch.uint8 and labels.shape == (4, 6, 5)
    assert labels[:, :2, 0].tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]] and (labels[:, 2:] == -1).all()
    # 100x40 in a square of 96: the scale is .96, the height 38.4, rounded to 38, and so 29 pixels lie above
    expected = [4 * 0.96, 29 + 6 * 38 / 40, 12 * 0.96, 29 + 30 * 38 / 40]
    assert labels[0, 0, 1:].tolist() == pytest.approx(expected)
    red = (images[:, 0].int() - images[:, 1].int() > 100).numpy()
    for mask, label in zip(red, labels, strict=True):
        drawn = np.zeros_like(mask)
        for _, left, top, right, bottom in label[:2].round().int().tolist():
            drawn[top:bottom, left:right] = True
        assert (drawn & mask).sum() > 0.85 * (drawn | mask).sum()
    assert len(data.plot(4).axes[0].patches) == 2 * 3  # of the three training images
    assert data.state_dict()["preprocessing"]["resize"] == "pad"


def test_synthetic_boxes() -> None:
    make = dict(image_size=SIDE, handwriting=0.0, train_images=40, test_images=10)
    one, two = SyntheticBoxes(**make), SyntheticBoxes(**make)  # type: ignore[arg-type]
    images, labels = one.load(train=False)
    assert images.shape == (10, 3, SIDE, SIDE) and labels.shape == (10, 6, 5)
    again = two.load(train=False)
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    there = labels[..., 0] >= 0
    assert there.any(1).all() and labels[there][:, 0].max() <= 9
    boxes = labels[there][:, 1:]
    assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= SIDE


# the grid


def test_cells_of_boxes() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],  # centre 5, 5: row 0, column 0
            [20, 8, 28, 30],  # centre 24, 19: on the border, and so row 2, column 3
            [60, 60, 68, 68],  # centre 64, 64: just outside, the last cell
            [0, 8, 14, 30],  # of the second image, centre 7, 19: row 2, column 0
            [4, 16, 10, 22],  # the same cell, and smaller
        ]
    )
    cells, chosen = assign(boxes, torch.tensor([0, 0, 0, 1, 1]), (2, 8, 8))
    # its own cell, and its neighbors on the nearer sides, where there are any
    assert cells.tolist() == [0, 1, 8, 9, *(10, 11, 18, 19), 63, *(72, 73, 80, 81)]
    assert chosen.tolist() == [0] * 4 + [1] * 4 + [2] + [4] * 4
    # 6, 4 of the large box and 9, 3 of the small one, each in a cell of its own that both claim
    cells, chosen = assign(torch.tensor([[0.0, 0, 12, 8], [8, 2, 10, 4]]), torch.tensor([0, 0]), (1, 8, 8))
    assert cells[:2].tolist() == [0, 1] and chosen[:2].tolist() == [0, 1]
    # cells of 4 pixels
    cells, _ = assign(torch.tensor([[0.0, 0, 6, 6]]), torch.tensor([0]), (1, 16, 16), cell=4)
    assert cells.tolist() == [0, 1, 16, 17]
    cells, chosen = assign(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (2, 8, 8))
    assert cells.tolist() == chosen.tolist() == []


def test_boxes_of_cells() -> None:
    raw = torch.zeros(1, 8, 8, 4)
    raw[0, 2, 3, 2] = -math.log(3)  # a quarter of the image's width
    boxes = _boxes(raw, 8)
    assert boxes[0, 2, 3].tolist() == pytest.approx([28 - 8, 20 - 16, 28 + 8, 20 + 16])


def perfect(labels: Tensor) -> tuple[GridDetector, Tensor]:
    """A detector that answers what the labels say, and the images to ask it with."""
    network = GridDetector().eval()
    answers = torch.full((len(labels), 15, 8, 8), -9.0)
    for image, label in enumerate(labels):
        for digit, left, top, right, bottom in label[label[:, 0] >= 0].tolist():
            x, y = (left + right) / 16, (top + bottom) / 16
            share = [(right - left) / SIDE, (bottom - top) / SIDE]
            for column in (int(x), int(x) + (1 if x % 1 >= 0.5 else -1)):
                for row in (int(y), int(y) + (1 if y % 1 >= 0.5 else -1)):
                    values = torch.tensor([(x - column + 0.5) / 2, (y - row + 0.5) / 2, *share]).logit()
                    answers[image, :, row, column] = torch.cat([torch.tensor([9.0]), values, torch.full((10,), -9.0)])
                    answers[image, 5 + int(digit), row, column] = 9
    network.head.forward = lambda input: answers  # type: ignore[method-assign]
    return network, torch.zeros(len(labels), 3, SIDE, SIDE)


def test_right_answers_are_free_of_loss_and_are_found() -> None:
    data = DigitBoxes(image_size=SIDE, max_boxes=2)
    labels = data.boxes_as_labels(annotations_of([[3, 1, 2, 11, 22], [0, 12, 2, 20, 22]], [SOLO], []))
    network, images = perfect(labels)
    module = DigitDetector(image_size=SIDE).eval()
    module.network = network
    found = module(images)
    assert [entry["number"] for entry in found] == ["30", "7", ""]
    assert torch.allclose(found[0]["boxes"][found[0]["chosen"]], labels[0, :, 1:], atol=1e-3)
    losses = network.train()(list(images), targets(labels))
    assert set(losses) == {"loss_confidence", "loss_box", "loss_class"}
    assert all(0 <= loss < 0.01 for loss in losses.values())
    metric = NumberDetectionMetrics(per_class=True)
    right = torch.tensor([entry["number"] == number_of(label) for entry, label in zip(found, labels, strict=True)])
    metric.update(found, labels, right)
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values == pytest.approx({name: 1.0 for name in ("map", "map50", "acc", "map_0", "map_3", "map_7")})


def test_gradients_reach_every_parameter() -> None:
    network = GridDetector()
    target = {"boxes": torch.tensor([SOLO[1:]]), "labels": torch.tensor([8])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    sum(network(list(torch.randn(2, 3, SIDE, SIDE)), [target, none]).values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert 1e6 < sum(parameter.numel() for parameter in network.parameters()) < 3e6


@pytest.mark.parametrize("detector", get_args(DetectorName))
def test_every_detector(detector: str) -> None:
    torch.manual_seed(0)
    network = create_detector(detector, 10, 3, SIDE)[0]
    images = list(torch.randn(3, 3, SIDE, SIDE))
    two = {"boxes": torch.tensor([SOLO[1:], [40.0, 20, 60, 55]]), "labels": torch.tensor([8, 10])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = network(images, [two, none, two])
    loss = torch.stack([*losses.values()]).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in network.parameters())
    for found in network.eval()(images):
        assert found["boxes"].shape == (len(found["scores"]), 4) and len(found["labels"]) == len(found["scores"])
        assert ((found["boxes"] >= 0) & (found["boxes"] <= SIDE)).all()
    losses = network.train()(images[:2], [none, none])
    assert torch.isfinite(torch.stack([*losses.values()]).sum())


@pytest.mark.parametrize("side", [64, 200, 256])
def test_sizes_of_the_grid(side: int) -> None:
    assert len(GridDetector().eval()([torch.zeros(3, side, side)])) == 1


# reading and measuring


def test_reading_from_left_to_right() -> None:
    boxes = torch.tensor([[30.0, 0, 40, 20], [10, 0, 20, 20], [31, 0, 41, 20], [50, 0, 60, 20]])
    found = read_number(boxes, torch.tensor([5, 2, 6, 1]), torch.tensor([0.8, 0.9, 0.95, 0.3]), min_score=0.5)
    assert found["number"] == "26" and found["probability"] == pytest.approx(0.9 * 0.95)  # 6 lies over 5 and is surer
    assert found["chosen"].tolist() == [1, 2]
    nothing = read_number(boxes, torch.tensor([5, 2, 6, 1]), torch.zeros(4), min_score=0.5)
    assert (nothing["number"], nothing["probability"]) == ("", 0.0)


def answer(*rows: list[float]) -> dict[str, Tensor]:
    """Rows of digit, left, top, right, bottom, score."""
    table = torch.tensor(rows).reshape(-1, 6)
    return {"labels": table[:, 0].long(), "boxes": table[:, 1:5], "scores": table[:, 5]}


def measured() -> tuple[list[dict[str, Tensor]], Tensor, Tensor]:
    data = DigitBoxes(image_size=SIDE, max_boxes=2)
    labels = data.boxes_as_labels(annotations_of([[3, 0, 0, 10, 20], [4, 20, 0, 30, 20]], [SOLO], []))
    # 3 with IoU 0.82; 4 taken for a 5; 7 exactly; in the third image an invented 7, the least sure
    found = [answer([3, 0, 0, 10, 16.4, 0.9], [5, 20, 0, 30, 20, 0.9]), answer([*SOLO, 0.9]), answer([*SOLO, 0.1])]
    return found, labels, torch.tensor([False, True, False])


def test_precision_by_hand() -> None:
    metric = NumberDetectionMetrics(per_class=True)
    found, labels, right = measured()
    metric.update(found[:2], labels[:2], right[:2])
    metric.update(found[2:], labels[2:], right[2:])
    values = {name: float(value) for name, value in metric.compute().items()}
    # 3 counts at the thresholds .5 to .8, seven of ten; 5 does not occur, and so counts nowhere
    assert values == pytest.approx(
        {"map": (0.7 + 0 + 1) / 3, "map50": 2 / 3, "acc": 1 / 3, "map_3": 0.7, "map_4": 0.0, "map_7": 1.0}
    )


def test_processes_with_unlike_counts_of_images_agree() -> None:
    whole, mine, other = NumberDetectionMetrics(), NumberDetectionMetrics(), NumberDetectionMetrics()
    found, labels, right = measured()
    whole.update(found, labels, right)
    mine.update(found[:1], labels[:1], right[:1])
    mine.update(found[1:2], labels[1:2], right[1:2])
    other.update(found[2:], labels[2:], right[2:])
    theirs = iter([getattr(other, name)[0] for name in other.columns])
    mine.distributed_available_fn = lambda: True
    mine.dist_sync_fn = lambda own, group=None: [own, next(theirs)]
    assert mine.compute() == whole.compute()


def test_table_in_pixels_of_the_photo() -> None:
    def images(width: int, height: int) -> ImageFiles:
        Image.new("L", (width, height)).save("photo.png")
        return ImageFiles(["photo.png"], Preprocessing(SIDE, 3))

    module = DigitDetector(image_size=SIDE)
    found: dict[str, Any] = {"number": "3", "probability": 0.5, "chosen": torch.tensor([0])}
    found.update(answer([3, 16, 22.4, 32, 41.6, 0.5]))
    header, rows = module.prediction_table([[found]], images(100, 50))
    assert header == ["number", "probability", "boxes"] and rows == [["3", 0.5, "3:25:10:50:40:0.500"]]
    assert module.prediction_table([[found]], images(SIDE, SIDE))[1][0][2] == "3:16:22:32:42:0.500"


def test_pictures() -> None:
    found, labels, right = measured()
    answers: list[dict[str, Any]] = []
    for entry, number, share in zip(found, ("35", "7", ""), (0.81, 0.9, 0.0), strict=True):
        answers.append({"number": number, "probability": share, "chosen": torch.arange(len(number))})
        answers[-1].update(entry)
    module = DigitDetector(image_size=SIDE)
    collected = Collected(module.keep)
    outputs = {"predictions": answers, "labels": labels, "is_wrong": ~right}
    outputs |= {"probabilities": torch.tensor([0.81, 0.9, 0.0]), "images": torch.rand(3, 3, SIDE, SIDE)}
    collected.add(outputs)
    collected.gather()
    drawn = dict(module.figures(collected.kept, None, "test"))
    assert list(drawn) == ["detections", "wrong"]
    assert len(drawn["detections"].axes[0].patches) == 3 + 3 and len(drawn["wrong"].axes[0].patches) == 2 + 2
    titles = [text.get_text() for text in drawn["wrong"].axes[0].texts]
    assert titles == ["35 (81%),\nis 34", "nothing (0%)", "3 .90", "5 .90"]
    # each box lies on its image
    figure = draw_detections(torch.rand(7, 3, SIDE, SIDE), None, labels[:1].repeat(7, 1, 1))
    width = SIDE + math.ceil(0.08 * SIDE)
    assert figure.axes[0].patches[2 * 6].get_x() == pytest.approx(width * 1 - 0.5)  # type: ignore[attr-defined]


# training


def learned(*words: str) -> tuple[Path, dict[str, float]]:
    assert main([*TRAIN, *words]) == 0
    folder = only_run()
    return folder, record(folder)["metrics"]


def test_the_grid_learns_four_photos_by_heart() -> None:
    folder, metrics = learned("--model.lr", "0.002", "--model.schedule", "cosine", "--trainer.max_epochs", "4")
    assert metrics["test/map"] > 0.9 and metrics["test/map50"] > 0.99 and metrics["test/acc"] == 1
    assert {"train/loss", "train/loss_box", "train/loss_class", "train/loss_confidence"} <= metrics.keys()
    assert sum(name.startswith("test/map_") for name in metrics) >= 3
    best = str(folder / "checkpoints" / "best.ckpt")
    assert torch.load(best, weights_only=True)["FourPhotos"]["preprocessing"]["resize"] == "pad"
    images, labels = FourPhotos(image_size=SIDE).load(train=True)
    Path("photos").mkdir()
    for place, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"photos/{place}.png")
    assert main(["predict", "--ckpt_path", best, "--images", "photos"]) == 0
    header, *rows = [line.split(",") for line in Path("predictions.csv").read_text().splitlines()]
    assert header == ["file", "number", "probability", "boxes"]
    for (_, number, share, boxes), label in zip(rows, labels, strict=True):
        assert number == number_of(label) and 0.3 < float(share) <= 1
        found = torch.tensor([[float(value) for value in box.split(":")] for box in boxes.split()])
        assert (found[:, :5] - label[label[:, 0] >= 0]).abs().max() < 4


@pytest.mark.slow
def test_faster_rcnn_learns_four_photos_by_heart() -> None:
    words = ["--model.detector", "faster_rcnn", "--model.lr", "0.0005", "--model.schedule", "cosine"]
    _, metrics = learned(*words, "--trainer.max_epochs", "6")
    assert metrics["test/map"] > 0.9


# what a user can get wrong


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        *(
            ([f"--data.augment.{name}", value], f"--data.augment.{name} would {what}")
            for name, value, what in [
                ("flip", "true", "mirror the digits"),
                ("alternating_flip", "true", "mirror the digits"),
                ("mixup", "0.2", "leave the boxes behind"),
                ("cutmix", "1", "leave the boxes behind"),
                ("policy", "rand", "leave the boxes behind"),
            ]
        ),
        (["--data.max_boxes", "0"], "--data.max_boxes 0"),
        (["--data.image_size", "60"], "try --data.image_size 64"),
        (["--model.min_score", "2"], "--model.min_score 2"),
        (PIXELS, "Digits has classes: add --model ImageClassifier"),
        (["--model.weights", "none.pth"], "there is no file of weights none.pth"),
    ],
)
def test_wrong_words(words: list[str], telling: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = TRAIN[:1] + TRAIN[7:] if words[0] == "--data" else TRAIN
    assert main([*base, *words, "--trainer.max_epochs", "1"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and telling in lines[0]
    assert not list(Path().glob("runs/*/*"))


def test_cutout_may_stay() -> None:
    data = FourPhotos(image_size=SIDE, augment={"cutout": 0.2}, normalize="unit")
    images, labels = data.load(train=True)
    changed, same = data.augment(images, labels, torch.Generator().manual_seed(0), epoch=0)
    assert torch.equal(same, labels) and not torch.equal(changed, images.float() / 255)


def test_other_weights(tmp_path: Path) -> None:
    path = str(tmp_path / "grid.pth")
    network = DigitDetector(image_size=SIDE).network
    torch.save(network.state_dict(), path)
    other = DigitDetector(image_size=SIDE, weights=path).network
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="do not fit ssd"):
        DigitDetector(detector="ssd", image_size=SIDE, weights=path)
