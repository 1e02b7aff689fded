"""The commit of the working directory. Git runs no program that the repository names: it may be a downloaded one."""

import os
import re
import subprocess
from collections.abc import Mapping

SECONDS = 5
OLDEST = (2, 31)  # the first Git that reads GIT_CONFIG_COUNT
# of the repository's configuration: what `rev-parse` and `status` would run
OFF = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.sshCommand": "false"}
# of a file that git reads: programs that it is sent through, and whether git fails without them
FILTER = ("clean", "smudge", "process", "required")
ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",  # the index is not written
    "GIT_NO_LAZY_FETCH": "1",  # what a partial clone lacks is not fetched (Git 2.44)
    "GIT_ALLOW_PROTOCOL": "none",  # nor by an older one
    "GIT_TERMINAL_PROMPT": "0",
}


def git_commit() -> str | None:
    """The commit of the working directory, with `+changes` where files differ from it; None where there is none.

    Filters of the user's own configuration, such as those of Git LFS, are run; those in the repository's are not. A Git
    that is too old to switch these off is not asked.
    """
    try:
        version = re.match(r"git version (\d+)\.(\d+)", _git({}, "--version"))
        if version is None or (int(version[1]), int(version[2])) < OLDEST:
            return None
        commit = _git({}, "rev-parse", "HEAD").strip()
        names = _git({}, "config", "-z", "--show-scope", "--includes", "--name-only", "--get-regexp", r"^filter\.")
        words = names.split("\0")[:-1]
        filters = {name for scope, name in zip(words[::2], words[1::2], strict=True) if scope in ("local", "worktree")}
        off = {f"{name.rpartition('.')[0]}.{key}": "" for name in filters for key in FILTER}
        status = _git(off, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
        return commit + ("+changes" if status else "")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _git(off: Mapping[str, str], *words: str) -> str:
    """What git says; `config` says nothing, with the exit code 1, where there is no such setting."""
    environment = os.environ | ENVIRONMENT
    first = int(environment.get("GIT_CONFIG_COUNT", 0))
    for number, (name, value) in enumerate(off.items(), first):  # not by -c: a name may hold a =
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    environment["GIT_CONFIG_COUNT"] = str(first + len(off))
    fixed = [word for name, value in OFF.items() for word in ("-c", f"{name}={value}")]
    done = subprocess.run(["git", *fixed, *words], capture_output=True, text=True, timeout=SECONDS, env=environment)
    if done.returncode and not (words[0] == "config" and done.returncode == 1):
        raise subprocess.SubprocessError(done.stderr)
    return done.stdout
