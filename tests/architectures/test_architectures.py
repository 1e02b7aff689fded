import math
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import create_conv2d
from timm.models import model_entrypoint
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torchvision.models.vgg import cfgs as vgg_widths
from torchvision.models.vgg import make_layers

from lightning_cnn import architectures
from lightning_cnn.architectures.googlenet import AuxiliaryPool
from lightning_cnn.architectures.lenet import ScaledTanh, TableConv2d, TrainablePool
from lightning_cnn.errors import UserError
from lightning_cnn.modules.network import create_network, input_shape
from lightning_cnn.modules.pretrained import Weights

NO_NETWORKS = ("arithmetic", "classifier", "encoder_decoder", "unet")  # the last two classify pixels: test_unet.py
MODULES = [module.name for module in pkgutil.iter_modules(architectures.__path__) if module.name not in NO_NETWORKS]
OURS = [
    name
    for module in MODULES
    for name in timm.list_models(module=module)
    if model_entrypoint(name).__module__ == f"lightning_cnn.architectures.{module}"
]
each_of_ours = pytest.mark.parametrize("name", OURS)
FROZEN = {"edge_net": {"features.conv.weight", "features.conv.bias"}}
LARGE = ("alexnet", "alexnet_cifar", "zfnet", "googlenet_naive")  # more than 20 million parameters


def size(name: str) -> int:
    """Side of the images, or length of the sequences: what a network is made for, or smaller, to save time."""
    return int(min(timm.get_pretrained_cfg(name).input_size[-1], 64))


def device(name: str) -> torch.device:
    """Where a network is made of which the shapes alone count: a large one without its weights."""
    return torch.device("meta" if name in LARGE else "cpu")


def make(name: str, **options: Any) -> Any:
    return timm.create_model(name, img_size=size(name), **options)


def logits(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Of all heads: those of a network with auxiliary ones come as a tuple."""
    return outputs if isinstance(outputs, Tensor) else torch.cat(outputs, dim=1)


def noise(name: str, count: int = 3, channels: int | None = None) -> Tensor:
    shape = input_shape(name, channels or timm.get_pretrained_cfg(name).input_size[0], size(name))
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def counts(network: nn.Module) -> list[int]:
    """Parameters of each layer that has any, in order."""
    layers = [layer for layer in network.modules() if list(layer.parameters(recurse=False))]
    return [sum(parameter.numel() for parameter in layer.parameters(recurse=False)) for layer in layers]


def raises(architecture: str, size: int = 28, pretrained: bool = False, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        create_network(architecture, 10, 1, size, pretrained, options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# every network of ours


def test_every_file_registers_networks() -> None:
    assert {"ffnn", "lenet5", "lenet5_1998"} <= set(OURS)
    for module in MODULES:
        if module in ("grid_detector", "feature_pyramid"):  # no logits: timm's registry is not for them
            continue
        assert hasattr(architectures, module), f"architectures/__init__.py does not import {module}"
        assert any(model_entrypoint(name).__module__.endswith(f".{module}") for name in OURS), module


@each_of_ours
@pytest.mark.parametrize(("channels", "classes"), [(None, None), (2, 7)])
def test_forward(name: str, channels: int | None, classes: int | None) -> None:
    torch.manual_seed(0)
    given = {"in_chans": channels, "num_classes": classes}
    network = make(name, **{option: value for option, value in given.items() if value})
    images = noise(name, channels=channels)
    for training in (False, True):
        outputs = network.train(training)(images)
        if isinstance(outputs, tuple):
            assert training
            outputs, *others = outputs
            assert all(other.shape == outputs.shape for other in others)
        assert outputs.shape == (3, classes or timm.get_pretrained_cfg(name).num_classes)
        assert outputs.isfinite().all()
        # it looks at the image; how much, before training, depends on the depth
        assert (outputs[0] - outputs[1]).abs().max() > 5e-6 * outputs.abs().max()


@each_of_ours
def test_other_image_size(name: str) -> None:
    channels, larger = timm.get_pretrained_cfg(name).input_size[0], size(name) + 12
    with device(name):
        network = create_network(name, 4, channels, larger).eval()
        assert network(torch.zeros(2, *input_shape(name, channels, larger))).shape == (2, 4)


@each_of_ours
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = make(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)  # where a residual block begins as its shortcut, nothing behind it learns yet
    logits(network(noise(name, 8))).square().sum().backward()
    frozen = FROZEN.get(name, set())
    assert {name for name, parameter in network.named_parameters() if parameter.grad is None} == frozen
    for parameter_name, parameter in network.named_parameters():
        if parameter_name in frozen:
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@each_of_ours
def test_weights_saved_and_loaded_give_equal_outputs(name: str) -> None:
    torch.manual_seed(0)
    first, second = make(name).eval(), make(name).eval()
    with torch.no_grad():
        for parameter in first.parameters():  # biases too, which start at zero
            parameter += 0.05 * torch.randn_like(parameter)
    expected = first(noise(name))
    assert not torch.equal(second(noise(name)), expected)
    weights = first.state_dict()
    if name not in LARGE:
        torch.save(weights, "weights.pt")
        weights = torch.load("weights.pt", weights_only=True)
    second.load_state_dict(weights, strict=True)
    assert torch.equal(second(noise(name)), expected)


@each_of_ours
def test_the_methods_of_timm_agree_with_forward(name: str) -> None:
    network = make(name).eval()
    images = noise(name)
    features = network.forward_features(images)
    assert torch.equal(network.forward_head(features), network(images))
    before_head = network.forward_head(features, pre_logits=True)
    assert before_head.shape == (3, network.num_features)
    assert torch.equal(network.get_classifier()(before_head), network(images))
    network.reset_classifier(5)
    assert network.num_classes == 5
    assert network(images).shape == (3, 5)
    assert torch.equal(network.get_classifier()(before_head), network(images))
    network.reset_classifier(0)
    assert network.num_classes == 0
    assert torch.equal(network(images), before_head)


@each_of_ours
def test_without_classes_it_gives_features(name: str) -> None:
    with device(name) as place:
        network = make(name, num_classes=0).eval()
    assert network(noise(name).to(place)).shape == (3, network.num_features)
    assert not list(network.get_classifier().parameters())


@each_of_ours
def test_its_description_for_timm_is_true(name: str) -> None:
    with device(name):
        network = make(name)
    described = timm.get_pretrained_cfg(name)
    heads = [described.classifier] if isinstance(described.classifier, str) else described.classifier
    assert network.get_submodule(heads[0]) is [*network.get_classifier().modules()][-1]
    assert all(network.get_submodule(name).out_features == network.num_classes for name in heads[1:])
    assert network.num_classes == described.num_classes
    if described.first_conv:
        assert network.get_submodule(described.first_conv).in_channels == described.input_size[0]


@pytest.mark.parametrize("name", [name for name in OURS if name not in LARGE])
@pytest.mark.parametrize("average", [None, get_ema_avg_fn(0.9)], ids=["swa", "ema"])
def test_averaging_equal_weights_changes_nothing(name: str, average: Any) -> None:
    torch.manual_seed(0)
    network = make(name).eval()
    averaged = AveragedModel(network, avg_fn=average, use_buffers=True)
    for _ in range(20):
        averaged.update_parameters(network)
    outputs = network(noise(name))
    rounding = 1e-6 * max(1.0, outputs.abs().max().item())  # untrained, deep networks have large outputs
    assert torch.allclose(averaged(noise(name)), outputs, rtol=1e-3, atol=rounding)


# exact counts


@pytest.mark.parametrize(
    ("name", "layers", "total"),
    [
        ("ffnn", [401_920, 262_656, 5_130], 669_706),
        ("lenet5", [156, 2_416, 48_120, 252_084, 850], 303_626),
        # C1, S2, C3, S4, C5, F6, output
        ("lenet5_1998", [156, 12, 1_516, 32, 48_120, 10_164, 850], 60_850),
    ],
)
def test_counts(name: str, layers: list[int], total: int) -> None:
    network = timm.create_model(name)
    assert counts(network) == layers
    assert sum(parameter.numel() for parameter in network.parameters()) == total
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == total
    assert sum(value.numel() for value in network.state_dict().values()) == total  # no running statistics


def test_layers_of_the_ffnn() -> None:
    kinds = [type(layer).__name__ for layer in timm.create_model("ffnn").modules() if not list(layer.children())]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        ("linear", 7_850, 7_850),
        ("mlp_cifar", 3_590_642, 3_590_642),
        ("cnn3", 528_054, 528_054),
        ("alexnet_cifar", 21_591_114, 21_592_330),
        ("alexnet", 60_965_224, 60_965_224),
        ("zfnet", 62_357_608, 62_357_608),
        ("vgg16_book", 15_111_242, 15_111_242),
        ("cifar_fast", 1_971_352, 1_973_800),
        ("resnet20_cifar", 269_722, 271_098),
        ("resnet56_cifar", 853_018, 857_082),
        # timm's
        ("vgg16", 138_357_544, 138_357_544),
        ("vgg19", 143_667_240, 143_667_240),
        ("resnet18", 11_689_512, 11_699_112),
        ("resnet50", 25_557_032, 25_610_152),
        ("densenet121", 7_978_856, 8_062_504),
        ("mobilenetv3_small_100", 2_542_856, 2_554_968),
    ],
)
def test_totals(name: str, trainable: int, total: int) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == trainable
    values = [value for value in network.state_dict().values() if value.is_floating_point()]
    assert sum(value.numel() for value in values) == total


def test_googlenet_in_training_takes_smaller_images_and_pools_as_the_paper_does() -> None:
    network = timm.create_model("googlenet", num_classes=3, img_size=224, auxiliary=True).train()
    for side in (224, 168):
        outputs = network(torch.randn(2, 3, side, side))
        assert [tuple(each.shape) for each in outputs] == [(2, 3)] * 3
    maps = torch.randn(1, 2, 14, 14)
    assert torch.equal(AuxiliaryPool()(maps), torch.nn.functional.avg_pool2d(maps, 5, 3))


@pytest.mark.parametrize(("name", "total"), [("googlenet", 6_998_552), ("googlenet_naive", 97_526_008)])
def test_what_the_small_convolutions_of_googlenet_save(name: str, total: int) -> None:
    with torch.device("meta"):
        network = timm.create_model(name, auxiliary=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == total


def test_the_auxiliary_heads_of_googlenet() -> None:
    torch.manual_seed(0)
    network = timm.create_model("googlenet", num_classes=5)
    # 1x1 convolution, dense layer, output; after the modules 4a (512 maps) and 4d (528 maps)
    widths = {"inception4a": 512, "inception4d": 528}
    for name, head in network.get_submodule("auxiliary").named_children():
        assert counts(head) == [(widths.pop(name) + 1) * 128, (128 * 16 + 1) * 1024, 1025 * 5]
    assert not widths
    images = torch.randn(2, 3, 224, 224)
    maps = {name: network.get_submodule(f"features.{name}") for name in ("inception4a", "inception5b")}
    sides = {}
    for name, module in maps.items():
        module.register_forward_hook(lambda _m, _i, outputs, name=name: sides.update({name: outputs.shape[1:]}))
    assert [outputs.shape for outputs in network(images)] == [(2, 5)] * 3
    assert sides == {"inception4a": (512, 14, 14), "inception5b": (1024, 7, 7)}
    assert network.eval()(images).shape == (2, 5)


def test_weights_of_a_plain_vgg16_fill_the_books_network() -> None:
    torch.manual_seed(0)
    plain = {f"features.{name}": value for name, value in make_layers(vgg_widths["D"]).state_dict().items()}
    plain["head.fc.weight"] = torch.zeros(1000, 4096)
    network = create_network("vgg16_book", 7, 3, 32, weights=Weights("vgg16.pth", plain))
    assert torch.equal(network.get_parameter("features.0.28.weight"), plain["features.28.weight"])
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    del plain["features.28.weight"]
    with pytest.raises(UserError, match=r"^the weights in vgg16.pth do not fit vgg16_book"):
        create_network("vgg16_book", 7, 3, 32, weights=Weights("vgg16.pth", plain))


@pytest.mark.parametrize(("size", "kernel", "stride"), [(32, 2, 1), (32, 3, 2), (32, 5, 1)])
def test_same_padding_is_that_of_keras(size: int, kernel: int, stride: int) -> None:
    layer = create_conv2d(1, 1, kernel, stride=stride, padding="same")
    with torch.no_grad():
        layer.weight.fill_(1.0)
    outputs = layer(torch.ones(1, 1, size, size))[0, 0]
    # how many pixels of a row the kernel sees at each place: what is missing is padding
    seen = (outputs[size // stride // 2] / kernel).round().tolist()
    before = {(2, 1): 0, (3, 2): 0, (5, 1): 2}[kernel, stride]  # Keras puts the odd one behind
    starts = [place * stride - before for place in range(size // stride)]
    assert seen == [min(start + kernel, size) - max(start, 0) for start in starts]


@pytest.mark.parametrize(("options", "rate"), [({}, 0.2), ({"drop_rate": 0.5}, 0.5)])
def test_dropout_of_the_ffnn(options: dict[str, float], rate: float) -> None:
    network = create_network("ffnn", 10, 1, 28, options=options)
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [rate, rate]


def test_layers_of_lenet5() -> None:
    network = timm.create_model("lenet5")
    layers = [layer for layer in network.modules() if not list(layer.children())]
    kinds = [type(layer).__name__ for layer in layers]
    assert " ".join(kinds) == ("Conv2d ReLU AvgPool2d Conv2d Tanh AvgPool2d Conv2d Tanh Flatten Linear Tanh Linear")
    pools = [(layer.kernel_size, layer.stride) for layer in layers if isinstance(layer, nn.AvgPool2d)]
    assert pools == [(2, 1), (2, 2)]  # the book's first pooling has stride 1


@pytest.mark.parametrize("name", ["ffnn", "lenet5"])
def test_keras_initialisation(name: str) -> None:
    torch.manual_seed(0)
    for layer in timm.create_model(name).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            field = layer.weight[0, 0].numel()
            bound = math.sqrt(6 / (field * (layer.weight.shape[0] + layer.weight.shape[1])))
            assert layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert layer.bias is not None
            assert not layer.bias.any()


def test_initialisation_of_the_paper() -> None:
    torch.manual_seed(0)
    network = timm.create_model("lenet5_1998")
    fans = {(6, 1, 5, 5): 25, (120, 16, 5, 5): 400, (84, 120): 120, (10, 84): 84}
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 2.4 / fans.pop(tuple(layer.weight.shape))
            assert 0.9 * bound < layer.weight.abs().max() <= bound
        elif isinstance(layer, TableConv2d):
            assert 0.9 * 2.4 / 75 < layer.weight[:18].abs().max() <= 2.4 / 75  # six maps that see three
            assert 0.9 * 2.4 / 100 < layer.weight[18:54].abs().max() <= 2.4 / 100  # nine that see four
            assert 0.9 * 2.4 / 150 < layer.weight[54:].abs().max() <= 2.4 / 150  # one that sees six
    assert not fans


# the parts of the 1998 network

# LeCun et al. 1998, table I, as printed: a row for each S2 map, a column for each C3 map
TABLE_I = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)


def test_c3_sees_what_the_table_of_the_paper_says() -> None:
    torch.manual_seed(0)
    (c3,) = [layer for layer in timm.create_model("lenet5_1998").modules() if isinstance(layer, TableConv2d)]
    maps = torch.randn(1, 6, 14, 14, requires_grad=True)
    outputs = c3(maps)
    assert outputs.shape == (1, 16, 10, 10)
    for column in range(16):
        (gradient,) = torch.autograd.grad(outputs[0, column].sum(), maps, retain_graph=True)
        seen = gradient[0].abs().amax((1, 2)) > 0
        assert "".join("X" if one else "." for one in seen) == "".join(row[column] for row in TABLE_I)


def test_c3_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer = TableConv2d(3, ((0, 2), (1,)))
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 5, 5))
        layer.bias.copy_(torch.tensor([0.5, -1.0]))
    maps = torch.randn(2, 3, 5, 5)
    first = (maps[:, 0] * layer.weight[0] + maps[:, 2] * layer.weight[1]).sum((1, 2)) + 0.5
    second = (maps[:, 1] * layer.weight[2]).sum((1, 2)) - 1
    assert torch.allclose(layer(maps)[:, :, 0, 0], torch.stack([first, second], 1), atol=1e-5)


def test_scaled_tanh() -> None:
    values = ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0, 100.0, 0.5]))
    assert values.tolist() == pytest.approx([-1, 0, 1, 1.7159, 1.7159 * math.tanh(1 / 3)], abs=1e-4)


def test_trainable_pooling() -> None:
    layer = TrainablePool(2)
    images = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 8]]).expand(1, 2, 2, 4)
    assert layer(images).tolist() == [[[[2.5, 2.0]], [[2.5, 2.0]]]]  # starts as the average
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1))
        layer.bias.copy_(torch.tensor([0.5, 0.0]).view(2, 1, 1))
    assert layer(images).tolist() == [[[[20.5, 16.5]], [[-10.0, -8.0]]]]


# any network by name


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 3, 28),
        ("mobilenetv3_small_100", 1, 32),
        ("vit_tiny_patch16_224", 1, 32),
        ("convnext_atto.d2_in1k", 3, 32),
    ],
)
def test_networks_of_timm(name: str, channels: int, size: int) -> None:
    torch.manual_seed(0)
    network = create_network(name, 7, channels, size)
    assert network.training
    outputs = network(torch.randn(2, channels, size, size))
    assert outputs.shape == (2, 7)
    assert outputs.isfinite().all()
    outputs.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_options_reach_the_network() -> None:
    assert create_network("resnet18", 10, 3, 32, options={"drop_rate": 0.3}).drop_rate == 0.3
    network = create_network("vit_tiny_patch16_224", 10, 3, 32, options={"depth": 1, "patch_size": 8})
    assert len(network.get_submodule("blocks")) == 1  # type: ignore[arg-type]


def test_unknown_name() -> None:
    assert raises("lenet_5").startswith("unknown `model.architecture` 'lenet_5'; did you mean lenet5")
    assert "resnet20_cifar" in raises("resnet20")  # what goes on after it, before what looks like it
    assert "`list_architectures()`" in raises("qqqqqqq")
    assert "did you mean resnet18.tv_in1k" in raises("resnet18.tv_in1")


@pytest.mark.parametrize(
    ("name", "size", "better"),
    [
        ("lenet5", 8, 20),
        ("lenet5_1998", 28, 32),
        ("alexnet", 32, 64),
        ("zfnet", 32, 64),
        ("alexnet_cifar", 24, 28),
        ("googlenet", 16, 32),
        ("vgg16_book", 28, 32),
        ("mixer_s32_224", 28, 32),
        ("xcit_nano_12_p16_224", 28, 32),
    ],
)
def test_too_small_images(name: str, size: int, better: int) -> None:
    message = raises(name, size)
    assert message.startswith(f"images of {size}x{size} don't fit {name} (")
    assert message.endswith(f": try `data.image_size` {better}")
    assert isinstance(create_network(name, 10, 1, better), nn.Module)


def test_options_not_taken() -> None:
    assert "lenet5 does not accept these options" in raises("lenet5", drop_rate=0.1)
    assert "'drop'" in raises("resnet18", drop=0.1)
    assert "ffnn does not accept these options (dropout probability" in raises("ffnn", drop_rate=3.0)
    assert "does not accept these options" in raises("ffnn", drop_rate="high")


@pytest.mark.parametrize(
    ("option", "cure"),
    [("num_classes", "the data"), ("in_chans", "the data"), ("img_size", "the data"), ("pretrained", "`model.pretr")],
)
def test_options_that_are_arguments(option: str, cure: str) -> None:
    with pytest.raises(UserError, match=f"^`model.architecture_options` {option}: .*{cure}"):
        create_network("lenet5", 10, 1, 28, options={option: 3})


def test_no_classifier() -> None:
    assert "expected (1, 10)" in raises("resnet18", features_only=True)


def test_no_pretrained_weights() -> None:
    message = raises("lenet5", pretrained=True)
    assert message == "there are no pre-trained weights for lenet5: remove `model.pretrained`"


OWN = """
from timm.models import register_model
from torch import nn

@register_model
def {name}(pretrained=False, num_classes=10, in_chans=3, width=4, **kwargs):
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(in_chans, width, 3), pool, nn.Flatten(), nn.Linear(width, {outputs}))
"""


@pytest.mark.usefixtures("timm_registry")
def test_own_network_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "first_of_mine.py").write_text(OWN.format(name="first_net", outputs="num_classes"))
    network = create_network("first_of_mine.first_net", 3, 1, 9, options={"width": 2})
    assert counts(network) == [20, 9]
    assert counts(create_network("first_net", 3, 1, 9)) == [40, 15]  # registered from now on


@pytest.mark.usefixtures("timm_registry")
def test_own_network_in_a_package(tmp_path: Path) -> None:
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "nets.py").write_text(OWN.format(name="second_net", outputs="num_classes"))
    assert counts(create_network("package_of_mine.nets.second_net", 3, 1, 9)) == [40, 15]


@pytest.mark.usefixtures("timm_registry")
def test_mistakes_with_own_networks(tmp_path: Path) -> None:
    (tmp_path / "third_of_mine.py").write_text(OWN.format(name="third_net", outputs="99"))
    assert raises("no_such_file.net").endswith("there is no module 'no_such_file'")
    assert "third_of_mine does not @register_model a function 'net'" in raises("third_of_mine.net")
    assert "its output for one image has shape (1, 99), expected (1, 10)" in raises("third_of_mine.third_net")
    # timm has a network of this name, but this one is not it
    assert "does not @register_model a function 'resnet18'" in raises("third_of_mine.resnet18")
