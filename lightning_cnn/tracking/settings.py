"""The configuration of a run as flat settings, named as on the command line. Imports neither torch nor Lightning."""

import fnmatch
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_cnn.errors import UserError, first_line
from lightning_cnn.plain_text import distinct
from lightning_cnn.plain_yaml import load_yaml_file, problem
from lightning_cnn.tracking.record import CONFIG
from lightning_cnn.tracking.upgrades import upgraded_config

Value = str | int | float | bool | None

# settings that say where something is written or what a run is called, never what is computed
NEVER_MATTER = (
    *("config", "experiment", "name", "run_id", "runs_dir", "resume", "wandb", "project", "tags"),
    *("trainer.logger*", "trainer.default_root_dir", "*.dirpath", "*.save_dir"),
)
# arguments that name a file or a folder
PATHS = {"data": ("root", "prices", "returns", "labels", "annotations"), "model": ("weights",)}
CALLBACKS = "trainer.callbacks"  # their settings are called `EarlyStopping.patience`, without this in front


def matters(name: str) -> bool:
    """Whether a setting says what is computed."""
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in NEVER_MATTER)


def settings_of(folder: Path) -> dict[str, Value] | None:
    """The flat settings of a run folder; None where there are none, or they can't be read."""
    try:
        return flatten(config_of(folder))
    except (OSError, UserError):
        return None


def config_of(folder: Path) -> dict[str, Any]:
    """What the config.yaml of a run folder holds, with the present names of classes.

    Raises:
        OSError: If it can't be opened, or there is none.
        UserError: If it is damaged: no YAML, no mapping, or one that aliases make huge.
    """
    file = folder / CONFIG
    try:
        config = load_yaml_file(file)
        if not isinstance(config, dict):
            raise TypeError("it is no mapping")
        upgraded: dict[str, Any] = upgraded_config(config)
        return upgraded
    except yaml.YAMLError as error:
        raise UserError(f"{file}{problem(error)}: restore the file") from None
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f"{file} is damaged ({first_line(error, 100)}): restore the file") from None


def relocated(config: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """A configuration whose relative paths lead to the files of the directory that it was made in.

    A path stays as it is where there is such a file in the working directory, or none in the other.

    Args:
        config: The configuration of a run, or parts of it.
        directory: The working directory of the run, empty where it is not known.
    """

    def there(path: Any) -> Any:
        if not isinstance(path, str) or not path or not directory or os.path.exists(path):
            return path
        return found if os.path.exists(found := os.path.join(directory, path)) else path

    changed = {name: there(path) for name, path in config.items() if name == "ckpt_path"}
    for of, names in PATHS.items():
        part = config.get(of)
        if isinstance(part, dict) and isinstance(arguments := part.get("init_args"), dict):
            paths = {name: there(arguments[name]) for name in names if name in arguments}
            if isinstance(channels := arguments.get("channels"), dict):
                paths["channels"] = {
                    name: options | {"file": there(options["file"])} if options and "file" in options else options
                    for name, options in channels.items()
                }
            changed[of] = part | {"init_args": arguments | paths}
    return {**config, **changed}


def flatten(config: object, prefix: str = "") -> dict[str, Value]:
    """A nested configuration as `a.b.c: value`, named as on the command line (`model.lr`, not `model.init_args.lr`).

    Args:
        config: What the YAML file holds.
        prefix: Name of this part.
    """
    flat: dict[str, Value] = {}
    if isinstance(config, dict):
        if prefix and isinstance(config.get("class_path"), str):
            flat[prefix] = _class_name(config)
        for key, value in config.items():
            if key != "class_path":
                flat |= flatten(value, prefix if key == "init_args" else f"{prefix}.{key}".lstrip("."))
        return flat
    if isinstance(config, list) and config and all(isinstance(item, dict) and "class_path" in item for item in config):
        # by the name of the class, so that the order does not matter
        for item, name in zip(config, distinct(_class_name(item) for item in config), strict=True):
            name = name if prefix == CALLBACKS else f"{prefix}.{name}"
            flat |= flatten(item, name) | {name: True}
        return flat
    return {prefix: config if isinstance(config, str | int | float | None) else json.dumps(config, default=str)}


def _class_name(config: dict[str, Any]) -> str:
    return str(config["class_path"]).rpartition(".")[2]
