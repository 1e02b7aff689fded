"""`predict` of a segmentation: masks, tiles against whole images and a plain loop, GeoTIFF, what is refused."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import NAMES, scene
from torch import Tensor, nn

import lightning_cnn as lc
from lightning_cnn.architectures.arithmetic import receptive_field
from lightning_cnn.cli import main
from lightning_cnn.datamodules.images.photo import open_photo
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.datamodules.images.scenes import open_scene
from lightning_cnn.engine.tiles import Classes, Tiling
from lightning_cnn.modules import ImageClassifier, Segmenter

EXAMPLE = Path(__file__).parents[2] / "experiments" / "onnx_predict.py"
# the example where neither torch nor this package can be imported
WITHOUT_TORCH = f"""
import runpy, sys
for name in ("torch", "torchvision", "timm", "pytorch_lightning", "lightning_cnn"):
    sys.modules[name] = None
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""
GRAY = Preprocessing(64, 1, resize="keep", mean=(0.4,), std=(0.2,), class_names=NAMES)
COLOR = Preprocessing(64, 3, resize="keep", mean=(0.4, 0.5, 0.3), std=(0.2, 0.2, 0.3), class_names=NAMES)


def save(preprocessing: Preprocessing = GRAY, kind: type[Any] = Segmenter, **options: Any) -> Any:
    """Writes `made.ckpt` with a network whose answers differ from pixel to pixel; returns it."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"num_classes": 3, "in_channels": preprocessing.in_channels, "image_size": 64}
    model = kind(**given | {"architecture_options": {"width": 4, "depth": 2}} | options).eval()
    with torch.no_grad():
        noise = preprocessing.scale(torch.rand(2, preprocessing.in_channels, 64, 64))
        head: Any = getattr(model.network, "head", model.network)
        head = head[0] if isinstance(head, nn.Sequential) else head
        head.weight.mul_(3 / model(noise).std())
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "hyper_parameters": {"_class_path": f"lightning_cnn.modules.{kind.__name__}", **model.hparams},
        "Data": {"preprocessing": preprocessing.to_dict()},
    }
    torch.save(content, "made.ckpt")
    return model


def expected(model: Any, preprocessing: Preprocessing, path: str) -> Any:
    """The classes of the pixels of a file, by plain calls: an extension to multiples of 32, scaling, the network."""
    pixels = np.asarray(Image.open(path).convert("L" if preprocessing.in_channels == 1 else "RGB"))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % 32), (0, -width % 32), (0, 0)), "edge") / 255
    scaled = (padded - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    with torch.no_grad():
        logits = model(torch.from_numpy(scaled.transpose(2, 0, 1)[None]).float())
    return logits[0, :, :height, :width].argmax(0).numpy()


def photos(channels: int = 1) -> list[str]:
    """Scenes of several sizes in folders, two of them with the same name."""
    paths = ["photos/a.png", "photos/b.png", "photos/more/a.png"]
    Path("photos/more").mkdir(parents=True)
    for number, (path, size) in enumerate(zip(paths, [(64, 64), (50, 90), (33, 31)], strict=True)):
        pixels = scene(*size, seed=number, channels=channels)[0]
        Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze()).save(path)
    return paths


def test_masks_are_what_the_network_says(capsys: pytest.CaptureFixture[str]) -> None:
    paths = photos()
    model = save()
    assert main(["predict", "--ckpt_path", "made.ckpt", "--images", "photos"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "3 files segmented, masks written to masks, shares to predictions.csv"
    with open("predictions.csv") as file:
        rows = [*csv.DictReader(file)]
    assert [row["file"] for row in rows] == paths
    names = ["a", "b", "a_2"]
    assert sorted(path.name for path in Path("masks").iterdir()) == sorted(
        f"{name}_{kind}.png" for name in names for kind in ("mask", "overlay")
    )
    for row, name, line in zip(rows, names, lines, strict=True):
        classes = expected(model, GRAY, row["file"])
        assert len(np.unique(classes)) > 1
        mask = Image.open(f"masks/{name}_mask.png")
        assert mask.mode == "L" and np.array_equal(np.asarray(mask), classes)
        assert (row["mask"], row["overlay"]) == (f"masks/{name}_mask.png", f"masks/{name}_overlay.png")
        shares = [float((classes == label).mean()) for label in range(3)]
        assert [float(row[f"share_{name}"]) for name in NAMES] == pytest.approx(shares, abs=1e-6)
        first = NAMES[int(np.argmax(shares))]
        assert line.startswith(f"{row['file']}  {first} {max(shares):.1%}  ")
        drawn, image = np.asarray(Image.open(row["overlay"])), np.asarray(Image.open(row["file"]))
        assert drawn.shape == (*image.shape, 3)
        clear = classes == 0  # the background is not colored
        assert np.array_equal(drawn[clear], np.repeat(image[clear][:, None], 3, 1))
        assert (drawn[~clear] != image[~clear][:, None]).any(1).all()
    # the masks are no images of the next call
    assert len(lc.predict("made.ckpt", images=".")) == 3


def test_images_in_memory() -> None:
    paths = photos(channels=3)
    model = save(COLOR)
    images: list[Any] = [Image.open(paths[0]), np.asarray(Image.open(paths[1])), paths[2]]
    frame = lc.predict("made.ckpt", images=images, masks="out/new")
    assert frame["file"].tolist() == ["image 0", "image 1", paths[2]] and frame.attrs["folder"] == "out/new"
    assert frame["mask"].tolist() == [f"out/new/{name}_mask.png" for name in ("image_0", "image_1", "a")]
    for path, mask in zip(paths, frame["mask"], strict=True):
        assert np.array_equal(np.asarray(Image.open(mask)), expected(model, COLOR, path))


# tiles


def naive(answers: Callable[[int, int], Tensor], height: int, width: int, tile: int, overlap: int) -> Any:
    """The blended probabilities of tiles `(classes, height, width)`, added up pixel by pixel with weights."""
    step, third = tile - overlap, overlap / 3
    sides = [-(-side // 32) * 32 for side in (height, width)]
    total: Any = 0.0
    weights = np.zeros(sides)
    for top in range(0, max(sides[0] - overlap, 1), step):
        for left in range(0, max(sides[1] - overlap, 1), step):
            shares = answers(top, left).double().numpy()
            weight = np.ones(shares.shape[1:])
            for axis, (first, end) in enumerate(((top, sides[0]), (left, sides[1]))):
                line = np.ones(shares.shape[1 + axis])
                rising = np.clip((np.arange(overlap) + 0.5 - third) / max(third, 1), 0, 1)
                if first and overlap:
                    line[:overlap] *= rising
                if first + tile < end and overlap:
                    line[-overlap:] *= 1 - rising
                weight *= line[:, None] if axis == 0 else line
            whole = np.zeros((len(shares), *sides))
            whole[:, top : top + shares.shape[1], left : left + shares.shape[2]] = shares * weight
            total = total + whole
            weights[top : top + shares.shape[1], left : left + shares.shape[2]] += weight
    assert np.allclose(weights, 1)
    return np.asarray(total)[:, :height, :width]


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"),
    [(200, 150, 64, 32), (64, 64, 64, 32), (65, 97, 64, 0), (40, 300, 96, 32), (300, 31, 128, 64), (161, 129, 64, 32)],
)
def test_tiles_are_blended_as_by_a_loop(height: int, width: int, tile: int, overlap: int) -> None:
    """Each tile has answers of its own."""
    seen: list[tuple[int, ...]] = []

    def answers(top: int, left: int) -> Tensor:
        sides = [min(tile, -(-side // 32) * 32 - first) for side, first in ((height, top), (width, left))]
        generator = torch.Generator().manual_seed(1000 * top + left)
        return torch.rand(3, *sides, generator=generator).softmax(0)

    def read(top: int, left: int, rows: int, columns: int) -> Tensor:
        seen.append((rows, columns))
        return torch.tensor([top, left]).view(2, 1, 1).expand(-1, rows, columns)

    def compute(images: Tensor) -> Tensor:
        return torch.stack([answers(*image[:, 0, 0].tolist()) for image in images])

    classes = Classes(Tiling.of(tile, overlap))
    rows = [*classes.rows(read, compute, height, width, batch_size=3)]
    found, wanted = torch.cat(rows).numpy(), naive(answers, height, width, tile, overlap)
    assert found.shape == (height, width) and (found == wanted.argmax(0)).mean() > 0.9999
    assert max(max(size) for size in seen) <= tile  # no window is larger
    assert (classes.difference > 0) == (len(seen) > 1 and overlap > 0)


def test_the_difference_is_that_of_two_tiles_where_both_count() -> None:
    one, other = torch.zeros(2, 32, 64), torch.zeros(2, 32, 64)
    one[0, 5, 32 + 10], other[0, 5, 10] = 0.9, 0.2  # the first place where both count: 10.67 of 32 pixels are a third
    one[1, 5, 32 + 11], other[1, 5, 11] = 0.3, 0.7
    classes = Classes(Tiling.of(64, 32))
    answers = iter([torch.stack([one, other])])
    [*classes.rows(lambda *window: torch.zeros(1, window[2], window[3]), lambda _: next(answers), 32, 96, 8)]
    assert classes.difference == pytest.approx(0.4)


@pytest.mark.parametrize(("architecture", "side"), [("unet_padded", 150), ("unet", 150)])
def test_tiles_give_the_whole_image_where_the_overlap_covers_the_receptive_field(architecture: str, side: int) -> None:
    """A third of the overlap covers how far a pixel sees; elsewhere the difference is found."""
    options: dict[str, Any] = {"architecture": architecture, "architecture_options": {"width": 3, "depth": 2}}
    if architecture == "unet":
        options["image_size"] = 60
    model = save(**options)
    Image.fromarray(scene(side, 230, seed=3, count=12)[0][0].numpy()).save("scene.png")
    field = receptive_field(model.network, "head", (1, 60 if architecture == "unet" else 96, 60))
    reach = max(field.size // 2 + field.stride, 0)
    assert 16 < reach <= 32
    whole = lc.predict("made.ckpt", images="scene.png", masks="whole")
    exact = lc.predict("made.ckpt", images="scene.png", masks="exact", tile=192, overlap=96)
    rough = lc.predict("made.ckpt", images="scene.png", masks="rough", tile=64, overlap=32)
    first, second, third = (np.asarray(Image.open(frame["mask"][0])) for frame in (whole, exact, rough))
    assert len(np.unique(first)) == 3
    assert "difference" not in whole.attrs and exact.attrs["difference"] < 1e-5 < 1e-3 < rough.attrs["difference"]
    assert np.array_equal(first, second)
    assert 0.9 < (first == third).mean() < 1


def test_maps_of_an_image_that_does_not_fit_get_one_line() -> None:
    save(architecture="unet", image_size=60)
    Image.fromarray(scene(101, 230, seed=3, count=12)[0][0].numpy()).save("scene.png")
    with pytest.raises(lc.UserError, match="the network does not take an image of 230x101 pixels"):
        lc.filters("made.ckpt", image="scene.png")


def test_tiles_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(scene(100, 130, seed=3)[0][0].numpy()).save("scene.png")
    save()
    words = ["predict", "--ckpt_path", "made.ckpt", "--images", "scene.png", "--tile", "64", "--overlap", "32"]
    assert main([*words, "--masks", "out", "--output", "out/shares.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    frame = lc.predict("made.ckpt", images="scene.png", tile=64, overlap=32)
    assert lines[1] == f"largest difference of probabilities where tiles overlap: {frame.attrs['difference']:.2g}"
    assert lines[2] == "1 files segmented, masks written to out, shares to out/shares.csv"
    assert {path.name for path in Path("out").iterdir()} == {"scene_mask.png", "scene_overlay.png", "shares.csv"}


def test_overlays_of_large_scenes_are_small() -> None:
    save()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4100), dtype=np.uint8)
    Image.fromarray(pixels).save("wide.png")
    frame = lc.predict("made.ckpt", images="wide.png", tile=32, overlap=0)
    mask, drawn = (np.asarray(Image.open(frame[name][0])) for name in ("mask", "overlay"))
    assert mask.shape == (40, 4100) and drawn.shape == (14, 1367, 3)
    clear = mask[::3, ::3] == 0
    assert np.array_equal(drawn[clear][:, 0], pixels[::3, ::3][clear])


# GeoTIFF


def write_geotiff(path: str, pixels: Any) -> None:
    rasterio = pytest.importorskip("rasterio")
    transform = rasterio.transform.from_origin(500_000, 4_600_000, 3, 3)
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32610", transform=transform, **shape) as file:
        file.write(pixels)


def test_a_geotiff_keeps_its_georeference() -> None:
    rasterio = pytest.importorskip("rasterio")
    pixels = scene(70, 110, seed=5, channels=3)[0].numpy()
    write_geotiff("scene.tif", pixels)
    Image.fromarray(pixels.transpose(1, 2, 0)).save("same.png")
    save(COLOR)
    for options in ({}, {"tile": 64, "overlap": 32}):
        frame = lc.predict("made.ckpt", images=["scene.tif", "same.png"], **options)  # type: ignore[arg-type]
        assert frame["mask"].tolist() == ["masks/scene_mask.tif", "masks/same_mask.png"]
        with rasterio.open("masks/scene_mask.tif") as file, rasterio.open("scene.tif") as given:
            assert (file.crs, file.transform) == (given.crs, given.transform) and file.crs.to_epsg() == 32610
            assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), 255)
            mask = file.read(1)
        assert np.array_equal(mask, np.asarray(Image.open("masks/same_mask.png"))) and len(np.unique(mask)) > 1
        drawn, same = (np.asarray(Image.open(path)) for path in frame["overlay"])
        assert np.array_equal(drawn, same)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("bands", "channels"), [(1, 1), (1, 3), (3, 3), (3, 1), (4, 3)])
def test_bands_and_pixels_are_those_of_pillow(kind: str, bands: int, channels: int) -> None:
    values = np.random.default_rng(0).random((bands, 20, 30))
    eight = np.rint(values * 255).astype(np.uint8)
    deep = (eight.astype(np.uint16) << 8) + 77
    write_geotiff("scene.tif", {"uint8": eight, "uint16": deep, "float32": values.astype(np.float32)}[kind])
    read = open_scene("scene.tif", channels)
    assert read.profile is not None and (read.height, read.width) == (20, 30)
    shown = Image.fromarray(eight[0] if bands == 1 else eight[:3].transpose(1, 2, 0))
    pillow = np.asarray(open_photo(shown, "L" if channels == 1 else "RGB")).reshape(20, 30, channels)
    found = read.read(0, 0, 32, 32)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), np.pad(pillow, ((0, 12), (0, 2), (0, 0)), "edge").transpose(2, 0, 1))
    shown.save("same.png")
    windows = [each.read(3, 7, 10, 40) for each in (read, open_scene("same.png", channels))]
    assert torch.equal(*windows) and windows[0].shape == (channels, 10, 40)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_palette_is_that_of_pillow(channels: int) -> None:
    rasterio = pytest.importorskip("rasterio")
    numbers = np.random.default_rng(0).integers(0, 7, (1, 20, 30)).astype(np.uint8)
    colors = {number: (40 * number, 255 - 30 * number, (90 * number) % 256, 255) for number in range(7)}
    shape = {"count": 1, "height": 20, "width": 30, "dtype": "uint8", "photometric": "palette"}
    with rasterio.open("map.tif", "w", driver="GTiff", crs="EPSG:32610", **shape) as file:
        file.write(numbers)
        file.write_colormap(1, colors)
    with Image.open("map.tif") as image:
        pillow = np.asarray(open_photo(image, "L" if channels == 1 else "RGB")).reshape(20, 30, channels)
    read = open_scene("map.tif", channels)
    assert read.profile is not None
    assert np.array_equal(read.read(0, 0, 20, 30).numpy(), pillow.transpose(2, 0, 1))


def test_pixels_without_data_are_black() -> None:
    rasterio = pytest.importorskip("rasterio")
    for value, kind in ((np.nan, "float32"), (-9999.0, "float32"), (255, "uint8")):
        pixels = np.ones((1, 4, 5)).astype(kind)
        pixels[0, 1, 2] = value
        write_geotiff("scene.tif", pixels)
        with rasterio.open("scene.tif", "r+") as file:
            file.nodata = value
        other = 255 if kind == "float32" else 1
        assert open_scene("scene.tif", 1).read(0, 0, 4, 5)[0, 1].tolist() == [other, other, 0, other, other]


def test_pixels_have_no_data_where_no_band_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A saturated channel is none, and what has no data counts in no share."""
    rasterio = pytest.importorskip("rasterio")
    pixels = scene(40, 60, seed=5, channels=3)[0].numpy()
    pixels[0, 10:] = 255
    pixels[:, :10] = 255
    write_geotiff("scene.tif", pixels)
    with rasterio.open("scene.tif", "r+") as file:
        file.nodata = 255
    read = open_scene("scene.tif", 3).read(0, 0, 40, 60).numpy()
    assert not read[:, :10].any() and np.array_equal(read[:, 10:], pixels[:, 10:])
    save(COLOR)
    frame = lc.predict("made.ckpt", images="scene.tif")
    with rasterio.open("masks/scene_mask.tif") as file:
        mask = file.read(1)
    assert (mask[:10] == 255).all() and (mask[10:] < 255).all()
    shares = frame[[name for name in frame.columns if name.startswith("share_")]].to_numpy()[0]
    assert shares == pytest.approx(np.bincount(mask[10:].ravel(), minlength=len(shares)) / mask[10:].size)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("bands", [1, 3])
def test_transparent_pixels_show_the_background_as_in_training(bands: int, kind: str) -> None:
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(0).integers(0, 256, (bands + 1, 20, 30)).astype(np.uint8)
    pixels[-1, :5], pixels[-1, 5:10] = 0, 255
    shape = {"count": bands + 1, "height": 20, "width": 30, "dtype": kind, "alpha": "YES"}
    shape |= {"photometric": "RGB" if bands == 3 else "MINISBLACK"}
    with rasterio.open("scene.tif", "w", driver="GTiff", crs="EPSG:32610", **shape) as file:
        file.write(pixels if kind == "uint8" else pixels.astype(np.float32) / 255)
    Image.fromarray(pixels.transpose(1, 2, 0), "LA" if bands == 1 else "RGBA").save("same.png")
    mode: Literal["L", "RGB"] = "L" if bands == 1 else "RGB"
    for background in ("white", "#204060"):
        found = open_scene("scene.tif", bands, background).read(0, 0, 20, 30).numpy().astype(int)
        pillow = np.asarray(open_photo("same.png", mode, background)).reshape(20, 30, bands).transpose(2, 0, 1)
        assert np.abs(found - pillow.astype(int)).max() <= 1


def test_other_tiffs_need_no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    Image.fromarray(scene(40, 40, seed=0)[0][0].numpy()).save("plain.tif")
    save()
    assert lc.predict("made.ckpt", images="plain.tif")["mask"].tolist() == ["masks/plain_mask.png"]


# what goes wrong


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"tile": 100}, "`tile` 100 is not a multiple of 32: try 128"),
        ({"tile": 64, "overlap": 20}, "`overlap` 20 is not a multiple of 32: try 32"),
        ({"tile": 64, "overlap": 64}, "`overlap` 64 is more than half of `tile` 64"),
        ({"tile": 96}, "`overlap` 64 is more than half of `tile` 96"),
        ({"tile": 0}, "`tile` 0: it must be at least 32"),
        ({"tile": 64, "overlap": -32}, "`overlap` -32"),
        ({"overlap": 32}, "`overlap` requires `tile`"),
        ({"masks": "made.ckpt"}, "can't make made.ckpt"),
        ({"masks": "photos"}, "all images lie in the folder of the masks"),
        ({"images": "nowhere"}, "there is no file or folder nowhere"),
        ({"images": ["photos", "broken.png"]}, "can't decode the image broken.png"),
        ({"images": ["photos", "broken.tif"]}, "can't decode the image broken.tif"),
        ({"images": ["photos", "wild.tif"]}, "its pixels are int32 up to"),
    ],
)
def test_nothing_is_left_of_what_is_refused(options: dict[str, Any], telling: str) -> None:
    photos()
    save()
    for name in ("broken.png", "broken.tif"):
        Path(name).write_text("no image")
    write_geotiff("wild.tif", np.full((3, 9, 9), -5, dtype=np.int32))
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(lc.UserError) as caught:
        lc.predict("made.ckpt", **{"images": "photos", **options})
    assert telling in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_damaged_image_leaves_the_masks_of_before() -> None:
    photos()
    save()
    lc.predict("made.ckpt", images="photos")
    before = {path: path.read_bytes() for path in Path("masks").iterdir()}
    save(criterion="dice", weights=None, architecture_options={"width": 2, "depth": 1})
    Path("photos/z.png").write_bytes(Path("photos/a.png").read_bytes()[:200])
    with pytest.raises(lc.UserError, match=r"can't decode the image photos/z.png"):
        lc.predict("made.ckpt", images="photos")
    assert {path: path.read_bytes() for path in Path("masks").iterdir()} == before


@pytest.mark.parametrize(("name", "value"), [("tile", 64), ("masks", "out")])
def test_a_classifier_has_no_masks(name: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    photos()
    save(GRAY, ImageClassifier, architecture="linear", architecture_options={})
    words = ["predict", "--ckpt_path", "made.ckpt", f"--{name}", str(value)]
    more = ["--overlap", "0"] if name == "tile" else []
    assert main([*words, *more, "--images", "photos"]) == 2
    assert f"--{name} is for a segmentation, not ImageClassifier: remove it" in capsys.readouterr().err
    assert main([*words, *more, "--prices", "some.csv"]) == 2
    assert f"--{name} requires --images" in capsys.readouterr().err


# export


@pytest.mark.parametrize(
    "architecture",
    [
        "smp_unet",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("unet", "unet_padded", "smp_deeplabv3plus", "smp_fpn")
        ),
    ],
)
def test_an_exported_network_is_the_same(architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    options: dict[str, Any] = {"encoder": "test_resnet"} if architecture.startswith("smp") else {"width": 3, "depth": 2}
    side = 60 if architecture == "unet" else 64
    torch.manual_seed(0)
    model = save(
        replace(COLOR, image_size=side), architecture=architecture, architecture_options=options, image_size=side
    )
    assert main(["export", "--ckpt_path", "made.ckpt"]) == 0
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = torch.randn(count, 3, side, side)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            wanted = model(images)
        assert wanted.shape == (count, 3, side, side) and wanted.std() > 0.1
        assert abs(logits - wanted.numpy()).max() < 1e-4
    if architecture == "unet_padded":
        assert main(["export", "--ckpt_path", "made.ckpt", "--output", "model.pt2"]) == 0


def test_the_example_without_torch_writes_the_masks() -> None:
    """Tile by tile: equal to `predict` but for what lies beyond the image."""
    paths = photos(channels=3)
    Image.fromarray(scene(128, 160, seed=9, count=9, channels=3)[0].permute(1, 2, 0).numpy()).save("large.png")
    save(COLOR)
    lc.export("made.ckpt")
    words = [
        sys.executable,
        "-c",
        WITHOUT_TORCH,
        "model.onnx",
        "large.png",
        *paths[:2],
        "--overlap",
        "32",
        "--top_k",
        "2",
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    frame = lc.predict("made.ckpt", images=["large.png", *paths[:2]], tile=64, overlap=32, masks="torch")
    for row, line in zip(frame.itertuples(), done.stdout.splitlines(), strict=True):
        path, mask, *shares = line.split("  ")
        found, wanted = (np.asarray(Image.open(file)) for file in (mask, row.mask))
        assert path == row.file and (found == wanted).mean() > 0.995
        assert found[:32, :32].tolist() == wanted[:32, :32].tolist()
        counts = np.bincount(found.ravel(), minlength=3) / found.size
        best = int(counts.argmax())
        assert shares[:2] == [NAMES[best], f"{counts[best]:.1%}"] and len(shares) == 4
    Path("other").mkdir()
    alike = [shutil.copy(paths[0], name) for name in ("other/large.png", "large_2.png")]
    done = subprocess.run([*words[:5], *alike, *words[-4:]], capture_output=True, text=True)
    masks = [line.split("  ")[1] for line in done.stdout.splitlines()]
    assert masks == [f"masks/{name}_mask.png" for name in ("large", "large_2", "large_2_2")]


def test_a_scene_that_can_not_be_read_is_skipped_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    paths = photos()
    save()
    Path("photos/a2.png").write_text("no image")
    with pytest.raises(lc.UserError, match=r"a2.png .*, or skip such images with `skip_corrupt`$"):
        lc.predict("made.ckpt", images="photos")
    assert not Path("masks").exists()
    frame = lc.predict("made.ckpt", images="photos", skip_corrupt=True)
    assert frame.file.tolist() == paths and [name for name, _ in frame.attrs["skipped"]] == ["photos/a2.png"]
    assert len([*Path("masks").iterdir()]) == 6
    assert main(["predict", "--ckpt_path", "made.ckpt", "--images", "photos", "--skip_corrupt"]) == 0
    assert "3 files segmented, 1 skipped, masks written to masks" in capsys.readouterr().out
    with pytest.raises(lc.UserError, match="none of the 1 images"):
        lc.predict("made.ckpt", images="photos/a2.png", skip_corrupt=True)
