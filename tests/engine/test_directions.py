"""Every metric says which way it is better, and what chooses by one asks it before anything is trained."""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
import torch
import yaml
from image_sets import write_folder, write_mnist, write_table
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from run_folders import only_run, record, write_run
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset
from typed import typed

import lightning_cnn.modules
from lightning_cnn.cli import main
from lightning_cnn.datamodules import Digits
from lightning_cnn.engine.sweep.studies import create_study
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Better, declared, declared_as, direction_of
from lightning_cnn.evaluation.returns.measures import Evaluation
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.modules.detection_networks import LOSSES, DetectorName, create_detector
from lightning_cnn.resume.checkpoints import BestCheckpoint
from lightning_cnn.tracking.comparison import build, sort
from lightning_cnn.tracking.monitors import KnownMetrics, Monitors
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.throughput import Throughput

TINY = ["--trainer.limit_train_batches", "2", "--trainer.enable_progress_bar", "false", "--wandb", "disabled"]
TINY += ["--trainer.enable_model_summary", "false", "--trainer.log_every_n_steps", "1"]
LINEAR = ["--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1", *TINY]
RETURNS = ["--data", "SyntheticReturns", "--data.stocks", "21", "--data.months", "60", "--data.lags", "12"]
NUMBERS = ["--data", "SyntheticNumbers", "--data.train_images", "300", "--data.test_images", "50"]
NUMBERS += ["--data.handwriting", "0"]
NARROW = ["--model.architecture", "house_number_resnet", "--model.architecture_options.width", "8"]
BOXES = ["--data", "SyntheticBoxes", "--data.train_images", "20", "--data.test_images", "4", "--data.handwriting", "0"]
BLIND = ["--trainer.num_sanity_val_steps", "0"]
STOPPING = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor"]
KEEPING = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor"]
# for each module of ours what makes it log all that it can
CASES: dict[str, list[list[str]]] = {
    "ImageClassifier": [
        ["--data", "Digits", "--model.architecture", "linear"],
        ["--data", "test_directions.ManyClasses", "--model.architecture", "linear"],
    ],
    "CapsuleClassifier": [
        ["--data", "Digits", "--model.architecture", "efficient_capsnet"],
        ["--data", "OverlappingDigits", "--model.architecture", "efficient_capsnet"],
    ],
    "HouseNumberReader": [
        [*NUMBERS, "--data.val_fraction", "0.8", *NARROW],
    ],
    "Detector": [[*BOXES, "--data.image_size", "32", "--model", "Detector"]],
    "DigitDetector": [[*BOXES, "--data.image_size", "32"]],
    "ReturnClassifier": [RETURNS, [*RETURNS, "--model.accumulate_auc", "true"]],
    "MultiLabelClassifier": [["--data", "ImageTable", "--data.root", "table", "--data.image_size", "28"]],
    "ImageRegressor": [
        ["--data", "RotatedDigits", "--model.architecture", "linear"],
        ["--data", "ImageValues", "--data.root", "table", "--data.image_size", "28"],
    ],
    "ReturnRegressor": [[*RETURNS], [*RETURNS, "--model.loss", "rank"]],
    "Segmenter": [["--data", "shapes.Shapes", "--model.architecture_options", "{width: 2, depth: 1}"]],
}


class ManyClasses(Digits):
    """Digits among more classes than there are digits."""

    num_classes = 12
    class_names = tuple("0123456789ab")


class Mine(ImageClassifier):
    """Logs a metric of its own."""

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("val/mine", float(self.current_epoch))


class Declared(Mine):
    """Says which way it is better."""

    better: ClassVar[Better] = {"mine": "max"}


class Plateau(ImageClassifier):
    """Lowers the learning rate when the accuracy has not fallen."""

    watched = "val/acc"

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": ReduceLROnPlateau(optimizer), "monitor": self.watched},
        }


class NoPlateau(Plateau):
    """Monitors what nobody logs."""

    watched = "val/acd"


class Stop(EarlyStopping):
    """Stops when the accuracy has not fallen."""

    def __init__(self) -> None:
        super().__init__("val/acc")


def columns(folder: Path) -> dict[str, list[float]]:
    """The values of each metric in metrics.csv, in the order of the steps."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which a command is refused."""
    assert main([*words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_each_module_of_ours_has_a_case() -> None:
    assert set(CASES) == set(lightning_cnn.modules.__all__)


@pytest.mark.parametrize(
    ("module", "words"), [(module, words) for module, cases in CASES.items() for words in cases], ids=lambda value: ""
)
def test_the_declared_metrics_are_the_logged_ones(module: str, words: list[str]) -> None:
    if "table" in words:
        write_folder(Path("table"), {"train/cat": 260, "test/dog": 6})
        write_table(Path("table"), "train/cat", "test/dog")
    if "OverlappingDigits" in words:
        write_mnist(Path("data"), train=400, test=20)
    words = ["--model", module, *words, "--trainer.max_epochs", "1", *TINY]
    assert main(["train", *words]) == 0
    known = KnownMetrics.of(typed("train", words).model, [Throughput()])
    logged = set(columns(only_run())) - {"epoch", "step"}
    trained = {name for name in logged if name.startswith(("train/", "val/"))}
    rare = {"val/digit5_acc", "val/r2"}  # of places that some number has; of numbers that differ
    assert known.complete and trained | rare == set(known.names) | rare
    better = record(only_run())["better"]
    assert all(declared_as(name, better) is not None for name in logged if "/" in name)
    assert any(name.startswith("test/") for name in logged)


@pytest.mark.parametrize("detector", get_args(DetectorName))
def test_the_declared_losses_are_those_of_the_detector(detector: DetectorName) -> None:
    network, _ = create_detector(detector, 10, 3, 64)
    boxes = torch.tensor([[8.0, 8.0, 24.0, 40.0]])
    losses = network([torch.rand(3, 64, 64)] * 2, [{"boxes": boxes, "labels": torch.tensor([3])}] * 2)
    assert {f"loss_{name.removeprefix('loss_')}" for name in losses} == set(LOSSES[detector])


def test_a_declaration_is_inherited_and_its_names_come_before_patterns() -> None:
    class Base:
        better: ClassVar[Mapping[str, Any]] = {"acc": "max", "acc_*": "max", "size": None}

    class Mine(Base):
        better: ClassVar[Mapping[str, Any]] = {"acc_error": "min", "val/size": "min"}

    better = declared(Mine)
    assert direction_of("val/acc", better) == "max" and direction_of("val_acc", better) == "max"
    assert direction_of("test/acc_error", better) == "min" and direction_of("test/acc_dog", better) == "max"
    assert direction_of("val/size", better) == "min" and direction_of("test/size", better) is None
    assert direction_of("train/loss", better) == "min" and direction_of("val/lossy", better) is None
    Mine.better = {"acc": "maximum"}
    with pytest.raises(UserError, match=r"Mine\.better: 'maximum' is not a direction of acc; use 'min' or 'max'"):
        declared(Mine)


def test_the_best_epoch_of_a_metric_is_kept_without_a_mode(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", *LINEAR, "--trainer.max_epochs", "3", "--model.lr", "0.01", "--checkpoint.monitor", "val/f1"]
    assert main([*words, *STOPPING, "val/acc", "--trainer.callbacks.patience", "1"]) == 0
    folder, saved = only_run(), record(only_run())
    values = columns(folder)["val/f1"]
    assert values[0] < values[-1], "the case proves nothing"
    assert saved["best"]["value"] == pytest.approx(max(values)) and saved["best"]["epoch"] == values.index(max(values))
    assert saved["epochs"] == 3  # it is not stopped while the accuracy rises
    assert saved["better"]["f1"] == "max" and saved["better"]["ece"] == "min"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["checkpoint"]["mode"] == "max"
    assert config["trainer"]["callbacks"][0]["init_args"]["mode"] == "max"
    # of a configuration the monitor is replaced with its mode, and a run that goes on has the modes of before
    capsys.readouterr()
    best = typed("fit", ["--config", str(folder / "config.yaml"), "--checkpoint.monitor", "val/loss"]).checkpoints.best
    assert (best.monitor, best.mode) == ("val/loss", "min")
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["checkpoint"] = {"monitor": "val/lr-like", "mode": "max"}  # of one's own: nothing else says it
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    for monitor in (["--checkpoint.monitor", "val/lr-like"], ["--checkpoint.monitor=val/lr-like"]):
        assert typed("fit", ["--config", "mine.yaml", *monitor]).checkpoints.best.mode == "max"
    line = refusal(capsys, "fit", "--resume", saved["id"], "--checkpoint.monitor", "val/lss")
    assert "val/lss: there is no such metric; did you mean val/loss" in line
    line = refusal(capsys, "fit", "--resume", saved["id"], "--checkpoint.mode", "min")
    assert "val/f1 is best at its maximum" in line and record(folder) == saved


def test_a_run_of_an_earlier_version_goes_on_the_right_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *LINEAR, "--checkpoint.monitor", "val/f1", *STOPPING, "val/acc"]) == 0
    path = only_run() / "config.yaml"
    path.write_text(path.read_text().replace("mode: max", "mode: min"))  # Lightning's default, or that of `checkpoint`
    saved = record(only_run())
    del saved["better"]
    Path(only_run(), "run.json").write_text(json.dumps(saved))
    assert main(["fit", "--resume", saved["id"], "--trainer.max_epochs", "2"]) == 0
    assert "--checkpoint.mode min is wrong for val/f1; resuming with max" in capsys.readouterr().out
    config = yaml.safe_load(path.read_text())
    assert config["checkpoint"]["mode"] == "max" and config["trainer"]["callbacks"][0]["init_args"]["mode"] == "max"


def test_a_walk_forward_of_an_earlier_version_goes_on_the_right_way(capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", "SyntheticReturns", "--data.stocks", "20", "--data.months", "75", "--data.lags", "12"]
    few = ["--data.val_months", "6", "--trainer.max_epochs", "1", "--train_months", "36", "--last_test", "2018-11"]
    choice = ["--checkpoint.monitor", "val/auc", *STOPPING, "val/ic"]
    assert main(["walkforward", *data, *few, "--wandb", "disabled", *choice]) == 0
    ((folder,),) = [[*Path("runs").glob("*/*")]]
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("mode: max", "mode: min"))
    saved = record(folder)
    del saved["better"]
    (folder / "run.json").write_text(json.dumps(saved))
    resume = ["walkforward", "--resume", folder.name]
    assert "started with 1; go on without it" in refusal(capsys, *resume, "--trainer.max_epochs", "2")
    assert main(resume) == 0
    assert "--checkpoint.mode min is wrong for val/auc; resuming with max" in (out := capsys.readouterr().out)
    assert "finished folds used the wrong mode and are kept" in out
    config = yaml.safe_load(path.read_text())
    assert config["checkpoint"]["mode"] == "max" and config["trainer"]["callbacks"][0]["init_args"]["mode"] == "max"


def test_a_sweep_of_an_earlier_version_is_begun_anew(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*LINEAR, "--experiment", "rates", "--sampler", "grid", "--checkpoint.monitor", "val/f1"]
    config = typed("sweep", [*words, "--search", "model.lr=[0.01,0.05]"]).config.values
    config["checkpoint"]["mode"] = "min"
    assert create_study(Path("runs/rates"), config, {})
    path = Path("runs/rates/sweep/config.yaml")
    line = refusal(capsys, "sweep", "--resume", "rates")
    assert f"cannot be resumed; start a new one: `lightning-cnn sweep --config {path} --experiment NAME ...`" in line
    assert "add --checkpoint.mode max" in line
    for again in (["--resume", "rates", "--checkpoint.mode", "max"], [*words, "--search", "model.lr=[0.01,0.05]"]):
        line = refusal(capsys, "sweep", *again)
        assert "was started with min; begin another sweep with --experiment NAME" in line and "go on" not in line
    new = typed("sweep", ["--config", str(path), "--experiment", "new", "--checkpoint.mode", "max"])
    new.check()
    assert new.checkpoints.best.mode == "max"


def test_callbacks_of_a_file_keep_what_was_typed() -> None:
    content: dict[str, Any] = {"trainer": {"callbacks": []}}
    for kind, options in (
        ("EarlyStopping", {"monitor": "val/acc"}),
        ("EarlyStopping", {"monitor": "val/loss", "mode": "min"}),
        ("ModelCheckpoint", {"monitor": "val/ece"}),
        ("ModelCheckpoint", {"monitor": "train/acc"}),
        ("ModelCheckpoint", {"every_n_epochs": 2}),
        ("ModelCheckpoint", {"monitor": "step", "mode": "max"}),
    ):
        content["trainer"]["callbacks"].append({"class_path": kind, "init_args": options})
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    experiment = typed("fit", ["--config", "mine.yaml", *LINEAR, *STOPPING, "val/f1"])
    experiment.check()
    assert [callback.mode for callback in experiment.callbacks()] == ["max", "min", "min", "max", "min", "max", "max"]  # type: ignore[attr-defined]
    # a metric of the training is looked at when the epoch is over, not after a validation within it
    assert experiment.callbacks()[3]._save_on_train_epoch_end is True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--checkpoint.monitor", "val/lss"], "val/lss: there is no such metric; did you mean val/loss"),
        (["--checkpoint.monitor", "val/top5"], "val/top5: there is no such metric"),
        (["--checkpoint.monitor", "train/f1"], "train/f1: there is no such metric; did you mean train/acc"),
        (["--checkpoint.monitor", "epoch", "--checkpoint.mode", "max"], "monitor epoch: there is no such metric"),
        (["--checkpoint.monitor", "step", "--checkpoint.mode", "max"], "monitor step: there is no such metric"),
        (
            ["--checkpoint.monitor", "lr-Adam", "--checkpoint.mode", "min"],
            "lr-Adam: there is no such metric; did you mean lr-AdamW",
        ),
        (["--checkpoint.monitor", "train/grad_norm"], "lower or higher is better; add --checkpoint.mode"),
        (["--checkpoint.monitor", "val/f1", "--checkpoint.mode", "min"], "at its maximum; add --checkpoint.mode max"),
        ([*STOPPING, "val/accuracy"], "--trainer.callbacks.monitor val/accuracy of EarlyStopping: there is no such"),
        ([*STOPPING, "test/acc"], "--trainer.callbacks.monitor test/acc of EarlyStopping: there is no such"),
        ([*STOPPING, "val/acc", "--trainer.callbacks.mode", "min"], "at its maximum; add --trainer.callbacks.mode max"),
        ([*KEEPING, "val/los"], "of ModelCheckpoint: there is no such metric; did you mean val/loss"),
        (["--trainer.limit_val_batches", "0"], "there is no validation, because of --trainer.limit_val_batches 0"),
        (
            ["--model", "test_directions.Mine", "--checkpoint.monitor", "val/mine"],
            "better = {'mine': 'max'} in your module's class",
        ),
        (
            ["--model", "test_directions.Mine", *STOPPING, "val/mine"],
            "add --trainer.callbacks.mode min or --trainer.callbacks.mode max",
        ),
        (["--model", "test_directions.Plateau"], "configure_optimizers.mode min of ReduceLROnPlateau: val/acc is best"),
        (
            ["--trainer.callbacks+=test_directions.Stop"],
            "--trainer.callbacks.mode min of Stop: val/acc is best at its maximum",
        ),
    ],
    ids=lambda value: "",
)
def test_refused_before_the_training(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in refusal(capsys, "train", *LINEAR, *BLIND, *words)
    assert not Path("runs").exists() or not any(Path("runs").glob("*/*"))


def test_a_metric_of_the_training_can_choose_within_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint.monitor", "train/loss", *STOPPING, "train/loss", "--trainer.val_check_interval", "1"]
    assert main(["fit", *LINEAR, *words, "--trainer.limit_val_batches", "1"]) == 0
    assert record(only_run())["best"]["metric"] == "train/loss"
    assert "runs/" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["Mine", "Declared"])
def test_a_metric_of_ones_own_needs_a_mode_or_a_declaration(module: str) -> None:
    mode = ["--checkpoint.mode", "max"] if module == "Mine" else []
    words = ["--model", f"test_directions.{module}", "--checkpoint.monitor", "val/mine", *mode]
    assert main(["fit", *LINEAR, "--trainer.max_epochs", "2", *words]) == 0
    saved = record(only_run())
    assert saved["best"]["epoch"] == 1 and saved["best"]["value"] == 1.0
    assert direction_of("val/mine", saved["better"]) == "max"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--model", "test_directions.Mine", *STOPPING, "val/mime", "--trainer.callbacks.mode", "max"],
            "val/mime of EarlyStopping: there is no such metric; did you mean val/mine",
        ),
        (["--model", "test_directions.NoPlateau"], "configure_optimizers.monitor val/acd of ReduceLROnPlateau: there"),
    ],
    ids=lambda value: "",
)
def test_an_undeclared_metric_shows_in_the_sanity_check(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refusal(capsys, "fit", *LINEAR, *words)
    assert not any(Path("runs").glob("*/*"))


@pytest.mark.parametrize(
    "option", ["checkpoint", "trainer.callbacks+=EarlyStopping", "trainer.callbacks+=ModelCheckpoint"]
)
def test_without_a_sanity_check_the_first_epoch_is_not_lost(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, _, callback = option.partition("+=")
    words = ["--model", "test_directions.Mine", *BLIND, *([f"--{option}"] if callback else [])]
    words += [f"--{name}.monitor", "val/mime", f"--{name}.mode", "max", "--trainer.max_epochs", "3"]
    line = refusal(capsys, "fit", *LINEAR, *words)
    assert f"--{name}.monitor val/mime" in line and "--resume RUN" in line
    folder = only_run()
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == 1 == record(folder)["epochs"]
    # when it goes on, it is known what the module logs: nothing is trained
    again = refusal(capsys, "fit", "--resume", folder.name)
    assert "val/mime" in again and "did you mean val/mine" in again and record(folder)["epochs"] == 1
    assert main(["fit", "--resume", folder.name, f"--{name}.monitor", "val/mine", f"--{name}.mode", "max"]) == 0
    assert record(folder)["epochs"] == 3 and record(folder)["status"] == "finished"


def test_a_sweep_finds_the_most_of_a_metric_that_is_better_so(capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", "model.lr=[1e-6,0.05]", "--sampler", "grid", "--checkpoint.monitor", "val/f1"]
    assert main(["sweep", *LINEAR, *search, "--experiment", "rates"]) == 0
    found = re.search(r"best +val/f1 (\S+) in trial", capsys.readouterr().out)
    values = [record(path.parent)["best"]["value"] for path in Path("runs/rates").glob("*/run.json")]
    assert found is not None and float(found[1]) == pytest.approx(max(values), abs=1e-4) and min(values) < max(values)
    assert yaml.safe_load(Path("runs/rates/best.yaml").read_text())["model"]["init_args"]["lr"] == 0.05


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--checkpoint.monitor", "val/los"], "error: --checkpoint.monitor val/los: there is no such metric"),
        (["--checkpoint.monitor", "val/f1", "--checkpoint.mode", "min"], "val/f1 is best at its maximum"),
    ],
    ids=lambda value: "",
)
def test_a_sweep_is_refused_before_its_first_trial(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refusal(capsys, "sweep", *LINEAR, "--search", "model.lr=[0.1,0.2]", *words)
    assert not Path("runs").exists()


def test_compare_calls_nothing_best_by_guess(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both: list[dict[str, Any]] = [
        {"better": {"loss": "min", "mine": "max", "split": "max", "size": None}},
        {"better": {"loss": "min", "mine": "max", "split": "min", "size": None}},
    ]
    for number, fields in enumerate(both):
        names = ("val/loss", "val/mine", "val/split", "val/size", "val/unknown")
        metrics = {name: number + 1.0 for name in names}
        best = {"metric": "val/mine", "value": number + 1.0, "epoch": 0}
        write_run(tmp_path, f"digits/{number}", metrics=metrics, best=best, **fields)
    runs = [RunFolder.open(tmp_path / "digits" / str(number)) for number in range(2)]
    table, rows = build(runs, ["val/*"])
    ways = {column.name: column.better for column in table if column.kind in ("best", "metric")}
    assert ways == {
        **{"best val/mine": "max", "best epoch": None, "val/loss": "min", "val/mine": "max"},
        **{"val/split": None, "val/size": None, "val/unknown": None},
    }
    assert [row.run.record.id for row in sort(rows, "val/mine")] == ["1", "0"]
    assert [row.run.record.id for row in sort(rows, "val/unknown")] == ["0", "1"]
    assert "val/unknown: unknown whether lower or higher is better" in caplog.text
    page = tmp_path / "page.html"
    assert main(["compare", "--runs_dir", str(tmp_path), "--metrics", "val/*", "--html", str(page)]) == 0
    bold = re.findall(r'<td class="([^"]*\btop\b[^"]*)" data-value="([^"]*)"', page.read_text())
    assert [value for _, value in bold] == ["1.0", "2.0", "2.0"]  # the loss of the first; both of `mine` of the second


def test_a_record_of_an_earlier_version_has_the_directions_of_its_time(tmp_path: Path) -> None:
    write_run(tmp_path, "digits/old", metrics={"val/acc": 0.5, "val/ece": 0.1, "val/mine": 1.0, "test/up_rate": 0.5})
    table, _ = build([RunFolder.open(tmp_path / "digits/old")], ["*"])
    ways = {column.name: column.better for column in table if column.kind == "metric"}
    assert ways == {"val/acc": "max", "val/ece": "min", "val/mine": None, "test/up_rate": None}


def test_the_figures_of_a_walk_forward_say_which_way_they_are_better() -> None:
    assert direction_of("test/sharpe_net", Evaluation.better) == "max"
    assert direction_of("fold/ece", Evaluation.better) == "min"
    assert direction_of("test/turnover", Evaluation.better) is None


class Falling(LightningModule):
    """Its metric is better each time it is validated, whether or not its weights have changed."""

    better: ClassVar[dict[str, str]] = {"score": "max"}

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.validations = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).sum()  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/score", float(self.validations))

    def on_validation_epoch_end(self) -> None:
        self.validations += 1

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def test_every_validation_is_compared(tmp_path: Path) -> None:
    """Without our command line, and also where gradients are gathered and no step lies between two validations."""
    best = BestCheckpoint(monitor="val/score")
    best.dirpath = str(tmp_path)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=4,
        val_check_interval=1,
        num_sanity_val_steps=0,
        callbacks=[Monitors(), best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    saved = []
    save = best._save_checkpoint
    best._save_checkpoint = lambda *args: (saved.append(1), save(*args))  # type: ignore[method-assign,assignment,func-returns-value]
    loader = DataLoader(TensorDataset(torch.ones(8, 1)))
    trainer.fit(Falling(), loader, loader)
    assert best.mode == "max" and len(saved) == 16 and float(best.best_model_score or 0) == 15.0
    assert best.best_metrics["val/score"] == 15.0
