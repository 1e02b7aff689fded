"""The optimizer and the schedule of the learning rate, by name: what all modules have in common."""

import fnmatch
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_cnn.errors import UserError, did_you_mean, first_line
from lightning_cnn.modules.epoch_sums import EpochSums
from lightning_cnn.modules.fine_tuning import Parts, own_parameters

OPTIMIZATION = ("optimizer", "lr", "momentum", "weight_decay", "optimizer_options", "unfreeze_lr")
SCHEDULE = ("schedule", "warmup_epochs", "min_lr", "decay_epochs", "decay_rate")


class OptimizedModule(EpochSums):
    """Base class that builds the optimizer and the schedule from hyperparameters.

    A subclass saves as hyperparameters what `OPTIMIZATION` and `SCHEDULE` name, and sets `network`.
    """

    network: nn.Module
    _parts: Parts | None = None  # what learns, where that is not the whole network

    def configure_optimizers(self) -> Any:
        """The optimizer and the schedule, by name.

        Raises:
            UserError: If the optimizer is unknown or does not take its options, or the schedule has no end.
        """
        optimizer = self.make_optimizer(self.hparams)
        hparams = self.hparams
        if hparams["schedule"] == "none" and not hparams["warmup_epochs"]:
            return optimizer
        updates, updates_per_epoch = self.updates()
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched={"none": "step", "linear": "poly"}.get(hparams["schedule"], hparams["schedule"]),
            num_epochs=max(1, updates) / updates_per_epoch,  # max_steps may end within one
            # "none" is a step schedule whose first step never comes; "linear" is a polynomial of power 1
            decay_epochs=10**9 if hparams["schedule"] == "none" else hparams["decay_epochs"],
            decay_rate=1.0 if hparams["schedule"] == "linear" else hparams["decay_rate"],
            min_lr=hparams["min_lr"],
            warmup_lr=hparams["lr"] / 100,
            warmup_epochs=hparams["warmup_epochs"],
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def make_optimizer(self, hparams: Mapping[str, Any]) -> Optimizer:
        """Makes the optimizer by name from hyperparameters.

        Raises:
            UserError: If it is unknown or does not take its options.
        """
        frozen = [parameter for parameter in self.parameters() if self._parts and not parameter.requires_grad]
        try:
            self._remembered(hparams)
            for parameter in frozen:
                parameter.requires_grad_(True)  # timm would leave out what is unfrozen later
            optimizer: Optimizer = create_optimizer_v2(self, **self._settings(hparams))
        except UserError:
            raise
        except Exception as error:  # of as many kinds as there are optimizers
            name = hparams["optimizer"]
            raise UserError(f"`model.optimizer` {name} does not accept these settings ({first_line(error)})") from None
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
        if self._parts:
            optimizer.param_groups[:] = self._divided(optimizer.param_groups, hparams)
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_scale", 1.0)  # of `layer_decay`, which only timm's schedules would apply
        return optimizer

    def _patterns(self, given: str | Sequence[str]) -> list[str]:
        """The patterns of a `fallback_list`.

        Raises:
            UserError: If one matches no parameter.
        """
        patterns = [given] if isinstance(given, str) else [*given]
        names = [name for name, _ in self.named_parameters()]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise UserError(
                    f"`model.optimizer_options.fallback_list` {pattern!r} matches no parameter; they are called "
                    f"{names[0]}, ..., {names[-1]}"
                )
        return patterns

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay, as the network says; timm asks for them."""
        names: set[str] = getattr(self.network, "no_weight_decay", set)()
        return {f"network.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """The layer of each parameter, as the network says; timm asks for it where `layer_decay` is set.

        Args:
            coarse: Whether to group blocks.

        Raises:
            UserError: If the network does not say.
        """
        if not hasattr(self.network, "group_matcher"):
            raise UserError(
                "`model.optimizer_options.layer_decay` requires a network with timm's group_matcher(), which "
                f"{type(self.network).__name__} has not: remove it"
            )
        layers = group_parameters(self.network, self.network.group_matcher(coarse=coarse), reverse=True)  # type: ignore[operator]
        return lambda name: layers.get(name.removeprefix("network."), max(layers.values()))

    def updates(self) -> tuple[float, int]:
        """Number of optimizer steps in the run and in an epoch.

        Raises:
            UserError: If the run has no end.
        """
        self.trainer.fit_loop.setup_data()  # else an epoch's batches are not counted where only steps end the run
        updates = self.trainer.estimated_stepping_batches
        if math.isinf(updates):
            raise UserError("a schedule needs a fixed length: set `trainer.max_epochs` or `trainer.max_steps`")
        per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        # data without a length count as one epoch
        return updates, max(1, math.ceil(updates if math.isinf(per_epoch) else per_epoch))

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Moves a schedule of timm, or another, on by one update."""
        if isinstance(scheduler, Scheduler):
            scheduler.step_update(num_updates=self.global_step, metric=metric)
        else:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_start(self) -> None:
        """Brings the schedule to where the run is."""
        for config in self.trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            if isinstance(config.scheduler, Scheduler):
                scheduler.step_update(self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets settings that differ from the checkpoint's win over those in the checkpoint.

        Lightning would bring back the checkpoint's learning rate together with the optimizer's state, and a schedule
        that ends where the earlier run was to end. The schedule follows from the settings and the step instead.
        """
        super().on_load_checkpoint(checkpoint)
        if "optimizer_states" not in checkpoint or self._trainer is None:
            return
        checkpoint["lr_schedulers"] = []
        saved = checkpoint.get("hyper_parameters", {})
        changed = {name for name in (*OPTIMIZATION, *SCHEDULE) if saved.get(name) != self.hparams.get(name)}
        if not changed:
            return
        fresh, state = self.make_optimizer(self.hparams), checkpoint["optimizer_states"][0]
        state["param_groups"] = fresh.state_dict()["param_groups"]
        earlier = {**self.hparams, **saved}
        if "optimizer" in changed or self._remembered(earlier) != self._remembered(self.hparams):
            state["state"] = {}
        else:  # another weight decay numbers the parameters anew, and Muon may train others
            before, after = _parameters(self.make_optimizer(earlier)), _parameters(fresh)
            places = {id(parameter): (number, fallback) for number, (parameter, fallback) in enumerate(after)}
            kept = {}
            for number, moments in state["state"].items():
                parameter, fallback = before[number]
                place, is_fallback = places[id(parameter)]
                if is_fallback == fallback:
                    kept[place] = moments
            state["state"] = kept

    def _settings(self, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of timm's `create_optimizer_v2`.

        Raises:
            UserError: If there is no such optimizer, or none that trains here.
        """
        name, options = hparams["optimizer"], dict(hparams["optimizer_options"] or {})
        if name not in list_optimizers():
            raise UserError(f"unknown `model.optimizer` {name!r}{did_you_mean(name, list_optimizers())}")
        if get_optimizer_info(name).second_order:
            raise UserError(f"`model.optimizer` {name} requires second derivatives, which are not supported: try adamw")
        if name == "sgd" and hparams["momentum"] == 0:
            name = "momentum"  # Nesterov's form is not defined without a momentum
        if "fallback_list" in options:
            options["fallback_list"] = self._patterns(options["fallback_list"])
        given = {option: hparams[option] for option in ("lr", "momentum", "weight_decay")}
        return {"opt": name, **given, **({} if "foreach" in options else self._fused(name)), **options}

    def _remembered(self, hparams: Mapping[str, Any]) -> list[set[str]]:
        """What the optimizer remembers of a matrix and of a vector, after a step on two of its own.

        Most optimizers look at their options only in a step.
        """
        device = next(self.parameters()).device
        parameters = [nn.Parameter(torch.ones(shape, device=device)) for shape in ((4, 3, 2, 2), (4,))]
        groups = [{"params": [parameter]} for parameter in parameters]
        optimizer = create_optimizer_v2(groups, **self._settings(hparams))
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        return [set(optimizer.state[parameter]) for parameter in parameters]

    def _fused(self, name: str) -> dict[str, bool]:
        """Torch's fused form of the optimizer where there is one: nearly twice the speed of the other on a CPU."""
        signature = inspect.signature(get_optimizer_class(name, bind_defaults=False))
        # Lightning clips no gradients of it in mixed precision, nor does it unscale them
        precision = "32-true" if self._trainer is None else self.trainer.precision
        unfit = precision == "16-mixed" or ("mixed" in precision and bool(self.trainer.gradient_clip_val))
        return {"fused": True} if "fused" in signature.parameters and not unfit else {}

    def _divided(self, groups: Sequence[dict[str, Any]], hparams: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Timm's groups, of the head and, at their own learning rate, of the layers that are unfrozen later."""
        assert self._parts is not None
        later_lr = hparams["lr"] / 10 if hparams["unfreeze_lr"] is None else hparams["unfreeze_lr"]
        others = [part for name, child in self.named_children() if name != "network" for part in child.modules()]
        divided = []
        for modules, lr in (([*self._parts.head, *others], hparams["lr"]), (self._parts.later, later_lr)):
            numbers = {id(parameter): number for number, parameter in enumerate(own_parameters(*modules))}
            for is_matrix in (True, False):  # the order of earlier versions, for checkpoints
                for group in groups:
                    own = [value for value in group["params"] if id(value) in numbers and (value.ndim > 1) == is_matrix]
                    own.sort(key=lambda value: numbers[id(value)])
                    divided += [{**group, "params": own, "lr": lr}] if own else []
        return divided


def _parameters(optimizer: Optimizer) -> list[tuple[Tensor, bool]]:
    """In the order in which the optimizer's state numbers them, and whether Muon leaves each to AdamW."""
    groups = optimizer.param_groups
    return [(parameter, bool(group.get("use_fallback"))) for group in groups for parameter in group["params"]]
