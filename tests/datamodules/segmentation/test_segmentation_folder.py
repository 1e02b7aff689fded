import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import fails
from mask_sets import COLORS, NAMES, SIZES, save_mask, scene, write_folder
from PIL import Image

from lightning_cnn.datamodules import SegmentationFolder
from lightning_cnn.datamodules.batches import OnDisk
from lightning_cnn.datamodules.segmentation.mask_files import MaskReader
from lightning_cnn.options import IGNORE

TABLE = {tuple(color): number for number, color in enumerate([*COLORS.values()][:3])} | {(224, 224, 192): IGNORE}


def folder(root: Path, **options: Any) -> SegmentationFolder:
    return SegmentationFolder(str(root), image_size=32, **options)


def ready(root: Path, **options: Any) -> SegmentationFolder:
    data = folder(root, **options)
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize("kind", ["index", "palette", "colors", "binary"])
@pytest.mark.parametrize("max_memory", [None, 0.0])
def test_masks_of_each_kind(tmp_path: Path, kind: str, max_memory: float | None) -> None:
    write_folder(tmp_path, kind, parts=("train", "val", "test"))
    options: dict[str, Any] = {"colors": COLORS} if kind == "colors" else {"binary": True} if kind == "binary" else {}
    data = ready(tmp_path, max_memory=max_memory, num_workers=0, **options)
    assert data.class_names == (("background", "foreground") if kind == "binary" else tuple(NAMES))
    for seed, part in ((0, "train"), (100, "val"), (200, "test")):
        dataset = data.dataset(part)
        assert isinstance(dataset.images, OnDisk) == (max_memory == 0)
        assert len(dataset) == 6
        for number in range(6):
            image, mask = scene(*SIZES[number % 3], seed + number)
            own, classes = dataset.whole(number)
            expected = (mask == 1).astype(np.uint8) if kind == "binary" else mask
            assert np.array_equal(classes.numpy(), expected)
            assert np.array_equal(own.permute(1, 2, 0).numpy(), image) == (number % 3 == 0)  # the others have losses
            assert abs(own.permute(1, 2, 0).float().numpy() - image).mean() < 12
            assert dataset.name(number).startswith(f"{part}/images/{number:02d}.")


def test_images_on_disk_give_the_batches_of_those_in_memory(tmp_path: Path) -> None:
    write_folder(tmp_path)
    inside, outside = (ready(tmp_path, batch_size=2, max_memory=memory, num_workers=1) for memory in (1.0, 0.0))
    assert inside.preprocessing == outside.preprocessing
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loaders = [getattr(data, name)() for data in (inside, outside)]
        assert [loader.num_workers for loader in loaders] == [0, 1]
        for one, other in zip(*loaders, strict=True):
            assert all(map(torch.equal, one, other))


def test_without_validation_images_a_part_of_training_is_held_out(tmp_path: Path) -> None:
    data = ready(write_folder(tmp_path, count=8), val_fraction=0.25, val_split="last")
    assert data.stages == ("train", "test")
    assert [Path(data.dataset("val").name(position)).stem for position in range(2)] == ["06", "07"]
    assert len(data.dataset("train")) == 6 and len(data.dataset("val")) == 2


def test_nested_folders_suffixes_and_hidden_files(tmp_path: Path) -> None:
    """As other tools leave them: folders of cities, names with an ending, rests of a Mac."""
    write_folder(tmp_path, parts=("train",), count=4)
    for kind in ("images", "masks"):
        path = tmp_path / "train" / kind
        (path / "ulm").mkdir()
        for file in sorted(path.glob("*.*")):
            file.rename(path / "ulm" / f"{file.stem}{'_mask' * (kind == 'masks')}{file.suffix}")
        (path / "__MACOSX").mkdir()
        (path / "__MACOSX" / "._00.png").write_bytes(b"\0\5\x16\7")
        (path / ".DS_Store").write_bytes(b"\0")
        (path / "._01.png").write_bytes(b"\0\5\x16\7")
        (path / "notes.txt").write_text("mine")
    data = folder(tmp_path, mask_suffix="_mask")
    data.setup("fit")
    names = [data.dataset("train").name(position) for position in range(3)]
    assert all(name.startswith("train/images/ulm/") for name in names)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("L", "png"),
        ("P", "png"),
        ("P", "gif"),
        ("I;16", "png"),
        ("L", "bmp"),
        ("L", "tif"),
        ("LA", "png"),
        ("L", "pgm"),
    ],
)
def test_index_masks_of_any_lossless_format(tmp_path: Path, mode: str, ending: str) -> None:
    _, mask = scene(20, 30, 4)
    path = tmp_path / f"mask.{ending}"
    if mode == "I;16":
        Image.fromarray(mask.astype(np.uint16)).save(path)
    elif mode == "LA":
        Image.merge("LA", [Image.fromarray(mask), Image.new("L", (30, 20), 9)]).save(path)
    else:
        image = Image.fromarray(mask, mode)
        if mode == "P":
            image.putpalette([part for number in range(256) for part in (number, 255 - number, 7)])
        image.save(path, optimize=False)  # GIF files of Pillow would get other indices
    assert np.array_equal(MaskReader(3)(path).numpy(), mask)


def test_black_and_white_masks_of_any_kind(tmp_path: Path) -> None:
    _, mask = scene(20, 30, 4)
    inside = mask == 1
    white = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))
    reader = MaskReader(2, binary=True)
    for number, image in enumerate([white, white.convert("1"), white.convert("RGB"), white.point(lambda v: v // 255)]):
        image.save(tmp_path / f"{number}.png")
        assert np.array_equal(reader(tmp_path / f"{number}.png").numpy(), inside)
    for first in (0, 255):  # either may come first in a palette
        image = Image.fromarray(((first == 255) ^ inside).astype(np.uint8), "P")
        image.putpalette([first] * 3 + [255 - first] * 3)
        image.save(tmp_path / "palette.png")
        assert np.array_equal(reader(tmp_path / "palette.png").numpy(), inside)


def test_colors_of_a_palette_or_with_alpha(tmp_path: Path) -> None:
    _, mask = scene(20, 30, 4)
    reader = MaskReader(3, colors=TABLE)
    save_mask(mask, tmp_path / "rgb.png", "colors")
    with Image.open(tmp_path / "rgb.png") as image:
        image.convert("RGBA").save(tmp_path / "rgba.png")
        image.save(tmp_path / "lossless.webp", lossless=True)
        image.quantize(8, dither=Image.Dither.NONE).save(tmp_path / "palette.png")
    for name in ("rgb.png", "rgba.png", "palette.png", "lossless.webp"):
        assert np.array_equal(reader(tmp_path / name).numpy(), mask)


def test_a_mask_turned_by_its_orientation_tag(tmp_path: Path) -> None:
    """Image and mask may both have the tag of a camera."""
    _, mask = scene(20, 30, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(mask).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(MaskReader(3)(tmp_path / "turned.png").numpy(), np.rot90(mask, -1))


def test_a_class_below_the_ignored_one(tmp_path: Path) -> None:
    _, mask = scene(20, 30, 4, void=0)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = MaskReader(3, ignore_index=0)(tmp_path / "mask.png").numpy()
    assert np.array_equal(found, np.where(mask == 0, IGNORE, mask))


def bad(name: str) -> Callable[[Path], str]:
    """What a folder that has one fault is told."""

    def said(root: Path) -> str:
        options: dict[str, Any] = {}
        train = write_folder(root) / "train"
        images, masks = train / "images", train / "masks"
        if name == "sizes":
            save_mask(scene(41, 56, 0)[1], masks / "00.png")
        elif name == "unknown class":
            save_mask(np.where(scene(*SIZES[1], 1)[1] == 1, 7, 0).astype(np.uint8), masks / "01.png")
        elif name == "negative class":
            Image.fromarray(np.full(SIZES[1], -4, np.int32)).save(masks / "01.tif")
            (masks / "01.png").unlink()
        elif name == "rgb":
            save_mask(scene(*SIZES[0], 0)[1], masks / "00.png", "colors")
        elif name == "float":
            (masks / "00.png").unlink()
            Image.fromarray(np.zeros(SIZES[0], np.float32)).save(masks / "00.tif")
        elif name == "unknown color":
            options["colors"] = {"background": [0, 0, 0], "disc": [1, 2, 3]}
            (root / "classes.txt").unlink()
        elif name == "no mask":
            (masks / "03.png").unlink()
        elif name == "no image":
            (images / "03.png").unlink()
        elif name == "jpeg":
            (masks / "00.png").unlink()
            Image.fromarray(scene(*SIZES[0], 0)[1]).save(masks / "00.jpg")
        elif name == "disguised jpeg":
            Image.fromarray(scene(*SIZES[0], 0)[1]).save(masks / "00.png", "JPEG")
        elif name == "lossy webp":
            (masks / "00.png").unlink()
            Image.fromarray(scene(*SIZES[0], 0)[1]).convert("RGB").save(masks / "00.webp", quality=80)
        elif name == "truncated":
            (masks / "00.png").write_bytes((masks / "00.png").read_bytes()[:80])
        elif name == "empty mask":
            (masks / "00.png").write_bytes(b"")
        elif name == "empty image":
            (images / "00.png").write_bytes(b"")
        elif name == "twice":
            Image.new("RGB", (4, 4)).save(images / "00.bmp")
        elif name == "no names":
            (root / "classes.txt").unlink()
        elif name == "one name":
            (root / "classes.txt").write_text("all\n")
        elif name == "names twice":
            (root / "classes.txt").write_text("a\nb\na\n")
        elif name == "control character":
            (root / "classes.txt").write_text("a\nb\x1b[31m\n")
        elif name == "no text":
            (root / "classes.txt").write_bytes(b"\xff\xfe\xfa")
        elif name == "black and white":
            for path in masks.iterdir():
                pixels = np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8)
                Image.fromarray(pixels).save(path)
        elif name == "gray shades":
            options["binary"] = True
            options["classes"] = ["background", "cell"]
        elif name == "both":
            options |= {"binary": True, "colors": COLORS}
        elif name == "same color":
            options["colors"] = {"a": [1, 2, 3], "b": [1, 2, 3]}
        elif name == "no color":
            options["colors"] = {"a": [1, 2, 3], "b": [1, 2, 300]}
        elif name == "no masks":
            masks.rename(train / "labels")
        elif name == "no images":
            for path in (*images.iterdir(), *masks.iterdir()):
                path.unlink()
        elif name == "part as root":
            root = train
        elif name == "no parts":
            train.rename(root / "mine")
            images, masks = (path.rename(root / path.name) for path in (root / "mine").iterdir())
        elif name == "nothing":
            root = root / "nowhere"
        elif name == "per image":
            options["normalize"] = "per_image"
        elif name == "mixup":
            options["augment"] = {"mixup": 0.2}
        elif name == "crop":
            options["augment"] = {"crop": 4}
        elif name == "ignored index":
            options["ignore_index"] = -1
        return fails(lambda: ready(root, **options))

    return said


SAID = {
    "sizes": ["masks/00.png has 56x41 pixels", "images/00.png 56x40"],
    "unknown class": ["masks/01.png: pixel value 7 is no class", "expected 0 to 2", "255"],
    "negative class": ["masks/01.tif: pixel value -4 is no class"],
    "rgb": ["masks/00.png is of mode RGB", "`data.colors`"],
    "float": ["masks/00.tif is of mode F"],
    "unknown color": ["masks/00.png: the color [", "is none of `data.colors`"],
    "no mask": ["the image ", "images/03.png has no mask ", "masks/03.png"],
    "no image": ["the mask ", "masks/03.png has no image in "],
    "jpeg": ["masks/00.jpg is compressed with loss", "PNG"],
    "disguised jpeg": ["masks/00.png is compressed with loss", "PNG"],
    "lossy webp": ["masks/00.webp is compressed with loss", "PNG"],
    "truncated": ["can't decode the mask ", "masks/00.png"],
    "empty mask": ["can't decode the mask ", "masks/00.png"],
    "empty image": ["can't decode the image ", "images/00.png"],
    "twice": ["images/00.bmp and ", "images/00.png have the same name"],
    "no names": ["`data.classes`", "classes.txt", "`data.binary`", "`data.colors`"],
    "one name": ["1 classes: expected 2 to 255"],
    "names twice": ["a, b, a: each name must be there once"],
    "control character": ["`data.classes`", "\\x1b"],
    "no text": ["classes.txt can't be read as text"],
    "black and white": ["class 0 and ignored pixels only", "`data.binary` true"],
    "gray shades": ["pixel value 2 is no class: with `data.binary` true expected 0 and 255"],
    "both": ["`data.binary` and `data.colors`: set one of the two"],
    "same color": ["`data.colors` b: [1, 2, 3] is the color of another class"],
    "no color": ["`data.colors` b: [1, 2, 300]; expected red, green and blue"],
    "no masks": ["there is no folder ", "train/masks"],
    "no images": ["there are no images in ", "train/images"],
    "part as root": ["is one part of the data: set it to "],
    "no parts": ["has images/ and masks/, but no train/: move both folders into "],
    "nothing": ["there is no folder ", "<root>/train/images/<image>", "`data.root`"],
    "per image": ["`data.normalize` 'per_image': expected one of auto, standardize, unit, raw"],
    "mixup": ["`data.augment.mixup`", "leave it out"],
    "crop": ["`data.augment.crop`", "`data.image_size`"],
    "ignored index": ["`data.ignore_index` -1"],
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("parts", [("train", "test")])
def test_what_a_user_can_mend_is_said_in_one_line(tmp_path: Path, name: str, parts: tuple[str, ...]) -> None:
    message = bad(name)(tmp_path)
    for part in SAID[name]:
        assert part in message


def test_a_test_part_that_is_not_there(tmp_path: Path) -> None:
    data = folder(write_folder(tmp_path, parts=("train",)))
    assert data.stages == ("train",)
    assert "put the images there, as test/images and test/masks" in fails(lambda: data.setup("test"))


def test_a_huge_image_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A header that promises more pixels than Pillow decodes."""
    write_folder(tmp_path)
    path = tmp_path / "train" / "masks" / "00.png"
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    path.write_bytes(bytes(content))
    assert "masks/00.png" in fails(lambda: ready(tmp_path))
