"""The user's own modules in the working directory: found where the user names one, and by nobody else.

`python -m` and `python -c` put the working directory first on Python's path. There every library that tries an optional
package would run a file of that name which lies beside the data, such as `s3fs.py`. So the directory is taken off the
path, and a finder behind all others serves the modules that the user has named, and what these import. Here nothing is
imported that Python has not loaded when it starts, since the directory may still be first on the path.
"""

import importlib
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

SAFE_PATH = "PYTHONSAFEPATH"  # keeps the working directory off the path of the processes that this one starts
PACKAGE = __name__.partition(".")[0]
IMPORTING = ("importlib", "_frozen_importlib")


class UserCode:
    """Finds top-level modules in a folder, after all other finders.

    Args:
        folder: The working directory.

    Attributes:
        names: The modules that the user has named, and those that they import.
        runs_dirs: Folders of the user's own runs besides the usual one, see `lightning_cnn.config.trust`.
        foreign: A file of somebody else that is in use; empty where there is none.
        own_runs: The folder of the user's own runs, to be named beside it.
        foreign_config: Whether the configuration is somebody else's, too.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.names: set[str] = set()
        self.runs_dirs: set[str] = set()
        self.foreign = self.own_runs = ""
        self.foreign_config = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Python's question for a module; a part of a package is found by its parent's path."""
        if path is not None or not (name in self.names or self._is_for_the_user()):
            return None
        spec = PathFinder.find_spec(name, [self.folder])
        if spec is not None:
            self.names.add(name)  # what it imports is the user's, too
        return spec

    def _is_for_the_user(self) -> bool:
        """Whether a module of the user's, or the parser of the configuration for a name in it, imports."""
        frame = sys._getframe(2)
        while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(IMPORTING):
            frame = frame.f_back
        importer = str(frame.f_globals.get("__name__"))
        if importer == "jsonargparse._util":
            return frame.f_code.co_name == "import_object"
        return importer in ("__main__", "__mp_main__") or importer.partition(".")[0] in self.names

    def install(self) -> "UserCode":
        """Puts it behind all other finders, in place of another, here and in the processes of multiprocessing."""
        import multiprocessing  # not before the working directory is off the path

        _remove()
        sys.meta_path.append(self)
        # the only state that a new process has before it unpickles what it works on, such as a user's Dataset
        multiprocessing.current_process()._config[PACKAGE] = self  # type: ignore[attr-defined]
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """Installs it where it is unpickled: in a process that multiprocessing has started."""
        return _installed, (vars(self),)


def user_code() -> UserCode:
    """What finds the user's modules in the working directory."""
    found = next((finder for finder in sys.meta_path if isinstance(finder, UserCode)), None)
    return found if found is not None and found.folder == _here() else UserCode(_here()).install()


def find_user_code(*modules: str) -> UserCode:
    """Lets modules in the working directory be imported that the user has named.

    Args:
        modules: Dotted names of modules, or of what is in them, such as `my_nets.tiny`.
    """
    code = user_code()
    code.names.update(module.partition(".")[0] for module in modules)
    return code


def may_import(module: object) -> bool:
    """Whether a module may be imported for a file.

    Args:
        module: Its dotted name, or that of something in it.
    """
    code, package = user_code(), str(module).partition(".")[0]
    return not code.foreign or package == PACKAGE or package in code.names


def import_named(module: str) -> object:
    """Imports a module that an argument names.

    Raises:
        UserError: If it may not be imported.
        ImportError: If it is not there.
    """
    if not all(module.split(".")):  # relative to nothing
        raise ModuleNotFoundError(name=module)
    if not may_import(module):
        raise refused(module)
    find_user_code(module)
    return importlib.import_module(module)


def refused(name: object) -> Exception:
    """The `UserError` about a name in a file of somebody else."""
    from lightning_cnn.errors import UserError

    code = user_code()
    package = str(name).partition(".")[0][:80]
    return UserError(
        f"{code.foreign} names {str(name)[:80]}, but lies outside your runs directories (such as "
        f"{code.own_runs}); to import it, which runs its code, add `trust` {package}"
    )


class FreshUserCode:
    """Forgets within its block what was named and read before: each call from Python begins anew."""

    def __enter__(self) -> None:
        """Puts a finder that knows nothing in place of the one that is there."""
        self._earlier = [finder for finder in sys.meta_path if isinstance(finder, UserCode)]
        UserCode(_here()).install()

    def __exit__(self, *_: object) -> None:
        """Puts the earlier one back."""
        _remove()
        for finder in self._earlier:
            finder.install()


class LeavingWorkingDirectory(FreshUserCode):
    """Takes the working directory off Python's path, in this process and in those that it starts.

    Where the package itself is found by this entry alone, as in a copy of its source, nothing changes. In the end the
    path is as before, for the sake of notebooks; but not after `python -c`, as libraries import when a process ends.
    """

    def __enter__(self) -> None:
        """Takes it off, and forgets the names of an earlier command."""
        self._variable = os.environ.get(SAFE_PATH)
        before = [*sys.path]
        first = (
            "" if self._variable or sys.flags.safe_path else (before or [""])[0]
        )  # what follows is the user's own wish
        self._taken: list[str] = [entry for entry in before if entry == ""]
        if first and first == _here():
            self._taken.append(first)
        for entry in self._taken:
            sys.path.remove(entry)
        if any(finder.find_spec(PACKAGE, None) for finder in sys.meta_path if not isinstance(finder, UserCode)):
            os.environ[SAFE_PATH] = "1"
        else:
            sys.path[:], self._taken = before, []
        super().__enter__()

    def __exit__(self, *_: object) -> None:
        """Restores the path."""
        if sys.argv[:1] != ["-c"]:
            sys.path[:0] = self._taken
        if self._variable is None:
            os.environ.pop(SAFE_PATH, None)
        super().__exit__()


def _remove() -> None:
    import multiprocessing

    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, UserCode)]
    multiprocessing.current_process()._config.pop(PACKAGE, None)  # type: ignore[attr-defined]


def _installed(state: dict[str, object]) -> UserCode:
    code = UserCode("")
    vars(code).update(state)
    return code.install()


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return ""
