"""Times activation maximization: ours, many filters at a time, beside a plain loop over the filters.

    uv run experiments/benchmarks/filters.py

Both start from the same noise, take the same steps, and must give the same activations. The network has random weights,
which take as long as trained ones.
"""

import argparse
import time

import timm
import torch
from torch import Tensor, nn

from lightning_cnn.engine.seen import Ascent, wanted_images

# network, layer, channels, side of the images, filters
CASES = (
    ("lenet5", "features.0.6", 1, 28, 64),
    ("resnet20_cifar", "features.8", 3, 32, 32),
    ("tf_efficientnet_lite0", "blocks.2", 3, 128, 16),
)


def plain_loop(network: nn.Module, layer: nn.Module, channels: int, count: int, ascent: Ascent) -> Tensor:
    """One filter after the other, the whole network each time, as in most tutorials. Returns the mean activations."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _layer, _inputs, outputs: kept.append(outputs))
    activations = []
    for number, start in enumerate(ascent.noise(count, channels)):
        image = start[None]
        for step in range(ascent.steps + 1):
            image = image.detach().requires_grad_()
            network(image / 255)
            activation = kept.pop()[0, number].mean()
            if step < ascent.steps:
                (gradient,) = torch.autograd.grad(activation, image)
                image = image + ascent.step_size * gradient / gradient.square().mean().sqrt()
        activations.append(activation.detach())
    handle.remove()
    return torch.stack(activations)


def main() -> None:
    """Prints the seconds of both ways and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps of the ascent")
    options = parser.parse_args()
    for name, layer_name, channels, side, count in CASES:
        torch.manual_seed(0)
        network = timm.create_model(name).eval()
        layer, ascent = network.get_submodule(layer_name), Ascent(side, options.steps)
        begun = time.perf_counter()
        _, ours = wanted_images(network, layer, lambda pixels: pixels, channels, count, ascent)
        between = time.perf_counter()
        theirs = plain_loop(network, layer, channels, count, ascent)
        ended = time.perf_counter()
        difference = (ours - theirs).abs().max() / theirs.abs().max()
        assert difference < 0.02, f"{name}: the two ways differ by {difference:.1%}"
        seconds = between - begun, ended - between
        print(
            f"{name:22} {count} filters, {side}x{side}: ours {seconds[0]:.1f} s, loop {seconds[1]:.1f} s, "
            f"{seconds[1] / seconds[0]:.1f} times faster, largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    main()
