"""The networks for monthly returns: their sizes, and what each of their values sees."""

from typing import Any, cast

import pytest
import timm
import torch
from torch import Tensor, nn

from lightning_cnn.architectures.returns import ConvReLUPool1d  # and so registers them

JANUARY = 24  # the column behind the oldest of 24 lags


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("returns_cnn", {}, 673),
        ("returns_cnn", {"head_relu": True}, 673),
        ("returns_cnn", {"img_size": 24}, 481),
        ("returns_cnn_split", {}, 493),
        ("returns_tcn", {}, 4_045),
        ("returns_resnet", {}, 8_989),
        ("returns_picture", {}, 55_041),
        ("returns_ffnn", {}, 7_105),
        ("returns_ffnn", {"img_size": 36}, 6_593),
    ],
)
def test_parameters(name: str, options: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in timm.create_model(name, **options).parameters()) == count


@pytest.mark.parametrize(("channels", "length", "kernel"), [(1, 36, 3), (2, 25, 3), (3, 24, 4), (1, 3, 2)])
def test_convolution_and_pooling_in_one_are_those_of_torch(channels: int, length: int, kernel: int) -> None:
    torch.manual_seed(0)
    ours = ConvReLUPool1d(channels, 8, kernel)
    plain = nn.Sequential(nn.Conv1d(channels, 8, kernel), nn.ReLU(), nn.MaxPool1d(2))
    plain[0].load_state_dict(ours.state_dict())
    x = torch.randn(50, channels, length)
    x[:10] = 0.5  # neighbours are equal
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    results = ours(inputs[0]), plain(inputs[1]).movedim(1, 2)
    assert (results[0] == 0).any() and (results[0] > 0).any()
    weights = torch.randn(results[0].shape)
    torch.testing.assert_close(*results)
    for result in results:
        (result * weights).sum().backward()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


def test_the_whole_is_the_books_network() -> None:
    """But for the order of the features, by position first, as where the book flattens them."""
    network = timm.create_model("returns_cnn")
    plain = nn.Sequential(nn.Conv1d(1, 32, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(544, 1))
    state = network.state_dict()
    state["head.weight"] = state["head.weight"].view(1, 17, 32).transpose(1, 2).reshape(1, 544)
    plain.load_state_dict(dict(zip(plain.state_dict(), state.values(), strict=True)))
    windows = torch.randn(50, 1, 36)
    torch.testing.assert_close(network(windows), plain(windows))


def test_of_two_equal_neighbours_the_first_gets_the_gradient() -> None:
    """1 + 2 and 2 + 1 are equal, and the gradient tells which of the two was taken."""
    gradients = []
    for network in (ConvReLUPool1d(1, 1, 2), nn.Sequential(nn.Conv1d(1, 1, 2), nn.ReLU(), nn.MaxPool1d(2))):
        for parameter in network.parameters():
            nn.init.ones_(parameter)
        network(torch.tensor([[[1.0, 2.0, 1.0]]])).sum().backward()
        gradients.append([cast(Tensor, parameter.grad).flatten().tolist() for parameter in network.parameters()])
    assert gradients == [[[1, 2], [1]]] * 2


def test_flaw_a_the_books_relu_before_the_sigmoid() -> None:
    """With it no probability lies below one half, and an output that is negative for all windows never learns again."""
    windows = torch.randn(200, 1, 36, generator=torch.Generator().manual_seed(0))
    outcomes = torch.zeros(200, 1)  # all fall
    lowest, gradient, after = {}, {}, {}
    for relu in (True, False):
        torch.manual_seed(0)
        network = timm.create_model("returns_cnn", head_relu=relu)
        lowest[relu] = float(network(windows).sigmoid().min().detach())
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        for _ in range(40):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(windows), outcomes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        gradient[relu] = max(float(parameter.grad.abs().max()) for parameter in network.parameters())
        after[relu] = float(network(windows).sigmoid().mean().detach())
    assert lowest[True] == 0.5 and lowest[False] < 0.45
    assert after[True] == 0.5 and gradient[True] == 0  # it is dead, and still says one half
    assert after[False] < 0.05 and gradient[False] > 0


def test_flaw_g_the_kernel_slides_over_the_border() -> None:
    """Of the book's network some values see the oldest return and January's dummy at once; apart, none does."""
    mixed = {}
    for name in ("returns_cnn", "returns_cnn_split"):
        torch.manual_seed(1)
        network = timm.create_model(name)
        windows = torch.randn(64, 1, 36)
        seen = []
        for column in range(36):
            other = windows.clone()
            other[..., column] += 3
            seen.append((network.forward_features(windows) != network.forward_features(other)).any(0))
        both = torch.stack(seen[:JANUARY]).any(0) & torch.stack(seen[JANUARY:]).any(0)
        mixed[name] = int(both.sum())
    assert mixed == {"returns_cnn": 32, "returns_cnn_split": 0}  # one place of the pooling, in each of 32 filters


def test_the_causal_network_goes_through_the_months_and_sees_no_later_one() -> None:
    network = timm.create_model("returns_tcn").eval()
    blocks = network.features.layers.layers
    months = torch.randn(1, 1, 24)  # the oldest first
    for changed in (0, 11, 23):
        other = months.clone()
        other[..., changed] += 1
        differs = (blocks(months) != blocks(other)).any(1)[0]
        assert not differs[:changed].any() and differs[changed]
    assert (blocks(months) != blocks(months + torch.eye(24)[0]))[..., -1].any()  # the latest month sees the oldest
