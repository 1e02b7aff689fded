"""The optimizer and the schedule of the learning rate, by name: what all modules have in common."""

import fnmatch
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
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
# options of an optimizer that change none of what it remembers, and those that are no options
KEEPING = {"betas", "eps", "alpha", "nesterov", "foreach", "fused", "layer_decay", "layer_decay_min_scale"}
KEEPING |= {"fallback_list", "fallback_no_weight_decay", "fallback_lr_scale", "adjust_lr_fn", "ns_steps"}
REFUSED = {"opt", "param_group_fn", "layer_decay_no_opt_scale"}
ENDLESS = "a schedule needs a fixed length: set `trainer.max_epochs` or `trainer.max_steps`"
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
        hparams = self.hparams
        optimizer = self.make_optimizer(hparams)
        self._try_step()
        if not _is_scheduled(hparams):
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

    def check_optimization(self, has_end: bool) -> None:
        """Makes the optimizer for a trial; a task that makes its own is left alone.

        Args:
            has_end: Whether epochs or steps end the training.

        Raises:
            UserError: If the optimizer is unknown or does not take its options, or the schedule has no end.
        """
        if type(self).configure_optimizers is not OptimizedModule.configure_optimizers:
            return
        self.make_optimizer(self.hparams)
        self._try_step()
        if _is_scheduled(self.hparams) and not has_end:
            raise UserError(ENDLESS)

    def make_optimizer(self, hparams: Mapping[str, Any]) -> Optimizer:
        """Makes the optimizer by name from hyperparameters.

        Raises:
            UserError: If it is unknown or does not take its options.
        """
        name = hparams["optimizer"]
        frozen = [parameter for parameter in self.parameters() if self._parts and not parameter.requires_grad]
        try:
            settings = self._settings(hparams)
            for parameter in frozen:
                parameter.requires_grad_(True)  # timm would leave out what is unfrozen later
            optimizer: Optimizer = create_optimizer_v2(self, **settings)
            if self._parts:
                optimizer = create_optimizer_v2(self._divided(optimizer.param_groups, hparams), **settings)
        except (TypeError, ValueError, AssertionError, ImportError, RuntimeError) as error:
            raise _refused(name, error) from None
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
        for group in optimizer.param_groups if not _is_scheduled(hparams) else ():
            group["lr"] *= group.pop("lr_scale", 1.0)  # of `layer_decay`; timm's schedules apply it themselves
        return optimizer

    def _try_step(self) -> None:
        """Takes a step on parameters of its own: most optimizers look at their options only there.

        Raises:
            UserError: If the optimizer does not take them.
        """
        device = next(self.parameters()).device
        parameters = [nn.Parameter(torch.ones(shape, device=device)) for shape in ((4, 3, 2, 2), (4,))]
        optimizer = create_optimizer_v2([{"params": [each]} for each in parameters], **self._settings(self.hparams))
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        try:
            optimizer.step()
        except Exception as error:  # of as many kinds as there are optimizers
            raise _refused(self.hparams["optimizer"], error) from None

    def _patterns(self, given: str | Sequence[str]) -> list[str]:
        """The patterns of a `fallback_list`.

        Raises:
            UserError: If one matches no parameter.
        """
        if isinstance(given, str):  # as `[*head*]`, which is no YAML, from the command line
            given = [text.strip(" '\"") for text in given.removeprefix("[").removesuffix("]").split(",")]
        patterns = [*given]
        names = [name for name, _ in self.named_parameters()]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise UserError(
                    f"`model.optimizer_options.fallback_list` {pattern!r} matches no parameter of "
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
                "`model.optimizer_options.layer_decay` requires a network with timm's group_matcher(), but "
                f"{type(self.network).__name__} has none: remove it"
            )
        own = group_parameters(self.network, self.network.group_matcher(coarse=coarse), reverse=True)  # type: ignore[operator]
        layers, head = {f"network.{name}": layer for name, layer in own.items()}, max(own.values())
        return lambda name: layers.get(name, head)

    def updates(self) -> tuple[float, int]:
        """Number of optimizer steps in the run and in an epoch.

        Raises:
            UserError: If the run has no end.
        """
        self.trainer.fit_loop.setup_data()  # else an epoch's batches are not counted where only steps end the run
        updates = self.trainer.estimated_stepping_batches
        if math.isinf(updates):
            raise UserError(ENDLESS)
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
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING or "optimizer_states" not in checkpoint:
            return
        schedules = checkpoint.get("lr_schedulers", [])
        checkpoint["lr_schedulers"] = [{} if "param_group_field" in saved else saved for saved in schedules]  # timm's
        if type(self).configure_optimizers is not OptimizedModule.configure_optimizers:
            return  # the subclass has an optimizer of its own
        saved = checkpoint.get("hyper_parameters", {})
        changed = {name for name in (*OPTIMIZATION, *SCHEDULE) if saved.get(name) != self.hparams.get(name)}
        fresh, state = self.make_optimizer(self.hparams), checkpoint["optimizer_states"][0]
        if not changed and _layout(fresh.param_groups) == _layout(state["param_groups"]):
            return
        fresh_state = fresh.state_dict()
        counters = {name: value for name, value in state["param_groups"][0].items() if name == "step"}  # as of Adan
        fresh_state["param_groups"] = [{**counters, **group} for group in fresh_state["param_groups"]]
        moments = self._moments(state, {**self.hparams, **saved}, fresh)
        checkpoint["optimizer_states"] = [{**fresh_state, "state": {**fresh_state["state"], **moments}}]

    def _moments(self, state: dict[str, Any], saved: Mapping[str, Any], fresh: Optimizer) -> dict[int, Any]:
        """What a fresh optimizer may keep of the moments of a checkpoint, by its own numbers of the parameters.

        Args:
            state: The state of the saved optimizer.
            saved: Its hyperparameters.
            fresh: The optimizer of the training that goes on.
        """
        before, after = (hparams["optimizer_options"] or {} for hparams in (saved, self.hparams))
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if saved["optimizer"] != self.hparams["optimizer"] or changed - KEEPING:
            return {}
        try:
            earlier = self.make_optimizer(saved)
        except UserError:  # which this version refuses
            return {}
        if _layout(earlier.param_groups) != _layout(state["param_groups"]):
            rank_zero_warn("the checkpoint's optimizer groups the parameters in another way: its moments start at zero")
            return {}
        # another weight decay numbers the parameters anew, and Muon may train others
        places = {id(parameter): (number, flag) for number, (parameter, flag) in enumerate(_parameters(fresh))}
        kept = {}
        for number, (parameter, flag) in enumerate(_parameters(earlier)):
            place, is_fallback = places.get(id(parameter), (0, None))
            if is_fallback == flag and number in state["state"]:
                kept[place] = state["state"][number]
        return kept

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
        given = {option: hparams[option] for option in ("lr", "momentum", "weight_decay")}
        if wrong := sorted(options.keys() & (given.keys() | REFUSED)):
            cure = f"set `model.{wrong[0]}`" if wrong[0] in given else "remove it"
            raise UserError(f"`model.optimizer_options.{wrong[0]}` is not an option: {cure}")
        if "fallback_list" in options:
            options["fallback_list"] = self._patterns(options["fallback_list"])
        return {"opt": name, **given, **({} if "foreach" in options else self._fused(name)), **options}

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
        others.append(self)
        divided = []
        for modules, lr in (([*self._parts.head, *others], hparams["lr"]), (self._parts.later, later_lr)):
            numbers = {id(parameter): number for number, parameter in enumerate(own_parameters(*modules))}
            for is_matrix in (True, False):  # the order of earlier versions, for checkpoints
                for group in groups:
                    own = [value for value in group["params"] if id(value) in numbers and (value.ndim > 1) == is_matrix]
                    own.sort(key=lambda value: numbers[id(value)])
                    divided += [{**group, "params": own, "lr": lr}] if own else []
        return divided


def _is_scheduled(hparams: Mapping[str, Any]) -> bool:
    """Whether the learning rate changes in the course of the training."""
    return hparams["schedule"] != "none" or bool(hparams["warmup_epochs"])


def _refused(name: str, error: Exception) -> UserError:
    return UserError(f"`model.optimizer` {name} does not accept these settings ({first_line(error)})")


def _layout(groups: Sequence[Mapping[str, Any]]) -> list[tuple[int, bool]]:
    """How many parameters each group has, and whether Muon leaves them to AdamW."""
    return [(len(group["params"]), bool(group.get("use_fallback"))) for group in groups]


def _parameters(optimizer: Optimizer) -> list[tuple[Tensor, bool]]:
    """In the order in which the optimizer's state numbers them, and whether Muon leaves each to AdamW."""
    groups = optimizer.param_groups
    return [(parameter, bool(group.get("use_fallback"))) for group in groups for parameter in group["params"]]
