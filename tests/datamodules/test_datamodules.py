import hashlib
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from small_data import write_cifar10
from svhn_files import write_numbers, write_svhn
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cnn import datamodules
from lightning_cnn.datamodules import (
    CIFAR10,
    MNIST,
    SVHN,
    DigitBoxes,
    Digits,
    FashionMNIST,
    HouseNumbers,
    ImageDataModule,
    ImageFiles,
    ImageFolder,
    SyntheticBoxes,
    SyntheticNumbers,
)
from lightning_cnn.datamodules.batches import (
    Batch,
    BatchSampler,
    FileImages,
    OrderedBatchSampler,
    TensorImages,
    image_name,
)
from lightning_cnn.datamodules.images.base import _moved
from lightning_cnn.datamodules.images.decoding import decode
from lightning_cnn.datamodules.images.image_files import find_images
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError
from lightning_cnn.figures import plots
from lightning_cnn.modules import DigitDetector, HouseNumberReader, ImageClassifier

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


# the true formats, written small


def write_idx(path: Path, values: Pixels) -> None:
    """As http://yann.lecun.com/exdb/mnist describes it: 0, 0, type 8, dimensions; the sizes; the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(root: Path, train: int = 50, test: int = 20, name: str = "MNIST") -> None:
    """The top left pixel of an image is its number, and that of a test image its number after 200."""
    for part, count, first in (("train", train, 0), ("t10k", test, 200)):
        images = np.random.default_rng(first).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = first + np.arange(count)
        write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)


def write_folder(root: Path, counts: dict[str, int], side: int = 12, ending: str = "png") -> None:
    """Noise as `<root>/<part>/<class>/<number>.png`, with `counts` images in each `<part>/<class>`."""
    for seed, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        for number in range(count):
            pixels = random.integers(0, 256, (side, side + number % 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number:03d}.{ending}")


def write_all(root: Path) -> None:
    """One root that every data set of ours can read."""
    write_mnist(root)
    write_mnist(root, name="FashionMNIST")
    write_cifar10(root, train=50, test=20)
    write_folder(root, {f"{part}/{name}": 8 for part in ("train", "test") for name in ("cat", "dog")})
    write_svhn(root)
    write_numbers(root)


def make(kind: type[ImageDataModule], root: Path, **options: Any) -> ImageDataModule:
    """Any data set of ours; the small files are not the official ones, and few images are drawn."""
    if kind in (CIFAR10, SVHN):
        options["check_md5"] = False
    if kind in (SyntheticNumbers, SyntheticBoxes):
        options |= {"train_images": 40, "test_images": 20, "handwriting": 0.0}
    return kind(root=str(root), **options)


def numbers(loader: Iterable[Batch]) -> list[int]:
    """The top left pixels: the numbers that `write_mnist` gave the images."""
    return [int(number) for images, _ in loader for number in images[:, 0, 0, 0]]


def equal(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    one, other = list(first), list(second)
    return len(one) == len(other) and all(
        torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True)
    )


def ready(data: ImageDataModule, stage: str = "fit") -> ImageDataModule:
    data.setup(stage)
    return data


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# every data set of ours

OURS = [
    kind
    for kind in (getattr(datamodules, name) for name in datamodules.__all__)
    if issubclass(kind, ImageDataModule) and kind not in (ImageDataModule, HouseNumbers, DigitBoxes)
]
each_of_ours = pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)


@each_of_ours
def test_facts_are_known_before_any_data_is_loaded(
    kind: type[ImageDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path)
    if kind is not ImageFolder:  # its classes are the names of the folders
        tmp_path = tmp_path / "nowhere"
    monkeypatch.setattr("PIL.Image.open", None)
    data = make(kind, tmp_path)
    assert len(data.class_names) == (10 if issubclass(kind, HouseNumbers) else data.num_classes) > 1
    assert all(isinstance(name, str) for name in data.class_names)
    assert data.in_channels in (1, 3)
    assert data.image_size == data.preprocessing.image_size > 0
    padding = {} if issubclass(kind, HouseNumbers | DigitBoxes) else {"padding": 2}
    assert make(kind, tmp_path, image_size=32, **padding).image_size == 32


@each_of_ours
def test_batches_fit_the_facts(kind: type[ImageDataModule], tmp_path: Path) -> None:
    write_all(tmp_path)
    data = make(kind, tmp_path, batch_size=6)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert isinstance(loader, DataLoader)
        found = list(loader)
        assert len(found) == len(loader) > 0
        for images, labels in found:
            assert images.shape == (len(labels), data.in_channels, data.image_size, data.image_size)
            assert images.dtype == torch.uint8
            if issubclass(kind, DigitBoxes):
                assert labels.dtype == torch.float32 and labels.shape[1:] == (6, 5)
            elif issubclass(kind, HouseNumbers):
                assert labels.dtype == torch.int64 and labels.shape[1:] == (6,)
            else:
                assert labels.dtype == torch.int64 and labels.min() >= 0 and labels.max() < data.num_classes
            scaled, same = data.on_after_batch_transfer((images, labels), 0)
            assert (scaled.dtype, scaled.shape) == (torch.float32, images.shape)
            assert torch.equal(same, labels)
    assert len(next(iter(data.train_dataloader()))[1]) == 6


@each_of_ours
def test_a_model_trains_on_it(kind: type[ImageDataModule], tmp_path: Path) -> None:
    write_all(tmp_path)
    data = make(kind, tmp_path, batch_size=8, image_size=32)
    model: LightningModule = ImageClassifier("ffnn", data.num_classes, data.in_channels, data.image_size)
    measured = "test/loss"
    if issubclass(kind, HouseNumbers):
        model = HouseNumberReader("ffnn", data.in_channels, data.image_size)
    elif issubclass(kind, DigitBoxes):
        model, measured = DigitDetector(image_size=data.image_size), "test/map"
    trainer = Trainer(
        fast_dev_run=True, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    assert trainer.callback_metrics[measured].isfinite()


@each_of_ours
def test_the_checkpoint_carries_the_scaling(kind: type[ImageDataModule], tmp_path: Path) -> None:
    write_all(tmp_path)
    data = ready(make(kind, tmp_path, normalize="auto"))
    torch.save(data.state_dict(), "state.pt")
    state = torch.load("state.pt", weights_only=True)
    state["preprocessing"]["mean"] = [0.5] * data.in_channels
    other = make(kind, tmp_path, normalize="auto")
    other.load_state_dict(state)
    other.setup("test")
    assert "train" not in other._sets  # nothing to be measured
    assert other.preprocessing.mean == (0.5,) * data.in_channels
    assert other.preprocessing.std == data.preprocessing.std
    assert Preprocessing.from_dict(data.state_dict()["preprocessing"]) == data.preprocessing


@each_of_ours
def test_the_pictures_of_the_training_data(
    kind: type[ImageDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    draw = plots.image_grid

    def noted(*content: Any, **layout: Any) -> Figure:
        given.append(content)
        return draw(*content, **layout)

    monkeypatch.setattr(plots, "image_grid", noted)
    write_all(tmp_path)
    if issubclass(kind, DigitBoxes):  # it has pictures of its own, with boxes
        assert isinstance(make(kind, tmp_path).plot(3), Figure)
        return
    data = make(kind, tmp_path, augment={"rotation": 30})
    assert isinstance(data.plot(3, augmented=True), Figure)
    assert isinstance(data.plot(3), Figure)
    (both, titles), (plain, names) = given
    count = len(data._sets["train"])  # type: ignore[arg-type]
    images, labels = data._sets["train"][torch.tensor([0, round((count - 1) / 2), count - 1])]
    assert torch.equal(plain, images / 255)
    assert names == [data.title(label) for label in labels]
    assert torch.equal(both[::2], plain) and titles[::2] == names
    assert both.shape[0] == 6 and titles[1::2] == ["augmented"] * 3
    assert not torch.equal(both[1::2], plain)


# MNIST and its kind


def test_real_mnist(mnist_root: Path) -> None:
    data = MNIST(root=str(mnist_root), val_split="last")
    images, labels = data.load(train=True)
    assert images.shape == (60_000, 1, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert images[0].sum() == 27_525
    assert images.sum() == 1_567_298_545
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    tests, test_labels = data.load(train=False)
    assert tests.shape == (10_000, 1, 28, 28)
    assert test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert tests.sum() == 264_923_200
    data.setup("fit")
    train, val = data._sets["train"], data._sets["val"]
    assert (len(train), len(val)) == (48_000, 12_000)  # type: ignore[arg-type]  # as the book has it
    assert torch.equal(val[torch.arange(3)][0], images[48_000:48_003])
    assert data.preprocessing.mean == pytest.approx([0.1307], abs=0.001)
    assert data.preprocessing.std == pytest.approx([0.3081], abs=0.001)


def test_idx_files_are_read_exactly(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    raw = tmp_path / "FashionMNIST" / "raw"
    pixels, labels = random.integers(0, 256, (7, 28, 28), dtype=np.uint8), np.array([9, 0, 3, 3, 1, 7, 2], np.uint8)
    write_idx(raw / "train-images-idx3-ubyte", pixels)
    write_idx(raw / "train-labels-idx1-ubyte", labels)
    images, read = FashionMNIST(root=str(tmp_path)).load(train=True)
    assert torch.equal(images, torch.from_numpy(pixels)[:, None])
    assert read.tolist() == labels.tolist()
    assert FashionMNIST.class_names[9] == "ankle boot"


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]

    data = Digits()
    (images, labels), (tests, test_labels) = data.load(train=True), data.load(train=False)
    assert (len(images), len(tests)) == (1437, 360)
    everything = torch.cat([images, tests]).float()
    found = torch.nn.functional.interpolate(everything, (8, 8), mode="area").flatten(1)
    pixels, targets = load_digits(return_X_y=True)
    nearest = torch.cdist(found / 255, torch.from_numpy(pixels).float() / 16).argmin(1)
    assert len({image.numpy().tobytes() for image in everything}) == 1797  # nothing is in both parts
    assert nearest.unique().numel() > 1750  # the blurred ones lose a few
    assert torch.equal(torch.from_numpy(targets)[nearest].long(), torch.cat([labels, test_labels]))
    assert images.float().mean() / 255 == pytest.approx(pixels.mean() / 16, abs=0.01)


def test_data_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MNIST().root == Path("data")
    monkeypatch.setenv("LIGHTNING_CNN_DATA", str(tmp_path / "mine"))
    assert MNIST().root == tmp_path / "mine"
    assert MNIST(root="typed").root == Path("typed")


def test_a_variant_of_mnist_reads_the_files_of_mnist(tmp_path: Path) -> None:
    class OddOrEven(MNIST):
        num_classes = 2
        class_names = ("even", "odd")

        def load(self, train: bool) -> Batch:
            images, labels = super().load(train)
            return images, labels % 2

    write_mnist(tmp_path)
    data = OddOrEven(root=str(tmp_path), download=False)
    data.prepare_data()
    assert data._files(train=True)[0].is_file()


def test_files_that_are_there_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", None)
    MNIST(root=str(tmp_path)).prepare_data()


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = fails(MNIST(root=str(tmp_path), download=False).prepare_data)
    assert message.startswith(f"MNIST not found: {tmp_path}/MNIST/raw/train-images-idx3-ubyte is missing")
    assert "--data.download false" in message
    assert "--data.root" in message and "--data Digits" in message

    def no_network(self: object, root: str, download: bool) -> None:
        assert download
        (Path(root) / "MNIST" / "raw").mkdir(parents=True)
        raise RuntimeError("Error downloading train-images:\nno route to host")

    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", no_network)
    assert "the download failed: no route to host" in fails(MNIST(root=str(tmp_path)).prepare_data)
    assert not list(tmp_path.iterdir())
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").rename(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz")
    message = fails(MNIST(root=str(tmp_path), download=False).prepare_data)
    assert "t10k-labels-idx1-ubyte is missing" in message and f"gunzip {tmp_path}/MNIST/raw/*.gz" in message
    message = fails(lambda: MNIST(root=str(tmp_path)).setup("test"))
    assert message.startswith(f"{tmp_path}/MNIST/raw/t10k-labels-idx1-ubyte is missing")


def test_only_what_is_missing_is_taken_from_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: object, root: str, download: bool) -> None:
        write_mnist(Path(root), train=3)
        (Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").touch()

    write_mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").unlink()
    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", download)
    data = MNIST(root=str(tmp_path))
    data.prepare_data()
    assert len(data.load(train=True)[1]) == 50 and len(data.load(train=False)[1]) == 20
    assert len(list(raw.iterdir())) == 4 and len(list(tmp_path.iterdir())) == 1


def truncated(raw: Path) -> None:
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])


def without_header(raw: Path) -> None:
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0")


def wrong_magic(raw: Path) -> None:
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(b"\x1f\x8b\x08\x08" + file.read_bytes()[4:])


def labels_for_images(raw: Path) -> None:
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())


def labels_of_the_test(raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())


def labels_of_letters(raw: Path) -> None:
    write_idx(raw / "train-labels-idx1-ubyte", np.arange(50, dtype=np.uint8))


@pytest.mark.parametrize(
    ("damage", "file", "says"),
    [
        (truncated, "train-images-idx3-ubyte", "truncated or no idx file"),
        (without_header, "train-images-idx3-ubyte", "truncated or no idx file"),
        (wrong_magic, "train-images-idx3-ubyte", "truncated or no idx file"),
        (labels_for_images, "train-images-idx3-ubyte", "truncated or no idx file"),
        (labels_of_the_test, "train-labels-idx1-ubyte", "20 labels"),
        (labels_of_letters, "train-labels-idx1-ubyte", "no label file of MNIST"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, damage: Callable[[Path], None], file: str, says: str) -> None:
    write_mnist(tmp_path)
    damage(tmp_path / "MNIST" / "raw")
    message = fails(lambda: MNIST(root=str(tmp_path)).setup("fit"))
    assert f"{tmp_path}/MNIST/raw/{file}" in message and says in message


# splits


@pytest.mark.parametrize("split", ["random", "first", "last"])
def test_splits_are_disjoint_and_complete(tmp_path: Path, split: Any) -> None:
    write_mnist(tmp_path)
    data = ready(MNIST(root=str(tmp_path), batch_size=7, val_split=split, val_fraction=0.3))
    train, val = numbers(data.train_dataloader()), numbers(data.val_dataloader())
    assert len(train) == 35
    assert sorted(train + val) == list(range(50))  # and so nothing of the test set, which starts at 200
    expected = {"first": list(range(15)), "last": list(range(35, 50))}
    if split == "random":
        assert val not in expected.values()
        assert val == sorted(val)
    else:
        assert val == expected[split]
    assert numbers(ready(data, "test").test_dataloader()) == list(range(200, 220))
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for images, labels in loader:
            assert torch.equal(images[:, 0, 0, 0].long() % 10, labels)


def test_the_random_split_follows_its_own_seed(tmp_path: Path) -> None:
    write_mnist(tmp_path)

    def val(run_seed: int, split_seed: int) -> list[int]:
        torch.manual_seed(run_seed)
        return numbers(ready(MNIST(root=str(tmp_path), split_seed=split_seed)).val_dataloader())

    assert val(0, 0) == val(1, 0) == val(2, 0)
    assert val(0, 0) != val(0, 1)


def test_the_order_follows_the_seed_of_the_run(tmp_path: Path) -> None:
    write_mnist(tmp_path)

    def train(run_seed: int) -> list[int]:
        torch.manual_seed(run_seed)
        data = ready(MNIST(root=str(tmp_path)))
        torch.manual_seed(99)  # what is drawn later does not change it
        return numbers(data.train_dataloader())

    assert train(0) == train(0)
    assert train(0) != train(1)


@pytest.mark.parametrize(("fraction", "count"), [(0.001, 1), (0.999, 4), (0.5, 2), (0.3, 2)])
def test_no_part_is_empty(tmp_path: Path, fraction: float, count: int) -> None:
    write_mnist(tmp_path, train=5)
    data = ready(MNIST(root=str(tmp_path), val_fraction=fraction))
    assert (len(numbers(data.val_dataloader())), len(numbers(data.train_dataloader()))) == (count, 5 - count)


def test_one_image_can_not_be_split(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=1)
    assert "can't be divided" in fails(lambda: MNIST(root=str(tmp_path)).setup("fit"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 0}, "--data.batch_size 0"),
        ({"val_fraction": 0.0}, "--data.val_fraction 0.0"),
        ({"val_fraction": 1.0}, "--data.val_fraction 1.0"),
        ({"image_size": 4, "padding": 2}, "--data.image_size 4 with --data.padding 2"),
        ({"padding": -1}, "--data.padding -1"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], says: str) -> None:
    assert says in fails(lambda: Digits(**arguments))


# statistics


def test_statistics_are_those_of_the_training_part_alone(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=10, test=10)
    images = np.full((10, 28, 28), 255, np.uint8)
    images[:4], images[4:8] = 51, 153  # the last two, all white, are held back
    write_idx(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte", images)
    data = ready(MNIST(root=str(tmp_path), val_split="last", batch_size=4))
    assert data.preprocessing.mean == pytest.approx([0.4])
    assert data.preprocessing.std == pytest.approx([0.2])
    for stage in ("validate", "test"):  # the same where only these parts are used
        other = ready(MNIST(root=str(tmp_path), val_split="last"), stage)
        assert other.preprocessing == data.preprocessing
    scaled = torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in data.train_dataloader()])
    assert scaled.unique().tolist() == pytest.approx([-1, 1])
    assert data.preprocessing.unscale(scaled).unique().tolist() == pytest.approx([0.2, 0.6])
    white = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)[0]
    assert white.unique().tolist() == pytest.approx([3])


def test_statistics_of_each_channel(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "val" / name).mkdir(parents=True)
        pixels = np.full((4, 4, 3), [0, 51 * (1 + number), 255], np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "1.png")
        Image.fromarray(255 - pixels).save(tmp_path / "val" / name / "1.png")
    data = ready(ImageFolder(root=str(tmp_path), image_size=4))
    assert data.preprocessing.mean == pytest.approx([0, 0.3, 1])
    assert data.preprocessing.std == pytest.approx([1 / 255, 0.1, 1 / 255])  # a constant channel is not divided by 0


@pytest.mark.parametrize("limit", [None, 1e-9])
def test_statistics_are_measured_part_by_part(
    tmp_path: Path, limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images on disk need not fit into memory, so they are never all there at once."""
    two_classes(tmp_path)
    options: dict[str, Any] = {"root": str(tmp_path), "image_size": 10, "max_memory": limit, "num_workers": 0}
    whole = ready(ImageFolder(**options))
    read: list[int] = []
    kind = TensorImages if limit is None else FileImages
    take = kind.__getitem__

    def noted(self: Any, index: Tensor) -> Batch:
        read.append(len(index))
        return take(self, index)

    monkeypatch.setattr(kind, "__getitem__", noted)
    monkeypatch.setattr("lightning_cnn.datamodules.images.base.CHUNK_BYTES", 3 * 10 * 10 * 2)
    parts = ready(ImageFolder(**options))
    count = len(whole._sets["train"])  # type: ignore[arg-type]
    assert max(read) == 2 and sum(read) == count > 2
    assert parts.preprocessing == whole.preprocessing
    images = torch.cat([images for images, _ in whole.train_dataloader()]).double() / 255
    assert parts.preprocessing.mean == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert parts.preprocessing.std == pytest.approx(images.std((0, 2, 3), correction=0).tolist())


def test_unit_scaling(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = ready(MNIST(root=str(tmp_path), normalize="unit"), "test")
    assert "train" not in data._sets  # nothing to be measured
    (images, labels) = next(iter(data.test_dataloader()))
    assert torch.equal(data.on_after_batch_transfer((images, labels), 0)[0], images / 255)


# the order of batches


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [4, 5, 11, 12, 13, 23, 24, 25, 26, 27, 31, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_position_exactly_once(world: int, length: int, shuffle: bool) -> None:
    kind = BatchSampler if shuffle else OrderedBatchSampler
    shares = [kind(length, 12, shuffle, 5, rank, world) for rank in range(world)]
    for sampler in shares:
        sampler.set_epoch(3)
    found = [list(sampler) for sampler in shares]
    assert {len(share) for share in found} == {len(sampler) for sampler in shares} == {len(found[0])}
    order: list[int] = []
    for batch in zip(*found, strict=True):
        sizes = [len(share) for share in batch]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= (2 if shuffle and length >= 2 * world else 1)
        order += [int(batch[place % world][place // world]) for place in range(sum(sizes))]
    assert sorted(order) == list(range(length))
    alone = kind(length, 12, shuffle, 5)
    alone.set_epoch(3)
    assert order == torch.cat(list(alone)).tolist()  # the same whatever the number of processes
    assert (order == list(range(length))) != shuffle
    assert all(share.dtype == torch.int64 for shares in found for share in shares)


def test_sizes_of_batches() -> None:
    def sizes(length: int, shuffle: bool = False, world: int = 1) -> list[int]:
        return [len(batch) for batch in BatchSampler(length, 4, shuffle, world_size=world)]

    assert sizes(8) == [4, 4]
    assert sizes(9) == [4, 4, 1]
    assert sizes(9, shuffle=True) == [4, 5]  # batch normalisation can't train on one image
    assert sizes(10, shuffle=True) == [4, 4, 2]
    assert sizes(11, shuffle=True, world=2) == [2, 4]
    assert sizes(3, shuffle=True) == [3]
    assert sizes(1, shuffle=True) == [1]


def test_a_new_order_each_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = BatchSampler(50, 8, True, seed)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler)).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(1, epoch)) for epoch in range(5)}) == 5
    assert order(1, 0) != order(2, 0)


def test_batches_that_can_not_be_divided() -> None:
    assert fails(lambda: BatchSampler(100, 0, True)) == "--data.batch_size 0: it must be at least 1"
    message = fails(lambda: BatchSampler(100, 10, True, world_size=4))
    assert message == "--data.batch_size 10 can't be divided among 4 processes: try 8"
    assert "try 4" in fails(lambda: BatchSampler(100, 1, True, world_size=4))
    assert "3 images are too few for 4 processes" in fails(lambda: BatchSampler(3, 4, True, world_size=4))


@pytest.mark.parametrize("world", [1, 2])
def test_each_process_loads_its_share(tmp_path: Path, world: int) -> None:
    write_mnist(tmp_path)
    shares = []
    for rank in range(world):
        data = ready(MNIST(root=str(tmp_path), batch_size=16))
        device = torch.device("cpu")
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=rank, world_size=world, overfit_batches=0, strategy=SimpleNamespace(root_device=device)
        )
        shares.append([numbers(data.train_dataloader()), numbers(data.val_dataloader())])
        assert len(data.train_dataloader()) == 3
    everything = [number for share in shares for part in share for number in part]
    assert sorted(everything) == list(range(50))


class Recorder(ImageClassifier):
    """Notes the images of each training batch as they come from the loader."""

    def __init__(self) -> None:
        super().__init__("ffnn")
        self.seen: list[list[int]] = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append((batch[0][:, 0, 0, 0] * 255).round().int().tolist())


@pytest.mark.parametrize("overfit", [0.0, 2])
def test_lightning_leaves_the_loader_in_place(tmp_path: Path, overfit: float) -> None:
    write_mnist(tmp_path)
    model, data = Recorder(), MNIST(root=str(tmp_path), batch_size=16, normalize="unit", val_split="last")
    trainer = Trainer(
        max_epochs=2,
        overfit_batches=overfit,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    if overfit:  # the same two batches again and again
        assert model.seen == [list(range(16)), list(range(16, 32))] * 2
    else:
        first, second = ([number for batch in half for number in batch] for half in (model.seen[:3], model.seen[3:]))
        assert sorted(first) == sorted(second) == list(range(40))
        assert first != second != sorted(second)


def test_one_call_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = TensorImages.__getitem__

    def counted(self: TensorImages, index: Tensor) -> Batch:
        calls.append(len(index))
        return original(self, index)

    write_mnist(tmp_path)
    data = ready(ready(MNIST(root=str(tmp_path), batch_size=16)), "test")
    monkeypatch.setattr(TensorImages, "__getitem__", counted)
    for loader, sizes in (
        (data.train_dataloader(), [16, 16, 8]),
        (data.val_dataloader(), [10]),
        (data.test_dataloader(), [16, 4]),
    ):
        calls.clear()
        assert len(list(loader)) == len(sizes)
        assert calls == sizes
        assert loader.num_workers == 0


# sizes


@pytest.mark.parametrize("kind", [MNIST, ImageFolder])
def test_padding_is_a_black_border(tmp_path: Path, kind: type[ImageDataModule]) -> None:
    write_all(tmp_path)
    plain = ready(kind(root=str(tmp_path), image_size=28, val_split="last"))
    padded = ready(kind(root=str(tmp_path), image_size=32, padding=2, val_split="last"))
    for (small, _), (large, _) in zip(plain.val_dataloader(), padded.val_dataloader(), strict=True):
        assert large.shape[-2:] == (32, 32)
        assert torch.equal(large[..., 2:-2, 2:-2], small)
        large[..., 2:-2, 2:-2] = 0
        assert not large.any()


def test_padding_alone_makes_the_images_larger() -> None:
    data = Digits(padding=2)
    assert data.image_size == 32
    assert next(iter(ready(data).val_dataloader()))[0].shape[-2:] == (32, 32)


def test_smaller_images_are_means_not_samples(tmp_path: Path) -> None:
    write_mnist(tmp_path, test=3)
    striped = np.zeros((3, 28, 28), np.uint8)
    striped[:, :, ::4] = 200
    write_idx(tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte", striped)
    write_idx(tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8))
    images, _ = next(iter(ready(MNIST(root=str(tmp_path), image_size=7), "test").test_dataloader()))
    assert images.shape == (3, 1, 7, 7)
    assert images.min() > 30 and images.max() < 80


def test_resize_modes(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :2], pixels[:, 2:6], pixels[:, 6:] = 10, 100, 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")

    def row(resize: Any, size: int = 4) -> list[list[int]]:
        image = Preprocessing(size, 1, resize=resize).read(tmp_path / "wide.png")[0]
        return [[int(pixel) for pixel in line] for line in image]

    assert row("crop") == [[100] * 4] * 4
    assert row("pad", 8) == [[0] * 8] * 2 + [[10] * 2 + [100] * 4 + [200] * 2] * 4 + [[0] * 8] * 2
    (stretched,) = {tuple(line) for line in row("stretch")}
    assert stretched[0] < 60 < stretched[1] < 110 < stretched[3]
    assert ImageFolder(root=str(two_classes(tmp_path)), resize="crop").preprocessing.resize == "crop"


def two_classes(root: Path) -> Path:
    write_folder(root, {"train/cat": 6, "train/dog": 5})
    return root


# image files


def read(image: Image.Image, name: str, channels: int = 3, **options: Any) -> Tensor:
    image.save(name, **options)
    return Preprocessing(image.width, channels).read(name)


def test_grey_and_colour(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16)
    assert torch.equal(read(grey, "grey.png"), torch.arange(16, dtype=torch.uint8).view(1, 4, 4).expand(3, 4, 4) * 16)
    colour = Image.new("RGB", (4, 4), (200, 100, 50))
    assert read(colour, "colour.png")[:, 0, 0].tolist() == [200, 100, 50]
    assert read(colour, "colour.png", 1).unique().tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]


def test_16_bit_grey(tmp_path: Path) -> None:
    values = np.array([[0, 256], [0x8000, 0xFFFF]], np.uint16)
    assert read(Image.fromarray(values), "deep.png", 1).tolist() == [[[0, 1], [128, 255]]]
    assert read(Image.fromarray(values), "deep.tiff", 3)[2].tolist() == [[0, 1], [128, 255]]


def test_palette_transparency_and_print_colours(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 30, 60, 90])
    assert read(palette, "palette.png")[:, 2, 2].tolist() == [30, 60, 90]
    assert read(palette, "palette.gif")[:, 2, 2].tolist() == [30, 60, 90]
    glass = Image.new("RGBA", (4, 4), (10, 20, 30, 128))
    assert read(glass, "glass.png")[:, 2, 2].tolist() == [10, 20, 30]  # not mixed with black or white
    assert read(glass, "glass.webp", lossless=True)[:, 2, 2].tolist() == [10, 20, 30]
    assert read(Image.new("1", (4, 4), 1), "bits.png").unique().tolist() == [255]
    printed = read(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "print.jpg", quality=100)  # cyan
    assert (printed[:, 4, 4].int() - torch.tensor([0, 255, 255])).abs().max() <= 3


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_orientation_tag(tmp_path: Path, ending: str) -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, :8] = 255  # the left half is white
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise for display: left comes to the top
    image = read(Image.fromarray(pixels), f"turned.{ending}", 1, exif=exif)[0].float()
    assert image[:6].min() > 250 and image[10:].max() < 5


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tiff"])
def test_image_folder(tmp_path: Path, ending: str) -> None:
    counts = {"train/cat": 5, "train/dog": 7, "val/cat": 2, "val/dog": 3, "test/dog": 4, "test/cat": 1}
    write_folder(tmp_path, counts, ending=ending)
    data = ready(ready(ImageFolder(root=str(tmp_path), image_size=12, batch_size=4)), "test")
    assert data.class_names == ("cat", "dog")
    assert data.stages == ("train", "val", "test")
    for part, (cats, dogs) in {"train": (5, 7), "val": (2, 3), "test": (1, 4)}.items():
        dataset = data._sets[part]
        images, labels = dataset[torch.arange(cats + dogs)]
        assert labels.tolist() == [0] * cats + [1] * dogs
        third = data.preprocessing.read(tmp_path / part / "dog" / f"002.{ending}") if dogs > 2 else images[cats + 2]
        assert torch.equal(images[cats + 2], third)
        assert third.float().std() > 20


def test_image_folder_without_val_and_test(tmp_path: Path) -> None:
    data = ready(ImageFolder(root=str(two_classes(tmp_path)), image_size=12, val_fraction=0.4))
    assert data.stages == ("train",)
    parts = [torch.cat([images for images, _ in loader]) for loader in (data.train_dataloader(), data.val_dataloader())]
    assert [len(part) for part in parts] == [7, 4]
    distinct = {hashlib.sha256(image.numpy().tobytes()).digest() for part in parts for image in part}
    assert len(distinct) == 11
    message = fails(lambda: data.setup("test"))
    assert message.startswith(f"there is no folder {tmp_path}/test") and "test/<class>/<image>" in message


@pytest.mark.parametrize("limit", [None, 1e-6])
def test_names_of_the_files(tmp_path: Path, limit: float | None) -> None:
    write_folder(two_classes(tmp_path), {"test/cat": 2, "test/dog": 1})
    (tmp_path / "test" / "cat" / "000.png").write_text("no image")
    (tmp_path / "train" / "cat" / "002.png").rename(tmp_path / "train" / "cat" / "Tom & Jerry.PNG")
    options: dict[str, Any] = {"max_memory": limit, "skip_corrupt": True, "val_split": "first", "val_fraction": 0.5}
    with pytest.warns(UserWarning, match=r"left out: .*cat/000.png"):
        data = ready(ready(ImageFolder(root=str(tmp_path), image_size=12, **options)), "test")
    counts = {"val": 6, "train": 5, "test": 2}
    found = {part: [image_name(data._sets[part], row) for row in range(count)] for part, count in counts.items()}
    cats = ["000.png", "001.png", "003.png", "004.png", "005.png", "Tom & Jerry.PNG"]
    assert found["val"] == [f"train/cat/{name}" for name in cats]
    assert found["train"] == [f"train/dog/{number:03d}.png" for number in range(5)]
    assert found["test"] == ["test/cat/001.png", "test/dog/000.png"]
    for part, names in found.items():
        images, _ = data._sets[part][torch.arange(len(names))]
        assert all(torch.equal(data.preprocessing.read(tmp_path / n), i) for n, i in zip(names, images, strict=True))


def test_images_without_names_are_called_by_their_position(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = ready(MNIST(root=str(tmp_path), val_split="first", val_fraction=0.2))
    assert [image_name(data._sets[part], 3) for part in ("val", "train")] == ["3", "13"]


def test_grey_image_folder(tmp_path: Path) -> None:
    data = ready(ImageFolder(root=str(two_classes(tmp_path)), color="grey", image_size=12))
    assert data.in_channels == 1
    assert next(iter(data.val_dataloader()))[0].shape[1:] == (1, 12, 12)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_on_disk_give_the_same_batches(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_cnn.datamodules.images.image_folder.rank_zero_info", said.append)
    two_classes(tmp_path)
    write_folder(tmp_path, {"test/cat": 3, "test/dog": 3}, side=15)
    options: dict[str, Any] = {"root": str(tmp_path), "image_size": 13, "batch_size": 4, "padding": 1}
    memory = ready(ready(ImageFolder(**options)), "test")
    disk = ready(ready(ImageFolder(**options, max_memory=1e-6, num_workers=workers)), "test")
    assert disk.preprocessing == memory.preprocessing
    assert disk.train_dataloader().num_workers == workers
    assert memory.train_dataloader().num_workers == 0
    for part in ("train", "val", "test"):
        assert equal(getattr(disk, f"{part}_dataloader")(), getattr(memory, f"{part}_dataloader")()), part
    train = memory.train_dataloader()
    assert not equal(train, memory.val_dataloader())
    assert [line.startswith("ImageFolder: 11 images of 3x13x13 need 0.00 GiB") for line in said] == [True, False] * 2
    assert ["they stay on disk" in line for line in said] == [False, False, True, True]
    assert "--data.max_memory" in said[2]


def test_images_are_moved_to_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path)
    data = ready(ImageFolder(root=str(tmp_path), image_size=8))
    for part in (data._sets["train"], data._sets["val"]):
        count = len(part)  # type: ignore[arg-type]
        moved = _moved(part, torch.device("meta"))
        assert isinstance(moved, TensorImages) and {moved.images.device.type, moved.labels.device.type} == {"meta"}
        assert moved.images.shape == (count, 3, 8, 8)
        assert [image_name(moved, row) for row in range(count)] == [image_name(part, row) for row in range(count)]
        assert _moved(moved, torch.device("meta")) is moved
        assert _moved(part, torch.device("cpu")) is part
        with monkeypatch.context() as context:
            context.setattr(Tensor, "to", lambda self, device: self)  # a device whose memory can be looked at
            arrived = _moved(part, torch.device("meta"))
            assert equal([arrived[torch.arange(count)]], [part[torch.arange(count)]])


def test_images_on_the_device_train_alike(tmp_path: Path) -> None:
    two_classes(tmp_path)

    def loss(**options: Any) -> float:
        torch.manual_seed(0)
        data = ImageFolder(root=str(tmp_path), image_size=8, batch_size=4, augment={"crop": 2, "cutmix": 1}, **options)
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
        )
        trainer.fit(ImageClassifier("ffnn", 2, 3, 8), data)
        return trainer.callback_metrics["val/loss"].item()

    expected = loss()
    assert loss(on_device=True) == expected
    with pytest.warns(UserWarning, match="--data.on_device true has no effect on images that stay on disk"):
        assert loss(on_device=True, max_memory=1e-9, num_workers=0) == expected


def test_the_picture_shows_all_classes_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {f"train/{name}": 30 for name in "abc"})
    titles: list[str] = []
    monkeypatch.setattr(plots, "image_grid", lambda images, names, **_: titles.extend(names))
    ImageFolder(root=str(tmp_path), image_size=8).plot(6)
    assert set(titles) == set("abc")


def read_all(data: ImageDataModule) -> list[Batch]:
    data.setup("fit")
    return [*data.train_dataloader(), *data.val_dataloader()]


def test_corrupt_images(tmp_path: Path) -> None:
    two_classes(tmp_path)
    whole = (tmp_path / "train" / "cat" / "001.png").read_bytes()
    (tmp_path / "train" / "cat" / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train" / "dog" / "003.png").write_text("no image at all")
    for limit in (None, 1e-6):
        options: dict[str, Any] = {"root": str(tmp_path), "image_size": 12, "max_memory": limit, "num_workers": 0}
        data = ImageFolder(**options)
        message = fails(lambda data=data: read_all(data))  # type: ignore[misc]
        assert "can't decode the image" in message and str(tmp_path / "train") in message
        data = ImageFolder(**options, skip_corrupt=True)
        with pytest.warns(UserWarning, match=r"left out: .*dog/003.png"):
            data.setup("fit")
        labels = torch.cat([labels for part in (data.train_dataloader(), data.val_dataloader()) for _, labels in part])
        assert labels.bincount().tolist() == [5, 4]
    message = fails(lambda: ready(ImageFolder(root=str(tmp_path), image_size=12)))
    assert "cat/001.png" in message and message.endswith("--data.skip_corrupt true")


def test_decoding_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {"train/cat": 9})
    paths = sorted(str(path) for path in tmp_path.rglob("*.png"))
    Path(paths[4]).write_text("no image")
    preprocessing = Preprocessing(12, 3)
    before = torch.get_rng_state()
    alone = list(decode(paths, preprocessing.read, 12 * 12 * 3, 2))
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.WORTHWHILE", 0)
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.CHUNK_BYTES", 12 * 12 * 3 * 2)  # two images at once
    shared = list(decode(paths, preprocessing.read, 12 * 12 * 3, 2))
    assert torch.equal(before, torch.get_rng_state())  # the run's own draws do not depend on it
    ((positions, images, faults),) = alone
    assert positions.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(faults) == 1 and paths[4] in faults[0]
    assert torch.equal(images[4], preprocessing.read(paths[5]))
    assert len(shared) == 5
    assert torch.equal(torch.cat([part for part, _, _ in shared]), positions)
    assert torch.equal(torch.cat([part for _, part, _ in shared]), images)
    assert [fault for _, _, part in shared for fault in part] == faults


def test_many_images_are_decoded_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same whole folder, whether its images come from this process or from two others."""
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.CHUNK_BYTES", 1)
    two_classes(tmp_path)
    options: dict[str, Any] = {"root": str(tmp_path), "image_size": 12, "num_workers": 2}
    alone = read_all(ImageFolder(**options))
    here, original = os.getpid(), Preprocessing.read

    def read(*given: Any) -> Tensor:
        assert os.getpid() != here
        return original(*given)

    monkeypatch.setattr(Preprocessing, "read", read)
    monkeypatch.setattr("lightning_cnn.datamodules.images.decoding.WORTHWHILE", 0)
    assert equal(read_all(ImageFolder(**options)), alone)
    (tmp_path / "train" / "dog" / "003.png").write_text("no image")
    message = fails(lambda: read_all(ImageFolder(**options)))
    assert message.startswith("can't decode the image") and message.endswith("--data.skip_corrupt true")


@pytest.mark.parametrize("tag", [0, 26])
def test_damaged_metadata(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[274], exif[270] = 6, "abc"
    Image.new("RGB", (8, 8)).save("photo.jpg", exif=exif)
    good = Path("photo.jpg").read_bytes()
    assert Preprocessing(8, 3).read("photo.jpg").shape == (3, 8, 8)
    place = good.index(b"\x01\x0e") + 1  # the number of tag 270
    Path("photo.jpg").write_bytes(good[:place] + bytes([tag]) + good[place + 1 :])
    assert fails(lambda: Preprocessing(8, 3).read("photo.jpg")).startswith("can't decode the image photo.jpg")


@pytest.mark.filterwarnings("ignore:left out")
def test_no_image_can_be_decoded(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_text("no image")
    message = fails(lambda: ImageFolder(root=str(tmp_path), skip_corrupt=True).setup("fit"))
    assert message.startswith("none of the 2 images")


def test_wrong_folders(tmp_path: Path) -> None:
    def opened() -> str:
        return fails(lambda: ImageFolder(root=str(tmp_path), image_size=12).setup("fit"))

    assert opened().startswith(f"there is no folder {tmp_path}/train: ImageFolder wants <root>/train/<class>/<image>")
    (tmp_path / "train").mkdir()
    assert opened().startswith(f"there are no class folders in {tmp_path}/train")
    write_folder(tmp_path, {"train/cat": 3})
    assert "only one class folder" in opened() and "'cat'" in opened()
    (tmp_path / "train" / "dog").mkdir()
    assert opened() == f"there are no images in {tmp_path}/train/dog: add some, or remove the folder"
    write_folder(tmp_path, {"train/dog": 3, "val/cat": 1, "val/horse": 1})
    message = opened()
    assert message == f"{tmp_path}/val/horse: there is no class 'horse' in {tmp_path}/train"


def test_a_class_may_be_absent_from_val(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/ant": 2, "train/bee": 2, "train/cat": 2, "val/ant": 1, "val/cat": 2})
    data = ready(ImageFolder(root=str(tmp_path), image_size=12))
    assert [labels.tolist() for _, labels in data.val_dataloader()] == [[0, 2, 2]]


# images for prediction


def test_image_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"b/deep": 2, "a": 8})
    for number in (6, 2, 0):  # so that the folder's own order is not that of the names
        (tmp_path / "a" / f"{number:03d}.png").rename(tmp_path / "a" / f"{9 - number:03d}x.PNG")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    scaling = Preprocessing(10, 3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 2.0))
    given = [tmp_path / "b", tmp_path / "a" / "005.png", tmp_path / "a"]
    files = ImageFiles([str(path) for path in given], scaling, batch_size=4)
    order = "b/deep/000.png b/deep/001.png a/005.png a/001.png a/003.png a/003x.PNG a/004.png a/005.png a/007.png"
    assert files.paths == [str(tmp_path / name) for name in [*order.split(), "a/007x.PNG", "a/009x.PNG"]]
    found = list(files.predict_dataloader())
    assert [positions.tolist() for _, positions in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert torch.equal(found[0][0][2], scaling.read(files.paths[2]))
    scaled, _ = files.on_after_batch_transfer(found[0], 0)
    expected = (found[0][0] / 255 - torch.tensor(scaling.mean).view(3, 1, 1)) / torch.tensor(scaling.std).view(3, 1, 1)
    assert torch.allclose(scaled, expected)


def test_image_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert fails(lambda: find_images(["nothing.png"])) == "there is no file or folder nothing.png"
    assert "there are no images in empty" in fails(lambda: find_images(["empty"]))
