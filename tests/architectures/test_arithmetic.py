"""Convolution arithmetic against torch's layers, scipy, and brute force."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from scipy import signal  # type: ignore[import-untyped]
from timm.layers import create_conv2d
from torch import Tensor, nn

from lightning_cnn.architectures.arithmetic import ReceptiveField, convolve, cost, output_size, receptive_field


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_sizes_of_convolutions_and_poolings(ceil_mode: bool) -> None:
    sides = itertools.product(range(1, 12), range(1, 5), range(1, 4), range(3), range(1, 4))
    refused = 0
    for size, kernel, stride, padding, dilation in sides:
        options: Any = {"stride": stride, "padding": padding, "dilation": dilation}
        if ceil_mode:
            if padding > kernel // 2:  # torch refuses it
                continue
            layer: nn.Module = nn.MaxPool1d(kernel, **options, ceil_mode=True)
        else:
            layer = nn.Conv1d(1, 1, kernel, **options)
        reach = dilation * (kernel - 1) + 1
        if reach > size + 2 * padding + (stride - 1) * ceil_mode:
            with pytest.raises(ValueError, match=f"^a kernel that spans {reach} pixels is larger than an image of"):
                output_size(size, kernel, **options, ceil_mode=ceil_mode)
            with pytest.raises(RuntimeError):
                layer(torch.zeros(1, 1, size))
            refused += 1
            continue
        found = output_size(size, kernel, **options, ceil_mode=ceil_mode)
        assert found == layer(torch.zeros(1, 1, size)).shape[-1], (size, kernel, options)
    assert refused > 20


def test_kinds_of_padding() -> None:
    for size, kernel, stride, dilation in itertools.product((7, 8, 13), (1, 2, 3, 5), (1, 2, 3), (1, 2)):
        image, reach = torch.zeros(1, 1, size, size), dilation * (kernel - 1) + 1
        same = create_conv2d(1, 1, kernel, stride=stride, dilation=dilation, padding="same")
        assert output_size(size, kernel, stride, "same", dilation) == same(image).shape[-1]
        full = nn.Conv2d(1, 1, kernel, stride, reach - 1, dilation)
        assert output_size(size, kernel, stride, "full", dilation) == full(image).shape[-1]
        assert output_size(size, kernel, 1, "full", dilation) == size + reach - 1
        if reach <= size:
            valid = nn.Conv2d(1, 1, kernel, stride, "valid", dilation)
            assert output_size(size, kernel, stride, "valid", dilation) == valid(image).shape[-1]
    with pytest.raises(ValueError, match="expected a number, 'valid', 'same' or 'full'"):
        output_size(8, 3, padding="some")  # type: ignore[arg-type]


def test_a_transposed_convolution_returns_to_the_size() -> None:
    for size, kernel, stride, padding, dilation in itertools.product((9, 16), (1, 3, 4), (1, 2), (0, 1), (1, 2)):
        layer = nn.ConvTranspose1d(1, 1, kernel, stride, padding, dilation=dilation)
        larger = layer(torch.zeros(1, 1, size)).shape[-1]
        assert output_size(larger, kernel, stride, padding, dilation) == size


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("kernel", [(3, 3), (4, 4), (1, 2), (5, 2)])
def test_convolution_is_that_of_scipy(mode: Any, kernel: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images, filters = torch.randn(2, 3, 9, 8, dtype=torch.float64), torch.randn(4, 3, *kernel, dtype=torch.float64)
    found = convolve(images, filters, mode)
    for image, number in itertools.product(range(2), range(4)):
        planes = zip(images[image].numpy(), filters[number].numpy(), strict=True)
        expected = sum(signal.convolve2d(plane, each, mode) for plane, each in planes)
        assert torch.allclose(found[image, number], torch.from_numpy(expected))


def test_torch_computes_the_cross_correlation() -> None:
    torch.manual_seed(0)
    image, kernel = torch.randn(9, 8, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    found = nn.functional.conv2d(image[None, None], kernel[None, None])[0, 0]
    assert torch.allclose(found, torch.from_numpy(signal.correlate2d(image, kernel, "valid")))
    assert not torch.allclose(found, convolve(image[None, None], kernel[None, None])[0, 0])
    even = kernel + kernel.flip(0, 1)  # turned it is the same
    found = nn.functional.conv2d(image[None, None], even[None, None])
    assert torch.allclose(found, convolve(image[None, None], even[None, None]))


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_convolution_of_sequences(mode: Any) -> None:
    torch.manual_seed(0)
    values, kernel = torch.randn(20, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    found = convolve(values[None, None], kernel[None, None], mode)[0, 0]
    assert torch.allclose(found, torch.from_numpy(signal.convolve(values, kernel, mode)))


def test_cost_of_a_convolution() -> None:
    for before, after, kernel, stride, groups in itertools.product((2, 4), (4, 8), (1, 3, 5), (1, 2), (1, 2)):
        side = output_size(20, kernel, stride)
        layer = nn.Conv2d(before, after, kernel, stride, groups=groups)
        found = cost(layer, (before, 20, 20))
        weights = kernel**2 * before // groups * after
        assert (found.parameters, found.multiply_adds) == (weights + after, weights * side**2)
        assert layer.training
    assert cost(nn.Conv2d(3, 5, 2, bias=False), (3, 4, 4)).parameters == 60
    assert cost(nn.Conv1d(3, 5, 2), (3, 4)).multiply_adds == 3 * 5 * 2 * 3
    assert cost(nn.MaxPool2d(2), (3, 4, 4)).parameters == 0


def test_two_small_convolutions_against_a_large_one() -> None:
    two = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.Conv2d(64, 64, 3, padding=1, bias=False))
    large = nn.Conv2d(64, 64, 5, padding=2, bias=False)
    small_cost, large_cost = cost(two, (64, 32, 32)), cost(large, (64, 32, 32))
    assert small_cost.parameters * 25 == large_cost.parameters * 18
    assert small_cost.multiply_adds * 25 == large_cost.multiply_adds * 18
    fields = [receptive_field(nn.Sequential(*layers), str(len(layers) - 1), (64, 20, 20)) for layers in (two, [large])]
    assert fields == [ReceptiveField(5, 1, -2)] * 2


def test_one_by_one_reduces_the_channels() -> None:
    """Inception 4a of GoogLeNet: 5x5 convolutions to 48 maps after 1x1 ones to 16."""
    reduced = nn.Sequential(nn.Conv2d(480, 16, 1, bias=False), nn.Conv2d(16, 48, 5, padding=2, bias=False))
    direct = nn.Conv2d(480, 48, 5, padding=2, bias=False)
    assert cost(reduced, (480, 14, 14)).multiply_adds == 14 * 14 * (480 * 16 + 16 * 48 * 25) == 5_268_480
    assert cost(direct, (480, 14, 14)).multiply_adds == 14 * 14 * 480 * 48 * 25 == 112_896_000


def test_dense_against_convolution_on_an_image_of_640x480() -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(640 * 480 * 3, 64, device="meta"))
    convolution = nn.Conv2d(3, 64, 3, padding=1, device="meta")
    found = cost(dense, (3, 480, 640))
    assert (found.parameters, found.multiply_adds) == (58_982_464, 58_982_400)
    found = cost(convolution, (3, 480, 640))
    assert (found.parameters, found.multiply_adds) == (1_792, 1_728 * 640 * 480)


# receptive fields


def by_brute_force(network: nn.Module, layer: str, shape: tuple[int, ...]) -> ReceptiveField:
    """Changes row after row of the image, and looks where the layer answers."""
    torch.manual_seed(1)
    network = network.double().eval()
    with torch.no_grad():
        for weights in network.parameters():  # positive: no rectifier is closed, nothing cancels
            scale = weights[0].numel() if weights.ndim > 1 else 1
            weights.uniform_(0.1 / scale, 1 / scale)
    found: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, outputs: found.append(outputs))
    with torch.no_grad():
        image = torch.rand(1, *shape, dtype=torch.float64)
        changed = image.repeat(shape[1], *[1] * len(shape))
        rows = torch.arange(shape[1])
        changed[rows, :, rows] += 1000
        network(image)
        network(changed)
    handle.remove()
    depends = (found[1] != found[0]).transpose(1, 2).flatten(2).any(2)  # (rows of the image, rows of the map)
    middle = (depends.shape[1] - 1) // 2
    fields = [depends[:, place].nonzero().flatten().tolist() for place in (middle, middle + 1)]
    stride = fields[1][0] - fields[0][0]
    return ReceptiveField(fields[0][-1] - fields[0][0] + 1, stride, fields[0][0] - middle * stride)


def chains() -> Iterator[Any]:
    convolution, pool, average = nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d
    yield "two_3x3", [convolution(1, 4, 3), nn.ReLU(), convolution(4, 4, 3)]
    yield "strides", [convolution(1, 4, 3, 2, 1), nn.ReLU(), convolution(4, 4, 3, 2, 1), convolution(4, 4, 3)]
    yield "dilated", [convolution(1, 4, 3, dilation=2), nn.Tanh(), convolution(4, 4, 3, dilation=4, padding=4)]
    yield "pools", [convolution(1, 4, 5), pool(2), nn.ReLU(), convolution(4, 4, 5), average(2)]
    yield "sequence", [nn.Conv1d(1, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 2, 5, padding=2)]
    yield "even", [convolution(1, 4, 4, 2, 1), nn.ReLU(), pool(3, 2, 1), convolution(4, 4, 2)]


@pytest.mark.parametrize(("_name", "layers"), chains(), ids=lambda value: value if isinstance(value, str) else "")
def test_receptive_field_of_a_chain(_name: str, layers: list[nn.Module]) -> None:
    network, shape = nn.Sequential(*layers), (1, 64, 64) if isinstance(layers[0], nn.Conv2d) else (1, 64)
    size, stride, offset = 1, 1, 0  # Araujo, Norris and Sim 2019, equations 2 and 3, from the first layer to the last
    for number, layer in enumerate(layers):
        if hasattr(layer, "kernel_size"):
            sides: Any = (
                values[0] if isinstance(values, tuple) else values
                for values in (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
            )
            kernel, step, padding, dilation = sides
            size += dilation * (kernel - 1) * stride
            offset -= padding * stride
            stride *= step
        found = receptive_field(network, str(number), shape)
        assert found == by_brute_force(network, str(number), shape)
        assert found == ReceptiveField(size, stride, offset)


@pytest.mark.parametrize(
    ("name", "layer", "shape", "size", "stride", "offset"),
    [
        ("lenet5", "features.0.2", (1, 28, 28), 6, 1, 0),
        ("lenet5", "features.0.7", (1, 28, 28), 19, 2, 0),
        ("resnet20_cifar", "features.5", (3, 64, 32), 15, 1, -7),
        ("resnet18", "layer2", (3, 200, 32), 99, 8, -49),
        ("convnext_atto", "stages.0", (3, 128, 32), 52, 4, -24),  # 4x4 patches, and two 7x7 convolutions
        # Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks" (2019), table 1
        ("vgg16_book", "features.0.23", (3, 160, 32), 100, 16, -42),
        ("alexnet", "features.0.14", (3, 300, 64), 195, 32, None),
    ],
)
def test_receptive_fields_of_networks(
    name: str, layer: str, shape: tuple[int, ...], size: int, stride: int, offset: int | None
) -> None:
    network = timm.create_model(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = receptive_field(network, layer, shape)
    assert found == ReceptiveField(size, stride, found.offset if offset is None else offset)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("resnet20_cifar", "features.6", (3, 48, 32)),
        ("cifar_fast", "features.2.convolutions.0", (3, 48, 32)),
        ("lenet5", "features.0.3", (1, 28, 28)),
    ],
)
def test_receptive_field_is_that_of_brute_force(name: str, layer: str, shape: tuple[int, ...]) -> None:
    network = timm.create_model(name)
    found = receptive_field(network, layer, shape)
    assert found == by_brute_force(network, layer, shape) and found.size > 2


@pytest.mark.parametrize(
    ("name", "layer", "telling"),
    [
        ("resnet20_cifar", "features.9", "the receptive field of features.9 reaches the border of images of 32 pixels"),
        ("mobilenetv3_small_050", "blocks.0", "of blocks.0 reaches the border"),  # its attention sees the whole image
        ("edge_net", "head", r"head returns \(10,\), no maps"),
    ],
)
def test_receptive_fields_that_cannot_be_seen(name: str, layer: str, telling: str) -> None:
    channels = timm.get_pretrained_cfg(name).input_size[0]
    with pytest.raises(ValueError, match=telling):
        receptive_field(timm.create_model(name), layer, (channels, 32, 32))
