"""The fields of an experiment, by the kind of work, and the one parser of words, YAML files and dicts."""

import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, suppress
from copy import deepcopy
from functools import cache, partial, wraps
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NoReturn
from unittest import mock

import yaml
from jsonargparse import Namespace, _typehints, get_loader, set_loader, set_parsing_settings
from jsonargparse._actions import ActionConfigFile
from jsonargparse._common import default_import_path_denylist, parsing_settings
from jsonargparse._util import import_object
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser

import lightning_cnn.datamodules
import lightning_cnn.modules
from lightning_cnn.config.messages import CALLBACKS, one_line, shortened
from lightning_cnn.errors import UserError
from lightning_cnn.options import FACTS, IMAGE_FACTS
from lightning_cnn.plain_yaml import RefusedYAMLError, load_yaml, problem
from lightning_cnn.resume.checkpoints import Checkpoints
from lightning_cnn.user_code import PACKAGE, user_code

set_loader(PACKAGE, partial(load_yaml, load=get_loader("yaml")), (yaml.YAMLError,))
OURS, LIGHTNING_FINDERS = f"{PACKAGE}.", "pytorch_lightning."
LIGHTNING_CALLBACKS = "pytorch_lightning.callbacks"


class Kind(NamedTuple):
    """A kind of work, and the fields that its configurations have.

    Attributes:
        name: Its verb.
        trains: Whether it trains, and has the fields of tracking and of checkpoints.
        groups: Classes whose arguments are further fields.
    """

    name: str
    trains: bool = True
    groups: tuple[type, ...] = ()

    @property
    def fields(self) -> list[str]:
        """The fields that the groups add."""
        return [name for group in self.groups for name in inspect.signature(group).parameters]


TRAIN, FIT = Kind("train"), Kind("fit")
VALIDATE, TEST = Kind("validate", trains=False), Kind("test", trains=False)


class Tracking:
    """Where a run is stored and tracked.

    Args:
        experiment: name of the experiment: the run folder is RUNS_DIR/EXPERIMENT/ID
        runs_dir: folder of all runs (default: $LIGHTNING_CNN_RUNS or runs)
        tags: tags of the run on W&B
        project: W&B project
        wandb: W&B mode; auto: online if logged in, otherwise offline
        timeout_minutes: minutes that a process waits for another before it fails and names it
    """

    def __init__(
        self,
        experiment: str | None = None,
        runs_dir: str | None = None,
        tags: list[str] = [],  # noqa: B006  (jsonargparse reads it, nobody makes such an object)
        project: str = "lightning_cnn",
        wandb: Literal["auto", "online", "offline", "disabled"] = "auto",
        timeout_minutes: float = 30.0,
    ) -> None: ...


# fields of a training, which a file that says what to measure may also have
OF_TRAINING = (*inspect.signature(Tracking).parameters, "checkpoint")


class SchemaParser(LightningArgumentParser):
    """Lightning's parser; its errors are raised as `UserError`, in jsonargparse's words.

    Attributes:
        facts: Arguments of models that are set from the data, and thus are no fields.
        classes: The classes of `model` and `data`, where they are known, for messages.
    """

    facts: Set[str] = frozenset()
    classes: Mapping[str, Any] = MappingProxyType({})

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
        _check_values(words)
        try:
            return self.parse_args([*_as_words(layers), *self._appending(words)])
        except UserError as error:
            fields = [name.removeprefix("--") for action in self._actions for name in action.option_strings]
            raise UserError(shortened(one_line(str(error), fields, self.facts, self.classes))) from None

    def _appending(self, words: Sequence[str]) -> list[str]:
        """The words; a list that is given again is appended to, as by `+=`, where jsonargparse would take the last."""
        options = {name for action in self._actions for name in action.option_strings}
        seen: set[str] = set()
        found = []
        for word in words:
            name, equals, value = word.partition("=")
            again = name in seen and f"{name}+" in options
            seen.add(name)
            found.append(f"{name}+{equals}{value}" if again else word)
        return found

    def given(self, layers: Sequence[dict[str, Any]], words: Sequence[str]) -> dict[str, Any]:
        """What layers and words say, without any default; only for those that `parse` has accepted."""
        # of jsonargparse 4.53: without defaults, what is required would seem to be missing
        found = self.parse_args(
            [*_as_words(layers), *self._appending(words)], defaults=False, _skip_validation=True
        ).as_dict()
        return {name: value for name, value in found.items() if name != "config"}


def _check_values(words: Sequence[str]) -> None:
    """Refuses values of words that are too deep or too large, or not what their tag says: jsonargparse reads them all.

    Raises:
        UserError: For the first such value.
    """
    for before, word in pairwise(["", *words]):
        name, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and {*"[{!&"} & {*value}:
            try:
                load_yaml(value)
            except yaml.YAMLError as error:
                if isinstance(error, RefusedYAMLError) or value.startswith("!"):
                    raise UserError(f"`{name.strip('-')}` {value[:40]}: the value{problem(error)}") from None


def _as_words(layers: Sequence[dict[str, Any]]) -> list[str]:
    """The layers as jsonargparse takes them: the merging is its own, which knows the arguments of each class."""
    return [f"--config={yaml.dump(layer, Dumper=yaml.CSafeDumper, sort_keys=False)}" for layer in layers]


def schema(kind: Kind, facts: Set[str] = frozenset(FACTS)) -> SchemaParser:
    """The parser of a kind of work; it holds the defaults of one load, so each load has its own copy.

    Args:
        kind: The kind of work.
        facts: Arguments of models that are set from the data.
    """
    return deepcopy(_template(kind, frozenset(facts)))


@cache
def _template(kind: Kind, facts: frozenset[str]) -> SchemaParser:
    """What `schema` copies: to build it takes twenty times as long."""
    parser = SchemaParser(prog=f"lightning-cnn {kind.name}", allow_abbrev=False, parser_mode=PACKAGE)
    parser.facts = facts
    add = parser.add_argument
    add("-c", "--config", action=ActionConfigFile, help="Shipped experiment, or configuration file in YAML format.")
    add("--seed_everything", type=bool | int, default=42, help="Seed of all random numbers; true for a random seed.")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults({"trainer.max_epochs": 10, "trainer.log_every_n_steps": 50})
    parser.add_subclass_arguments(LightningModule, "model", fail_untyped=False, required=True, skip=set(facts))
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    add("--ckpt_path", type=str | None, default=None, help="Checkpoint to resume from or to evaluate.")
    if kind.trains:
        parser.add_class_arguments(Tracking)
        parser.add_class_arguments(Checkpoints, "checkpoint")
    for group in kind.groups:
        parser.add_class_arguments(group)
    return parser


def usual_model(model: str | None, data: str | None) -> str:
    """Class path of a model that is named, else of the one that learns from the data.

    Args:
        model: Class path of the model, if known.
        data: Class path of the data, if known.
    """
    kind = class_of(model)
    if model and isinstance(kind, type) and issubclass(kind, LightningModule):
        return model
    return f"{lightning_cnn.modules.__name__}.{getattr(class_of(data), 'default_model', 'ImageClassifier')}"


def facts_for(model: str, data: str | None) -> set[str]:
    """The arguments of a model that are set from the data.

    Args:
        model: Class path of the model.
        data: Class path of the data, if known.
    """
    kind = class_of(data)
    there = {name for name in FACTS if name in IMAGE_FACTS or hasattr(kind, name)}
    return there & {*getattr(class_of(model), "takes", FACTS)}


def class_of(class_path: str | None) -> Any:
    """A class, None where it can't be had: the parser says why."""
    with suppress(Exception):
        return import_object(class_path or "")


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


def imports_kept() -> AbstractContextManager[Any]:
    """Puts back what jsonargparse may import: a script may have command lines of its own."""
    return mock.patch.dict(parsing_settings)


def _ours_first(all_paths: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Lets a short name mean a class of ours, imported or not, also where Lightning has one of the same name.

    jsonargparse knows only what is imported, and refuses a name that is not unique.
    """

    @wraps(all_paths)
    def paths(cls: Any, *args: Any, **kwargs: Any) -> list[str]:
        found = all_paths(cls, *args, **kwargs)
        if cls is Callback:
            found += [path for path in CALLBACKS if path not in found]
        ours = {path.rpartition(".")[2] for path in found if path.startswith(OURS)}
        return [path for path in found if not (path.startswith(LIGHTNING_FINDERS) and path.rpartition(".")[2] in ours)]

    return paths


_typehints.get_all_subclass_paths = _ours_first(_typehints.get_all_subclass_paths)
