"""What the optimizer of a task trains."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.errors import UserError
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


VIT: dict[str, Any] = {"architecture": "vit_tiny_patch16_224", "image_size": 32, "in_channels": 3}
MUON: dict[str, Any] = {"optimizer": "nmuon", "optimizer_options": {"fallback_list": ["*head*"]}}


@pytest.mark.parametrize("options", [{}, MUON, {"optimizer_options": {"layer_decay": 0.5}}])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_transfer_groups_parameters_as_a_whole_training_does(options: dict[str, Any], weight_decay: float) -> None:
    """Weight decay, Muon and the rates of the layers; what is unfrozen later learns at a tenth."""
    found = []
    torch.save(ImageClassifier(**VIT).network.state_dict(), "weights.pth")
    ways: list[dict[str, Any]] = [{}, {"transfer": "staged", "weights": "weights.pth"}]
    for transfer in ways:
        module = ImageClassifier(**VIT, weight_decay=weight_decay, **options, **transfer)
        if transfer:  # as the callback does before the optimizer is made
            module.network.requires_grad_(False)
        optimizer = module.make_optimizer(module.hparams)
        names = {id(value): name for name, value in module.named_parameters()}
        found.append(
            {
                names[id(value)]: (group["lr"], group["weight_decay"], bool(group.get("use_fallback")))
                for group in optimizer.param_groups
                for value in group["params"]
            }
        )
        assert all(value.requires_grad != bool(transfer) for value in module.parameters())
    whole, staged = found
    assert whole.keys() == staged.keys()
    for name, (rate, *others) in whole.items():
        assert staged[name][0] == pytest.approx(rate if "head" in name else rate / 10) and [*staged[name][1:]] == others
    assert {name for name, settings in whole.items() if settings[2]} == (
        {"network.head.weight", "network.head.bias"} if options == MUON else set()
    )


def test_layers_have_the_rates_that_timm_says() -> None:
    module = ImageClassifier("resnet18", image_size=32, in_channels=3, optimizer_options={"layer_decay": 0.7}, lr=0.1)
    names = {id(value): name for name, value in module.network.named_parameters()}
    groups = param_groups_layer_decay(module.network, layer_decay=0.7)
    expected = {names[id(value)]: group["lr_scale"] for group in groups for value in group["params"]}
    optimizer = module.make_optimizer(module.hparams)
    rates = {names[id(value)]: group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert rates == pytest.approx({name: 0.1 * scale for name, scale in expected.items()})
    assert len(set(rates.values())) > 5 and rates["fc.weight"] == pytest.approx(0.1)
    with pytest.raises(UserError, match="layer_decay` requires a network with timm's group_matcher"):
        made = ImageClassifier("lenet5", optimizer_options={"layer_decay": 0.7})
        made.make_optimizer(made.hparams)


@pytest.mark.parametrize("schedule", ["none", "cosine"])
def test_layers_keep_their_rates_in_a_training(schedule: Any) -> None:
    """Each is the same share of the head's, from the first step of a warm-up to the last of the decay."""
    options: dict[str, Any] = {"min_lr": 0.01, "warmup_epochs": 1} if schedule == "cosine" else {}
    module = ImageClassifier(
        "resnet10t", image_size=32, in_channels=3, optimizer_options={"layer_decay": 0.5}, schedule=schedule, **options
    )
    shares = []

    class Note(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
            shares.append([rate / max(rates) for rate in rates])

    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    images = TensorDataset(torch.rand(8, 3, 32, 32), torch.arange(8) % 10)
    trainer = Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, callbacks=[Note()], **quiet)
    trainer.fit(module, DataLoader(images, 4))
    assert len(shares) == 6 and min(shares[0]) < 0.1
    assert all(each == pytest.approx(shares[0]) for each in shares)


@pytest.mark.parametrize("optimizer", ["adagrad", "adamw", "nmuon"])
def test_a_checkpoint_of_a_transfer_goes_on_with_another_optimizer(optimizer: str) -> None:
    """Adagrad has a state before its first step."""
    torch.save(ImageClassifier("lenet5").network.state_dict(), "weights.pth")
    images = TensorDataset(torch.rand(16, 1, 28, 28), torch.arange(16) % 10)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    for epochs, name in ((1, optimizer), (2, optimizer), (3, "rmsprop"), (4, "adagrad"), (5, "adamw")):
        module = ImageClassifier("lenet5", weights="weights.pth", transfer="frozen", optimizer=name)
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **quiet)
        start: dict[str, Any] = {"ckpt_path": "a.ckpt", "weights_only": True} if epochs > 1 else {}
        trainer.fit(module, DataLoader(images, 4), **start)
        trainer.save_checkpoint("a.ckpt")
        saved = torch.load("a.ckpt", weights_only=True)["optimizer_states"][0]
        assert saved["state"].keys() == {0, 1}
        if name != "nmuon":
            assert int(saved["state"][0]["step"]) == (8 if epochs == 2 else 4)


def test_a_checkpoint_with_options_that_are_refused_now_goes_on() -> None:
    images = TensorDataset(torch.rand(16, 1, 28, 28), torch.arange(16) % 10)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(ImageClassifier("lenet5", optimizer="nmuon"), DataLoader(images, 4))
    trainer.save_checkpoint("a.ckpt")
    saved = torch.load("a.ckpt", weights_only=True)
    saved["hyper_parameters"]["optimizer_options"] = {"fallback_list": ["*haed*"]}  # which version 0.2 took
    torch.save(saved, "a.ckpt")
    module = ImageClassifier("lenet5", optimizer="nmuon", optimizer_options={"fallback_list": ["*head*"]})
    trainer = Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(images, 4), ckpt_path="a.ckpt", weights_only=True)
    assert trainer.global_step == 8


@pytest.mark.parametrize("given", ["*head*", "[*head*]", "['*head*', *d.bias]", ["*head*"], ["network.head.*"]])
def test_what_muon_leaves_to_adamw(given: Any) -> None:
    module = ImageClassifier("lenet5", optimizer="muon", optimizer_options={"fallback_list": given})
    groups = module.make_optimizer(module.hparams).param_groups
    fallback = [value for group in groups if group.get("use_fallback") for value in group["params"]]
    assert {id(value) for value in fallback} == {
        id(value) for value in module.network.get_submodule("head").parameters()
    }


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("nmuon", {"fallback_list": ["*haed*"]}, r"fallback_list` '\*haed\*' matches no parameter of network"),
        ("nmuon", {"fallback_list": 5}, "must be an iterable"),
        ("nmuon", {"adjust_lr_fn": "orignal"}, "orignal"),
        ("nmuon", {"ns_steps": "five"}, "does not accept"),
        ("nmuon", {"ns_coefficients": "xyz"}, "does not accept"),
        ("nmuon", {"betas": 0.9}, "does not accept"),
        ("nmuon", {"fallback_lr_scale": "big"}, "does not accept"),
        ("adamw", {"amsgrad": "x"}, "does not accept"),
        ("adamw", {"lr": 0.1}, "`model.optimizer_options.lr` is not an option: set `model.lr`"),
        ("adamw", {"opt": "sgd"}, "`model.optimizer_options.opt` is not an option: remove it"),
        ("adamw", {"capturable": True, "fused": False}, "does not accept"),
    ],
)
def test_options_that_an_optimizer_finds_wrong_in_its_first_step(name: str, options: dict[str, Any], says: str) -> None:
    module = ImageClassifier("lenet5", optimizer=name, optimizer_options=options)
    with pytest.raises(UserError, match=says):
        module.configure_optimizers()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weight_decay": -1.0}, "`model.weight_decay` -1.0"),
        ({"warmup_epochs": -1.0}, "`model.warmup_epochs` -1.0"),
        ({"min_lr": -1.0}, "`model.min_lr` -1.0"),
        ({"decay_epochs": 0.0}, "`model.decay_epochs` 0.0"),
        ({"label_smoothing": 1.5}, "`model.label_smoothing` 1.5"),
        ({"label_smoothing": -0.2}, "`model.label_smoothing` -0.2"),
    ],
)
def test_numbers_outside_their_range(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ImageClassifier("lenet5", **options)


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
