"""ImageTable: images and a CSV of their labels."""

from pathlib import Path

import pytest
from image_sets import fails, ready, write_folder, write_table

from lightning_cnn.cli import main
from lightning_cnn.datamodules import ImageTable, ImageValues


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path, {"train/cat": 20, "test/dog": 6})
    write_table(tmp_path, "train/cat", "test/dog")
    return tmp_path


def test_labels_are_those_of_the_table(root: Path) -> None:
    data = ready(ImageTable(str(root), image_size=12, val_split="last"))
    data.setup("test")
    assert data.class_names == ("odd", "large", "test") and data.stages == ("train", "test")
    images, labels = data.dataset("test")[[0, 1, 5]]
    assert images.shape == (3, 3, 12, 12) and labels.tolist() == [[0, 0, 1], [1, 0, 1], [1, 1, 1]]
    assert [data.title(label) for label in labels] == ["test", "odd+test", "odd+large+test"]
    assert len(data.dataset("train")) == 16 and data.title(labels[0] * 0) == "none"
    table = root / "labels.csv"
    table.write_text("file,a,b\ntrain/cat/000.png,1,0\ntrain/cat/001.png, 0,1\n")
    assert ready(ImageTable(str(root), image_size=12)).stages == ("train",)
    # row numbers, as pandas writes them, are no label
    lines = ["train/cat/000.png,train,1,0", "train/cat/001.png,train,0,1", "test/dog/000.png,test,0,0"]
    table.write_text("\n".join([",file,part,a,b", *(f"{number},{line}" for number, line in enumerate(lines)), ""]))
    assert ready(ImageTable(str(root), image_size=12)).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        (None, "labels.csv can't be read"),
        ("", "labels.csv can't be read"),
        ("name,a,b\n", "must have `file` and the other columns, each once"),
        ("file,part,a\n", "must have `file` and two labels"),
        ("file,a,a\n", "must have `file` and the other columns, each once"),
        ("file,a,b\ntrain/cat/000.png,1,2\n", "line 2: it must have a part"),
        ("file,a,b\ntrain/cat/000.png,1\n", "line 2: 2 cells, but the first line has 3"),
        ("file,part,a,b\ntrain/cat/000.png,exam,1,0\n", "line 2: it must have a part"),
        ("file,a,b\nnone.png,1,0\n", "line 2: there is no file 'none.png'"),
        ("file,a,b\n../labels.csv,1,0\n", "line 2: there is no file"),
        ("file,a,b\ntrain/cat/000.png,1,0\ntrain/cat/000.png,1,1\n", "line 3: 'train/cat/000.png' is in line 2, too"),
        ("file,part,a,b\ntrain/cat/000.png,test,1,0\n", "has no images of the part 'train'"),
    ],
)
def test_tables_that_can_not_be_used(content: str | None, telling: str, root: Path) -> None:
    table = root / "labels.csv"
    table.unlink() if content is None else table.write_text(content)
    assert telling in fails(lambda: ImageTable(str(root)))


def test_mixed_images_have_no_labels(root: Path) -> None:
    assert "`data.augment.mixup`" in fails(lambda: ImageTable(str(root), augment={"mixup": 0.5}))


def test_it_is_trained_and_predicts(root: Path) -> None:
    """The data name their model, and every verb asks the model."""
    words = ["--data", "ImageTable", "--data.root", str(root), "--data.image_size", "28", "--wandb", "disabled"]
    assert main(["train", *words, "--trainer.max_epochs", "1"]) == 0
    ((folder,),) = [[*Path("runs").glob("*/*")]]
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"val_worst", "val_predictions", "test_worst", "test_predictions"} <= figures
    best = str(folder / "checkpoints" / "best.ckpt")
    assert main(["predict", "--ckpt_path", best, "--images", str(root / "test")]) == 0
    header, *rows = Path("predictions.csv").read_text().splitlines()
    assert header == "file,labels,probability,odd,large,test" and len(rows) == 6


def test_numbers_are_those_of_the_table(root: Path) -> None:
    table = root / "labels.csv"
    table.write_text("file,part,angle\ntrain/cat/000.png,train,-1.5\ntrain/cat/001.png,val, 2e3\n")
    data = ready(ImageValues(str(root), image_size=12))
    assert data.class_names == ("angle",) and data.stages == ("train", "val")
    assert data.dataset("train")[[0]][1].tolist() == [[-1.5]] and data.dataset("val")[[0]][1].tolist() == [[2000.0]]
    assert data.title(data.dataset("val")[[0]][1][0]) == "2000"


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("file,part\n", "must have `file` and one column or more, each once"),
        ("file,a\ntrain/cat/000.png,\n", "line 2: it must have a part (train, val, test) and a number per column"),
        ("file,a\ntrain/cat/000.png,one\n", "line 2: it must have a part"),
        ("file,a\ntrain/cat/000.png,nan\n", "line 2: it must have a part"),
        ("file,a\ntrain/cat/000.png,inf\n", "line 2: it must have a part"),
        ("file,a\ntrain/cat/000.png,1e40\n", "line 2: it must have a part"),
        ('file,a\ntrain/cat/000.png,"1,5"\n', "line 2: it must have a part"),
    ],
)
def test_numbers_that_can_not_be_used(content: str, telling: str, root: Path) -> None:
    (root / "labels.csv").write_text(content)
    assert telling in fails(lambda: ImageValues(str(root)))
