"""Boxes in COCO's and in YOLO's files: the same data in each layout, and what people get wrong."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import fails
from PIL import Image
from pytorch_lightning import Trainer
from torch import Tensor

from lightning_cnn.cli import main
from lightning_cnn.datamodules import DetectionFolder
from lightning_cnn.datamodules.detection.annotations import CROWD
from lightning_cnn.engine.catalogue import options
from lightning_cnn.errors import UserError
from lightning_cnn.modules import DigitDetector

SIDE = 64
SIZES = [(100, 40), (48, 48), (30, 90), (64, 32)]  # width and height of the images of a part
COLORS = {0: (255, 0, 0), 1: (0, 0, 255)}
NAMES = ["boat", "ship"]
LAYOUTS = ["roboflow", "coco", "coco_images", "yolo", "yolo_roboflow"]


def content(part: str) -> list[tuple[str, Image.Image, list[list[float]]]]:
    """Of each image its name, its pixels, and class, left, top, right, bottom; the last image has no object."""
    random = np.random.default_rng(["train", "val", "test"].index(part))
    found = []
    for number, (width, height) in enumerate(SIZES):
        pixels = np.full((height, width, 3), 90, dtype=np.uint8)
        rows = []
        for label in range(2 if number < 3 else 0):
            left, top = 4 + 14 * label, 5 + int(random.integers(0, 8))
            rows.append([float(label), left, top, left + 10, top + 12])
            pixels[top : top + 12, left : left + 10] = COLORS[label]
        found.append((f"{part}_{number}.png", Image.fromarray(pixels), rows))
    return found


def coco(part: str) -> dict[str, Any]:
    """The part as COCO has it; ids with gaps, and classes not in the order of their ids."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, image, rows) in enumerate(content(part)):
        images.append({"id": 100 + number, "file_name": name, "width": image.width, "height": image.height})
        for label, left, top, right, bottom in rows:
            box = [left, top, right - left, bottom - top]
            entry = {"id": len(annotations), "image_id": 100 + number, "category_id": [7, 90][int(label)], "bbox": box}
            annotations.append(entry | {"area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": 90, "name": "ship"}, {"id": 7, "name": "boat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(root: Path, layout: str, parts: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """Writes all parts in one layout. Returns the root."""
    for part in parts:
        folder = {
            "roboflow": root / {"val": "valid"}.get(part, part),
            "coco": root / f"{part}2017",
            "coco_images": root / "images" / f"{part}2017",
            "yolo": root / "images" / part,
            "yolo_roboflow": root / {"val": "valid"}.get(part, part) / "images",
        }[layout]
        folder.mkdir(parents=True)
        for name, image, _ in content(part):
            image.save(folder / name)
        if "yolo" not in layout:
            path = folder / "_annotations.coco.json"
            if layout != "roboflow":
                path = root / "annotations" / f"instances_{part}2017.json"
                path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(coco(part)))
            continue
        labels = root / "labels" / part if layout == "yolo" else folder.parent / "labels"
        labels.mkdir(parents=True)
        for name, image, rows in content(part):
            if rows or part == "train":  # an empty file, or none
                lines = []
                for label, left, top, right, bottom in rows:
                    center = [(left + right) / 2 / image.width, (top + bottom) / 2 / image.height]
                    size = [(right - left) / image.width, (bottom - top) / image.height]
                    lines.append(" ".join([str(int(label)), *(f"{value:.6f}" for value in center + size)]))
                (labels / name).with_suffix(".txt").write_text("\n".join(lines) + "\n")
    if "yolo" in layout:
        (root / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['boat', 'ship']\n")
    return root


def read(root: Path, part: str = "train", **given: Any) -> tuple[Tensor, Tensor]:
    data = DetectionFolder(str(root), image_size=SIDE, max_boxes=4, normalize="unit", **given)
    data.prepare_data()
    data.setup("test" if part == "test" else "fit")
    dataset = data.dataset(part)
    images, labels = dataset[torch.arange(len(dataset))]
    return images, labels


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path: Path, layout: str) -> None:
    root = write(tmp_path, layout)
    data = DetectionFolder(str(root), image_size=SIDE)
    assert data.class_names == ("boat", "ship") and data.num_classes == 2 and data.stages == ("train", "val", "test")
    for part in ("train", "val", "test"):
        with pytest.warns(UserWarning, match=r"1 of 4 images have no boxes and are backgrounds$"):
            images, labels = read(root, part)
        assert images.shape == (4, 3, SIDE, SIDE) and labels.shape == (4, 4, 5) and labels.dtype == torch.float32
        for image, label, (name, photo, rows) in zip(images, labels, content(part), strict=True):
            scale = SIDE / max(photo.size)
            left, top = ((SIDE - round(side * scale)) // 2 for side in photo.size)
            offset = np.array([left, top, left, top])
            expected = [[row[0], *(np.array(row[1:]) * scale + offset)] for row in rows]
            assert np.allclose(label[: len(rows)].reshape(-1, 5), np.array(expected).reshape(-1, 5), atol=1.01), name
            assert (label[len(rows) :] == -1).all()
            for kind, x0, y0, x1, y1 in label[: len(rows)].round().int().tolist():
                inner = image[:, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].float().mean((1, 2)).numpy()
                assert np.abs(inner - COLORS[kind]).max() < 40
    data.setup("fit")
    names = [data.dataset("train").name(row) for row in range(4)]
    assert [Path(name).name for name in names] == [f"train_{row}.png" for row in range(4)]


def test_all_layouts_give_the_same_labels(tmp_path: Path) -> None:
    first, *others = [read(write(tmp_path / layout, layout))[1] for layout in LAYOUTS]
    assert (first[..., 0] >= 0).sum() == 6 and all(torch.allclose(first, other, atol=1e-3) for other in others)


def test_without_a_validation_part(tmp_path: Path) -> None:
    data = DetectionFolder(str(write(tmp_path, "coco", ("train",))), image_size=SIDE, val_fraction=0.25)
    data.setup("fit")
    assert data.stages == ("train",) and [len(data.dataset(part)) for part in ("train", "val")] == [3, 1]
    assert "there is no part 'test' with boxes" in fails(lambda: data.setup("test"))


def test_images_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    root = write(tmp_path, "roboflow")
    for one, other in zip(read(root), read(root, max_memory=0.0, num_workers=0), strict=True):
        assert torch.equal(one, other)


def test_crowds_groups_and_other_classes(tmp_path: Path) -> None:
    root, path = write(tmp_path, "roboflow"), tmp_path / "train" / "_annotations.coco.json"
    told = coco("train")
    told["categories"] += [{"id": 0, "name": "vessels", "supercategory": "none"}]
    for entry in told["categories"][:2]:
        entry["supercategory"] = "vessels"
    told["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(told))
    other = coco("val")  # other ids for the same names, and a class that the training part does not have
    for entry in other["annotations"]:
        entry["category_id"] = {7: 1, 90: 2}[entry["category_id"]]
    other["annotations"][0]["category_id"] = 3
    other["categories"] = [{"id": 2, "name": "ship"}, {"id": 1, "name": "boat"}, {"id": 3, "name": "buoy"}]
    (tmp_path / "valid" / "_annotations.coco.json").write_text(json.dumps(other))
    _, labels = read(root)
    assert labels[0, :2, 0].tolist() == [0, CROWD - 1] and DetectionFolder(str(root)).class_names == ("boat", "ship")
    with pytest.warns(UserWarning, match=r"skipped: boxes of an unknown class \(1, first val_0.png\)"):
        _, labels = read(root, "val")
    assert labels[:2, :2, 0].tolist() == [[1, -1], [0, 1]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", ["yolo", "coco upright", "coco stored"])
def test_turned_photos(tmp_path: Path, layout: str, orientation: int) -> None:
    """The same upright photo, stored in all ways, with its box as the files of each kind have it."""
    (tmp_path / "images" / "train").mkdir(parents=True)
    upright = np.full((60, 40, 3), 50, dtype=np.uint8)
    upright[10:24, 4:20] = 255
    stored: dict[int, Callable[[Any], Any]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }
    pixels = np.ascontiguousarray(stored[orientation](upright))
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "images" / "train" / "a.jpg", quality=95, exif=exif)
    Image.fromarray(upright).save(tmp_path / "images" / "train" / "b.jpg", quality=95)
    if layout == "yolo":
        (tmp_path / "labels" / "train").mkdir(parents=True)
        (tmp_path / "data.yaml").write_text("names: {0: light}")
        for name in "ab":
            (tmp_path / "labels" / "train" / f"{name}.txt").write_text(f"0 {12 / 40} {17 / 60} {16 / 40} {14 / 60}")
    else:
        by_storage = layout == "coco stored" and orientation >= 5  # else nothing tells the two apart
        light = (pixels if by_storage else upright)[..., 0] > 150
        rows, columns = np.flatnonzero(light.any(1)), np.flatnonzero(light.any(0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        size = {"width": light.shape[1], "height": light.shape[0]}
        told = {
            "images": [{"id": 1, "file_name": "a.jpg", **size}, {"id": 2, "file_name": "b.jpg"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [int(value) for value in box]}],
            "categories": [{"id": 1, "name": "light"}],
        }
        shutil.move(tmp_path / "images" / "train", tmp_path / "train")
        (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(told))
    data = DetectionFolder(str(tmp_path), image_size=60, normalize="unit", val_split="last", val_fraction=0.5)
    data.setup("fit")
    images, labels = data.dataset("train")[torch.tensor([0])]
    assert labels[0, 0].tolist() == [0, 14, 10, 30, 24]  # 40x60 lies in the middle of 60x60
    light = images[0, 0] > 150
    assert light[12:22, 16:28].all() and light.sum() < 1.2 * 16 * 14


# what people get wrong


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes the JSON file of the training part."""

    def changed(root: Path) -> None:
        path = root / "train" / "_annotations.coco.json"
        told = json.loads(path.read_text())
        change(told)
        path.write_text(json.dumps(told))

    return changed


def text(line: str, name: str = "train_0.txt") -> Callable[[Path], None]:
    """Adds a line to a file of labels."""

    def changed(root: Path) -> None:
        path = root / "labels" / "train" / name
        path.write_text((path.read_text() if path.is_file() else "") + line + "\n")

    return changed


def first(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = told["annotations"][0]
    return found


@pytest.mark.parametrize(
    ("layout", "change", "says", "kept"),
    [
        ("roboflow", edit(lambda t: first(t).update(bbox=[500, 5, 9, 9])), "boxes outside of their image", 5),
        ("roboflow", edit(lambda t: first(t).update(bbox=[-20, -20, 9, 9])), "boxes outside of their image", 5),
        (
            "roboflow",
            edit(lambda t: first(t).update(bbox=[5, 5, 0, 9])),
            "boxes without area (1, first train_0.png)",
            5,
        ),
        ("roboflow", edit(lambda t: first(t).update(bbox=[5, 5, 9, -9])), "boxes without area", 5),
        ("roboflow", edit(lambda t: first(t).update(bbox=[5, 5, float("nan"), 9])), "boxes that are not four", 5),
        ("roboflow", edit(lambda t: first(t).update(bbox=[5, 5, 9])), "boxes that are not four numbers", 5),
        ("roboflow", edit(lambda t: first(t).update(bbox="5")), "boxes that are not four numbers", 5),
        ("roboflow", edit(lambda t: first(t).update(category_id=8)), "boxes of an unknown class", 5),
        ("roboflow", edit(lambda t: first(t).update(category_id=[7])), "boxes of an unknown class", 5),
        ("roboflow", edit(lambda t: first(t).update(image_id=8)), "boxes of images that are not listed", 5),
        ("roboflow", edit(lambda t: t["images"].pop()), "images that _annotations.coco.json does not list", 6),
        (
            "roboflow",
            lambda r: (r / "train" / "train_0.png").unlink(),
            "images that are not there (1, first train_0",
            4,
        ),
        ("roboflow", lambda r: (r / "train" / ".a.png").touch(), "files or folders: hidden (1, first .a.png)", 6),
        ("roboflow", edit(lambda t: t["images"][3].update(file_name="../x.png")), "images that are not there", 6),
        ("yolo", text("2 .5 .5 .1 .1"), "boxes of an unknown class (1, first train_0.png)", 6),
        ("yolo", text("1.5 .5 .5 .1 .1"), "boxes of an unknown class", 6),
        ("yolo", text("-1 .5 .5 .1 .1"), "boxes of an unknown class", 6),
        ("yolo", text("1 nan .5 .1 .1"), "boxes that are not finite", 6),
        ("yolo", text("1 .5 .5 0 .1"), "boxes without area", 6),
        ("yolo", text("1 50 20 10 10"), "boxes outside of their image", 6),
        ("yolo", text("1 .5 .5 .1"), "lines that are not a class and a box", 6),
        ("yolo", text("ship .5 .5 .1 .1"), "lines that are not a class and a box", 6),
        ("yolo", text("0 .5 .5 .1 .1", "alone.txt"), "label files without an image (1, first alone.txt)", 6),
        ("yolo", lambda r: (r / "images/train/._a.jpg").touch(), "files or folders: hidden (1, first ._a.jpg)", 6),
        (
            "yolo",
            lambda r: os.mkfifo(r / "images/train/a.png"),
            "files or folders: no regular file (1, first a.png)",
            6,
        ),
    ],
)
def test_what_is_skipped_is_counted_in_one_line(
    tmp_path: Path, layout: str, change: Callable[[Path], None], says: str, kept: int
) -> None:
    root = write(tmp_path, layout, ("train", "val"))
    change(root)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, labels = read(root)
    (line,) = [str(entry.message) for entry in caught if "skipped: " in str(entry.message)]
    assert says in line and "(1, first " in line and "\n" not in line and (labels[..., 0] >= 0).sum() == kept


def test_what_needs_no_word(tmp_path: Path) -> None:
    """A box that reaches a little beyond its image is clipped, a polygon becomes a box, a list of names is no label."""
    root = write(tmp_path, "yolo", ("train", "val"))
    text("1 0.1 0.1 0.3 0.2 0.2 0.5", "train_3.txt")(root)
    text("0 0.95 0.5 0.2 0.5", "train_3.txt")(root)
    (root / "labels" / "train" / "classes.txt").write_text("boat\nship\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, labels = read(root)
    assert not [entry for entry in caught if "skipped: " in str(entry.message)]
    expected = [[1, 6.4, 16 + 3.2, 19.2, 16 + 16], [0, 54.4, 24, 64, 40]]  # 64x32 with bars of 16
    assert np.allclose(labels[3, :2], expected, atol=1e-3)
    (root / "data.yaml").unlink()
    assert DetectionFolder(str(root)).class_names == ("boat", "ship")


@pytest.mark.parametrize(
    ("layout", "change", "telling"),
    [
        ("coco", lambda r: shutil.rmtree(r / "annotations"), "there are no images with boxes in"),
        ("coco", lambda r: shutil.rmtree(r / "train2017"), "not the folder of its images"),
        ("coco", lambda r: shutil.copytree(r / "train2017", r / "train"), None),
        (
            "coco",
            lambda r: shutil.copy(r / "annotations/instances_train2017.json", r / "annotations/instances_train.json"),
            "there are two sets of boxes for train",
        ),
        ("roboflow", lambda r: (r / "train/_annotations.coco.json").write_text("{"), "can't be read as JSON"),
        ("roboflow", lambda r: (r / "train/_annotations.coco.json").write_text("[" * 100000), "can't be read as JSON"),
        ("roboflow", lambda r: (r / "train/_annotations.coco.json").write_bytes(b"\xff\xfe"), "can't be read as JSON"),
        ("roboflow", lambda r: (r / "train/_annotations.coco.json").write_text("[]"), "it has no list 'images'"),
        ("roboflow", edit(lambda t: t.pop("annotations")), "it has no list 'annotations'"),
        ("roboflow", edit(lambda t: t.update(categories=[])), "has no categories"),
        ("roboflow", edit(lambda t: t["categories"][0].pop("name")), "a category lacks its `id` or its `name`"),
        ("roboflow", edit(lambda t: t["categories"][0].update(name="boat")), "the same `id` or the same `name`"),
        ("roboflow", edit(lambda t: t["categories"][0].update(name="a\x1b[0m")), "contains the control character"),
        ("roboflow", edit(lambda t: t["images"][0].pop("id")), "an image lacks its `id` or `file_name`"),
        (
            "roboflow",
            edit(lambda t: t["images"][0].update(id=101)),
            "an image lacks its `id` or `file_name`, or repeats",
        ),
        ("roboflow", edit(lambda t: t["images"][0].update(file_name="train_1.png")), "two images have the `file_name`"),
        ("roboflow", edit(lambda t: t["images"][0].update(width=50)), "train_0.png: 100x40 instead of 50x40"),
        ("roboflow", lambda r: [path.unlink() for path in (r / "train").glob("*.png")], "there are no images of"),
        ("roboflow", lambda r: (r / "train/train_1.png").write_bytes(b"\x89PNG"), "can't decode the image"),
        (
            "roboflow",
            edit(lambda t: [a.update(bbox=[900, 9, 9, 9]) for a in t["annotations"]]),
            "none of its boxes can be",
        ),
        (
            "roboflow",
            edit(lambda t: [a.update(category_id=77) for a in t["annotations"]]),
            "none of its boxes can be used: boxes of an unknown class (6, first train_0.png)",
        ),
        (
            "roboflow",
            edit(lambda t: [i.update(file_name=f"images/{i['file_name']}") for i in t["images"]]),
            "images that are not there (4, first images/train_0.png)",
        ),
        (
            "yolo",
            lambda r: [p.rename(p.with_stem(f"x{p.stem}")) for p in (r / "labels/train").glob("train*.txt")],
            "none of its boxes can be used: label files without an image",
        ),
        ("yolo", lambda r: (r / "data.yaml").unlink(), "there is no data.yaml or classes.txt"),
        ("yolo", lambda r: (r / "data.yaml").write_text("names: 3"), "has no list `names`"),
        ("yolo", lambda r: (r / "data.yaml").write_text("names: [a, a]"), "has no list `names` of different names"),
        ("yolo", lambda r: (r / "data.yaml").write_text("names: [a"), "can't be read"),
        (
            "yolo",
            lambda r: (r / "data.yaml").write_text("names: !!python/object/apply:os.system ['true']"),
            "can't be read",
        ),
        ("yolo", lambda r: (r / "labels/train/train_0.txt").write_bytes(b"\xff\xfe0"), "can't be read as text"),
    ],
)
def test_what_ends_with_one_line(
    tmp_path: Path, layout: str, change: Callable[[Path], object], telling: str | None
) -> None:
    root = write(tmp_path, layout, ("train", "val"))
    change(root)
    if telling is None:
        assert read(root)[1].shape[0] == 4
    else:
        assert telling in fails(lambda: read(root))


def test_a_corrupt_image_may_be_skipped(tmp_path: Path) -> None:
    root = write(tmp_path, "coco", ("train", "val"))
    (root / "train2017" / "train_1.png").write_bytes(b"\x89PNG")
    images, labels = read(root, skip_corrupt=True)
    assert len(images) == len(labels) == 3 and (labels[..., 0] >= 0).sum() == 4


def test_too_many_objects_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "yolo", ("train", "val"))
    words = ["train", "--data", "DetectionFolder", "--data.root", str(tmp_path), "--data.image_size", "64"]
    assert main([*words, "--data.max_boxes", "1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "--data.max_boxes 1: train_0.png has 2 objects: try --data.max_boxes 2" in line
    assert not list(Path().glob("runs/*/*"))


def test_options_of_both_bases() -> None:
    known = {option.name for option in options("DetectionFolder", "datamodules")}
    assert {"max_boxes", "min_visible", "max_memory", "skip_corrupt", "num_workers", "color", "augment"} <= known
    assert not known & {"download", "resize", "padding"}


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_files_of_windows_begin_with_a_mark(tmp_path: Path, layout: str) -> None:
    """A byte order mark belongs to no name and no number."""
    images, labels = read(write(tmp_path / "one", layout))
    root = write(tmp_path / "two", layout)
    for path in [*root.rglob("*.json"), *root.rglob("*.txt"), *root.rglob("*.yaml")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    same = read(root)
    assert torch.equal(same[0], images) and torch.equal(same[1], labels)


def test_numbers_are_read_in_house_numbers_alone(tmp_path: Path) -> None:
    """The rows of other data have no order that would be that of a number."""
    data = DetectionFolder(str(write(tmp_path, "coco")), image_size=64)
    trainer = Trainer(fast_dev_run=True, logger=False, accelerator="cpu", enable_model_summary=False)
    with pytest.raises(UserError, match="DigitDetector reads house numbers: for the boxes of DetectionFolder use Det"):
        trainer.fit(DigitDetector(image_size=64), data)
