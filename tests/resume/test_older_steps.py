"""Runs of versions that made several steps in one call go on as if they had made one at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from run_folders import learned, same

from lightning_cnn.cli import main
from lightning_cnn.tracking.upgrades import upgraded_config

EACH = 3  # steps in a call
WORDS = ["fit", "--data", "SyntheticReturns", "--data.stocks", "10", "--data.months", "60", "--data.lags", "12"]
WORDS += ["--data.batch_size", "16", "--model.architecture", "returns_cnn", "--model.schedule", "cosine"]
WORDS += ["--trainer.max_epochs", "3", "--wandb", "disabled", "--checkpoint.every_n_steps", str(EACH)]


def as_before(file: Path) -> None:
    """Writes a checkpoint as versions before 0.3 did, which counted calls, and steps elsewhere."""
    content = torch.load(file, weights_only=True)
    content["hyper_parameters"]["steps_per_call"] = EACH
    loops = content["loops"]["fit_loop"]
    batch, steps = loops["epoch_loop.batch_progress"], loops["epoch_loop.automatic_optimization.optim_progress"]
    manual = loops["epoch_loop.manual_optimization.optim_step_progress"]
    for part in ("total", "current"):
        done = steps["optimizer"]["step"][part]["completed"]
        manual[part] = dict.fromkeys(manual[part], done)
        batch[part] = dict.fromkeys(batch[part], -(-batch[part]["processed"] // EACH))
        for counter in (steps["optimizer"]["step"], steps["optimizer"]["zero_grad"]):
            counter[part] = dict.fromkeys(counter[part], 0)
    torch.save(content, file)
    config = file.parents[1] / "config.yaml"
    values: dict[str, Any] = yaml.safe_load(config.read_text())
    values["model"]["init_args"]["steps_per_call"] = EACH
    config.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize("batch", [7, 30])  # of all: within the first epoch and within a later one
def test_a_run_goes_on_bit_for_bit(batch: int) -> None:
    assert main([*WORDS, "--experiment", "whole"]) == 0
    crash = ["--trainer.callbacks+=disturbing.Crash", "--trainer.callbacks.batch", str(batch)]
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main([*WORDS, "--experiment", "broken", *crash])
    (broken,), (whole,) = Path("runs/broken").iterdir(), Path("runs/whole").iterdir()
    as_before(broken / "checkpoints" / "last.ckpt")
    assert main(["fit", "--resume", broken.name, "--trainer.callbacks", "null"]) == 0
    one, other = learned(broken, "last.ckpt"), learned(whole, "last.ckpt")
    assert one["global_step"] == other["global_step"] and same(one["state_dict"], other["state_dict"])
    assert same(one["optimizer_states"], other["optimizer_states"])


def test_configurations_that_have_it_are_read() -> None:
    for given in (
        {"model": {"steps_per_call": 4, "lr": 0.1}},
        {"model": {"class_path": "lightning_cnn.modules.ReturnClassifier", "init_args": {"steps_per_call": 4}}},
        {"model": {"class_path": "ReturnRegressor", "init_args": {"steps_per_call": 4}}},
        {"model.steps_per_call": 4},
        {"_class_path": "lightning_cnn.modules.ReturnClassifier", "steps_per_call": 4},
    ):
        assert "steps_per_call" not in str(upgraded_config(given))
    own = {"model": {"class_path": "my_tasks.Mine", "init_args": {"steps_per_call": 4}}}
    assert upgraded_config(own) == own
