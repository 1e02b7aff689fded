"""What each trick of fast training on CIFAR-10 gives: a plain loop, with and without it.

    uv run experiments/benchmarks/cifar_tricks.py --root data
    uv run experiments/benchmarks/cifar_tricks.py --root data --tricks "sgd" "no small images" --epochs 4

Each trick is one change of a recipe for the network as published, with 64, 256 and 256 channels, with one seed. The
recipe of `cifar10_fast` came from it, with larger batches and other widths. Seconds are those of the process, all its
threads together, without the test. The sources: Page, "How to train your ResNet" (2019); Jordan, "94% on CIFAR-10 in
3.29 seconds on a single GPU" (2024); Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024);
Brock et al., "FreezeOut" (2017); Zhang et al., "Lookahead optimizer" (2019).
"""

import argparse
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_cnn.architectures.cifar_fast import CifarFast
from lightning_cnn.datamodules import CIFAR10
from lightning_cnn.datamodules.images.augmentation import Augmentation

SIDE = 32
MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])


@dataclass(frozen=True)
class Recipe:
    """How the network is trained.

    Attributes:
        optimizer: Name of timm's.
        lr: Its peak.
        momentum: Its momentum.
        weight_decay: Its weight decay.
        ns_steps: Muon's steps of Newton-Schulz.
        head_by_muon: Whether Muon trains the head, too.
        batch: Images in a batch.
        widths: Channels of the three blocks.
        warmup: Share of the steps in which the learning rate rises.
        smoothing: Label smoothing.
        whitening: Whether the first layer is fitted to patches of images.
        bias_share: Share of the steps in which this layer's bias learns.
        identities: Whether convolutions begin as identities.
        flip: `alternating`, `random` or `none`.
        crop: Largest move in pixels.
        small: Side of the images in the first epochs.
        small_share: Share of these epochs.
        frozen: Share of the steps after which the layers up to the first block do not learn any more.
        lookahead: Share of the way that slow weights go every five steps; 1 for none.
        decay: Of an average of the weights; 0 for none.
    """

    optimizer: str = "nmuon"
    lr: float = 0.1
    momentum: float = 0.6
    weight_decay: float = 0.05
    ns_steps: int = 5
    head_by_muon: bool = False
    batch: int = 500
    widths: tuple[int, int, int] = (64, 256, 256)
    warmup: float = 0.1
    smoothing: float = 0.2
    whitening: bool = True
    bias_share: float = 1.0
    identities: bool = True
    flip: str = "alternating"
    crop: int = 2
    small: int = 24
    small_share: float = 0.5
    frozen: float = 1.0
    lookahead: float = 1.0
    decay: float = 0.0


SGD = Recipe(optimizer="sgd", lr=1.5, momentum=0.85, weight_decay=0.0013, batch=1000, warmup=0.2)
TRICKS = {
    "the recipe": Recipe(),
    "sgd": SGD,
    "batches of 250": replace(Recipe(), batch=250, lr=0.07),
    "batches of 1000": replace(Recipe(), batch=1000, lr=0.14),
    "three steps of Newton-Schulz": replace(Recipe(), ns_steps=3),
    "the head by Muon": replace(Recipe(), head_by_muon=True),
    "no whitening": replace(Recipe(), whitening=False),
    "the first layer fixed": replace(Recipe(), bias_share=0.0),
    "the first layer fixed after a quarter": replace(Recipe(), bias_share=0.25),
    "no identities": replace(Recipe(), identities=False),
    "random flips": replace(Recipe(), flip="random"),
    "no flips": replace(Recipe(), flip="none"),
    "no moves": replace(Recipe(), crop=0),
    "no label smoothing": replace(Recipe(), smoothing=0.0),
    "a narrow second block": replace(Recipe(), widths=(64, 192, 256)),
    "a wide last block": replace(Recipe(), widths=(64, 160, 384)),
    "lookahead": replace(Recipe(), lookahead=0.5),
    "averaged weights": replace(Recipe(), decay=0.95),
    "freezing": replace(Recipe(), frozen=0.6),
    "no small images": replace(Recipe(), small=SIDE),
    "smaller images": replace(Recipe(), small=20),
    "more small images": replace(Recipe(), small_share=0.75),
}


def scaled(pixels: Tensor) -> Tensor:
    """Standardized images of pixels from 0 to 1, with the channels last."""
    return ((pixels - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)).contiguous(memory_format=torch.channels_last)


def make_network(recipe: Recipe, images: Tensor) -> CifarFast:
    """The network before its first step."""
    network: CifarFast = timm.create_model("cifar_fast", widths=recipe.widths)
    if not recipe.identities:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    if recipe.whitening:
        network.init_from_images(scaled(images[:5000].float() / 255))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def make_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """The optimizer of timm, with the options that it has."""
    is_muon = "muon" in recipe.optimizer
    muon = {
        "ns_steps": recipe.ns_steps,
        "adjust_lr_fn": "original",
        "fallback_lr_scale": 0.1,
        "fallback_list": ["head.*"],
    }
    if recipe.head_by_muon:
        muon["fallback_list"] = []
    name = f"lookahead_{recipe.optimizer}" if recipe.lookahead < 1 else recipe.optimizer
    optimizer: Optimizer = create_optimizer_v2(
        network,
        opt=name,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        **(muon if is_muon else {}),
    )
    if recipe.lookahead < 1:
        for group in optimizer.param_groups:
            group["lookahead_alpha"], group["lookahead_k"] = recipe.lookahead, 5
    return optimizer


def train(recipe: Recipe, images: Tensor, labels: Tensor, epochs: int, seed: int) -> tuple[nn.Module, float]:
    """A trained network, and the seconds that it took."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = make_network(recipe, images)
    layers: Any = network.features
    optimizer = make_optimizer(recipe, network)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.decay), use_buffers=True)
    augmentation = Augmentation(
        crop=recipe.crop,
        flip=recipe.flip == "random",
        alternating_flip=recipe.flip == "alternating",
        small_epochs=round(epochs * recipe.small_share),
        small_scale=recipe.small / SIDE,
    )
    each = len(labels) // recipe.batch
    steps, warm = each * epochs, max(1, round(each * epochs * recipe.warmup))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / warm, (steps - at) / max(1, steps - warm))
    )
    begin = time.process_time()
    network.train()
    for step in range(steps):
        epoch, place = divmod(step, each)
        if not place:
            order = torch.randperm(len(labels), generator=generator)
        if step == math.ceil(recipe.bias_share * steps):
            layers[0].requires_grad_(False)
        if step == math.ceil(recipe.frozen * steps):
            layers[:3].requires_grad_(False)
        rows = order[place * recipe.batch :][: recipe.batch]
        seen = augmentation.shrink(scaled(augmentation.change(images[rows], generator, epoch, seed)), epoch)
        with torch.autocast("cpu", torch.bfloat16):
            answers = network(seen.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        F.cross_entropy(answers.float(), labels[rows], label_smoothing=recipe.smoothing).backward()
        optimizer.step()
        schedule.step()
        if recipe.decay:
            average.update_parameters(network)
    if recipe.lookahead < 1:
        optimizer.sync_lookahead()  # type: ignore[attr-defined]
    return average.module if recipe.decay else network, time.process_time() - begin


@torch.no_grad()
def accuracies(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Test accuracy, and the one of the mean over each image and its mirror image."""
    network.eval()
    plain, both = 0, 0
    with torch.autocast("cpu", torch.bfloat16):
        for rows in torch.arange(len(labels)).split(500):
            seen = scaled(images[rows].float() / 255)
            one, other = network(seen).float(), network(seen.flip(-1)).float()
            plain += int((one.argmax(1) == labels[rows]).sum())
            both += int(((one + other).argmax(1) == labels[rows]).sum())
    return plain / len(labels), both / len(labels)


def run() -> None:
    """Trains with each trick, and prints a line for it."""
    parser = argparse.ArgumentParser(description="Tries tricks of fast training on CIFAR-10.")
    parser.add_argument("--root", help="folder of the data, as for CIFAR10")
    parser.add_argument("--tricks", nargs="+", default=[*TRICKS], choices=[*TRICKS], help="which ones")
    parser.add_argument("--epochs", type=int, default=4, help="length of each training")
    parser.add_argument("--images", type=int, default=50_000, help="how many training images")
    parser.add_argument("--seed", type=int, default=42, help="seed of each training")
    options = parser.parse_args()
    data = CIFAR10(options.root)
    data.prepare_data()
    images, labels = data.load(train=True)
    tests = data.load(train=False)
    for name in options.tricks:
        network, seconds = train(
            TRICKS[name], images[: options.images], labels[: options.images], options.epochs, options.seed
        )
        plain, both = accuracies(network, *tests)
        print(f"{name:<20} {plain:.2%}, with flips {both:.2%}, {seconds:.0f} s of the processor", flush=True)


if __name__ == "__main__":
    run()
