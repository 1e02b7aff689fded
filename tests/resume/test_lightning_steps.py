"""The short step does all that Lightning's does, in the same order."""

from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.resume.lightning_steps import HOOKS, ShortSteps, shorten_steps

EVERY_HOOK = (
    *HOOKS,
    *("on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_validation_start", "on_validation_end"),
    *("on_validation_epoch_end", "on_train_end", "on_fit_end"),
)


class Logged(DummyLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        self.rows.append((step, dict(metrics)))


class Network(LightningModule):
    """Classifies points, with dropout, so that the random numbers count too."""

    returns: str = "tensor"

    def __init__(self, optimizer: str = "SGD", schedule: str = "") -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.optimizer, self.schedule = optimizer, schedule

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        if self.returns == "none" and batch_idx % 3 == 1:
            return None
        return {"loss": loss, "rows": len(batch[0])} if self.returns == "dict" else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = getattr(torch.optim, self.optimizer)(self.parameters(), lr=0.1)
        if not self.schedule:
            return optimizer
        if self.schedule == "plateau":
            scheduler: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.schedule}}


class OneIndex(Network):
    """Takes the batch alone."""

    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return super().training_step(batch, 0)


class OwnStep(Network):
    """Steps in its own way."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)
        with torch.no_grad():
            next(self.parameters()).mul_(0.9)


class Gathers(Network):
    """Leaves out the rest of an epoch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 4 else None


class Manual(Network):
    """Steps itself."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


def told(calls: list[Any], name: str) -> Any:
    """A hook that notes when it is called, with what, and what it finds."""

    def hook(*args: Any) -> None:
        trainer, module = args[0], args[1]
        rest = [describe(arg) for arg in args[2:]]
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        gradients = [parameter.grad is not None for parameter in module.parameters()]
        fx = module._current_fx_name
        calls.append((name, rest, trainer.global_step, vars(progress).copy(), gradients, fx, trainer.is_last_batch))
        if name in ("on_train_batch_start", "on_train_batch_end"):
            module.log(f"own/{name}", float(trainer.global_step))

    return hook


def describe(arg: Any) -> Any:
    """What an argument of a hook is, such that equal ones are equal."""
    if isinstance(arg, Tensor):
        return arg.detach().clone().tolist()
    if isinstance(arg, list | tuple):
        return [describe(part) for part in arg]
    if isinstance(arg, dict):
        return {name: describe(part) for name, part in arg.items()}
    return type(arg).__name__ if not isinstance(arg, int | float) else arg


def trained(module: Network, short: bool, **options: Any) -> tuple[dict[str, Tensor], list[Any], Any, ShortSteps | Any]:
    """Weights, calls of hooks, and rows of the logger of a training."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    calls: list[Any] = []
    listener = type(
        "Listener", (Callback,), {name: staticmethod(told(calls, f"callback {name}")) for name in EVERY_HOOK}
    )
    kind = type(module)
    own = [name for name in EVERY_HOOK if name not in vars(kind) and name != "on_train_batch_start"]
    methods = {name: (lambda self, *args, name=name: told(calls, name)(self.trainer, self, *args)) for name in own}
    module.__class__ = type(kind.__name__, (kind,), methods)
    logger = Logged()
    settings: dict[str, Any] = {
        "max_epochs": 3,
        "log_every_n_steps": 3,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    trainer = Trainer(
        **settings | options, logger=logger, callbacks=[listener()], enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    if short:
        shorten_steps(trainer)
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(70, 4, generator=generator)
    data = TensorDataset(points, (points.sum(1) > 0).long())
    trainer.fit(module, DataLoader(data, 8), DataLoader(data, 35))
    return module.state_dict(), calls, logger.rows, trainer.fit_loop.epoch_loop


CASES: list[tuple[Any, dict[str, Any], bool]] = [
    (Network, {}, True),
    (lambda: Network("Adam", "step"), {}, True),
    (lambda: Network(schedule="epoch"), {}, True),
    (lambda: Network(schedule="plateau"), {}, True),
    (lambda: Network("LBFGS"), {}, True),
    (OneIndex, {}, True),
    (Network, {"precision": "bf16-mixed"}, True),
    (Network, {"gradient_clip_val": 0.1}, True),
    (Network, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, True),
    (Network, {"val_check_interval": 4}, True),
    (Network, {"val_check_interval": 5, "check_val_every_n_epoch": None}, True),
    (Network, {"max_epochs": -1, "max_steps": 13}, True),
    (Network, {"limit_train_batches": 5, "log_every_n_steps": 1}, True),
    (Network, {"accumulate_grad_batches": 2}, False),
    (Network, {"profiler": "simple"}, False),
    (OwnStep, {}, False),
    (Gathers, {}, False),
    (Manual, {}, False),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "options", "is_short"), CASES)
@pytest.mark.parametrize("returns", ["tensor", "dict", "none"])
def test_it_is_lightnings_step(make: Any, options: dict[str, Any], is_short: bool, returns: str) -> None:
    if returns == "none" and ("gradient_clip_algorithm" in options or make().optimizer == "LBFGS"):
        pytest.skip("Lightning's own step fails without gradients")
    found = []
    for short in (False, True):
        module = make()
        module.returns = returns
        found.append(trained(module, short, **options))
    (weights, calls, rows, _), (own_weights, own_calls, own_rows, loop) = found
    assert isinstance(loop, ShortSteps)
    assert loop._is_short == is_short
    assert len(calls) > 100
    for one, other in zip(calls, own_calls, strict=True):
        assert one == other
    assert rows == own_rows
    assert all(torch.equal(weights[name], own_weights[name]) for name in weights)


def test_a_callback_may_get_a_hook_of_its_own() -> None:
    seen: list[int] = []
    callback: Any = Callback()
    callback.on_train_batch_end = lambda *args: seen.append(args[-1])
    trainer = Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
        callbacks=[callback],
    )
    shorten_steps(trainer)
    trainer.fit(Network(), DataLoader(TensorDataset(torch.randn(12, 4), torch.zeros(12).long()), 4))
    assert seen == [0, 1, 2]
