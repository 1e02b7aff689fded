"""Attribution maps, against plain loops and against what is known of the images and returns."""

import base64
import io
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from image_sets import write_folder, write_table
from numpy.typing import NDArray
from PIL import Image
from price_files import panel, write
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from small_data import digits, write_image_folder, write_mnist
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.attribution import CAM, METHODS
from lightning_cnn.engine.cam_layer import default_layer
from lightning_cnn.engine.catalogue import architectures
from lightning_cnn.engine.loading import load
from lightning_cnn.modules import CapsuleClassifier, ImageClassifier, MultiLabelClassifier
from lightning_cnn.modules.network import create_network, takes_sequences

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "explain.md"
GRAY = Preprocessing(28, 1, mean=(0.13,), std=(0.31,), class_names=tuple(f"digit {n}" for n in range(10)))
COLOR = Preprocessing(32, 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
Pixels = NDArray[np.uint8]


def save(model: Any, preprocessing: Preprocessing, path: str = "made.ckpt") -> Path:
    """Writes a checkpoint of a model as it is."""
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "hyper_parameters": {"_class_path": f"lightning_cnn.modules.{type(model).__name__}", **model.hparams},
        "Data": {"preprocessing": preprocessing.to_dict()},
    }
    torch.save(content, path)
    return Path(path)


def made(preprocessing: Preprocessing, architecture: str, kind: Any = ImageClassifier, **options: Any) -> Any:
    """A classifier with random weights, and its checkpoint in `made.ckpt`."""
    torch.manual_seed(0)
    model = kind(
        architecture, in_channels=preprocessing.in_channels, image_size=preprocessing.image_size, **options
    ).eval()
    save(model, preprocessing)
    return model


def inputs(preprocessing: Preprocessing, images: Sequence[Pixels] | Pixels) -> Tensor:
    """Images as the network sees them."""
    pixels = torch.from_numpy(np.stack([*images])).float() / 255
    return preprocessing.scale(pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2))


def color_images(count: int) -> Pixels:
    """Noise that is smooth over the image."""
    small = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((32, 32))) for image in small])


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pixels, NDArray[np.int64]]:
    """A network that was trained on digits in one half of a canvas of noise; 200 further images, and where they are."""
    pixels, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    canvas = random.integers(0, 150, (1700, 16, 16), dtype=np.uint8)
    right = random.integers(0, 2, 1700)
    for image, digit, side in zip(canvas, pixels, right, strict=False):
        image[4:12, 8 * side : 8 * side + 8] = 255 / 16 * digit.reshape(8, 8)
    torch.manual_seed(0)
    model = ImageClassifier("resnet20_cifar", image_size=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    seen, truth = inputs(GRAY, canvas), torch.from_numpy(labels[:1700].astype(np.int64))
    for _ in range(6):
        for rows in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(seen[rows]), truth[rows]).backward()
            optimizer.step()
    accuracy = (model.eval()(seen[1500:]).argmax(1) == truth[1500:]).float().mean()
    assert accuracy > 0.85
    path = save(model, replace(GRAY, image_size=16), str(tmp_path_factory.mktemp("halves") / "digits.ckpt"))
    return path, canvas[1500:], right[1500:]


# the methods against plain loops


@pytest.mark.parametrize(
    ("architecture", "layer"), [("lenet5", "features.0.7"), ("cnn3", "features.4"), ("cnn3", None)]
)
def test_gradcam_is_that_of_hooks(architecture: str, layer: str | None) -> None:
    images = [*digits(3)[0]]
    model = made(GRAY, architecture)
    found = lc.explain("made.ckpt", images, layer=layer, target=7)
    kept: dict[str, Tensor] = {}

    def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        kept["maps"] = output.detach().requires_grad_()
        return kept["maps"]

    handle = model.network.get_submodule(found.layer).register_forward_hook(hook)
    model.network(inputs(GRAY, images))[:, 7].sum().backward()
    handle.remove()
    maps, gradients = kept["maps"], kept["maps"].grad
    assert gradients is not None
    weighted = (gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    expected = F.interpolate(weighted, (28, 28), mode="bilinear")[:, 0]
    np.testing.assert_allclose(found.maps, expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    assert expected.max() > 0 and found.maps.shape == (3, 28, 28) and found.maps.dtype == np.float32


def test_guided_gradcam_is_that_of_another_relu() -> None:
    images = [*digits(2)[0]]
    model = made(GRAY, "cnn3")
    found = lc.explain("made.ckpt", images, method="guided_gradcam", layer="features.7", target=3)
    cam = lc.explain("made.ckpt", images, layer="features.7", target=3)

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            context.save_for_backward(x)
            return x.relu()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            x: Tensor = context.saved_tensors[0]
            return gradient.relu() * (x > 0)

    for module in model.network.modules():
        if isinstance(module, nn.ReLU):
            module.forward = Guided.apply  # type: ignore[assignment]
    seen = inputs(GRAY, images).requires_grad_()
    model.network(seen)[:, 3].sum().backward()
    assert seen.grad is not None
    np.testing.assert_allclose(found.maps, seen.grad[:, 0].numpy() * cam.maps, rtol=1e-4, atol=1e-7)
    assert np.abs(found.maps).max() > 0


def test_saliency_is_the_largest_absolute_gradient() -> None:
    images = [*color_images(2)]
    model = made(COLOR, "resnet20_cifar")
    found = lc.explain("made.ckpt", images, method="saliency")
    seen = inputs(COLOR, images).requires_grad_()
    model.network(seen).amax(1).sum().backward()
    assert seen.grad is not None
    np.testing.assert_allclose(found.maps, seen.grad.abs().amax(1).numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("window", "side", "stride"), [(None, 4, 2), (8, 8, 4), (9, 9, 4), (1, 1, 1)])
def test_occlusion_is_that_of_a_loop(window: int | None, side: int, stride: int) -> None:
    images = [*digits(2)[0]]
    model = made(GRAY, "lenet5")
    found = lc.explain("made.ckpt", images, method="occlusion", window=window, target=1)
    seen = inputs(GRAY, images)
    total, count = torch.zeros(2, 28, 28), torch.zeros(28, 28)
    places = range(0, 28 - side + stride, stride)  # the last square may end beyond the image
    with torch.no_grad():
        before = model.network(seen)[:, 1]
        for top in places:
            for left in places:
                hidden = seen.clone()
                hidden[:, :, top : top + side, left : left + side] = 0
                total[:, top : top + side, left : left + side] += (before - model.network(hidden)[:, 1])[:, None, None]
                count[top : top + side, left : left + side] += 1
    np.testing.assert_allclose(found.maps, (total / count).numpy(), rtol=1e-3, atol=1e-6)


def test_integrated_gradients_sum_up_to_the_difference_of_logits(halves: tuple[Path, Pixels, Any]) -> None:
    path, images, _ = halves
    model, _ = load(path)
    seen = inputs(GRAY, images[:6])
    with torch.no_grad():
        difference = (model(seen) - model(torch.zeros_like(seen)))[:, 4]
    errors = []
    for steps in (5, 300):
        found = lc.explain(path, [*images[:6]], method="integrated_gradients", steps=steps, target="digit 4")
        errors.append(float(np.abs(found.maps.sum((1, 2)) - difference.numpy()).max() / difference.abs().max()))
    assert errors[1] < 0.02 and errors[1] < errors[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_one_image_at_a_time(method: str, halves: tuple[Path, Pixels, Any]) -> None:
    path, images, _ = halves
    together = lc.explain(path, [*images[:3]], method=method, batch_size=3)  # type: ignore[arg-type]
    alone = [lc.explain(path, [image], method=method).maps[0] for image in images[:3]]  # type: ignore[arg-type]
    largest = np.abs(together.maps).max()
    np.testing.assert_allclose(together.maps / largest, np.stack(alone) / largest, atol=1e-5)
    distances = [np.abs(together.maps[0] - other).max() for other in together.maps[1:]]
    assert min(distances) > 0.01 * largest  # each image has its own


def test_the_predicted_class_is_explained(halves: tuple[Path, Pixels, Any]) -> None:
    path, images, _ = halves
    found = lc.explain(path, [*images[:5]])
    assert [*found.frame.columns] == ["file", "class", "probability", "target"]
    predicted = lc.predict(path, images=[*images[:5]], top_k=1)
    assert [*found.frame["class"]] == [*predicted["class"]] == [*found.frame["target"]]
    np.testing.assert_allclose(found.frame["probability"], predicted["probability"], rtol=1e-4)
    for row in range(5):
        name = found.frame["class"][row]
        named = lc.explain(path, [images[row]], target=name)
        numbered = lc.explain(path, [images[row]], target=GRAY.class_names.index(name))
        np.testing.assert_allclose(named.maps[0], found.maps[row], atol=1e-5)
        np.testing.assert_array_equal(named.maps, numbered.maps)


# what maps mean


@pytest.mark.parametrize("method", ["gradcam", "guided_gradcam", "integrated_gradients", "occlusion", "saliency"])
def test_maps_lie_where_the_digit_is(method: str, halves: tuple[Path, Pixels, Any]) -> None:
    path, images, right = halves
    mass = np.abs(lc.explain(path, [*images[:40]], method=method).maps)  # type: ignore[arg-type]
    sides = np.stack([mass[:, :, :8].sum((1, 2)), mass[:, :, 8:].sum((1, 2))], 1)
    shares = sides[np.arange(40), right[:40]] / sides.sum(1)
    assert (shares > 0.5).mean() > 0.95 and shares.mean() > 0.6


@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients"])
def test_maps_of_random_weights_are_others(method: str, halves: tuple[Path, Pixels, Any]) -> None:
    """The sanity check of Adebayo et al. 2018: what does not depend on the weights explains nothing."""
    path, images, _ = halves
    torch.manual_seed(1)
    save(ImageClassifier("resnet20_cifar", image_size=16).eval(), replace(GRAY, image_size=16), "random.ckpt")
    trained, random = (
        lc.explain(source, [*images[:50]], method=method, target=3).maps  # type: ignore[arg-type]
        for source in (path, "random.ckpt")
    )
    found = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(trained, random, strict=True)]
    assert abs(np.nanmean(found)) < 0.2 and np.isfinite(found).sum() > 25


# the layer


def table() -> list[tuple[str, int, str, str]]:
    """Network, image size, layer and size of its maps, as the manual has them."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (?:`([\w.]+)`|none) \| ([\dx-]+) \|$", PAGE.read_text(), re.M)
    return [(name, int(size), layer, maps) for name, size, layer, maps in rows]


@pytest.mark.parametrize(("name", "size", "layer", "maps"), table(), ids=lambda value: str(value))
def test_the_default_layer_is_that_of_the_manual(name: str, size: int, layer: str, maps: str) -> None:
    torch.manual_seed(0)
    channels = timm.get_pretrained_cfg(name).input_size[0]
    network, image = create_network(name, 10, channels, size).eval(), torch.zeros(1, channels, size, size)
    if not layer:
        with pytest.raises(lc.UserError, match=f"^{name} has no layer with maps of at least 4x4: use `method` integ"):
            default_layer(network, name, image)
        return
    assert default_layer(network, name, image) == layer
    shapes = []
    network.get_submodule(layer).register_forward_hook(lambda module, given, output: shapes.append(output.shape))
    network(image)
    assert "x".join(map(str, shapes[-1][2:])) == maps


def test_the_table_has_all_networks_for_images() -> None:
    ours = {each.name for each in architectures() if not takes_sequences(each.name)}
    named = {name for name, *_ in table()}
    assert ours - named == {"house_number_net", "house_number_resnet", "returns_picture"}  # of other tasks
    assert len(named - ours) >= 4  # of timm


def test_small_images_take_an_earlier_layer_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    made(COLOR, "resnet18")
    with caplog.at_level(logging.INFO, "lightning_cnn"):
        found = lc.explain("made.ckpt", color_images(1))
    assert found.layer == "layer2"
    (line,) = [each for each in caplog.messages if "maps" in each]
    assert "1x1" in line and "those of layer2 (4x4) are used" in line
    caplog.clear()
    with caplog.at_level(logging.INFO, "lightning_cnn"):
        lc.explain("made.ckpt", color_images(1), layer="layer1")
    made(COLOR, "resnet20_cifar")
    with caplog.at_level(logging.INFO, "lightning_cnn"):
        lc.explain("made.ckpt", color_images(1))
    assert not [each for each in caplog.messages if "maps" in each]


@pytest.mark.parametrize(
    ("architecture", "layer", "error"),
    [
        ("ffnn", None, "ffnn has no layer with maps of at least 4x4: use `method` integrated_gradients, occlusion or"),
        ("linear", None, "linear has no layer with maps"),
        ("lenet5", "features.0.9", "`layer` features.0.9: the network has no such layer; did you mean features.0.8"),
        ("lenet5", "stem", "`layer` stem: the network has no such layer; it has features, features.0, "),
        ("lenet5", "head", "`layer` head has an output of shape (10,), expected maps (channels, height, width)"),
        ("lenet5", "", "`layer` : the network has no such layer"),
    ],
)
def test_layers_without_maps_are_refused(architecture: str, layer: str | None, error: str) -> None:
    made(GRAY, architecture)
    with pytest.raises(lc.UserError) as raised:
        lc.explain("made.ckpt", digits(1)[0], layer=layer)
    assert str(raised.value).startswith(error)
    assert [path.name for path in Path().iterdir()] == ["made.ckpt"]


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s16_224"])
def test_transformers_have_no_cam(architecture: str) -> None:
    preprocessing = replace(COLOR, image_size=224)
    made(preprocessing, architecture)
    for method in CAM:
        with pytest.raises(
            lc.UserError, match=f"^the head of {architecture} sees tokens, not maps: use `method` integ"
        ):
            lc.explain("made.ckpt", color_images(1), method=method)  # type: ignore[arg-type]


def test_transformers_have_other_maps() -> None:
    preprocessing = replace(COLOR, image_size=64)
    model = made(preprocessing, "vit_tiny_patch16_224")
    found = lc.explain("made.ckpt", color_images(1), method="integrated_gradients", target=2)
    large = np.stack([np.asarray(Image.fromarray(image).resize((64, 64), 2)) for image in color_images(1)])
    seen = inputs(preprocessing, large)
    with torch.no_grad():
        difference = float((model.network(seen) - model.network(torch.zeros_like(seen)))[0, 2])
    assert difference != 0 and found.maps.sum() == pytest.approx(difference, rel=0.05)
    assert np.ptp(lc.explain("made.ckpt", color_images(1), method="occlusion", window=32).maps) > 0


# other tasks


def test_capsules_are_explained() -> None:
    images = [*digits(2)[0]]
    model = made(GRAY, "capsnet_small", CapsuleClassifier)
    for method in METHODS:
        found = lc.explain("made.ckpt", images, method=method, target=5, steps=100)  # type: ignore[arg-type]
        assert np.isfinite(found.maps).all() and np.ptp(found.maps) > 0
        if method == "integrated_gradients":
            seen = inputs(GRAY, images)
            with torch.no_grad():
                lengths = (model.network(seen) - model.network(torch.zeros_like(seen)))[:, 5]
            np.testing.assert_allclose(found.maps.sum((1, 2)), lengths.numpy(), atol=0.05 * float(lengths.abs().max()))


def test_several_labels_are_explained() -> None:
    model = made(GRAY, "lenet5", MultiLabelClassifier)
    images = [*digits(3)[0]]
    found = lc.explain("made.ckpt", images, method="saliency")
    with torch.no_grad():
        chances = model.network(inputs(GRAY, images)).sigmoid().max(1)
    assert [*found.frame["class"]] == [GRAY.class_names[number] for number in chances.indices.tolist()]
    np.testing.assert_allclose(found.frame["probability"], chances.values.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"method": "lime"}, "`method` 'lime': expected one of gradcam, guided_gradcam, integrated_gradients, "),
        ({"target": "digit"}, "`target` digit: there is no such class; did you mean digit"),
        ({"target": 10}, "`target` 10: there is no such class"),
        ({"target": -1}, "`target` -1: there is no such class; the 10 classes are digit 0 to digit 9"),
        ({"steps": 0, "method": "integrated_gradients"}, "`steps` 0: it must be at least 1"),
        ({"window": 29, "method": "occlusion"}, "`window` 29 is larger than the images, 28x28"),
        ({"window": 3}, "`window` is for `method` occlusion: remove it"),
        ({"layer": "features", "method": "saliency"}, "`layer` is for `method` gradcam and guided_gradcam: remove it"),
        ({"images": ["nowhere.png"]}, "there is no file or folder nowhere.png"),
        ({"images": ()}, "the checkpoint does not record its data: add images to explain"),
        ({"output": "maps.xyz"}, "can't write maps.xyz"),
        ({"source": lc.Weights("resnet18"), "images": ()}, "explain what? Add images"),
        ({"accelerator": "abacus"}, "`accelerator` 'abacus': expected one of auto, cpu"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], error: str) -> None:
    made(GRAY, "lenet5")
    with pytest.raises(lc.UserError) as raised:
        lc.explain(**{"source": "made.ckpt", "images": [*digits(1)[0]], **options})
    assert str(raised.value).startswith(error)
    assert [path.name for path in Path().iterdir()] == ["made.ckpt"]


def test_guided_gradcam_needs_relus() -> None:
    made(replace(GRAY, image_size=32), "lenet5_1998")
    with pytest.raises(lc.UserError, match=r"^lenet5_1998 has no layers nn.ReLU, .*use `method` gradcam$"):
        lc.explain("made.ckpt", digits(1)[0], method="guided_gradcam")


@pytest.mark.figures
def test_the_command_writes_a_figure(halves: tuple[Path, Pixels, Any], capsys: pytest.CaptureFixture[str]) -> None:
    path, images, _ = halves
    for number, image in enumerate(images[:3]):
        Image.fromarray(image).save(f"{number}.png")
    assert main(["explain", "--ckpt_path", str(path), "0.png", "1.png", "2.png", "--output", "maps/all.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "class", "probability", "target"]
    assert lines[1].split()[0] == "0.png"
    assert lines[-1] == "3 images, layer features.11, written to maps/all.png"
    pixels = np.asarray(Image.open("maps/all.png").convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) > 60).any()  # the maps are in color, the digits are not
    assert main(["explain", "--ckpt_path", str(path), "0.png", "--layer", "featuers.7"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --layer featuers.7: the network has no such layer; did you mean features.7")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "error: explain what? Add --run RUN, or --ckpt_path FILE and images"),
        (["--run", "1", "--ckpt_path", "made.ckpt"], "error: --run names its own checkpoint: remove --ckpt_path"),
        (["--run", "1"], "error: no run '1' under runs"),
        (["--ckpt_path", "made.ckpt", "--layr", "x"], "error: unrecognized arguments: --layr; did you mean --layer?"),
        (["photo.png", "--ckpt_path", "none.ckpt"], "error: there is no checkpoint none.ckpt"),
        (["photo.png", "--ckpt_path", "made.ckpt"], "error: there is no file or folder photo.png"),
        (["--ckpt_path", "made.ckpt"], "error: the checkpoint does not record its data: add images"),
    ],
)
def test_bad_words_are_refused(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    made(GRAY, "lenet5")
    assert main(["explain", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(error)
    assert [path.name for path in Path().iterdir()] == ["made.ckpt"]


def test_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    made(GRAY, "lenet5")
    name = os.fsdecode(b"caf\xe9\x1b$.png")
    with Path(name).open("wb") as file:
        Image.fromarray(digits(1)[0][0]).save(file, "PNG")
    assert main(["explain", "--ckpt_path", "made.ckpt", name]) == 0
    assert "\x1b" not in capsys.readouterr().out and Path("explain.png").is_file()


# runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A short run on Digits."""
    folder = tmp_path_factory.mktemp("runs")
    return lc.train("digits_lenet5", trainer={"max_epochs": 2}, runs_dir=str(folder), wandb="disabled")


def test_the_page_has_the_worst_test_images(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = lc.explain(run, worst=7)
    module, data = run.module(), run.datamodule()
    data.setup("test")
    images, labels = data.on_after_batch_transfer(data.dataset("test")[torch.arange(len(data.dataset("test")))], 0)
    with torch.no_grad():
        logits = module(images)
    losses = F.cross_entropy(logits, labels, reduction="none")
    worst = losses.argsort(descending=True)[:7]
    assert [*found.frame["file"]] == [str(place) for place in worst.tolist()]
    np.testing.assert_allclose(found.frame["loss"], losses[worst].numpy(), rtol=1e-3)
    assert [*found.frame["label"]] == [data.class_names[number] for number in labels[worst].tolist()]
    chances, guesses = logits.softmax(1)[worst].max(1)
    assert [*found.frame["class"]] == [data.class_names[number] for number in guesses.tolist()]
    np.testing.assert_allclose(found.frame["probability"], chances.numpy(), rtol=1e-3)
    assert found.path == run.folder / "explain.html" and found.maps.shape == (7, 28, 28)
    text = found.path.read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 3 * 7  # the image, the map of the prediction and that of the label
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))[..., 0]
    pixels = data.preprocessing.unscale(images[worst[0]])[0]
    np.testing.assert_array_equal(first, (255 * pixels).round().numpy().astype(np.uint8))
    row = found.frame.iloc[0]
    assert f"confidence {row.probability:.1%}, loss {row.loss:.3g}" in text and "http" not in text
    assert main(["explain", "--run", str(run.folder), "--worst", "3", "--method", "occlusion", "--target", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"3 images, written to {run.folder / 'explain.html'}"
    assert (run.folder / "explain.html").read_text().count("<img ") == 2 * 3


SHORT = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}


def test_the_page_has_the_names_of_files_and_labels() -> None:
    write_folder(Path("photos"), {"train/all": 12, "test/all": 6})
    write_table(Path("photos"), "train/all", "test/all")
    data = {"class_path": "ImageTable", "root": "photos", "image_size": 28}
    run = lc.fit(data=data, model={"class_path": "MultiLabelClassifier"}, trainer=SHORT)
    found = run.explain(worst=4, output="pages/worst.html")
    assert found.path == Path("pages/worst.html") and len(found.frame) == 4
    names = set(found.frame["file"])
    assert names < {f"test/all/{number:03d}.png" for number in range(6)} and all(
        name in found.path.read_text() for name in names
    )
    with torch.no_grad():
        for row in found.frame.itertuples():
            chances = run.predict(Path("photos") / row.file).iloc[0]
            truth = {label: label in row.label.split("+") for label in ("odd", "large", "test")}
            wrong = max(truth, key=lambda label: abs(chances[label] - truth[label]))
            assert row.target == wrong and row.probability == pytest.approx(chances[wrong], rel=1e-3)


@pytest.mark.parametrize("data", ["MNIST", "OverlappingDigits", "AffineMNIST"])
def test_the_page_of_capsules(data: str) -> None:
    write_mnist(Path("data"), train=100, test=40)
    model = {"class_path": "CapsuleClassifier", "architecture": "efficient_capsnet"}
    run = lc.fit(data=data, model=model, trainer=SHORT)
    found = run.explain(worst=3)
    assert [*found.frame["loss"]] == sorted(found.frame["loss"], reverse=True)
    assert found.path.read_text().count("<img ") == (2 if data == "OverlappingDigits" else 3) * 3
    assert np.isfinite(found.maps).all() and found.layer == "features.11"


def test_data_without_a_test_part_have_no_page() -> None:
    write_image_folder(Path("photos"), classes=2, parts=("train",))
    run = lc.fit(data={"class_path": "ImageFolder", "root": "photos", "image_size": 28}, trainer=SHORT)
    with pytest.raises(lc.UserError, match=r"^the data has no test part: add images to explain$"):
        run.explain()
    assert not (run.folder / "explain.html").exists()


@pytest.fixture(scope="module")
def returns(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A short run on simulated returns with momentum of lags 2 to 12, and January."""
    folder = tmp_path_factory.mktemp("returns")
    data = {"class_path": "SyntheticReturns", "stocks": 100, "momentum": 0.25, "january": 0.8}
    model = {"class_path": "ReturnClassifier", "architecture": "returns_ffnn", "lr": 1e-3}
    return lc.fit(data=data, model=model, trainer={"max_epochs": 3}, runs_dir=str(folder), wandb="disabled", seed=1)


def test_the_lags_that_matter_are_found(returns: Any) -> None:
    found = lc.explain(returns)
    frame = found.frame
    assert [*frame.columns] == ["channel", "column", "integrated_gradients", "occlusion"] and len(frame) == 36
    for method in ("integrated_gradients", "occlusion"):
        values = frame.set_index("column")[method]
        known = values[[f"lag {lag}" for lag in range(2, 13)]]
        others = values[[f"lag {lag}" for lag in (1, *range(13, 25))]]
        assert known.mean() > 2 * others.mean()
        assert values["lag 25" if "lag 25" in values else "lag 24"] < known.mean()
        months = values[24:]
        assert months.idxmax() == "January"
    assert found.path == returns.folder / "explain.png" and found.path.is_file()


def test_the_lags_are_those_of_a_loop(returns: Any) -> None:
    found = lc.explain(returns, steps=100)
    module, data = returns.module(), returns.datamodule()
    data.setup("test")
    windows = torch.from_numpy(data.arrays("test")[0])
    with torch.no_grad():
        before = module(windows)
        for place in (0, 5, 23, 24, 35):
            hidden = windows.clone()
            hidden[:, :, place] = 0
            expected = (before - module(hidden)).abs().double().mean()
            assert found.frame["occlusion"][place] == pytest.approx(float(expected), rel=1e-4)
        difference = before - module(torch.zeros_like(windows))
    assert found.maps.shape == windows.shape
    np.testing.assert_allclose(found.maps.sum((1, 2)), difference.numpy(), atol=0.02 * float(difference.abs().max()))
    means = np.abs(found.maps.astype(np.float64)).mean(0)[0]
    np.testing.assert_allclose(found.frame["integrated_gradients"], means, rtol=1e-4)


def test_a_dummy_counts_once_in_several_channels(capsys: pytest.CaptureFixture[str]) -> None:
    closes = panel(stocks=12)
    write(closes, Path("prices.parquet"))
    write(closes.mean(axis=1).to_frame("market"), Path("market.csv"))
    data = {"class_path": "MonthlyReturns", "prices": "prices.parquet", "lags": 4}
    data["channels"] = {"market": {"file": "market.csv"}}  # type: ignore[assignment]
    run = lc.fit(data=data, model={"class_path": "ReturnRegressor", "architecture": "returns_cnn_split"}, trainer=SHORT)
    frame = run.explain(method="occlusion").frame
    assert [*frame["channel"]] == ["return"] * 4 + ["market"] * 4 + [""] * 12
    assert [*frame["column"][:5]] == ["lag 1", "lag 2", "lag 3", "lag 4", "lag 1"] and frame["column"][8] == "January"
    module, loaded = run.module(), cast(Any, run.datamodule())
    loaded.setup("test")
    windows = torch.from_numpy(loaded.arrays("test")[0])
    for place, hide in ((5, (1, 1)), (10, (slice(None), 6))):  # lag 2 of the market, March
        hidden = windows.clone()
        hidden[:, hide[0], hide[1]] = 0
        with torch.no_grad():
            change = (module(windows) - module(hidden)).abs().mean()
        assert frame["occlusion"][place] == pytest.approx(float(change), rel=1e-3) and change > 0
    assert main(["explain", "--run", str(run.folder), "--method", "saliency"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: of returns --method is integrated_gradients or occlusion, and there is no --layer")


def test_returns_refuse_what_is_for_images(returns: Any) -> None:
    for options in ({"method": "gradcam"}, {"layer": "features"}, {"target": 1}):
        with pytest.raises(lc.UserError, match="of returns"):
            lc.explain(returns, **options)  # type: ignore[arg-type]
    with pytest.raises(lc.UserError, match=r"^the checkpoint was trained on monthly returns: remove the images"):
        lc.explain(returns, digits(1)[0])
