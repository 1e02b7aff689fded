"""Composes model, data and trainer from the command line and YAML: LightningCLI, thinly subclassed."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse.typing import PositiveInt
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar as LightningProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from torch import Tensor

import lightning_cnn.datamodules
import lightning_cnn.modules
from lightning_cnn.callbacks import BestCheckpoint, LastCheckpoint, ProgressBar
from lightning_cnn.cluster.launcher import check_number, launcher
from lightning_cnn.config.parser import (
    LIGHTNING_CALLBACKS,
    ExperimentParser,
    all_given,
    config_files,
    last_given,
    limit_imports,
    option_values,
    without_option,
)
from lightning_cnn.config.trust import is_own, lies_in_run, note_origin
from lightning_cnn.config.user_code import find_user_code
from lightning_cnn.datamodules.batches import check_shares
from lightning_cnn.engine.chosen import Chosen, callback_configs
from lightning_cnn.engine.finders.base import LIGHTNINGS, Finder
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.sweep.settings import SweepSettings
from lightning_cnn.engine.trainer import make_trainer, whole_batches
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.measures import Settings
from lightning_cnn.evaluation.returns.month_split import MonthSplit
from lightning_cnn.modules.averaging import check_averaging
from lightning_cnn.plain_text import allow_style, check_experiment, check_text
from lightning_cnn.resume.checkpoints import Checkpoints
from lightning_cnn.tracking.checkpoint import class_and_arguments, data_state, preprocessing_of, read_checkpoint
from lightning_cnn.tracking.run import Run

# the data tells these to the model, where both have them
IMAGE_FACTS = ("num_classes", "in_channels", "image_size")
LINKED = (*IMAGE_FACTS, "lags", "window_length")
UNSET = 0  # stands for "not typed" in the configuration; no linked argument can be 0

TRAINING = ("train", "fit", "walkforward", "sweep")
STARTING_WEIGHTS: dict[str, Any] = {"pretrained": False, "weights": None}
MODELS = lightning_cnn.modules.__name__
PACKAGE = f"{lightning_cnn.__name__}."
# options that name a class or a network
NAMING = (
    *("model", "model.class_path", "model.architecture", "model.init_args.architecture"),
    *("data", "data.class_path", "trainer.callbacks", "trainer.callbacks+"),
)


class ExperimentCLI(LightningCLI):
    """Parses a command line, seeds, and makes the model and the data; the verb makes the trainer.

    It differs from LightningCLI in four ways. What a checkpoint says of model and data becomes the default, so that
    the command line wins over it. A value typed for an argument that the data sets is an error. Mistakes are one
    line. And there are no subcommands, because the verbs are ours.

    Args:
        verb: The verb of the command line.
        argv: The words behind it.
        check: Is given the whole configuration before anything is made of it, and may refuse it.
        earlier: The run that goes on, if any.

    Attributes:
        checkpoint: What `--ckpt_path` holds, None without one.
        checkpoints: What is kept of a run, where the verb trains.
        best: The callback that keeps the best checkpoint.
        last: The callback that keeps the last one.
        chosen: What chooses by a metric, where the verb trains.

    Raises:
        UserError: If the command line, a configuration file or the checkpoint can't be used.
    """

    def __init__(
        self,
        verb: str,
        argv: list[str],
        check: Callable[[dict[str, Any]], None] | None = None,
        earlier: Run | None = None,
    ) -> None:
        be_quiet()
        argv = self._take_names(argv)
        self.verb = verb
        self.check = check
        self.earlier = earlier
        self.checkpoint: dict[str, Any] | None = None
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=ExperimentParser,
            parser_kwargs={"prog": f"lightning-cnn {verb}", "allow_abbrev": False},
            trainer_defaults={"max_epochs": 10, "log_every_n_steps": 50},
            seed_everything_default=42,
            save_config_callback=None,
            auto_configure_optimizers=False,
            run=False,
            args=argv,
        )

    @staticmethod
    def _take_names(argv: list[str]) -> list[str]:
        """Lets the modules and the folder of runs that the user's own words name be used; returns the other words."""
        trusted, argv = option_values(argv, "--trust"), without_option(argv, "--trust")
        code = find_user_code(*trusted)
        files = config_files(argv)
        written = [file for file in files if not lies_in_run(file)]
        # in a run of somebody else such words are not typed, but ours, such as those of a fold
        typed = [] if code.foreign_config else option_values(argv, "--runs_dir")
        code.runs_dirs |= {*typed, *map(str, all_given([], "runs_dir", written))}
        for file in files:
            if file not in written:
                note_origin(file, is_config=True)
        own = [file for file in files if file in written or is_own(file)]
        names = [name for option in NAMING for value in all_given(argv, option, own) for name in _names(value)]
        find_user_code(*(name for name in names if "." in name and not name.startswith((PACKAGE, LIGHTNING_CALLBACKS))))
        limit_imports()
        return argv

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds our own options and the links from the data to the model."""
        add = parser.add_argument
        add("--ckpt_path", type=str | None, default=None, help="Checkpoint to go on from or to measure.")
        # --trust is taken from the words before: it belongs to one command, not to the configuration of a run
        if self.verb in TRAINING:
            add("--experiment", type=str | None, default=None, help="Name of the experiment; default: the file's.")
            add("--runs_dir", type=str | None, default=None, help="Folder of all runs; default runs/.")
            add("--tags", type=list[str], default=[], help="Tags for W&B.")
            add("--project", type=str, default="lightning_cnn", help="W&B project.")
            add(
                "--wandb",
                type=Literal["auto", "online", "offline", "disabled"],
                default="auto",
                help="auto: online where a W&B login is there, else offline.",
            )
            add(
                "--timeout_minutes",
                type=float,
                default=30.0,
                help="Minutes after which a process that does not answer is named and given up.",
            )
            parser.add_class_arguments(Checkpoints, "checkpoint")
        if self.verb == "walkforward":
            parser.add_class_arguments(MonthSplit)
            parser.add_class_arguments(Settings, skip={"seed", "trials"})
            add("--note", type=str | None, default=None, help="What must be read beside every number of the report.")
            add("--jobs", type=PositiveInt, default=1, help="Folds that are trained at the same time, in processes.")
        if self.verb == "sweep":
            parser.add_class_arguments(SweepSettings)
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the command line; what the checkpoint says is the default."""
        assert isinstance(parser, ExperimentParser)
        self._words = args
        self._default_model = model = _default_model(last_given(args, "data"))
        unset = {name: UNSET for name in LINKED if name in _parameters(model)}
        parser.set_defaults({"model": {"class_path": model, "init_args": unset}})
        path = last_given(args, "ckpt_path")
        check_text("--ckpt_path", option_values(args, "--ckpt_path"))
        if path is not None:
            self.checkpoint = read_checkpoint(path)
            self._defaults_from(parser, self.checkpoint)
        self.config = parser.parse(args)
        self._check_texts(args)
        self._whole = whole_batches(args)
        self._refuse_linked()
        self._check_kinds()
        if self.verb in TRAINING:
            named = [self.config["model"], *callback_configs(self.config)]
            kinds = [_class(named[0]["class_path"], LightningModule)]
            kinds += [_class(part["class_path"], Callback) for part in named[1:]]
            self.chosen = Chosen(self.config, kinds, parser, args, self.earlier)
            self._check_finders(args)
        if given := launcher():
            for name, usual, started in (("devices", "auto", given.processes), ("num_nodes", 1, given.machines)):
                check_number(name, self.config["trainer"][name], usual, started, given.name)

    def instantiate_classes(self) -> None:
        """Makes the data and the model; the trainer is made by the verb, with `instantiate_trainer`."""
        config = self.config
        if self.check is not None:
            self.check(self.resolved())
        if self.checkpoint is not None and config["model"].get("init_args"):
            config = config.clone()  # the checkpoint has better weights than those that its run began with
            for name, none in STARTING_WEIGHTS.items():
                if name in config["model"]["init_args"]:
                    config["model"]["init_args"][name] = none
        with mendable():
            self.config_init = self.parser.instantiate_classes(config)
        self.datamodule = self.config_init["data"]
        self.model = self.config_init["model"]
        scaled = getattr(self.model, "pretrained_preprocessing", None)
        if scaled and getattr(self.datamodule, "normalize", None) == "auto":
            self.datamodule.scale_by(scaled["mean"], scaled["std"])
        if self.verb in TRAINING:
            self.checkpoints: Checkpoints = self.config_init["checkpoint"]
            self.best: BestCheckpoint = self.checkpoints.best
            self.last: LastCheckpoint = self.checkpoints.last
        if self.checkpoint is not None:
            check_fit(self.model, self.checkpoint)
            preprocessing = preprocessing_of(self.checkpoint)
            if preprocessing is not None and hasattr(self.datamodule, "preprocessing"):
                self.datamodule.load_state_dict({"preprocessing": preprocessing})
                self._check_classes(preprocessing["class_names"], self.datamodule.class_names)
            scaling = data_state(self.checkpoint, "scaling")
            if scaling is not None and hasattr(self.datamodule, "scaling"):
                self.datamodule.load_state_dict({"scaling": scaling})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the trainer from the configuration and what the verb adds; the order of the callbacks stays."""
        trainer = make_trainer(**{**self.config_init["trainer"].as_dict(), **self._whole, **kwargs})
        if hasattr(self.datamodule, "batch_size"):  # before the other processes start
            check_shares(self.datamodule.batch_size, trainer.world_size)
        return trainer

    def user_callbacks(self) -> list[Callback]:
        """The callbacks of the configuration that take part in the training."""
        return [each for each in self._callbacks() if not isinstance(each, (Finder, *LIGHTNINGS))]

    def finders(self) -> list[Finder]:
        """The finders of the configuration."""
        return [each for each in self._callbacks() if isinstance(each, Finder)]

    def without_finders(self) -> "ExperimentCLI":
        """Takes the finders out of the configuration; returns this command line."""
        kinds, chosen = (Finder, *LIGHTNINGS), callback_configs(self.config)
        kept = [each for each in chosen if not issubclass(_class(each["class_path"], Callback), kinds)]
        if len(kept) < len(chosen):
            self.config["trainer"]["callbacks"] = kept or None
            self.config_init["trainer"]["callbacks"] = self.user_callbacks() or None
        return self

    def _callbacks(self) -> list[Callback]:
        chosen = self.config_init["trainer"]["callbacks"] or []
        return list(chosen) if isinstance(chosen, list) else [chosen]

    def check_metrics(self) -> None:
        """Refuses what would choose by a metric that does not exist, or by the worst value of one.

        Raises:
            UserError: If something would, or weights are averaged such that no checkpoint is measured with them.
        """
        check_averaging(self.user_callbacks())
        self.chosen.check(self.model, self.datamodule, [self.best, *self.user_callbacks()])

    def _check_finders(self, args: list[str]) -> None:
        """Refuses what a finder can't set, and Lightning's own finders, but in an older run that goes on."""
        settings = []
        for name in [each["class_path"] for each in callback_configs(self.config)]:
            kind = _class(name, Callback)
            if issubclass(kind, LIGHTNINGS):
                if self.earlier is None:
                    raise UserError(
                        f"--trainer.callbacks {name}: Lightning's own finder changes the training; use {kind.__name__} "
                        "instead"
                    )
                found = (self.checkpoint or {}).get("hyper_parameters", {}).get("lr")
                if issubclass(kind, LIGHTNINGS[0]) and found is not None and not option_values(args, "--model.lr"):
                    self.config["model"]["init_args"]["lr"] = found
            elif issubclass(kind, Finder):
                settings.append(kind.setting)
                of, _, key = kind.setting.partition(".")
                if key not in (self.config[of].get("init_args") or {}):
                    owner = self.config[of]["class_path"].rpartition(".")[2]
                    raise UserError(f"{kind.__name__} finds --{kind.setting}, which {owner} lacks: leave it out")
                if settings.count(kind.setting) > 1:
                    raise UserError(f"--trainer.callbacks {kind.__name__} is there twice: leave one out")

    def bar(self) -> list[Callback]:
        """Our progress bar, unless there is to be none or another."""
        other = any(isinstance(callback, LightningProgressBar) for callback in self.user_callbacks())
        if other:
            allow_style()
        return [] if other or self.config["trainer"]["enable_progress_bar"] is False else [ProgressBar()]

    def _check_classes(self, saved: list[str], present: tuple[str, ...]) -> None:
        if self.verb not in TRAINING and saved and list(present) != list(saved):
            raise UserError(
                f"the checkpoint's classes are {', '.join(saved[:5])}, ... but those of the data are "
                f"{', '.join(present[:5])}, ...: the numbers would mean nothing; take data with the same classes"
            )

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain data; a training with it as `--config` is the same again."""
        dumped: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_none=False, format="yaml"))
        dumped["trainer"] |= self._whole
        return dumped

    def _defaults_from(self, parser: LightningArgumentParser, checkpoint: dict[str, Any]) -> None:
        for of in ("model", "data"):
            try:
                known = class_and_arguments(checkpoint, of)
            except UserError:
                if last_given(self._words, of) is None:
                    raise
                continue  # another class has been typed
            if known is None:
                continue
            class_path, arguments = known
            if of == "model":
                arguments = {name: UNSET if name in LINKED else value for name, value in arguments.items()}
            parser.set_defaults({of: {"class_path": class_path, "init_args": arguments}})

    def _check_texts(self, argv: list[str]) -> None:
        """Refuses control characters in names and paths; the options of a user's own class may hold any text."""
        check_text("--config", config_files(argv))
        for name, value in _texts(self.config.as_dict()):
            check_text(f"--{name}", value)

    def _refuse_linked(self) -> None:
        model = self.config["model"]
        arguments = model.get("init_args") or {}
        data = _class(self.config["data"]["class_path"], LightningDataModule)
        for name in LINKED:
            if name not in IMAGE_FACTS and not hasattr(data, name):
                continue
            value, parameters = arguments.get(name, UNSET), _parameters(model["class_path"])
            usual = parameters[name].default if name in parameters else UNSET
            if value not in (UNSET, UNSET if model["class_path"] == self._default_model else usual):
                raise UserError(
                    f"--model.{name} {value}: the data says this to the model; leave it out"
                    + (", or set --data.image_size" if name == "image_size" else "")
                )

    def _check_kinds(self) -> None:
        """Windows of returns are no images: says so before a network meets them."""
        data = _class(self.config["data"]["class_path"], LightningDataModule)
        model = _class(self.config["model"]["class_path"], LightningModule)
        has_windows = hasattr(data, "window_length")
        reads_windows = "window_length" in inspect.signature(model).parameters
        if has_windows and not reads_windows and "image_size" in inspect.signature(model).parameters:
            raise UserError(
                f"{model.__name__} learns from images, and {data.__name__} has windows of returns: "
                "add --model ReturnClassifier"
            )


@contextmanager
def mendable() -> Iterator[None]:
    """Turns what Lightning and jsonargparse say of a user's mistake into a `UserError`."""
    try:
        yield
    except UserError as error:  # or one of its kinds
        # one from a process that reads ahead comes with its traceback
        raise type(error)(re.split(r"(?:User|Storage)Error: ", str(error))[-1].strip()) from None
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from None
    except (TypeError, ValueError) as error:  # jsonargparse wraps what a constructor raises
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise UserError(str(cause)) from None


def _names(value: object) -> Iterator[str]:
    """The classes and networks that the value of an option names, in any form in which it can be given."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for element in value:
            yield from _names(element)
    elif isinstance(value, dict):
        for key in ("class_path", "architecture", "init_args"):
            yield from _names(value.get(key))


def _texts(config: object, name: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a configuration, each with its option, but notes and what is in the options of users' classes."""
    if isinstance(config, str | Path):
        yield name, str(config)
    elif isinstance(config, list):
        for element in config:
            yield from _texts(element, name)
    elif isinstance(config, dict):
        theirs = not str(config.get("class_path", PACKAGE)).startswith((PACKAGE, "pytorch_lightning."))
        for key, value in config.items():
            if key != "note" and not (theirs and key == "init_args"):
                yield from _texts(value, name if key == "init_args" else f"{name}.{key}".lstrip("."))


def _parameters(class_path: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(_class(class_path, LightningModule)).parameters


def _default_model(data: Any) -> str:
    """The module that learns from data of ours where no other is named."""
    name = str(data.get("class_path") if isinstance(data, dict) else data).rpartition(".")[2]
    kind = getattr(lightning_cnn.datamodules, name, None)
    return f"{MODELS}.{getattr(kind, 'default_model', 'ImageClassifier')}"


def _class(class_path: str, kind: type) -> type:
    """A class in the configuration; to the parser, a function that returns one would be the same."""
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, type) or not issubclass(found, kind):
        raise UserError(f"{class_path} is not a subclass of {kind.__name__}; name one, such as my_file.MyClass")
    return found


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
    raise UserError(f"the checkpoint is of {theirs}, but asked for is {ours}: change --model, --data or --ckpt_path")


def _describe(hparams: dict[str, Any]) -> str:
    architecture = hparams.get("architecture", str(hparams.get("_class_path", "another model")).rpartition(".")[2])
    if "window_length" in hparams:
        return f"{architecture} ({hparams.get('in_channels')} series in windows of {hparams['window_length']})"
    classes, channels, size = (hparams.get(name, "?") for name in IMAGE_FACTS)
    return f"{architecture} ({classes} classes, {channels}x{size}x{size} images)"


def experiment_name(cli: ExperimentCLI, argv: list[str]) -> str:
    """`--experiment`, else the name of the configuration file, else `<data>_<architecture>`."""
    name = cli.config["experiment"]
    if name is not None:
        check_experiment(name, "--experiment")
        if not re.fullmatch(r"[\w.+-]+", name):
            raise UserError(f"--experiment {name!r}: it names a folder, so use letters, digits and . _ + - only")
        return str(name)
    for file in config_files(argv)[-1:]:
        return check_experiment(Path(file).stem, "the name of the experiment, from that of its file,")
    data = str(cli.config["data"]["class_path"]).rpartition(".")[2]
    model = cli.model.hparams.get("architecture", type(cli.model).__name__)
    return f"{data}_{model}".lower().replace(".", "_").replace("/", "_")
