"""Which room of the package may import which: the table in docs/contributing/index.md, checked."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import lightning_cnn
from lightning_cnn.cli import VERBS

PACKAGE = Path(lightning_cnn.__file__).parent
GROUND = frozenset(
    {
        "dates",
        "errors",
        "notes",
        "options",
        "plain_tensors",
        "plain_text",
        "plain_yaml",
        "regular_files",
        "user_code",
        "user_folders",
    }
)
# A room may import itself, the ground and these.
ALLOWED: dict[str, set[str]] = {
    "architectures": set(),
    "figures": set(),
    "resume": set(),
    "cluster": {"resume"},
    "evaluation": {"figures"},
    "tracking": {"figures", "resume", "evaluation"},
    "datamodules": {"figures", "resume", "architectures"},
    "modules": {"figures", "evaluation", "architectures"},
    "config": {"tracking", "modules", "datamodules", "resume"},
}
ALLOWED["engine"] = {*ALLOWED, *(room for rooms in ALLOWED.values() for room in rooms)}
ALLOWED["cli"] = ALLOWED[""] = {*ALLOWED["engine"], "engine"}
ALLOWED["__main__"] = {"cli"}


def _room(module: str) -> str:
    """`resume` of `lightning_cnn.resume.files`, "" of the package itself."""
    return module.split(".")[1] if "." in module else ""


def _imports(file: Path, at_top: bool = False) -> Iterator[str]:
    """All modules of ours that a file imports, also inside functions and under `TYPE_CHECKING`, but for `at_top`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.split(".")[0] == "lightning_cnn")
            case ast.ImportFrom(module="lightning_cnn", names=names):
                rooms = (name.name for name in names if name.name != "__version__")
                yield from (f"lightning_cnn.{room}" for room in rooms)
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "lightning_cnn":
                for name in names:
                    submodule = f"{module}.{name.name}"
                    yield submodule if _file(submodule) else module
            case ast.ImportFrom(level=level) if level:
                raise AssertionError(f"{file}: relative import")


def _file(module: str) -> Path | None:
    """The file of a module, None where there is no such module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    found = [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()]
    return found[0] if found else None


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _all(at_top: bool = False) -> dict[str, set[str]]:
    """Module → the modules of ours that it imports."""
    return {_name(file): set(_imports(file, at_top)) for file in sorted(PACKAGE.rglob("*.py"))}


def test_the_table_shows_the_arrows() -> None:
    table = (PACKAGE.parent / "docs" / "contributing" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| ([^|]+) \|$", table, re.MULTILINE)
    shown: dict[str, set[str]] = {}
    for names, imports in rows:
        several = set() if imports == "nothing of ours" else {*shown} - GROUND if imports == "all above" else None
        for name in re.findall(r"`(\w+)/?`", names):
            shown[name] = {*imports.split(", ")} if several is None else several
    assert shown == {name: ALLOWED.get(name, set()) for name in (*GROUND, *ALLOWED) if name not in ("", "__main__")}


def test_arrows_point_down() -> None:
    up: dict[str, set[str]] = {}
    for module, imported in _all().items():
        room = _room(module)
        for target in imported:
            allowed = set(GROUND) | {room} | (set() if room in GROUND else ALLOWED[room])
            if _room(target) not in allowed:
                up.setdefault(module, set()).add(target)
    assert up == {}


# What may hold words of a command line below the door: the declaration of fields, commands of other programs, and the
# commands of processes of our own, each of which gets a YAML file.
WORDS = {"config/config.py", "config/schema.py", "config/trust.py", "engine/dashboard.py", "tracking/git_commit.py"}
PROCESSES = {"engine/fit.py", "engine/submit.py", "engine/sweep/__init__.py"}


def test_words_stop_at_the_door() -> None:
    """Texts name fields (`model.lr`) and functions (`list_runs()`) in backticks; the door knows options and verbs."""
    found = set()
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        bodies = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
        docs = {id(first.value) for first in bodies if isinstance(first, ast.Expr)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
        words = rf"(?<![\w-])--[a-z]|lightning-cnn ({'|'.join(VERBS)})"
        if any(isinstance(text.value, str) and re.search(words, text.value) for text in texts):
            found.add(str(file.relative_to(PACKAGE)))
    assert {name for name in found if name.split("/")[0] not in ("cli", "cluster")} == WORDS | PROCESSES


def test_no_file_imports_itself_around_a_circle() -> None:
    """Imports at the top of files only: those inside functions can't fail for a circle."""
    imports = {module: targets - {module} for module, targets in _all(at_top=True).items()}
    done: set[str] = set()
    circles: list[str] = []

    def follow(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            circles.append(" → ".join((*path[path.index(module) :], module)))
        elif module not in done:
            for target in sorted(imports.get(module, ())):
                follow(target, (*path, module))
            done.add(module)

    for module in sorted(imports):
        follow(module, ())
    assert circles == []
