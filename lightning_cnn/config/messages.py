"""jsonargparse's messages as one line that names the field, in backticks, and the nearest valid ones."""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

from pytorch_lightning import Callback, LightningDataModule, LightningModule

import lightning_cnn.datamodules
import lightning_cnn.modules
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.user_code import refused

BASES: dict[str, type] = {"model": LightningModule, "data": LightningDataModule, "trainer.callbacks": Callback}
# callbacks of ours that a configuration may call by their short names; one is imported when it does
CALLBACKS = (
    "lightning_cnn.engine.finders.batch_size.BatchSizeFinder",
    "lightning_cnn.engine.finders.learning_rate.LearningRateFinder",
    "lightning_cnn.engine.freezing.LayerFreezing",
)
WHICH_DATA = "which data? Add `data` NAME (`list_data()`) or a `config` FILE"
WHICH_EXPERIMENT = "which data? Add `data` (`list_data()`), or an experiment: name (`list_experiments()`), file or dict"
MAX_EPOCHS = "trainer.max_epochs"
# what other frameworks call it: what it is called here
SYNONYMS = {"learning_rate": "lr", "seed": "seed_everything"} | dict.fromkeys(("epochs", "max_epochs"), MAX_EPOCHS)


def one_line(
    message: str, fields: list[str], facts: Set[str] = frozenset(), classes: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """The message in our words.

    Args:
        message: What jsonargparse says, in many lines.
        fields: All fields, without those of the classes.
        facts: Arguments of models that are set from the data.
        classes: The classes of `model` and `data`, where they are known.
    """
    key = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
    base = next((BASES[name] for name in BASES if key == name or key.startswith(name + ".")), None)
    if found := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        given = found[1].split("=")[0]
        if not given.startswith("-"):
            return f"unknown argument {given!r}: options begin with --"
        return _unknown(given.removeprefix("--"), fields)
    found = re.search(r"(?:Key|Option) '([^']+)' is not (?:expected|accepted)", message)
    if found and not key.endswith(f".{found[1]}"):  # else a class has the option, and what follows says of what type
        given = found[1].replace(".init_args", "")
        if base is LightningModule and given in facts:
            other = ", or set `data.image_size`" if given == "image_size" else ""
            return f"`{key}.{given}` is set from the data: remove it{other}"
        if base and isinstance(kind := classes.get(key), type):
            own = [f"{key}.{name}" for name in inspect.signature(kind).parameters if name not in facts]
            others = sorted(
                {other.__name__ for other in _derived(base) if given in inspect.signature(other).parameters}
            )
            if others:
                return f"`{key}.{given}` is an option of {', '.join(others[:3])}, not of {kind.__name__}: remove it"
            return _unknown(f"{key}.{given}", own)
        return _unknown(f"{key}.{given}" if key else given, _parameters(base, key) if base else fields)
    if found := re.search(r"Group '([^']+)' does not accept option '([^']+)'", message):
        return _unknown(f"{found[1]}.{found[2]}", fields)
    if found := re.search(r"Unexpected keys: \{([^}]*)\}", message):
        name = (re.findall(r"'([^']*)'", found[1]) or [found[1]])[0]
        return _unknown(f"{key}.{name}", [f"{key}.{name}" for name in _typed_dict_keys(message)])
    if re.search(r'Key "data" is required', message):
        return WHICH_DATA
    if found := re.search(r"Importing '([^']+)' is not allowed, denied by the '([^']+)'", message):
        if found[2] == "*":
            return str(refused(found[1]))
        return f"`{key}` {found[1]}: not part of an experiment, and not imported"
    if found := re.search(r"Problem with given class_path '([^']+)':\s*(.*)", message):
        return f"`{key}` {found[1]}: {found[2]}"
    if base and (found := re.search(r"(?:Expected a dot import path string: |Expected a path but )(\S+)", message)):
        hint = did_you_mean(found[1], _subclasses(base)) or "; name a class of ours or a dotted class of your own"
        return f"`{key}`: there is no {found[1]!r}{hint}"
    if found := re.search(r"the following arguments are required: (.+)", message):
        if not key:
            return WHICH_DATA
        return f"`{key}` also needs {', '.join(f'`{key}.{name}`' for name in found[1].split(', '))}"
    if found := re.search(r"Expected an? (.+?)\. Got value: (.*)", message):
        inner = re.search(r"NestedArg\(key='([^'.]+)'", message)  # an option in a group such as data.augment
        if inner and not key.endswith(f".{inner[1]}"):
            key = f"{key}.{inner[1]}"
        return f"`{key}` {found[2]}: expected {_plain(found[1])}"
    expected = re.findall(r"Expected (?:an? )?(<class '[^>]+'>|typing\.\S.*)", message)
    kinds = [kind for kind in expected if "None" not in kind]
    if kinds and (given_value := re.search(r"Given value: (.*)", message)):
        return f"`{key}` {given_value[1]}: expected {' or '.join(dict.fromkeys(map(_plain, kinds)))}"
    text = " ".join(line.strip() for line in message.splitlines() if line.strip())
    return re.sub(r'Parser key "([^"]+)":', r"`\1`:", text)[:300]


def shortened(text: str, most: int = 400) -> str:
    """A message without its middle, where it quotes a long value.

    Args:
        text: The message.
        most: Longest one in characters.
    """
    return text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[-most // 3 :]}"


def class_named(class_path: str, kind: type) -> type:
    """A class in a checked configuration; to the parser, a function that returns one would be the same.

    Raises:
        UserError: If it is of another kind.
    """
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, type) or not issubclass(found, kind):
        raise UserError(f"{class_path} is not a subclass of {kind.__name__}; name one, such as my_file.MyClass")
    return found


def _unknown(name: str, valid: Sequence[str]) -> str:
    groups = {known.partition(".")[0] for known in valid if "." in known}
    names = [known for known in valid if not known.endswith(".help")]
    prefix, _, last = name.rpartition(".")
    group, dot, rest = name.partition(".")
    if dot and group not in groups:
        names += [f"{known}.{rest}" for known in groups]
    other = SYNONYMS.get(last)
    for synonym in {str(other), f"{prefix}.{other}"} & set(names):
        return f"unknown option `{name}`; did you mean `{synonym}`?"
    hint = did_you_mean(name, [f"`{known}`" for known in names if known != name])
    return f"unknown option `{name}`{hint or '; `help_all` shows every option'}"


def _subclasses(base: type) -> list[str]:
    """Names of all loaded classes that derive from one, and of ours that are loaded late."""
    late = {
        LightningDataModule: lightning_cnn.datamodules.__all__,
        LightningModule: lightning_cnn.modules.__all__,
        Callback: [path.rpartition(".")[2] for path in CALLBACKS],
    }
    names = [*late.get(base, ())]
    subclass: type
    for subclass in base.__subclasses__():
        names += [subclass.__name__, *_subclasses(subclass)]
    return names


def _parameters(base: type, key: str) -> list[str]:
    """Fields under a key: the parameters of all loaded classes that derive from one."""
    return sorted({f"{key}.{name}" for kind in _derived(base) for name in inspect.signature(kind).parameters})


def _derived(base: type) -> Iterator[type]:
    """All loaded classes that derive from one, without Lightning's own but for callbacks; our tasks are loaded."""
    for name in lightning_cnn.modules.__all__ if base is LightningModule else ():
        getattr(lightning_cnn.modules, name)
    kind: type
    for kind in base.__subclasses__():
        if issubclass(kind, Callback) or not kind.__module__.startswith("pytorch_lightning."):
            yield kind
        yield from _derived(kind)


def _typed_dict_keys(message: str) -> list[str]:
    for dotted in re.findall(r"<class '([\w.]+)'>", message):
        module, _, name = dotted.rpartition(".")
        if hasattr(kind := getattr(sys.modules.get(module), name, None), "__total__"):
            return list(kind.__annotations__)
    return []


def _plain(kind: str) -> str:
    if found := re.match(r"typing\.Literal\[(.*)\]", kind):
        return ("one of " if "," in found[1] else "") + found[1].replace("'", "")
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)
