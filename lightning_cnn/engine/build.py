"""`Config` to model, data and trainer, with the weights and the scaling of a checkpoint."""

import inspect
import os
import re
import secrets
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from jsonargparse import Namespace
from lightning_fabric.utilities.seed import seed_everything
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar as LightningProgressBar
from pytorch_lightning.core.mixins.hparams_mixin import _given_hyperparameters_context
from torch import Tensor

from lightning_cnn.cluster.launcher import check_numbers, launcher
from lightning_cnn.config.config import Config
from lightning_cnn.config.layers import BATCHES
from lightning_cnn.config.messages import class_named
from lightning_cnn.config.schema import facts_for, schema
from lightning_cnn.datamodules.base import DataModule
from lightning_cnn.datamodules.batches import check_shares
from lightning_cnn.engine.chosen import Chosen, callback_configs
from lightning_cnn.engine.finders.base import LIGHTNING_FINDERS, Finder
from lightning_cnn.engine.freezing import check_freezing
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.synced_norms import check_synced_norms
from lightning_cnn.engine.trainer import check_options, make_trainer
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError, check
from lightning_cnn.modules.averaging import check_averaging
from lightning_cnn.modules.base import STARTING_WEIGHTS, Task
from lightning_cnn.modules.optimization import OptimizedModule
from lightning_cnn.modules.transfer import TransferTask
from lightning_cnn.options import FACTS, IMAGE_FACTS
from lightning_cnn.plain_text import allow_style, check_experiment
from lightning_cnn.resume.checkpoint_file import data_state, preprocessing_of
from lightning_cnn.resume.checkpoints import Checkpoints
from lightning_cnn.resume.lightning_loops import limit_waiting
from lightning_cnn.resume.processes import process_rank
from lightning_cnn.tracking.progress import ProgressBar
from lightning_cnn.tracking.run import RunFolder


class Experiment:
    """The model and the data of a configuration, and what its trainer is made of.

    Args:
        config: The configuration.
        earlier: The run that goes on, if any.

    Attributes:
        config: The configuration, its seed sampled and its modes set.
        data: The data, with the preprocessing that the checkpoint carries.
        model: The model. Its weights are those of a beginning: the trainer loads those of the checkpoint.
        checkpoints: What keeps the best and the last checkpoint, where the kind of work trains.
        chosen: What chooses by a metric.

    Raises:
        UserError: If the configuration can't be used.
    """

    checkpoints: Checkpoints
    chosen: Chosen

    def __init__(self, config: Config, earlier: RunFolder | None = None) -> None:
        be_quiet()
        if config.kind.trains:
            self.chosen = Chosen(config, earlier)
            config = self.chosen.config
            _check_finders(config, earlier)
        is_task = issubclass(class_named(config["model"]["class_path"], LightningModule), Task)
        check_options(config["trainer"], is_task)
        if given := launcher():
            check_numbers(config["trainer"], given.processes, given.machines, given.name, given.name)
        config = self.config = _seeded(config)
        self._made = _made(config)
        self.data: Any = self._made["data"]
        self.model: Any = self._made["model"]
        scaled = getattr(self.model, "pretrained_preprocessing", None)
        if scaled and getattr(self.data, "normalize", None) == "auto":
            self.data.scale_by(scaled["mean"], scaled["std"], scaled.get("per_image", False))
        if config.kind.trains:
            self.checkpoints = self._made["checkpoint"]
        if config.checkpoint is not None:
            check_fit(self.model, config.checkpoint)
            saved = load_preprocessing(self.data, config.checkpoint)
            present = getattr(self.data, "class_names", ())
            if not config.kind.trains and saved and list(present) != list(saved):
                raise UserError(
                    f"the checkpoint's classes are {', '.join(saved[:5])}, ... but those of the data are "
                    f"{', '.join(present[:5])}, ...: use data with the same classes"
                )
            scaling = data_state(config.checkpoint, "scaling")
            if scaling is not None and hasattr(self.data, "scaling"):
                self.data.load_state_dict({"scaling": scaling})

    def trainer(self, **arguments: Any) -> Trainer:
        """A trainer of the configuration; arguments replace its own. The order of the callbacks stays."""
        given = self.config["trainer"]
        batches = {name: given[name] for name in BATCHES if type(given[name]) is int}  # the parser makes shares of them
        trainer = make_trainer(**{**self._made["trainer"].as_dict(), **batches, **arguments})
        if hasattr(self.data, "batch_size"):  # before the other processes start
            check_shares(self.data.batch_size, trainer.world_size)
        if self.config.kind.trains and isinstance(given["strategy"], str):
            limit_waiting(trainer, self.config["timeout_minutes"])
        return trainer

    def prepare(self, *stages: str) -> None:
        """Gets the data ready and reads them, in the first process alone."""
        if process_rank() == 0:
            self.data.prepare_data()
            with user_errors():
                for stage in stages:
                    self.data.setup(stage)

    def callbacks(self) -> list[Callback]:
        """The callbacks of the configuration that take part in the training."""
        return [each for each in self.extras("callbacks") if not isinstance(each, (Finder, *LIGHTNING_FINDERS))]

    def finders(self) -> list[Finder]:
        """The finders of the configuration."""
        return [each for each in self.extras("callbacks") if isinstance(each, Finder)]

    def extras(self, name: str) -> list[Any]:
        """The `callbacks`, `plugins` or loggers (`logger`) of the configuration, one or several."""
        found = self._made["trainer"][name]
        return list(found) if isinstance(found, list) else [found] if found and found is not True else []

    def without_finders(self) -> "Experiment":
        """Takes the finders out of the configuration; returns this experiment."""
        kinds, chosen = (Finder, *LIGHTNING_FINDERS), callback_configs(self.config.values)
        kept = [each for each in chosen if not issubclass(class_named(each["class_path"], Callback), kinds)]
        if len(kept) < len(chosen):
            self.set(trainer=self.config["trainer"] | {"callbacks": kept or None})
            self._made["trainer"]["callbacks"] = self.callbacks() or None
        return self

    def set(self, **values: Any) -> None:
        """Notes values that say where and after what something is made, not what."""
        self.config = replace(self.config, values=self.config.values | values)

    def check(self) -> None:
        """Refuses, before there is a trainer, what would end the training or make it choose by something else.

        Raises:
            UserError: If the optimizer, the schedule, the callbacks, what is to be frozen or synchronized batch
                normalization can't be used, or something would choose by a metric that does not exist, or by the worst
                value of one.
        """
        check_averaging(self.callbacks())
        check_freezing(self.callbacks(), self.model)
        if self.config["trainer"]["sync_batchnorm"]:
            check_synced_norms(self.model)
        if isinstance(self.model, OptimizedModule):
            given = self.config["trainer"]
            has_end = given["max_epochs"] != -1 or given["max_steps"] not in (None, -1) or given["fast_dev_run"]
            self.model.check_optimization(has_end=bool(has_end))
        if isinstance(self.model, TransferTask) and self.config.checkpoint is None:
            self.model.check_transfer()
        self.chosen.check(self.model, self.data, [self.checkpoints.best, *self.callbacks()])

    def bar(self) -> list[Callback]:
        """Our progress bar, unless there is to be none or another."""
        other = any(isinstance(callback, LightningProgressBar) for callback in self.callbacks())
        if other:
            allow_style()
        return [] if other or self.config["trainer"]["enable_progress_bar"] is False else [ProgressBar()]

    def name(self) -> str:
        """The field `experiment`, else the name of the configuration file, else `<data>_<architecture>`.

        Raises:
            UserError: If it can't be the name of a folder.
        """
        name = self.config["experiment"]
        if name is not None:
            check_experiment(name, "`experiment`")
            if not re.fullmatch(r"[\w.+-]+", name):
                raise UserError(f"`experiment` {name!r}: expected a folder name of letters, digits and . _ + -")
            return str(name)
        if self.config.stem is not None:
            return check_experiment(self.config.stem, "the name of the experiment, from that of its file,")
        data = type(self.data).__name__
        model = self.model.hparams.get("architecture", type(self.model).__name__)
        default = f"{data}_{model}".lower().replace(".", "_").replace("/", "_")
        return check_experiment(default, "the name of the experiment, from its data and its network,")


def build_data(config: Config, prepare: bool = True) -> Any:
    """The data of a configuration alone: nobody should wait for a network or its weights to look at images.

    Args:
        config: The configuration.
        prepare: Whether the files of the data must be there, or are downloaded.

    Raises:
        UserError: If they can't be made, or are missing.
    """
    be_quiet()
    data = _made(_seeded(config), data_alone=True)["data"]
    if config.checkpoint is not None:
        load_preprocessing(data, config.checkpoint)
    if prepare:
        data.prepare_data()
    return data


def _seeded(config: Config) -> Config:
    """Seeds all random number generators; returns the configuration, with the seed where a random one was asked for.

    Raises:
        UserError: If each of several processes would draw another one.
    """
    seed = config["seed_everything"]
    if seed is False:
        return config
    if seed is True and (given := launcher()) and given.processes * given.machines > 1:
        raise UserError("`seed_everything` true: several processes need the same seed; give a number")
    if seed is True:  # the processes that Lightning starts find it in the environment
        seed = int(os.environ["PL_GLOBAL_SEED"]) if process_rank() else secrets.randbelow(2**32)
    check("seed_everything", seed, least=0, most=2**32 - 1)
    seed_everything(seed, workers=True)
    return replace(config, values=config.values | {"seed_everything": seed})


def load_preprocessing(data: Any, checkpoint: dict[str, Any]) -> list[str]:
    """Gives the data the preprocessing of a checkpoint.

    Args:
        data: A data module.
        checkpoint: What the checkpoint holds.

    Returns:
        The names of the checkpoint's classes; none where it carries no preprocessing.
    """
    preprocessing = preprocessing_of(checkpoint)
    if preprocessing is None or not hasattr(data, "preprocessing"):
        return []
    data.load_state_dict({"preprocessing": preprocessing})
    return list(preprocessing.get("class_names") or [])


def _made(config: Config, data_alone: bool = False) -> Namespace:
    """The objects of a configuration; the data come first, and set facts of the model."""
    parser = schema(config.kind, facts_for(config["model"]["class_path"], config["data"]["class_path"]))
    fields = parser.parse_object(deepcopy(config.values))  # it changes lists in place
    model = Namespace(model=fields.pop("model"))  # type: ignore[no-untyped-call]
    if config.checkpoint is not None and (arguments := model["model"].get("init_args")):
        for name in STARTING_WEIGHTS.keys() & arguments.keys():  # the checkpoint has better weights
            arguments[name] = STARTING_WEIGHTS[name]
    facts: dict[str, Any] = {}  # none for the data themselves, which are made first
    for of, kind in (("model", LightningModule), ("data", LightningDataModule)):
        parser.add_instantiator(_remembering(of, config, facts), kind, subclasses=True)
    with user_errors():
        made: Namespace = parser.instantiate_classes(fields)
        if not data_alone:
            data = made["data"]
            facts |= data.facts() if isinstance(data, DataModule) else DataModule.facts(data)
            made["model"] = parser.instantiate_classes(model, instantiate_groups=False)["model"]
    return made


def _remembering(of: str, config: Config, facts: dict[str, Any]) -> Callable[..., Any]:
    """Makes a class such that checkpoints hold its path and all its arguments, as those of Lightning's command line."""

    def make(kind: type, *args: Any, **kwargs: Any) -> Any:
        part, taken = config.values[of], inspect.signature(kind).parameters.keys() & getattr(kind, "takes", FACTS)
        told = {name: value for name, value in facts.items() if name in taken}
        arguments = {**(part.get("init_args") or {}), **(part.get("dict_kwargs") or {}), **told}
        with _given_hyperparameters_context(
            {"_class_path": part["class_path"], **arguments}, "pytorch_lightning.cli.instantiate_module"
        ):
            return kind(*args, **kwargs | told)

    return make


def _check_finders(config: Config, earlier: RunFolder | None) -> None:
    """Refuses what a finder can't set, and Lightning's own finders, but in an older run that goes on."""
    settings = []
    for name in [each["class_path"] for each in callback_configs(config.values)]:
        kind = class_named(name, Callback)
        if issubclass(kind, LIGHTNING_FINDERS):
            if earlier is None:
                raise UserError(
                    f"`trainer.callbacks` {name}: Lightning's finder changes the training; use {kind.__name__} of "
                    "this package instead"
                )
        elif issubclass(kind, Finder):
            settings.append(kind.setting)
            of, _, key = kind.setting.partition(".")
            if key not in (config[of].get("init_args") or {}):
                owner = config[of]["class_path"].rpartition(".")[2]
                raise UserError(f"{kind.__name__} sets `{kind.setting}`, which {owner} does not have: remove it")
            if settings.count(kind.setting) > 1:
                raise UserError(f"`trainer.callbacks` {kind.__name__} is given twice: remove one")


def check_fit(model: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Says in one line why the weights of a checkpoint don't fit a model.

    Raises:
        UserError: If they don't.
    """
    have: dict[str, Tensor] = model.state_dict()
    saved: dict[str, Tensor] = checkpoint["state_dict"]
    if {name: value.shape for name, value in have.items()} == {name: value.shape for name, value in saved.items()}:
        return
    theirs, ours = _describe(checkpoint.get("hyper_parameters", {})), _describe(dict(model.hparams))
    if theirs == ours:
        names = sorted(have.keys() ^ saved.keys()) or [n for n in have if have[n].shape != saved[n].shape]
        raise UserError(f"the checkpoint does not fit the model: they differ in {names[0]} and {len(names) - 1} more")
    raise UserError(f"the checkpoint is of {theirs}, but asked for is {ours}: change `model`, `data` or `ckpt_path`")


def _describe(hparams: dict[str, Any]) -> str:
    architecture = hparams.get("architecture", str(hparams.get("_class_path", "another model")).rpartition(".")[2])
    if "window_length" in hparams:
        return f"{architecture} ({hparams.get('in_channels')} series in windows of {hparams['window_length']})"
    classes, channels, size = (hparams.get(name, "?") for name in IMAGE_FACTS)
    return f"{architecture} ({classes} classes, {channels}x{size}x{size} images)"
