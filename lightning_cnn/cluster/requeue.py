"""A Slurm job that a signal has stopped goes back into the queue, to go on later. Imports no torch."""

import os
import signal
import subprocess

from lightning_cnn.tracking.run import RUN_FOLDER

SECONDS = 60  # to wait for Slurm's controller, which may be busy


def queue_again(signum: int) -> bool:
    """Queues the Slurm job of this process again, where one can go on: its run folder was handed on to it.

    The signal was that before the time limit, or before a preemption. A job that its user has cancelled gets the same
    signal as the latter, but is no longer running in Slurm's eyes; and Ctrl-C means an end. Slurm then ends all
    processes of the job, so the first of them does this, when everything is saved.

    Args:
        signum: The signal that has stopped the training.

    Returns:
        Whether the job goes on later. Processes other than the first leave the question to it, and must not fail: Slurm
        would end the first one.
    """
    if signum == signal.SIGINT or not os.environ.get(RUN_FOLDER) or "SLURM_STEP_ID" not in os.environ:
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
        print(
            f"job {job} can't be queued again ({reason}): submit it once more, with {RUN_FOLDER} as it is", flush=True
        )
        return False
    print(f"job {job} is queued again and will go on in {os.environ[RUN_FOLDER]}", flush=True)
    return True


def _slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.strip()
