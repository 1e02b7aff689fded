"""MultiLabelClassifier: what it measures, learns, predicts and draws, with the Trainer alone."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer, seed_everything
from sklearn.metrics import f1_score, log_loss
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.figures.collected import Collected
from lightning_cnn.modules import MultiLabelClassifier

LABELS = ("left", "right", "top", "never")


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Dark images, of which some halves are bright, each by a label of its own."""
    labels = torch.randint(0, 2, (count, 4), generator=torch.Generator().manual_seed(seed))
    labels[:, 3] = 0
    pixels = 0.1 * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed + 1))
    pixels[:, 0, :, :4] += labels[:, 0, None, None]
    pixels[:, 0, :, 4:] += labels[:, 1, None, None]
    pixels[:, 0, :4] += labels[:, 2, None, None]
    return pixels, labels


@pytest.fixture(scope="module")
def trained() -> tuple[MultiLabelClassifier, dict[str, float], dict[str, float]]:
    """A module after some epochs, its metrics of validation and training, and those of the test."""
    seed_everything(0, verbose=False)
    module = MultiLabelClassifier("ffnn", num_classes=4, image_size=8, lr=0.01)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=5, accelerator="cpu", enable_model_summary=False, **quiet)
    train, other = (DataLoader(TensorDataset(*images(count, count)), 32) for count in (320, 100))
    trainer.fit(module, train, other)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (tested,) = trainer.test(module, other, verbose=False)
    return module, logged, dict(tested)


def test_it_learns_and_measures(trained: tuple[MultiLabelClassifier, dict[str, float], dict[str, float]]) -> None:
    module, logged, tested = trained
    pixels, labels = images(100, 100)
    with torch.no_grad():
        chances = module.eval()(pixels).sigmoid().double().numpy()
    said, true = chances > 0.5, labels.numpy() > 0
    wanted = {
        "loss": np.mean([log_loss(true[:, n], chances[:, n], labels=[False, True]) for n in range(4)]),
        "acc": (said == true).mean(),
        "exact": (said == true).all(1).mean(),
        "f1": f1_score(true[:, :3], said[:, :3], average="macro"),
    }
    assert {name: logged[f"val/{name}"] for name in module.validated} == pytest.approx(wanted, abs=1e-5)
    assert {name.removeprefix("test/") for name in tested} == {*wanted, "f1_0", "f1_1", "f1_2"}
    assert tested["test/f1_1"] == pytest.approx(f1_score(true[:, 1], said[:, 1]), abs=1e-5)
    assert tested["test/exact"] > 0.9 and set(module.logged("train")) == {"loss", "acc", "loss_step"}
    assert logged["train/acc"] > 0.9


def test_table_and_figures(trained: tuple[MultiLabelClassifier, dict[str, float], dict[str, float]]) -> None:
    module, *_ = trained
    Image.new("L", (8, 8)).save("dark.png")
    files = ImageFiles(["dark.png"], Preprocessing(8, 1, class_names=LABELS))
    shares = torch.tensor([[0.9, 0.2, 0.75, 0.0]])
    header, rows = module.prediction_table([shares], files)
    assert header == ["labels", "probability", *LABELS]
    assert rows == [["left top", *(pytest.approx(share) for share in (0.54, 0.9, 0.2, 0.75, 0.0))]]
    collected = Collected(module.keep)
    predictions, labels = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0]]), torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]])
    found = {"losses": torch.tensor([0.1, 2.0]), "predictions": predictions, "labels": labels}
    found["is_wrong"] = torch.tensor([False, True])
    collected.add({**found, "images": torch.rand(2, 1, 8, 8)})
    collected.gather()
    figures = dict(module.figures(collected.kept, files, "test"))
    assert [text.get_text() for text in figures["worst"].axes[0].texts] == ["none,\nis right"]
    assert list(figures) == ["worst", "predictions"]
    ((name, (_, table)),) = module.tables(collected.kept, files)
    assert name == "classes" and [row[0] for row in table] == [*LABELS] and table[1][1:] == [None, 0.0, 0.0, 1]
