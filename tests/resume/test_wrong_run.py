"""Nothing is trained, tested or shown but the run that is meant, in the state and with the settings that it has."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning import callbacks as lightning
from run_folders import record

from lightning_cnn.cli import main
from lightning_cnn.config.config import Config
from lightning_cnn.config.written import UNWRITTEN, _restore
from lightning_cnn.errors import UserError
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking.settings import relocated

FIT = [
    *["fit", "--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1", "--wandb", "disabled"],
    *["--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1", "--trainer.accelerator", "cpu"],
    *["--trainer.enable_model_summary", "false", "--trainer.enable_progress_bar", "false"],
]


class Poison(Callback):
    """Makes the weights NaN when they are validated in the second epoch."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            for parameter in pl_module.parameters():
                parameter.data.fill_(torch.nan)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which `runs/a/first` was trained, with a callback of Lightning's that writes files."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv(RUN_FOLDER, "runs/a/first")
        writes = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss"]
        assert main([*FIT, *writes]) == 0
    return place


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    """A copy of the run in the working directory."""
    return Path(shutil.copytree(place / "runs" / "a" / "first", tmp_path / "runs" / "b" / "copy"))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line with which a command is refused, which changes nothing."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*words]) == 2
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_everything_lies_in_the_run_folder(place: Path) -> None:
    assert os.listdir(place) == ["runs"]
    kept = {path.relative_to(place / "runs/a/first") for path in place.rglob("*.ckpt")}
    assert kept == {Path("checkpoints", name) for name in ("best.ckpt", "last.ckpt", "epoch=0-step=2.ckpt")}


def test_a_run_without_its_last_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    words = ["fit", "--resume", str(run), "--trainer.max_epochs", "2"]
    assert f"trained for 1 epoch, but {run}/checkpoints/last.ckpt is missing" in (line := refused(capsys, *words))
    best = run / "checkpoints" / "best.ckpt"
    assert f"resume from --ckpt_path {best}" in line
    (run / "run.json").write_text(json.dumps(record(run) | {"status": "interrupted", "epochs": 2}))
    assert "trained for 2 epochs" in refused(capsys, *words)
    best.unlink()
    assert f"repeat it with --config {run}/config.yaml" in refused(capsys, *words)


def test_a_truncated_checkpoint_is_no_way_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last, best = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "best.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    words = ["fit", "--resume", str(run), "--trainer.max_epochs", "2"]
    line = refused(capsys, *words)
    assert line == f"error: {last} is truncated or not a checkpoint: use --ckpt_path {best}\n"
    assert main([*words, "--ckpt_path", str(best)]) == 0  # that works
    best.unlink()
    last.write_bytes(last.read_bytes()[:1000])
    assert refused(capsys, *words) == f"error: {last} is truncated or not a checkpoint: use another\n"


def test_a_finished_run_is_shown_for_its_own_settings_only(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_FOLDER, str(run))
    same = [*FIT, "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss"]
    assert main([*same, "--tags", "[x]", "--checkpoint.every_n_steps", "5", "--timeout_minutes", "7"]) == 0
    assert f"run folder   {run}" in capsys.readouterr().out
    line = refused(capsys, *same, "--model.lr", "0.5")
    assert (
        line.startswith(f"error: --model.lr 0.5: {run} is finished, and was trained with 0.001") and RUN_FOLDER in line
    )
    assert "error: --trainer.limit_val_batches" in refused(capsys, *same, "--trainer.limit_val_batches", "2")
    assert "ModelCheckpoint" in refused(capsys, *FIT)


def test_a_run_that_its_time_has_ended_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"] |= {"max_epochs": 2, "max_time": "00:00:00:05", "callbacks": None}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    last = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["callbacks"]["Timer"] = {"time_elapsed": {"train": 5.5}}
    checkpoint["callbacks"]["LastCheckpoint"]["stopped_early"] = True
    torch.save(checkpoint, last)
    words = ["fit", "--resume", str(run)]
    line = refused(capsys, *words)
    assert "for its --trainer.max_time 00:00:00:05, 1 epoch; to continue, give a longer time" in line
    assert "--trainer.max_time" in refused(capsys, *words, "--trainer.max_epochs", "9")
    assert main([*words, "--trainer.max_time", "00:12:00:00"]) == 0
    assert record(run)["epochs"] == 2 and record(run)["status"] == "finished"


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn", "ddp_notebook"])
def test_the_record_is_kept_in_this_process(strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--trainer.strategy {strategy}: " in refused(capsys, *FIT, "--trainer.strategy", strategy)


# required arguments of Lightning's callbacks
REQUIRED: dict[str, dict[str, Any]] = {
    "EarlyStopping": {"monitor": "val/loss"},
    "GradientAccumulationScheduler": {"scheduling": {0: 2}},
    "ModelPruning": {"pruning_fn": "l1_unstructured"},
    "OnExceptionCheckpoint": {"dirpath": "x"},
    "StochasticWeightAveraging": {"swa_lrs": 0.01},
    "ThroughputMonitor": {"batch_size_fn": "lightning_cnn.tracking.throughput.count_images"},
    "Timer": {"duration": "00:01:00:00"},
}


def test_a_written_configuration_can_be_read_back() -> None:
    """With every callback of Lightning's: what is read is what was written."""
    names = [name for name in lightning.__all__ if name != "Callback"]
    chosen = [{"class_path": f"{lightning.__name__}.{name}", "init_args": REQUIRED.get(name, {})} for name in names]
    config = Config.load({"data": "Digits", "trainer": {"callbacks": chosen}})
    text = config.to_yaml()
    assert UNWRITTEN not in text
    Path("again.yaml").write_text(text)
    assert Config.load("again.yaml").values == config.values == yaml.safe_load(text)
    parts = {each["class_path"].rpartition(".")[2]: each["init_args"] for each in config["trainer"]["callbacks"]}
    assert [*parts] == names
    assert parts["Timer"]["interval"] == "step" and parts["ModelPruning"]["pruning_fn"] == "l1_unstructured"
    assert "device" not in parts["StochasticWeightAveraging"]  # the default, which no file can hold


def test_what_can_not_be_written_is_refused() -> None:
    values = {"model": {"init_args": {"parts": [f"{UNWRITTEN} x"]}}}
    with pytest.raises(UserError, match=r"`model\.parts` .*: config\.yaml can't hold a object"):
        _restore(values, {"model": {"init_args": {"parts": [object()]}}}, "")


def test_relative_paths_lead_from_where_the_run_was_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record(run)["directory"] not in ("", str(tmp_path))
    (tmp_path / "old").mkdir()
    for folder in (tmp_path, tmp_path / "old"):
        (folder / "both.ckpt").touch()
    (tmp_path / "old" / "only.ckpt").touch()
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "run.json").write_text(json.dumps(record(run) | {"directory": str(tmp_path / "old")}))
    for path, found in (("both.ckpt", "both.ckpt"), ("only.ckpt", f"{tmp_path}/old/only.ckpt"), ("no", "no")):
        config["model"]["init_args"]["weights"] = path
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        assert Config.load(run / "config.yaml")["model"]["init_args"]["weights"] == found
    parts = {"data": {"init_args": {"root": "old", "prices": "only.ckpt", "layout": "only.ckpt"}}, "ckpt_path": "no"}
    assert relocated(parts, "") == parts
    at = relocated(parts, str(tmp_path / "old"))["data"]["init_args"]
    assert at == {"root": "old", "prices": f"{tmp_path}/old/only.ckpt", "layout": "only.ckpt"}


def test_a_checkpoint_needs_no_other_file(run: Path) -> None:
    """Neither does a run that goes on, which keeps in its configuration what it began with."""
    start = run / "checkpoints" / "best.ckpt"
    assert main([*FIT, "--model.weights", str(start), "--experiment", "second"]) == 0
    (second,) = Path("runs/second").iterdir()
    assert yaml.safe_load((second / "config.yaml").read_text())["model"]["init_args"]["weights"] == str(start)
    shutil.rmtree(run)
    best = second / "checkpoints" / "best.ckpt"
    found = ImageClassifier.load_from_checkpoint(best, weights_only=True).state_dict()
    saved = torch.load(best, weights_only=True)["state_dict"]
    assert all(torch.equal(found[name], value) for name, value in saved.items())


def test_a_validation_that_is_not_finite_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.max_epochs", "2", "--trainer.callbacks+=test_wrong_run.Poison", "--experiment", "poison"]
    assert main([*FIT, *words]) == 2
    assert "error: the validation loss is NaN or infinite after step 4: " in capsys.readouterr().err
    (folder,) = Path("runs/poison").iterdir()
    assert record(folder)["status"] == "failed" and "validation loss" in record(folder)["error"]
    assert record(folder)["best"]["epoch"] == 0
    weights = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for name, value in weights.items() if name.startswith("network."))


def test_a_run_that_can_not_be_written_is_tested(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr("lightning_cnn.engine.evaluate.os.access", lambda *_: False)
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]) == 0
    out, err = capsys.readouterr()
    assert "acc " in out and f"the test is not recorded: {run} can't be written" in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
