"""Decoded images that are kept on disk: the same images, whatever happens to the files."""

import mmap
import os
import pickle
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_cnn.datamodules import ImageFolder
from lightning_cnn.datamodules.batches import Images, Mapped, OnDisk
from lightning_cnn.datamodules.images import decoded_files, decoding
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def everything_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "WORTHWHILE", -1.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images of two classes, of which the time of change lies in the past."""
    generator = np.random.default_rng(0)
    for number in range(12):
        file = tmp_path / "photos" / "train" / "ab"[number % 2] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(file)
        os.utime(file, (1e9, 1e9))
    return tmp_path / "photos"


def opened(root: Path, **options: Any) -> Images:
    """The training images of a start."""
    data = ImageFolder(str(root), image_size=8, num_workers=0, val_fraction=0.25, **options)
    data.setup("fit")
    whole: Images = data.dataset("train").dataset
    return whole


def pixels(images: Images) -> Tensor:
    """All pixels, by index, in another order than that of the files."""
    return images[torch.arange(len(images)).flip(0)][0]


def files() -> list[Path]:
    """What is kept."""
    return sorted(Path(os.environ["XDG_CACHE_HOME"], "lightning_cnn", "images").glob("*"))


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preprocessing, "read", lambda *_: pytest.fail("an image was decoded"))


@pytest.mark.parametrize("memory", [None, 0.0])
def test_the_second_start_decodes_nothing(photos: Path, memory: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pixels(opened(photos, cache=False))
    assert not files()
    first = opened(photos, max_memory=memory)
    forbid(monkeypatch)
    second = opened(photos, max_memory=memory)
    assert torch.equal(pixels(first), plain) and torch.equal(pixels(second), plain)
    assert isinstance(second.images, Tensor if memory is None else Mapped)
    (file,) = files()
    assert file.stat().st_size == 12 * 3 * 8 * 8 and file.stat().st_mode & 0o777 == 0o600


def test_images_that_are_read_from_there_are_those_in_memory(photos: Path) -> None:
    """Also in a process that is given them."""
    held, mapped = opened(photos), opened(photos, max_memory=0.0)
    assert isinstance(mapped.images, Mapped)
    for index in (torch.tensor([3, 0, 11]), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(held[index][0], mapped[index][0]) and torch.equal(held[index][1], mapped[index][1])
    given = pickle.loads(pickle.dumps(mapped))
    assert torch.equal(pixels(given), pixels(held)) and len(pickle.dumps(mapped.images)) < 1000


def test_what_is_done_to_the_images_stays_in_the_process(photos: Path) -> None:
    """The file is shared; it may be removed while it is read."""
    opened(photos)
    held = opened(photos)
    before = pixels(held)
    assert isinstance(held.images, Tensor)
    held.images.zero_()
    other = opened(photos)
    assert not pixels(held).any() and torch.equal(pixels(other), before)
    files()[0].unlink()
    assert torch.equal(pixels(other), before)


@pytest.mark.parametrize("lacking", [(mmap, "MADV_WILLNEED"), (os, "posix_fallocate")])
def test_systems_that_lack_a_call(photos: Path, lacking: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pixels(opened(photos, cache=False))
    monkeypatch.delattr(*lacking)
    assert torch.equal(pixels(opened(photos)), expected) and len(files()) == 1
    assert torch.equal(pixels(opened(photos)), expected)


def test_a_file_that_has_changed_is_decoded_anew(photos: Path) -> None:
    before = pixels(opened(photos))
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(photos / "train" / "a" / "00.png")
    after = pixels(opened(photos))
    assert torch.equal(before[:-1], after[:-1]) and not after[-1].any()
    (photos / "train" / "b" / "01.png").rename(photos / "train" / "b" / "13.png")
    assert len(pixels(opened(photos))) == 12 and len(files()) == 3


def test_other_sizes_and_backgrounds_are_other_files(photos: Path) -> None:
    for options in ({}, {"background": "black"}, {"color": "grey"}, {"resize": "crop"}, {"normalize": "raw"}):
        opened(photos, **options)
    assert len(files()) == 4  # how pixels are scaled does not matter


def test_skipped_images_leave_nothing(photos: Path) -> None:
    (photos / "train" / "a" / "00.png").write_bytes(b"no image")
    for memory in (None, 0.0):
        with pytest.warns(UserWarning, match="skipped"):
            assert len(opened(photos, skip_corrupt=True, max_memory=memory)) == 11
        with pytest.raises(UserError, match=r"00\.png"):
            opened(photos, max_memory=memory)
    assert not files()


def test_a_damaged_file_is_made_anew(photos: Path) -> None:
    plain = pixels(opened(photos))
    (file,) = files()
    file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(pixels(opened(photos)), plain) and file.stat().st_size == plain.nbytes


@pytest.mark.parametrize("memory", [None, 0.0])
def test_without_room_images_are_decoded(photos: Path, memory: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 12 * 3 * 8 * 8))
    found = opened(photos, max_memory=memory)
    assert not files() and isinstance(found.images, Tensor if memory is None else OnDisk)


def test_those_not_used_for_longest_make_way(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, background in enumerate(("white", "black", "red")):
        opened(photos, background=background)
        newest = max(files(), key=lambda file: file.stat().st_mtime_ns)
        os.utime(newest, (1000 + number, 1000 + number))
    others = [files()[0].parent / name for name in ("notes.txt", "0.images")]
    for other in others:
        other.write_bytes(b"-" * 2304)
    opened(photos, background="white")  # the oldest is in use now
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 3 * 2304))
    opened(photos, background="blue")
    left = [file for file in files() if decoded_files.NAME.fullmatch(file.name)]
    assert len(left) == 3 and all(file.stat().st_mtime != 1001 for file in left) and all(map(Path.exists, others))


def test_what_a_killed_process_has_left_is_removed(photos: Path) -> None:
    opened(photos)
    (file,) = files()
    left = [file.with_name(f"{'0' * 32}.images.{name}") for name in ("old", "new")]
    for path in left:
        path.write_bytes(b"-")
    os.utime(left[0], (1e9, 1e9))
    opened(photos, background="black")
    assert [path.exists() for path in left] == [False, True]


def test_what_others_may_have_written_is_not_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pixels(opened(photos))
    (file,) = files()
    file.chmod(0o666)
    file.write_bytes(bytes(len(file.read_bytes())))
    assert torch.equal(pixels(opened(photos)), plain)
    file.parent.chmod(0o777)
    for path in files():
        path.unlink()
    assert torch.equal(pixels(opened(photos)), plain) and not files()
    file.parent.chmod(0o700)


def test_a_place_that_cannot_be_written(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(opened(photos).images, Tensor) and isinstance(opened(photos, max_memory=0.0).images, OnDisk)


def test_little_work_is_done_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "WORTHWHILE", 5.0)
    opened(photos)
    assert not files()
