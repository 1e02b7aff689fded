"""Lightning's training step without what its hooks cost where nobody listens, a millisecond a step.

Private state of Lightning's loops is touched here and in `lightning_loops`. Tested with pytorch-lightning 2.6.6.
"""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.trainer.connectors.logger_connector.result import _ResultCollection
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

# hooks in the course of a step, in their order; callbacks come before the module
HOOKS = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_batch_end"),
)
# what a module may do in its own way; then Lightning's step is taken
REPLACEABLE = (
    *("on_train_batch_start", "optimizer_step", "optimizer_zero_grad", "backward", "configure_gradient_clipping"),
)
TRANSFER = "transfer_batch_to_device"


def shorten_steps(trainer: Trainer) -> None:
    """Lets a trainer take the short step wherever it does the same as Lightning's.

    Args:
        trainer: A new trainer.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = ShortSteps(trainer, loop.min_steps, loop.max_steps)


class ShortSteps(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, whose step calls nothing but the hooks that somebody has defined.

    The order of all that happens is Lightning's. Where a step is another one, as with gradients that are gathered, a
    profiler, manual optimization, loss scaling, or a strategy of its own kind, Lightning's is taken.
    """

    _is_short = False

    def __init__(self, trainer: Trainer, min_steps: int | None, max_steps: int) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self._results: _Results = _Results(training=True)

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Looks, before the first batch of an epoch, who has hooks."""
        super().on_run_start(data_fetcher)
        self._is_short = isinstance(data_fetcher, _PrefetchDataFetcher) and self._does_the_same()
        if not self._is_short:
            return
        data_fetcher._start_profiler = data_fetcher._stop_profiler = _nothing
        trainer: Any = self.trainer
        module = trainer.lightning_module
        self._of_callbacks = {name: _listeners(name, trainer.callbacks, Callback) for name in HOOKS}
        self._of_module = {name: getattr(module, name) for name in HOOKS if is_overridden(name, module)}
        self._takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        hooks = trainer._data_connector._datahook_selector
        owner = {name: hooks.get_instance(name) for name in hooks._valid_hooks}
        self._batch_hooks = [
            (getattr(owner[name], name), (trainer.strategy.root_device,) * (name == TRANSFER))
            for name in hooks._valid_hooks
            if is_overridden(name, owner[name]) or (name == TRANSFER and trainer.strategy.root_device.type != "cpu")
        ]

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Trains on one batch."""
        if not self._is_short or self.restarting:
            super().advance(data_fetcher)
            return
        trainer: Any = self.trainer
        progress, connector, results = self.batch_progress, trainer._logger_connector, self._results
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        for hook, device in self._batch_hooks:
            batch = hook(batch, *device, 0)
        progress.increment_ready()
        connector.on_batch_start(batch)
        self._call("on_train_batch_start", batch, batch_idx)
        progress.increment_started()
        outputs: dict[str, Any] = {}
        optimizer, steps = trainer.optimizers[0], self.automatic_optimization.optim_progress.optimizer.step
        steps.increment_ready()
        optimizer.step(lambda: self._closure(batch, batch_idx, optimizer, outputs))
        steps.increment_completed()
        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._call("on_train_batch_end", outputs, batch, batch_idx)
        if results.has_news:
            results.has_news = False
            connector.on_batch_end()
        else:
            results.batch = results.batch_size = None
        progress.increment_completed()
        connector.update_train_step_metrics()

    @torch.enable_grad()
    def _closure(self, batch: Any, batch_idx: int, optimizer: Any, outputs: dict[str, Any]) -> Tensor | None:
        """Loss and gradients; fills the outputs of the training step."""
        trainer: Any = self.trainer
        module, zero_grad = trainer.lightning_module, self.automatic_optimization.optim_progress.optimizer.zero_grad
        module.__dict__["_current_fx_name"] = "training_step"
        output = trainer.strategy.training_step(batch, *((batch_idx,) if self._takes_index else ()))
        found = output if isinstance(output, dict) else {"loss": output}
        loss: Tensor | None = found["loss"]
        zero_grad.increment_ready()
        self._call("on_before_zero_grad", optimizer)
        zero_grad.increment_started()
        optimizer.zero_grad()
        zero_grad.increment_completed()
        if loss is not None:
            outputs |= found | {"loss": loss.detach()}
            trainer.strategy.pre_backward(loss)
            self._call("on_before_backward", loss)
            loss.backward()
            self._call("on_after_backward")
            trainer.strategy.post_backward(loss)
        self._call("on_before_optimizer_step", optimizer)
        if trainer.gradient_clip_val is not None:
            algorithm = trainer.gradient_clip_algorithm
            module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, algorithm)
        return outputs.get("loss")

    def _call(self, name: str, *args: Any) -> None:
        of_callbacks, of_module = self._of_callbacks[name], self._of_module.get(name)
        if not of_callbacks and of_module is None:
            return
        trainer: Any = self.trainer
        module = trainer.lightning_module
        module.__dict__["_current_fx_name"] = name  # nn.Module looks at what it is given, which takes longer
        for hook in of_callbacks:
            hook(trainer, module, *args)
        if of_module is not None:
            of_module(*args)
        module.__dict__["_current_fx_name"] = None

    def _does_the_same(self) -> bool:
        """Whether the short step would do what Lightning's does."""
        trainer: Any = self.trainer
        module, precision = trainer.lightning_module, trainer.precision_plugin
        return (
            type(trainer.profiler) is PassThroughProfiler
            and type(trainer.strategy) in (SingleDeviceStrategy, DDPStrategy)
            and type(precision) in (Precision, MixedPrecision)
            and getattr(precision, "scaler", None) is None
            and module.automatic_optimization
            and len(trainer.optimizers) == 1
            and trainer.accumulate_grad_batches == 1
            and not trainer.fast_dev_run
            and not self.automatic_optimization._skip_backward
            and not any(is_overridden(name, module) for name in REPLACEABLE)
        )


class _Results(_ResultCollection):
    """What is logged; knows whether there is any since the last step."""

    has_news = False

    def log(self, *args: Any, **options: Any) -> None:
        self.has_news = True
        super().log(*args, **options)


def _listeners(name: str, callbacks: list[Callback], base: type) -> list[Callable[..., None]]:
    """The hooks of a name that callbacks have defined, or were given."""
    found = [getattr(callback, name) for callback in callbacks]
    return [hook for hook in found if getattr(hook, "__func__", None) is not getattr(base, name) and callable(hook)]


def _nothing() -> None:
    """Does nothing."""
