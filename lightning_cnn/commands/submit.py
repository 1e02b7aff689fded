"""`submit`: trains on a Slurm cluster. The command line is checked here and now, and the run folder is chosen."""

import os
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cli.slurm_options import add_slurm_options, slurm_of
from lightning_cnn.cluster.launcher import check_number
from lightning_cnn.cluster.requeue import Job
from lightning_cnn.cluster.slurm import Slurm, check_slurm, script, submit
from lightning_cnn.config.trust import is_own, remember, trust_words
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.resume.files import make_folder, replace_text
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking.record import default_runs_dir, new_folder

if TYPE_CHECKING:
    from lightning_cnn.cli.words import Words
    from lightning_cnn.config.config import Config

LOGS = "slurm"  # folder in that of the experiment
MOST_JOBS = 1000  # of an array: as many as Slurm itself allows, unless told otherwise


@dataclass
class TrainJob(Job):
    """What each process of a job does: it trains, or goes on where the job was stopped before.

    Attributes:
        folder: The run folder.
        config: The whole configuration.
        trust: `--trust` with what the user trusts in files of somebody else.
    """

    folder: Path
    config: Path
    trust: tuple[str, ...] = ()

    def run(self) -> int:
        """Trains."""
        from lightning_cnn.cli import main

        os.environ[RUN_FOLDER] = str(self.folder)
        return main(["train", "--config", str(self.config), *self.trust])


def main(verb: str, argv: list[str]) -> int:
    """Submits. Returns the exit code."""
    options, rest = _parser(verb).parse_known_args(argv)
    slurm = slurm_of(options)
    seeds = _seeds(" ".join(options.array)) if options.array else None
    for option in ("--resume", "--seed_everything"):
        if seeds and any(word.split("=")[0] == option for word in rest):
            raise UserError(f"--array with {option}: the array says the seeds, each of a run of its own; leave one out")
    if not options.dry_run:
        check_slurm()
    from lightning_cnn.cli.words import read_words
    from lightning_cnn.config.schema import TRAIN

    config, resumed = _checked(slurm, read_words(TRAIN, rest))
    seeds_or_one = seeds or [config["seed_everything"]]
    if resumed is None:
        runs_dir, name = Path(config["runs_dir"] or default_runs_dir()).absolute(), str(config["experiment"])
        folders = _new_folders(runs_dir, name, len(seeds_or_one))
    else:
        folders, name = [resumed.absolute()], resumed.absolute().parent.name
    logs = folders[0].parent / LOGS
    if options.dry_run:
        print(script(slurm, logs, name, len(folders)))
        return 0
    jobs = [TrainJob(folder, logs / f"{folder.name}.yaml", tuple(trust_words())) for folder in folders]
    values = config.values
    if not is_own(folders[0]):
        # which a run of somebody else names: to the job, it would be the user's word
        values = values | {"runs_dir": None}
    try:
        make_folder(logs, "choose another place with --runs_dir")
        for job, seed in zip(jobs, seeds_or_one, strict=True):
            replace_text(job.config, yaml.safe_dump(values | {"seed_everything": seed}, sort_keys=False))
        numbers = submit(slurm, logs, name, jobs)
    except UserError:
        for job in jobs:
            job.config.unlink(missing_ok=True)
        with suppress(OSError):  # only what is empty
            for folder in (logs, logs.parent, logs.parent.parent):
                folder.rmdir()
        raise
    if resumed is None:
        remember(runs_dir)
    _show(numbers, folders, logs, seeds)
    return 0


def _checked(slurm: Slurm, words: "Words") -> tuple["Config", Path | None]:
    """The configuration of the training, so that a mistake shows now, and the folder of a run that goes on."""
    from lightning_cnn.engine.build import Experiment
    from lightning_cnn.engine.resumption import check_done, check_unchanged, layers_of, resumed_run

    name = words.named_run("RUN (`lightning-cnn list runs`)")
    run = None if name is None else resumed_run(name, words.runs_dir)
    try:
        config = words.config(*([] if run is None else layers_of(run)))
        if run is not None:
            check_unchanged(run, config)
        experiment = Experiment(config, run)
        experiment.check_metrics()
    except UserError as error:
        if found := re.match(r"unknown option `(\w+)`", str(error)):
            ours = [name for action in _parser("submit")._actions for name in action.option_strings]
            if hint := did_you_mean(f"--{found[1]}", ours, count=1):
                raise UserError(f"unknown option --{found[1]}{hint}") from None
        raise
    if run is not None:
        check_done(config, run)
    else:
        experiment.set(experiment=experiment.name())
    for name, usual, wanted, by in (
        ("devices", "auto", slurm.processes, "--gpus_per_node or --tasks_per_node"),
        ("num_nodes", 1, slurm.nodes, "--nodes"),
    ):
        check_number(name, config["trainer"][name], usual, wanted, by)
    return experiment.config, run.folder if run else None


def _new_folders(runs_dir: Path, name: str, count: int) -> list[Path]:
    folders: set[Path] = set()
    while len(folders) < count:
        folders.add(new_folder(runs_dir, name))
    return sorted(folders)


def _show(jobs: list[str], folders: list[Path], logs: Path, seeds: list[int] | None) -> None:
    for number, (job, folder) in enumerate(zip(jobs, folders, strict=True)):
        print(f"job {job:<8} {f'seed {seeds[number]:<4} ' if seeds else ''}run folder {folder}")
    first = jobs[0].split("_")[0]
    log = shlex.quote(f"{logs / jobs[0]}_0_log.out")
    print(f"\nfollow it    tail -F {log}   (_0_ is process 0; the others have logs of their own)")
    print(f"its state    squeue --jobs {first}")
    print(f"stop it      scancel {first}")


def _seeds(text: str) -> list[int]:
    if not re.fullmatch(r"seeds \d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*", text):
        raise UserError(f"--array {text!r}: expected seeds, such as --array seeds 0-9 or --array seeds 1,2,5-7")
    seeds: list[int] = []
    for part in text.removeprefix("seeds ").split(","):
        first, _, last = part.partition("-")
        new = range(int(first), int(last or first) + 1)
        if not new or len(seeds) + len(new) > MOST_JOBS or {*new} & {*seeds}:
            raise UserError(f"--array {text!r}: expected up to {MOST_JOBS} seeds, each of them once, ranges upwards")
        seeds += new
    return seeds


def _parser(verb: str) -> VerbParser:
    parser = VerbParser(
        verb,
        "Trains on a Slurm cluster. Besides the options below it takes those of `train`, such as --config, --data and "
        "--model.lr, and looks for mistakes in them before it submits. A job that reaches its time limit or is "
        "preempted saves, goes back into the queue and then goes on in the same run folder, as often as needed. The "
        "folder of all runs must be one that all machines see.",
    )
    parser.add_argument(
        "--array", nargs="+", metavar="seeds", help="a job, and a run, for each of several seeds: --array seeds 0-9"
    )
    add_slurm_options(parser)
    return parser
