"""Reading whole numbers: counts, decoding, loss, metrics, and real training on numbers composed of real digits."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from run_folders import only_run, record
from small_data import digits
from torch import Tensor
from torch.nn import functional as F

import lightning_cnn.architectures  # noqa: F401
from lightning_cnn.architectures.house_number import BLANK, HEADS, MAX_DIGITS, number_text
from lightning_cnn.cli import main
from lightning_cnn.datamodules.house_numbers.whole_numbers import HouseNumbers
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.confidence import coverage, coverage_curve
from lightning_cnn.figures.collected import Collected
from lightning_cnn.modules import HouseNumberReader
from lightning_cnn.modules.house_number_reader import read_numbers
from lightning_cnn.modules.number_metrics import NumberMetrics


class DigitRows(HouseNumbers):
    """One or two real digits in a row."""

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        pixels, classes = digits(1797)
        part = np.arange(1400) if train else np.arange(1400, 1797)
        random = np.random.default_rng(train)
        images, labels = [], []
        for _ in range(2500 if train else 300):
            length = int(random.integers(1, 3))
            rows = random.choice(part, length)
            image = np.concatenate([pixels[row] for row in rows], axis=1)
            side = self.preprocessing.inner_size
            images.append(np.array(Image.fromarray(image).resize((side, side))))
            labels.append([length, *classes[rows].tolist(), *[BLANK] * (MAX_DIGITS - length)])
        grey = torch.from_numpy(np.stack(images))[:, None]
        return grey.expand(-1, self.in_channels, -1, -1).contiguous(), torch.tensor(labels)


TRAIN = ["--data", "test_house_number_reader.DigitRows", "--data.image_size", "16", "--data.margin", "2"]
TRAIN += ["--data.color", "grey", "--data.batch_size", "64", "--model", "HouseNumberReader"]
TRAIN += ["--model.architecture", "house_number_resnet", "--model.architecture_options.width", "16"]
QUICK = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--wandb", "disabled"]


# networks


def test_counts() -> None:
    book = timm.create_model("house_number_net")
    state = {name: value for name, value in book.state_dict().items() if "num_batches" not in name}
    assert sum(value.numel() for value in state.values()) == 13_686_252
    assert sum(parameter.numel() for parameter in book.parameters()) == 13_684_204
    modern = timm.create_model("house_number_resnet")
    assert sum(parameter.numel() for parameter in modern.parameters()) == 6_066_524


def test_sizes_of_the_book() -> None:
    sides = []
    network = timm.create_model("house_number_net").eval()
    for module in network.modules():
        if isinstance(module, torch.nn.MaxPool2d):
            module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 60)
    assert sides == [31, 15, 14, 7, 6, 3, 2, 1]
    first = [type(module).__name__ for module in itertools.islice(network.features[0], 9)]
    assert first == ["Conv2d", "BatchNorm2d", "MaxPool2d", "Dropout", "Conv2d", "ReLU", *first[1:4]]


# decoding


def test_reading_is_the_most_probable_of_all_sequences() -> None:
    logits = 2 * torch.randn(40, sum(HEADS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits[:, 6:] *= 3  # confident digits, so that long numbers have a chance
    numbers, probabilities = read_numbers(logits)
    lengths, *places = [head.softmax(1) for head in logits.split(HEADS, 1)]
    for row in range(len(logits)):
        every: list[tuple[float, list[int]]] = []  # the best of the 10^k numbers of each length
        for length in range(1 + MAX_DIGITS):
            shares = lengths[row, length].reshape(1)
            for place in places[:length]:
                shares = (shares[:, None] * place[row, :BLANK]).flatten()
            assert len(shares) == 10**length
            text = str(int(shares.argmax())).zfill(length)[:length]
            every.append((float(shares.max()), [int(digit) for digit in text]))
        share, digits = max(every)
        assert numbers[row].tolist() == [len(digits), *digits, *[BLANK] * (MAX_DIGITS - len(digits))]
        assert probabilities[row] == pytest.approx(share)
    assert len(set(numbers[:, 0].tolist())) >= 5


def test_the_whole_decides_not_each_head() -> None:
    logits = torch.full((1, sum(HEADS)), -20.0)
    lengths, first, second, *_ = logits.split(HEADS, 1)
    lengths[0, 1], lengths[0, 2] = 1.0, 1.4  # two digits are likelier by themselves
    first[0, 7], second[0, :10] = 5.0, 0.0  # but nobody knows which the second would be
    numbers, _ = read_numbers(logits)
    assert number_text(numbers[0]) == "7"


# loss


def test_heads_of_missing_digits_do_not_learn() -> None:
    labels = torch.tensor([[2, 4, 0, BLANK, BLANK, BLANK], [3, 1, 2, 3, BLANK, BLANK]])
    for loss, taught in (("present", [True, True, True, True, False, False]), ("all", [True] * 6)):
        module = HouseNumberReader("house_number_resnet", image_size=16, loss=loss, architecture_options={"width": 8})  # type: ignore[arg-type]
        logits = torch.randn(2, sum(HEADS), requires_grad=True)
        module.loss_of(logits, labels).backward()
        assert logits.grad is not None
        assert [bool(head.any()) for head in logits.grad.split(HEADS, 1)] == taught
        third = logits.grad.split(HEADS, 1)[3]
        assert bool(third[0].any()) == (loss == "all") and third[1].any()


def test_the_loss_is_the_sum_of_the_heads() -> None:
    module = HouseNumberReader("house_number_resnet", image_size=16, loss="all", architecture_options={"width": 8})
    labels = torch.tensor([[1, 4, BLANK, BLANK, BLANK, BLANK], [2, 1, 2, BLANK, BLANK, BLANK]])
    logits = torch.randn(2, sum(HEADS))
    heads = [F.cross_entropy(head, label) for head, label in zip(logits.split(HEADS, 1), labels.T, strict=True)]
    assert module.loss_of(logits, labels) == pytest.approx(float(sum(heads)))
    module.ignored = BLANK
    heads = [F.cross_entropy(head, label) for head, label in zip(logits.split(HEADS, 1), labels.T, strict=True)][:2]
    second = F.cross_entropy(logits.split(HEADS, 1)[2][1:], labels[1:, 2]) / 2  # of one image of two
    assert module.loss_of(logits, labels) == pytest.approx(float(sum(heads) + second))


# metrics


def numbers_of(*texts: str) -> Tensor:
    rows = [[len(text), *map(int, text), *[BLANK] * (MAX_DIGITS - len(text))] for text in texts]
    return torch.tensor(rows)


def test_metrics_by_hand() -> None:
    metric = NumberMetrics()
    labels = numbers_of("25", "7", "130", "4")
    read = numbers_of("25", "71", "131", "4")
    metric.update(read[:3], read[:3], torch.tensor([0.9, 0.4, 0.5]), labels[:3])
    metric.update(read[3:], read[3:], torch.tensor([0.8]), labels[3:])
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values == pytest.approx(
        {
            "acc": 2 / 4,
            "length_acc": 3 / 4,
            "character_acc": 6 / 7,
            "digit1_acc": 4 / 4,
            "digit2_acc": 2 / 2,
            "digit3_acc": 0.0,
            "coverage98": 2 / 4,
        }
    )


def test_coverage() -> None:
    right = torch.tensor([True, True, False, True, True])
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    shares, accuracies = coverage_curve(right, confidence)
    assert shares.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert accuracies.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4, 4 / 5])
    assert float(coverage(right, confidence, 0.98)) == pytest.approx(0.4)
    assert float(coverage(right, confidence, 0.75)) == pytest.approx(1.0)  # behind a valley
    assert float(coverage(~right, confidence, 0.98)) == 0.0
    # of predictions of equal confidence none can be taken before the others
    assert float(coverage(torch.tensor([True, False]), torch.tensor([0.5, 0.5]), 0.98)) == 0.0


def test_what_is_read_as_nothing_is_in_the_figures() -> None:
    module = HouseNumberReader("linear", image_size=16)
    for read, lengths, first in (("", "012345", "none"), ("71", "12345", "9")):
        collected = Collected(module.keep)
        numbers, labels = numbers_of(read, "12"), numbers_of("7", "12")
        outputs = {"numbers": numbers, "labels": labels, "is_wrong": (numbers != labels).any(1)}
        collected.add({**outputs, "probabilities": torch.tensor([0.5, 0.9]), "images": torch.rand(2, 1, 16, 16)})
        collected.gather()
        figures = dict(module.figures(collected.kept, None, "test"))
        assert list(figures) == ["lengths", "first_digits", "coverage", "numbers", "wrong"]
        names = {name: [text.get_text() for text in figures[name].axes[0].get_xticklabels()] for name in [*figures][:2]}
        assert names["lengths"] == [*lengths] and names["first_digits"][-1] == first


# training


@pytest.mark.figures
def test_it_learns_to_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.lr", "0.003", "--model.schedule", "cosine", "--trainer.max_epochs", "4", "--wandb", "disabled"]
    assert main(["train", *TRAIN, *words]) == 0
    folder = only_run()
    metrics = record(folder)["metrics"]
    assert metrics["test/acc"] > 0.7  # by chance one in a hundred
    assert metrics["test/length_acc"] > 0.95 and metrics["test/digit2_acc"] > 0.7
    assert metrics["test/character_acc"] >= metrics["test/acc"]
    pictures = {path.stem for path in (folder / "figures").glob("*.png")}
    names = ("coverage", "first_digits", "lengths", "numbers", "wrong")
    assert pictures == {"curves", "examples", *(f"{part}_{name}" for part in ("val", "test") for name in names)}

    data = DigitRows(image_size=16, margin=2, color="grey")
    images, labels = data.load(train=False)
    for number in range(20):
        Image.fromarray(images[number, 0].numpy()).save(f"{number:02d}.png")
    best = str(folder / "checkpoints" / "best.ckpt")
    assert main(["predict", "--ckpt_path", best, "--images", *[f"{number:02d}.png" for number in range(20)]]) == 0
    header, *rows = [line.split(",") for line in Path("predictions.csv").read_text().splitlines()]
    assert header == ["file", "number", "probability"]
    right = [row[1] == number_text(label) for row, label in zip(rows, labels[:20], strict=True)]
    assert sum(right) >= 12
    assert "20 files read" in capsys.readouterr().out

    assert main(["export", "--ckpt_path", best, "--output", "model.onnx"]) == 0
    command = [sys.executable, str(project / "experiments" / "onnx_predict.py"), "model.onnx"]
    printed = subprocess.run([*command, *[row[0] for row in rows]], capture_output=True, text=True, check=True).stdout
    for line, row in zip(printed.splitlines(), rows, strict=True):
        path, read, share = line.split("  ")
        assert (path, read) == (row[0], row[1]) and float(share[:-1]) == pytest.approx(100 * float(row[2]), abs=0.2)


def test_random_parts_in_training_and_the_middle_otherwise() -> None:
    data = DigitRows(image_size=16, margin=2, color="grey", normalize="unit")
    images = torch.arange(20, dtype=torch.uint8).expand(1, 1, 20, 20).repeat(500, 1, 1, 1)
    labels = torch.zeros(500, 6, dtype=torch.int64)
    seen, _ = data.augment(images, labels, torch.Generator().manual_seed(0), epoch=0)
    assert seen.shape == (500, 1, 16, 16)
    left = (seen[:, 0, 0, 0] * 255).round().long()
    assert left.unique().tolist() == [0, 1, 2, 3, 4]
    middle, _ = data.on_after_batch_transfer((images, labels), 0)
    assert (middle[:, 0, :, 0] * 255).round().unique().tolist() == [2]


def test_images_scaled_by_themselves() -> None:
    data = DigitRows(image_size=16, color="grey")
    images, labels = data.load(train=False)
    seen, _ = data.on_after_batch_transfer((images, labels), 0)
    assert seen.mean((1, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(seen.std((1, 2, 3), correction=0), torch.ones(len(seen)), atol=1e-4)


@pytest.mark.parametrize("loss", ["present", "all"])
def test_any_network_of_timm(loss: str) -> None:
    words = [*TRAIN[:-4], "--model.architecture", "resnet10t", "--model.loss", loss]
    assert main(["fit", *words, *QUICK]) == 0


# what a user can get wrong


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["--data.augment.flip", "true"], "--data.augment.flip changes what a number reads"),
        (["--data.augment.mixup", "1"], "--data.augment.mixup changes what a number reads"),
        (["--data.margin", "-1"], "--data.margin -1"),
        (["--data.grow", "7"], "--data.grow 7"),
        (["--data", "Digits"], "HouseNumberReader requires whole numbers, but Digits has classes"),
    ],
)
def test_wrong_words(words: list[str], telling: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = [word for word in TRAIN if words[0] != "--data" or not word.startswith("--data")]
    if words[0] == "--data":
        base = ["--model", "HouseNumberReader"]
    assert main(["train", *base, *words, *QUICK]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and telling in lines[0]
    assert not Path("runs").exists()


def test_house_numbers_are_nothing_for_a_classifier() -> None:
    with pytest.raises(UserError, match="num_classes` 10: it must be at least 60"):
        HouseNumberReader("house_number_net", num_classes=10)
