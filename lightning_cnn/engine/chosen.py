"""Sets the mode of the checkpoint and of callbacks that monitor a metric to its declared direction."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden

from lightning_cnn.config.config import Config
from lightning_cnn.config.messages import class_named
from lightning_cnn.evaluation.directions import Direction, declared, direction_of
from lightning_cnn.notes import say
from lightning_cnn.resume.processes import process_rank
from lightning_cnn.tracking.monitors import CALLBACKS, CHECKPOINT, KnownMetrics, monitors_of
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.throughput import Throughput


class Chosen:
    """Sets each mode that was not given to what the module or a callback declares of the metric.

    Lightning's `EarlyStopping` and `ModelCheckpoint` take the least value for the best unless told otherwise; only what
    was given tells whether they were.

    Args:
        config: The configuration.
        earlier: The run that goes on. One from before its record said which way metrics are better may have been made
            with Lightning's default, which nobody typed: it is put right.

    Attributes:
        config: The configuration with all modes set.
        known: What is known of the metrics, once checked.
        monitors: What chooses by one of them, once checked.
        corrected: The modes that were put right, named as in the flat settings.
    """

    known: KnownMetrics

    def __init__(self, config: Config, earlier: RunFolder | None) -> None:
        self.config = replace(config, values=deepcopy(config.values))
        values = self.config.values
        self.corrected: set[str] = set()
        self._corrects = earlier is not None and earlier.record.better is None
        checkpoint, callbacks = values["checkpoint"], callback_configs(values)
        kinds = [class_named(values["model"]["class_path"], LightningModule)]
        kinds += [class_named(part["class_path"], Callback) for part in callbacks]
        self._better = declared(*kinds, Throughput)
        # what the run has logged before
        self.logged = (
            [*earlier.record.metrics, *earlier.record.last] if earlier is not None and earlier.record.epochs else []
        )
        self._open: set[tuple[str, str]] = set()  # of these nothing says which way they are better
        self._settle(CHECKPOINT, "checkpoint", checkpoint, checkpoint["mode"])
        if not any(_monitors(_options(callback)) for callback in callbacks):
            return
        for callback, given in zip(callbacks, callback_configs(config.given), strict=True):
            options = _options(callback)
            if not _monitors(options):
                continue
            kind = str(callback["class_path"]).rpartition(".")[2]
            self._settle(CALLBACKS, kind, options, _options(given).get("mode") if isinstance(given, dict) else None)
            for name in ("check_on_train_epoch_end", "save_on_train_epoch_end"):
                # where Lightning looks after each validation, a metric of the training is none or an old one
                if options["monitor"].startswith("train/") and options.get(name, False) is None:
                    options[name] = True

    def _settle(self, option: str, name: str, options: Any, typed: Direction | None) -> None:
        metric: str = options["monitor"]
        direction = direction_of(metric, self._better)
        if direction is None:
            if typed is None:
                self._open.add((option, metric))
        elif typed is None or (self._corrects and typed != direction):
            options["mode"] = direction
            if typed is None:
                return
            self.corrected.add(f"{name}.mode")
            if process_rank() == 0:
                say(f"`{option}.mode` {typed} is wrong for {metric}; resuming with {direction}")

    def check(self, module: LightningModule, data: LightningDataModule, callbacks: Sequence[Callback]) -> None:
        """Refuses what would choose by a metric that does not exist, or by the worst value of one.

        Args:
            module: The module.
            data: The data.
            callbacks: All callbacks that may choose.

        Raises:
            UserError: If something would.
        """
        self.known = KnownMetrics.of(module, [*callbacks, Throughput()], self._unvalidated(module, data), self.logged)
        self.monitors = monitors_of(callbacks)
        for monitor in self.monitors:
            is_open = (monitor.option, monitor.metric) in self._open
            self.known.check(replace(monitor, mode=None) if is_open else monitor)

    def better(self) -> dict[str, Direction | None]:
        """Which way the metrics of the run are better: as declared, else as typed."""
        return {monitor.metric: monitor.mode for monitor in self.monitors} | dict(self.known.better)

    def _unvalidated(self, module: LightningModule, data: LightningDataModule) -> str:
        """Why there is no validation; empty where there is one."""
        trainer = self.config["trainer"]
        if not is_overridden("validation_step", module):
            return f"the missing validation_step of {type(module).__name__}"
        if not is_overridden("val_dataloader", data) and not is_overridden("val_dataloader", module):
            return f"the missing val_dataloader of {type(data).__name__}"
        if trainer["fast_dev_run"]:
            return ""
        if trainer["limit_val_batches"] == 0:
            return "`trainer.limit_val_batches` 0"
        return ""


def callback_configs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The callbacks of a configuration, each with its `class_path`."""
    found = (values.get("trainer") or {}).get("callbacks") or []
    return list(found) if isinstance(found, list) else [found]


def _options(callback: Mapping[str, Any]) -> Any:
    return callback.get("init_args") or {}


def _monitors(options: Any) -> bool:
    return isinstance(options.get("monitor"), str) and options.get("mode") in ("min", "max")
