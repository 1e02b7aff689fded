"""The search space of a sweep: `model.lr=log(1e-4,1e-1)` and the like."""

import json
import math
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lightning_cnn.errors import UserError
from lightning_cnn.plain_yaml import load_yaml

Scalar = str | int | float | bool | None
FORMS = "log(a,b), uniform(a,b), int(a,b) or choices [a,b,c]"
SEARCHABLE = ("model", "model.*", "data.*", "trainer.*", "seed_everything")
# what says on which data a trial is measured, or on which machine it runs: values of different ones mean nothing
FIXED = (
    *("data.root", "data.prices", "data.annotations", "data.recipe", "data.val*", "data.split_seed", "data.seed"),
    *(
        "data.fold",
        "data.embargo",
        "data.groups",
        "data.labels",
        "data.returns",
        "data.train_*",
        "data.test_*",
        "trainer.limit_val_batches",
        "trainer.devices",
        "trainer.num_nodes",
    ),
)
_RANGE = re.compile(r"(log|uniform|int)\(([^,()]*),([^,()]*)\)")


def values(name: str, where: BaseDistribution) -> tuple[Scalar, ...] | range:
    """All values of a setting, for a grid.

    Raises:
        UserError: If there are infinitely many.
    """
    if isinstance(where, CategoricalDistribution):
        return where.choices
    if isinstance(where, IntDistribution):
        return range(where.low, where.high + 1)
    raise UserError(
        f"`sampler` grid requires choices, but {name} is a range: write {name}=[a,b,c], or use `sampler` random or tpe"
    )


def extremes(where: BaseDistribution) -> tuple[Scalar, ...]:
    """The choices, or the ends of the range: what to try before a sweep begins."""
    if isinstance(where, CategoricalDistribution):
        return where.choices
    assert isinstance(where, IntDistribution | FloatDistribution)
    return where.low, where.high


def parse_search(texts: Iterable[str]) -> dict[str, BaseDistribution]:
    """What is searched: the name of each setting, such as `model.lr`, and where its values are sampled.

    Lists and mappings among choices are JSON: the journal of a study holds no others.

    Args:
        texts: For each a setting and where it is searched, such as `model.lr=log(1e-4,1e-1)`.

    Raises:
        UserError: If one is not of that form, can't be searched, or comes twice.
    """
    found: dict[str, BaseDistribution] = {}
    for text in texts:
        name, equals, where = text.partition("=")
        name = name.strip().removeprefix("--")
        if not (name and equals and where.strip()):
            raise UserError(f"`search` {text!r}: expected NAME={FORMS}, such as 'model.lr=log(1e-4,1e-1)'")
        if name in found:
            raise UserError(f"`search` {name} is given twice: remove one")
        found[name] = _distribution(name, where.strip())
    return found


def as_word(value: Scalar) -> str:
    """A value as one types it on the command line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return value if isinstance(value, str) else repr(value)


def setting(name: str, value: Scalar) -> dict[str, Any]:
    """A value as a field of a configuration; of lists and mappings, the value that their JSON stands for."""
    return {name: json.loads(value) if isinstance(value, str) and value[:1] in ("[", "{") else value}


def _distribution(name: str, text: str) -> BaseDistribution:
    if any(fnmatchcase(name, pattern) for pattern in FIXED) or name == "data":
        raise UserError(
            f"`search` {name}: all trials must use the same data and metric; search settings such as model.lr or "
            "data.batch_size"
        )
    if not any(fnmatchcase(name, pattern) for pattern in SEARCHABLE):
        raise UserError(f"`search` {name}: expected a setting such as model.lr, data.batch_size or trainer.max_epochs")
    if text.startswith("["):
        return CategoricalDistribution(_choices(name, text))
    match = _RANGE.fullmatch("".join(text.split()))
    if match is None:
        raise UserError(f"`search` {name}={text}: expected {FORMS}")
    try:
        low, high = float(match[2]), float(match[3])
    except ValueError:
        raise UserError(f"`search` {name}={text}: expected numbers as the ends") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"`search` {name}={text}: expected a lower end below the upper end")
    if match[1] == "log" and low <= 0:
        raise UserError(f"`search` {name}={text}: expected a logarithmic range above 0")
    if match[1] != "int":
        return FloatDistribution(low, high, log=match[1] == "log")
    if not (low.is_integer() and high.is_integer()):
        raise UserError(f"`search` {name}={text}: expected integers as the ends of int(a,b)")
    return IntDistribution(int(low), int(high))


def _choices(name: str, text: str) -> tuple[Scalar, ...]:
    try:
        listed = load_yaml(text)
    except yaml.YAMLError:
        listed = None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"`search` {name}={text}: expected choices such as [a,b,c]")
    choices = tuple(_plain(choice) for choice in listed)
    if len(set(map(as_word, choices))) < len(choices):
        raise UserError(f"`search` {name}={text}: a choice is given twice")
    return choices


def _plain(choice: object) -> Scalar:
    """A choice that Optuna's journal can hold; YAML takes `1e-3` for a text."""
    if isinstance(choice, str):
        try:
            return float(choice)
        except ValueError:
            return choice
    return choice if isinstance(choice, int | float | None) else json.dumps(choice)
