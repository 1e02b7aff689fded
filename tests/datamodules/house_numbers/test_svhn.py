"""SVHN in its official formats: exact boxes, crops, labels and pixels, and nothing lost silently."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import svhn_files
import torch
from numpy.typing import NDArray
from PIL import Image
from run_folders import record
from svhn_files import (
    Digit,
    Record,
    cropped,
    write_cropped,
    write_digit_struct,
    write_folder,
    write_numbers,
    write_svhn,
)

from lightning_cnn.cli import main
from lightning_cnn.datamodules.batches import image_name
from lightning_cnn.datamodules.house_numbers import digit_records, digit_struct
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.digit_struct import read_digit_struct
from lightning_cnn.datamodules.house_numbers.svhn_folder import CropReader
from lightning_cnn.datamodules.house_numbers.svhn_numbers import SVHNNumbers
from lightning_cnn.datamodules.images import svhn
from lightning_cnn.datamodules.images.svhn import SVHN
from lightning_cnn.errors import UserError

Photo = NDArray[np.uint8]


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a training that must be refused; returns its one line."""

    def run(data: str, *words: str) -> str:
        capsys.readouterr()
        assert main(["train", "--data", data, *words, "--wandb", "disabled"]) == 2
        printed = capsys.readouterr().err
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and len(lines[0]) < 500 and "Traceback" not in printed
        return lines[0]

    return run


def plainly(path: Path) -> list[tuple[str, NDArray[np.float64]]]:
    """Name, and label, left, top, width and height of each digit, read object by object."""
    found = []
    with h5py.File(path) as file:
        for name, boxes in zip(file["digitStruct/name"][:, 0], file["digitStruct/bbox"][:, 0], strict=True):
            columns = [file[boxes][field][:, 0] for field in ("label", "left", "top", "width", "height")]
            values = [[v if isinstance(v, float) else file[v][0, 0] for v in column] for column in columns]
            found.append(("".join(map(chr, file[name][:, 0])), np.array(values).T))
    return found


def same(found: DigitAnnotations, expected: list[tuple[str, Any]]) -> bool:
    every = np.concatenate([np.array(rows, dtype=float).reshape(-1, 5) for _, rows in expected])
    boxes = np.concatenate([every[:, 1:3], every[:, 1:3] + every[:, 3:]], axis=1)
    return (
        found.names == [name for name, _ in expected]
        and found.lengths.tolist() == [len(rows) for _, rows in expected]
        and found.digits.tolist() == (every[:, 0] % 10).tolist()
        and np.array_equal(found.boxes, boxes.astype(np.float32))
        and not found.sizes.any()
    )


def some_records(count: int = 40) -> list[Record]:
    """One to six digits each; some boxes begin outside the photo."""
    random = np.random.default_rng(3)

    def one(row: int) -> list[Digit]:
        return [(*random.integers(1, 11, 1).tolist(), 20 * i - 3, 7.25, 18, 30 + row) for i in range(1 + row % 6)]

    return [(f"{row + 1}.png", one(row)) for row in range(count)]


# digitStruct.mat


@pytest.fixture
def without_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads in this process, where its parts can be replaced."""

    def read(reader: Path, path: Path) -> Any:
        assert reader == digit_struct.READER
        try:
            return [*digit_records.read(str(path))]
        except Exception as error:
            raise ValueError(" ".join(str(error).split())) from None

    monkeypatch.setattr(digit_struct, "read_in_child", read)


@pytest.mark.usefixtures("without_child")
def test_the_real_sample(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared_data / "svhn" / "train_sample" / "digitStruct.mat"
    slow: list[int] = []
    plain = digit_records._Records._plain
    monkeypatch.setattr(digit_records, "CHECKED", 5)
    monkeypatch.setattr(digit_records._Records, "_plain", lambda self, row: slow.append(row) or plain(self, row))  # type: ignore[func-returns-value]
    found = read_digit_struct(path)
    assert len(slow) == 5  # the others come from the bytes of the file
    assert same(found, plainly(path)) and len(found) == 39
    assert found.lengths[:9].tolist() == [2, 2, 2, 2, 2, 2, 2, 3, 3] and found.lengths[20] == 1
    assert found.labels()[:3].tolist() == [[2, 1, 9, 10, 10, 10], [2, 2, 3, 10, 10, 10], [2, 2, 5, 10, 10, 10]]
    assert found.boxes[:2].tolist() == [[246, 77, 327, 296], [323, 81, 419, 300]]


def test_a_written_file_is_like_the_real_one(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "svhn" / "train_sample" / "digitStruct.mat"
    rows = plainly(real)
    path = write_digit_struct(tmp_path / "digitStruct.mat", [(name, values.tolist()) for name, values in rows])
    assert all(a == c and np.array_equal(b, d) for (a, b), (c, d) in zip(rows, plainly(path), strict=True))
    assert path.read_bytes()[:20] == real.read_bytes()[:20] and path.read_bytes()[116:128] == real.read_bytes()[116:128]
    with h5py.File(path) as ours, h5py.File(real) as theirs:
        for row in (0, 20):  # two digits, one digit
            one, other = (file[file["digitStruct/bbox"][row, 0]] for file in (ours, theirs))
            assert {(name, d.dtype, d.shape) for name, d in one.items()} == {
                (name, d.dtype, d.shape) for name, d in other.items()
            }
            assert one.attrs["MATLAB_class"] == other.attrs["MATLAB_class"] == b"struct"
        names = [file[file["digitStruct/name"][0, 0]] for file in (ours, theirs)]
        assert names[0].dtype == names[1].dtype and names[0].shape == names[1].shape


@pytest.mark.usefixtures("without_child")
@pytest.mark.parametrize("way", ["bytes", "objects", "other layout", "misread"])
def test_round_trip(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = some_records()
    if way == "objects":
        monkeypatch.setattr(digit_records, "HEADERS", 0)
    elif way == "other layout":
        monkeypatch.setattr(svhn_files, "COMPACT", 0)
    elif way == "misread":  # what the bytes seem to say is checked against h5py
        right = digit_records._Records._words
        monkeypatch.setattr(digit_records._Records, "_words", lambda self, places: right(self, places + 8))
    path = write_digit_struct(tmp_path / "digitStruct.mat", records)
    assert same(read_digit_struct(path), list(records))


def test_label_10_is_the_digit_0(tmp_path: Path) -> None:
    found = read_digit_struct(
        write_digit_struct(
            tmp_path / "digitStruct.mat",
            [("1.png", [(10, 0, 0, 5, 9)]), ("2.png", [(1, 0, 0, 5, 9), (10, 6, 0, 5, 9), (9, 12, 0, 5, 9)])],
        )
    )
    assert found.labels().tolist() == [[1, 0, 10, 10, 10, 10], [3, 1, 0, 9, 10, 10]]


def test_images_that_are_left_out_are_counted(tmp_path: Path) -> None:
    good = [(1, 0, 0, 5, 9), (2, 6, 0, 5, 9)]
    records: list[Record] = [("1.png", good), ("2.png", []), ("3.png", [(3, 0, 0, 0, 9), (4, 6, 0, 5, 9)])]
    records += [("4.png", [(5, 0, 0, 5, -2)]), ("5.png", [(6, 1, 2, 3, 4)]), ("6.png", [(6, 1, float("nan"), 3, 4)])]
    path = write_digit_struct(tmp_path / "train" / "digitStruct.mat", records)
    for _ in range(2):  # from the file, and from the cache
        with pytest.warns(UserWarning) as caught:
            found = read_digit_struct(path, tmp_path)
        assert [str(warning.message) for warning in caught] == [
            f"{path}: skipped 1 of 6 images without digits (first 2.png)",
            f"{path}: skipped 3 of 6 images with a box of no width or height (first 3.png)",
        ]
        assert found.names == ["1.png", "5.png"] and found.digits.tolist() == [1, 2, 6]
        assert found.boxes[2].tolist() == [1, 2, 4, 6]


def test_the_cache_is_used_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "train" / "digitStruct.mat", tmp_path / ".cache"
    first = some_records(10)
    write_digit_struct(path, first)
    read_digit_struct(path, cache)
    parse = digit_struct._parse
    monkeypatch.setattr(digit_struct, "_parse", None)
    assert same(read_digit_struct(path, cache), list(first))
    monkeypatch.setattr(digit_struct, "_parse", parse)
    write_digit_struct(path, some_records(11))
    assert len(read_digit_struct(path, cache)) == 11
    kept = sorted(cache.iterdir())
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(file.read_bytes()[:100])
    assert len(read_digit_struct(path, cache)) == 11  # made anew
    blocked = tmp_path / "file"
    blocked.touch()
    assert len(read_digit_struct(path, blocked)) == len(read_digit_struct(path, blocked / "in")) == 11


def delete_label(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file[file["digitStruct/bbox"][1, 0]]["label"]


def delete_boxes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["digitStruct/bbox"]


def fewer_tops(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        boxes = file[file["digitStruct/bbox"][1, 0]]
        column = boxes["top"][:1]
        del boxes["top"]
        boxes["top"] = column


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "half": (lambda path: os.truncate(path, path.stat().st_size // 2), "truncated or not a digitStruct.mat"),
    "empty": (lambda path: os.truncate(path, 0), "truncated or not a digitStruct.mat"),
    "text": (lambda path: path.write_text("5 0 file"), "truncated or not a digitStruct.mat"),
    "old mat": (lambda path: scipy.io.savemat(path, {"digitStruct": 1}), "truncated or not a digitStruct.mat"),
    "no label": (delete_label, "the boxes of 2.png have no label"),
    "no boxes": (delete_boxes, "bbox"),
    "tops": (fewer_tops, "the boxes of 2.png differ in number"),
    "label 11": (
        lambda path: write_digit_struct(path, [("7.png", [(11, 0, 0, 5, 9)])]),
        "1 of 1 labels are outside 1 to 10, where 10 means 0 (first 11 in 7.png)",
    ),
    "label 0": (
        lambda path: write_digit_struct(path, [("6.png", [(1, 0, 0, 5, 9)]), ("7.png", [(0, 0, 0, 5, 9)] * 2)]),
        "2 of 3 labels are outside 1 to 10, where 10 means 0 (first 0 in 7.png)",
    ),
    "label 2.5": (lambda path: write_digit_struct(path, [("7.png", [(2.5, 0, 0, 5, 9)])]), "(first 2.5 in 7.png)"),
    "no records": (lambda path: write_digit_struct(path, []), "no records"),
    "path": (lambda path: write_digit_struct(path, [("../7.png", [(1, 0, 0, 5, 9)])]), "no file name"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.filterwarnings("ignore")
def test_damaged_annotations(tmp_path: Path, damage: str) -> None:
    path = write_digit_struct(tmp_path / "train" / "digitStruct.mat", some_records(4))
    spoil, says = DAMAGE[damage]
    spoil(path)
    message = fails(lambda: read_digit_struct(path, tmp_path / "cache"))
    assert message.startswith(str(path)) and says in message
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("without_child")
def test_damage_at_any_place_is_one_line_or_harmless(tmp_path: Path) -> None:
    path = write_digit_struct(tmp_path / "digitStruct.mat", some_records(3))
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(512, len(whole), 40).tolist():
        path.write_bytes(whole[:place])
        assert str(path) in fails(lambda: read_digit_struct(path))


# crops


def ramp(width: int, height: int) -> Photo:
    """A photo whose red says the column and whose green says the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, columns ^ rows], axis=-1).astype(np.uint8)


# boxes (left, top, width, height), share by which they grow, and the square part of the 100x80 photo that is cut out
GEOMETRY: dict[str, tuple[list[tuple[float, ...]], float, tuple[int, int, int, int]]] = {
    "inside": ([(30, 20, 20, 40), (50, 22, 20, 30)], 0.1, (26, 16, 74, 64)),
    "not grown": ([(30, 20, 10, 30), (50, 22, 10, 20)], 0.0, (30, 20, 60, 50)),
    "other box lower": ([(30, 20, 20, 20), (50, 40, 20, 20)], 0.0, (30, 20, 70, 60)),
    "left": ([(1, 30, 20, 20)], 0.2, (0, 26, 25, 54)),
    "top": ([(40, 2, 20, 20)], 0.2, (36, 0, 64, 26)),
    "right": ([(79, 30, 20, 20)], 0.2, (75, 26, 100, 54)),
    "bottom": ([(40, 58, 20, 20)], 0.2, (36, 54, 64, 80)),
    "beyond left and top": ([(-5, -3, 25, 23)], 0.0, (0, 0, 20, 20)),
    "beyond right and bottom": ([(80, 60, 70, 50)], 0.1, (73, 55, 100, 80)),
    "beyond all sides": ([(-9, -9, 200, 200)], 0.1, (0, 0, 100, 80)),
    "six digits": ([(10 * i, 5 + i, 10, 32) for i in range(1, 7)], 0.1, (4, 2, 76, 47)),
    "halves": ([(30.5, 20.5, 20, 20)], 0.0, (30, 20, 50, 40)),
    "thin": ([(10, 10, 0.2, 0.2)], 0.0, (10, 10, 11, 11)),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_crops(tmp_path: Path, name: str) -> None:
    boxes, grow, (left, top, right, bottom) = GEOMETRY[name]
    photo = ramp(100, 80)
    folder = write_folder(tmp_path / "train", [photo], [[(1, *box) for box in boxes]])
    found = read_digit_struct(folder / "digitStruct.mat")
    crop = CropReader(found, folder, 24, False, grow)(str(folder / "1.png"))
    part = Image.fromarray(photo[top:bottom, left:right]).resize((24, 24), Image.Resampling.BILINEAR)
    assert crop.dtype == torch.uint8 and np.array_equal(crop.permute(1, 2, 0).numpy(), np.asarray(part))
    square = photo[top:bottom, left:right]
    if square.shape[0] == square.shape[1]:  # nothing is resized
        crop = CropReader(found, folder, len(square), False, grow)(str(folder / "1.png"))
        assert np.array_equal(crop.permute(1, 2, 0).numpy(), square)


def test_grey_weighs_as_matlab_does(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    folder = write_folder(tmp_path / "train", [photo], [[(1, 0, 0, 40, 40)]])
    crop = CropReader(read_digit_struct(folder / "digitStruct.mat"), folder, 40, True, 0.1)(str(folder / "1.png"))
    exact = photo.astype(float) @ [0.2989, 0.5870, 0.1140]
    assert crop.shape == (1, 40, 40) and np.abs(crop[0].numpy() - exact).max() < 0.501
    assert np.abs(np.asarray(Image.fromarray(photo).convert("L")) - exact).max() > 0.501  # Pillow's are .299, ...


# whole numbers


def test_the_real_photos(shared_data: Path, tmp_path: Path) -> None:
    sample = shared_data / "svhn" / "train_sample"
    (tmp_path / "train").mkdir()
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / "train" / name).symlink_to(sample / name)
    three = [(name, rows.tolist()) for name, rows in plainly(sample / "digitStruct.mat")[:3]]
    write_digit_struct(tmp_path / "train" / "digitStruct.mat", three)
    images, labels = SVHNNumbers(str(tmp_path), color="grey", image_size=54, margin=5).load(train=True)
    assert images.shape == (3, 1, 64, 64) and images.dtype == torch.uint8
    assert labels.tolist() == [[2, 1, 9, 10, 10, 10], [2, 2, 3, 10, 10, 10], [2, 2, 5, 10, 10, 10]]
    # boxes (246, 77) to (327, 296) and (323, 81) to (419, 300): 173 and 223 pixels, grown by 17.3 and 22.3
    with Image.open(sample / "1.png") as photo:
        part = photo.convert("RGB").crop((229, 55, 436, 322)).resize((64, 64), Image.Resampling.BILINEAR)
    grey = np.asarray(part) @ np.array([0.2989, 0.5870, 0.1140])
    assert np.abs(images[0, 0].numpy() - grey).max() < 0.501


def test_parts_names_and_order(tmp_path: Path) -> None:
    write_numbers(tmp_path, {"train": 9, "extra": 4, "test": 3})
    data = SVHNNumbers(str(tmp_path), extra=True, val_split="last", val_fraction=0.25)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert [len(data._sets[part]) for part in ("train", "val", "test")] == [10, 3, 3]  # type: ignore[arg-type]
    assert image_name(data._sets["train"], 9) == "extra/1.png"
    assert image_name(data._sets["val"], 2) == "extra/4.png"
    assert image_name(data._sets["test"], 0) == "test/1.png"
    images, labels = SVHNNumbers(str(tmp_path)).load(train=True)
    both = SVHNNumbers(str(tmp_path), extra=True).load(train=True)
    assert torch.equal(both[0][:9], images) and torch.equal(both[1][:9], labels)
    assert labels[:, 0].tolist() == [1, 2, 3] * 3


def test_crops_are_kept_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_numbers(tmp_path, {"train": 6})
    first = SVHNNumbers(str(tmp_path)).load(train=True)
    call = CropReader.__call__
    monkeypatch.setattr(CropReader, "__call__", None)
    again = SVHNNumbers(str(tmp_path)).load(train=True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    monkeypatch.setattr(CropReader, "__call__", call)
    assert SVHNNumbers(str(tmp_path), color="grey").load(train=True)[0].shape == (6, 1, 32, 32)
    assert SVHNNumbers(str(tmp_path), margin=4).load(train=True)[0].shape == (6, 3, 40, 40)
    assert not torch.equal(SVHNNumbers(str(tmp_path), grow=0.5).load(train=True)[0], first[0])
    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(tmp_path / "train" / "3.png")
    changed = SVHNNumbers(str(tmp_path)).load(train=True)[0]
    assert not changed[2].any() and torch.equal(changed[3:], first[0][3:])
    for file in (tmp_path / ".cache").iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    assert torch.equal(SVHNNumbers(str(tmp_path)).load(train=True)[0], changed)
    assert not list((tmp_path / ".cache").glob(".*"))


def test_a_folder_that_can_not_be_written_to(tmp_path: Path) -> None:
    write_numbers(tmp_path, {"train": 3})
    (tmp_path / ".cache").touch()
    assert len(SVHNNumbers(str(tmp_path)).load(train=True)[0]) == 3


def test_numbers_of_more_than_five_digits(tmp_path: Path) -> None:
    photos = [ramp(100, 40)] * 4
    six: list[Digit] = [(i, 10 * i, 5, 9, 20) for i in range(1, 7)]
    write_folder(tmp_path / "train", photos, [six[:5], six, six[:1], six])
    with pytest.warns(UserWarning, match=r"skipped: 2 of 4 numbers in .*train have more than 5 digits \(first 2.png"):
        images, labels = SVHNNumbers(str(tmp_path)).load(train=True)
    assert labels.tolist() == [[5, 1, 2, 3, 4, 5], [1, 1, 10, 10, 10, 10]] and len(images) == 2
    message = fails(lambda: SVHNNumbers(str(tmp_path), too_long="error").load(train=True))
    assert "2 of 4 numbers" in message and message.endswith("`data.too_long` drop")


def test_photos_that_nobody_annotated_are_counted(tmp_path: Path) -> None:
    write_numbers(tmp_path, {"train": 3})
    Image.fromarray(ramp(20, 20)).save(tmp_path / "train" / "9.png")
    with pytest.warns(
        UserWarning, match=r"skipped: 1 photos in .*train have no usable digits in digitStruct.mat \(first 9.png"
    ):
        assert len(SVHNNumbers(str(tmp_path)).load(train=True)[0]) == 3


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


NUMBERS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no photo": (
        lambda root: (root / "train" / "2.png").unlink(),
        ["names 6 photos, 1 of them missing", "2.png", "tar xzf"],
    ),
    "no struct": (
        lambda root: (root / "train" / "digitStruct.mat").unlink(),
        ["digitStruct.mat is missing", "tar xzf"],
    ),
    "no test struct": (lambda root: (root / "test" / "digitStruct.mat").unlink(), ["test/digitStruct.mat is missing"]),
    "no folder": (lambda root: (root / "train").rename(root / "trian"), ["no folder", "train.tar.gz", "--data.root"]),
    "half photo": (lambda root: truncate(root / "train" / "3.png"), ["can't decode", "3.png", "truncated"]),
    "half struct": (lambda root: truncate(root / "train" / "digitStruct.mat"), ["truncated or not a digitStruct.mat"]),
    "other photos": (
        lambda root: write_digit_struct(
            root / "train" / "digitStruct.mat", [(f"{row}.png", [(1, 900, 5, 9, 9)]) for row in range(1, 7)]
        ),
        ["1.png lie outside the photo", "other photos"],
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_bad_folders(tmp_path: Path, name: str, refused: Callable[..., str]) -> None:
    write_numbers(tmp_path, {"train": 6, "test": 2})
    spoil, telling = NUMBERS[name]
    spoil(tmp_path)
    line = refused("SVHNNumbers", "--data.root", str(tmp_path), "--model", "HouseNumberReader")
    assert all(word in line for word in telling), line


# single digits


def small(root: Path, **options: Any) -> SVHN:
    return SVHN(root=str(root), **{"check_md5": False, **options})


def test_digits_come_back_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    write_svhn(tmp_path)
    write_cropped(tmp_path / "extra_32x32.mat", *cropped(30, first=500))
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5: Path(path).is_file())
    for part, first, count in (("train", 0, 60), ("test", 1000, 20)):
        images, labels = small(tmp_path).load(part == "train")
        pixels, digit = cropped(count, first)
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert np.array_equal(images.numpy(), pixels) and labels.tolist() == digit.tolist()
        theirs = datasets.SVHN(str(tmp_path), part)
        assert np.array_equal(theirs.data, pixels) and theirs.labels.tolist() == digit.tolist()
    assert {0, 9} < set(small(tmp_path).load(train=True)[1].tolist())
    images, labels = small(tmp_path, extra=True).load(train=True)
    assert len(images) == 90 and np.array_equal(images[60:].numpy(), cropped(30, 500)[0])
    assert labels[60:].tolist() == cropped(30, 500)[1].tolist()


def test_the_md5_of_the_official_files(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    message = fails(lambda: SVHN(str(tmp_path)).load(train=True))
    assert message.startswith(f"{tmp_path / 'train_32x32.mat'} is not the official file")
    assert "e26dedcc434d2e4c54c9b2d4a06d8373" in message and message.endswith("`data.check_md5` false")


@pytest.mark.parametrize("error", [None, RuntimeError("File not found or corrupted."), TimeoutError()])
def test_download(tmp_path: Path, error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(address: str, folder: str, name: str, md5: str) -> None:
        assert address == f"http://ufldl.stanford.edu/housenumbers/{name}" and len(md5) == 32
        write_cropped(Path(folder) / name, *cropped(10))
        if error:
            raise error

    monkeypatch.setattr(svhn, "download_url", download)
    data = small(tmp_path / "new", extra=True)
    if error is None:
        data.prepare_data()
        assert sorted(path.name[:5] for path in (tmp_path / "new").iterdir()) == ["extra", "test_", "train"]
        assert len(data.load(train=True)[0]) == 20
    else:
        message = fails(data.prepare_data)
        assert message.startswith(
            f"SVHN not found: {tmp_path / 'new' / 'train_32x32.mat'} is missing (the download failed"
        )
        assert str(error) in message and not (tmp_path / "new").exists()


def save(root: Path, **variables: Any) -> None:
    scipy.io.savemat(root / "train_32x32.mat", variables)


BLACK = np.zeros((32, 32, 3, 4), np.uint8)
SINGLE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing": (
        lambda root: (root / "test_32x32.mat").unlink(),
        ["test_32x32.mat is missing", "--data.download false"],
    ),
    "half": (lambda root: truncate(root / "train_32x32.mat"), ["truncated or not an SVHN file"]),
    "text": (lambda root: (root / "train_32x32.mat").write_text("five nines"), ["truncated or not an SVHN file"]),
    "hdf5": (lambda root: write_digit_struct(root / "train_32x32.mat", []), ["truncated or not an SVHN file"]),
    "no labels": (lambda root: save(root, X=BLACK), ["no variable y"]),
    "three labels": (lambda root: save(root, X=BLACK, y=[[1], [2], [3]]), ["(32, 32, 3, 4) for 3 labels"]),
    "floats": (lambda root: save(root, X=BLACK / 2, y=[[1], [2], [3], [4]]), ["float64"]),
    "label 0": (
        lambda root: save(root, X=BLACK, y=[[1], [0], [3], [0]]),
        ["2 of 4 labels", "10 means 0 (first 0 of image 2)"],
    ),
    "label 11": (lambda root: save(root, X=BLACK, y=[[1], [2], [3], [11]]), ["1 of 4 labels", "first 11 of image 4"]),
}


@pytest.mark.parametrize("name", SINGLE)
def test_bad_files_of_digits(tmp_path: Path, name: str, refused: Callable[..., str]) -> None:
    write_svhn(tmp_path)
    spoil, telling = SINGLE[name]
    spoil(tmp_path)
    line = refused("SVHN", "--data.root", str(tmp_path), "--data.check_md5", "false", "--data.download", "false")
    assert "32x32.mat" in line and all(word in line for word in telling), line


def test_lenet5_learns_to_read_digits(tmp_path: Path) -> None:
    """Real handwriting in the official files: 85 % is out of reach where images and labels don't belong together."""
    write_svhn(tmp_path, train=700, test=300)
    words = ["--config", "svhn_lenet5", "--data.root", str(tmp_path)]
    words += ["--data.check_md5", "false", "--trainer.max_epochs", "10", "--wandb", "disabled"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["train", *words]) == 0
    (folder,) = Path("runs").glob("svhn_lenet5/*")
    assert record(folder)["metrics"]["test/acc"] > 0.85
