"""What a run leaves behind: its record, metrics.csv, TensorBoard's files, figures and configuration."""

import csv
import json
import math
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import psutil
import pytest
import racing
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from run_folders import record, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_cnn.cli import main
from lightning_cnn.errors import UserError
from lightning_cnn.figures.style import encode
from lightning_cnn.tracking.loggers import SHOWN, MetricsCSV, RunTensorBoard, log_settings
from lightning_cnn.tracking.record import RunRecord
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.settings import flatten

QUICK = ["--data", "Digits", "--trainer.limit_train_batches", "4", "--trainer.accelerator", "cpu"]
TRAIN = ["train", *QUICK, "--trainer.log_every_n_steps", "2", "--wandb", "disabled"]
TRACKED = [
    *["train", *QUICK, "--trainer.log_every_n_steps", "2", "--wandb", "offline", "--experiment", "tracked"],
    *["--seed_everything", "7", "--trainer.max_epochs", "3", "--trainer.callbacks+=test_tracking.Spoil"],
    *["--model.lr", "0.002", "--data.augment.shift", "0.1"],
]
FIGURES = {"examples", "augmented", "curves"}
FIGURES |= {f"{stage}_{name}" for stage in ("val", "test") for name in ("confusion", "worst", "predictions")}


class Spoil(Callback):
    """Undoes what was learned before an epoch starts, so that it ends worse than the one before."""

    def __init__(self, epoch: int = 2) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            for parameter in pl_module.parameters():
                parameter.data.zero_()


class Break(Callback):
    """Breaks off in the second epoch."""

    def __init__(self, kind: str) -> None:
        self.error = {"crash": RuntimeError("the disk\nis on fire"), "stop": KeyboardInterrupt()}[kind]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise self.error


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of three epochs, the last of them spoiled; not to be written to."""
    place = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("lightning_cnn.tracking.loggers.encode", encode)  # its figures are drawn
        patch.delenv("WANDB_MODE", raising=False)
        patch.delenv("LIGHTNING_CNN_RUNS", raising=False)
        assert main([*TRACKED, "--runs_dir", str(place / "runs")]) == 0
    (folder,) = (place / "runs" / "tracked").iterdir()
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values of a metric."""
    return [(int(row["step"]), float(row[name])) for row in rows(folder) if row[name]]


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def test_the_record_of_a_finished_run(tracked: Path) -> None:
    saved = record(tracked)
    assert list(saved) == [field.name for field in fields(RunRecord)]
    assert saved["id"] == tracked.name
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", saved["id"])
    assert saved["name"] == tracked.parent.name == "tracked"
    assert saved["status"] == RunFolder.open(tracked).status == "finished"
    start, end = (datetime.fromisoformat(saved[name]) for name in ("start", "end"))
    assert start.tzinfo is not None and start <= end
    assert shlex.split(saved["command"])[: len(TRACKED) + 1] == ["lightning-cnn", *TRACKED]
    assert saved["git_commit"] is None  # the working directory is no repository
    assert saved["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"python", "lightning-cnn", "pytorch-lightning", "timm", "wandb"} <= saved["versions"].keys()
    assert saved["device"].startswith("cpu")
    assert saved["seed"] == 7
    checkpoint = torch.load(tracked / "checkpoints" / "last.ckpt", weights_only=True)
    weights = [value for name, value in checkpoint["state_dict"].items() if name.startswith("network.")]
    assert saved["parameters"] == sum(value.numel() for value in weights)
    assert saved["epochs"] == checkpoint["epoch"] + 1 == 3
    assert saved["wandb"] == {"id": tracked.name, "mode": "offline", "url": None}
    assert saved["error"] is None
    assert (saved["pid"], saved["host"]) == (os.getpid(), socket.gethostname())


def test_the_record_has_the_metrics_of_the_best_checkpoint_and_of_the_last_epoch(tracked: Path) -> None:
    saved = record(tracked)
    names = {"train/loss", "train/acc", "val/loss", "val/acc", "train/images_per_s"}
    assert names <= saved["last"].keys()
    assert names | {"test/loss", "test/acc"} <= saved["metrics"].keys()
    logged = rows(tracked)[0].keys() - {"epoch", "step"}
    assert logged == saved["metrics"].keys() | {"train/grad_norm"} & logged
    for name, value in saved["last"].items():
        assert value == pytest.approx(column(tracked, name)[-1][1], rel=1e-6), name
    end = saved["best"]["step"] - 1  # the last step of the best epoch
    for name, value in saved["metrics"].items():
        before = [found for step, found in column(tracked, name) if step <= end or name.startswith("test/")]
        assert value == pytest.approx(before[-1], rel=1e-6), name
    assert saved["metrics"]["val/loss"] == saved["best"]["value"] < saved["last"]["val/loss"]


def test_the_best_epoch_is_the_best(tracked: Path) -> None:
    best = record(tracked)["best"]
    losses = {int(row["epoch"]): float(row["val/loss"]) for row in rows(tracked) if row["val/loss"]}
    assert len(losses) == 3
    assert losses[2] > 2 > losses[1], "the last epoch was to be spoiled"
    assert best == {
        "metric": "val/loss",
        "value": min(losses.values()),
        "epoch": min(losses, key=lambda epoch: losses[epoch]),
        "step": 8,
        "checkpoint": "checkpoints/best.ckpt",
    }
    assert torch.load(tracked / best["checkpoint"], weights_only=True)["epoch"] == best["epoch"] == 1


def test_metrics_csv_is_well_formed(tracked: Path) -> None:
    with (tracked / "metrics.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header[:2] == ["epoch", "step"]
    assert header[2:] == sorted(set(header[2:]))
    assert {len(line) for line in lines} == {len(header)}
    assert all(math.isfinite(float(cell)) for line in lines for cell in line if cell)
    steps = [int(line[1]) for line in lines]
    assert steps == sorted(set(steps)), "one row a step"
    epochs = [int(line[0]) for line in lines if line[0]]
    assert epochs == sorted(epochs)
    # 4 steps an epoch, logged every 2 steps; validated at the end of each; tested after the last
    assert [step for step, _ in column(tracked, "train/loss_step")] == [1, 3, 5, 7, 9, 11]
    assert [step for step, _ in column(tracked, "val/loss")] == [3, 7, 11]
    assert [step for step, _ in column(tracked, "test/loss")] == [12]


def test_tensorboard_has_the_same_curves(tracked: Path) -> None:
    names = set(rows(tracked)[0]) - {"epoch", "step"}
    tags = set(events(tracked).Tags()["scalars"]) - {"epoch"}
    assert {tag for tag in tags if "_best" not in tag} == names
    for name in names:
        logged, written = column(tracked, name), scalars(tracked, name)
        assert [step for step, _ in written] == [step for step, _ in logged], name
        assert [value for _, value in written] == pytest.approx([value for _, value in logged], rel=1e-6), name


def test_the_figures_are_files_and_in_tensorboard(tracked: Path) -> None:
    assert {path.stem for path in (tracked / "figures").glob("*.png")} == FIGURES
    for path in (tracked / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    found = events(tracked)
    assert set(found.Tags()["images"]) == {f"figures/{name}" for name in FIGURES}
    for name in FIGURES:
        (image,) = found.Images(f"figures/{name}")
        assert image.width > 100 and image.height > 100


def test_tensorboard_has_the_hyperparameters(tracked: Path) -> None:
    parts = [HParamsPluginData.FromString(part) for part in events(tracked).PluginTagToContent("hparams").values()]
    (session,) = [part.session_start_info for part in parts if part.HasField("session_start_info")]
    (experiment,) = [part.experiment for part in parts if part.HasField("experiment")]
    flat = flatten(yaml.safe_load((tracked / "config.yaml").read_text()))
    expected = {name: value for name, value in flat.items() if name.startswith(SHOWN) and value is not None}
    assert {"model.lr", "model.architecture", "data", "data.batch_size", "seed_everything"} <= expected.keys()
    assert expected["model.lr"] == 0.002
    assert session.hparams.keys() == expected.keys()
    for name, value in expected.items():
        found = session.hparams[name]
        assert (found.string_value if isinstance(value, str) else found.number_value) == value, name
    # the table shows the last value of a curve, so that it must be one of the checkpoint that was tested
    best, shown = record(tracked)["best"], {metric.name.tag for metric in experiment.metric_infos}
    for name, expected_value in record(tracked)["metrics"].items():
        tag = name if name.startswith("test/") else re.sub("^[^/]+", r"\g<0>_best", name)
        assert tag in shown
        epoch, value = scalars(tracked, tag)[-1]
        assert value == pytest.approx(expected_value, rel=1e-6)
        assert tag == name or epoch == best["epoch"]
    assert "val/loss" not in shown


def test_the_best_value_is_in_the_hyperparameter_table(tmp_path: Path) -> None:
    """And the settings are those of the last part of a run, not of the first."""
    best = {"metric": "val/acc", "value": 0.75, "epoch": 3, "checkpoint": "checkpoints/best.ckpt"}
    for rate in (0.1, 0.2):
        log_settings([RunTensorBoard(tmp_path)], {"model.lr": rate, "model.warm": None}, {"val/acc": 0.75}, best)
    found = events(tmp_path)
    assert {(event.step, event.value) for event in found.Scalars("val_best/acc")} == {(3, 0.75)}
    parts = [HParamsPluginData.FromString(part) for part in found.PluginTagToContent("hparams").values()]
    (session,) = [part.session_start_info for part in parts if part.HasField("session_start_info")]
    assert session.hparams["model.lr"].number_value == 0.2
    assert "model.warm" not in session.hparams
    (experiment,) = [part.experiment for part in parts if part.HasField("experiment")]
    assert [metric.name.tag for metric in experiment.metric_infos] == ["val_best/acc"]


def test_a_resumed_run_reads_like_an_unbroken_one() -> None:
    words = [*TRAIN, "--trainer.callbacks+=test_tracking.Spoil", "--trainer.callbacks.epoch", "1"]
    assert main([*words, "--experiment", "whole", "--trainer.max_epochs", "2"]) == 0
    assert main([*words, "--experiment", "parts", "--trainer.max_epochs", "1"]) == 0
    (whole,), (parts,) = Path("runs/whole").iterdir(), Path("runs/parts").iterdir()
    saved = record(parts)
    # as if it had been killed after its last checkpoint and before its record
    (parts / "run.json").write_text(json.dumps(saved | {"best": {}, "epochs": 0, "status": "interrupted"}))
    assert main(["train", "--resume", str(parts), "--trainer.max_epochs", "2"]) == 0
    assert [row["step"] for row in rows(parts)] == [row["step"] for row in rows(whole)]
    assert [row["epoch"] for row in rows(parts)] == [row["epoch"] for row in rows(whole)]
    assert {name for row in rows(parts) for name in row} == {name for row in rows(whole) for name in row}
    for name in ("val/loss", "val/acc", "train/loss"):
        assert scalars(parts, name) == scalars(whole, name)
        assert column(parts, name) == column(whole, name)
    assert record(parts)["best"] == record(whole)["best"] == saved["best"]
    assert record(parts)["best"]["epoch"] == 0
    assert record(parts)["start"] == saved["start"] <= saved["end"] <= record(parts)["end"]


def test_what_a_killed_part_logged_beyond_its_checkpoint_is_dropped(tmp_path: Path) -> None:
    for start, last_step in ((0, None), (3, 3)):
        loggers = [MetricsCSV(tmp_path / "metrics.csv", last_step), RunTensorBoard(tmp_path, last_step)]
        for logger in loggers:
            for step in range(start, 5):
                logger.log_metrics({"loss": step + start / 10}, step)
            logger.save()
    expected = [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.3), (4, 4.3)]
    assert column(tmp_path, "loss") == expected
    assert [event.step for event in events(tmp_path).Scalars("loss")] == [0, 1, 2, 3, 4]
    assert [event.value for event in events(tmp_path).Scalars("loss")] == pytest.approx([v for _, v in expected])


def test_the_written_configuration_repeats_the_run(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_CNN_RUNS", str(tracked.parents[1]))  # the user's own: it names a class of his
    assert main(["train", "--config", str(tracked / "config.yaml"), "--runs_dir", "again", "--wandb", "disabled"]) == 0
    (folder,) = Path("again/tracked").iterdir()
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (tracked, folder))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert column(folder, "test/loss") == column(tracked, "test/loss")
    settings = [yaml.safe_load((run / "config.yaml").read_text()) for run in (tracked, folder)]
    assert settings[1] == settings[0] | {"runs_dir": "again", "wandb": "disabled"}


@pytest.mark.parametrize("kind", ["crash", "stop"])
def test_a_run_that_breaks_off(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TRAIN, "--trainer.max_epochs", "3", "--trainer.callbacks+=test_tracking.Break"]
    words += ["--trainer.callbacks.kind", kind, "--experiment", "broken"]
    if kind == "crash":
        with pytest.raises(RuntimeError, match="on fire"):
            main(words)
    else:
        assert main(words) == 130
    (folder,) = Path("runs/broken").iterdir()
    saved = record(folder)
    assert saved["status"] == {"crash": "failed", "stop": "interrupted"}[kind]
    assert saved["error"] == {"crash": "RuntimeError: the disk is on fire", "stop": None}[kind]
    assert saved["end"] is not None
    if kind == "stop":
        advice = (
            f"stopped\nresume from the last checkpoint in {folder} with: lightning-cnn train --resume {folder.name}\n"
        )
        assert capsys.readouterr().err.endswith(advice)
    assert saved["epochs"] == 1
    assert saved["best"]["epoch"] == 0
    assert [step for step, _ in column(folder, "val/loss")] == [3]
    assert "test/loss" not in saved["metrics"]


def status(folder: Path) -> str:
    return RunFolder.open(folder).status


def test_the_status_of_a_process_that_is_gone(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "some", "lightning-cnn train", seed=1)
    assert status(run.folder) == "running"
    run.release()  # as a version that had no locks
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.record.pid = process.pid
    run.save()
    assert status(run.folder) == "running"
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:  # its parent has not yet taken note
        pass
    assert status(run.folder) == "interrupted"
    process.communicate()
    assert status(run.folder) == "interrupted"
    run.record.host = "another-machine"  # whose processes can't be seen from here
    run.save()
    assert status(run.folder) == "running"
    run.finish("failed", "why")
    assert (status(run.folder), record(run.folder)["error"]) == ("failed", "why")


def test_one_process_at_a_time_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, "a", "", 0)
    run.finish("interrupted")
    one, other = RunFolder.open(run.folder), RunFolder.open(run.folder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    one.go_on("")
    with pytest.raises(UserError, match=f"is still being trained by process {os.getpid()}"):
        other.go_on("")  # it looked when the run was free; in an allocation, too
    one.release()  # as a version that had no locks
    one.record.host, one.record.pid = "elsewhere", 1
    one.save()
    RunFolder.open(run.folder).check_free()  # the job was started again on another machine
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    with pytest.raises(UserError, match="by process 1 on elsewhere"):
        RunFolder.open(run.folder).check_free()


def test_a_given_folder_has_a_wandb_run_of_its_own(tmp_path: Path) -> None:
    ids = {RunFolder.create(tmp_path, "a", "", 0, tmp_path / name / "first").record.wandb["id"] for name in "ab"}
    assert len(ids) == 2 and all(re.fullmatch("first-[0-9a-f]{8}", name) for name in ids)


def test_a_clock_of_the_server_that_lags_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of a version that had no locks: its record is dated by the server, its process by this machine."""
    monkeypatch.setattr(os, "utime", os.utime)
    racing.with_lagging_server(60 + time.time() - psutil.Process().create_time())
    run = RunFolder.create(tmp_path, "some", "lightning-cnn train", seed=1)
    run.release()
    os.utime(run.folder / "run.json")
    assert status(run.folder) == "running"


def test_the_number_of_a_process_is_given_anew(tmp_path: Path) -> None:
    """In a restarted container the same number soon belongs to another process."""
    run = RunFolder.create(tmp_path, "some", "lightning-cnn train", seed=1)
    run.release()  # as a version that had no locks
    before = psutil.Process().create_time() - 60
    os.utime(run.folder / "run.json", (before, before))
    assert status(run.folder) == "interrupted"


def test_a_record_of_version_01_is_of_the_best_checkpoint_too(tmp_path: Path) -> None:
    """It held the last value of each metric, beside the test of the best checkpoint."""
    best = {"metric": "val/loss", "value": 0.5, "epoch": 0, "checkpoint": "checkpoints/best.ckpt"}
    metrics = {"val/loss": 0.9, "val/acc": 0.6, "train/loss": 1.0, "test/acc": 0.7}
    folder = write_run(tmp_path, "old/20260101-100000-aaaa", None, [(0.5, 0.8), (0.9, 0.6)], metrics=metrics, best=best)
    content = record(folder)
    del content["last"]
    (folder / "run.json").write_text(json.dumps(content))
    read = RunFolder.open(folder).record
    assert read.metrics == {"val/loss": 0.5, "val/acc": 0.8, "train/loss": 0.6, "test/acc": 0.7}
    assert read.last == {"val/loss": 0.9, "val/acc": 0.6, "train/loss": 1.0}


def test_callbacks_of_one_class_keep_their_settings_apart() -> None:
    both = [{"class_path": "LayerFreezing", "init_args": {"layers": name, "epoch": 1}} for name in ("a", "b")]
    flat = flatten({"trainer": {"callbacks": both}})
    assert (flat["LayerFreezing.layers"], flat["LayerFreezing_2.layers"]) == ("a", "b")
    assert flat["LayerFreezing"] is flat["LayerFreezing_2"] is True
