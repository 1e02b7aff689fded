"""The argument parser of the verbs that train or test: jsonargparse, with mistakes told in one line."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, _typehints, set_parsing_settings
from jsonargparse._common import default_import_path_denylist, parsing_settings
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningArgumentParser

from lightning_cnn.config.trust import lies_in_run, refused
from lightning_cnn.config.user_code import PACKAGE, user_code
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.regular_files import read_regular

OURS, LIGHTNINGS = __package__ + ".", "pytorch_lightning."
BASES: dict[str, type] = {"model": LightningModule, "data": LightningDataModule, "trainer.callbacks": Callback}


LIGHTNING_CALLBACKS = "pytorch_lightning.callbacks"

# what other frameworks call it: what it is called here
SYNONYMS = {
    "learning_rate": "lr",
    "epochs": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "seed": "seed_everything",
}


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


class ExperimentParser(LightningArgumentParser):
    """Lightning's parser; its errors are raised as `UserError`, and `parse` tells them in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the message, in jsonargparse's words: it may be that of a part of a larger option."""
        raise UserError(message)

    def parse(self, argv: list[str]) -> Namespace:
        """Parses a command line.

        Raises:
            UserError: In one line that names the option and the nearest valid names.
        """
        if "--help_all" in argv:
            self.print_help()
            raise SystemExit(0)
        for path in config_files(argv):
            _read_yaml(path)
        try:
            return self.parse_args(_classes_first(argv))
        except UserError as error:
            raise UserError(self._one_line(str(error))) from None

    def typed(self, argv: list[str]) -> Namespace:
        """What a command line and its files say, without any default; only for one that `parse` has accepted."""
        # of jsonargparse 4.53: without defaults, what is required would seem to be missing
        return self.parse_args(_classes_first(argv), defaults=False, _skip_validation=True)

    def _one_line(self, message: str) -> str:
        key = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
        base = next((BASES[name] for name in BASES if key == name or key.startswith(name + ".")), None)
        options = [name.removeprefix("--") for action in self._actions for name in action.option_strings]
        if found := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
            given = found[1].split("=")[0]
            if not given.startswith("-"):
                return f"unknown argument {given!r}: options begin with --"
            return _unknown_option(given.removeprefix("--"), options)
        if found := re.search(r"(?:Key|Option) '([^']+)' is not (?:expected|accepted)", message):
            given = found[1].replace(".init_args", "")
            return _unknown_option(f"{key}.{given}" if key else given, _parameters(base, key) if base else options)
        if found := re.search(r"Group '([^']+)' does not accept option '([^']+)'", message):
            return _unknown_option(f"{found[1]}.{found[2]}", options)
        if found := re.search(r"Unexpected keys: \{([^}]*)\}", message):
            names = re.findall(r"'([^']+)'", found[1])
            return _unknown_option(f"{key}.{names[0]}", [f"{key}.{name}" for name in _typed_dict_keys(message)])
        if re.search(r'Key "data" is required', message):
            return "which data? Add --data NAME (`lightning-cnn list data`) or a --config FILE"
        if found := re.search(r"Importing '([^']+)' is not allowed, denied by the '([^']+)'", message):
            if found[2] == "*":
                return str(refused(found[1]))
            return f"--{key} {found[1]}: it is no part of an experiment, and was refused"
        if found := re.search(r"Problem with given class_path '([^']+)':\s*(.*)", message):
            return f"--{key} {found[1]}: {found[2]}"
        if base and (found := re.search(r"(?:Expected a dot import path string: |Expected a path but )(\S+)", message)):
            hint = did_you_mean(found[1], _subclasses(base)) or "; name a class of ours or a dotted class of your own"
            return f"--{key}: there is no {found[1]!r}{hint}"
        if found := re.search(r"the following arguments are required: (.+)", message):
            if not key:
                return "which data? Add --data NAME (`lightning-cnn list data`) or a --config FILE"
            return f"--{key} also needs {', '.join(f'--{key}.{name}' for name in found[1].split(', '))}"
        if found := re.search(r"Expected an? (.+?)\. Got value: (.*)", message):
            inner = re.search(r"NestedArg\(key='([^'.]+)'", message)  # an option in a group such as data.augment
            if inner and not key.endswith(f".{inner[1]}"):
                key = f"{key}.{inner[1]}"
            return f"--{key} {found[2]}: expected {_plain(found[1])}"
        kinds = re.findall(r"Expected an? (<class '[^>]+'>|typing\.\S.*)", message)
        kinds = [kind for kind in kinds if "None" not in kind]
        if kinds and (given_value := re.search(r"Given value: (.*)", message)):
            return f"--{key} {given_value[1]}: expected {_plain(kinds[-1])}"
        text = " ".join(line.strip() for line in message.splitlines() if line.strip())
        return re.sub(r'Parser key "([^"]+)":', r"--\1:", text)[:300]


def _unknown_option(name: str, valid: Iterable[str]) -> str:
    names = list(valid)
    prefix, _, last = name.rpartition(".")
    other = SYNONYMS.get(last)
    for synonym in {str(other), f"{prefix}.{other}"} & set(names):
        return f"unknown option --{name}; did you mean --{synonym}?"
    hint = did_you_mean(name, names).replace("did you mean ", "did you mean --").replace(", ", ", --")
    return f"unknown option --{name}{hint.replace(' or ', ' or --') or '; --help_all shows every option'}"


def config_files(argv: list[str]) -> list[str]:
    """The configuration files that a command line names, in their order."""
    return [value for name in ("--config", "-c") for value in option_values(argv, name)]


def last_given(argv: list[str], name: str) -> Any:
    """The value of an option before any conversion: the last typed one, else that of the last file that has it.

    Args:
        argv: The words of a command line.
        name: The option, without dashes, such as `trainer.max_epochs`.

    Returns:
        Plain data, None where it is not given.
    """
    values = all_given(argv, name, config_files(argv))
    return values[-1] if values else None


def all_given(argv: list[str], name: str, files: Iterable[str]) -> list[Any]:
    """All values of an option before any conversion: those of files, then the typed ones.

    Args:
        argv: The words of a command line.
        name: The option, without dashes.
        files: The configuration files to look into.
    """
    values: list[Any] = []
    for path in files:
        value: Any = _read_yaml(path)
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    for text in option_values(argv, f"--{name}"):
        try:
            values.append(yaml.safe_load(text))
        except yaml.YAMLError:  # the parser will say so
            values.append(text)
    return values


def _classes_first(argv: list[str]) -> list[str]:
    """The same words in the order in which they are understood: files, then classes, then the options of these.

    So the words may be typed in any order, and what is typed beats the files.
    """
    words, first = argv, []
    for option in ("--config", "-c", "--data", "--model"):
        first += [word for value in option_values(words, option) for word in (option, value)]
        words = without_option(words, option)
    return first + words


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        # a FIFO may be what a user types, as `<(...)`, but a run has none
        text = read_regular(Path(path)) if lies_in_run(path) else Path(path).read_text()
        content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise UserError(f"there is no configuration file {path}; `lightning-cnn list experiments` shows ours") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the configuration file {path} can't be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where} is not YAML ({getattr(error, 'problem', None) or 'damaged'})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration: it must hold `name: value` lines")
    return content


def _subclasses(base: type) -> list[str]:
    """Names of all loaded classes that derive from one."""
    names: list[str] = []
    subclass: type
    for subclass in base.__subclasses__():
        names += [subclass.__name__, *_subclasses(subclass)]
    return names


def _parameters(base: type, key: str) -> list[str]:
    """Options under a key: the parameters of all loaded classes that derive from one."""
    names: set[str] = set()
    subclass: type
    for subclass in base.__subclasses__():
        if base is Callback or not subclass.__module__.startswith("pytorch_lightning."):
            names |= {f"{key}.{name}" for name in inspect.signature(subclass).parameters}
        names |= set(_parameters(subclass, key))
    return sorted(names)


def _typed_dict_keys(message: str) -> list[str]:
    for dotted in re.findall(r"<class '([\w.]+)'>", message):
        module, _, name = dotted.rpartition(".")
        if hasattr(kind := getattr(sys.modules.get(module), name, None), "__total__"):
            return list(kind.__annotations__)
    return []


def _plain(kind: str) -> str:
    if found := re.match(r"typing\.Literal\[(.*)\]", kind):
        return "one of " + found[1].replace("'", "")
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)


def option_values(argv: Iterable[str], option: str) -> list[str]:
    """The values of an option among words, given as `--name VALUE` or `--name=VALUE`.

    Args:
        argv: The words of a command line.
        option: The option, with its dashes.
    """
    words = list(argv)
    values = []
    for position, word in enumerate(words):
        if word == option and position + 1 < len(words):
            values.append(words[position + 1])
        elif word.startswith(f"{option}="):
            values.append(word.split("=", 1)[1])
    return values


def without_option(argv: Iterable[str], option: str) -> list[str]:
    """The words of a command line without an option (given with its dashes) and its value."""
    kept: list[str] = []
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept
