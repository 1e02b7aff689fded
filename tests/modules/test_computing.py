"""Which networks are compiled, and in which memory format they are computed."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import lightning_cnn.architectures  # noqa: F401  registers ours
from lightning_cnn.modules import computing
from lightning_cnn.modules.computing import Computing, best_computing, is_faster_in_bfloat16

MNIST_IMAGES = 48_000


def made(name: str, channels: int = 3, side: int = 32) -> tuple[nn.Module, Tensor]:
    """A network and an input of it."""
    return timm.create_model(name, in_chans=channels, num_classes=10), torch.zeros(1, channels, side, side)


@pytest.fixture(autouse=True)
def two_threads_and_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(computing, "_has_compiler", lambda: True)


def test_only_a_long_training_is_worth_compiling() -> None:
    network, example = made("lenet5", 1, 28)
    short, long = (best_computing(network, example, epochs * MNIST_IMAGES, "cpu") for epochs in (2, 50))
    assert short == Computing(False, True, short.why) and long == Computing(True, True, long.why)
    assert "compiling takes about 13 s, and saves about 3 s" in short.why


@pytest.mark.parametrize("name", ["cnn3", "alexnet_cifar", "resnet18", "vgg16_book"])
def test_dropout_and_max_pooling_are_slower_when_compiled(name: str) -> None:
    found = best_computing(*made(name), 1e9, "cpu")
    assert (found.compile, found.channels_last) == (False, True) and "slower when compiled" in found.why


def test_a_network_of_batch_normalization_and_relu_gains_little() -> None:
    network, example = made("resnet20_cifar")
    assert not best_computing(network, example, 4 * 40_000, "cpu").compile
    assert best_computing(network, example, 200 * 40_000, "cpu").compile


def test_more_threads_leave_less_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    network, example = made("lenet5", 1, 28)
    assert best_computing(network, example, 12 * MNIST_IMAGES, "cpu").compile
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert not best_computing(network, example, 12 * MNIST_IMAGES, "cpu").compile


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "_has_compiler", lambda: False)
    found = best_computing(*made("lenet5", 1, 28), 1e9, "cpu")
    assert (found.compile, found.channels_last) == (False, True) and "no C++ compiler" in found.why


class Views(nn.Module):
    """Flattens by `view`, which needs images with the channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.convolution(images)
        return found.view(len(images), -1)


@pytest.mark.parametrize(
    ("network", "example", "device"),
    [
        (Views(), torch.zeros(1, 3, 8, 8), "cpu"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.zeros(1, 3, 2, 2), "cpu"),
        (nn.Conv1d(1, 2, 3), torch.zeros(1, 1, 9), "cpu"),
        (nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8), "cuda"),
    ],
)
def test_what_stays_as_it_is(network: nn.Module, example: Tensor, device: str) -> None:
    found = best_computing(network, example, 1e12, device)
    assert (found.compile, found.channels_last) == (False, False)


def test_a_network_that_cannot_be_copied_stays_as_it_is() -> None:
    network = nn.Conv2d(3, 4, 3)
    network.scale = network.weight.sum()  # type: ignore[assignment]  # no leaf, which torch does not copy
    assert not best_computing(network, torch.zeros(1, 3, 8, 8), 1e12, "cpu").channels_last


def test_a_training_without_an_end() -> None:
    found = best_computing(*made("lenet5", 1, 28), float("inf"), "cpu")
    assert found.compile and found.why.endswith("saves more, as the training has no end")


def test_looking_changes_nothing() -> None:
    network, example = made("cifar_fast")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    best_computing(network, example, 1e9, "cpu")
    is_faster_in_bfloat16(network, example, 1e9, "cpu")
    assert torch.equal(state, torch.get_rng_state()) and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("able", "images", "device", "expected"),
    [
        ({"avx512_bf16": True}, 1e7, "cpu", True),
        ({"amx_bf16": True}, 1e7, "cpu", True),
        ({"avx2": True}, 1e7, "cpu", False),
        ({"avx512_bf16": True}, 1e4, "cpu", False),
        ({"avx512_bf16": True}, float("inf"), "cpu", False),
        ({"avx512_bf16": True}, 1e7, "cuda", False),
    ],
)
def test_bfloat16(
    able: dict[str, Any], images: float, device: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert is_faster_in_bfloat16(*made("lenet5", 1, 28), images, device) is expected
