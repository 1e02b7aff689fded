"""The public functions that train many times: over months, over settings, on a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_cnn.cluster.slurm import Slurm
from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import TRAIN
from lightning_cnn.engine.api import Experiment, Resume, begun, call_text
from lightning_cnn.engine.run import Run
from lightning_cnn.engine.submit import Submitted
from lightning_cnn.engine.submit import submit as to_slurm
from lightning_cnn.engine.sweep import Sweep
from lightning_cnn.engine.sweep import sweep as over_settings
from lightning_cnn.engine.sweep.settings import SWEEP
from lightning_cnn.engine.sweep.studies import find_study
from lightning_cnn.engine.walkforward import walk_forward as over_months
from lightning_cnn.engine.walkforward.settings import WALK_FORWARD
from lightning_cnn.errors import UserError
from lightning_cnn.notes import say
from lightning_cnn.tracking.record import CONFIG
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.user_code import find_user_code


def walk_forward(
    experiment: Experiment = None,
    /,
    *,
    seed: int | bool | None = None,
    resume: Resume = None,
    on_fold: Callable[[Run, str], None] | None = None,
    trust: Sequence[str] = (),
    **fields: Any,
) -> Run:
    """Trains and tests returns fold by fold, each tested after its training, and joins the predictions.

    With `jobs` above 1 folds are trained in processes that import the caller's script: it needs
    `if __name__ == "__main__":`, as with all of multiprocessing.

    Args:
        experiment: As of `train`, on monthly returns.
        seed: As of `train`.
        resume: A walk-forward that goes on.
        on_fold: Is called with the run of each fold that is done, and a line about it.
        trust: As of `train`.
        fields: As of `train`, and those of the walk-forward: `first_test="2010-01"`, `train_months=60`, `jobs=2`.

    Returns:
        The run. Its `predictions` are those of all folds, its `metrics` say what they are worth.

    Raises:
        UserError: If it can't be done; the message names the field.
        KeyboardInterrupt: If Ctrl-C has stopped it; finished folds are kept.
    """
    config, run = begun(WALK_FORWARD, experiment, resume, trust, seed=seed, **fields)
    command = call_text("walk_forward", experiment, {"seed": seed} | fields)

    def told(fold: RunFolder, line: str) -> None:
        (on_fold or (lambda _, line: say(line)))(Run.open(fold.folder), line)

    found = over_months(config, resume=run, on_fold=told, command=command)
    return Run.open(found.run.folder)


def sweep(
    experiment: Experiment = None,
    /,
    *,
    seed: int | bool | None = None,
    resume: str | Path | Sweep | None = None,
    slurm: Slurm | None = None,
    on_trial: Callable[[str], None] = say,
    trust: Sequence[str] = (),
    **fields: Any,
) -> Sweep:
    """Trains with many settings, and keeps those whose validation metric is best.

    With `jobs` above 1 the caller's script needs `if __name__ == "__main__":`, as with all of multiprocessing.

    Args:
        experiment: As of `train`.
        seed: As of `train`.
        resume: A sweep that goes on: a `Sweep`, its folder or its name.
        slurm: Options of the jobs that train on a cluster; default this machine.
        on_trial: Is called with a line about each trial that has ended, where `jobs` is 1: the processes of several
            jobs keep theirs to themselves.
        trust: As of `train`.
        fields: As of `train`, and those of the sweep: `search=["model.lr=log(1e-4,1e-1)"]`, `trials=20`, `jobs=2`.

    Returns:
        The best settings, their run, and all trials as a table.

    Raises:
        UserError: If it can't be done, or all trials fail; the message names the field.
        KeyboardInterrupt: If Ctrl-C has stopped it; finished trials are kept.
    """
    find_user_code(*trust)
    name = resume.home if isinstance(resume, Sweep) else resume
    study = None if name is None else find_study(str(name), fields.get("runs_dir"))
    saved = [] if study is None else [study.folder / CONFIG]
    config = Config.of(experiment, SWEEP, *saved, seed=seed, **fields)
    return over_settings(config, resume=study, slurm=slurm, on_trial=on_trial)


def submit(
    experiment: Experiment = None,
    /,
    *,
    slurm: Slurm | None = None,
    seeds: Sequence[int] = (),
    seed: int | bool | None = None,
    resume: Resume = None,
    trust: Sequence[str] = (),
    **fields: Any,
) -> list[Submitted]:
    """Submits a training to Slurm, or one for each of several seeds as an array of jobs.

    Args:
        experiment: As of `train`.
        slurm: Options of the jobs: `Slurm(time=90, gpus_per_node=2)`.
        seeds: The seeds; default that of the experiment.
        seed: As of `train`.
        resume: As of `train`.
        trust: As of `train`.
        fields: As of `train`.

    Returns:
        The jobs, each with its run folder.

    Raises:
        UserError: If it can't be trained, there is no Slurm here, or it refuses the job.
    """
    if seeds and (seed is not None or resume is not None):
        raise UserError("`seeds` are those of new runs: leave out `seed` and `resume`")
    config, run = begun(TRAIN, experiment, resume, trust, seed=seed, **fields)
    return to_slurm(config, slurm or Slurm(), seeds=list(seeds), resume=run)
