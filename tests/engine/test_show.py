"""`show`: a picture of training images, each beside its augmented version, from one command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from price_files import panel, write
from small_data import write_cifar10, write_cifar10_folder
from torch import Tensor

from lightning_cnn.cli import main
from lightning_cnn.datamodules import CIFAR10
from lightning_cnn.figures import images as grids

SMALL = ["--data.check_md5", "false", "--data.root", "."]


class Drawn:
    """What the verb drew."""

    def __init__(self, images: Tensor, titles: list[str]) -> None:
        self.originals, self.changed = images[::2], images[1::2]
        self.names, self.shares = titles[::2], titles[1::2]
        self.images, self.titles = images, titles


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Drawn]:
    """Runs `show` with these words."""
    given: list[Any] = []
    draw = grids.image_grid

    def noted(*content: Any, **layout: Any) -> Figure:
        given.append(content)
        return draw(*content, **layout)

    def run(*words: str) -> Drawn:
        assert main(["show", *words]) == 0
        return Drawn(*given.pop())

    monkeypatch.setattr(grids, "image_grid", noted)
    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `show` with words that it must refuse; returns its one line."""

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main(["show", *words]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
        assert line.startswith("error: ") and not Path("examples.png").exists()
        return line

    return run


def test_six_originals_beside_their_augmented_versions(
    show: Callable[..., Drawn], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cifar10(Path())
    monkeypatch.setattr("lightning_cnn.modules.base.create_network", None)  # no need to wait for a network
    drawn = show("--config", "cifar10_cnn3_augmented", *SMALL)
    assert capsys.readouterr().out == "augmented, written to examples.png\n"
    assert not Path("runs").exists()
    with Image.open("examples.png") as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 200
        assert len(set(picture.convert("RGB").getdata())) > 1000
    assert len(drawn.originals) == len(drawn.changed) == 6
    data = CIFAR10(root=".", check_md5=False, val_split="first", val_fraction=0.1)
    data.setup("fit")
    loader_images, labels = data._sets["train"][torch.linspace(0, 449, 6).round().long()]
    assert torch.equal(drawn.originals, loader_images / 255)
    assert drawn.names == [CIFAR10.class_names[label] for label in labels]
    assert drawn.shares == ["augmented"] * 6
    assert (drawn.originals != drawn.changed).flatten(1).any(1).all()


def test_count_and_place(show: Callable[..., Drawn]) -> None:
    words = ["--data", "Digits", "--data.augment.rotation", "30", "--output", "new/folder/turned.png", "--count", "3"]
    drawn = show(*words)
    first = Path("new/folder/turned.png").read_bytes()
    assert len(drawn.originals) == 3
    again = show(*words)
    assert torch.equal(again.changed, drawn.changed) and Path("new/folder/turned.png").read_bytes() == first
    other = show(*words, "--seed_everything", "1")
    assert torch.equal(other.originals, drawn.originals)
    assert not torch.equal(other.changed, drawn.changed)


def test_without_augmentation(show: Callable[..., Drawn], capsys: pytest.CaptureFixture[str]) -> None:
    drawn = show("--data", "Digits")
    assert len(drawn.images) == 25 and "augmented" not in drawn.titles
    assert capsys.readouterr().out == "plain (no --data.augment is given), written to examples.png\n"


def test_titles_of_mixed_images_are_shares(show: Callable[..., Drawn]) -> None:
    write_cifar10_folder(Path("photos"), train=4, test=1)
    folder = ["--data", "ImageFolder", "--data.root", "photos", "--data.image_size", "32"]
    drawn = show(*folder, "--data.augment.cutmix", "1", "--seed_everything", "3")
    before = [drawn.names[-1], *drawn.names[:-1]]
    for image, own, other, title in zip(range(6), drawn.names, before, drawn.shares, strict=True):
        kept = (drawn.changed[image] - drawn.originals[image]).abs().amax(0) < 1e-5
        share = round(100 * kept.float().mean().item())
        shares = sorted([(share, own), (100 - share, other)], reverse=True)
        assert 0 < share < 100 and title == "\n".join(f"{percent} % {name}" for percent, name in shares)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "Digits", "--count", "0"], "--count 0: it must be at least 1"),
        (["--data", "Digits", "--count", "few"], "argument --count: invalid int value: 'few'"),
        (["--data", "Digits", "--data.augment.mixp", "1"], "did you mean --data.augment.mixup"),
        (["--data", "Digits", "--data.augment.policy", "auto"], "auto: expected one of none, trivial, rand"),
        (["--data", "Digits", "--data.augment.crop", "30"], "--data.augment.crop 30: it must be less than"),
        (
            ["--data", "Digits", "--output", "taken/picture.png"],
            "can't write taken/picture.png (Not a directory): choose another place with --output",
        ),
        (["--data.prices", "p.csv", "--count", "3"], "--count is for the figure of windows: add --output FILE"),
        (["--data", "Digits", "--output", "picture.xyz"], "can't write picture.xyz"),
        (["--data", "CIFAR10", *SMALL, "--data.download", "false"], "CIFAR10 not found"),
        (["--data", "ImageFolder", "--data.root", "one"], "there is only one class folder in one/train"),
        (["--data", "own.OneClass", "--data.augment.mixup", "0.2"], "--data.augment.mixup 0.2 needs two or"),
        (
            ["--data", "own.Prices"],
            "Prices is neither an ImageDataModule nor one of returns: `lightning-cnn show` is for these only",
        ),
        ([], "which data?"),
    ],
)
def test_mistakes(refused: Callable[..., str], words: list[str], says: str) -> None:
    Path("taken").touch()
    write(panel(12, "2007-01", "2011-12"), Path("p.csv"))
    Path("one/train/cat").mkdir(parents=True)
    Path("own.py").write_text(
        "from pytorch_lightning import LightningDataModule\n"
        "from lightning_cnn.datamodules import Digits\n"
        "class OneClass(Digits):\n    num_classes = 1\n    class_names = ('digit',)\n"
        "class Prices(LightningDataModule):\n    num_classes = in_channels = image_size = 1\n"
    )
    assert says in refused(*words)


def test_a_corrupt_batch(refused: Callable[..., str]) -> None:
    file = write_cifar10(Path(), train=50, test=5) / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:5000])
    assert "data_batch_3 is damaged or not a CIFAR-10 file" in refused("--data", "CIFAR10", *SMALL)
    assert "data_batch_1 is not the official file (md5 " in refused("--data", "CIFAR10", "--data.root", ".")


def test_a_corrupt_image_that_another_process_reads(refused: Callable[..., str]) -> None:
    root = write_cifar10_folder(Path("photos"), train=4, test=1)
    (root / "train" / "cat" / "000.png").write_bytes(b"\x89PNG but no more")
    words = ["--data.root", "photos", "--data.image_size", "16", "--data.max_memory", "0.0000001"]
    message = refused("--data", "ImageFolder", *words, "--data.num_workers", "1", "--data.val_fraction", "0.01")
    assert "can't decode the image photos/train/cat/000.png" in message and "Traceback" not in message
