"""What all tasks do, for those beyond classification: resumption, processes, averages, precision, sweeps."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from blocks import Blocks
from run_folders import learned, logged, only_run, pictures, record, same
from shapes import scene
from trainings import train

import lightning_cnn as lc
from lightning_cnn.cli import main

pytestmark = pytest.mark.slow

TASKS: dict[str, list[str]] = {
    "Segmenter": [
        *["--data", "shapes.Shapes", "--data.batch_size", "8", "--data.normalize", "unit", "--data.objects", "[disc]"],
        *["--data.augment.flip", "true", "--model", "Segmenter", "--model.criterion", "cross_entropy+dice"],
        *["--model.architecture_options", "{width: 8, depth: 3, drop_rate: 0.1}"],
    ],
    "Detector": [
        *["--data", "blocks.Blocks", "--data.image_size", "64", "--data.batch_size", "4", "--data.augment.flip", "true"]
    ],
    "ImageRegressor": [
        *["--config", "rotated_digits_cnn3", "--trainer.limit_train_batches", "8", "--data.augment.shift", "0.1"],
    ],
}
FEW = ["--model.lr", "0.003", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--wandb", "disabled"]
FEW += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
EMA = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.8"]
MEASURED: dict[str, set[str]] = {
    "Segmenter": {"test/iou", "test/iou_disc", "test/loss", "test/acc", "test/recall_disc"},
    "Detector": {"test/map", "test/map50"},
    "ImageRegressor": {"test/mae", "test/rmse", "test/r2", "test/loss"},
}
each_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module", params=TASKS)
def averaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task, and a run whose weights are averaged."""
    task, folder = request.param, tmp_path_factory.mktemp("averaged")
    assert main(["train", *TASKS[task], *FEW, *EMA, "--runs_dir", str(folder)]) == 0
    (run,) = folder.glob("*/*")
    return task, run


def test_averaged_weights_are_tested_predicted_with_and_exported(
    averaged: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = averaged
    monkeypatch.setenv("LIGHTNING_CNN_RUNS", str(folder.parents[1]))  # our own run, which may import our modules
    run, saved, best = lc.load_run(folder), record(folder)["metrics"], learned(folder, "best.ckpt")
    assert not same(best["state_dict"], best["current_model_state"])
    for found in (lc.validate(run), lc.test(run)):
        assert found == pytest.approx({name: saved[name] for name in found}, abs=1e-5)
    assert saved.keys() >= MEASURED[task]
    module: Any = run.module().eval()
    assert same({**module.state_dict()}, {name: best["state_dict"][name] for name in module.state_dict()})
    lc.export(run, output="model.onnx")
    session = onnxruntime.InferenceSession("model.onnx")
    given = session.get_inputs()[0]
    images = torch.randn(2, *given.shape[1:])
    (outputs,) = session.run(None, {given.name: images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(outputs, module.exported()[0](images).numpy(), rtol=1e-3, atol=2e-3)
    photos: list[Any] = {
        "Segmenter": [scene(64, 64, seed)[0][0].numpy() for seed in range(3)],
        "Detector": [image.permute(1, 2, 0).numpy() for image in Blocks(image_size=64).load(False)[0][:3]],
        "ImageRegressor": [np.full((28, 28), 40 * number, np.uint8) for number in range(3)],
    }[task]
    assert len(run.predict(photos)) == 3


def test_two_processes_measure_what_one_does(averaged: tuple[str, Path]) -> None:
    task, folder = averaged
    ckpt = str(folder / "checkpoints" / "best.ckpt")
    one = lc.test(ckpt, trust=["shapes", "blocks"])
    assert one.keys() >= MEASURED[task]
    words = ["test", "--ckpt_path", ckpt, "--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    words += ["--trust", "shapes", "--trust", "blocks"]
    both = train(words, ranks=2, environment={"PYTHONPATH": str(Path(__file__).parents[1] / "tools")})
    assert both.codes == [0, 0], both.output
    rows = dict(line.rsplit(maxsplit=1) for line in both.output.splitlines() if len(line.split()) > 1)
    shown = [name for name in one if name.removeprefix("test/") in rows]
    assert {*shown} >= MEASURED[task]
    for name in shown:
        assert float(rows[name.removeprefix("test/")]) == pytest.approx(one[name], rel=1e-3, abs=6e-5), name


@pytest.mark.figures
@each_task
def test_a_run_that_goes_on_equals_an_unbroken_one(task: str) -> None:
    """Broken off within an epoch; with augmentation, dropout, averages, a schedule, and figures."""
    words = [*TASKS[task], *FEW, *EMA, "--checkpoint.every_n_steps", "2", "--model.schedule", "cosine"]
    assert main(["train", *words, "--experiment", "whole"]) == 0
    with pytest.raises(RuntimeError, match="pulled the plug"):
        crash = ["--trainer.callbacks+=disturbing.Crash", "--trainer.callbacks.batch", "5"]
        main(["train", *words, *crash, "--experiment", "parts"])
    (whole,), (parts,) = Path("runs/whole").iterdir(), Path("runs/parts").iterdir()
    assert main(["train", "--resume", str(parts)]) == 0
    for name in ("last.ckpt", "best.ckpt"):
        assert same(learned(parts, name), learned(whole, name))
    assert logged(parts) == logged(whole)
    measured = [{name: value for name, value in record(each)["metrics"].items() if "/images" not in name}
                for each in (whole, parts)]  # fmt: skip
    assert {name for name in measured[0] if not name.endswith("memory_gib")} >= MEASURED[task]
    assert all(measured[0][name] == measured[1][name] for name in measured[0] if not name.endswith("memory_gib"))
    assert same(pictures(whole), pictures(parts))


@each_task
def test_half_precision(task: str) -> None:
    words = [*TASKS[task], *FEW, "--trainer.precision", "bf16-mixed"]
    assert main(["train", *words]) == 0
    metrics = record(only_run())["metrics"]
    assert metrics.keys() >= MEASURED[task] and all(np.isfinite(value) for value in metrics.values())
    again = lc.load_run(only_run()).test(trainer={"precision": "bf16-mixed"})
    assert again == pytest.approx({name: metrics[name] for name in again}, abs=1e-5)


@each_task
def test_a_sweep(task: str) -> None:
    """By the metric that chooses the best epoch, in its direction."""
    monitor = {"Detector": ("val/map", max)}.get(task, ("val/loss", min))
    words = [*TASKS[task], *FEW, "--search", "model.lr=[0.0001,0.003]", "--trials", "2", "--experiment", "search"]
    assert main(["sweep", *words]) == 0
    runs = [record(path.parent) for path in Path("runs/search").glob("*/run.json")]
    values = [run["best"]["value"] for run in runs]
    assert len(runs) == 2 and {run["best"]["metric"] for run in runs} == {monitor[0]}
    best = yaml.safe_load(Path("runs/search/best.yaml").read_text())["model"]["init_args"]["lr"]
    rates = [yaml.safe_load((path.parent / "config.yaml").read_text())["model"]["init_args"]["lr"]
             for path in Path("runs/search").glob("*/run.json")]  # fmt: skip
    assert best == rates[values.index(monitor[1](values))]
