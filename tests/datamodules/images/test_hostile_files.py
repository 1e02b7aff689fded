"""Files from outside: links that lead around in circles, FIFOs, archives that write elsewhere, and crafted `.mat`."""

import io
import os
import re
import shutil
import socket
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from run_folders import write_run
from small_data import write_image_folder
from svhn_files import cropped, write_cropped, write_digit_struct

from lightning_cnn.cli import main
from lightning_cnn.datamodules.child_reader import ChildDied, read_in_child
from lightning_cnn.datamodules.house_numbers import digit_struct
from lightning_cnn.datamodules.house_numbers.digit_struct import read_digit_struct
from lightning_cnn.datamodules.house_numbers.geometry import read_annotations
from lightning_cnn.datamodules.images import svhn
from lightning_cnn.datamodules.images.download import fetch, unpack
from lightning_cnn.datamodules.images.image_files import find_images
from lightning_cnn.datamodules.images.image_folder import ImageFolder
from lightning_cnn.datamodules.images.svhn import SVHN
from lightning_cnn.errors import UserError
from lightning_cnn.regular_files import find_files, find_folders
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import iter_runs

pytestmark = pytest.mark.timeout(120)  # who waits for a FIFO waits for ever


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of ten images."""
    return write_image_folder(tmp_path / "data", classes=2, count=10, parts=("train",))


def images(root: Path) -> list[str]:
    data = ImageFolder(str(root), image_size=8, val_fraction=0.1)
    data.setup("fit")
    whole = data.dataset("train").dataset  # type: ignore[attr-defined]
    return sorted(whole.names)


def test_a_link_to_a_folder_above_adds_nothing(root: Path) -> None:
    plain = images(root)
    assert len(plain) == 20
    (root / "train" / "digit_0" / "parent").symlink_to("..")
    (root / "train" / "digit_0" / "self").symlink_to(".")
    (root / "train" / "digit_1" / "top").symlink_to("/")
    (root / "train" / "again").symlink_to(".")
    with pytest.warns(UserWarning, match="skipped 4: again .a link to a folder above it., .*self.*, ...$"):
        assert images(root) == plain
    assert ImageFolder(str(root), image_size=8).class_names == ("digit_0", "digit_1")


def test_links_to_elsewhere_are_followed_once(root: Path, tmp_path: Path) -> None:
    """A class, or its images, may lie elsewhere; a second way to the same folder is none."""
    shutil.move(root / "train" / "digit_1", tmp_path / "elsewhere")
    (root / "train" / "digit_1").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "digit_2").symlink_to("digit_0")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "train" / "digit_0" / "more.png").symlink_to(tmp_path / "elsewhere" / "000.png")
    with pytest.warns(UserWarning, match="skipped 2: digit_2 .a link to a folder that was searched already"):
        found = images(root)
    assert len(found) == 21 and "train/digit_0/more.png" in found and "train/digit_1/000.png" in found


@pytest.fixture
def oddities(root: Path) -> Iterator[Path]:
    """A class folder with things that are no images but have their names."""
    folder = root / "train" / "digit_0"
    os.mkfifo(folder / "fifo.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "round.png").symlink_to("round.png")
    (folder / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket.png"))
        yield folder


def test_only_regular_files_are_read(root: Path, oddities: Path) -> None:
    with pytest.warns(UserWarning, match="skipped 5: .*broken.png .a broken link., .*device.png .no regular file., "):
        assert len(images(root)) == 20
    with pytest.warns(UserWarning, match="skipped 5: broken.png .a broken link., device.png .no regular file., "):
        assert len(find_images([str(oddities)])) == 10
    for name in ("fifo.png", "socket.png", "device.png"):
        with pytest.raises(UserError, match="there is no file or folder"):
            find_images([str(oddities / name)])


def test_hidden_files(root: Path) -> None:
    """Those that macOS and Windows leave behind."""
    folder = root / "train" / "digit_0"
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"x")
    (folder / "._000.png").write_bytes(b"x")
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        (root / "train" / name).mkdir()
        shutil.copy(folder / "000.png", root / "train" / name)
    with pytest.warns(UserWarning, match="skipped 3: .ipynb_checkpoints .hidden., __MACOSX .hidden., .*._000.png"):
        assert len(images(root)) == 20
    assert find_folders(root / "train") == ["digit_0", "digit_1"]


def test_the_order_of_images_stays(root: Path, recwarn: pytest.WarningsRecorder) -> None:
    """As torchvision has it: a run that goes on depends on it."""
    from torchvision.datasets import ImageFolder as Theirs

    for name in ("a-b", "a", "a/c", "B"):
        (root / "train" / "digit_0" / name).mkdir()
        for number in (1, 10, 2):
            Image.new("L", (8, 8)).save(root / "train" / "digit_0" / name / f"{number}.PNG")
    data = ImageFolder(str(root), image_size=8)
    paths, labels = data._find("train")
    theirs = Theirs(str(root / "train")).samples
    assert [*zip(paths, labels.tolist(), strict=True)] == theirs and len(theirs) == 32
    assert not recwarn.list


def test_a_folder_that_can_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("digit_1"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_files(root, [".png"])
    assert len(found.files) == 10 and found.note() == f"{root}: skipped 1: train/digit_1 (Permission denied)"


# run folders


def test_run_folders_with_links_and_fifos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(Path("runs"), "exp/one", {"model": {"lr": 1}}, [(0.5, 0.9)])
    (folder.parent / "two").symlink_to("one")
    Path("runs/again").symlink_to("exp")
    Path("runs/self").symlink_to(".")
    assert [run.folder for run in iter_runs(Path("runs"))] == [folder]
    for name in ("run.json", "config.yaml", "metrics.csv"):
        other = write_run(Path("runs"), f"fifo/{name}", {"model": {"lr": 2}}, [(0.5, 0.9)])
        (other / name).unlink()
        os.mkfifo(other / name)
    with pytest.raises(UserError, match="not a regular file"):
        RunFolder.open(Path("runs/fifo/run.json"))
    assert main(["compare", "--html", "page.html"]) == 0
    out = capsys.readouterr()
    assert re.search("^fifo/run.json +damaged", out.out, re.MULTILINE)
    assert out.out.count("finished") == 3 and main(["list", "runs"]) == 0


# archives


def archive(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name", ["../outside", "/outside/file", "inner/../../outside"])
def test_an_archive_that_names_places_outside(name: str, tmp_path: Path) -> None:
    packed = archive(
        tmp_path / "x.tar.gz", {"inner/good": b"1", name.replace("/outside/file", f"{tmp_path}/out"): b"2"}
    )
    failure = fetch(lambda folder: unpack(packed, folder), tmp_path / "root")
    inside = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert "outside" not in inside and not (tmp_path / "out").exists()
    assert failure is not None or name.startswith("/")  # of an absolute name the slash is left out


def test_links_and_devices_in_an_archive_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    members = {
        "cifar/escape": link("cifar/escape", str(tmp_path)),
        "cifar/hard": link("cifar/hard", "../precious", tarfile.LNKTYPE),
        "cifar/fifo": link("cifar/fifo", "", tarfile.FIFOTYPE),
        "cifar/escape/precious": b"theirs",
        "cifar/good": b"1",
    }
    assert fetch(lambda folder: unpack(archive(tmp_path / "x.tar.gz", members), folder), tmp_path / "root") is None  # type: ignore[arg-type]
    assert (tmp_path / "precious").read_text() == "mine"
    left = {str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*") if not path.is_dir()}
    assert left == {"cifar/escape/precious", "cifar/good"}


def test_a_zip_bomb_of_annotations(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train/1.xml", bytes(50_000_000))
    with pytest.raises(UserError, match=r"train/1.xml has more than 1,048,576 bytes"):
        read_annotations(tmp_path / "x.zip", "train")


# .mat


def element(kind: int, content: bytes) -> bytes:
    """Of the format of MATLAB 5: type, length, content."""
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def nested_cells(path: Path, depth: int) -> Path:
    """A file whose variable `y` is a cell in a cell in a cell: scipy's reader goes down into them in C."""
    inner = element(6, struct.pack("<II", 6, 0)) + element(5, bytes(8)) + element(1, b"") + element(9, b"")
    parts, size = [struct.pack("<II", 14, len(inner)) + inner], len(inner) + 8
    for level in range(depth):
        name = b"y" if level == depth - 1 else b""
        head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, name)
        size += len(head)
        parts.append(struct.pack("<II", 14, size) + head)
        size += 8
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(header + b"".join(reversed(parts)))
    return path


def test_a_crafted_mat_does_not_end_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cropped(tmp_path / "test_32x32.mat", *cropped(10))
    file = nested_cells(tmp_path / "train_32x32.mat", 20_000)
    words = ["--data.root", str(tmp_path), "--data.check_md5", "false", "--wandb", "disabled"]
    assert main(["train", "--data", "SVHN", *words]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {file} is truncated or not an SVHN file (it crashed its reader by SIGSEGV): ")


def test_a_child_that_crashes_over_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever HDF5 does, as here a reader in its place."""
    path = write_digit_struct(tmp_path / "digitStruct.mat", [("1.png", [(1, 0, 0, 5, 9)])])
    reader = tmp_path / "reader.py"
    reader.write_text("import os\ndef read(path):\n    os.abort()\n")
    with pytest.raises(ChildDied, match="SIGABRT"):
        read_in_child(reader, path)
    monkeypatch.setattr(digit_struct, "READER", reader)
    with pytest.raises(UserError, match=r"it crashed its reader by SIGABRT"):
        read_digit_struct(path)


def test_the_child_imports_nothing_beside_the_data(tmp_path: Path) -> None:
    """Modules in the working directory, or beside the reader, are not taken for those of the libraries."""
    write_cropped(tmp_path / "train_32x32.mat", *cropped(10))
    for name in ("numpy", "scipy", "struct", "digits"):
        Path(f"{name}.py").write_text("raise SystemExit('mine')")
    pixels, labels = read_in_child(svhn.READER, tmp_path / "train_32x32.mat")
    assert pixels.shape == (32, 32, 3, 10) and len(labels) == 10


def test_a_fifo_in_the_place_of_a_mat(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train_32x32.mat")
    with pytest.raises(UserError, match="SVHN not found"):
        SVHN(str(tmp_path), download=False).prepare_data()
