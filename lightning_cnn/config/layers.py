"""What a configuration is made of: files and dicts, as plain data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import lightning_cnn.datamodules
import lightning_cnn.modules
from lightning_cnn.config.schema import LIGHTNING_CALLBACKS, OURS
from lightning_cnn.config.shipped import experiment_file, nearest_names
from lightning_cnn.config.trust import is_own, lies_in_run, note_origin
from lightning_cnn.errors import UserError
from lightning_cnn.notes import say
from lightning_cnn.options import plain
from lightning_cnn.plain_text import with_paths
from lightning_cnn.plain_yaml import load_yaml_file, problem
from lightning_cnn.resume.processes import process_rank
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.settings import relocated
from lightning_cnn.tracking.upgrades import upgraded_config
from lightning_cnn.user_code import find_user_code

WAIT = 10.0  # seconds, for a pipe
ROOMS = {"model": lightning_cnn.modules, "data": lightning_cnn.datamodules}
GROUPS = {"trainer": "trainer.max_epochs", "checkpoint": "checkpoint.monitor"}
COMPONENT = {"class_path", "init_args", "dict_kwargs"}
# numbers of batches: to Lightning 1 is one batch and 1.0 all of them; jsonargparse makes 1.0 of both
BATCHES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches")


class Layer(NamedTuple):
    """Fields that are given together.

    Attributes:
        values: The fields, nested.
        file: The file that they are from, None where the user has just said them.
        is_noted: Whether what they name has been looked at before.
    """

    values: dict[str, Any]
    file: Path | None = None
    is_noted: bool = False

    @property
    def is_written(self) -> bool:
        """Whether the user has written it, and no run."""
        return self.file is None or not lies_in_run(str(self.file))


def as_layer(given: str | Path | Mapping[str, Any]) -> Layer:
    """A layer of a file or a dict.

    Raises:
        UserError: If it can't be used.
    """
    if isinstance(given, Mapping):
        return Layer(with_paths(nested(given)))
    if not isinstance(given, str | Path):
        raise UserError(f"{given!r} is no experiment: expected a name (`list_experiments()`), a YAML file or a dict")
    file, shipped = experiment_file(with_paths(str(given), "config"))
    if shipped is not None and process_rank() == 0:
        say(f"using the file {file}, not the shipped {shipped.parent.name}/{shipped.stem}", to_stderr=True)
    content = upgraded_config(read_yaml(file))
    if lies_in_run(str(file)):
        return Layer(nested(relocated(content, RunFolder.look(file.parent).record.directory)), file)
    return Layer(with_paths(nested(content)), file)


def nested(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Fields as nested plain data.

    Args:
        given: Fields; names may be dotted, models and data may be flat or a short name.

    Raises:
        UserError: If a value is no plain data.
    """
    found: dict[str, Any] = {}
    for name, value in sorted(given.items(), key=lambda item: str(item[0]).count(".")):
        *groups, last = str(name).split(".")
        place = found
        for group in groups:
            inner = place.get(group) or {}
            place[group] = inner if isinstance(inner, dict) else {"class_path": inner}
            place = place[group]
        place[last] = plain(str(name), _class_path(str(name), value) if isinstance(value, type) else value)
    for of, room in ROOMS.items():
        if of in found:
            found[of] = _component(found[of], room.__name__, room.__all__)
    for of in GROUPS.keys() & found.keys():
        if found[of] is None:  # a block of which every line is a comment
            del found[of]
        elif not isinstance(found[of], dict):
            raise UserError(f"`{of}` {str(found[of])[:40]}: expected fields, such as `{GROUPS[of]}`")
    return found


def _class_path(field: str, kind: type) -> str:
    """What a file calls a class.

    Raises:
        UserError: If no file can: it is defined in a notebook, a script or a function.
    """
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise UserError(
            f"`{field}`: {kind.__name__} is defined in a script, a notebook or a function, where config.yaml can't "
            "name it; move it to a module, or train it with pl.Trainer"
        )
    return f"{kind.__module__}.{kind.__qualname__}"


def _component(given: Any, room: str, names: Iterable[str]) -> Any:
    if isinstance(given, dict):
        if isinstance(given.get("class_path"), str):
            given |= {"class_path": _path(given["class_path"], room, names)}
        own = {name: given[name] for name in given if name in COMPONENT}
        flat = {name: given[name] for name in given if name not in COMPONENT}
        return own | {"init_args": (own.get("init_args") or {}) | flat} if flat else own
    return _path(given, room, names) if isinstance(given, str) else given


def _path(name: str, room: str, names: Iterable[str]) -> str:
    return f"{room}.{name}" if name in names else name


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The content of a configuration file.

    Raises:
        UserError: If there is none, or it is not a mapping in YAML.
    """
    try:
        # a pipe may be what a user types, as `<(...)`, but a run has none
        content = load_yaml_file(Path(path), None if lies_in_run(str(path)) else WAIT)
    except FileNotFoundError:
        hint = nearest_names(Path(path)) or "; `list_experiments()` shows ours"
        raise UserError(f"there is no configuration file {path}{hint}") from None
    except OSError as error:
        raise UserError(f"the configuration file {path} can't be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}{problem(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a configuration: expected `name: value` lines")
    return content


def note_names(layers: Iterable[Layer]) -> None:
    """Lets the modules and the folder of runs be used that the user's own layers name."""
    layers = [layer for layer in layers if not layer.is_noted]
    code = find_user_code()
    for layer in layers:
        # in a run of somebody else what is said is not the user's word, but ours, such as that of a fold
        if layer.is_written and not (layer.file is None and code.foreign_config) and layer.values.get("runs_dir"):
            code.runs_dirs.add(str(layer.values["runs_dir"]))
    for layer in layers:
        if not layer.is_written and layer.file is not None:
            note_origin(layer.file, is_config=True)
    for layer in layers:
        if layer.is_written or (layer.file is not None and is_own(layer.file)):
            name_modules(_named(layer.values))


def name_modules(names: Iterable[str]) -> None:
    """Lets modules be imported that the user has named, but for ours and Lightning's, which need no leave."""
    known = (OURS, LIGHTNING_CALLBACKS)
    find_user_code(*(name for name in names if "." in name and not name.startswith(known)))


def _named(values: dict[str, Any]) -> Iterator[str]:
    for of in ("model", "data"):
        yield from names_in(values.get(of))
    trainer = values.get("trainer")
    yield from names_in(trainer.get("callbacks") if isinstance(trainer, dict) else None)


def names_in(value: object) -> Iterator[str]:
    """The classes and networks that the value of a field names, in any form in which it can be given."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for element in value:
            yield from names_in(element)
    elif isinstance(value, dict):
        for key in ("class_path", "architecture", "init_args"):
            yield from names_in(value.get(key))


def last_class(layers: Sequence[Layer], of: str) -> str | None:
    """The class of the model or the data that is named last, None where none is."""
    given = (layer.values.get(of) for layer in reversed(layers))
    names = (part.get("class_path") if isinstance(part, dict) else part for part in given)
    return next((name for name in names if name), None)


def last_given(layers: Iterable[Layer], *path: str) -> Any:
    """The value of a field before any conversion, None where no layer has it."""
    found = None
    for layer in layers:
        place: Any = layer.values
        for name in path[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict) and path[-1] in place:
            found = place[path[-1]]
    return found
