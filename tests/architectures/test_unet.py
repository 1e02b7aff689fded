"""Networks that classify pixels: U-Net as published and padded, and encoders of timm with decoders."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cnn as lc
from lightning_cnn.architectures.arithmetic import output_size
from lightning_cnn.architectures.unet import UNet, center_crop, pad_to
from lightning_cnn.modules.network import create_network
from lightning_cnn.modules.pretrained import Weights

UNETS = ("unet", "unet_padded", "unet_small")
DECODERS = ("smp_unet", "smp_deeplabv3plus", "smp_fpn")
TINY: dict[str, Any] = {"encoder": "test_resnet"}


def small(**options: Any) -> Any:
    return timm.create_model("unet", width=4, **options).eval()


def test_the_published_network() -> None:
    with torch.device("meta"):
        network = timm.create_model("unet", num_classes=2, in_chans=1).eval()
        assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_658
        assert network(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
        widths = [block[2].out_channels for block in network.down]
        assert widths == [64, 128, 256, 512, 1024]
        assert sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in network.modules()) == 23
    assert not [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for name, count in {"unet_padded": 31_036_546, "unet_small": 1_942_306}.items():
        with torch.device("meta"):
            assert sum(parameter.numel() for parameter in timm.create_model(name).parameters()) == count


def test_sizes_are_those_of_the_layers() -> None:
    """Each convolution and pooling followed through, for all sides up to 400."""
    network = small()
    for side in range(1, 400):
        size, sizes = side, []
        try:
            for level in range(5):
                if level:
                    assert size % 2 == 0
                    size = output_size(size, 2, stride=2)
                size = output_size(output_size(size, 3), 3)
                sizes.append(size)
            for before in reversed(sizes[:-1]):
                size *= 2
                assert 0 < size <= before
                size = output_size(output_size(size, 3), 3)
        except (AssertionError, ValueError):
            with pytest.raises(ValueError, match="don't halve evenly"):
                network(torch.zeros(1, 1, side, 188))
            continue
        if size in (4, 20, 84):
            assert network(torch.zeros(1, 1, side, 188)).shape[2:] == (size, 4)
        assert side == network.input_side(size) == network.input_side(size - 15) and size == side - network.lost
    assert network.input_side(388) == 572 and small(padded=True).input_side(57) == 57


def test_the_forward_pass_by_hand() -> None:
    """Two levels, with plain calls of torch."""
    torch.manual_seed(0)
    network: Any = UNet(num_classes=3, in_chans=2, width=2, depth=1, drop_rate=0.5).eval()
    images = torch.randn(2, 2, 24, 20)

    def twice(x: Tensor, block: Any) -> Tensor:
        for layer in (block[0], block[2]):
            x = F.conv2d(x, layer.weight, layer.bias).relu()
        return x

    first = twice(images, network.down[0])
    second = twice(F.max_pool2d(first, 2), network.down[1])
    up = F.conv_transpose2d(second, network.up[0].weight, network.up[0].bias, stride=2)
    assert (first.shape[2:], up.shape[2:]) == ((20, 16), (12, 8))
    merged = twice(torch.cat([first[:, :, 4:16, 4:12], up], 1), network.merge[0])
    expected = F.conv2d(merged, network.head.weight, network.head.bias)
    assert torch.allclose(network(images), expected, atol=1e-6) and expected.shape == (2, 3, 8, 4)


def test_weights_begin_as_in_the_paper() -> None:
    torch.manual_seed(0)
    network: Any = timm.create_model("unet", width=32)
    layer = network.down[2][2]
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    assert not layer.bias.any()
    outputs = network.down[2](network.down[1](network.down[0](torch.randn(1, 1, 64, 64))))
    assert 0.2 < float(outputs.std()) < 2  # activations keep their size


@pytest.mark.parametrize("side", [(64, 96), (57, 91), (16, 5), (1, 1)])
def test_padded_networks_take_any_size(side: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network, images = small(padded=True, batch_norm=True), torch.randn(2, 1, *side)
    outputs = network(images)
    assert outputs.shape == (2, 2, *side) and outputs.isfinite().all()
    height, width = (-(-length // 16) * 16 for length in side)
    rows, columns = torch.arange(height).clamp(max=side[0] - 1), torch.arange(width).clamp(max=side[1] - 1)
    whole = network(images[:, :, rows][:, :, :, columns])
    assert torch.allclose(outputs, whole[:, :, : side[0], : side[1]], atol=1e-5)


def test_crops_and_extensions() -> None:
    maps = torch.arange(35).view(1, 1, 5, 7)
    assert center_crop(maps, 3, 3).tolist() == [[[[9, 10, 11], [16, 17, 18], [23, 24, 25]]]]
    assert center_crop(maps, 5, 7) is not None and pad_to(maps, 1) is maps
    padded = pad_to(maps.float(), 4)[0, 0]
    assert padded.shape == (8, 8) and padded[7, 7] == 34 and padded[2, 7] == maps[0, 0, 2, 6]


@pytest.mark.parametrize("name", [*UNETS, *DECODERS])
def test_the_interface_of_timm(name: str) -> None:
    torch.manual_seed(0)
    options = TINY if name in DECODERS else {"width": 4}
    side = 188 if name == "unet" else 64
    network: Any = create_network(name, 3, 2, side, options=options, maps=True)
    images = torch.randn(4, 2, side, side)
    outputs = network.train()(images)
    outputs.square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    network.eval()
    features = network.forward_features(images)
    assert torch.equal(network.forward_head(features), network(images))
    assert network.forward_head(features, pre_logits=True) is features
    assert features.shape[1] == network.num_features
    network.reset_classifier(5)
    assert network.num_classes == 5 and network(images).shape[1] == 5
    network.reset_classifier(0)
    assert network(images).shape[1] == network.num_features


@pytest.mark.parametrize(("name", "channels"), [("smp_unet", 3), ("smp_deeplabv3plus", 1)])
def test_weights_of_an_encoder(name: str, channels: int, shared_data: Path) -> None:
    """A file of timm's weights, without a network connection."""
    path = str(shared_data / "weights" / "tf_efficientnet_lite0.pth")
    state, options = torch.load(path, weights_only=True), {"encoder": "tf_efficientnet_lite0"}
    weights = Weights(path, dict(state))
    network: Any = create_network(name, 5, channels, 64, options=options, weights=weights, maps=True).eval()
    loaded = network.encoder.model.state_dict()
    stem = state["conv_stem.weight"] if channels == 3 else state["conv_stem.weight"].sum(1, keepdim=True)
    assert torch.allclose(loaded.pop("conv_stem.weight"), stem, atol=1e-6)
    assert len(loaded) > 250 and all(torch.equal(state[key], value) for key, value in loaded.items())
    assert "state_dict" not in network.pretrained_cfg and network.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    if channels == 3:  # its last stage computes what timm's own network computes
        whole: Any = timm.create_model("tf_efficientnet_lite0", checkpoint_path=path).eval()
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        expected = whole.blocks(whole.bn1(whole.conv_stem(images)))
        assert torch.allclose(network.encoder(images)[-1], expected, atol=1e-5)


def test_weights_of_a_whole_network() -> None:
    first = create_network("smp_fpn", 3, 3, 64, options=TINY, maps=True)
    weights = Weights("some.pth", first.state_dict())
    same, other = (create_network("smp_fpn", n, 3, 64, options=TINY, weights=weights, maps=True) for n in (3, 7))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(same.eval()(images), first.eval()(images))
    features = [network.forward_features(images) for network in (other.eval(), first)]  # type: ignore[operator]
    assert torch.equal(*features) and other(images).shape[1] == 7
    for wrong in ("smp_unet", "smp_deeplabv3plus"):
        with pytest.raises(lc.UserError, match=rf"^the weights in some\.pth do not fit {wrong} "):
            create_network(wrong, 3, 3, 64, options=TINY, weights=weights, maps=True)


def test_weights_of_another_encoder() -> None:
    state = timm.create_model("test_resnet").state_dict()
    for change in (
        state | {"layer1.0.conv9.weight": torch.zeros(1)},
        {k: v for k, v in state.items() if "layer3" not in k},
    ):
        with pytest.raises(lc.UserError, match=r"^the weights in some\.pth do not fit smp_unet "):
            create_network("smp_unet", 3, 3, 64, options=TINY, weights=Weights("some.pth", change), maps=True)


@pytest.mark.parametrize(
    ("name", "options", "size", "telling"),
    [
        ("smp_unet", {"encoder": "resnet_18"}, 64, "unknown `model.architecture_options.encoder` 'resnet_18'; did you"),
        ("smp_unet", {"encoder": 3}, 64, "unknown `model.architecture_options.encoder` 3"),
        ("smp_unet", {"encoder": "vit_tiny_patch16_224"}, 64, "does not accept these options (Unsupported model down"),
        ("smp_unet", {"encoder": "resnet18", "wide": 2}, 64, "does not accept these options (ResNet.__init__() got an"),
        ("smp_fpn", {"encoder_depth": 9}, 64, "does not accept these options (TimmUniversalEncoder depth should be"),
        ("smp_unet", {"num_classes": 3}, 64, "it is set from the data; leave it out"),
        (
            "unet",
            {"width": 4},
            64,
            "images of 64x64 don't fit unet (sides of 64 pixels don't halve evenly; 188 is the next that",
        ),
        ("unet", {"width": 4}, 512, "(sides of 512 pixels don't halve evenly; 524 is the next that does)"),
        ("resnet18", {}, 64, "`model.architecture` resnet18 is no segmentation network: its output for one image has"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], size: int, telling: str) -> None:
    with pytest.raises(lc.UserError) as caught:
        create_network(name, 3, 3, size, options=options, maps=True)
    assert telling in str(caught.value) and "\n" not in str(caught.value)


def test_a_segmentation_network_is_no_classifier() -> None:
    with pytest.raises(lc.UserError, match=r"unet_small is not a classifier .* shape .1, 3, 64, 64., expected .1, 3.$"):
        create_network("unet_small", 3, 3, 64)
