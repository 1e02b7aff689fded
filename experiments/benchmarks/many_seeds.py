"""Eight seeds of LeNet5 in one process: trained together by torch.func, and one after the other.

    uv run experiments/benchmarks/many_seeds.py

Random images in memory, SGD, batches of 32 of its own for each seed. A note for what could be built, not a feature.
"""

import argparse
import statistics
import time

import timm
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

import lightning_cnn.architectures  # noqa: F401  registers lenet5

BATCH, LR = 32, 0.01


def run() -> None:
    """Times both and prints the ratio."""
    parser = argparse.ArgumentParser(description="Times eight seeds of LeNet5, together and one after the other.")
    parser.add_argument("--seeds", type=int, default=8, help="how many networks")
    parser.add_argument("--steps", type=int, default=30, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=5, help="how many turns")
    options = parser.parse_args()
    networks = [timm.create_model("lenet5") for _ in range(options.seeds)]
    optimizers = [torch.optim.SGD(network.parameters(), LR, fused=True) for network in networks]
    parameters, _ = stack_module_state(networks)
    base = networks[0]

    def loss(weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, weights, (images,)), labels)

    gradients = vmap(grad(loss))
    images, labels = torch.randn(options.seeds, BATCH, 1, 28, 28), torch.randint(0, 10, (options.seeds, BATCH))
    ratios = []
    for turn in range(options.turns + 1):
        start = time.perf_counter()
        for _ in range(options.steps):
            for network, optimizer, some, answers in zip(networks, optimizers, images, labels, strict=True):
                optimizer.zero_grad()
                F.cross_entropy(network(some), answers).backward()
                optimizer.step()
        alone = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(options.steps):
            found = gradients(parameters, images, labels)
            with torch.no_grad():
                for name, value in parameters.items():
                    value.sub_(found[name], alpha=LR)
        together = time.perf_counter() - start
        if turn:  # the first warms up
            ratios.append(together / alone)
            print(f"turn {turn}: one after the other {alone:.2f} s, together {together:.2f} s", flush=True)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"together / one after the other: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    run()
