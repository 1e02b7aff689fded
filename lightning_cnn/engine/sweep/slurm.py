"""`sweep --launcher slurm`: an array of jobs that share the trials of a sweep. Imports submitit only then."""

import argparse
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cluster.requeue import queue_again
from lightning_cnn.cluster.slurm import add_slurm_options, check_slurm, script, submit, tasks_per_node
from lightning_cnn.config.trust import is_own, trust_words
from lightning_cnn.errors import UserError
from lightning_cnn.resume.signals import ignore_signals
from lightning_cnn.tracking.run import RUN_FOLDER

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

LAUNCHERS = ("local", "slurm")
LOGS = "slurm"  # folder in that of the experiment


@dataclass
class SweepJob:
    """What a job does: it trains trials until none is left, or its time is over; then it goes on later.

    Attributes:
        home: Folder of the experiment.
        words: Whose it is: `--runs_dir` where it is the user's, else `--trust` with what the user trusts.
    """

    home: Path
    words: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Trains, and ends the process where that fails."""
        from lightning_cnn.cli import main

        code = main(["sweep", "--resume", str(self.home), *self.words, "--jobs", "1"])
        ignore_signals()
        if code > 128:
            os.environ[RUN_FOLDER] = str(self.home)  # where the job goes on
            code = 0 if queue_again(code - 128) else code
        if code:
            raise SystemExit(code)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit asks for when a signal comes before the training has begun: the same again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def slurm_parser(verb: str) -> VerbParser:
    """The options of the jobs."""
    parser = VerbParser(verb, "")
    add_slurm_options(parser)
    return parser


def take_launcher(verb: str, argv: list[str]) -> tuple[argparse.Namespace | None, list[str]]:
    """The options of Slurm, None where this machine trains, and the other words.

    Raises:
        UserError: If they can't be used for a sweep, or there is no Slurm.
    """
    parser = VerbParser(verb, "")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local")
    chosen, words = parser.parse_known_args(argv)
    if chosen.launcher == "local":
        return None, words
    options, words = slurm_parser(verb).parse_known_args(words)
    if options.nodes != 1 or tasks_per_node(options) != 1:
        raise UserError(
            "--nodes, --gpus_per_node, --tasks_per_node: a trial is trained on one device, so at most 1 of each; "
            "--jobs says how many trials are trained at the same time"
        )
    if not options.dry_run:
        check_slurm()
    return options, words


def show_script(options: argparse.Namespace, home: Path, jobs: int) -> None:
    """Prints the script that would be submitted."""
    print(script(options, home / LOGS, home.name, jobs))


def submit_jobs(options: argparse.Namespace, home: Path, jobs: int) -> None:
    """Submits an array of so many jobs, and says how to follow it."""
    words = ["--runs_dir", str(home.parent.absolute())] if is_own(home) else trust_words()
    numbers = submit(options, home / LOGS, home.name, [SweepJob(home.absolute(), tuple(words))] * jobs)
    first = numbers[0].split("_")[0]
    print(f"{len(numbers)} jobs share the trials: {' '.join(numbers)}")
    print(f"follow one   tail -F {shlex.quote(f'{home / LOGS / numbers[0]}_0_log.out')}")
    print(f"their state  squeue --jobs {first}")
    print(f"stop them    scancel {first}")
