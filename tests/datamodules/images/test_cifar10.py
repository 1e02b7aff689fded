"""CIFAR-10 in the official files: exact pixels, official order, and nothing believed that a file says."""

import hashlib
import pickle
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import CIFAR10_NAMES, cifar10_names, cifar10_photos, python2_pickle, write_cifar10

from lightning_cnn.cli import main
from lightning_cnn.datamodules import CIFAR10
from lightning_cnn.datamodules.batches import image_name
from lightning_cnn.datamodules.images import cifar10
from lightning_cnn.errors import UserError

PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
INIT = "torchvision.datasets.CIFAR10.__init__"


def small(root: Path, **options: Any) -> CIFAR10:
    return CIFAR10(root=str(root), **{"check_md5": False, **options})


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def rewrite(root: Path, file: str = "data_batch_2", protocol: int | None = None, **entries: Any) -> Path:
    """Writes one batch anew with some entries changed; None removes an entry."""
    path = root / PYTHON / file
    batch = {key.decode(): value for key, value in pickle.loads(path.read_bytes(), encoding="bytes").items()}
    batch = {key: value for key, value in (batch | entries).items() if value is not None}
    path.write_bytes(python2_pickle(batch) if protocol is None else pickle.dumps(batch, protocol))
    return path


# what is read


@pytest.mark.parametrize("binary", [False, True])
def test_real_photos_come_back_exactly(shared_data: Path, tmp_path: Path, binary: bool) -> None:
    data = small(write_cifar10(tmp_path, train=1000, test=200, binary=binary))
    with zipfile.ZipFile(shared_data / "cifar10" / "cifar10_lossless_webp.zip") as archive:
        for train, part, count in ((True, "train", 1000), (False, "test", 200)):
            images, labels = data.load(train)
            assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
            assert images.shape == (count, 3, 32, 32) and labels.bincount().tolist() == [count // 10] * 10
            for name, image, label in zip(cifar10_names(archive, part), images, labels, strict=True):
                with archive.open(name) as file:
                    assert np.array_equal(np.asarray(Image.open(file)), image.permute(1, 2, 0).numpy())
                assert name.split("/")[1] == data.class_names[label]
    assert len(data.load(train=True)[0].flatten(1).unique(dim=0)) == 1000  # real photos, no two of them equal


def test_the_files_of_the_tests_are_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    write_cifar10(tmp_path, train=60, test=20)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: Path(path).is_file())
    for train in (True, False):
        theirs = datasets.CIFAR10(str(tmp_path), train=train)
        images, labels = small(tmp_path).load(train)
        assert torch.equal(torch.from_numpy(theirs.data).permute(0, 3, 1, 2), images)
        assert theirs.targets == labels.tolist()
        assert tuple(theirs.classes) == CIFAR10.class_names


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_that_python_3_wrote(tmp_path: Path, protocol: int, order: Any) -> None:
    write_cifar10(tmp_path, train=20, test=5)
    before = small(tmp_path).load(train=True)
    pixels = before[0][4:8].flatten(1).numpy()
    rewrite(tmp_path, protocol=protocol, data=np.array(pixels, order=order), filenames=["a", "b", "c", "d"])
    data = small(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, data.load(train=True), strict=True))


def test_the_first_rows_are_those_of_the_first_file(tmp_path: Path) -> None:
    data = small(write_cifar10(tmp_path, train=100, test=10), val_split="first", val_fraction=0.1)
    data.setup("fit")
    data.setup("test")
    official = torch.from_numpy(cifar10_photos("train")[0])
    assert torch.equal(data._sets["val"][torch.arange(10)][0], official[:10])
    assert torch.equal(data._sets["train"][torch.arange(90)][0], official[10:100])
    assert torch.equal(data._sets["test"][torch.arange(10)][0], torch.from_numpy(cifar10_photos("test")[0][:10]))


def test_names_of_the_photos(tmp_path: Path) -> None:
    data = small(write_cifar10(tmp_path, train=100, test=10), val_split="first", val_fraction=0.2)
    data.setup("fit")
    data.setup("test")

    def name(part: str, row: int, number: int) -> str:  # each file numbers its own rows
        return f"{CIFAR10_NAMES[cifar10_photos(part)[1][row]].decode()}_s_{number:06d}.png"

    assert image_name(data._sets["val"], 3) == name("train", 3, 3)
    assert image_name(data._sets["train"], 1) == name("train", 21, 1)
    assert image_name(data._sets["test"], 9) == name("test", 9, 9)
    binary = small(write_cifar10(tmp_path / "other", train=100, test=10, binary=True), val_split="first")
    binary.setup("fit")
    assert image_name(binary._sets["train"], 1) == "21"  # the binary version has no names
    rewrite(tmp_path, filenames=None)
    data = small(tmp_path, val_split="first")
    data.setup("fit")
    assert image_name(data._sets["train"], 1) == "21"


def test_it_trains_from_the_command_line(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    words = "train --data CIFAR10 --data.check_md5 false --data.val_split first --data.normalize unit"
    words += " --model.architecture ffnn --trainer.max_epochs 1 --wandb disabled"
    assert main([*words.split(), "--data.root", str(tmp_path)]) == 0


# which files


@pytest.mark.parametrize("binary", [False, True])
def test_files_that_are_not_the_official_ones(tmp_path: Path, binary: bool) -> None:
    write_cifar10(tmp_path, binary=binary)
    message = fails(lambda: CIFAR10(root=str(tmp_path)).setup("test"))
    file = f"{BINARY}/test_batch.bin" if binary else f"{PYTHON}/test_batch"
    assert message.startswith(f"{tmp_path}/{file} is not the official file")
    assert message.endswith("`data.check_md5` false")
    assert ("307,300 bytes, expected 30,730,000 bytes" if binary else "40351d587109b95175f43aff81a1287e") in message


def test_files_with_the_official_md5_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, train=20, test=5)
    for part in cifar10.MD5.values():
        for name in part:
            content = (tmp_path / PYTHON / name).read_bytes()
            monkeypatch.setitem(part, name, hashlib.md5(content).hexdigest())
    assert len(CIFAR10(root=str(tmp_path)).load(train=True)[1]) == 20
    file = tmp_path / PYTHON / "data_batch_4"
    content = bytearray(file.read_bytes())
    content[-2000] ^= 1  # one pixel, a little brighter
    file.write_bytes(content)
    assert f"{file} is not the official file" in fails(lambda: CIFAR10(root=str(tmp_path)).load(train=True))
    assert len(CIFAR10(root=str(tmp_path)).load(train=False)[1]) == 5


def test_binary_files_of_the_official_length_are_taken(tmp_path: Path) -> None:
    write_cifar10(tmp_path, train=5, test=1, binary=True)
    row = (tmp_path / BINARY / "test_batch.bin").read_bytes()
    (tmp_path / BINARY / "test_batch.bin").write_bytes(row * 10_000)
    images, labels = CIFAR10(root=str(tmp_path)).load(train=False)
    assert images.shape == (10_000, 3, 32, 32) and images.float().std(0).max() == 0
    assert labels.bincount().tolist()[-1] == 10_000


def test_the_python_version_comes_first_where_both_are_complete(tmp_path: Path) -> None:
    write_cifar10(tmp_path, train=20, test=5)
    write_cifar10(tmp_path, train=30, test=5, binary=True)
    assert len(small(tmp_path).load(train=True)[1]) == 20
    (tmp_path / PYTHON / "test_batch").unlink()
    data = small(tmp_path, download=False)
    data.prepare_data()
    assert len(data.load(train=True)[1]) == 30


def test_missing_files(tmp_path: Path) -> None:
    message = fails(small(tmp_path, download=False).prepare_data)
    assert message.startswith(f"CIFAR10 not found: in {tmp_path} is no complete {PYTHON} or {BINARY}")
    for telling in ("`data.download` false", "`data.root`", "`data` ImageFolder", "`data` Digits"):
        assert telling in message
    (write_cifar10(tmp_path) / PYTHON / "data_batch_3").unlink()
    assert f"{PYTHON}/data_batch_3 is missing" in fails(small(tmp_path, download=False).prepare_data)
    assert "data_batch_3 is missing" in fails(lambda: small(tmp_path).setup("fit"))


@pytest.mark.parametrize("binary", [False, True])
def test_the_folder_itself_as_root(tmp_path: Path, binary: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, binary=binary)
    folder = tmp_path / (BINARY if binary else PYTHON)
    assert fails(small(folder).prepare_data).endswith(f"name the folder above it, `data.root` {tmp_path}")
    monkeypatch.chdir(folder)
    assert fails(small(Path(".")).prepare_data).endswith(f"name the folder above it, `data.root` {tmp_path}")


# download and archive


def test_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: object, root: str, download: bool) -> None:
        assert download and socket.getdefaulttimeout() == 20
        write_cifar10(Path(root), train=20, test=5)
        (Path(root) / "cifar-10-python.tar.gz").touch()

    monkeypatch.setattr(INIT, download)
    root = tmp_path / "new" / "data"
    small(root).prepare_data()
    assert len(small(root).load(train=True)[1]) == 20
    assert [path.name for path in root.iterdir()] == [PYTHON]  # the archive is not kept
    assert socket.getdefaulttimeout() is None
    mine, lost = root / PYTHON / "data_batch_1", root / PYTHON / "data_batch_5"
    mine.write_text("as it was")
    lost.unlink()
    small(root).prepare_data()
    assert lost.is_file() and mine.read_text() == "as it was"


@pytest.mark.parametrize("error", [RuntimeError("File not found or corrupted."), TimeoutError(), KeyboardInterrupt()])
def test_a_download_that_fails_leaves_nothing(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(self: object, root: str, download: bool) -> None:
        (Path(root) / PYTHON).mkdir()
        (Path(root) / "cifar-10-python.tar.gz").write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(INIT, no_network)
    data = small(tmp_path / "new" / "data")
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            data.prepare_data()
    else:
        reason = str(error) or "TimeoutError"
        assert f"the download failed: {reason}" in fails(data.prepare_data)
    assert not list(tmp_path.iterdir())
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("binary", [False, True])
def test_an_archive_is_unpacked_without_a_network(
    tmp_path: Path, binary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = BINARY if binary else PYTHON
    write_cifar10(tmp_path / "made", train=20, test=5, binary=binary)
    root = tmp_path / "data"
    root.mkdir()
    archive = root / ("cifar-10-binary.tar.gz" if binary else "cifar-10-python.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / folder, folder)
    monkeypatch.setattr(INIT, None)  # nothing may be downloaded
    for download in (True, False):
        message = fails(small(root, download=download).prepare_data)
        assert message.startswith(f"{archive} is incomplete or not the official file")
        assert message.endswith(f"cd {root} && tar xzf {archive.name}")
    assert list(root.iterdir()) == [archive]
    monkeypatch.setitem(cifar10.ARCHIVES, archive.name, hashlib.md5(archive.read_bytes()).hexdigest())
    small(root, download=False).prepare_data()
    assert len(small(root).load(train=True)[1]) == 20
    assert {path.name for path in root.iterdir()} == {folder, archive.name}


# damaged files


class Harmful:
    """Its pickle makes a file when an ordinary unpickler reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("harm", "w")


class Blind:
    """Its pickle is an array of Python objects whose addresses are given as bytes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.frombuffer, (b"12345678", np.dtype(object))


def pixels(*shape: int, kind: type = np.uint8) -> Any:
    return np.zeros(shape, kind)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"labels": None}, "it has no labels"),
        ({"labels": None, "data": None}, "it has no data and no labels"),
        ({"data": pixels(3, 3072)}, "4 labels for pixels of shape (3, 3072), expected (n, 3072)"),
        ({"data": pixels(4, 784)}, "pixels of shape (4, 784)"),
        ({"data": pixels(4, 3072, kind=np.float32)}, "not of uint8"),
        ({"data": [1, 2, 3, 4]}, "data must be an array"),
        ({"labels": [0, 1, 2, 10]}, "a label is not one of 0 to 9"),
        ({"labels": [0, 1, 2, -1]}, "a label is not one of 0 to 9"),
        ({"labels": [0, 1, 2, b"3"]}, "a label is not one of 0 to 9"),
        ({"labels": [], "data": pixels(0, 3072)}, "0 labels"),
        ({"filenames": [b"a.png"]}, "1 file names for 4 labels"),
    ],
)
def test_batches_with_wrong_content(tmp_path: Path, entries: dict[str, Any], says: str) -> None:
    path = rewrite(write_cifar10(tmp_path, train=20, test=5), **entries)
    message = fails(lambda: small(tmp_path).setup("fit"))
    assert message.startswith(f"{path} is damaged or not a CIFAR-10 file (") and says in message
    assert message.endswith("replace it, or delete it to download it anew")


@pytest.mark.parametrize("harmful", [Harmful(), Blind(), np.random.default_rng, np.array([Harmful()])])
def test_no_code_of_a_file_runs(tmp_path: Path, harmful: object) -> None:
    write_cifar10(tmp_path, train=20, test=5)
    rewrite(tmp_path, protocol=4, extra=harmful)
    assert "data_batch_2 is damaged" in fails(lambda: small(tmp_path).setup("fit"))
    assert not Path("harm").exists()
    if isinstance(harmful, Harmful):
        pickle.loads((tmp_path / PYTHON / "data_batch_2").read_bytes())
        assert Path("harm").exists()


def test_a_type_that_lies_is_not_believed(tmp_path: Path) -> None:
    """Bytes that the file calls Python objects: numpy itself would follow them as addresses."""
    write_cifar10(tmp_path, train=20, test=5)
    path = tmp_path / PYTHON / "data_batch_2"
    content = path.read_bytes()
    assert content.count(b"U\x02u1") == 1
    path.write_bytes(content.replace(b"U\x02u1", b"U\x02O8"))
    assert "not of uint8" in fails(lambda: small(tmp_path).setup("fit"))


def test_damage_at_any_place_is_one_line(tmp_path: Path) -> None:
    write_cifar10(tmp_path, train=5, test=1)
    data, path = small(tmp_path), tmp_path / PYTHON / "test_batch"
    whole = path.read_bytes()
    images, _ = data.load(train=False)
    random = np.random.default_rng(0)
    places = [*range(130), *range(len(whole) - 60, len(whole)), *random.integers(0, len(whole), 20).tolist()]
    refused = 0
    for place in places:
        path.write_bytes(whole[:place])
        assert f"{path} is damaged" in fails(lambda: data.load(train=False))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ random.integers(1, 256)]) + whole[place + 1 :])
        try:
            changed, labels = data.load(train=False)
            assert changed.shape == images.shape and 0 <= int(labels.min()) <= int(labels.max()) < 10
        except UserError as error:
            assert f"{path} is damaged" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > len(places) / 3


def cut(content: bytes) -> bytes:
    return content[:-1]


def label_ten(content: bytes) -> bytes:
    return content[:3073] + b"\x0a" + content[3074:]


def emptied(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("damage", "says"),
    [(cut, "12,291 bytes are not a multiple of 3,073"), (label_ten, "0 to 9"), (emptied, "0 labels")],
)
def test_damaged_binary_files(tmp_path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path = write_cifar10(tmp_path, train=20, test=5, binary=True) / BINARY / "data_batch_5.bin"
    path.write_bytes(damage(path.read_bytes()))
    message = fails(lambda: small(tmp_path).setup("fit"))
    assert message.startswith(f"{path} is damaged") and says in message


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data.root", "empty", "--data.download", "false"], "CIFAR10 not found: in empty"),
        (["--data.root", "data"], "data_batch_1 is not the official file"),
        (["--data.root", "data", "--data.check_md5", "false"], "data_batch_2 is damaged"),
    ],
)
def test_mistakes_at_the_command_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_cifar10(Path("data"), train=20, test=5)
    rewrite(Path("data"), labels=[0, 1, 2, 99])
    assert main(["train", "--data", "CIFAR10", "--wandb", "disabled", *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("error: ") and says in line
    assert not Path("runs").exists() and not Path("empty").exists()


# the same pixels in image files


def write_classes(root: Path, ending: str, **options: Any) -> None:
    """Two images of each class in both parts, as files of their own."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in CIFAR10.class_names:
            (root / part / name).mkdir(parents=True)
            for number in range(2):
                image = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
                image.save(root / part / name / f"{name}_{number}.{ending}", **options)


def test_class_folders_are_the_same_images_in_every_lossless_format(tmp_path: Path) -> None:
    write_classes(tmp_path / "png", "png")
    write_classes(tmp_path / "webp", "webp", lossless=True)
    (tmp_path / "webp" / "train" / "cat" / "cat_0.webp").rename(tmp_path / "webp" / "train" / "cat" / "z.webp")
    (tmp_path / "webp" / "train" / "cat" / ".hidden.webp").write_bytes(b"")
    found = [CIFAR10(str(tmp_path / kind), check_md5=False) for kind in ("png", "webp")]
    for train in (True, False):
        (images, labels), (same, same_labels) = (data.load(train) for data in found)
        assert torch.equal(images, same) and torch.equal(labels, same_labels)
        assert images.shape == (20, 3, 32, 32) and labels.bincount().tolist() == [2] * 10
        assert not torch.equal(labels, labels.sort().values)  # not class by class
    data = found[0]
    data.setup("fit")
    name = data.dataset("train").dataset.name(0)
    with Image.open(tmp_path / "png" / name) as image:
        assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1), data.load(True)[0][0])


def test_copies_that_are_not_exact_are_told_apart(tmp_path: Path) -> None:
    write_classes(tmp_path / "jpg", "jpg")
    write_classes(tmp_path / "png", "png")
    with pytest.raises(UserError, match=r"20 images are not 50,000; 20 are \.jpg, which changes pixels; use"):
        CIFAR10(str(tmp_path / "jpg")).load(True)
    with pytest.raises(UserError, match=r"the 20 images are not 50,000; use .data. ImageFolder, or accept them"):
        CIFAR10(str(tmp_path / "png")).load(True)
    Image.new("RGB", (64, 64)).save(tmp_path / "png" / "train" / "cat" / "large.png")
    with pytest.raises(UserError, match=r"large.png has 64x64 pixels, not 32x32"):
        CIFAR10(str(tmp_path / "png"), check_md5=False).load(True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: shutil.rmtree(root / "train"), "and train/ has no folder of images of airplane, automobile, "),
        (lambda root: shutil.rmtree(root / "test"), "test/ has no folder of images of airplane, automobile, "),
        (lambda root: shutil.rmtree(root / "train" / "cat"), "and train/ has no folder of images of cat ("),
        (
            lambda root: (root / "train" / "cat").rename(root / "train" / "Cat"),
            "and train/ has no folder of images of cat; train/ has Cat, not among the classes (",
        ),
        (
            lambda root: shutil.copytree(root / "train" / "cat", root / "train" / "lion"),
            "and train/ has lion, not among the classes (",
        ),
    ],
)
@pytest.mark.parametrize("download", [False, True])
def test_class_folders_that_are_not_those_of_all_classes(
    download: bool, change: Callable[[Path], Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_cnn.datamodules.images.cifar10.Official", None)  # nothing is downloaded
    write_classes(tmp_path, "png")
    change(tmp_path)
    assert says in fails(small(tmp_path, download=download).prepare_data)


def test_class_folders_without_a_readable_file(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in CIFAR10.class_names:
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "a.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match="train: no file in the folders of the classes is an image"):
        CIFAR10(str(tmp_path)).load(True)


def test_kept_images_that_are_damaged_are_decoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file of zeros after a power failure."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoded_files.takes_long", lambda paths: True)
    write_classes(tmp_path, "png")
    monkeypatch.setattr("lightning_cnn.datamodules.images.cifar10.FINGERPRINTS", {True: "", False: ""})
    message = fails(lambda: CIFAR10(str(tmp_path)).load(True))
    images, _ = CIFAR10(str(tmp_path), check_md5=False).load(True)
    (kept,) = (tmp_path / "cache" / "lightning_cnn" / "images").glob("*.images")
    assert "are not 50,000" in message and kept.stat().st_size == images.numel()
    fingerprint = known_fingerprint(images, CIFAR10(str(tmp_path), check_md5=False).load(True)[1])
    monkeypatch.setattr("lightning_cnn.datamodules.images.cifar10.FINGERPRINTS", {True: fingerprint, False: ""})
    kept.write_bytes(bytes(images.numel()))
    assert torch.equal(CIFAR10(str(tmp_path)).load(True)[0], images)
    assert kept.read_bytes() != bytes(images.numel())  # it has been made anew


def known_fingerprint(images: torch.Tensor, labels: torch.Tensor) -> str:
    """The hash of the sorted hashes of pixels and class."""
    rows = [image.tobytes() + bytes([label]) for image, label in zip(images.numpy(), labels.tolist(), strict=True)]
    return blake2b(b"".join(sorted(blake2b(row, digest_size=16).digest() for row in rows)), digest_size=16).hexdigest()


@pytest.mark.slow
def test_the_real_images(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "cifar10" / "cifar10_lossless_webp.zip") as archive:
        archive.extractall(tmp_path)
    data = CIFAR10(str(tmp_path))
    assert all(len(data.load(train)[1]) == rows for train, rows in ((True, 50_000), (False, 10_000)))
