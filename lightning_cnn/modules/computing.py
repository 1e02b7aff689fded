"""How a network is best computed: whether compiling it is worth while, and in which memory format."""

import math
import os
import shutil
import sysconfig
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# what experiments/benchmarks/computing.py measured on two cores: seconds that compiling takes, and what it saves
COMPILING, COMPILING_OPERATION = 10.0, 0.2
SAVED, SAVED_POINTWISE = 0.08e-9, 2.5e-9  # for each number that an operation puts out, with two threads
THREADS = 2
# pointwise functions and pooling, which compiling joins to loops that use the processor's vectors
POINTWISE = frozenset(
    (
        *("tanh", "sigmoid", "gelu", "silu", "silu_", "elu", "elu_", "softplus", "leaky_relu", "leaky_relu_"),
        *("hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "avg_pool2d"),
    )
)
# slower when compiled for a CPU: their random numbers and scattered sums are computed one by one
SLOWER = ("native_dropout", "bernoulli_", "rand_like", "max_pool2d_with_indices", "adaptive_max_pool2d")
# a training of so many operations on numbers takes a minute or more
LONG = 6e12


@dataclass(frozen=True)
class Computing:
    """How a network is computed.

    Attributes:
        compile: Whether to compile it.
        channels_last: Whether images lie in memory with the channels last.
        why: Why it is compiled, or is not, in a few words.
    """

    compile: bool
    channels_last: bool
    why: str


class _Operations(TorchDispatchMode):
    """Counts operations, and the numbers that they put out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        first = found[0] if isinstance(found, tuple | list) and found else found
        if isinstance(first, Tensor) and not function.is_view:
            name = function.overloadpacket.__name__
            self.calls[name] += 1
            self.numbers[name] += first.numel()
        return found


def best_computing(network: nn.Module, example: Tensor, images: float, device: str) -> Computing:
    """How a network is trained fastest.

    It follows from the arguments, the number of threads, and whether there is a C++ compiler, and from nothing else:
    the same training is computed in the same way.

    Args:
        network: The network; it stays as it is.
        example: An input, `(1, channels, height, width)`; of another form, nothing is gained.
        images: Number of training images to come, those of all epochs.
        device: The type of the device, such as `cpu`.
    """
    if device != "cpu":
        return Computing(False, False, "it is measured on CPUs alone")
    if example.ndim != 4 or not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return Computing(False, False, "there is no convolution of images")
    operations = _trial(network, example, torch.channels_last)
    if operations is None:
        return Computing(False, False, "it does not take images with the channels last")
    for name in SLOWER:
        if operations.calls[name]:
            return Computing(False, True, f"{name} is slower when compiled")
    each = sum(count * (SAVED_POINTWISE if name in POINTWISE else SAVED) for name, count in operations.numbers.items())
    saved = images * each * THREADS / torch.get_num_threads()
    takes = COMPILING + COMPILING_OPERATION * operations.calls.total()
    much = "more, as the training has no end" if math.isinf(saved) else f"about {saved:.0f} s"
    why = f"compiling takes about {takes:.0f} s, and saves {much}"
    if saved > takes and not _has_compiler():
        return Computing(False, True, f"{why}, but there is no C++ compiler with Python's headers")
    return Computing(saved > takes, True, why)


def is_faster_in_bfloat16(network: nn.Module, example: Tensor, images: float, device: str) -> bool:
    """Whether a long training would be faster by more than a fifth in bfloat16: on a CPU with instructions for it.

    Args:
        network: The network.
        example: An input, with one row.
        images: Number of training images to come.
        device: The type of the device.
    """
    able = torch.cpu.get_capabilities()
    if device != "cpu" or not (able.get("avx512_bf16") or able.get("amx_bf16")) or math.isinf(images):
        return False
    with FlopCounterMode(display=False) as counter:
        found = _trial(network, example, torch.contiguous_format)
    # a backward pass takes about twice what the forward pass does, of which there were two images
    return found is not None and 3 * images * counter.get_total_flops() / 2 > LONG


def _trial(network: nn.Module, example: Tensor, memory_format: torch.memory_format) -> _Operations | None:
    """The operations of a training step, for each image; None where the network can't take such images."""
    operations = _Operations()
    try:
        copy, images = deepcopy(network).train(), torch.cat([example, example])
        copy.to(memory_format=memory_format)  # type: ignore[call-overload]
        with torch.no_grad(), torch.random.fork_rng(devices=[]), operations:
            copy(images.contiguous(memory_format=memory_format))
    except Exception:  # as many kinds as there are networks
        return None
    for name in operations.numbers:
        operations.numbers[name] //= len(images)
    return operations


def _has_compiler() -> bool:
    """Whether torch can compile for a CPU."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return header.is_file() and shutil.which(os.environ.get("CXX", "g++")) is not None
