"""Jobs of Slurm, and how one that a signal has stopped goes back into the queue, to go on later. Imports no torch."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.resume.signals import SIGNALS

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

JOB_HOME = "LIGHTNING_CNN_JOB"  # variable with the folder in which a job goes on that trains more than one run
SECONDS = 60  # to wait for Slurm's controller, which may be busy


@dataclass
class CommandJob:
    """What each process of a job does: it becomes `lightning-cnn` with some words. submitit pickles it.

    Attributes:
        words: The words behind `lightning-cnn`.
        environment: Further variables.
    """

    words: tuple[str, ...]
    environment: dict[str, str]

    def __call__(self) -> None:
        """Becomes the command; a signal is held back until that listens."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        words = [sys.executable, "-u", "-P", "-m", "lightning_cnn", *self.words]
        os.execve(sys.executable, words, os.environ | self.environment)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit asks for when a signal comes before the work has begun: the same again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def queue_again(signum: int) -> bool:
    """Queues the Slurm job of this process again, where it can go on: in `$LIGHTNING_CNN_RUN` or `$LIGHTNING_CNN_JOB`.

    The signal was that before the time limit, or before a preemption. A job that its user has cancelled gets the same
    signal as the latter, but is no longer running in Slurm's eyes; and Ctrl-C means an end. Slurm then ends all
    processes of the job, so the first of them does this, when everything is saved.

    Args:
        signum: The signal that has stopped the training.

    Returns:
        Whether the job goes on later. Processes other than the first leave the question to it, and must not fail: Slurm
        would end the first one.
    """
    folder = os.environ.get(RUN_FOLDER) or os.environ.get(JOB_HOME)
    if signum == signal.SIGINT or not folder or "SLURM_STEP_ID" not in os.environ:
        return False
    if os.environ.get("SLURM_PROCID") != "0":
        return True
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        if _slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T") != "RUNNING":
            return False  # cancelled, or queued again by Slurm itself
        _slurm("scontrol", "requeue", job)
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())
        print(f"job {job} can't be queued again ({reason}): submit it again to continue in {folder}", flush=True)
        return False
    print(f"job {job} is queued again and will continue in {folder}", flush=True)
    return True


def _slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.strip()
