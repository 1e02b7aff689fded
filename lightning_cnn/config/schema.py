"""The fields of an experiment, by the kind of work, and the one parser of words, YAML files and dicts."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, NamedTuple, NoReturn

import yaml
from jsonargparse import Namespace, _typehints, set_parsing_settings
from jsonargparse._actions import ActionConfigFile
from jsonargparse._common import default_import_path_denylist, parsing_settings
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser

import lightning_cnn.datamodules
import lightning_cnn.modules
from lightning_cnn.config.messages import one_line
from lightning_cnn.config.user_code import PACKAGE, user_code
from lightning_cnn.errors import UserError
from lightning_cnn.resume.checkpoints import Checkpoints

OURS, LIGHTNINGS = f"{PACKAGE}.", "pytorch_lightning."
LIGHTNING_CALLBACKS = "pytorch_lightning.callbacks"
# facts that the data sets in the model, where both have them
IMAGE_FACTS = ("num_classes", "in_channels", "image_size")
LINKED = (*IMAGE_FACTS, "lags", "window_length")
UNSET = 0  # stands for "not given"; no fact can be 0


class Group(NamedTuple):
    """Fields that a kind of work adds, declared as the arguments of a class.

    Attributes:
        options: The class.
        skip: Arguments that are not fields.
    """

    options: type
    skip: frozenset[str] = frozenset()


class Kind(NamedTuple):
    """A kind of work, and the fields that its configurations have.

    Attributes:
        name: Its verb.
        trains: Whether it trains, and has the fields of tracking and of checkpoints.
        groups: Further fields.
    """

    name: str
    trains: bool = True
    groups: tuple[Group, ...] = ()


TRAIN, FIT = Kind("train"), Kind("fit")
VALIDATE, TEST = Kind("validate", trains=False), Kind("test", trains=False)


class SchemaParser(LightningArgumentParser):
    """Lightning's parser; its errors are raised as `UserError`, in jsonargparse's words."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the message: it may be that of a part of a larger field."""
        raise UserError(message)

    def parse(self, layers: Sequence[dict[str, Any]], words: Sequence[str] = ()) -> Namespace:
        """Merges layers and words, the later over the earlier, and checks the result.

        Args:
            layers: Plain data.
            words: Words of a command line, typed over the layers.

        Returns:
            The fields with defaults.

        Raises:
            UserError: In one line that names the field and the nearest valid names.
        """
        try:
            return self.parse_args([*_as_words(layers), *words])
        except UserError as error:
            fields = [name.removeprefix("--") for action in self._actions for name in action.option_strings]
            raise UserError(one_line(str(error), fields)) from None

    def given(self, layers: Sequence[dict[str, Any]], words: Sequence[str]) -> dict[str, Any]:
        """What layers and words say, without any default; only for those that `parse` has accepted."""
        # of jsonargparse 4.53: without defaults, what is required would seem to be missing
        found = self.parse_args([*_as_words(layers), *words], defaults=False, _skip_validation=True).as_dict()
        return {name: value for name, value in found.items() if name != "config"}


def _as_words(layers: Sequence[dict[str, Any]]) -> list[str]:
    """The layers as jsonargparse takes them: the merging is its own, which knows the arguments of each class."""
    return [f"--config={yaml.dump(layer, Dumper=yaml.CSafeDumper, sort_keys=False)}" for layer in layers]


def schema(kind: Kind) -> SchemaParser:
    """The parser of a kind of work; it holds the defaults of one load, so each load makes its own."""
    parser = SchemaParser(prog=f"lightning-cnn {kind.name}", allow_abbrev=False)
    add = parser.add_argument
    add("-c", "--config", action=ActionConfigFile, help="Path to a configuration file in YAML format.")
    add("--seed_everything", type=bool | int, default=42, help="Seed of every random draw; true: a random one.")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults({"trainer.max_epochs": 10, "trainer.log_every_n_steps": 50})
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    add("--ckpt_path", type=str | None, default=None, help="Checkpoint to go on from or to measure.")
    if kind.trains:
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
    for group in kind.groups:
        parser.add_class_arguments(group.options, skip=set(group.skip))
    for name in LINKED:
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    return parser


def default_model(data: Any) -> str:
    """Class path of the module that learns from data of ours where no other is named.

    Args:
        data: The data as they are given: a name, or a dict with a `class_path`.
    """
    name = str(data.get("class_path") if isinstance(data, dict) else data).rpartition(".")[2]
    kind = getattr(lightning_cnn.datamodules, name, None)
    return f"{lightning_cnn.modules.__name__}.{getattr(kind, 'default_model', 'ImageClassifier')}"


def limit_imports() -> None:
    """Says what a configuration may name: nothing that runs programs, and in somebody else's ours alone.

    jsonargparse knows what of the standard library runs programs or code. It would also instantiate any class that a
    dictionary of free form names, such as `architecture_options`; here such a dictionary is data.
    """
    code = user_code()
    denied = dict.fromkeys(default_import_path_denylist, False)
    parsing_settings["import_path_verdicts"] = denied  # private (4.53): otherwise an entry can't be taken back
    allowed = [name for name in (PACKAGE, LIGHTNING_CALLBACKS, *code.names) if name.split(".")[0] not in denied]
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"] if code.foreign_config else [],
        import_path_allowlist=[name for name in allowed if all(part.isidentifier() for part in name.split("."))],
    )


def _ours_first(all_paths: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Lets a name that a class of ours and one of Lightning's have in common mean ours, which jsonargparse refuses."""

    @wraps(all_paths)
    def paths(*args: Any, **kwargs: Any) -> list[str]:
        found = all_paths(*args, **kwargs)
        ours = {path.rpartition(".")[2] for path in found if path.startswith(OURS)}
        return [path for path in found if not (path.startswith(LIGHTNINGS) and path.rpartition(".")[2] in ours)]

    return paths


_typehints.get_all_subclass_paths = _ours_first(_typehints.get_all_subclass_paths)
