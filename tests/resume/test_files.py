"""The writer of whole files: the old file or the new one, nothing else, and one line where the disk refuses."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_cnn.errors import StorageError
from lightning_cnn.resume import files
from lightning_cnn.resume.files import check_writable, make_folder, replace_text, replacing


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB with an old file of 8 kB on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=20", "tmpfs", str(folder)])
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    (folder / "file").write_text("old" * 2700)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_new_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("old", "ne\u00fc\n"):
        replace_text(path, text)
        assert path.read_bytes() == text.encode()
    with replacing(path) as file:
        file.write(b"newer")
        assert path.read_bytes() == "ne\u00fc\n".encode()
        assert Path(file.name).parent == tmp_path and files.TEMPORARY in file.name
    assert path.read_bytes() == b"newer"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), FileNotFoundError(2, "No", "image.png")])
def test_the_old_file_stays_where_the_block_raises(tmp_path: Path, error: BaseException) -> None:
    """What concerns other files is no failure of this one."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)) as raised, replacing(path) as file:
        file.write(b"half")
        raise error
    assert raised.value is error
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_no_link_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where somebody guesses the name of the new file."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "0")
    (tmp_path / f"file.tmp-{os.getpid()}-0").symlink_to(victim)
    with pytest.raises(StorageError, match=r"can't write .*file \(File exists\)"):
        replace_text(tmp_path / "file", "new")
    monkeypatch.undo()
    (tmp_path / "linked").symlink_to(victim)
    replace_text(tmp_path / "linked", "new")
    assert victim.read_text() == "precious" and (tmp_path / "linked").read_text() == "new"


def test_a_device_is_written_to() -> None:
    with replacing(Path("/dev/null")) as file:
        file.write(b"x")
    assert Path("/dev/null").is_char_device()
    reader, writer = os.pipe()
    with replacing(Path(f"/dev/fd/{writer}")) as file:
        file.write(b"through a pipe")
    assert os.read(reader, 99) == b"through a pipe"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up: 3 bytes needed): make room"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "input/output error"),
    ],
)
@pytest.mark.parametrize("at", ["open", "fsync", "replace"])
def test_whatever_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str, at: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def refuse(*arguments: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path if at == "replace" else os, at, refuse)
    with pytest.raises(StorageError) as raised:
        replace_text(path, "new")
    monkeypatch.undo()
    assert str(raised.value).startswith(f"can't write {path} (") and reason in str(raised.value)
    assert "\n" not in str(raised.value)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_full_disk(disk: Path) -> None:
    path = disk / "file"
    with pytest.raises(StorageError) as raised:
        replace_text(path, "x" * 80_000)
    # the old file, and the tables of the folder
    assert str(raised.value) == f"can't write {path} (the disk is full: 80 kB needed, 57.3 kB free): make room"
    assert path.read_text() == "old" * 2700 and [*disk.iterdir()] == [path]
    with pytest.raises(StorageError, match=r"full: 57.3 kB free\): make room, or choose another place with --output$"):
        frame = pd.DataFrame({"number": np.random.default_rng(0).random(20_000)})
        with replacing(path, "choose another place with --output") as file:
            frame.to_parquet(file)
    for number in range(18):  # with the old file and the folder itself all 20
        (disk / f"{number}").touch()
    with pytest.raises(StorageError, match=r"the disk is full: .*no inode is left"):
        replace_text(path, "new")
    with pytest.raises(StorageError, match=r"can't make .*folder \(the disk is full"):
        make_folder(disk / "folder")
    assert path.read_text() == "old" * 2700


@pytest.mark.parametrize("what", ["torch", "npz", "png", "parquet"])
def test_a_full_disk_under_other_writers(disk: Path, what: str) -> None:
    """Some of them turn the error of the disk into one that does not say what it was."""
    path = disk / "file"
    noise = torch.rand(200, 200, generator=torch.Generator().manual_seed(0))
    with pytest.raises(StorageError, match="the disk is full"), replacing(path) as file:
        if what == "torch":
            torch.save(noise, file)
        elif what == "npz":
            np.savez(file, noise=noise.numpy())
        elif what == "parquet":
            pd.DataFrame(noise.numpy()).to_parquet(file)
        else:
            from PIL import Image

            Image.fromarray((255 * noise).byte().repeat(2, 2).numpy()).save(file, format="png")
    assert path.read_text() == "old" * 2700 and [*disk.iterdir()] == [path]


def test_a_disk_that_becomes_read_only(disk: Path) -> None:
    path = disk / "file"
    with pytest.raises(StorageError, match=r"the file system is read-only\)$"):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        replace_text(path, "new")
    assert path.read_text() == "old" * 2700


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(StorageError, match=r"can't write .*gone/file \(its folder is gone\)"):
        replace_text(gone / "file", "new")
    with pytest.raises(StorageError, match="its folder is gone"):
        make_folder(gone / "inner", parents=False)
    gone.mkdir()
    with pytest.raises(StorageError, match="its folder is gone"), replacing(gone / "file") as file:
        Path(file.name).unlink()
        gone.rmdir()
    for folder in (tmp_path, Path(".")):
        with pytest.raises(StorageError, match="Is a directory"):
            replace_text(folder, "new")
    with pytest.raises(StorageError, match="File name too long"):
        replace_text(tmp_path / ("x" * 300), "new")
    make_folder(gone / "inner")
    assert (gone / "inner").is_dir()


def test_what_can_not_be_written_is_known_before(tmp_path: Path) -> None:
    for path in (tmp_path / "file", tmp_path / "new" / "folder" / "file", Path("/dev/null")):
        check_writable(path)
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").write_text("old")
    check_writable(tmp_path / "file")
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "inner", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(StorageError, match=rf"can't write .*\({reason}\): elsewhere$"):
            check_writable(path, "elsewhere")
        with pytest.raises(StorageError):
            make_folder(path.parent)
            replace_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_read_only_disk_is_known_before(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for path in (disk / "file", disk / "new" / "file"):
        with pytest.raises(StorageError, match=r"the file system is read-only\)$"):
            check_writable(path)


def test_a_limit_on_the_size_of_a_file(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from lightning_cnn.resume.files import replace_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
replace_text(Path({str(tmp_path)!r}) / "file", "x" * 2000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "file (the limit on the size of a file is reached: 2 kB needed): raise the limit" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_half_the_files_of_a_killed_process_are_not_read(tmp_path: Path) -> None:
    """At whatever moment it is killed, the file is one of those that were written, whole."""
    code = f"""
from pathlib import Path
from lightning_cnn.resume.files import replace_text
print("ready", flush=True)
for number in range(10**9):
    replace_text(Path({str(tmp_path)!r}) / "file", f"{{number % 10}}" * 200_000, sync=False)
"""
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            while not (tmp_path / "file").exists():
                pass
            process.kill()
        text = (tmp_path / "file").read_text()
        assert len(text) == 200_000 and len({*text}) == 1


@pytest.mark.parametrize("words", ["--help", "list architectures"])
def test_output_on_a_full_disk(words: str) -> None:
    call = f"{sys.executable} -m lightning_cnn {words}"
    done = subprocess.run(f"{call} > /dev/full", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: can't write the output (the disk is full)\n")
    assert subprocess.run(f"{call} > /dev/full 2> /dev/full", shell=True).returncode == 2
    done = subprocess.run(f"{call} | head -1", shell=True, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""
