"""A parsed configuration as the plain data of config.yaml, from which the same configuration can be parsed again."""

import warnings
from enum import Enum
from typing import Any

import yaml
from jsonargparse import Namespace

from lightning_cnn.config.schema import SchemaParser, class_of
from lightning_cnn.errors import UserError
from lightning_cnn.options import merged_signature

UNWRITTEN = "Unable to serialize instance"  # what jsonargparse (4.53) writes in the place of a value


def written(parser: SchemaParser, parsed: Namespace) -> dict[str, Any]:
    """What config.yaml holds of a configuration.

    Args:
        parser: The parser.
        parsed: What it has parsed.

    Raises:
        UserError: If a value can't be written. The field is named.
    """
    _use_values(parsed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", rf"\s*{UNWRITTEN}")
        text = parser.dump(parsed, skip_unset=False, skip_validation=True)
    values: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
    if UNWRITTEN in text:
        _restore(values, parsed.as_dict(), "")
    return values


def _use_values(parsed: Any) -> None:
    """Replaces members of an enumeration by their values; Lightning's defaults are some of them."""
    found: Any = vars(parsed) if isinstance(parsed, Namespace) else parsed
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        if isinstance(value, Enum):
            found[key] = value.value
        elif isinstance(value, Namespace | dict | list):
            _use_values(value)


def _restore(values: Any, parsed: Any, field: str) -> None:
    """Replaces what jsonargparse did not write: texts stay as they are, defaults are left out.

    Args:
        values: What was written, a dict or a list.
        parsed: The same before it was written.
        field: Its name.

    Raises:
        UserError: For the first other value.
    """
    for key in [*values] if isinstance(values, dict) else range(len(values)):
        if isinstance(parsed, dict) and key not in parsed:  # a number that YAML has as a text: it was written
            continue
        value, before = values[key], parsed[key]
        name = field if key == "init_args" or isinstance(key, int) else f"{field}.{key}".lstrip(".")
        if isinstance(value, dict | list):
            if key == "init_args" and isinstance(value, dict):
                _leave_defaults_out(value, before, str(values.get("class_path")))
            _restore(value, before, name)
        elif isinstance(value, str) and value.startswith(UNWRITTEN):
            if not isinstance(before, str):
                raise UserError(f"`{name}` {before}: config.yaml can't hold a {type(before).__name__}; remove it")
            values[key] = before


def _leave_defaults_out(values: dict[str, Any], parsed: dict[str, Any], class_path: str) -> None:
    kind = class_of(class_path)
    defaults = merged_signature(kind).parameters if isinstance(kind, type) else {}
    for name in [name for name, value in values.items() if str(value).startswith(UNWRITTEN)]:
        if not isinstance(parsed[name], str) and name in defaults and defaults[name].default == parsed[name]:
            del values[name]
