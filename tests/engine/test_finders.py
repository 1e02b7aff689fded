"""The finders of learning rate and batch size: what they find, and that the training is that with the value typed."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trainings
import yaml
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from run_folders import learned, logged, only_run, record, runs_in_order, same
from small_data import write_mnist
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from typed import typed, typed_config

from lightning_cnn.cli import main
from lightning_cnn.datamodules import Digits
from lightning_cnn.engine.finders.batch_size import BatchSizeFinder
from lightning_cnn.engine.finders.learning_rate import LearningRateFinder, _Sweep, slowing, smooth
from lightning_cnn.engine.finding import find_settings
from lightning_cnn.errors import UserError
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.resume.run_lock import RUN_FOLDER

QUIET = ("--wandb", "disabled", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
TINY = ("--data", "Digits", "--model.architecture", "linear", "--trainer.limit_train_batches", "5", *QUIET)
LR = (
    *("--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps", "30"),
    *("--trainer.callbacks.trial_steps", "10"),
)
BATCH = ("--trainer.callbacks+=BatchSizeFinder", "--trainer.callbacks.steps_per_trial", "1")


def config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return content


def epochs(folder: Path) -> list[str]:
    header, *rows = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    loss = header.index("val/loss")
    return [row[0] for row in rows if row[loss]]


# what is found


def test_smooth_equals_a_plain_loop() -> None:
    losses = np.random.default_rng(0).uniform(1, 2, 20)
    for step, mean in enumerate(smooth(losses, 0.8)):
        weights = 0.8 ** np.arange(step, -1, -1)
        assert mean == pytest.approx((weights * losses[: step + 1]).sum() / weights.sum())


class Bowl(LightningModule):
    """Gradient descent on `(w - 1)^2 / 2`, which diverges where the learning rate is above 2."""

    def __init__(self, lr: float = 0.001, seen: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.w = torch.nn.Parameter(torch.zeros(()))
        self.lr = lr
        self.seen = seen

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss, whatever the batch; the size of the batch is noted."""
        if self.seen:
            with Path(self.seen).open("a") as file:
                file.write(f"{len(batch[0])}\n")
        return (self.w - 1) ** 2 / 2

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Logs the loss."""
        self.log("val/loss", (self.w - 1) ** 2 / 2)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def test_the_rate_lies_below_divergence_and_learns() -> None:
    """On a function of which all is known."""
    words = ["--data", "Digits", "--model", "test_finders.Bowl", "--trainer.max_epochs", "1", *QUIET]
    assert main(["fit", *words, *LR]) == 0
    folder = only_run()
    found = record(folder)["found"]["model.lr"]
    assert 0.02 < found < 2
    assert config(folder)["model"]["init_args"]["lr"] == found
    assert (folder / "figures" / "lr_finder.png").is_file()


@pytest.mark.parametrize("low", [1e-4, 0.5])
def test_never_outside_of_the_range(low: float) -> None:
    words = ["--data", "Digits", "--model", "test_finders.Bowl", "--trainer.max_epochs", "1", *QUIET, *LR]
    assert main(["fit", *words, "--trainer.callbacks.min_lr", str(low), "--trainer.callbacks.max_lr", "1"]) == 0
    assert low <= record(only_run())["found"]["model.lr"] <= 1


def test_no_rate_lowers_the_loss() -> None:
    rates = np.geomspace(1e-3, 1, 20)
    for losses in (np.linspace(1, 2, 20), np.full(20, np.nan), np.full(1, np.nan)):
        with pytest.raises(UserError, match="no rate in the range"):
            slowing(1.0, rates, losses, smooth(losses, 0.8))


def test_noise_is_seldom_taken_for_a_fall() -> None:
    taken = 0
    for seed in range(100):
        before, *rest = np.random.default_rng(seed).normal(2, 0.1, 101)
        losses = np.array(rest)
        with suppress(UserError):
            slowing(before, np.geomspace(1e-6, 10, 100), losses, smooth(losses, 0.8))
            taken += 1
    assert taken <= 10


def test_where_the_fall_slows() -> None:
    """A second valley behind a divergence counts for nothing where it is no deeper."""
    rates = np.geomspace(1e-4, 1, 41)
    losses = np.interp(np.log10(rates), [-4, -3, -2, -1.5, -1, 0], [2.0, 2.0, 1.0, 3.0, 1.05, 4.0])
    assert slowing(2.0, rates, losses, losses) == pytest.approx(10**-2.1, rel=0.01)


# the training is that with the value typed

RETURNS = (
    *("--data", "SyntheticReturns", "--data.stocks", "40", "--data.months", "75", "--data.lags", "12"),
    *("--data.momentum", "0.25", "--data.batch_size", "256"),
)
SAME = {
    "schedule": (*TINY, "--model.schedule", "cosine", "--model.warmup_epochs", "1", "--data.augment", "{shift: 0.1}"),
    "averaged": (
        *(*TINY, "--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.9"),
        *("--trainer.accumulate_grad_batches", "2", "--trainer.precision", "bf16-mixed"),
    ),
    "returns": (*RETURNS, "--data.batch_size", "64", "--model.schedule", "linear", *QUIET),
}


@pytest.mark.parametrize("words", SAME.values(), ids=SAME)
def test_the_training_is_that_with_the_rate_typed(words: tuple[str, ...]) -> None:
    _compare([*words, "--trainer.max_epochs", "2"], LR, "model.lr")


def _compare(words: list[str], finder: tuple[str, ...], setting: str) -> None:
    assert main(["fit", *words, "--runs_dir", "found", "--experiment", "e", *finder]) == 0
    (one,) = Path("found/e").iterdir()
    value = record(one)["found"][setting]
    assert main(["fit", *words, "--runs_dir", "typed", "--experiment", "e", f"--{setting}", str(value)]) == 0
    (other,) = Path("typed/e").iterdir()
    assert logged(one) == logged(other)
    for name in ("last.ckpt", "best.ckpt"):
        assert same(learned(one, name), learned(other, name))
    assert {**config(one), "runs_dir": ""} == {**config(other), "runs_dir": ""}


def test_the_batch_size_is_that_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that 100 images at once are too many for."""

    def training_step(self: ImageClassifier, batch: Any, batch_idx: int) -> Tensor:
        if len(batch[0]) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return step(self, batch, batch_idx)

    step = ImageClassifier.training_step
    monkeypatch.setattr(ImageClassifier, "training_step", training_step)
    _compare([*TINY, "--trainer.max_epochs", "1"], BATCH, "data.batch_size")
    (folder,) = Path("found/e").iterdir()
    assert record(folder)["found"]["data.batch_size"] == 64
    with pytest.raises(UserError, match="128 images do not fit"):
        _find_batch(init_val=128)


def test_the_batch_size_is_that_of_images_of_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the first epochs see small ones."""
    sizes = set()
    forward = ImageClassifier.forward

    def limited(self: ImageClassifier, images: Tensor) -> Any:
        sizes.add(images.shape[-1])
        if self.training and images[:, 0].numel() > 100 * 28 * 28:
            raise RuntimeError("CUDA out of memory.")
        return forward(self, images)

    monkeypatch.setattr(ImageClassifier, "forward", limited)
    small = ["--data.augment.small_epochs", "1", "--data.image_size", "28", "--model.architecture", "resnet20_cifar"]
    words = [*small, "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2", "--wandb", "disabled"]
    assert main(["fit", "--data", "Digits", *words, *BATCH]) == 0
    (folder,) = Path("runs").glob("*/*")
    assert config(folder)["data"]["init_args"]["batch_size"] == 64
    assert sizes == {21, 28}


def _find_batch(**options: int) -> int | float:
    words = [
        *TINY,
        *BATCH,
        *(word for name, value in options.items() for word in (f"--trainer.callbacks.{name}", str(value))),
    ]
    return find_settings(typed("fit", words), None).values["data.batch_size"]


def test_what_else_bounds_the_batch_size() -> None:
    assert _find_batch(init_val=600) == 1150  # the training images
    assert _find_batch(init_val=3, max_val=20) == 12
    assert _find_batch(init_val=4, max_trials=2) == 8


class Plain(LightningDataModule):
    """Makes its loader from its hyperparameters, as most do."""

    class_names = tuple("0123456789")
    num_classes, in_channels, image_size = 10, 1, 28

    def __init__(self, batch_size: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader[Any]:
        images, labels = torch.zeros(200, 1, 28, 28), torch.zeros(200, dtype=torch.long)
        return DataLoader(TensorDataset(images, labels), batch_size=self.hparams["batch_size"])

    val_dataloader = train_dataloader


def test_the_batch_size_of_data_of_ones_own_is_tried() -> None:
    words = ["--data", "test_finders.Plain", "--model.architecture", "linear", *QUIET, *BATCH]
    found = find_settings(typed("fit", words), None)
    assert found.values["data.batch_size"] == 200  # all images, not the largest size


def test_the_rate_is_found_for_the_batch_size_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = tmp_path / "seen.txt"
    words = ["--data", "Digits", "--model", "test_finders.Bowl", "--model.seen", str(seen), *QUIET]
    assert main(["fit", *words, "--trainer.max_epochs", "1", *LR, *BATCH, "--trainer.callbacks.max_val", "8"]) == 0
    said = capsys.readouterr().out
    assert said.index("--data.batch_size 8") < said.rindex("--model.lr")
    assert seen.read_text().split()[:4] == ["2", "4", "8", "8"]
    assert list(record(only_run())["found"])[:2] == ["data.batch_size", "model.lr"]


# once a run


def test_a_run_that_goes_on_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `--resume`, and by the same command in the same folder, as a job that is started again gives it."""
    monkeypatch.setenv(RUN_FOLDER, "runs/e/one")
    words = ["fit", *TINY, *LR, *BATCH, "--trainer.callbacks.max_val", "16"]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    folder = only_run()
    found = record(folder)["found"]
    monkeypatch.setattr(LearningRateFinder, "find", None)
    monkeypatch.setattr(BatchSizeFinder, "find", None)
    assert main([*words, "--trainer.max_epochs", "2"]) == 0
    monkeypatch.delenv(RUN_FOLDER)
    assert main(["fit", "--resume", "one", "--trainer.max_epochs", "3"]) == 0
    assert main(["fit", "--resume", "one", "--trainer.max_epochs", "4", *LR]) == 0
    assert epochs(folder) == ["0", "1", "2", "3"]
    assert record(folder)["found"] == found
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["hyper_parameters"]["lr"] == config(folder)["model"]["init_args"]["lr"] == found["model.lr"]
    assert config(folder)["data"]["init_args"]["batch_size"] == found["data.batch_size"] == 16


def test_an_older_run_with_lightnings_finder_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Its rate stands in the checkpoint alone; today's epochs 0, 1, 0, 1 come no more."""
    assert main(["fit", *TINY, "--model.lr", "0.005", "--trainer.max_epochs", "1"]) == 0
    folder = only_run()
    content = config(folder)
    content["model"]["init_args"]["lr"] = 0.001
    content["trainer"]["callbacks"] = [{"class_path": "pytorch_lightning.callbacks.LearningRateFinder"}]
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    assert main(["fit", "--resume", folder.name, "--trainer.max_epochs", "2"]) == 0
    assert epochs(folder) == ["0", "1"]
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["hyper_parameters"]["lr"] == config(folder)["model"]["init_args"]["lr"] == 0.005
    assert config(folder)["trainer"]["callbacks"] is None


# what is refused, in one line and with nothing left behind

REFUSED = {
    "Lightning's": (
        ["--trainer.callbacks+=pytorch_lightning.callbacks.LearningRateFinder"],
        "changes the training; use LearningRateFinder of this package instead",
    ),
    "twice": ([*LR, *LR], "is given twice"),
    "no rate": ([*LR, "--model.lr", "0"], "expected a number above 0"),
    "an empty range": ([*LR, "--trainer.callbacks.max_lr", "1e-9"], "it must lie between"),
    "several devices": ([*BATCH, "--trainer.devices", "2", "--trainer.accelerator", "cpu"], "supports one device"),
    "a setting that is not there": (
        [*LR, "--model", "test_finders.NoRate"],
        "which NoRate does not have",
    ),
}


class NoRate(ImageClassifier):
    """A module whose learning rate can't be set."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__("linear", num_classes=num_classes, in_channels=in_channels, image_size=image_size)


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [word for word in TINY if "architecture" not in word and word != "linear"]
    assert main(["fit", *(tiny if "--model" in words else TINY), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.strip().count("\n") == 0
    assert not Path("runs").exists()


def test_refused_where_a_training_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *TINY, "--trainer.max_epochs", "1"]) == 0
    folder = only_run()
    for words in (["--resume", folder.name], ["--ckpt_path", str(folder / "checkpoints" / "last.ckpt"), *TINY]):
        assert main(["fit", *words, "--trainer.max_epochs", "2", *LR]) == 2
        assert "keeps its settings" in capsys.readouterr().err
    assert epochs(only_run()) == ["0"]


def test_a_sweep_does_not_search_what_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *TINY, *LR, "--search", "model.lr=[0.1,0.2]", "--trials", "2"]) == 2
    assert "LearningRateFinder sets it in each trial" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_each_trial_of_a_sweep_finds_its_own() -> None:
    words = [*TINY, *LR, "--experiment", "s", "--trainer.max_epochs", "1", "--trials", "2"]
    assert main(["sweep", *words, "--search", "model.weight_decay=[0.0,0.1]", "--sampler", "grid"]) == 0
    folders = runs_in_order()
    assert len(folders) == 2
    for folder in folders:
        assert config(folder)["model"]["init_args"]["lr"] == record(folder)["found"]["model.lr"]
    best = yaml.safe_load(Path("runs/s/best.yaml").read_text())
    assert best["trainer"]["callbacks"] is None
    assert best["model"]["init_args"]["lr"] in [record(folder)["found"]["model.lr"] for folder in folders]


def test_a_dry_run_finds_nothing() -> None:
    assert main(["fit", *TINY, *LR, *BATCH, "--trainer.fast_dev_run", "true"]) == 0
    assert not Path("runs").exists()


def test_a_short_name_means_ours() -> None:
    """Where Lightning has a class of the same name, jsonargparse would ask for the whole path."""
    (entry,) = typed_config("fit", [*TINY, "--trainer.callbacks+=ProgressBar"])["trainer"]["callbacks"]
    assert entry["class_path"] == "lightning_cnn.tracking.progress.ProgressBar"


@pytest.mark.slow
def test_two_processes_find_the_same_rate(tmp_path: Path) -> None:
    """As torchrun starts them; the same as one process finds, but for rounding."""
    words = ["fit", *TINY, *LR, "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
    found = []
    for ranks in (1, 2):
        outcome = trainings.train([*words, "--runs_dir", f"runs_{ranks}", "--trainer.devices", str(ranks)], ranks)
        assert outcome.codes == [0] * ranks, outcome.output
        (path,) = Path(f"runs_{ranks}").glob("*/*/run.json")
        found.append(json.loads(path.read_text())["found"]["model.lr"])
    assert found[1] == pytest.approx(found[0], rel=0.2)


@pytest.mark.slow
def test_lightnings_own_launcher_finds_too(tmp_path: Path) -> None:
    """The processes that it starts for the search are those of the training, and are watched on."""
    words = [*TINY, *LR, "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    call = [sys.executable, "-m", "lightning_cnn", "fit", *words]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    folder = only_run()
    assert record(folder)["status"] == "finished"
    assert config(folder)["model"]["init_args"]["lr"] == record(folder)["found"]["model.lr"]
    assert done.stdout.count("found ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["synthetic_boxes_grid", "synthetic_numbers_corrected"])
def test_other_modules(experiment: str, tmp_path: Path) -> None:
    """The training of a detector and of a reader of numbers is that with the rate typed."""
    write_mnist(tmp_path / "data", train=300, test=100)
    words = ["--config", experiment, *QUIET, "--trainer.max_epochs", "1"]
    words += ["--data.train_images", "40", "--data.test_images", "4", "--data.batch_size", "8", "--model.lr", "0.001"]
    words += ["--trainer.precision", "32-true"]  # bfloat16 takes minutes on many a CPU
    _compare(words, LR, "model.lr")


@pytest.mark.slow
def test_each_fold_of_a_walk_forward_finds_its_own() -> None:
    words = [*RETURNS, "--data.val_months", "6", "--train_months", "36", "--wandb", "disabled"]
    assert main(["walkforward", *words, "--trainer.max_epochs", "1", *LR]) == 0
    folds = [path.parent for path in Path("runs").glob("*/*/folds/*/*/run.json")]
    assert len(folds) == 3
    for folder in folds:
        assert config(folder)["model"]["init_args"]["lr"] == record(folder)["found"]["model.lr"]


@pytest.mark.parametrize("schedule", [{}, {"schedule": "cosine"}, {"warmup_epochs": 1}])
def test_the_rates_of_layers_keep_their_ratios(schedule: dict[str, Any]) -> None:
    options: dict[str, Any] = {"optimizer_options": {"layer_decay": 0.5}, "lr": 0.1}
    model = ImageClassifier("resnet10t", num_classes=10, in_channels=1, image_size=32, **options, **schedule)
    plain = ImageClassifier("resnet10t", num_classes=10, in_channels=1, image_size=32, **options)
    expected = [group["lr"] for group in plain.make_optimizer(plain.hparams).param_groups]
    assert len({*expected}) > 3
    sweep = _Sweep(np.ones(1), 0.5, 4.0)
    trainer = Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=0, callbacks=[sweep], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, Digits(image_size=32, batch_size=16))
    assert sweep._rates == [pytest.approx(expected)]
