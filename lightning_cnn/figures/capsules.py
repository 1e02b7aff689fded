"""Figures of capsule networks: reconstructions, and what each value of a capsule changes."""

from collections.abc import Callable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_cnn.figures.images import image_grid

CHANGES = tuple(step / 20 for step in range(-5, 6))  # Sabour et al. 2017, figure 4
Decoder = Callable[[Tensor, Tensor], Tensor]


def reconstructions(
    images: Tensor, capsules: Tensor, chosen: Tensor, decoder: Decoder, class_names: Sequence[str]
) -> Figure:
    """Each image, and beside it what is reconstructed from each of its capsules alone.

    Args:
        images: Float, 0 to 1, `(n, channels, height, width)`.
        capsules: Of these images, `(n, classes, dim)`.
        chosen: 1 for each class that an image is said to show, `(n, classes)`; of each image as many, at least one.
        decoder: Maps capsules and what counts of them to images.
        class_names: Names of the classes.
    """
    shown = int(chosen.sum(1).max())
    places = chosen.topk(max(1, shown), dim=1).indices
    each, titles = [images], [["image"] * len(images)]
    for place in places.unbind(1):
        one = torch.nn.functional.one_hot(place, chosen.shape[1])
        each.append(decoder(capsules, one * chosen))
        titles.append([class_names[number] for number in place.tolist()])
    together = len(each)
    grid = torch.stack([part.to(images.device) for part in each], 1).flatten(0, 1)
    flat = [title for row in zip(*titles, strict=True) for title in row]
    return image_grid(grid, flat, columns=together * max(1, 8 // together), together=together)


def dimensions(capsules: Tensor, chosen: Tensor, decoder: Decoder) -> Figure:
    """An image reconstructed with each value of its capsule changed by -0.25 to 0.25, a row for each value.

    Args:
        capsules: Of the image, `(classes, dim)`.
        chosen: 1 for the class whose capsule is changed, `(classes,)`.
        decoder: Maps capsules and what counts of them to images.
    """
    dim = capsules.shape[1]
    steps = capsules.new_tensor(CHANGES)
    changed = capsules + torch.eye(dim, device=capsules.device)[:, None, None] * steps[:, None, None]
    flat = changed.flatten(0, 1)
    images = decoder(flat, chosen.expand(len(flat), -1))
    first = [f"{step:+.2f}" for step in CHANGES]
    titles = [f"value 1: {first[0]}", *first[1:]]
    for row in range(2, dim + 1):
        titles += [f"value {row}"] + [""] * (len(CHANGES) - 1)
    return image_grid(images, titles, columns=len(CHANGES))
