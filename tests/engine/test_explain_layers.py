"""The default layer of Grad-CAM, of each network, and layers that have no maps."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from explained import COLOR, GRAY, color_images, inputs, made
from PIL import Image
from small_data import digits

import lightning_cnn as lc
from lightning_cnn.engine.attribution import CAM
from lightning_cnn.engine.cam_layer import default_layer
from lightning_cnn.engine.catalogue import architectures
from lightning_cnn.modules.network import create_network, takes_sequences

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "explain.md"


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
    others = {"house_number_net", "house_number_resnet", "returns_picture"}
    others |= {"smp_deeplabv3plus", "smp_fpn", "smp_unet", "unet", "unet_padded", "unet_small"}
    assert ours - named == others  # of other tasks
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
