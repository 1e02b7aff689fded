"""The configuration of a run as flat settings, named as on the command line. Imports neither torch nor Lightning."""

import fnmatch
import json
from pathlib import Path
from typing import Any

import yaml

from lightning_cnn.regular_files import read_regular
from lightning_cnn.tracking.record import CONFIG
from lightning_cnn.tracking.upgrades import upgraded_config

Value = str | int | float | bool | None

# settings that say where something is written or what a run is called, never what is computed
NEVER_MATTER = (
    *("config", "experiment", "name", "run_id", "runs_dir", "resume", "wandb", "project", "tags"),
    *("trainer.logger*", "trainer.default_root_dir", "*.dirpath", "*.save_dir"),
)
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CALLBACKS = "trainer.callbacks"  # their settings are called `EarlyStopping.patience`, without this in front


def matters(name: str) -> bool:
    """Whether a setting says what is computed."""
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in NEVER_MATTER)


def settings_of(folder: Path) -> dict[str, Value] | None:
    """The flat settings of a run folder; None where there are none, or they can't be read."""
    try:
        config = yaml.load(read_regular(folder / CONFIG), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return flatten(upgraded_config(config)) if isinstance(config, dict) else {}


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
        for item in config:  # by the name of the class, so that the order does not matter
            name = _class_name(item) if prefix == CALLBACKS else f"{prefix}.{_class_name(item)}"
            flat |= flatten(item, name) | {name: True}
        return flat
    return {prefix: config if isinstance(config, str | int | float | None) else json.dumps(config, default=str)}


def _class_name(config: dict[str, Any]) -> str:
    return str(config["class_path"]).rpartition(".")[2]
