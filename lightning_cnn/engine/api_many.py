"""The public functions that train many times: over months, over settings, on a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cnn.cluster.slurm import Slurm
from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import TRAIN
from lightning_cnn.engine.api import Experiment, Resume, begun, call_text
from lightning_cnn.engine.run import Run
from lightning_cnn.engine.submit import Submitted
from lightning_cnn.engine.submit import submit as to_slurm
from lightning_cnn.errors import UserError, require
from lightning_cnn.notes import say
from lightning_cnn.tracking.record import CONFIG
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.user_code import find_user_code

if TYPE_CHECKING:
    from lightning_cnn.engine.sweep import Sweep


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
    """Trains and tests on successive windows of months of returns, and joins the predictions.

    With `jobs` above 1, folds are trained in processes that import the caller's script, which needs `if __name__ ==
    "__main__":`, as with multiprocessing.

    Args:
        experiment: As for `train`, on monthly returns.
        seed: As for `train`.
        resume: Walk-forward to resume.
        on_fold: Called with the run of each finished fold and a line about it.
        trust: As for `train`.
        fields: As for `train`, and those of the walk-forward: `first_test="2010-01"`, `train_months=60`, `jobs=2`.

    Returns:
        The run, with the `predictions` of all folds and their `metrics`.

    Raises:
        UserError: If a field is invalid; the message names it.
        KeyboardInterrupt: If Ctrl-C stopped it; finished folds are kept.
    """
    from lightning_cnn.engine.walkforward import walk_forward as over_months
    from lightning_cnn.engine.walkforward.settings import WALK_FORWARD

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
    resume: "str | Path | Sweep | None" = None,
    slurm: Slurm | None = None,
    on_trial: Callable[[str], None] = say,
    trust: Sequence[str] = (),
    **fields: Any,
) -> "Sweep":
    """Searches for the settings with the best validation metric.

    With `jobs` above 1, the caller's script needs `if __name__ == "__main__":`, as with multiprocessing.

    Args:
        experiment: As for `train`.
        seed: As for `train`.
        resume: Sweep to resume: a `Sweep`, its folder or its name.
        slurm: Options of the jobs that train on a cluster; default this machine.
        on_trial: Called with a line about each finished trial, if `jobs` is 1.
        trust: As for `train`.
        fields: As for `train`, and those of the sweep: `search=["model.lr=log(1e-4,1e-1)"]`, `trials=20`, `jobs=2`.

    Returns:
        The best settings, their run, and all trials as a table.

    Raises:
        UserError: If a field is invalid, or all trials fail; the message names the field.
        KeyboardInterrupt: If Ctrl-C stopped it; finished trials are kept.
    """
    require("sweep", "`sweep()`")
    from lightning_cnn.engine.sweep import Sweep
    from lightning_cnn.engine.sweep import sweep as over_settings
    from lightning_cnn.engine.sweep.settings import SWEEP
    from lightning_cnn.engine.sweep.studies import find_study

    find_user_code(*trust)
    name = resume.home if isinstance(resume, Sweep) else resume
    study = None if name is None else find_study(str(name), fields.get("runs_dir"))
    saved = [] if study is None else [study.folder / CONFIG]
    if isinstance(search := fields.get("search"), str):
        fields["search"] = [search]
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
    """Submits a training to Slurm, or an array of jobs with one training per seed.

    Args:
        experiment: As for `train`.
        slurm: Options of the jobs: `Slurm(time=90, gpus_per_node=2)`.
        seeds: Seeds, one job each; default the seed of the experiment.
        seed: As for `train`.
        resume: As for `train`.
        trust: As for `train`.
        fields: As for `train`.

    Returns:
        The jobs, each with its run folder.

    Raises:
        UserError: If a field is invalid, Slurm is not installed, or it rejects the job.
    """
    if seeds and (seed is not None or resume is not None):
        raise UserError("`seeds` start new runs: remove `seed` and `resume`")
    config, run = begun(TRAIN, experiment, resume, trust, seed=seed, **fields)
    return to_slurm(config, slurm or Slurm(), seeds=list(seeds), resume=run)
