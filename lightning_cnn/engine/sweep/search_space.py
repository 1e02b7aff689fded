"""The search space of a sweep: `model.lr=log(1e-4,1e-1)` and the like."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, cast

import yaml

from lightning_cnn.errors import UserError

if TYPE_CHECKING:
    from optuna import Trial

Scalar = str | int | float | bool | None
FORMS = "log(a,b), uniform(a,b), int(a,b) or choices [a,b,c]"
SEARCHABLE = ("model", "model.*", "data.*", "trainer.*", "seed_everything")
# what says on which data a trial is measured, or on which machine it runs: values of different ones mean nothing
FIXED = (
    *("data.root", "data.prices", "data.annotations", "data.recipe", "data.val*", "data.split_seed", "data.seed"),
    *("data.train_*", "data.test_*", "trainer.limit_val_batches", "trainer.devices", "trainer.num_nodes"),
)
_RANGE = re.compile(r"(log|uniform|int)\(([^,()]*),([^,()]*)\)")


@dataclass(frozen=True)
class Dimension:
    """A setting that is searched, and where.

    Attributes:
        name: The setting, as on the command line without dashes, such as `model.lr`.
        kind: `log` and `uniform` draw numbers from a range, `int` whole ones, both ends included, `choice` one of some.
        low: Lower end of a range.
        high: Upper end of a range.
        choices: The choices; lists and mappings among them as JSON.
    """

    name: str
    kind: Literal["log", "uniform", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Scalar, ...] = ()

    def suggest(self, trial: Trial) -> Scalar:
        """The value of a trial, drawn by its sampler."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.choices)
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high))
        return trial.suggest_float(self.name, self.low, self.high, log=self.kind == "log")

    def values(self) -> tuple[Scalar, ...] | range:
        """All values, for a grid.

        Raises:
            UserError: If there are infinitely many.
        """
        if self.kind == "choice":
            return self.choices
        if self.kind == "int":
            return range(int(self.low), int(self.high) + 1)
        raise UserError(
            f"`sampler` grid needs choices, but {self.name} is a range of numbers: write {self.name}=[a,b,c], "
            "or take `sampler` random or tpe"
        )

    def extremes(self) -> tuple[Scalar, ...]:
        """The choices, or the ends of the range: what to try before a sweep begins."""
        if self.kind == "choice":
            return self.choices
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)


def parse_search(texts: Iterable[str]) -> list[Dimension]:
    """The dimensions of a search.

    Args:
        texts: For each a setting and where it is searched, such as `model.lr=log(1e-4,1e-1)`.

    Raises:
        UserError: If one is not of that form, can't be searched, or comes twice.
    """
    found: dict[str, Dimension] = {}
    for text in texts:
        name, equals, where = text.partition("=")
        name = name.strip().removeprefix("--")
        if not (name and equals and where.strip()):
            raise UserError(f"`search` {text!r}: expected NAME={FORMS}, such as 'model.lr=log(1e-4,1e-1)'")
        if name in found:
            raise UserError(f"`search` {name} is given twice: once is enough")
        found[name] = _dimension(name, where.strip())
    return [*found.values()]


def as_word(value: Scalar) -> str:
    """A value as one types it on the command line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value if isinstance(value, str) else repr(value)


def setting(name: str, value: Scalar) -> dict[str, Any]:
    """A value as a field of a configuration; of lists and mappings, the value that their JSON stands for."""
    return {name: json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value}


def _dimension(name: str, text: str) -> Dimension:
    if any(fnmatchcase(name, pattern) for pattern in FIXED) or name == "data":
        raise UserError(
            f"`search` {name}: all trials must be measured on the same data, and the same way; "
            "search settings such as model.lr or data.batch_size"
        )
    if not any(fnmatchcase(name, pattern) for pattern in SEARCHABLE):
        raise UserError(f"`search` {name}: expected a setting such as model.lr, data.batch_size or trainer.max_epochs")
    if text.startswith("["):
        return Dimension(name, "choice", choices=_choices(name, text))
    match = _RANGE.fullmatch("".join(text.split()))
    if match is None:
        raise UserError(f"`search` {name}={text}: expected {FORMS}")
    kind = cast(Literal["log", "uniform", "int"], match[1])
    try:
        low, high = float(match[2]), float(match[3])
    except ValueError:
        raise UserError(f"`search` {name}={text}: the two ends must be numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"`search` {name}={text}: the first end must be less than the second")
    if kind == "log" and low <= 0:
        raise UserError(f"`search` {name}={text}: a logarithmic range must begin above 0")
    if kind == "int" and not (low.is_integer() and high.is_integer()):
        raise UserError(f"`search` {name}={text}: the ends of int(a,b) must be whole numbers")
    return Dimension(name, kind, low, high)


def _choices(name: str, text: str) -> tuple[Scalar, ...]:
    try:
        listed = yaml.safe_load(text)
    except yaml.YAMLError:
        listed = None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"`search` {name}={text}: expected choices such as [a,b,c]")
    choices = tuple(_plain(choice) for choice in listed)
    if len(set(map(as_word, choices))) < len(choices):
        raise UserError(f"`search` {name}={text}: a choice comes twice")
    return choices


def _plain(choice: object) -> Scalar:
    """A choice that Optuna's journal can hold; YAML takes `1e-3` for a text."""
    if isinstance(choice, str):
        try:
            return float(choice)
        except ValueError:
            return choice
    return choice if isinstance(choice, int | float | None) else json.dumps(choice)
