"""The public functions that take an experiment: they make its configuration, and call the engine with it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule

from lightning_cnn.cluster.launcher import launcher
from lightning_cnn.config.checkpoint import read_checkpoint
from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import FIT, TEST, TRAIN, VALIDATE, Kind
from lightning_cnn.engine import fit as fitting
from lightning_cnn.engine.build import build_data, load_preprocessing
from lightning_cnn.engine.evaluate import evaluate
from lightning_cnn.engine.feature_file import check_suffix
from lightning_cnn.engine.features import Written
from lightning_cnn.engine.features import features as write_features
from lightning_cnn.engine.resumption import layers_of, resumed_run
from lightning_cnn.engine.run import Run
from lightning_cnn.engine.show import show as write_figure
from lightning_cnn.engine.source import Source, Weights, checkpoint_of
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.record import given_folder
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.user_code import find_user_code

Experiment = Config | str | Path | Mapping[str, Any] | None
Part = Literal["train", "val", "test"]
Resume = str | Path | RunFolder | None

_begun: set[Path] = set()  # folders that the environment has named: in a process each counts once


def train(
    experiment: Experiment = None,
    /,
    *,
    seed: int | bool | None = None,
    resume: Resume = None,
    trust: Sequence[str] = (),
    **fields: Any,
) -> Run:
    """Trains an experiment, then tests its best checkpoint.

    Paths are relative to the working directory, also in shipped experiments, such as `data.root`. On a machine with
    several GPUs one is used, unless torchrun or srun started the script on several.

    Args:
        experiment: Name of a shipped experiment, such as `"mnist_lenet5"`, a YAML file, a dict of fields, or a
            `Config`.
        seed: Short for the field `seed_everything`; True for a random seed.
        resume: Run to resume from its last checkpoint: a `Run`, its folder or its id. It keeps its configuration except
            for the given fields, such as `trainer={"max_epochs": 20}`.
        trust: Modules that files from outside your runs directories may import, which runs their code.
        fields: Fields that override those of the experiment, named as on the command line: `model={"lr": 0.02}`,
            `data="MNIST"`, `runs_dir="runs"`, `wandb="disabled"`; dotted names in a dict: `**{"data.augment.crop": 4}`.

    Returns:
        The run; its `metrics` are those of the best checkpoint.

    Raises:
        UserError: If a field is invalid; the message names it.
        KeyboardInterrupt: If Ctrl-C stopped the training; `load_run(...).resume()` resumes it.
    """
    return _trained(TRAIN, experiment, resume, trust, seed=seed, **fields)


def fit(
    experiment: Experiment = None,
    /,
    *,
    seed: int | bool | None = None,
    resume: Resume = None,
    trust: Sequence[str] = (),
    **fields: Any,
) -> Run:
    """Trains an experiment without testing it.

    Args:
        experiment: As for `train`.
        seed: As for `train`.
        resume: As for `train`.
        trust: As for `train`.
        fields: As for `train`.

    Returns:
        The run. Its `metrics` are those of the best checkpoint, in training and validation.

    Raises:
        UserError: If a field is invalid; the message names it.
        KeyboardInterrupt: If Ctrl-C stopped the training; `load_run(...).resume()` resumes it.
    """
    return _trained(FIT, experiment, resume, trust, seed=seed, **fields)


def validate(source: Source, /, *, trust: Sequence[str] = (), **fields: Any) -> dict[str, float]:
    """Evaluates a trained model on the validation data of its run, or on other data.

    Args:
        source: A run or its folder, of which the best checkpoint is used, or the path of a checkpoint.
        trust: Modules that a checkpoint from outside your runs directories may import, which runs their code.
        fields: Fields that override those of the checkpoint, such as `data={"root": "elsewhere"}`.

    Returns:
        The metrics by name, such as `val/acc`.

    Raises:
        UserError: If there is no checkpoint, or the data don't fit it.
    """
    return _measured(VALIDATE, source, trust, fields)


def test(source: Source, /, *, trust: Sequence[str] = (), **fields: Any) -> dict[str, float]:
    """Evaluates a trained model on the test data of its run, or on other data.

    Without fields, the test of a run's best checkpoint is recorded in the run.

    Args:
        source: As for `validate`.
        trust: As for `validate`.
        fields: As for `validate`.

    Returns:
        The metrics by name, such as `test/acc`.

    Raises:
        UserError: If there is no checkpoint, the data have no test part, or they don't fit it.
    """
    return _measured(TEST, source, trust, fields)


def features(
    source: Source | None,
    experiment: Experiment | LightningDataModule = None,
    /,
    *,
    parts: Sequence[Part] = (),
    output: str | Path = "features.parquet",
    accelerator: Literal["auto", "cpu"] = "auto",
    trust: Sequence[str] = (),
    **fields: Any,
) -> Written:
    """Writes the features of a network's last hidden layer for each image, for `probe` or any other tool.

    Args:
        source: A run, its folder, the path of a checkpoint, or `Weights`; None uses the scaled pixels.
        experiment: Experiment with the images, as for `train`, or an `ImageDataModule`; default the images of the run.
        parts: Parts of the data (default: all that it has).
        output: The file to write, .parquet or .npz.
        accelerator: What to compute on.
        trust: Modules that a checkpoint from outside your runs directories may import, which runs their code.
        fields: Fields over those of the experiment, such as `data="Digits"`.

    Returns:
        The path of the file, and the number of images by part.

    Raises:
        UserError: If the network or the data can't be used, or the file can't be written.
    """
    find_user_code(*trust)
    check_suffix(output)  # before anything is downloaded
    source = None if source is None else checkpoint_of(source)
    if isinstance(source, Path):
        fields = {"ckpt_path": str(source), **fields}
    data = _data(experiment, fields)
    return write_features(source, data, parts=parts, output=str(output), accelerator=accelerator, trust=trust)


def show(
    experiment: Experiment | LightningDataModule = None,
    /,
    *,
    output: str | Path = "show.png",
    count: int | None = None,
    trust: Sequence[str] = (),
    **fields: Any,
) -> Path:
    """Writes a figure of training images of an experiment before and after augmentation.

    Args:
        experiment: Experiment with the images, as for `train`, or an `ImageDataModule`.
        output: The figure to write.
        count: Number of images; default 6 with augmentation, else 25.
        trust: Modules that files from outside your runs directories may import, which runs their code.
        fields: Fields over those of the experiment, such as `data={"augment": {"crop": 4}}`.

    Returns:
        The figure's path.

    Raises:
        UserError: If the data have no images, or the figure can't be written.
    """
    find_user_code(*trust)
    return write_figure(_data(experiment, fields), output=str(output), count=count)


def _trained(kind: Kind, experiment: Experiment, resume: Resume, trust: Sequence[str], /, **fields: Any) -> Run:
    if several := {"seeds", "jobs"} & fields.keys():
        raise UserError(f"`{min(several)}`: `{kind.name}` trains one run; call it once for each seed")
    config, run = begun(kind, experiment, resume, trust, **fields)
    config = _one_process(config)
    if config["trainer"]["fast_dev_run"]:
        raise UserError(
            "`trainer.fast_dev_run` saves no run: use `trainer.max_epochs` 1 with "
            "`trainer.limit_train_batches` and `trainer.limit_val_batches` 1"
        )
    folder = None if (given := given_folder()) in _begun else given
    command = call_text(kind.name, experiment, fields)
    trained = fitting.train(config, resume=run, folder=folder, command=command)
    if folder is not None:
        _begun.add(folder)
    return Run.open(_of_all_processes(trained))


def begun(
    kind: Kind, experiment: Experiment, resume: Resume, trust: Sequence[str], /, **fields: Any
) -> tuple[Config, RunFolder | None]:
    """The configuration of a call, and the run that goes on; its folder of runs, where given, counts as the user's.

    Args:
        kind: The kind of work.
        experiment: What is worked on.
        resume: The run, if one goes on.
        trust: Modules that the user trusts.
        fields: Fields over the experiment, or those of the run.

    Raises:
        UserError: If they can't be used.
    """
    find_user_code(*trust)
    if resume is None:
        return Config.of(experiment, kind, **fields), None
    name = resume.folder if isinstance(resume, RunFolder) else resume
    run = resumed_run(str(name), fields.get("runs_dir"), kind)
    return Config.of(experiment, kind, *layers_of(run), **fields), run


def _one_process(config: Config) -> Config:
    """Refuses what Lightning would start further processes for: each would run the caller's script once more.

    Where the number of devices is left open, it becomes one.
    """
    trainer = config["trainer"]
    if launcher() is not None or "LOCAL_RANK" in os.environ:
        return config
    devices = trainer["devices"]
    if devices == "auto":
        several = trainer["accelerator"] != "cpu" and torch.accelerator.device_count() > 1
        return config.override({"trainer.devices": 1}) if several else config
    if isinstance(devices, list) or "," in str(devices):
        count = len(devices) if isinstance(devices, list) else len([part for part in devices.split(",") if part])
    elif re.fullmatch(r"-?\d+", str(devices)):
        count = int(devices) if int(devices) >= 0 else torch.accelerator.device_count()
    else:
        return config  # Lightning refuses it
    if count > 1 or trainer["num_nodes"] > 1:
        name = "devices" if count > 1 else "num_nodes"
        raise UserError(
            f"`trainer.{name}` {trainer[name]}: a call trains in one process; start the script with torchrun, or use "
            "the command line"
        )
    return config


def _of_all_processes(trained: RunFolder | None) -> Path:
    """The run folder, which the first process of several knows."""
    found = [None if trained is None else str(trained.folder)]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(found)
    return Path(str(found[0]))


def _measured(kind: Kind, source: Source, trust: Sequence[str], fields: dict[str, Any]) -> dict[str, float]:
    find_user_code(*trust)
    path = checkpoint_of(source)
    if isinstance(path, Weights):
        raise UserError(f"`{kind.name}` requires a run or a checkpoint: timm weights have no data")
    config = _one_process(Config.of(None, kind, **{"ckpt_path": str(path), **fields}))
    return evaluate(config, recorded=not fields and not trust)[0]


def _data(experiment: Experiment | LightningDataModule, fields: dict[str, Any]) -> Any:
    if not isinstance(experiment, LightningDataModule):
        return build_data(Config.of(experiment, FIT, **fields))
    if any(name != "ckpt_path" for name in fields):
        raise UserError(f"`{next(iter(fields))}`: a data module already has its settings; remove the fields")
    experiment.prepare_data()
    if (path := fields.get("ckpt_path")) is not None:  # the images are scaled as in its training
        load_preprocessing(experiment, read_checkpoint(path))
    return experiment


def call_text(function: str, experiment: Experiment | RunFolder, fields: Mapping[str, Any]) -> str:
    """What a run notes in the place of a command."""
    named = [repr(str(experiment))] if isinstance(experiment, str | Path) else []
    given = [f"{name}={value!r}" for name, value in fields.items() if value is not None]
    return f"{function}({', '.join(named + given)})"
