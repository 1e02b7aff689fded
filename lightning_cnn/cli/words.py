"""Words to `Config`: the one place that reads the words of the verbs that train or test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.config.config import Config
from lightning_cnn.config.layers import BATCHES, Layer, as_layer, name_modules, names_in, nested
from lightning_cnn.config.schema import Kind, schema
from lightning_cnn.engine.resumption import layers_of, resumed_run
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import with_paths
from lightning_cnn.plain_yaml import load_yaml
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.user_code import find_user_code

# fields that are taken from the words as they stand: of some the merging asks whether they are typed, and how
FIELDS = ("ckpt_path", "experiment", "checkpoint.monitor", "checkpoint.mode", *(f"trainer.{name}" for name in BATCHES))
# options that name a class or a network
NAMING = (
    *("model.class_path", "model.architecture", "model.init_args.architecture", "data.class_path"),
    *("trainer.callbacks", "trainer.callbacks+"),
)

PRICES = ("--data.prices", "--data.returns")  # alone they say which data these are


@dataclass
class Words:
    """The words behind a verb.

    Attributes:
        kind: The kind of work.
        files: Configuration files.
        classes: `data` and `model`, each as a layer.
        fields: Fields by their dotted names.
        rest: Words that only the parser of the fields understands.
        resume: The run or sweep to go on with; empty where `--resume` has no value, None where it is not there.
        trust: Modules that the user trusts.
    """

    kind: Kind
    files: list[str]
    classes: list[dict[str, Any]]
    fields: dict[str, Any]
    rest: list[str]
    resume: str | None
    trust: list[str] = field(default_factory=list)

    def named_run(self, what: str) -> str | None:
        """The run or sweep to go on with, None for a new one.

        Args:
            what: What is to be named, for the error.

        Raises:
            UserError: If `--resume` has no value.
        """
        if self.resume == "":
            raise UserError(f"--resume needs a {what.split()[0].lower()}: --resume {what}")
        return self.resume

    @property
    def only_names_a_checkpoint(self) -> bool:
        """Whether there is a checkpoint and nothing else."""
        return [*self.fields] == ["ckpt_path"] and not (self.files or self.classes or self.rest or self.trust)

    def begun(self) -> tuple[Config, RunFolder | None]:
        """The configuration that the words describe, and the run that goes on, if one does.

        Raises:
            UserError: If they can't be used.
        """
        name = self.named_run("RUN (`lightning-cnn list runs`)")
        run = None if name is None else resumed_run(name, self.fields.get("runs_dir"), self.kind)
        return self.config(*([] if run is None else layers_of(run))), run

    def config(self, *before: str | Path | Mapping[str, Any]) -> Config:
        """The configuration that the words describe.

        Args:
            before: Layers that the words are typed over, such as the configuration of a run that goes on.

        Raises:
            UserError: If they can't be used.
        """
        find_user_code(*self.trust)
        if "--help_all" in self.rest:
            schema(self.kind).print_help()
            raise SystemExit(0)
        if not (before or self.files or self.classes) and any(_values(self.rest, option) for option in PRICES):
            self.classes = [{"data": "MonthlyReturns"}]
        named = [text for option in NAMING for text in _values(self.rest, f"--{option}")]
        name_modules(name for text in named for name in names_in(_loaded(text)))
        typed = [*self.classes, *([self.fields] if self.fields else [])]
        layers = [as_layer(layer) for layer in (*before, *self.files)]
        return Config.parse([*layers, *(Layer(nested(layer)) for layer in typed)], self.kind, _at_home(self.rest))


def read_words(kind: Kind, words: Sequence[str]) -> Words:
    """Takes from the words what is no field, and what is needed before the fields can be parsed.

    Args:
        kind: The kind of work.
        words: The words behind the verb.

    Raises:
        UserError: If an option has no value.
    """
    parser = VerbParser(kind.name, "")
    parser.add_argument("--config", "-c", action="append", default=[])
    for name in ("data", "model", "trust"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in FIELDS:
        parser.add_argument(f"--{name}")
    if kind.trains:
        parser.add_argument("--runs_dir")
        parser.add_argument("--resume", nargs="?", const="")
    if kind.name == "sweep":
        parser.add_argument("--search", action="append")
    options, rest = parser.parse_known_args(list(words))
    found = vars(options)
    fields = {name: _loaded(found[name]) if name.startswith("trainer.") else found[name] for name in FIELDS}
    fields |= {name: found.get(name) for name in ("runs_dir", "search")}
    fields = {name: None if value == "null" else value for name, value in fields.items() if value is not None}
    classes = [{of: _loaded(value)} for of in ("data", "model") for value in found[of]]
    return Words(kind, found["config"], classes, fields, rest, found.get("resume"), found["trust"])


def _loaded(text: str | None) -> Any:
    try:
        return None if text is None else load_yaml(text)
    except yaml.YAMLError:  # the parser will say so
        return text


def _at_home(words: Sequence[str]) -> list[str]:
    """The words, with paths as `with_paths` makes them: given as `--name VALUE` or `--name=VALUE`."""
    found = []
    for before, word in pairwise(["", *words]):
        name, equals, value = word.partition("=")
        if equals and name.startswith("--"):
            found.append(name + equals + with_paths(value, name))
        else:
            found.append(with_paths(word, before) if before.startswith("--") and "=" not in before else word)
    return found


def _values(words: Sequence[str], option: str) -> list[str]:
    """The values of an option among words, given as `--name VALUE` or `--name=VALUE`."""
    separate = [value for word, value in pairwise(words) if word == option]
    return separate + [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
