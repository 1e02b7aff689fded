"""Times a training step on the CPU with freed memory kept by malloc, as `train` does, and as glibc does by itself.

    uv run experiments/benchmarks/freed_memory.py

Each turn is a process of its own, because malloc can't be set back. Page faults are those of a step; memory is the
largest that the process had.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import timm
import torch
from torch.nn import functional as F

import lightning_cnn.architectures  # noqa: F401  registers ours
from lightning_cnn.engine.freed_memory import keep_freed_memory

# network, options, images in a batch, channels, their side, whether in bfloat16
CASES: dict[str, tuple[str, dict[str, Any], int, int, int, bool]] = {
    "cifar_fast": ("cifar_fast", {"widths": [64, 160, 384]}, 500, 3, 32, True),
    "resnet20_cifar": ("resnet20_cifar", {}, 128, 3, 32, False),
    "resnet18": ("resnet18", {}, 32, 3, 224, False),
    "unet_small": ("unet_small", {}, 8, 1, 256, False),
    "lenet5": ("lenet5", {}, 256, 1, 28, False),
}


def measure(name: str, steps: int, is_kept: bool) -> dict[str, float]:
    """Seconds and page faults of a step, and the peak memory in GiB, of this process."""
    if is_kept and not keep_freed_memory():
        raise SystemExit("malloc is not glibc's, or set by the environment")
    torch.manual_seed(0)
    architecture, options, count, channels, side, is_short = CASES[name]
    network = timm.create_model(architecture, num_classes=10, in_chans=channels, **options)
    network = network.to(memory_format=torch.channels_last).train()
    images = torch.randn(count, channels, side, side).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(steps + 2):
        if step == 2:
            before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_short):
            outputs = network(images)
        optimizer.zero_grad()
        F.cross_entropy(outputs.float(), outputs.argmax(1)).backward()
        optimizer.step()
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    faults = (after.ru_minflt - before.ru_minflt) / steps
    return {"seconds": seconds / steps, "faults": faults, "memory": after.ru_maxrss / 2**20}


def main() -> None:
    """Prints medians of both ways and their ratio."""
    parser = argparse.ArgumentParser(description="Times training steps with freed memory kept and returned.")
    parser.add_argument("--networks", nargs="+", default=[*CASES], choices=[*CASES], help="which networks")
    parser.add_argument("--turns", type=int, default=3, help="processes of each way, in turn")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--in_process", choices=["kept", "returned"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        print(json.dumps(measure(options.networks[0], options.steps, options.in_process == "kept")))
        return
    for name in options.networks:
        turns: dict[str, list[dict[str, float]]] = {"returned": [], "kept": []}
        for _ in range(options.turns):
            for way, found in turns.items():
                command = [sys.executable, __file__, "--networks", name, "--steps", str(options.steps)]
                printed = subprocess.run([*command, "--in_process", way], capture_output=True, text=True, check=True)
                found.append(json.loads(printed.stdout.splitlines()[-1]))
        middle = {
            way: {key: statistics.median(turn[key] for turn in found) for key in found[0]}
            for way, found in turns.items()
        }
        print(
            f"{name:16} {middle['kept']['seconds'] / middle['returned']['seconds']:.2f} of the time,",
            *(
                f"{way} {one['seconds'] * 1000:.0f} ms, {one['faults']:.0f} faults, {one['memory']:.2f} GiB;"
                for way, one in middle.items()
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
