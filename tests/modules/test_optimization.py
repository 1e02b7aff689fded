"""What the optimizer of a task trains."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.modules import ImageClassifier


class WithDecoder(ImageClassifier):
    """A task with a second part beside its network."""

    def __init__(self, architecture: str = "lenet5", **options: Any) -> None:
        super().__init__(architecture, **options)
        self.decoder = nn.Linear(10, 4)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, sums = super().loss(batch)
        return loss + self.decoder(self(batch[0])).square().mean(), sums


@pytest.mark.parametrize("options", [{}, {"transfer": "frozen"}, {"transfer": "staged", "unfreeze_epoch": 1}])
def test_all_parts_of_a_task_learn(options: dict[str, Any]) -> None:
    torch.save(ImageClassifier("lenet5").network.state_dict(), "weights.pth")
    seed_everything(0, verbose=False)
    module = WithDecoder(**options, **({"weights": "weights.pth"} if options else {}))
    before = {name: value.clone() for name, value in module.named_parameters()}
    images = TensorDataset(torch.rand(16, 1, 28, 28), torch.arange(16) % 10)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(images, 4))
    learned = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith("network.features")} if "frozen" in options.values() else set()
    assert learned == before.keys() - frozen


def test_weight_decay_spares_what_the_network_names() -> None:
    """Timm's vision transformer lists its position embedding, which has three dimensions."""
    module = ImageClassifier("vit_tiny_patch16_224", image_size=32, in_channels=3, weight_decay=0.1)
    names = {id(value): name for name, value in module.named_parameters()}
    spared = {
        names[id(value)]
        for group in module.make_optimizer(module.hparams).param_groups
        for value in group["params"]
        if group["weight_decay"] == 0
    }
    assert {"network.pos_embed", "network.cls_token"} <= spared and "network.head.weight" not in spared
    assert all(
        value.ndim <= 1
        for name, value in module.named_parameters()
        if name in spared - {"network.pos_embed", "network.cls_token"}
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad", "rmsprop"])
def test_gradients_are_clipped_in_every_precision(optimizer: str, precision: Any) -> None:
    """Torch's fused optimizers can't be clipped in mixed precision."""
    seed_everything(0, verbose=False)
    module = ImageClassifier("lenet5", optimizer=optimizer, lr=0.5, momentum=0.0, weight_decay=0.0)
    before = [value.clone() for value in module.parameters()]
    images = TensorDataset(torch.rand(16, 1, 28, 28), torch.arange(16) % 10)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options: dict[str, Any] = {"precision": precision, "gradient_clip_val": 0.01, "max_steps": 1}
    trainer = Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)
    trainer.fit(module, DataLoader(images, 16))
    moved = torch.cat([(new - old).flatten() for new, old in zip(module.parameters(), before, strict=True)]).norm()
    assert moved > 0
    if optimizer == "sgd":
        assert float(moved) == pytest.approx(0.5 * 0.01, rel=1e-3)
    fused = bool(module.make_optimizer(module.hparams).defaults.get("fused"))
    assert fused == (precision == "32-true" and optimizer not in ("rmsprop",))


@pytest.mark.parametrize("name", ["muon", "nmuon"])
def test_muon_turns_and_does_not_stretch(name: str) -> None:
    """Its step of a matrix has equal singular values (Jordan et al. 2024); numpy computes them."""
    seed_everything(0, verbose=False)
    options = {"fallback_list": ["*head*"], "fallback_lr_scale": 0.5, "adjust_lr_fn": "original"}
    module = ImageClassifier(
        "lenet5", optimizer=name, lr=0.02, momentum=0.6, weight_decay=0.0, optimizer_options=options
    )
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    optimizer = module.make_optimizer(module.hparams)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.6}
    images, labels = torch.rand(64, 1, 28, 28), torch.arange(64) % 10
    torch.nn.functional.cross_entropy(module(images), labels).backward()
    optimizer.step()
    turned = 0
    for key, value in module.named_parameters():
        step = (value.detach() - before[key]).flatten(1 if value.ndim > 1 else 0).double().numpy() / 0.02
        if value.ndim == 1 or "head" in key or value.shape[1] == 1:  # timm turns no kernels of one channel
            # the first step of AdamW, and of NAdamW, is the sign of the gradient
            assert np.median(np.abs(step)[step != 0]) == pytest.approx({"muon": 0.5, "nmuon": 0.95}[name], rel=0.01)
        else:
            values = np.linalg.svd(step, compute_uv=False) / max(1.0, step.shape[0] / step.shape[1]) ** 0.5
            rank = np.linalg.matrix_rank(value.grad.flatten(1).double().numpy(), tol=1e-3 * float(value.grad.norm()))  # type: ignore[union-attr]
            assert values[: max(1, rank // 2)].min() > 0.5 and values.max() < 1.3
            turned += 1
    assert turned == 3
