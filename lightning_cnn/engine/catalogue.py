"""What there is to choose from, read from source text: nothing is imported, so it takes milliseconds, not seconds."""

import ast
import importlib.util
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from docstring_parser import parse as parse_docstring
from docstring_parser.common import DocstringStyle

PACKAGE = Path(__file__).resolve().parent.parent
# what every datamodule of ours derives from, and those that are bases or only predict
DATA_BASES = ("ImageDataModule", "LightningDataModule")
NOT_FOR_TRAINING = (
    *("DataModule", "ImageDataModule", "ImageFiles", "HouseNumbers", "BoxDataModule", "DigitBoxes"),
    *("MaskDataModule", "ReturnDataModule"),
)

# the signature is an atomic group: with no docstring right behind it, the search must not run on into the next one
_TIMM_MODEL = re.compile(
    r"^@register_model\n(?:@.*\n)*def (\w+)(?:(?>\((?s:.*?)\)[^\n()]*:\n)\s+r?\"\"\"\s*(.*))?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Entry:
    """Something with a name that a user can type.

    Attributes:
        name: What to type.
        description: One line; empty where the source has none.
    """

    name: str
    description: str = ""


@dataclass(frozen=True)
class Option:
    """An argument of a class.

    Attributes:
        name: Name of the argument.
        annotation: Its type, as written in the source; a name for `Literal[...]` is replaced by what it stands for.
        default: Its default, as written in the source; None where a value must be given.
        description: What the docstring says about it, in one line.
        by_position: Of a function: whether it may be given without its name.
    """

    name: str
    annotation: str
    default: str | None
    description: str
    by_position: bool = False


def architectures() -> list[Entry]:
    """Our networks: the functions that `architectures/` registers with timm."""
    found = [
        Entry(node.name, _first_line(ast.get_docstring(node)))
        for tree in _trees("architectures").values()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and "register_model" in map(_last_name, node.decorator_list)
    ]
    return sorted(found, key=lambda entry: entry.name)


@lru_cache(maxsize=1)
def timm_networks() -> tuple[Entry, ...]:
    """The networks of timm, by the text of its files; empty where timm is not installed."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return ()
    found = [
        Entry(name, text.split('"""')[0].strip())
        for path in Path(spec.origin).parent.glob("models/*.py")
        for name, text in _TIMM_MODEL.findall(path.read_text(encoding="utf-8"))
    ]
    return tuple(sorted(found, key=lambda entry: entry.name))


def data_modules(bases: tuple[str, ...] = DATA_BASES) -> list[Entry]:
    """Our datamodules that can be trained on: the public classes of `datamodules/` but for the bases of images.

    Args:
        bases: What they derive from, such as `("ImageDataModule",)`; default all.
    """
    classes = _classes("datamodules")
    return [
        Entry(name, _first_line(ast.get_docstring(node)))
        for name, node in sorted(classes.items())
        if not name.startswith("_") and name not in NOT_FOR_TRAINING and _derives(node, classes, bases)
    ]


def modules() -> list[Entry]:
    """Our modules: what `modules/__init__.py` names, the classifier first."""
    (names,) = [
        ast.literal_eval(node.value)
        for node in _trees("modules")["__init__"].body
        if isinstance(node, ast.Assign) and _last_name(node.targets[0]) == "FILES"
    ]
    classes = _classes("modules")
    found = [Entry(name, _first_line(ast.get_docstring(classes[name]))) for name in names]
    return sorted(found, key=lambda entry: (entry.name != "ImageClassifier", entry.name))


def options(class_name: str, folder: str) -> list[Option]:
    """The arguments of a class: those of its `__init__`, and where that takes `**options`, those of its base classes.

    Args:
        class_name: Name of the class.
        folder: Folder of the package that has it, and its base classes, such as `datamodules`.

    Raises:
        KeyError: If the folder has no such class.
    """
    classes, choices = _classes(folder), _choices(folder)
    described: dict[str, str] = {}
    found: dict[str, Option] = {}
    fixed: set[str] = set()
    for node in _ancestry(classes[class_name], classes):
        described = _described(node) | described
        functions = [statement for statement in node.body if isinstance(statement, ast.FunctionDef)]
        declared = [function.args for function in functions if function.name == "__init__"]
        for name, annotation, default in itertools.chain(*map(_arguments, declared)):
            if name not in fixed:
                found.setdefault(name, Option(name, _spelled_out(annotation, choices), default, ""))
        fixed |= _fixed(node)
        if declared and declared[-1].kwarg is None:
            break
    return [replace(option, description=described.get(name, "")) for name, option in found.items()]


def _fixed(node: ast.ClassDef) -> set[str]:
    """The options of its bases that a class sets itself."""
    assigned = [each for each in node.body if isinstance(each, ast.Assign | ast.AnnAssign)]
    found = [each.value for each in assigned if re.match(r"fixed\b", ast.unparse(each))]
    return {name for value in found if value is not None for name in ast.literal_eval(value)}


def signature(module: str, function: str) -> tuple[str, list[Option]]:
    """What a function of this package does, the docstring down to its sections in one paragraph, and its arguments.

    Args:
        module: Its file, such as `engine/probe`; a folder stands for its `__init__`.
        function: Its name.

    Raises:
        KeyError: If there is no such function.
    """
    folder, _, name = module.rpartition("/")
    trees = _trees(folder)
    tree = trees.get(name) or trees[f"{name}/__init__"]
    node = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}[function]
    described = _described(node)
    choices = _choices(folder)
    by_name = {argument.arg for argument in node.args.kwonlyargs}
    known = [
        Option(name, _spelled_out(annotation, choices), default, described.get(name, ""), name not in by_name)
        for name, annotation, default in _arguments(node.args, bound=False)
    ]
    text = parse_docstring(ast.get_docstring(node) or "", DocstringStyle.GOOGLE)
    return " ".join(f"{text.short_description or ''} {text.long_description or ''}".split()), known


def _arguments(arguments: ast.arguments, bound: bool = True) -> Iterator[tuple[str, str, str | None]]:
    """Name, type and default of each argument; of those of a method all but `self`."""
    positional = [*arguments.posonlyargs, *arguments.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*padding, *arguments.defaults], strict=True)][bound:]
    for argument, default in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        yield argument.arg, annotation, ast.unparse(default) if default else None


@lru_cache
def _trees(folder: str) -> dict[str, ast.Module]:
    home = PACKAGE / folder
    names = {path: path.relative_to(home).with_suffix("").as_posix() for path in sorted(home.rglob("*.py"))}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for path, name in names.items()}


@lru_cache
def _classes(folder: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for tree in _trees(folder).values() for node in tree.body if isinstance(node, ast.ClassDef)}


@lru_cache
def _choices(folder: str) -> dict[str, str]:
    """The names that a folder's files give to types `Literal[...]`."""
    return {
        _last_name(node.targets[0]): ast.unparse(node.value)
        for tree in _trees(folder).values()
        for node in tree.body
        if isinstance(node, ast.Assign) and _last_name(node.value) == "Literal"
    }


def _spelled_out(annotation: str, choices: dict[str, str]) -> str:
    """A type in which the name of a `Literal[...]` is replaced by what it stands for."""
    name, *others = annotation.split(" | ")
    return " | ".join([choices.get(name, name), *others])


def _ancestry(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """The class, then its base classes as far as the same folder has them, each after all that derive from it."""
    found = [node]
    for base in map(_last_name, node.bases):
        if base in classes and base != node.name:
            found += _ancestry(classes[base], classes)
    return [*reversed(dict.fromkeys(reversed(found)))]


def _derives(node: ast.ClassDef, classes: dict[str, ast.ClassDef], bases: tuple[str, ...]) -> bool:
    return any(_last_name(base) in bases for parent in _ancestry(node, classes) for base in parent.bases)


def _last_name(node: ast.expr) -> str:
    """`b` of the expressions `b`, `a.b`, `a.b(...)` and `a.b[...]`."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _described(node: ast.ClassDef | ast.FunctionDef) -> dict[str, str]:
    inits = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    return {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for each in (node, *inits)
        for parameter in parse_docstring(ast.get_docstring(each) or "", DocstringStyle.GOOGLE).params
    }


def _first_line(docstring: str | None) -> str:
    return docstring.strip().splitlines()[0] if docstring and docstring.strip() else ""
