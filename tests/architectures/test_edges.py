"""The hand-made edge filters."""

import timm
import torch
from torch import nn

from lightning_cnn.architectures.edges import edge_filters


def test_the_filters() -> None:
    right, left, down, up = edge_filters()
    assert right.tolist() == [[-1, -1, 1, 1]] * 4
    assert torch.equal(left, -right) and torch.equal(down, right.T) and torch.equal(up, -right.T)
    network = timm.create_model("edge_net")
    assert torch.equal(network.features.conv.weight[:, 0], edge_filters())
    assert not any(parameter.requires_grad for parameter in network.features.parameters())
    assert sum(parameter.numel() for parameter in nn.Conv2d(1, 1, 4).parameters()) == 17
    assert sum(parameter.numel() for parameter in network.features.parameters()) == 4 * 17
    assert sum(parameter.numel() for parameter in network.parameters()) == 718


def test_each_filter_answers_to_its_edge() -> None:
    image = torch.zeros(1, 1, 28, 28)
    image[..., 14:] = 1  # dark on the left, bright on the right
    edges = [image, 1 - image, image.mT, 1 - image.mT]
    network = timm.create_model("edge_net")
    for number, edge in enumerate(edges):
        maps = network.features.relu(network.features.conv(edge))[0]
        assert maps.amax((1, 2)).tolist() == [8.0 if each == number else 0.0 for each in range(4)]
        where = maps[number].nonzero()[:, 1 - number // 2]
        assert where.unique().tolist() == [11, 12, 13]  # of the places of the kernel those across the edge
        assert maps[number].max(1 - number // 2 if number < 2 else 0).indices.unique().tolist() == [12]


def test_a_color_image_is_seen_in_gray() -> None:
    torch.manual_seed(0)
    gray = torch.rand(2, 1, 28, 28)
    maps = timm.create_model("edge_net").features.conv(gray)
    in_color = timm.create_model("edge_net", in_chans=3).features.conv(gray.expand(-1, 3, -1, -1))
    assert torch.allclose(maps, in_color, atol=1e-5)
