"""The commit of a foreign repository is read, and no program runs that it names."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import only_run, record

from lightning_cnn.cli import main
from lightning_cnn.tracking.git_commit import git_commit

WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(*words: str, folder: Path | str = ".") -> str:
    done = subprocess.run(["git", *words], cwd=folder, env=os.environ | WHO, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repository() -> Path:
    """With a canary in every setting that names a program; each writes a file named after itself into `ran/`."""
    git("init", "--quiet", "--initial-branch", "main")
    Path("ran").mkdir()
    Path(".gitattributes").write_text("*.txt filter=a=b diff=canary\n*.bin filter=long\n*.odd filter=included\n")
    for name in ("a.txt", "b.bin", "c.odd", "plain.py"):
        Path(name).write_text("one\n")
    git("add", ".gitattributes", "a.txt", "b.bin", "c.odd", "plain.py")
    git("commit", "--quiet", "--message", "first")

    def canary(name: str) -> str:
        script = Path(".git", f"canary_{name}").absolute()
        script.write_text(f"#!/bin/sh\ntouch '{Path('ran').absolute()}/{name}'\ncat\nexit 0\n")
        script.chmod(0o755)
        return str(script)

    hooks = Path(".git/hooks")
    for name in ("post-index-change", "fsmonitor-watchman", "reference-transaction", "post-checkout", "pre-commit"):
        (hooks / name).unlink(missing_ok=True)
        os.symlink(canary(f"hook-{name}"), hooks / name)
    settings = {
        "core.fsmonitor": canary("fsmonitor"),
        "core.sshCommand": canary("ssh"),
        "core.pager": canary("pager"),
        "pager.status": "true",
        "core.editor": canary("editor"),
        "core.askPass": canary("askpass"),
        "diff.external": canary("external"),
        "diff.canary.textconv": canary("textconv"),
        "diff.canary.command": canary("diff"),
        "filter.a=b.clean": canary("clean"),
        "filter.a=b.smudge": canary("smudge"),
        "filter.a=b.required": "true",
        "filter.long.process": canary("process"),
        "alias.status": f"!{canary('alias')}",
        "alias.rev-parse": f"!{canary('alias')}",
        "gpg.program": canary("gpg"),
        "log.showSignature": "true",
        "credential.helper": canary("credential"),
        "include.path": str(Path("included").absolute()),
    }
    Path("included").write_text(f'[filter "included"]\n\tclean = {canary("included")}\n')
    for name, value in settings.items():
        git("config", name, value)
    return Path.cwd()


def age(*names: str) -> None:
    """Makes git look into files anew."""
    for name in names:
        os.utime(name, (1, 1))


def test_the_canaries_sing_without_us(repository: Path) -> None:
    age("a.txt", "b.bin", "c.odd")
    subprocess.run(["git", "status", "--porcelain"], capture_output=True)
    ran = {path.name for path in Path("ran").iterdir()}
    assert {"fsmonitor", "clean", "included", "process"} <= ran


@pytest.mark.parametrize("changed", [False, True])
def test_no_program_of_a_foreign_repository_runs(repository: Path, changed: bool) -> None:
    head = git("rev-parse", "HEAD")
    age("a.txt", "b.bin", "c.odd", "plain.py")
    if changed:
        Path("a.txt").write_text("two\n")
    index = Path(".git/index").read_bytes()
    assert git_commit() == head + "+changes" * changed
    assert list(Path("ran").iterdir()) == []
    assert Path(".git/index").read_bytes() == index


def test_a_filter_of_the_user_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of Git LFS, without which every file that was touched would count as changed."""
    Path("mine").write_text('[filter "upper"]\n\tclean = tr a-z A-Z\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(Path("mine").absolute()))
    git("init", "--quiet", "--initial-branch", "main")
    Path(".gitattributes").write_text("*.txt filter=upper\n")
    Path("a.txt").write_text("one\n")
    git("add", ".gitattributes", "a.txt")
    git("commit", "--quiet", "--message", "first")
    age("a.txt")
    assert git_commit() == git("rev-parse", "HEAD")


def test_a_submodule_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("init", "--quiet", "inner")
    Path("inner/a.txt").write_text("one\n")
    git("add", "a.txt", folder="inner")
    git("commit", "--quiet", "--message", "first", folder="inner")
    git("init", "--quiet", "outer")
    git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(tmp_path / "inner"), folder="outer")
    git("commit", "--quiet", "--message", "first", folder="outer")
    script = tmp_path / "canary"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    script.chmod(0o755)
    Path("outer/inner/.gitattributes").write_text("*.txt filter=x\n")
    for name in ("core.fsmonitor", "filter.x.clean"):
        git("config", name, str(script), folder="outer/inner")
    age("outer/inner/a.txt")
    monkeypatch.chdir("outer")
    assert git_commit() == git("rev-parse", "HEAD")
    assert not (tmp_path / "ran").exists()


def test_a_missing_object_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository can name a program as the place from which what it lacks is fetched."""
    git("init", "--quiet")
    Path("a.txt").write_text("one\n")
    git("add", "a.txt")
    git("commit", "--quiet", "--message", "first")
    tree = git("rev-parse", "HEAD^{tree}")
    script = tmp_path / "canary"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    values = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{script}",
        "protocol.ext.allow": "always",
    }
    for name, value in values.items():
        git("config", name, value)
    (Path(".git/objects") / tree[:2] / tree[2:]).unlink()
    assert git_commit() is None
    assert not (tmp_path / "ran").exists()
    subprocess.run(["git", "status", "--porcelain"], capture_output=True)
    assert (tmp_path / "ran").exists()


def test_outside_of_a_repository_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    git("init", "--quiet")
    assert git_commit() is None  # nor in one without a commit


def test_a_training_with_wandb_runs_no_program_of_the_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git("rev-parse", "HEAD")
    age("a.txt", "b.bin", "c.odd")
    words = ["fit", "--data", "Digits", "--model.architecture", "linear", "--wandb", "offline"]
    assert main([*words, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]) == 0
    folder = only_run()
    assert record(folder)["git_commit"] == head
    assert list(Path("ran").iterdir()) == []


def wrapped(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a script in the place of git."""
    real = shutil.which("git")
    Path("bin").mkdir()
    Path("bin/git").write_text(f"#!/bin/sh\n{script.format(real=real)}\n")
    Path("bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")


def test_fixed_settings_do_not_depend_on_variables(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped(monkeypatch, 'unset GIT_CONFIG_COUNT\nexec {real} "$@"')
    age("plain.py")
    git_commit()
    assert not {"fsmonitor", "hook-post-index-change"} & {path.name for path in Path("ran").iterdir()}


@pytest.mark.parametrize(("version", "is_known"), [("2.30.9", False), ("1.99", False), ("2.31.0", True), ("3.0", True)])
def test_an_old_git_is_not_asked(version: str, is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would run the filters of the repository."""
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    head = git("rev-parse", "HEAD")
    answer = f'case "$*" in *--version) echo git version {version} ;; *) touch asked; exec {{real}} "$@" ;; esac'
    wrapped(monkeypatch, answer)
    assert git_commit() == (head if is_known else None)
    assert Path("asked").exists() == is_known
