"""Rendered house numbers: the real geometry, the same images for the same seed, and what a user can get wrong."""

import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from small_data import write_mnist

from lightning_cnn.cli import main
from lightning_cnn.datamodules import MNIST, SyntheticNumbers
from lightning_cnn.datamodules.house_numbers import rendering as number_rendering
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.geometry import read_annotations, sample_annotations
from lightning_cnn.datamodules.house_numbers.rendering import FONTS, GLYPH, GREY, _printed, render
from lightning_cnn.errors import UserError

XML = """<annotation><filename>{name}.png</filename><size><width>{width}</width><height>{height}</height></size>
{objects}</annotation>"""
OBJECT = """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
</object>"""


def write_annotations(path: Path, records: dict[str, list[tuple[int, int, int, int, int]]]) -> Path:
    """Writes a zip of XML files: of each image its digits as label, left, top, right, bottom."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, digits in records.items():
            objects = "".join(OBJECT.format(*digit) for digit in digits)
            archive.writestr(f"annotation/{name}.xml", XML.format(name=name, width=90, height=40, objects=objects))
    return path


SOME = {
    "train/1": [(1, 10, 5, 20, 35), (10, 22, 5, 40, 33)],
    "train/2": [(7, 30, 8, 44, 30)],
    "train/10": [(2, 10, 5, 20, 35), (3, 20, 5, 30, 35), (4, 30, 5, 40, 35)],
    "train/11": [(2, 10, 5, 10, 35)],
    "train/12": [(1, 2 + 5 * i, 5, 6 + 5 * i, 20) for i in range(6)],
    "test/1": [(9, 10, 5, 20, 35)],
    "test/2": [(8, 10, 5, 20, 35), (8, 25, 5, 35, 35)],
}


def data(**options: object) -> SyntheticNumbers:
    given: dict[str, object] = {"handwriting": 0.0, "train_images": 60, "test_images": 30, "image_size": 24}
    return SyntheticNumbers(**(given | options))  # type: ignore[arg-type]


# geometry


def test_annotations_are_read_as_they_are(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "some.zip", SOME)
    with pytest.warns(UserWarning, match=r"skipped: 2 of 5 .*\(first train/11.png\)"):
        found = read_annotations(path, "train")
    assert found.names == ["1.png", "2.png", "10.png"]  # in their order, without a flat box and six digits
    assert found.lengths.tolist() == [2, 1, 3]
    assert found.digits.tolist() == [1, 0, 7, 2, 3, 4]
    assert found.boxes[1].tolist() == [22, 5, 40, 33]
    assert found.sizes.tolist() == [[90, 40]] * 3
    assert read_annotations(path, "test").digits.tolist() == [9, 8, 8]


def test_the_second_reading_is_from_the_cache(tmp_path: Path) -> None:
    path, cache = write_annotations(tmp_path / "some.zip", SOME), tmp_path / "cache"
    first = read_annotations(path, "train", cache)
    (kept,) = cache.iterdir()
    second = read_annotations(path, "train", cache)
    for name in ("starts", "digits", "boxes", "sizes"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    first.select([0]).save(kept)
    assert len(read_annotations(path, "train", cache)) == 1  # it is read indeed
    kept.write_bytes(b"PAR1 and nothing more")
    assert len(read_annotations(path, "train", cache)) == 3  # made anew
    write_annotations(path, {**SOME, "train/3": SOME["train/2"]})
    assert len(read_annotations(path, "train", cache)) == 4  # another file


def test_what_is_left_out_is_said_from_the_cache_too(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "some.zip", SOME)
    for _ in range(2):
        with pytest.warns(UserWarning, match="skipped: 2 of 5"):
            assert len(read_annotations(path, "train", tmp_path / "cache")) == 3


def test_parts_of_a_parquet_file_share_no_record(tmp_path: Path) -> None:
    whole = sample_annotations(10, seed=0)
    whole.save(tmp_path / "some.parquet")
    train, test = (read_annotations(tmp_path / "some.parquet", part) for part in ("train", "test"))
    assert test.names == ["4.png", "8.png"] and len(train) == 8
    assert not set(train.names) & set(test.names)
    assert np.array_equal(test.boxes, whole.select([3, 7]).boxes)
    assert np.array_equal(test.digits, whole.select([3, 7]).digits)


def test_sampled_annotations_are_like_the_real_ones(shared_data: Path) -> None:
    real = read_annotations(shared_data / "svhn" / "svhn_format1_annotations.zip", "train")
    assert len(real) == 33_401
    sampled = sample_annotations(30_000, seed=0)
    shares = [np.bincount(found.lengths, minlength=6)[1:6] / len(found) for found in (real, sampled)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01
    first = [np.bincount(found.digits[found.starts[:-1]], minlength=10) / len(found) for found in (real, sampled)]
    assert np.abs(first[0] - first[1]).max() < 0.01
    heights = [np.median(found.boxes[:, 3] - found.boxes[:, 1]) for found in (real, sampled)]
    assert heights[1] == pytest.approx(heights[0], rel=0.1)
    sizes = [np.median(found.sizes, axis=0) for found in (real, sampled)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.15)
    limits = np.repeat(sampled.sizes, sampled.lengths, 0)
    inside = (sampled.boxes[:, :2] >= 0).all() and (sampled.boxes[:, 2:] <= limits).all()
    assert inside


# drawing


def test_every_font_has_ten_different_digits() -> None:
    glyphs = _printed().view(len(FONTS), 10, -1)
    for font, own in zip(FONTS, glyphs, strict=True):
        assert torch.cdist(own, own).add(100 * torch.eye(10)).min() > 5, font
    assert glyphs.shape[2] == GLYPH**2 and glyphs.amax(2).min() > 0.9


@pytest.fixture
def only_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws white digits on black: no wall, blur and noise."""
    monkeypatch.setattr(number_rendering, "_paint", lambda ink, size, generator: ink.repeat(1, 3, 1, 1))
    monkeypatch.setattr(number_rendering, "_spoil", lambda images, scale, size, generator: images)


@pytest.mark.usefixtures("only_ink")
def test_boxes_as_rendered_hold_the_ink() -> None:
    """The ink of each digit fills its own box as rendered, and has left the upright one."""
    upright = torch.tensor([[20, 30, 35, 70], [60, 30, 75, 70], [100, 30, 115, 70]])
    digits = np.random.default_rng(0).integers(0, 10, 600).astype(np.uint8)
    numbers = DigitAnnotations(
        ["1.png"] * 200, np.arange(0, 601, 3), digits, upright.repeat(200, 1).float().numpy(), np.full((200, 2), 135)
    )
    frames = np.tile([0, 0, 135, 100], (200, 1))
    images, boxes = render(numbers, frames, (100, 135), color=False, seed=3, neighbours=0)
    hulls = []
    for image in images[:, 0] > 20:
        for start in (0, 45, 90):  # far enough apart for one digit in each third
            ink = image[:, start : start + 45]
            rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero() + start
            hulls.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1])
    inwards = torch.tensor([1, 1, -1, -1])
    slack = (torch.tensor(hulls) - boxes) * inwards
    assert slack.min() > -1.5
    assert (slack.median(0).values < 4).all()
    assert ((torch.tensor(hulls) - upright.repeat(200, 1)) * inwards).min() < -4


@pytest.mark.usefixtures("only_ink")
def test_each_digit_is_written_by_its_own_handwriting() -> None:
    digits = np.tile(np.arange(10, dtype=np.uint8), 6)
    numbers = DigitAnnotations(
        ["1.png"] * 60, np.arange(61), digits, np.tile(np.array([[8, 8, 24, 24]], np.float32), (60, 1)),
        np.full((60, 2), 32),
    )  # fmt: skip
    classes = torch.tensor([7, 2, 0, 9, 4, 1, 8, 3, 6, 5]).repeat(3)
    tones = (80 + 17 * classes).to(torch.uint8)  # each digit is a block of its own brightness
    written = tones[:, None, None].repeat(1, 28, 28), classes
    frames = np.tile([0, 0, 32, 32], (60, 1))
    images, _ = render(numbers, frames, (32, 32), False, 0, handwriting=1.0, handwritten=written, neighbours=0)
    assert (images[:, 0, 16, 16].int() - 80 - 17 * torch.from_numpy(digits).int()).abs().max() <= 1


def test_boxes_are_scaled_with_the_frame() -> None:
    numbers = DigitAnnotations(
        ["1.png"], np.array([0, 1]), np.array([8], np.uint8), np.array([[20, 10, 30, 30]], np.float32),
        np.array([[60, 40]]),
    )  # fmt: skip
    centres = []
    for seed in range(30):
        _, boxes = render(numbers, np.array([[10, 0, 50, 40]]), (80, 120), color=True, seed=seed)
        centres.append(((boxes[0, :2] + boxes[0, 2:]) / 2).tolist())
        width, height = (boxes[0, 2:] - boxes[0, :2]).tolist()
        assert width >= 27 and height >= 38  # 10 by 20 pixels, three and two times enlarged, turned a little
    assert np.allclose(centres, [45, 40], atol=0.01)


def test_the_same_seed_draws_the_same() -> None:
    images, labels = data().load(train=True)
    again, labels_again = data().load(train=True)
    assert torch.equal(images, again) and torch.equal(labels, labels_again)
    other, _ = data(seed=1).load(train=True)
    assert not torch.equal(images, other)
    test, _ = data(test_images=60).load(train=False)
    assert not torch.equal(images, test)
    assert images.float().std((1, 2, 3)).min() > 1  # none is empty


def test_grey_is_a_weighted_sum_of_the_colours() -> None:
    numbers = sample_annotations(20, seed=0)
    colour, _ = render(numbers, numbers.crops(), (32, 32), color=True, seed=5)
    grey, _ = render(numbers, numbers.crops(), (32, 32), color=False, seed=5)
    expected = (colour.float() * torch.tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)
    assert (grey.float() - expected).abs().max() <= 1


def test_labels_and_parts_come_from_the_annotations(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "some.zip", SOME)
    made = data(annotations=str(path), root=str(tmp_path), train_images=9, test_images=4)
    images, labels = made.load(train=True)
    assert images.shape == (9, 3, 24, 24)
    assert sorted(labels[:, 0].tolist()) == [1, 1, 1, 2, 2, 2, 3, 3, 3]  # repeated in rounds
    assert {tuple(label) for label in labels.tolist()} == {
        (2, 1, 0, 10, 10, 10), (1, 7, 10, 10, 10, 10), (3, 2, 3, 4, 10, 10),
    }  # fmt: skip
    assert len(images.unique(dim=0)) == 9  # but never the same image
    _, labels = made.load(train=False)
    assert {tuple(label) for label in labels.tolist()} == {(1, 9, 10, 10, 10, 10), (2, 8, 8, 10, 10, 10)}


def test_handwriting_is_that_of_mnist(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST", train=200, test=100)
    plain, _ = data(root=str(tmp_path), image_size=32).load(train=True)
    some, _ = data(root=str(tmp_path), image_size=32, handwriting=0.5).load(train=True)
    every, _ = data(root=str(tmp_path), image_size=32, handwriting=1.0).load(train=True)
    shares = [(plain != other).flatten(1).float().mean(1) for other in (some, every)]
    changed = [float((share > 0.02).float().mean()) for share in shares]
    assert 0.25 < changed[0] < 0.75 and changed[1] > 0.95


def test_handwriting_of_each_part_is_mnists_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, "MNIST", train=200, test=100)
    seen, read = [], MNIST.load

    def load(self: MNIST, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(train)
        return read(self, train)

    monkeypatch.setattr(MNIST, "load", load)
    made = data(root=str(tmp_path), handwriting=0.5)
    for train in (True, False):
        made.load(train)
    assert seen == [True, False]


def test_digits_that_nobody_wrote_are_printed() -> None:
    numbers = sample_annotations(40, seed=0)
    with_three = np.unique(np.repeat(np.arange(40), numbers.lengths)[numbers.digits == 3])
    images = torch.zeros(4, 28, 28, dtype=torch.uint8)
    images[:3, 5:20, 8:11] = 255  # the last is empty
    written = images, torch.tensor([3, 3, 3, 5])
    printed, _ = render(numbers, numbers.crops(), (24, 24), color=True, seed=0)
    some, _ = render(numbers, numbers.crops(), (24, 24), color=True, seed=0, handwriting=1.0, handwritten=written)
    changed = (printed != some).flatten(1).any(1).nonzero().flatten()
    assert len(changed) > 0 and changed.tolist() == with_three.tolist()
    with pytest.raises(ValueError, match="needs handwritten digits"):
        render(numbers, numbers.crops(), (24, 24), color=True, seed=0, handwriting=0.5)


# what a user can get wrong


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["--data.annotations", "no.zip"], "--data.annotations no.zip: No such file"),
        (["--data.annotations", "text.zip"], "can't be read as a zip"),
        (["--data.annotations", "empty.zip"], "has no annotations train/1.xml"),
        (["--data.annotations", "strange.zip"], "a label is outside 0 to 10"),
        (["--data.annotations", "flat.zip"], "of one to 5 digits"),
        (["--data.annotations", "half.zip"], "train/1.xml lacks its size, or an object its name"),
        (["--data.annotations", "torn.zip"], "can't be read as a zip"),
        (["--data.annotations", "other.parquet"], "is a Parquet file without annotations"),
        (["--data.annotations", "."], "--data.annotations .: Is a directory"),
        (["--data.handwriting", "1.5"], "--data.handwriting 1.5: it must be at least 0 and at most 1"),
        (["--data.handwriting", "0.5", "--data.download", "false"], "--data.handwriting 0"),
        (["--data.train_images", "1"], "--data.train_images 1"),
    ],
)
def test_wrong_words(words: list[str], telling: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.zip").write_text("hello")
    write_annotations(Path("empty.zip"), {"other/1": SOME["test/1"]})
    write_annotations(Path("strange.zip"), {"train/1": [(12, 10, 5, 20, 35)], "test/1": SOME["test/1"]})
    write_annotations(Path("flat.zip"), {"train/11": SOME["train/11"]})
    with zipfile.ZipFile("half.zip", "w") as archive:  # the second digit has no bottom
        objects = OBJECT.format(1, 2, 3, 9, 9) + OBJECT.format(2, 9, 3, 15, 9).replace("<ymax>9</ymax>", "")
        archive.writestr("train/1.xml", XML.format(name=1, width=90, height=40, objects=objects))
    Path("torn.zip").write_bytes(Path("strange.zip").read_bytes()[:-30])
    pa.parquet.write_table(pa.table({"date": [1, 2]}), "other.parquet")
    base = ["train", "--data", "SyntheticNumbers", "--data.train_images", "20", "--data.test_images", "8"]
    base += ["--data.handwriting", "0", "--model", "HouseNumberReader", "--wandb", "disabled"]
    assert main([*base, *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and telling in lines[0] and len(lines[0]) < 400
    assert not Path("runs").exists()


def test_an_unwritable_cache_is_no_failure(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "some.zip", SOME)
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert len(read_annotations(path, "train", tmp_path / "cache")) == 3


def test_a_missing_file_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use the zip"):
        read_annotations(tmp_path / "nothing.zip", "train", tmp_path)
