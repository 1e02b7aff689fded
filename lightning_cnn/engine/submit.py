"""Trains on a Slurm cluster: the configuration is checked here and now, and the run folder is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lightning_cnn.cluster.launcher import check_numbers
from lightning_cnn.cluster.requeue import CommandJob
from lightning_cnn.cluster.slurm import LOGS, Slurm, check_slurm, log_of
from lightning_cnn.cluster.slurm import script as script_of
from lightning_cnn.cluster.slurm import submit as queue
from lightning_cnn.config.config import Config
from lightning_cnn.config.trust import is_own, remember, trust_words
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.resumption import check_done, check_unchanged
from lightning_cnn.errors import UserError
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking.record import new_folder
from lightning_cnn.tracking.run import RunFolder


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted.

    Attributes:
        id: Its number in Slurm, such as `12`, or `12_0` in an array.
        folder: Its run folder, made when it begins.
        seed: The seed of its run.
        log: What its first process prints.
    """

    id: str
    folder: Path
    seed: int | bool
    log: Path


def submit(
    config: Config, slurm: Slurm, *, seeds: Sequence[int] = (), resume: RunFolder | None = None
) -> list[Submitted]:
    """Submits a training, or one for each of several seeds as an array of jobs.

    A job that reaches its time limit or is preempted saves, goes back into the queue and then goes on in the same run
    folder, as often as needed.

    Args:
        config: The configuration; of a run that goes on, with its last checkpoint (`resumption.layers_of`).
        slurm: The options of the jobs.
        seeds: The seeds; default that of the configuration.
        resume: The run that goes on.

    Raises:
        UserError: If it can't be trained, there is no Slurm here, or it refuses the job.
    """
    check_slurm()
    config, folders = _checked(config, slurm, seeds, resume)
    # which a run of somebody else names: to the job, it would be the user's word
    values = config.values | ({} if is_own(folders[0]) else {"runs_dir": None})
    logs, files = new_folder(folders[0].parent, LOGS), {}
    runs = dict(zip(folders, seeds or [config["seed_everything"]], strict=True))
    jobs = []
    for folder, seed in runs.items():
        file = f"{folder.name}.yaml"
        files[file] = yaml.safe_dump(values | {"seed_everything": seed}, sort_keys=False)
        words = ("train", "--config", str(logs / file), *trust_words())
        jobs.append(CommandJob(words, {RUN_FOLDER: str(folder)}))
    ids = queue(slurm, logs, folders[0].parent.name, jobs, files)
    if resume is None:
        remember(config.runs_dir.absolute())
    return [Submitted(job, *run, log_of(logs, job)) for job, run in zip(ids, runs.items(), strict=True)]


def submit_script(config: Config, slurm: Slurm, *, seeds: Sequence[int] = (), resume: RunFolder | None = None) -> str:
    """The sbatch script that `submit` would submit, for the same arguments; Slurm need not be there."""
    _, folders = _checked(config, slurm, seeds, resume)
    home = folders[0].parent
    return script_of(slurm, new_folder(home, LOGS), home.name, len(folders))


def _checked(config: Config, slurm: Slurm, seeds: Sequence[int], run: RunFolder | None) -> tuple[Config, list[Path]]:
    """The whole configuration and the run folders; only where all is in order."""
    if run is not None:
        if seeds:
            raise UserError("`seeds` with `resume`: each seed starts a new run; remove one")
        check_unchanged(run, config)
    experiment = Experiment(config, run)
    experiment.check()
    by = ("`gpus_per_node` or `tasks_per_node`", "`nodes`")
    check_numbers(config["trainer"], slurm.processes, slurm.nodes, *by)
    if run is not None:
        check_done(config, run)
        return experiment.config, [run.folder.absolute()]
    experiment.set(experiment=(name := experiment.name()))
    folders: set[Path] = set()
    while len(folders) < max(1, len(seeds)):
        folders.add(new_folder(config.runs_dir.absolute(), name))
    return experiment.config, sorted(folders)
