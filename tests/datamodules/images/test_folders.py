"""Folders of images as people have them: the same files are images wherever folders are read."""

import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import fails, ready, write_folder
from PIL import Image, ImageCms

from lightning_cnn.datamodules import DetectionFolder, ImageFolder, ImageTable, ImageValues, SegmentationFolder
from lightning_cnn.datamodules.images.folders import find_parts
from lightning_cnn.datamodules.images.image_files import find_images
from lightning_cnn.datamodules.images.preprocessing import Preprocessing


def litter(folder: Path) -> None:
    """What lies among images: hidden files, files of systems and of other kinds, other formats, and a linked folder."""
    for name in (".hidden.png", "._000.png"):
        shutil.copy(folder / "000.png", folder / name)
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (folder / name).mkdir()
        shutil.copy(folder / "000.png", folder / name)
    for name in ("Thumbs.db", "desktop.ini", "notes.md", "b.heic", "a.HEIC"):
        (folder / name).write_bytes(b"x")
    with Image.open(folder / "000.png") as image:
        for name, kind in (("a.gif", "GIF"), ("b.avif", "AVIF"), ("c.jfif", "JPEG")):
            image.save(folder / name, kind)
    elsewhere = folder.parent.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    shutil.copy(folder / "000.png", elsewhere / "far.png")
    (folder / "more").symlink_to(os.path.relpath(elsewhere, folder))


EXPECTED = {"000.png", "001.png", "a.gif", "b.avif", "c.jfif", "far.png"}
NOTE = r"skipped 4: .*\.\.\.; 3 files ignored: 2 .heic, 1 .md"


def names(paths: list[str]) -> set[str]:
    return {Path(path).name for path in paths}


def of_folder(root: Path) -> set[str]:
    write_folder(root, {"train/cat": 2, "train/dog": 1})
    litter(root / "train" / "cat")
    paths, labels = ImageFolder(str(root), image_size=8)._find("train")
    return names([path for path, label in zip(paths, labels.tolist(), strict=True) if label == 0])


def of_flat_folder(root: Path) -> set[str]:
    write_folder(root, {"cat": 2, "dog": 1})
    litter(root / "cat")
    shutil.move(root.parent / "elsewhere", root / "cat" / "elsewhere")
    (root / "cat" / "more").unlink()
    paths, _ = ImageFolder(str(root), image_size=8)._find("train")
    return names([path for path in paths if "/cat/" in path])


def of_prediction(root: Path) -> set[str]:
    write_folder(root, {"new": 2})
    litter(root / "new")
    return names([name for name, _ in find_images([root / "new"])])


def of_masks(root: Path) -> set[str]:
    write_folder(root, {"train/images": 2})
    litter(root / "train" / "images")
    (root / "train" / "images" / "a.gif").rename(root / "train" / "images" / "d.gif")
    masks = root / "train" / "masks"
    (masks / "more").mkdir(parents=True)
    for name in ("000", "001", "d", "b", "c", "more/far"):
        image = next(path for path in (root / "train" / "images").glob(f"{name}.*") if path.suffix != ".heic")
        with Image.open(image) as file:
            Image.fromarray(np.eye(file.height, file.width, dtype=np.uint8)).save(masks / f"{name}.png")
    found = SegmentationFolder(str(root), classes=["a", "b"]).find("train")
    return {name.replace("d.gif", "a.gif") for name in names(found.images)}


@pytest.mark.parametrize("find", [of_folder, of_flat_folder, of_prediction, of_masks], ids=lambda find: find.__name__)
def test_the_same_files_are_images_everywhere(find: Callable[[Path], set[str]], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with pytest.warns(UserWarning, match=NOTE):
        assert find(tmp_path / "root") == EXPECTED


def test_the_same_files_are_images_for_a_detector(tmp_path: Path) -> None:
    write_folder(tmp_path, {"images/train": 2})
    litter(tmp_path / "images" / "train")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("thing\n")
    with pytest.warns(UserWarning, match=r"hidden \(4, .*files that are no images \(3, first .*\)"):
        paths, _ = DetectionFolder(str(tmp_path), image_size=16)._find("train")
    assert names(paths) == EXPECTED


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "VALID"])
def test_the_usual_names_of_parts(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {f"Train/{c}": 3 for c in "ab"} | {f"{name}/a": 2} | {f"testing/{c}": 1 for c in "ab"})
    data = ImageFolder(str(tmp_path), image_size=8)
    assert data.stages == ("train", "val", "test")
    with pytest.warns(UserWarning, match="^val has no images of 1 of 2 classes: b$"):
        ready(ready(data), "test")
    assert [len(data.dataset(part)) for part in data.stages] == [6, 2, 2]
    (tmp_path / "val").mkdir(exist_ok=True)
    if name.lower() != "val" or not (tmp_path / "val").samefile(tmp_path / name):
        assert "are both folders of val: remove or rename one" in fails(lambda: find_parts(tmp_path))


def test_masks_have_the_usual_parts(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        (tmp_path / part / "images").mkdir(parents=True)
        (tmp_path / part / "masks").mkdir()
        Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / part / "images" / "1.png")
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(tmp_path / part / "masks" / "1.png")
    data = ready(SegmentationFolder(str(tmp_path), classes=["a", "b"], image_size=32, background="#102030"))
    assert data.stages == ("train", "val")
    images, _ = data.dataset("val")[torch.tensor([0])]
    assert images[0, :, 0, 0].tolist() == [16, 32, 48]


def test_classes_without_a_folder_of_the_part(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "notes").mkdir()
    (tmp_path / ".git").mkdir()
    data = ready(ImageFolder(str(tmp_path), image_size=8))
    assert data.class_names == ("cat", "dog") and data.stages == ("train",)
    assert [data.dataset(part).dataset.name(0) for part in ("train", "val")] == ["cat/000.png"] * 2
    assert len(data.dataset("train")) == 8


@pytest.mark.parametrize("folders", [["images", "masks"], ["images", "labels"], ["cat"], ["a/train/x", "b/train/x"]])
def test_other_layouts_are_no_classes(folders: list[str], tmp_path: Path) -> None:
    write_folder(tmp_path, dict.fromkeys(folders, 2))
    message = fails(lambda: ImageFolder(str(tmp_path)))
    assert "there is no folder" in message or "only one class folder" in message


def test_classes_and_counts_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_cnn.datamodules.images.image_folder.rank_zero_info", said.append)
    write_folder(tmp_path / "few", {"train/cat": 10, "train/dog": 5, "test/cat": 2, "test/dog": 1})
    ready(ready(ImageFolder(str(tmp_path / "few"), image_size=8)), "test")
    assert said[1:3] == ["train: 12 images: cat 8, dog 4", "val: 3 images: cat 2, dog 1"]
    assert said[-1] == "test: 3 images: cat 2, dog 1"
    write_folder(tmp_path / "many", {f"train/{number}": 2 + (number == 3) for number in range(13)})
    ready(ImageFolder(str(tmp_path / "many"), image_size=8, val_fraction=0.5))
    assert said[-2] == "train: 13 images: 1 to 1 of each of 13 classes"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/a": 3, "train/b": 3})
    for name in (b"\xff\xfe.png", b"\xe9t\xe9.jpg"):
        copied = os.fsencode(tmp_path / "train" / "a") + b"/" + name
        Path(os.fsdecode(copied)).write_bytes((tmp_path / "train" / "a" / "000.png").read_bytes())
    data = ready(ImageFolder(str(tmp_path), image_size=8))
    assert len(data.dataset("train")) + len(data.dataset("val")) == 8
    assert len(find_images([tmp_path])) == 8
    os.mkdir(os.fsencode(tmp_path / "train") + b"/caf\xe9")
    assert r"train 'caf\udce9': contains the control character" in fails(lambda: ImageFolder(str(tmp_path)))


# one reader of images


def glass(path: Path) -> Path:
    """Red, and under a transparent half green."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 255, 255
    pixels[:4] = (0, 255, 0, 0)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "PA"])
def test_what_shows_through_transparent_pixels(mode: str, tmp_path: Path) -> None:
    path = glass(tmp_path / "glass.png")
    if mode != "RGBA":
        with Image.open(path) as image:
            other = image.convert("LA") if mode == "LA" else image.quantize(8)
            other.convert(mode).save(path := tmp_path / ("other.tif" if mode == "PA" else "other.png"))
    for color, expected in (("white", [255] * 3), ("black", [0] * 3), ("#0a1428", [10, 20, 40])):
        found = Preprocessing(8, 3, background=color).read(path)
        assert found[:, 0, 0].tolist() == expected
        gray = Preprocessing(8, 1, background=color).read(path)[0]
        assert int(gray[0, 0]) == round(float(np.dot(expected, [0.299, 0.587, 0.114])))
        below = [76] * 3 if mode == "LA" else [255, 0, 0]
        assert (found[:, 7, 7].int() - torch.tensor(below)).abs().max() <= 1
    beneath = Preprocessing.from_dict({"image_size": 8, "in_channels": 3}).read(path)  # as older checkpoints say
    assert (beneath[:, 0, 0].int() - torch.tensor([150] * 3 if mode == "LA" else [0, 255, 0])).abs().max() <= 1


def test_training_and_prediction_see_the_same_background(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        glass(tmp_path / "train" / name / "1.png")
    data = ImageFolder(str(tmp_path), image_size=8)
    assert data._in_memory(*data._find("train")).images[0, :, 0, 0].tolist() == [255] * 3  # type: ignore[attr-defined]
    again = Preprocessing.from_dict(data.state_dict()["preprocessing"])
    assert again.read(tmp_path / "train" / "a" / "1.png")[:, 0, 0].tolist() == [255] * 3
    state = data.state_dict()
    del state["preprocessing"]["background"]  # of an earlier version
    data.load_state_dict(state)
    assert data.preprocessing.read(tmp_path / "train" / "a" / "1.png")[:, 0, 0].tolist() == [0, 255, 0]
    assert "`data.background` 'glass'" in fails(lambda: ImageFolder(str(tmp_path), background="glass"))


@pytest.mark.parametrize("background", [None, "#0a1428"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_script_without_torch_reads_alike(
    background: str | None, channels: int, project: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    script = runpy.run_path(str(project / "experiments" / "onnx_predict.py"))
    glass(tmp_path / "glass.png")
    Image.new("LAB", (8, 8), (90, 20, 200)).save(tmp_path / "lab.tif")
    how = Preprocessing(8, channels, background=background)
    for name in ("glass.png", "lab.tif"):
        pixels = np.asarray(script["decode"](str(tmp_path / name), how.to_dict()))
        expected = how.read(tmp_path / name)
        assert np.array_equal(pixels, expected[0] if channels == 1 else expected.permute(1, 2, 0))


@pytest.mark.parametrize("channels", [1, 3])
def test_lab(channels: int, tmp_path: Path) -> None:
    change = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    plain = Image.new("RGB", (8, 8), (200, 100, 50))
    lab = ImageCms.applyTransform(plain, change)
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    found = Preprocessing(8, channels).read(tmp_path / "lab.tif")[:, 0, 0].int()
    expected = [200, 100, 50] if channels == 3 else [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    assert (found - torch.tensor(expected)).abs().max() <= 3


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "RGBX", "RGBa", "La"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_pillow_is_read(mode: str, channels: int) -> None:
    for background in (None, "white"):
        image = Preprocessing(8, channels, background=background).read(Image.new(mode, (8, 8)))
        assert image.shape == (channels, 8, 8)


# tables


def write_table(root: Path, text: str, name: str = "labels.csv") -> Path:
    write_folder(root, {"photos": 12})
    (root / name).write_text(text)
    return root


def photos(rows: list[str]) -> str:
    return "\n".join(rows) + "\n"


def test_classes_from_a_table(tmp_path: Path) -> None:
    rows = [
        f"{n},photos/{n:03d}.png,{'dog' if n % 2 else 'cat'},{('train', 'valid', 'test')[n // 6 + n // 9]},x"
        for n in range(12)
    ]
    root = write_table(tmp_path, photos([",file,class,split,notes", *rows]))
    data = ready(ready(ImageFolder(str(root), labels="labels.csv", image_size=8)), "test")
    assert data.class_names == ("cat", "dog") and data.stages == ("train", "val", "test")
    expected = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    for part, numbers in expected.items():
        images, labels = data.dataset(part)[torch.arange(len(numbers))]
        assert labels.tolist() == [number % 2 for number in numbers]
        assert all(
            torch.equal(image, data.preprocessing.read(root / "photos" / f"{number:03d}.png"))
            for image, number in zip(images, numbers, strict=True)
        )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_spreadsheets(separator: str, tmp_path: Path) -> None:
    """A byte order mark, semicolons, empty lines, and a table that does not lie beside the images."""
    text = photos(["file,label", *(f"photos/{n:03d}.png,{n % 3}" for n in range(12)), ""]).replace(",", separator)
    root = write_table(tmp_path / "data", "\ufeff" + text, "../mine.csv")
    data = ready(ImageFolder(str(root), labels="mine.csv", image_size=8, val_fraction=0.5))
    assert data.class_names == ("0", "1", "2")
    assert data.counts(data.dataset("train")).tolist() == data.counts(data.dataset("val")).tolist() == [2, 2, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("file\nphotos/000.png\n", "the first line must have one column label or class"),
        ("file,label,class\nphotos/000.png,a,b\n", "the first line must have one column label or class"),
        ("file,label\nphotos/000.png,\n", "line 2: it must have a part (train, val, test) and a label"),
        ("file,label,split\nphotos/000.png,a,exam\n", "line 2: it must have a part (train, val, test)"),
        ("file,label\nphotos/000.png,a\n", "has only one class, 'a'"),
        ("file,label\nphotos/000.png,a\x1b\n", "control character"),
        ("file,label\nphotos/000.png,a\nphotos/000.png,b\n", "line 3: 'photos/000.png' is in line 2, too"),
        (
            "file,label,part\nphotos/000.png,a,train\nphotos/001.png,b,train\nphotos/002.png,c,test\n",
            "no training image is of the class 'c' in test",
        ),
    ],
)
def test_tables_that_can_not_be_used(text: str, telling: str, tmp_path: Path) -> None:
    root = write_table(tmp_path, text)
    assert telling in fails(lambda: ImageFolder(str(root), labels="labels.csv"))
    assert "requires `data.labels`" in fails(lambda: ImageFolder(str(root), groups="x"))


@pytest.mark.parametrize("kind", [ImageFolder, ImageTable, ImageValues])
def test_groups_stay_together(kind: type[ImageFolder], tmp_path: Path) -> None:
    label = "label" if kind is ImageFolder else "one,two"
    rows = [f"photos/{n:03d}.png,{n // 3},{n % 2 if kind is ImageFolder else f'{n % 2},1'}" for n in range(12)]
    root = write_table(tmp_path, photos([f"file,patient,{label}", *rows]))

    def val(**options: object) -> list[int]:
        data = ready(kind(str(root), labels="labels.csv", image_size=8, groups="patient", **options))  # type: ignore[arg-type]
        assert "patient" not in data.class_names
        return [int(Path(data.dataset("val").dataset.name(row)).stem) for row in data.dataset("val").indices]

    for fraction, count in ((0.25, 3), (0.5, 6)):
        held = val(val_fraction=fraction)
        assert len(held) == count and all(held.count(n) == 1 for m in held for n in range(m // 3 * 3, m // 3 * 3 + 3))
    folds = [val(fold=f"{number}/4") for number in range(1, 5)]
    assert sorted(n for fold in folds for n in fold) == list(range(12)) and {
        len({n // 3 for n in fold}) for fold in folds
    } == {1}
    assert "`data.groups` size" in fails(lambda: kind(str(root), labels="labels.csv", groups="size"))


def test_groups_in_several_parts_are_named(tmp_path: Path) -> None:
    rows = [f"photos/{n:03d}.png,{n % 2},{'test' if n > 9 else 'train'},{n % 5}" for n in range(12)]
    root = write_table(tmp_path, photos(["file,label,part,patient", *rows]))
    with pytest.warns(UserWarning, match=r"2 groups lie in several parts .first '0'."):
        ImageFolder(str(root), labels="labels.csv", groups="patient")
