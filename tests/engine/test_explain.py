"""Attribution maps, against plain loops and against what is known of the images."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explained import COLOR, GRAY, Pixels, color_images, inputs, made, save
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from small_data import digits
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.engine.attribution import METHODS
from lightning_cnn.engine.loading import load
from lightning_cnn.modules import CapsuleClassifier, ImageClassifier, MultiLabelClassifier


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
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=6 * 30)
    seen, truth = inputs(GRAY, canvas), torch.from_numpy(labels[:1700].astype(np.int64))
    for _ in range(6):
        for rows in torch.randperm(1500).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(seen[rows]), truth[rows]).backward()
            optimizer.step()
            schedule.step()
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
    options: dict[str, Any] = {"method": method, "window": 6 if method == "occlusion" else None}
    together = lc.explain(path, [*images[:3]], batch_size=3, **options)
    alone = [lc.explain(path, [image], **options).maps[0] for image in images[:3]]
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
    options: dict[str, Any] = {"method": method, "window": 4 if method == "occlusion" else None}
    mass = np.abs(lc.explain(path, [*images[:40]], **options).maps)
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
        lc.explain(source, [*images[:30]], method=method, target=3).maps  # type: ignore[arg-type]
        for source in (path, "random.ckpt")
    )
    found = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(trained, random, strict=True)]
    assert abs(np.nanmean(found)) < 0.2 and np.isfinite(found).sum() > 15


# other tasks


def test_capsules_are_explained() -> None:
    images = [*digits(2)[0]]
    model = made(GRAY, "capsnet_small", CapsuleClassifier)
    for method in METHODS:
        steps = 100 if method == "integrated_gradients" else None
        found = lc.explain("made.ckpt", images, method=method, target=5, steps=steps)  # type: ignore[arg-type]
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
        ({"steps": 9}, "`steps` is for `method` integrated_gradients: remove it"),
        ({"worst": 0}, "`worst` 0: it must be at least 1"),
        ({"worst": 9}, "`worst` is for test images: remove it, or the images"),
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
