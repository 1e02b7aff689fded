"""Pixels of image files: the same in training, prediction and the exported script, whatever the file holds."""

import importlib.util
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from svhn_files import write_digit_struct

from lightning_cnn.datamodules import ImageFolder, SVHNNumbers
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations
from lightning_cnn.datamodules.house_numbers.letterbox import letterbox, unletterbox
from lightning_cnn.datamodules.house_numbers.svhn_boxes import SVHNBoxes
from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.photo import open_photo, photo_facts
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError

WIDE = [[8192, 32768], [255, 65535]]  # of 16 bits
NARROW = [[32, 128], [0, 255]]
TURNS = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
COLORS = np.array([[[200, 10, 30], [0, 250, 5]], [[9, 8, 7], [255, 255, 255]]], dtype=np.uint8)
ALPHA = np.array([[0, 128], [255, 7]], dtype=np.uint8)


def png(pixels: NDArray[np.uint16], kind: int) -> bytes:
    """A PNG of 16 bits a channel, `(height, width, channels)`, which Pillow can't write in color."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def tiff(content: bytes, bits: int, white_is_zero: bool = False) -> bytes:
    """An uncompressed gray TIFF of two by two unsigned pixels, of kinds that Pillow can't write."""
    tags = {256: 2, 257: 2, 258: bits, 259: 1, 262: int(not white_is_zero), 277: 1, 278: 2, 279: len(content)}
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = sorted(({**tags, 273: start}).items())
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + b"\0\0\0\0" + content


def write_files(folder: Path) -> dict[str, Any]:
    """Writes images of two by two pixels in all kinds; returns what they must become, gray `(2, 2)` or in color."""
    wide = np.array(WIDE, dtype=np.uint16)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}

    def save(name: str, image: Image.Image, wanted: Any, **options: Any) -> None:
        image.save(folder / name, **options)
        found[name] = np.array(wanted)

    (folder / "16_bit.pgm").write_bytes(b"P5\n2 2\n65535\n" + wide.astype(">u2").tobytes())
    (folder / "10_bit.pgm").write_bytes(b"P5\n2 2\n1023\n" + np.array([[0, 512], [128, 1023]], ">u2").tobytes())
    (folder / "plain.pgm").write_text("P2\n2 2\n65535\n8192 32768\n255 65535\n")
    found |= {"16_bit.pgm": NARROW, "plain.pgm": NARROW, "10_bit.pgm": [[0, 128], [32, 255]]}
    save("16_bit.png", Image.fromarray(wide), NARROW)
    save("16_bit.tif", Image.fromarray(wide), NARROW)
    save("16_bit_big.tif", Image.frombytes("I;16B", (2, 2), wide.astype(">u2").tobytes()), NARROW)
    save("32_bit.tif", Image.fromarray(wide.astype(np.int32)), NARROW)
    save("float.tif", Image.fromarray(np.array(NARROW, dtype=np.float32) / 255), NARROW)
    save("float_half.tiff", Image.fromarray(np.array([[0, 0.5], [0.001, 1]], dtype=np.float32)), [[0, 128], [0, 255]])
    # rows of two 12-bit pixels, packed: 0x200 0x800, 0x00f 0xfff
    (folder / "12_bit.tif").write_bytes(tiff(bytes.fromhex("200800 00ffff"), 12))
    found["12_bit.tif"] = [[32, 128], [0, 255]]
    (folder / "negative.tif").write_bytes(tiff(wide.astype("<u2").tobytes(), 16, white_is_zero=True))
    found["negative.tif"] = [[223, 127], [255, 0]]
    (folder / "32_bit_unsigned.tif").write_bytes(tiff(wide.astype("<u4").tobytes(), 32))
    found["32_bit_unsigned.tif"] = NARROW
    (folder / "16_bit_rgb.png").write_bytes(png(np.stack([wide, wide[::-1], wide], -1), 2))
    found["16_bit_rgb.png"] = np.stack([NARROW, NARROW[::-1], NARROW], -1)
    (folder / "16_bit_alpha.png").write_bytes(png(np.stack([wide, wide[::-1]], -1), 4))
    found["16_bit_alpha.png"] = NARROW
    gray = Image.fromarray(np.array(NARROW, dtype=np.uint8))
    save("1_bit.png", Image.fromarray(np.array([[True, False], [False, True]])), [[255, 0], [0, 255]])
    save("gray.png", gray, NARROW)
    save("gray_transparent.png", gray, NARROW, transparency=128)
    save("gray_alpha.png", Image.merge("LA", [gray, Image.fromarray(ALPHA)]), NARROW)
    save("color.png", Image.fromarray(COLORS), COLORS)
    rgba = np.concatenate([COLORS, ALPHA[..., None]], -1)
    save("alpha.png", Image.fromarray(rgba), COLORS)
    save("alpha.tif", Image.fromarray(rgba), COLORS)
    save("alpha.webp", Image.fromarray(rgba), COLORS, lossless=True, exact=True)
    palette = Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8)).convert("P")
    palette.putpalette(COLORS.reshape(-1).tolist())
    save("palette.png", palette, COLORS)
    save("palette_one.png", palette, COLORS, transparency=1)
    save("palette_many.png", palette, COLORS, transparency=ALPHA.tobytes())
    cmyk = np.zeros((2, 2, 4), dtype=np.uint8)
    cmyk[..., :3] = 255 - COLORS
    save("cmyk.tif", Image.frombytes("CMYK", (2, 2), cmyk.tobytes()), COLORS)
    return found


@pytest.fixture(scope="module")
def script() -> Any:
    """The script that goes with an exported network."""
    place = Path(__file__).parents[3] / "experiments" / "onnx_predict.py"
    spec = importlib.util.spec_from_file_location("onnx_predict", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scaled(script: Any, path: Path, how: Preprocessing) -> Any:
    """What the script makes of a file, as uint8."""
    pixels = script.prepare(script.decode(str(path), how.to_dict()), how.to_dict()) * 255
    assert np.abs(pixels - pixels.round()).max() < 1e-3
    return pixels.round().astype(np.uint8)


# kinds of pixels


@pytest.mark.filterwarnings("error")
def test_every_kind_of_file(tmp_path: Path, script: Any) -> None:
    """Gray from color by 0.299 red + 0.587 green + 0.114 blue (ITU-R 601)."""
    for name, wanted in write_files(tmp_path).items():
        color = np.broadcast_to(np.atleast_3d(wanted), (2, 2, 3))
        gray = color @ [0.299, 0.587, 0.114]
        how = Preprocessing(image_size=2, in_channels=3)
        pixels = how.read(tmp_path / name)
        assert pixels.dtype == torch.uint8 and pixels.permute(1, 2, 0).tolist() == color.tolist(), name
        assert np.array_equal(scaled(script, tmp_path / name, how), pixels), name
        how = Preprocessing(image_size=2, in_channels=1)
        pixels = how.read(tmp_path / name)
        assert np.abs(pixels[0].numpy() - gray).max() <= (0.51 if np.ndim(wanted) == 3 else 1e-6), name
        assert np.array_equal(scaled(script, tmp_path / name, how), pixels), name


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp", "a.tif", "a.unknown", "a", "a.png.old"])
def test_a_name_that_is_of_another_format(name: str, tmp_path: Path) -> None:
    """What a file is, its bytes say."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for kind in ("PNG", "BMP", "GIF"):
        image = Image.fromarray(pixels)
        image = image.quantize(256) if kind == "GIF" else image
        image.save(tmp_path / name, kind)
        assert np.array_equal(np.asarray(open_photo(tmp_path / name, "RGB")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.array([[0, 200]], np.float32), "from 0 to 200, expected 0 to 1"),
        (np.array([[-0.5, 1]], np.float32), "from -0.5 to 1, expected 0 to 1"),
        (np.array([[np.nan, 1]], np.float32), "expected 0 to 1"),
        (np.array([[-3, 1000]], np.int32), "from -3 to 1000, expected 0 to 65,535"),
        (np.array([[0, 70000]], np.int32), "from 0 to 70000, expected 0 to 65,535"),
    ],
)
def test_pixels_that_can_not_be_interpreted(
    pixels: Any, says: str, tmp_path: Path, script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path, how = tmp_path / "strange.tif", Preprocessing(image_size=2, in_channels=1)
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError) as caught:
        how.read(path)
    assert says in str(caught.value) and str(caught.value).startswith(
        f"can't decode the image {path} (its pixels range"
    )
    assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        script.prepare(script.decode(str(path), how.to_dict()), how.to_dict())
    assert ended.value.code == 2 and says in capsys.readouterr().err


# the same in training, prediction and the script


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("color", ["rgb", "grey"])
def test_training_prediction_and_script_see_the_same(resize: Any, color: Any, tmp_path: Path, script: Any) -> None:
    """Files of all kinds and of extreme shapes, in memory and on disk."""
    write_files(tmp_path / "train" / "small")
    random = np.random.default_rng(0)
    large = tmp_path / "train" / "large"
    large.mkdir()
    for number, (width, height) in enumerate([(128, 1), (1, 128), (37, 20), (20, 37), (300, 2)]):
        deep = random.integers(0, 2**16, (height, width), dtype=np.uint16)
        Image.fromarray(deep).save(large / f"{number}.png")
        Image.fromarray(deep.astype(np.float32) / 65535).save(large / f"{number}.tif", tiffinfo={274: 1 + number})
        photo = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
        Image.fromarray(photo).save(large / f"{number}.webp", lossless=True, exif=exif(4 + number))
    options: dict[str, Any] = {"resize": resize, "color": color, "image_size": 16, "num_workers": 0}
    seen = []
    for memory in (1.0, 0.0):
        data = ImageFolder(str(tmp_path), max_memory=memory, val_split="first", val_fraction=0.5, **options)
        whole = data.open_parts(["train"])["train"].dataset  # type: ignore[attr-defined]
        seen.append(whole[torch.arange(len(whole))][0])
    assert torch.equal(*seen)
    paths = sorted([str(path) for path in tmp_path.glob("train/*/*")])
    predicted = torch.cat([images for images, _ in ImageFiles(paths, data.preprocessing).predict_dataloader()])
    assert torch.equal(predicted, seen[0])
    for path, pixels in zip(paths, predicted, strict=True):
        assert np.array_equal(scaled(script, Path(path), data.preprocessing), pixels), path
        if "large" in path:
            assert pixels.max() > 0, path


# extreme shapes


@pytest.mark.parametrize(
    ("width", "height"), [(128, 1), (1, 128), (5000, 3), (64, 64), (100, 41), (41, 100), (3, 2), (1, 1)]
)
def test_pad_keeps_at_least_a_pixel(width: int, height: int, tmp_path: Path) -> None:
    path, side = tmp_path / "white.png", 64
    Image.new("L", (width, height), 255).save(path)
    square = Preprocessing(image_size=side, in_channels=1, resize="pad").read(path)[0].numpy()
    rows, columns = np.flatnonzero(square.any(1)), np.flatnonzero(square.any(0))
    assert max(len(rows), len(columns)) == side and min(len(rows), len(columns)) >= 1
    whole = [[0.0, 0, width, height]]
    box = letterbox(whole, [(width, height)], side)
    assert box.tolist() == [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]
    with np.errstate(all="raise"):
        back = unletterbox(box, [(width, height)], side)
    assert np.allclose(back, whole, rtol=1e-5)
    if 2 * side * min(width, height) > max(width, height):  # Pillow has no pixel left, and up to 12 an error
        assert np.array_equal(square, np.asarray(ImageOps.pad(Image.open(path), (side, side))))


# orientation


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[274] = orientation
    return found


@pytest.mark.parametrize("kind", ["png", "webp", "tif", "compressed.tif"])
@pytest.mark.parametrize("orientation", range(10))
def test_turned_photos(kind: str, orientation: int, tmp_path: Path, script: Any) -> None:
    """0 and 9 are no orientations."""
    path, stored = tmp_path / f"photo.{kind}", np.arange(15, dtype=np.uint8).reshape(3, 5)
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    if kind == "compressed.tif" and 1 <= orientation <= 8:  # libtiff writes no others
        options["compression"] = "tiff_adobe_deflate"
    Image.fromarray(stored).save(path, exif=exif(orientation), **options)
    looks = {2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.T, 6: np.rot90(stored, -1)}
    looks |= {7: stored[::-1, ::-1].T, 8: np.rot90(stored)}
    wanted = looks.get(orientation, stored)
    assert np.array_equal(np.asarray(open_photo(path, "L")), wanted)
    how = Preprocessing(8, 1, resize="pad", interpolation="bicubic")
    assert np.array_equal(scaled(script, path, how), how.read(path))
    *size, told = photo_facts(path)
    assert tuple(size) == open_photo(path, "L").size == ((3, 5) if orientation in (5, 6, 7, 8) else (5, 3))
    assert told == (orientation if 1 <= orientation <= 8 else 1)
    whole = np.array([[0.0, 0.0, 8.0, 8.0]], np.float32)
    assert ImageFiles([str(path)], Preprocessing(8, 1)).to_photo(whole, 0).tolist() == [[0, 0, *size]]


def write_turned(folder: Path) -> None:
    """Eight photos of 60x30 pixels as they are stored, one of each orientation, with a red digit and a green one."""
    folder.mkdir(parents=True)
    for orientation in range(1, 9):
        photo = np.full((30, 60, 3), 90, dtype=np.uint8)
        photo[4:20, 6:14] = (255, 0, 0)
        photo[10:28, 40:52] = (0, 255, 0)
        Image.fromarray(photo).save(folder / f"{orientation}.png", exif=exif(orientation))
    digits = [[1, 6, 4, 8, 16], [2, 40, 10, 12, 18]]  # label, left, top, width, height
    write_digit_struct(folder / "digitStruct.mat", [(f"{number}.png", digits) for number in range(1, 9)])


def test_boxes_are_turned_by_whole_pixels() -> None:
    """Against a mask of each box, turned as Pillow turns the photo."""
    boxes = np.array([[1, 2, 6, 4], [0, 0, 1, 5], [4, 1, 9, 5]], dtype=np.float32)
    digits, sizes = np.arange(3, dtype=np.uint8), np.zeros((1, 2), dtype=np.int64)
    annotations = DigitAnnotations(["a.png"], np.array([0, 3]), digits, boxes, sizes)
    turns = [None, *(getattr(Image.Transpose, name) for name in TURNS)]
    for orientation, turn in enumerate(turns, start=1):
        wanted, size = [], (0, 0)
        for left, top, right, bottom in boxes.astype(int).tolist():
            mask = np.zeros((5, 9), dtype=np.uint8)
            mask[top:bottom, left:right] = 1
            looks = Image.fromarray(mask) if turn is None else Image.fromarray(mask).transpose(turn)
            rows, columns = np.nonzero(np.asarray(looks))
            wanted.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            size = looks.size
        found = annotations.upright([(*size, orientation)])
        assert found.boxes.tolist() == np.array(wanted).tolist() and found.sizes.tolist() == [[*size]], orientation


def test_boxes_are_turned_with_their_photo(tmp_path: Path) -> None:
    write_turned(tmp_path / "train")
    images, labels = SVHNBoxes(root=str(tmp_path), image_size=64, num_workers=0).load(train=True)
    for orientation, (image, label) in enumerate(zip(images.int(), labels, strict=True), start=1):
        for number, (digit, *box) in enumerate(label[:2].tolist()):
            other = 1 - number
            rows, columns = torch.nonzero(image[number] - image[other] > 80, as_tuple=True)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert digit == number + 1 and np.abs(np.array(box) - seen).max() <= 1, (orientation, box, seen)


def test_crops_are_turned_with_their_photo(tmp_path: Path) -> None:
    """The part of the photo as one looks at it, found by its colors."""
    write_turned(tmp_path / "train")
    data = SVHNNumbers(root=str(tmp_path), image_size=24, grow=0.0, num_workers=0)
    crops, _ = data.load(train=True)
    for orientation, crop in enumerate(crops, start=1):
        photo = open_photo(tmp_path / "train" / f"{orientation}.png", "RGB")
        pixels = np.asarray(photo).astype(int)
        rows, columns = np.nonzero(np.abs(pixels[..., 0] - pixels[..., 1]) > 80)
        part = photo.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        wanted = np.asarray(part.resize((24, 24), Image.Resampling.BILINEAR))
        assert np.array_equal(crop.permute(1, 2, 0).numpy(), wanted), orientation


def test_crops_of_16_bit_photos(tmp_path: Path) -> None:
    """As Pillow converts them they would be white."""
    folder = tmp_path / "train"
    folder.mkdir()
    photo = np.full((30, 60), 32768, dtype=np.uint16)
    photo[4:20, 6:14] = 8192
    for number in (1, 2):
        Image.fromarray(photo).save(folder / f"{number}.png")
    write_digit_struct(folder / "digitStruct.mat", [(f"{number}.png", [[1, 6, 4, 8, 16]]) for number in (1, 2)])
    crops, _ = SVHNNumbers(root=str(tmp_path), image_size=16, grow=0.0, num_workers=0).load(train=True)
    assert crops.unique().tolist() == [32]
