import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import equal, fails, ready, two_classes, write_folder, write_mnist
from PIL import Image
from torch import Tensor

from lightning_cnn.datamodules import (
    MNIST,
    ImageDataModule,
    ImageFolder,
)
from lightning_cnn.datamodules.batches import (
    Batch,
    image_name,
)
from lightning_cnn.datamodules.images.decoding import decode
from lightning_cnn.datamodules.images.image_files import ImageFiles, find_images
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.figures import images as grids


def read(image: Image.Image, name: str, channels: int = 3, **options: Any) -> Tensor:
    image.save(name, **options)
    return Preprocessing(image.width, channels).read(name)


def test_grey_and_colour(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16)
    assert torch.equal(read(grey, "grey.png"), torch.arange(16, dtype=torch.uint8).view(1, 4, 4).expand(3, 4, 4) * 16)
    colour = Image.new("RGB", (4, 4), (200, 100, 50))
    assert read(colour, "colour.png")[:, 0, 0].tolist() == [200, 100, 50]
    assert read(colour, "colour.png", 1).unique().tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]


def test_16_bit_grey(tmp_path: Path) -> None:
    values = np.array([[0, 256], [0x8000, 0xFFFF]], np.uint16)
    assert read(Image.fromarray(values), "deep.png", 1).tolist() == [[[0, 1], [128, 255]]]
    assert read(Image.fromarray(values), "deep.tiff", 3)[2].tolist() == [[0, 1], [128, 255]]


def test_palette_transparency_and_print_colours(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 30, 60, 90])
    assert read(palette, "palette.png")[:, 2, 2].tolist() == [30, 60, 90]
    assert read(palette, "palette.gif")[:, 2, 2].tolist() == [30, 60, 90]
    glass = Image.new("RGBA", (4, 4), (10, 20, 30, 128))
    assert read(glass, "glass.png")[:, 2, 2].tolist() == [10, 20, 30]  # not mixed with black or white
    assert read(glass, "glass.webp", lossless=True)[:, 2, 2].tolist() == [10, 20, 30]
    assert read(Image.new("1", (4, 4), 1), "bits.png").unique().tolist() == [255]
    printed = read(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "print.jpg", quality=100)  # cyan
    assert (printed[:, 4, 4].int() - torch.tensor([0, 255, 255])).abs().max() <= 3


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_orientation_tag(tmp_path: Path, ending: str) -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, :8] = 255  # the left half is white
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise for display: left comes to the top
    image = read(Image.fromarray(pixels), f"turned.{ending}", 1, exif=exif)[0].float()
    assert image[:6].min() > 250 and image[10:].max() < 5


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tiff"])
def test_image_folder(tmp_path: Path, ending: str) -> None:
    counts = {"train/cat": 5, "train/dog": 7, "val/cat": 2, "val/dog": 3, "test/dog": 4, "test/cat": 1}
    write_folder(tmp_path, counts, ending=ending)
    data = ready(ready(ImageFolder(root=str(tmp_path), image_size=12, batch_size=4)), "test")
    assert data.class_names == ("cat", "dog")
    assert data.stages == ("train", "val", "test")
    for part, (cats, dogs) in {"train": (5, 7), "val": (2, 3), "test": (1, 4)}.items():
        dataset = data._sets[part]
        images, labels = dataset[torch.arange(cats + dogs)]
        assert labels.tolist() == [0] * cats + [1] * dogs
        third = data.preprocessing.read(tmp_path / part / "dog" / f"002.{ending}") if dogs > 2 else images[cats + 2]
        assert torch.equal(images[cats + 2], third)
        assert third.float().std() > 20


def test_image_folder_without_val_and_test(tmp_path: Path) -> None:
    data = ready(ImageFolder(root=str(two_classes(tmp_path)), image_size=12, val_fraction=0.4))
    assert data.stages == ("train",)
    parts = [torch.cat([images for images, _ in loader]) for loader in (data.train_dataloader(), data.val_dataloader())]
    assert [len(part) for part in parts] == [7, 4]
    distinct = {hashlib.sha256(image.numpy().tobytes()).digest() for part in parts for image in part}
    assert len(distinct) == 11
    message = fails(lambda: data.setup("test"))
    assert message.startswith(f"there is no folder {tmp_path}/test") and "test/<class>/<image>" in message


@pytest.mark.parametrize("limit", [None, 1e-6])
def test_names_of_the_files(tmp_path: Path, limit: float | None) -> None:
    write_folder(two_classes(tmp_path), {"test/cat": 2, "test/dog": 1})
    (tmp_path / "test" / "cat" / "000.png").write_text("no image")
    (tmp_path / "train" / "cat" / "002.png").rename(tmp_path / "train" / "cat" / "Tom & Jerry.PNG")
    options: dict[str, Any] = {"max_memory": limit, "skip_corrupt": True, "val_split": "first", "val_fraction": 0.5}
    with pytest.warns(UserWarning, match=r"skipped: .*cat/000.png"):
        data = ready(ready(ImageFolder(root=str(tmp_path), image_size=12, **options)), "test")
    counts = {"val": 6, "train": 5, "test": 2}
    found = {part: [image_name(data._sets[part], row) for row in range(count)] for part, count in counts.items()}
    cats = ["000.png", "001.png", "003.png", "004.png", "005.png", "Tom & Jerry.PNG"]
    assert found["val"] == [f"train/cat/{name}" for name in cats]
    assert found["train"] == [f"train/dog/{number:03d}.png" for number in range(5)]
    assert found["test"] == ["test/cat/001.png", "test/dog/000.png"]
    for part, names in found.items():
        images, _ = data._sets[part][torch.arange(len(names))]
        assert all(torch.equal(data.preprocessing.read(tmp_path / n), i) for n, i in zip(names, images, strict=True))


def test_images_without_names_are_called_by_their_position(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = ready(MNIST(root=str(tmp_path), val_split="first", val_fraction=0.2))
    assert [image_name(data._sets[part], 3) for part in ("val", "train")] == ["3", "13"]


def test_grey_image_folder(tmp_path: Path) -> None:
    data = ready(ImageFolder(root=str(two_classes(tmp_path)), color="grey", image_size=12))
    assert data.in_channels == 1
    assert next(iter(data.val_dataloader()))[0].shape[1:] == (1, 12, 12)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_on_disk_give_the_same_batches(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_cnn.datamodules.images.image_folder.rank_zero_info", said.append)
    two_classes(tmp_path)
    write_folder(tmp_path, {"test/cat": 3, "test/dog": 3}, side=15)
    options: dict[str, Any] = {"root": str(tmp_path), "image_size": 13, "batch_size": 4, "padding": 1}
    memory = ready(ready(ImageFolder(**options)), "test")
    disk = ready(ready(ImageFolder(**options, max_memory=1e-6, num_workers=workers)), "test")
    assert disk.preprocessing == memory.preprocessing
    assert disk.train_dataloader().num_workers == workers
    assert memory.train_dataloader().num_workers == 0
    for part in ("train", "val", "test"):
        assert equal(getattr(disk, f"{part}_dataloader")(), getattr(memory, f"{part}_dataloader")()), part
    train = memory.train_dataloader()
    assert not equal(train, memory.val_dataloader())
    said = [line for line in said if line.startswith("ImageFolder")]
    assert [line.startswith("ImageFolder: 11 images of 3x13x13 need 0.01 MiB") for line in said] == [True, False] * 2
    assert ["they stay on disk" in line for line in said] == [False, False, True, True]
    assert "`data.max_memory`" in said[2]


def test_the_picture_shows_all_classes_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {f"train/{name}": 30 for name in "abc"})
    titles: list[str] = []
    monkeypatch.setattr(grids, "image_grid", lambda images, names, **_: titles.extend(names))
    ImageFolder(root=str(tmp_path), image_size=8).plot(6)
    assert set(titles) == set("abc")


def read_all(data: ImageDataModule) -> list[Batch]:
    data.setup("fit")
    return [*data.train_dataloader(), *data.val_dataloader()]


def test_corrupt_images(tmp_path: Path) -> None:
    two_classes(tmp_path)
    whole = (tmp_path / "train" / "cat" / "001.png").read_bytes()
    (tmp_path / "train" / "cat" / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train" / "dog" / "003.png").write_text("no image at all")
    for limit in (None, 1e-6):
        options: dict[str, Any] = {"root": str(tmp_path), "image_size": 12, "max_memory": limit, "num_workers": 0}
        data = ImageFolder(**options)
        message = fails(lambda data=data: read_all(data))  # type: ignore[misc]
        assert "can't decode the image" in message and str(tmp_path / "train") in message
        data = ImageFolder(**options, skip_corrupt=True)
        with pytest.warns(UserWarning, match=r"skipped: .*dog/003.png"):
            data.setup("fit")
        labels = torch.cat([labels for part in (data.train_dataloader(), data.val_dataloader()) for _, labels in part])
        assert labels.bincount().tolist() == [5, 4]
    message = fails(lambda: ready(ImageFolder(root=str(tmp_path), image_size=12)))
    assert "cat/001.png" in message and message.endswith("`data.skip_corrupt` true")


def test_decoding_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"train/cat": 9})
    paths = sorted(str(path) for path in tmp_path.rglob("*.png"))
    Path(paths[4]).write_text("no image")
    preprocessing = Preprocessing(12, 3)
    before = torch.get_rng_state()
    alone = list(decode(paths, preprocessing.read, 12 * 12 * 3, 2))
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.WORTHWHILE", 0)
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.CHUNK_BYTES", 12 * 12 * 3 * 2)  # two images at once
    shared = list(decode(paths, preprocessing.read, 12 * 12 * 3, 2))
    assert torch.equal(before, torch.get_rng_state())  # the run's own draws do not depend on it
    ((positions, images, faults),) = alone
    assert positions.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(faults) == 1 and paths[4] in faults[0]
    assert torch.equal(images[4], preprocessing.read(paths[5]))
    assert len(shared) == 5
    assert torch.equal(torch.cat([part for part, _, _ in shared]), positions)
    assert torch.equal(torch.cat([part for _, part, _ in shared]), images)
    assert [fault for _, _, part in shared for fault in part] == faults


def test_many_images_are_decoded_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same whole folder, whether its images come from this process or from two others."""
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.CHUNK_BYTES", 1)
    two_classes(tmp_path)
    options: dict[str, Any] = {"root": str(tmp_path), "image_size": 12, "num_workers": 2}
    alone = read_all(ImageFolder(**options))
    here, original = os.getpid(), Preprocessing.read

    def read(*given: Any) -> Tensor:
        assert os.getpid() != here
        return original(*given)

    monkeypatch.setattr(Preprocessing, "read", read)
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.WORTHWHILE", 0)
    assert equal(read_all(ImageFolder(**options)), alone)
    (tmp_path / "train" / "dog" / "003.png").write_text("no image")
    message = fails(lambda: read_all(ImageFolder(**options)))
    assert message.startswith("can't decode the image") and message.endswith("`data.skip_corrupt` true")


@pytest.mark.parametrize("tag", [0, 26])
def test_damaged_metadata(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[274], exif[270] = 6, "abc"
    Image.new("RGB", (8, 8)).save("photo.jpg", exif=exif)
    good = Path("photo.jpg").read_bytes()
    assert Preprocessing(8, 3).read("photo.jpg").shape == (3, 8, 8)
    place = good.index(b"\x01\x0e") + 1  # the number of tag 270
    Path("photo.jpg").write_bytes(good[:place] + bytes([tag]) + good[place + 1 :])
    assert fails(lambda: Preprocessing(8, 3).read("photo.jpg")).startswith("can't decode the image photo.jpg")


@pytest.mark.filterwarnings("ignore:skipped")
def test_no_image_can_be_decoded(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_text("no image")
    message = fails(lambda: ImageFolder(root=str(tmp_path), skip_corrupt=True).setup("fit"))
    assert message.startswith("none of the 2 images")


def test_wrong_folders(tmp_path: Path) -> None:
    def opened() -> str:
        return fails(lambda: ImageFolder(root=str(tmp_path), image_size=12).setup("fit"))

    assert opened().startswith(f"there is no folder {tmp_path}/train: ImageFolder expects <root>/train/<class>/<image>")
    (tmp_path / "train").mkdir()
    assert opened().startswith(f"there are no class folders in {tmp_path}/train")
    write_folder(tmp_path, {"train/cat": 3})
    assert "only one class folder" in opened() and "'cat'" in opened()
    (tmp_path / "train" / "dog").mkdir()
    assert opened() == f"there are no images in {tmp_path}/train/dog: add some, or remove the folder"
    write_folder(tmp_path, {"train/dog": 3, "val/cat": 1, "val/horse": 1})
    message = opened()
    assert message == f"{tmp_path}/val/horse: there is no class 'horse' in {tmp_path}/train"
    for part in ("train", "val"):
        message = fails(partial(ImageFolder, root=str(tmp_path / part)))
        assert message == f"`data.root` {tmp_path / part} is one part of the data: set it to {tmp_path}"


def test_a_class_may_be_absent_from_val(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/ant": 2, "train/bee": 2, "train/cat": 2, "val/ant": 1, "val/cat": 2})
    data = ready(ImageFolder(root=str(tmp_path), image_size=12))
    assert [labels.tolist() for _, labels in data.val_dataloader()] == [[0, 2, 2]]


def test_image_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"b/deep": 2, "a": 8})
    for number in (6, 2, 0):  # so that the folder's own order is not that of the names
        (tmp_path / "a" / f"{number:03d}.png").rename(tmp_path / "a" / f"{9 - number:03d}x.PNG")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    scaling = Preprocessing(10, 3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 2.0))
    given = [tmp_path / "b", tmp_path / "a" / "005.png", tmp_path / "a"]
    files = ImageFiles([str(path) for path in given], scaling, 4)
    order = "b/deep/000.png b/deep/001.png a/005.png a/001.png a/003.png a/003x.PNG a/004.png a/005.png a/007.png"
    assert files.paths == [str(tmp_path / name) for name in [*order.split(), "a/007x.PNG", "a/009x.PNG"]]
    found = list(files.predict_dataloader())
    assert [positions.tolist() for _, positions in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert torch.equal(found[0][0][2], scaling.read(files.paths[2]))
    scaled, _ = files.on_after_batch_transfer(found[0], 0)
    expected = (found[0][0] / 255 - torch.tensor(scaling.mean).view(3, 1, 1)) / torch.tensor(scaling.std).view(3, 1, 1)
    assert torch.allclose(scaled, expected)


def test_image_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert fails(lambda: find_images(["nothing.png"])) == "there is no file or folder nothing.png"
    assert "there are no images in empty" in fails(lambda: find_images(["empty"]))
