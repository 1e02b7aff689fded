"""`filters`: the filters of a trained network, its maps of an image, and the images that its filters look for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cnn.config.checkpoint import read_checkpoint
from lightning_cnn.datamodules.images.image_files import find_images
from lightning_cnn.datamodules.images.photo import Photo
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.figure_file import check_figure, write_figure
from lightning_cnn.engine.loading import load, model_in
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.seen import Ascent, activation_maps, convolutions, layer_named, maps_of_layers, wanted_images
from lightning_cnn.engine.source import Source, Weights, checkpoint_of
from lightning_cnn.errors import UserError, check, check_choice
from lightning_cnn.figures import filters as figures
from lightning_cnn.resume.checkpoint_file import preprocessing_of
from lightning_cnn.user_code import find_user_code

ROWS, COLUMNS = 12, 8  # layers in the figure of all layers, and maps of each
FEWEST = 4  # maps of a layer in that figure: the last one of a segmentation has one for each class


@dataclass(frozen=True)
class Seen:
    """A figure of filters that was written.

    Attributes:
        path: The figure.
        layers: The layers in it.
        filters: Numbers of the filters in it, in their order; of all layers the same.
        activations: With `maximize`, the mean activation of each of these filters by its image.
        seed: With `maximize`, the seed of the noise.
    """

    path: Path
    layers: tuple[str, ...]
    filters: tuple[int, ...]
    activations: tuple[float, ...] = ()
    seed: int | None = None


def filters(
    source: Source,
    *,
    layer: str | None = None,
    image: Photo | None = None,
    maximize: bool = False,
    count: int = 64,
    first: int = 200,
    size: int = 128,
    steps: int = 20,
    step_size: float = 1.0,
    seed: int = 0,
    output: str | Path = "filters.png",
    accelerator: Literal["auto", "cpu"] = "auto",
    trust: Sequence[str] = (),
) -> Seen:
    """Draws the filters of a network, its activation maps of an image, or the images that its filters look for.

    Args:
        source: A run, its folder, the path of a checkpoint, or `Weights`.
        layer: Name of the layer (default: the first convolution; with `image` up to twelve, with `maximize` the last).
        image: Image whose activation maps are drawn.
        maximize: Draw images that maximize the mean activation of a filter each, the strongest first.
        count: Largest number of filters in the figure.
        first: With `maximize`, the number of filters of the layer that are tried.
        size: With `maximize`, the side of the images in pixels.
        steps: With `maximize`, the steps of the gradient ascent.
        step_size: With `maximize`, the change of a step, in pixels of 0 to 255.
        seed: With `maximize`, the seed of the noise that the images begin with.
        output: The figure to write.
        accelerator: What to compute on.
        trust: Modules that a checkpoint from outside your runs directories may import, which runs their code.

    Raises:
        UserError: If the network can't be had or has no such layer, or the figure can't be written.
    """
    if image is not None and maximize:
        raise UserError("`image` shows activation maps, `maximize` needs no image: remove one of them")
    for field, value in {"count": count, "first": first, "size": size, "steps": steps}.items():
        check(field, value, least=1)
    check("step_size", step_size, above=0)
    check("seed", seed, least=0)
    check_choice("accelerator", accelerator, ("auto", "cpu"))
    be_quiet()
    path = check_figure(output)
    photo = None if image is None else _only(image)
    network, preprocessing = _network(source, trust)
    device = torch.device("cuda" if accelerator == "auto" and torch.cuda.is_available() else "cpu")
    network.to(device)
    known = convolutions(network)
    chosen = None if layer is None else layer_named(network, layer)
    if photo is None and not maximize:
        name = layer or next(iter(known))
        return _weights(path, name, chosen or known[name], count)
    if preprocessing is None:
        raise UserError("the network was not trained on images: remove `image` and `maximize`, to draw its filters")
    if maximize:
        name = layer or [*known][-1]
        recipe = Ascent(size, steps, step_size, seed)
        return _wanted(path, network, name, preprocessing, first, count, recipe)
    scaled = preprocessing.scale(preprocessing.read(photo).float() / 255)[None].to(device)  # type: ignore[arg-type]
    return _maps(path, network, layer, scaled, count)


def _only(image: Photo) -> object:
    found = find_images(image)
    if len(found) > 1:
        raise UserError(f"`image` {image} holds {len(found)} images: name one")
    return found[0][1]


def _network(source: Source, trust: Sequence[str]) -> tuple[nn.Module, Preprocessing | None]:
    """The network, and how its images are prepared; None where it takes none."""
    found = checkpoint_of(source)
    preprocessing = None
    if not isinstance(found, Weights) and preprocessing_of(checkpoint := read_checkpoint(found)) is None:
        find_user_code(*trust)
        model = model_in(checkpoint).eval()
    else:
        model, preprocessing = load(found, trust)
    network = getattr(model, "network", model)
    assert isinstance(network, nn.Module)
    return network, preprocessing


def _weights(path: Path, name: str, layer: nn.Module, count: int) -> Seen:
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        raise UserError(f"`layer` {name} is no convolution ({type(layer).__name__}): add `image` to draw its maps")
    weights = layer.weight.detach().cpu()[: min(count, figures.drawable(layer.weight))]
    write_figure(figures.filter_grid(weights), path)
    return Seen(path, (name,), tuple(range(len(weights))))


@torch.no_grad()
def _maps(path: Path, network: nn.Module, name: str | None, image: Tensor, count: int) -> Seen:
    if name is not None:
        maps = {name: activation_maps(network, layer_named(network, name), image)[0, :count].cpu()}
        columns = COLUMNS
    else:
        known = [*convolutions(network).items()]
        places = torch.linspace(0, len(known) - 1, min(ROWS, len(known))).round().int().tolist()
        maps = maps_of_layers(network, dict(known[place] for place in places), image)
        maps = {name: each for name, each in maps.items() if len(each) >= FEWEST} or maps
        columns = min(COLUMNS, count, *(len(each) for each in maps.values()))
        maps = {name: each[:columns] for name, each in maps.items()}
    write_figure(figures.map_grid(maps, columns), path)
    return Seen(path, tuple(maps), tuple(range(min(len(each) for each in maps.values()))))


def _wanted(
    path: Path, network: nn.Module, name: str, preprocessing: Preprocessing, first: int, count: int, ascent: Ascent
) -> Seen:
    layer, channels = layer_named(network, name), preprocessing.in_channels
    images, activations = wanted_images(network, layer, preprocessing.scale, channels, first, ascent)
    strongest = activations.argsort(descending=True, stable=True)[:count]
    numbers, values = tuple(strongest.tolist()), tuple(activations[strongest].tolist())
    title = f"{name}: the {len(numbers)} strongest of {len(images)} filters, {ascent.steps} steps, seed {ascent.seed}"
    write_figure(figures.wanted_grid(images[strongest], numbers, values), path, title)
    return Seen(path, (name,), numbers, values, ascent.seed)
