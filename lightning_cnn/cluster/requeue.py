"""Jobs of Slurm, and how one that a signal has stopped goes back into the queue, to go on later. Imports no torch."""

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cnn.resume.signals import ignore_signals

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

SECONDS = 60  # to wait for Slurm's controller, which may be busy


class Job:
    """What each process of a job does; subclasses are dataclasses that submitit pickles."""

    def run(self) -> int:
        """Does the work; returns the exit code."""
        raise NotImplementedError

    def __call__(self) -> None:
        """Does the work, and ends the process where that fails."""
        code = self.run()
        ignore_signals()
        if code:
            raise SystemExit(code)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit asks for when a signal comes before the work has begun: the same again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def queue_again(signum: int, folder: str | Path | None) -> bool:
    """Queues the Slurm job of this process again, where one can go on.

    The signal was that before the time limit, or before a preemption. A job that its user has cancelled gets the same
    signal as the latter, but is no longer running in Slurm's eyes; and Ctrl-C means an end. Slurm then ends all
    processes of the job, so the first of them does this, when everything is saved.

    Args:
        signum: The signal that has stopped the training.
        folder: The folder in which the job goes on; where there is none, it can't.

    Returns:
        Whether the job goes on later. Processes other than the first leave the question to it, and must not fail: Slurm
        would end the first one.
    """
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
        print(f"job {job} can't be queued again ({reason}): submit it once more to go on in {folder}", flush=True)
        return False
    print(f"job {job} is queued again and will go on in {folder}", flush=True)
    return True


def _slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.strip()
