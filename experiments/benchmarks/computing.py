"""Which networks gain by the channels-last memory format, and by compiling: the time of a training step.

    uv run experiments/benchmarks/computing.py --networks lenet5 cnn3 --batch 128

The ways take turns, some steps at a time, so that a noisy machine treats them alike. `modules/computing.py` has the
rule that follows from it.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch.nn import functional as F

import lightning_cnn.architectures  # noqa: F401  registers ours

WAYS = {"eager": (False, False), "channels last": (True, False), "compiled, channels last": (True, True)}
GRAY = ("lenet5", "lenet5_1998")


def stepper(
    network: torch.nn.Module, batch: int, side: int, bf16: bool, last: bool, compiled: bool
) -> Callable[[], None]:
    """A training step of a copy of a network on random images."""
    network = copy.deepcopy(network)
    layout = torch.channels_last if last else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]
    if compiled:
        network.compile(dynamic=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, fused=True)
    channels = next(network.parameters()).shape[1] if next(network.parameters()).ndim == 4 else 3
    images = torch.randn(batch, channels, side, side).contiguous(memory_format=layout)
    labels = torch.arange(batch) % 10

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def run() -> None:
    """Measures each network and prints the ratios."""
    parser = argparse.ArgumentParser(description="Times training steps, eager and compiled.")
    networks = ["lenet5", "cnn3", "resnet20_cifar", "resnet18", "mobilenetv3_small_100", "mlp_cifar"]
    parser.add_argument("--networks", nargs="+", default=networks, help="names of networks")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--turns", type=int, default=5, help="how many turns")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, about")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in options.networks:
        gray = name in GRAY
        network = timm.create_model(name, num_classes=10, in_chans=1 if gray else 3)
        for bf16 in (False, True):
            torch.compiler.reset()
            steps, first = {}, {}
            for way, (last, compiled) in WAYS.items():
                steps[way] = stepper(network, options.batch, 28 if gray else 32, bf16, last, compiled)
                start = time.perf_counter()
                steps[way]()
                first[way] = time.perf_counter() - start
                steps[way]()
            start = time.perf_counter()
            steps["eager"]()
            count = max(1, round(options.seconds / (time.perf_counter() - start)))
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.turns):
                for way, step in steps.items():
                    start = time.perf_counter()
                    for _ in range(count):
                        step()
                    times[way].append((time.perf_counter() - start) / count)
            for way, found in times.items():
                ratio = statistics.median(a / b for a, b in zip(found, times["eager"], strict=True))
                kind = "bfloat16" if bf16 else "float32"
                print(
                    f"{name} {kind} {way:<24} {1000 * statistics.median(found):8.2f} ms, {ratio:.2f} of eager, "
                    f"first step {first[way]:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    run()
