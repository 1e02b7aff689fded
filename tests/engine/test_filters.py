"""`filters`: what is drawn are the weights, the maps and the images that filters look for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image
from refusals import refusing
from small_data import digits
from torch import Tensor, nn

import lightning_cnn as lc
from lightning_cnn.architectures.edges import edge_filters
from lightning_cnn.cli import main
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.seen import Ascent, activation_maps, wanted_images
from lightning_cnn.figures import filters as figures
from lightning_cnn.figures.images import image_grid
from lightning_cnn.modules import ImageClassifier

GRAY = Preprocessing(28, 1, mean=(0.13,), std=(0.31,))
COLOR = Preprocessing(32, 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def save(model: Any, preprocessing: Preprocessing) -> Any:
    """Writes `made.ckpt` with a model, and returns the model."""
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "Data": {"preprocessing": preprocessing.to_dict()},
    }
    torch.save(content, "made.ckpt")
    return model.eval()


@pytest.fixture
def lenet5() -> ImageClassifier:
    torch.manual_seed(0)
    model: ImageClassifier = save(ImageClassifier("lenet5"), GRAY)
    return model


@pytest.fixture
def resnet() -> ImageClassifier:
    torch.manual_seed(0)
    network = ImageClassifier("resnet20_cifar", in_channels=3, image_size=32)
    model: ImageClassifier = save(network, COLOR)
    return model


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, list[str]]]:
    """Images and titles of the grids that are drawn."""
    found: list[tuple[Tensor, list[str]]] = []
    draw = image_grid

    def noted(images: Tensor, titles: list[str], *layout: Any) -> Figure:
        found.append((images, titles))
        return draw(images, titles, *layout)

    monkeypatch.setattr(figures, "image_grid", noted)
    return found


def photo(name: str = "photo.png", side: int = 28) -> Tensor:
    """Writes a digit, and returns it as `(side, side)`, 0 to 255."""
    image = Image.fromarray(digits(1)[0][0]).resize((side, side))
    image.save(name)
    return torch.from_numpy(np.asarray(image).copy())


def test_filters_are_the_weights(lenet5: ImageClassifier, drawn: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filters", "--ckpt_path", "made.ckpt"]) == 0
    assert capsys.readouterr().out == "features.0.0: 6 filters, written to filters.png\n"
    ((images, titles),) = drawn
    weights = lenet5.network.get_submodule("features.0.0").weight
    assert images.shape == (6, 1, 35, 35) and titles == list("012345")
    shares = images[:, :, 3::7, 3::7]
    assert torch.allclose((shares - 0.5) / 0.4 * weights.abs().max(), weights, atol=1e-6)  # type: ignore[operator, arg-type, union-attr]
    assert 0 <= images.min() < images.max() <= 1
    with Image.open("filters.png") as picture:
        assert picture.width > 600


def test_filters_of_deeper_layers_and_of_color(resnet: ImageClassifier, drawn: list[Any]) -> None:
    seen = lc.filters("made.ckpt", count=5)
    assert (seen.layers, seen.filters, seen.seed) == (("features.0",), (0, 1, 2, 3, 4), None)
    assert drawn.pop()[0].shape == (5, 3, 33, 33)
    lc.filters("made.ckpt", layer="features.4.conv2")
    images, titles = drawn.pop()
    weights = resnet.network.get_submodule("features.4.conv2").weight[:8, :8].flatten(0, 1)  # type: ignore[index, union-attr, operator]
    shares = images[:, 0, 5::11, 5::11]
    assert torch.allclose((shares - 0.5) / 0.4 * weights.abs().max(), weights, atol=1e-6)
    assert titles[9] == "1, channel 1" and len(titles) == 64
    assert lc.filters("made.ckpt", layer="features.4.conv2").filters == tuple(range(8))


def test_maps_are_those_of_a_hook(lenet5: ImageClassifier, drawn: list[Any]) -> None:
    pixels = photo()
    found: list[Tensor] = []
    layer: Any = lenet5.network.get_submodule("features.0.3")
    handle = layer.register_forward_hook(lambda _layer, _inputs, outputs: found.append(outputs))
    scaled = GRAY.scale(pixels[None, None].float() / 255)
    with torch.no_grad():
        lenet5(scaled)
    handle.remove()
    with torch.no_grad():
        assert torch.equal(activation_maps(lenet5.network, layer, scaled), found[0])
    seen = lc.filters("made.ckpt", image="photo.png", layer="features.0.3", count=10)
    assert (seen.layers, seen.filters) == (("features.0.3",), tuple(range(10)))
    images, titles = drawn.pop()
    low, high = found[0][0, :10].min(), found[0][0, :10].max()
    assert torch.allclose(images[:, 0] * (high - low) + low, found[0][0, :10], atol=1e-5)
    assert titles[9] == "features.0.3: 9"
    in_memory = lc.filters("made.ckpt", image=pixels.numpy(), layer="features.0.3", count=10)
    assert in_memory == seen and torch.equal(drawn.pop()[0], images)


def test_maps_of_all_layers(lenet5: ImageClassifier, drawn: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    photo()
    assert main(["filters", "--ckpt_path", "made.ckpt", "--image", "photo.png", "--output", "new/maps.png"]) == 0
    assert capsys.readouterr().out == "3 layers: 6 maps of each, written to new/maps.png\n"
    images, titles = drawn.pop()
    assert images.shape == (18, 1, 24, 24) and titles[6] == "features.0.3: 0"
    assert all(
        images[6 * row : 6 * row + 6].max() == 1 and images[6 * row : 6 * row + 6].min() == 0 for row in range(3)
    )


# what filters look for


def test_an_edge_filter_looks_for_its_edge() -> None:
    network = timm.create_model("edge_net").eval()
    ascent = Ascent(size=32)
    images, activations = wanted_images(network, network.features.relu, lambda pixels: pixels, 1, 200, ascent)
    assert images.shape == (4, 1, 32, 32)
    noise = ascent.noise(4, 1)
    with torch.no_grad():
        before = network.features.relu(network.features.conv(noise / 255)).mean((2, 3)).diagonal()
        maps = network.features.conv((images - images.mean()) / 255)
    assert (activations > 5 * before).all()
    # in each image its own filter and the negative one find their edges, which run along the filter
    strength = maps.square().mean((2, 3))
    for number in range(4):
        assert strength[number].argsort(descending=True)[:2].sort().values.tolist() == [
            number // 2 * 2,
            number // 2 * 2 + 1,
        ]
        along, across = (images[number].diff(dim=dim).abs().mean() for dim in ((1, 2) if number < 2 else (2, 1)))
        assert across > 1.5 * along
    # the first bright edge after a dark one lies where the filter is
    correlation = torch.nn.functional.conv2d(images[:1] - 128, edge_filters()[:1, None])
    assert correlation.max() > 300


def test_many_filters_at_a_time_equal_a_plain_loop(resnet: ImageClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    layer: Any = resnet.network.get_submodule("features.6.conv1")
    ascent = Ascent(size=20, steps=6, step_size=2.0, seed=3)
    monkeypatch.setattr("lightning_cnn.engine.seen.BATCH_PIXELS", 5 * 20**2)  # two whole batches, and a part of one
    resnet.double()  # in single precision a rectifier may open in one of the two alone

    def scale(pixels: Tensor) -> Tensor:
        return COLOR.scale(pixels.double())

    images, activations = wanted_images(resnet.network, layer, scale, 3, 12, ascent)  # type: ignore[arg-type]
    assert images.shape == (12, 3, 20, 20) and all(each.requires_grad for each in resnet.network.parameters())
    for number, start in enumerate(ascent.noise(12, 3)):
        image = start[None].clone()
        found: list[Tensor] = []
        handle = layer.register_forward_hook(lambda _layer, _inputs, outputs, found=found: found.append(outputs))
        for _ in range(6):
            image.requires_grad_()
            resnet(scale(image / 255))
            found[-1][0, number].mean().backward()
            assert image.grad is not None
            image = (image + 2 * image.grad / image.grad.square().mean().sqrt()).detach()
        resnet(scale(image / 255))
        handle.remove()
        assert torch.allclose(images[number], image[0], atol=0.01)
        assert activations[number].item() == pytest.approx(found[-1][0, number].mean().item(), rel=1e-3, abs=1e-4)
        assert found[-1][0, number].mean() > found[0][0, number].mean()


def test_the_strongest_are_drawn_first(
    resnet: ImageClassifier, drawn: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--maximize",
        "--layer",
        "features.11.conv1",
        "--size",
        "16",
        "--steps",
        "2",
        "--first",
        "40",
        "--count",
        "9",
    ]
    assert main(["filters", "--ckpt_path", "made.ckpt", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    images, titles = drawn.pop()
    layer: Any = resnet.network.get_submodule("features.11.conv1")
    every, activations = wanted_images(resnet.network, layer, COLOR.scale, 3, 40, Ascent(16, 2))  # type: ignore[arg-type]
    best = sorted(range(40), key=lambda number: -activations[number].item())[:9]
    assert [int(title.partition(":")[0]) for title in titles] == best
    assert lines[0] == "features.11.conv1: images for 9 filters, seed 0, written to filters.png"
    assert lines[1].startswith("mean activations from ") and f"(filter {best[0]})" in lines[1]
    centered = every[best] - every[best].mean((1, 2, 3), keepdim=True)
    expected = 128 + 25 * centered / centered.square().mean((1, 2, 3), keepdim=True).sqrt()
    assert torch.allclose(images * 255, expected, atol=0.01)
    with Image.open("filters.png") as picture:
        assert picture.info["Title"] == "features.11.conv1: the 9 strongest of 40 filters, 2 steps, seed 0"


def test_the_same_seed_gives_the_same_figure(lenet5: ImageClassifier) -> None:
    options: dict[str, Any] = {"maximize": True, "size": 40, "steps": 2, "first": 20}
    state = torch.get_rng_state()
    first = lc.filters("made.ckpt", **options, output="first.png")
    assert torch.equal(state, torch.get_rng_state())
    again = lc.filters("made.ckpt", **options, output="again.png")
    assert Path("first.png").read_bytes() == Path("again.png").read_bytes()
    assert first.activations == again.activations and first.seed == 0
    assert first.layers == ("features.0.6",) and sorted(first.filters) == list(range(20))
    other = lc.filters("made.ckpt", **options, output="other.png", seed=1)
    assert other.seed == 1 and Path("other.png").read_bytes() != Path("first.png").read_bytes()
    fewer = lc.filters("made.ckpt", **{**options, "first": 10}, output="fewer.png")
    values = dict(zip(first.filters, first.activations, strict=True))
    assert all(
        values[number] == pytest.approx(value, abs=1e-5)
        for number, value in zip(fewer.filters, fewer.activations, strict=True)
    )


def test_what_real_filters_look_for(shared_data: Path) -> None:
    weights = lc.Weights("tf_efficientnet_lite0", str(shared_data / "weights" / "tf_efficientnet_lite0.pth"))
    options: dict[str, Any] = {"layer": "blocks.2", "maximize": True, "first": 6, "size": 64}
    found = [lc.filters(weights, **options, steps=steps) for steps in (1, 20)]
    before, after = (dict(zip(each.filters, each.activations, strict=True)) for each in found)
    assert sorted(after) == list(range(6))
    assert all(after[number] > 2 * before[number] > 0 for number in after)


# returns, and what goes wrong


def test_filters_of_returns_are_lines() -> None:
    data = {"class_path": "SyntheticReturns", "stocks": 30}
    run = lc.fit(data=data, trainer={"max_epochs": 1, "limit_train_batches": 1}, model={"architecture": "returns_cnn"})
    module: Any = run.module()
    weights = module.network.get_submodule("features.conv_pool").weight
    figure = figures.filter_grid(weights.detach())
    panels = [axes for axes in figure.axes if axes.lines]
    assert len(panels) == 32
    for panel, weight in zip(panels, weights, strict=True):
        assert panel.lines[0].get_ydata() == pytest.approx(weight[0].tolist())
    assert lc.filters(run).filters == tuple(range(32))
    with pytest.raises(lc.UserError, match=r"^the network was not trained on images: remove `image` and `maximize`"):
        lc.filters(run, maximize=True)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `filters` that must fail without leaving anything; returns its one line."""
    return refusing("filters", capsys)


@pytest.mark.usefixtures("lenet5")
@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["--layer", "feature.0.3"], "unknown --layer 'feature.0.3'; did you mean features.0.3"),
        (["--layer", "qqq"], "unknown --layer 'qqq'; its first convolution is features.0.0"),
        (["--layer", "features.0.1"], "--layer features.0.1 is no convolution (ReLU): add --image to draw its maps"),
        (["--layer", "head", "--image", "photo.png"], "--layer head returns (10,), no maps: choose a convolution"),
        (["--layer", "head", "--maximize"], "--layer head gives no maps of images of 128x128"),
        (["--maximize", "--size", "4"], "--layer features.0.6 gives no maps of images of 4x4 ("),
        (["--image", "photo.png", "--maximize"], "remove one of them"),
        (["--image", "nowhere.png"], "there is no file or folder nowhere.png"),
        (["--image", "text.png"], "can't decode the image text.png"),
        (["--image", "."], "--image . holds 2 images: name one"),
        (["--count", "0"], "--count 0: it must be at least 1"),
        (["--maximize", "--step_size", "0"], "--step_size 0.0: it must be a number above 0"),
        (["--maximize", "--seed", "-1"], "--seed -1: it must be at least 0"),
        (["--output", "filters.xyz"], "can't write filters.xyz: expected a suffix of"),
        (["--output", "text.png/filters.png"], "choose another place with --output"),
        (["--maximise"], "did you mean --maximize"),
    ],
)
def test_mistakes(words: list[str], telling: str, refused: Callable[..., str]) -> None:
    photo()
    Path("text.png").write_text("hello")
    assert telling in refused("--ckpt_path", "made.ckpt", *words)


def test_a_network_without_convolutions(refused: Callable[..., str]) -> None:
    save(ImageClassifier("ffnn"), GRAY)
    for words in ([], ["--maximize"]):
        assert "FFNN has no convolutions: use another network" in refused("--ckpt_path", "made.ckpt", *words)


def test_every_network_of_ours_with_convolutions_has_filters(drawn: list[Any]) -> None:
    """Also on images whose size the head does not take."""
    for name in ("alexnet_cifar", "cifar_fast", "capsnet_small", "edge_net", "lenet5_1998"):
        network = timm.create_model(name).eval()
        layer = next(each for each in network.modules() if isinstance(each, nn.Conv2d))
        channels = timm.get_pretrained_cfg(name).input_size[0]
        images, activations = wanted_images(network, layer, lambda pixels: pixels, channels, 2, Ascent(44, 2))
        assert images.shape == (2, channels, 44, 44) and activations.isfinite().all(), name
