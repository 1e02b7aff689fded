from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import fails, write_idx, write_mnist

from lightning_cnn.datamodules import (
    MNIST,
    Digits,
    FashionMNIST,
)
from lightning_cnn.datamodules.batches import (
    Batch,
)


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
    assert "`data.download` false" in message
    assert "`data.root`" in message and "`data` Digits" in message

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
        (truncated, "train-images-idx3-ubyte", "truncated or not an idx file"),
        (without_header, "train-images-idx3-ubyte", "truncated or not an idx file"),
        (wrong_magic, "train-images-idx3-ubyte", "truncated or not an idx file"),
        (labels_for_images, "train-images-idx3-ubyte", "truncated or not an idx file"),
        (labels_of_the_test, "train-labels-idx1-ubyte", "20 labels"),
        (labels_of_letters, "train-labels-idx1-ubyte", "not a label file of MNIST"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, damage: Callable[[Path], None], file: str, says: str) -> None:
    write_mnist(tmp_path)
    damage(tmp_path / "MNIST" / "raw")
    message = fails(lambda: MNIST(root=str(tmp_path)).setup("fit"))
    assert f"{tmp_path}/MNIST/raw/{file}" in message and says in message
