"""Measures networks: parameters, operations, memory, and images per second of inference and of training."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from lightning_cnn.architectures.arithmetic import cost
from lightning_cnn.engine.benchmark.runs import Shape
from lightning_cnn.errors import UserError, first_line
from lightning_cnn.modules.network import REFUSALS, create_network, input_shape

Stage = Literal["inference", "training"]
STAGES: tuple[Stage, ...] = ("training", "inference")  # in this order: memory is counted before anything is compiled


@dataclass(frozen=True)
class Conditions:
    """Under which all networks are measured.

    Attributes:
        device: What they compute on.
        batch_size: Images in a batch.
        seconds: Time for each network and stage; a step that takes longer is made all the same.
        bf16: Whether matrix products and convolutions compute in bfloat16 (autocast).
        channels_last: Whether images lie in memory with the channels last.
        compile: Whether networks are compiled with torch.compile.
    """

    device: torch.device
    batch_size: int
    seconds: float
    bf16: bool = False
    channels_last: bool = False
    compile: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether the device has a memory of its own."""
        return self.device.type == "cuda"

    @property
    def device_name(self) -> str:
        """The device as a table names it."""
        if self.on_gpu:
            return torch.cuda.get_device_name(self.device)
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' if threads > 1 else ''})"

    def autocast(self) -> torch.autocast:
        """The context in which networks compute."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


@dataclass
class Measurement:
    """The figures of a network.

    Attributes:
        architecture: Its name.
        shape: What goes in and comes out.
        parameters: Number of parameters, those of auxiliary heads among them.
        numbers: How many numbers its state has: parameters and buffers.
        operations: Operations on one image, see `architectures.arithmetic.cost`; a multiply-add counts as two.
        memory: Bytes of a training step: on a GPU the most that was allocated, on the CPU `step_bytes`; None where the
            step failed.
        images_per_s: Of each stage that did not fail.
        notes: Why figures are missing, a line each.
    """

    architecture: str
    shape: Shape
    parameters: int
    numbers: int
    operations: int
    memory: int | None = None
    images_per_s: dict[Stage, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: `cpu`, `cuda`, or `auto` for the better one.

    Raises:
        UserError: If there is none.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise UserError(f"`device` cuda: torch {torch.__version__} finds no CUDA device; use `device` cpu")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def measure(architecture: str, shape: Shape, conditions: Conditions) -> Measurement:
    """Makes a network and measures it.

    Args:
        architecture: Name of the network, as `create_network` takes it.
        shape: What goes in and comes out.
        conditions: How to measure.

    Raises:
        UserError: If there is no such network, or the images don't fit it.
    """
    already = torch.cuda.memory_allocated(conditions.device) if conditions.on_gpu else 0
    network = create_network(architecture, shape.num_classes, shape.in_channels, shape.image_size, maps=None)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    sides = input_shape(architecture, shape.in_channels, shape.image_size)
    numbers = sum(value.numel() for value in network.state_dict().values())
    found = Measurement(architecture, shape, parameters, numbers, 2 * cost(network, sides).multiply_adds)
    if conditions.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for stage in STAGES:
        try:
            if not conditions.on_gpu:
                needed = _check_memory(network, sides, conditions, stage)
                if stage == "training":
                    found.memory = needed
            step = _step(network, sides, shape.num_classes, conditions, stage)
            step()  # the first allocates what the libraries need, and compiles
            if conditions.on_gpu and stage == "training":
                torch.cuda.reset_peak_memory_stats(conditions.device)
                step()
                found.memory = torch.cuda.max_memory_allocated(conditions.device) - already
            found.images_per_s[stage] = _speed(step, conditions)
        except (MemoryError, *REFUSALS) as error:
            found.notes.append(f"{architecture}: no {stage}: {_reason(error)}")
    return found


def step_bytes(network: nn.Module, images: Tensor) -> tuple[int, int]:
    """Bytes that a training step needs: for the network, and for each of its images.

    The first are the parameters and their gradients, the others the image and the activations that the forward pass
    keeps for the backward pass. Both are the same on each run. What a step needs only for a moment, what an optimizer
    remembers, and what the allocator wastes, is not in them.

    Args:
        network: The network.
        images: `(batch, channels, height, width)`, at least two: batch norm takes no fewer.
    """
    kept: list[weakref.ref[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(weakref.ref(tensor))  # weak: what autograd drops before the end does not count
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network.train()(images)
    alive = [tensor.untyped_storage() for reference in kept if (tensor := reference()) is not None]
    del outputs  # not earlier: with it goes what it keeps
    own = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    kept_bytes = sum({s.data_ptr(): s.nbytes() for s in alive if s.data_ptr() not in own}.values())
    weights = sum(parameter.nbytes * (2 if parameter.requires_grad else 1) for parameter in network.parameters())
    return weights, kept_bytes // len(images)


def total_loss(outputs: Tensor | Sequence[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy; of a network with auxiliary heads, which gives several logits in training, the sum.

    Args:
        outputs: Logits `(batch, num_classes)`, or of each pixel `(batch, num_classes, height, width)`; or several of
            them.
        labels: `(batch,)`; of a segmentation network that of all pixels.
    """
    heads = [outputs] if isinstance(outputs, Tensor) else outputs
    losses = []
    for logits in heads:
        targets = labels.view(-1, *[1] * (logits.ndim - 2)).expand(len(labels), *logits.shape[2:])
        losses.append(F.cross_entropy(logits, targets))
    return torch.stack(losses).sum()


def _check_memory(network: nn.Module, sides: tuple[int, ...], conditions: Conditions, stage: Stage) -> int:
    """The bytes that a stage needs at least.

    Raises:
        MemoryError: If they are not free: Linux would kill the process rather than refuse.
    """
    needed = conditions.batch_size * torch.zeros(sides).nbytes
    if stage == "training":
        with conditions.autocast():
            weights, each = step_bytes(network, torch.randn(2, *sides))
        needed = weights + conditions.batch_size * each
    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(f"it needs about {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free")
    return needed


def _step(
    network: nn.Module, sides: tuple[int, ...], num_classes: int, conditions: Conditions, stage: Stage
) -> Callable[[], None]:
    images = torch.randn(conditions.batch_size, *sides, device=conditions.device)
    if conditions.channels_last and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(images), device=images.device) % num_classes
    network.to(conditions.device).train(stage == "training")
    if conditions.compile:
        network.compile()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)  # the same work, and no weights that explode

    def infer() -> None:
        # inference_mode would spoil what a network caches for its training
        with torch.no_grad(), conditions.autocast():
            network(images)

    def train() -> None:
        optimizer.zero_grad()
        with conditions.autocast():
            loss = total_loss(network(images), labels)
        loss.backward()
        optimizer.step()

    return train if stage == "training" else infer


def _speed(step: Callable[[], None], conditions: Conditions) -> float:
    """Images per second: the median, so that a moment in which something else disturbed does not count."""
    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    return float(conditions.batch_size / timer.blocked_autorange(min_run_time=conditions.seconds).median)


def _reason(error: Exception) -> str:
    reason = first_line(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in reason:
        return f"out of memory ({reason}), try a smaller `batch_size`"
    return reason
