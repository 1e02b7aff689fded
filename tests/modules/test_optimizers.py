"""Optimizers by name, and what of their state a resumed training keeps."""

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
import torch
from noise import SIDE, Noise, Rates, classifier, rates, trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cnn.errors import UserError
from lightning_cnn.modules import ImageClassifier


def optimizer(**options: Any) -> torch.optim.Optimizer:
    made = classifier(**options).configure_optimizers()
    assert isinstance(made, torch.optim.Optimizer)
    return made


@pytest.mark.parametrize(
    ("options", "kind", "settings"),
    [
        ({"optimizer": "sgd", "lr": 0.1, "momentum": 0.8}, "SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
        ({"optimizer": "momentum", "lr": 0.1}, "SGD", {"momentum": 0.9, "nesterov": False}),
        ({"optimizer": "sgd", "momentum": 0.0}, "SGD", {"momentum": 0.0, "nesterov": False}),
        ({"optimizer": "adam", "optimizer_options": {"eps": 1e-7}}, "Adam", {"lr": 1e-3, "eps": 1e-7}),
        ({"optimizer": "adamw", "lr": 0.2, "weight_decay": 0.3}, "AdamW", {"lr": 0.2, "weight_decay": 0.3}),
        (
            {"optimizer": "rmsprop", "optimizer_options": {"alpha": 0.8, "eps": 1e-7}, "momentum": 0.0},
            "RMSprop",
            {"alpha": 0.8, "eps": 1e-7, "momentum": 0.0},
        ),
        ({"optimizer": "lion"}, "Lion", {"lr": 1e-3}),
    ],
)
def test_optimizers_by_name(options: dict[str, Any], kind: str, settings: Mapping[str, Any]) -> None:
    made = optimizer(**options)
    assert type(made).__name__ == kind
    assert {name: made.param_groups[-1][name] for name in settings} == settings
    assert sum(parameter.numel() for group in made.param_groups for parameter in group["params"]) == sum(
        parameter.numel() for parameter in classifier().parameters()
    )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_fused_form_takes_the_same_steps(name: str) -> None:
    options: dict[str, Any] = {"optimizer": name, "architecture_options": {"drop_rate": 0.0}}
    fused, plain = classifier(**options), classifier(optimizer_options={"fused": False}, **options)
    for model in (fused, plain):
        trainer(max_epochs=2, limit_val_batches=0).fit(model, Noise())
    assert fused.configure_optimizers().defaults["fused"] and not plain.configure_optimizers().defaults["fused"]
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_no_fused_form_where_it_does_not_go() -> None:
    assert optimizer(optimizer="adam", optimizer_options={"foreach": True}).defaults["foreach"]
    assert "fused" not in optimizer(optimizer="rmsprop").defaults


def test_biases_do_not_decay() -> None:
    groups = optimizer(weight_decay=0.3).param_groups
    decays = {parameter.ndim: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {1: 0.0, 2: 0.3}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"optimizer": "adamw2"}, r"^unknown `model.optimizer` 'adamw2'; did you mean .*adamw"),
        ({"optimizer": "zzzzzzzz"}, "^unknown `model.optimizer` 'zzzzzzzz'"),
        ({"optimizer_options": {"epsilon": 1}}, "^`model.optimizer` adamw does not accept these settings .*epsilon"),
        ({"lr": -1.0}, "^`model.optimizer` adamw does not accept these settings .*learning rate"),
        ({"optimizer": "adahessian"}, "second derivatives"),
    ],
)
def test_wrong_optimizers(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        optimizer(**options)


@pytest.fixture
def first_run() -> dict[str, Any]:
    """What a checkpoint holds after two epochs of a training with the cosine schedule."""
    run = trainer(max_epochs=2, limit_val_batches=0)
    run.fit(classifier(lr=0.01, schedule="cosine"), Noise())
    run.save_checkpoint("first.ckpt")
    saved: dict[str, Any] = torch.load("first.ckpt", weights_only=True)
    return saved


class State(Rates):
    """Notes the optimiser's state by name of the parameter, before the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = trainer.optimizers[0].state
        self.moments = {name: deepcopy(state[parameter]) for name, parameter in pl_module.named_parameters()}


def go_on(**options: Any) -> State:
    state = State()
    run = trainer(state, max_epochs=4, limit_val_batches=0)
    run.fit(
        classifier(**{"lr": 0.01, "schedule": "cosine", **options}), Noise(), ckpt_path="first.ckpt", weights_only=True
    )
    return state


def cosine(lr: float, first: int, last: int) -> list[float]:
    return [lr * (1 + math.cos(math.pi * step / last)) / 2 for step in range(first, last)]


def moments_of(saved: dict[str, Any]) -> dict[str, Tensor]:
    names = [name for name, _ in classifier().named_parameters()]
    state = saved["optimizer_states"][0]["state"]
    return {name: state[number]["exp_avg"] for number, name in enumerate(names)}


def test_a_longer_run_has_a_longer_schedule(first_run: dict[str, Any]) -> None:
    state = go_on()
    assert state.seen == pytest.approx(cosine(0.01, 8, 16))  # not the 0 with which the first run ended
    assert all(torch.equal(state.moments[name]["exp_avg"], value) for name, value in moments_of(first_run).items())


def test_a_new_learning_rate_wins_over_that_in_the_checkpoint(first_run: dict[str, Any]) -> None:
    state = go_on(lr=0.5)
    assert state.seen == pytest.approx(cosine(0.5, 8, 16))
    assert all(torch.equal(state.moments[name]["exp_avg"], value) for name, value in moments_of(first_run).items())
    assert go_on(lr=0.5, schedule="none").seen == [0.5] * 8
    assert go_on(schedule="none").seen == [0.01] * 8


@pytest.mark.parametrize("back", [False, True])
def test_a_new_weight_decay_keeps_the_moments(first_run: dict[str, Any], back: bool) -> None:
    state = go_on(weight_decay=0.3)  # numbers the parameters anew: those that don't decay come first
    wanted = moments_of(first_run)
    assert {name for name, moments in state.moments.items() if "exp_avg" in moments} == wanted.keys()
    assert all(torch.equal(state.moments[name]["exp_avg"], value) for name, value in wanted.items())
    if back:
        run = trainer(max_epochs=3, limit_val_batches=0)
        run.fit(classifier(lr=0.01, weight_decay=0.3), Noise(), ckpt_path="first.ckpt", weights_only=True)
        run.save_checkpoint("first.ckpt")
        decayed = run.optimizers[0].state
        names = dict(run.lightning_module.named_parameters())
        state = go_on(weight_decay=0.0)
        assert all(torch.equal(state.moments[name]["exp_avg"], decayed[names[name]]["exp_avg"]) for name in names)


def test_another_optimizer_starts_afresh(first_run: dict[str, Any]) -> None:
    state = go_on(optimizer="momentum", schedule="none")
    assert not any(state.moments.values())
    assert state.seen == [0.01] * 8


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (("adamw", {}), {"amsgrad": True}),
        (("adamw", {"amsgrad": True}), {}),
        (("rmsprop", {}), {"centered": True}),
    ],
)
def test_options_that_remember_something_else_start_afresh(first: tuple[str, dict[str, Any]], then: Any) -> None:
    name, options = first
    run = trainer(max_epochs=2, limit_val_batches=0)
    run.fit(classifier(lr=0.01, schedule="cosine", optimizer=name, optimizer_options=options), Noise())
    run.save_checkpoint("first.ckpt")
    state = go_on(optimizer=name, optimizer_options=then)
    assert not any(state.moments.values()) and state.seen == pytest.approx(cosine(0.01, 8, 16))


def test_other_options_keep_the_moments(first_run: dict[str, Any]) -> None:
    state = go_on(optimizer_options={"eps": 1e-7})
    assert all(torch.equal(state.moments[name]["exp_avg"], value) for name, value in moments_of(first_run).items())


def test_muon_may_leave_other_parameters_to_adamw() -> None:
    run = trainer(max_epochs=2, limit_val_batches=0)
    run.fit(classifier(lr=0.01, schedule="cosine", optimizer="nmuon"), Noise())
    run.save_checkpoint("first.ckpt")
    state = go_on(optimizer="nmuon", optimizer_options={"fallback_list": ["*head*"]})
    for name, moments in state.moments.items():
        assert bool(moments) != ("head" in name)
        assert moments.get("use_muon", False) == (name.endswith("weight") and bool(moments))


class Own(ImageClassifier):
    """A task with an optimizer and a schedule of its own."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([{"params": [value]} for value in self.parameters()], lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)]


def test_an_optimizer_of_ones_own_goes_on() -> None:
    def own(lr: float) -> Own:
        torch.manual_seed(0)
        return Own("ffnn", num_classes=12, image_size=SIDE, architecture_options={"drop_rate": 0.0}, lr=lr)

    states = []
    for epochs in ((4,), (3, 4)):
        for number, end in enumerate(epochs):
            run = trainer(max_epochs=end, limit_val_batches=0)
            run.fit(
                own(lr=0.1 * number),  # which it does not look at
                Noise(),
                ckpt_path="own.ckpt" if number else None,
                weights_only=True,
            )
            run.save_checkpoint("own.ckpt")
        states.append((run.optimizers[0].param_groups[0]["lr"], [*run.lightning_module.parameters()]))
    (rate, whole), (again, resumed) = states
    assert rate == again == 0.1 / 4
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_one_schedule_whether_or_not_the_run_was_interrupted() -> None:
    whole = rates(classifier(lr=0.01, schedule="cosine", warmup_epochs=1), max_epochs=4)

    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.save_checkpoint("half.ckpt")
            trainer.should_stop = True

    run, noted = trainer(Stop(), max_epochs=4, limit_val_batches=0), Rates()
    run.fit(classifier(lr=0.01, schedule="cosine", warmup_epochs=1), Noise())
    again = trainer(noted, max_epochs=4, limit_val_batches=0)
    model = classifier(lr=0.01, schedule="cosine", warmup_epochs=1)
    again.fit(model, Noise(), ckpt_path="half.ckpt", weights_only=True)
    assert noted.seen == whole[4:16]
