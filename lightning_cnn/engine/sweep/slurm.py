"""`sweep --launcher slurm`: an array of jobs that share the trials of a sweep. Imports submitit only then."""

from dataclasses import dataclass
from pathlib import Path

from lightning_cnn.cluster.requeue import Job, queue_again
from lightning_cnn.cluster.slurm import Slurm, script, submit
from lightning_cnn.config.trust import is_own, trust_words
from lightning_cnn.resume.signals import ignore_signals

JOB_LOGS = "slurm"  # folder in that of the experiment


@dataclass
class SweepJob(Job):
    """What a job does: it trains trials until none is left, or its time is over; then it goes on later.

    Attributes:
        home: Folder of the experiment.
        words: Whose it is: `--runs_dir` where it is the user's, else `--trust` with what the user trusts.
    """

    home: Path
    words: tuple[str, ...] = ()

    def run(self) -> int:
        """Trains."""
        from lightning_cnn.cli import main

        code = main(["sweep", "--resume", str(self.home), *self.words, "--jobs", "1"])
        ignore_signals()
        return 0 if code > 128 and queue_again(code - 128, self.home) else code


def script_of(slurm: Slurm, home: Path, jobs: int) -> str:
    """The script that would be submitted."""
    return script(slurm, home / JOB_LOGS, home.name, jobs)


def submit_jobs(slurm: Slurm, home: Path, jobs: int) -> list[str]:
    """Submits an array of so many jobs; returns their numbers."""
    words = ["--runs_dir", str(home.parent.absolute())] if is_own(home) else trust_words()
    return submit(slurm, home / JOB_LOGS, home.name, [SweepJob(home.absolute(), tuple(words))] * jobs)
