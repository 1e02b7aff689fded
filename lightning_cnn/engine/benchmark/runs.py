"""What runs say about networks: how accurate they became, and on what images. Imports torch only to read a shape."""

import math
import pickle
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.notes import say
from lightning_cnn.tracking.configurations import read_settings
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.settings import Value


@dataclass(frozen=True)
class Shape:
    """What goes into a network and what comes out.

    Attributes:
        image_size: Side of the images in pixels, or length of the windows.
        in_channels: Channels of the images.
        num_classes: Number of classes.
    """

    image_size: int
    in_channels: int
    num_classes: int

    def but(self, typed: "TypedShape") -> "Shape":
        """The shape with what was typed in place of its own."""
        return Shape(*(wanted or own for wanted, own in zip(typed, astuple(self), strict=True)))


TypedShape = tuple[int | None, int | None, int | None]  # image size, channels, classes; None: not typed
IMAGENET = Shape(224, 3, 1000)
# data of which each user has others
OWN_FILES = (
    *("ImageFolder", "ImageTable", "ImageValues", "SegmentationFolder", "RunLengthMasks", "DetectionFolder"),
    "MonthlyReturns",
)


@dataclass(frozen=True)
class Result:
    """How good a network became in a run.

    Attributes:
        architecture: Its name, as asked for.
        data: Class of the data; where it reads files of the user's own, with their name, such as `ImageFolder:pets`.
        run: `<experiment>/<run id>`.
        value: The metric.
        shape: What the run's network was made for; None where no checkpoint says it.
        numbers: How many numbers the state of the run's network has.
    """

    architecture: str
    data: str
    run: str
    value: float
    shape: Shape | None
    numbers: int


def read_results(runs: Sequence[RunFolder], architectures: Sequence[str], metric: str) -> list[Result]:
    """The results of some networks, in the order of the runs.

    Args:
        runs: Where to look.
        architectures: The networks; `resnet18` also finds the runs of `resnet18.a1_in1k`, the same with other weights.
        metric: Which metric; runs without it are left out.
    """
    found = []
    for run in runs:
        value = run.record.metrics.get(metric)
        if not isinstance(value, int | float) or not math.isfinite(value):
            continue
        settings = read_settings(run.folder)
        trained = str(settings.get("model.architecture"))
        for name in architectures:
            if name in (trained, trained.split(".")[0]):
                found.append(Result(name, _data_name(settings), run.label, value, *_network(run)))
    return found


def choose(
    results: Sequence[Result], data: str | None, typed: TypedShape, metric: str
) -> tuple[list[Result], TypedShape]:
    """The results of one data set and one shape, as accuracies on different data can't be compared; notes the others.

    Args:
        results: All results of the networks.
        data: The data set, by `Result.data` or its part before the colon. It also gives the shape that was not typed.
            None takes the data set that all results of the shape have in common; what was not typed is ImageNet's.
        typed: The shape that was typed.
        metric: Name of the metric, for messages.

    Returns:
        The results, and the shape that was typed or is usual.

    Raises:
        UserError: If there is no such data set, its shape is not known, or there are results of several.
    """
    known = sorted({result.data for result in results})
    chosen = [result for result in results if data in (None, result.data, result.data.split(":")[0])]
    if data and not chosen:
        hint = did_you_mean(data, known) or (f"; there are {', '.join(known)}" if known else "")
        raise UserError(
            f"no run of these networks has {metric} on `data` {data}{hint or ': leave it out, and give `image_size`'}"
        )
    if not data:
        typed = astuple(IMAGENET.but(typed))
    shaped = [result for result in chosen if result.shape]
    fitting = [result for result in shaped if result.shape and result.shape.but(typed) == result.shape]
    names = sorted({result.data for result in fitting})
    if len(names) > 1:
        raise UserError(f"there are runs on several data sets, {', '.join(names)}: choose one, as in `data` {names[0]}")
    if unknown := [result.run for result in chosen if result.shape is None]:
        if data and len(unknown) == len(chosen):
            cure = "leave `data` out, and give `image_size`"
            raise UserError(f"the runs on {data} have no checkpoint that records the shape of their images: {cure}")
        say(f"skipped, no checkpoint records the shape of their images: {', '.join(unknown)}", is_warning=True)
    if others := sorted({result.data for result in shaped if result not in fitting}):
        cure = " than you typed" if data else f": `data` {others[0]} measures with those"
        say(f"runs on {', '.join(others)} skipped, with other images or classes{cure}", is_warning=True)
    # where none fits what was typed, the others still say the rest of the shape
    return fitting or shaped, typed


def shape_of(architecture: str, results: Sequence[Result], typed: TypedShape) -> Shape:
    """The shape in which to measure a network: as typed, else as in its best run, else in any's, else ImageNet's."""
    ranked = sorted(results, key=lambda result: (result.architecture == architecture, result.value))
    base = ranked[-1].shape if ranked else None
    return (base or IMAGENET).but(typed)


def best_result(
    results: Sequence[Result], architecture: str, shape: Shape, numbers: int
) -> tuple[Result | None, list[Result]]:
    """The best result of a network, and those that are another's of the same name, by the size of their state."""
    own = [result for result in results if result.architecture == architecture and result.shape == shape]
    strangers = [result for result in own if result.numbers != numbers]
    same = [result for result in own if result not in strangers]
    return max(same, key=lambda result: result.value, default=None), strangers


def _data_name(settings: dict[str, Value]) -> str:
    name = str(settings.get("data"))
    files = next((settings[key] for key in ("data.root", "data.prices", "data.returns") if settings.get(key)), None)
    return f"{name}:{Path(str(files)).name}" if name in OWN_FILES and files else name


def _network(run: RunFolder) -> tuple[Shape | None, int]:
    """The shape and the size of its network, by the checkpoint: the configuration has only what was typed."""
    import torch

    for name in (str(run.record.best.get("checkpoint")), "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        try:  # mmap: the weights stay on the disk
            content: Any = torch.load(run.folder / name, map_location="cpu", weights_only=True, mmap=True)
            arguments = content["hyper_parameters"]
            size = arguments["window_length" if "window_length" in arguments else "image_size"]
            shape = Shape(int(size), *(int(arguments[key]) for key in ("in_channels", "num_classes")))
            state = content["state_dict"].items()
            return shape, sum(value.numel() for key, value in state if key.startswith("network."))
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError):
            continue
    return None, 0
