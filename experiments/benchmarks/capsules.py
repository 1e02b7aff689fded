"""Times training steps of a capsule network: one module for each capsule, as the paper draws it, and ours.

    uv run experiments/benchmarks/capsules.py
    uv run experiments/benchmarks/capsules.py --architecture capsnet --steps 5

The rival has a convolution for each of the types of primary capsules, and routes each class capsule in a loop of its
own, batches of images at once. Both networks have the same weights, and their outputs are compared first. A step is
the margin loss, its gradients, and an update of Adam, on random images. The two take turns, each turn in a process of
its own, whose peak memory is that of the whole process. The median of the ratios within each turn is printed.
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
from torch import Tensor, nn

from lightning_cnn.architectures.capsules import CapsNet, lengths, squash
from lightning_cnn.modules.capsule_classifier import margin_losses

CLASSES = 10


class LoopCapsNet(nn.Module):
    """A `CapsNet`, written down capsule by capsule.

    Args:
        network: The network whose weights it takes.
    """

    def __init__(self, network: CapsNet) -> None:
        super().__init__()
        layers: Any = network.features
        head: Any = network.head
        conv, dim = layers[2].conv, layers[2].dim
        self.first = nn.Conv2d(layers[0].in_channels, layers[0].out_channels, 9)
        self.first.load_state_dict(layers[0].state_dict())
        self.primary = nn.ModuleList()
        for weight, bias in zip(conv.weight.split(dim), conv.bias.split(dim), strict=True):
            capsule = nn.Conv2d(conv.in_channels, dim, 9, stride=2)
            capsule.load_state_dict({"weight": weight, "bias": bias})
            self.primary.append(capsule)
        weights = head.weight.detach().unbind(2)  # of each class (capsules, 8, 16)
        self.weights = nn.ParameterList([weight.clone() for weight in weights])
        self.iterations = head.iterations

    def forward(self, images: Tensor) -> Tensor:
        """Lengths `(batch, classes)` of the class capsules."""
        maps = torch.relu(self.first(images))
        below = torch.cat([squash(capsule(maps).flatten(2).mT) for capsule in self.primary], 1)
        votes = [(below[:, :, None, :] @ weight).squeeze(2) for weight in self.weights]
        logits = [torch.zeros(*below.shape[:2], device=images.device) for _ in votes]
        for iteration in range(self.iterations):
            shares = torch.stack(logits, 2).softmax(2)
            found = [squash((shares[:, :, j, None] * vote).sum(1)) for j, vote in enumerate(votes)]
            if iteration < self.iterations - 1:
                logits = [
                    logit + (vote * capsule[:, None]).sum(2)
                    for logit, vote, capsule in zip(logits, votes, found, strict=True)
                ]
        return torch.stack([lengths(capsule) for capsule in found], 1)


def measure(way: str, architecture: str, batch_size: int, steps: int, device: str) -> dict[str, float]:
    """Seconds of a step and peak memory in MiB.

    Args:
        way: `loops` or `ours`.
        architecture: `capsnet` or `capsnet_small`.
        batch_size: Images in a batch.
        steps: Steps that are timed; two come before them.
        device: Device of the network.
    """
    torch.manual_seed(0)
    network: Any = timm.create_model(architecture)
    other = LoopCapsNet(network)
    images = torch.rand(batch_size, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(other(images[:4]), network(images[:4]), atol=1e-5, rtol=1e-4)
    model = (network if way == "ours" else other).to(device)
    images, labels = images.to(device), torch.eye(CLASSES, device=device)[torch.arange(batch_size) % CLASSES]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start = 0.0
    for step in range(steps + 2):
        if step == 2:
            _wait(device)
            start = time.perf_counter()
        optimizer.zero_grad()
        margin_losses(model(images), labels).mean().backward()
        optimizer.step()
    _wait(device)
    seconds = (time.perf_counter() - start) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "memory": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Prints seconds of a step, peak memory, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=["capsnet", "capsnet_small"], default="capsnet_small")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--way", choices=["loops", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.architecture, args.batch_size, args.steps, args.device)))
        return
    found: dict[str, list[dict[str, float]]] = {"loops": [], "ours": []}
    for _ in range(args.turns):
        for way, all_turns in found.items():
            done = subprocess.run([sys.executable, *sys.argv, "--way", way], stdout=subprocess.PIPE, check=True)
            all_turns.append(json.loads(done.stdout))
    print(f"{args.architecture}, batches of {args.batch_size}, {args.device}, torch {torch.__version__}")
    for way, turns in found.items():
        seconds, memory = (statistics.median(turn[name] for turn in turns) for name in ("seconds", "memory"))
        print(f"{way:6} {seconds:.3f} s a step, {60_000 / args.batch_size * seconds:.0f} s an epoch, {memory:.0f} MiB")
    for name in ("seconds", "memory"):
        ratios = [ours[name] / loops[name] for loops, ours in zip(found["loops"], found["ours"], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f} of the loops ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
