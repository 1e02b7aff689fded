"""A run that goes on has the figures of one that was never stopped, wherever it was stopped."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from run_folders import pictures, same
from test_resumption import FEATURES

from lightning_cnn.architectures.house_number import BLANK
from lightning_cnn.cli import main
from lightning_cnn.datamodules import Digits
from lightning_cnn.figures.callback import ANSWERS, Figures
from lightning_cnn.figures.style import encode
from lightning_cnn.modules import DigitDetector, HouseNumberReader, ReturnClassifier
from lightning_cnn.resume.last_checkpoint import LastCheckpoint
from lightning_cnn.tracking.loggers import save_table

pytestmark = pytest.mark.figures
QUICK = [*FEATURES, "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2", "--data.batch_size", "256"]


PLACES = [
    "behind the last validation",
    "at the end",
    pytest.param("before the curves", marks=pytest.mark.slow),
    "in the test",
]


class Stop(Callback):
    """Breaks off the first training at a place."""

    def __init__(self, place: str) -> None:
        self.place = place

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._stop("behind the last validation", trainer.current_epoch == 2 and batch_idx == 2)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Behind the last `last.ckpt`, and before the figures."""
        self._stop("at the end", True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop("before the curves", True)

    def on_test_batch_start(self, *_: Any) -> None:
        self._stop("in the test", True)

    def _stop(self, place: str, now: bool) -> None:
        if now and place == self.place and not Path("stopped").exists():
            Path("stopped").touch()
            raise RuntimeError("pulled the plug")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    runs = tmp_path_factory.mktemp("whole")
    assert main(["train", *QUICK[1:], "--runs_dir", str(runs)]) == 0
    ((folder,),) = [[*runs.glob("*/*")]]
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_figures_of_a_resumed_run(place: str, whole: Path) -> None:
    stop = ["--trainer.callbacks+=test_resumed_figures.Stop", "--trainer.callbacks.place", place]
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main(["train", *QUICK[1:], *stop])
    ((folder,),) = [[*Path("runs").glob("*/*")]]
    kinds = ["augmented", "curves", "examples"]
    kinds += [f"{stage}_{kind}" for stage in ("test", "val") for kind in ("confusion", "predictions", "worst")]
    assert [*pictures(whole)] == [f"{kind}.png" for kind in kinds]
    for path in folder.glob("figures/a*.png"):
        path.unlink()  # as if killed between the first two
    assert main(["train", "--resume", str(folder)]) == 0
    assert same(pictures(folder), pictures(whole))
    last, best = (torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best"))
    assert last[ANSWERS]["epoch"] == 2 and ANSWERS not in best


def test_another_run_has_no_figures_of_its_validation(whole: Path) -> None:
    words = ["fit", *QUICK[1:], "--trainer.max_epochs", "4", "--trainer.limit_val_batches", "0"]
    words += ["--checkpoint.monitor", "train/loss"]
    start = ["--ckpt_path", str(whole / "checkpoints" / "last.ckpt"), "--trainer.num_sanity_val_steps", "0"]
    assert main([*words, *start]) == 0
    ((folder,),) = [[*Path("runs").glob("*/*")]]
    assert [*pictures(folder)] == ["augmented.png", "curves.png", "examples.png"]


def _outputs(kind: str) -> tuple[LightningModule, dict[str, Any]]:
    """A module, and what its step returns of four images."""
    draw = torch.Generator().manual_seed(0)
    if kind == "numbers":
        labels = torch.tensor([[1, 7, *[BLANK] * 4], [2, 1, 2, *[BLANK] * 3]]).repeat(2, 1)
        outputs = {"numbers": labels.flip(0), "labels": labels, "probabilities": torch.rand(4, generator=draw)}
        wrong = (labels != labels.flip(0)).any(1)
        return HouseNumberReader("linear", image_size=16), {**outputs, "is_wrong": wrong}
    if kind == "returns":
        shares = torch.rand(3, 4, generator=draw)
        months = torch.tensor([500, 500, 501, 501])
        outputs = {"scores": shares[0], "outcomes": shares[1] - 0.5, "months": months, "probabilities": shares[2]}
        return ReturnClassifier("returns_ffnn"), outputs
    boxes = torch.tensor([[1.0, 1.0, 6.0, 6.0], [8.0, 2.0, 15.0, 9.0]])
    found: dict[str, Any] = {"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([3, 5])}
    found |= {"number": "35", "probability": 0.72, "chosen": torch.arange(2)}
    labels = torch.tensor([[3.0, 1.0, 1.0, 6.0, 6.0], [4.0, 8.0, 2.0, 15.0, 9.0]]).repeat(4, 1, 1)
    rows = {"probabilities": torch.full((4,), 0.72), "is_wrong": torch.tensor([False, True, False, True])}
    return DigitDetector(image_size=64), {"predictions": [found] * 4, "labels": labels, **rows}


@pytest.mark.parametrize("kind", ["numbers", "returns", "boxes"])
def test_answers_of_other_kinds_survive_a_checkpoint(kind: str) -> None:
    """As plain data: `weights_only` reads them."""

    def write(_: Trainer, figure: Figure, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(figure))

    trainer = cast(
        Trainer,
        SimpleNamespace(sanity_checking=False, current_epoch=4, is_global_zero=True, datamodule=Digits(image_size=16)),
    )
    module, outputs = _outputs(kind)
    last = LastCheckpoint()
    Path("last.ckpt").touch()  # of the run that goes on
    before, after = (Figures(Path(name, "figures"), write, save_table, last=last) for name in ("before", "after"))
    Path("before").mkdir()
    Path("after").mkdir()
    before.on_validation_epoch_start(trainer, module)
    before.on_validation_batch_end(trainer, module, outputs, [torch.rand(4, 1, 16, 16)], 0)
    before.on_validation_end(trainer, module)
    checkpoint: dict[str, Any] = {}
    before.on_save_checkpoint(trainer, module, checkpoint)
    assert checkpoint == {}  # of best.ckpt
    last._place = "between epochs"
    before.on_save_checkpoint(trainer, module, checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    after.on_load_checkpoint(trainer, module, torch.load(file, weights_only=True))
    for figures in (before, after):
        figures.on_train_end(trainer, module)
    assert len(pictures(Path("before"))) >= 2 and same(pictures(Path("before")), pictures(Path("after")))
