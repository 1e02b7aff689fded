"""The options of the verbs that hand work to Slurm, and how they hand it over. Imports submitit only then."""

import argparse
import contextlib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text, check_texts

if TYPE_CHECKING:
    from submitit import SlurmExecutor

TIME = "90 (minutes), 12:00:00 (hours:minutes:seconds) or 2-12 (days-hours)"
# Lightning takes jobs of these names for a terminal session, and starts a training of its own in each task
NO_JOB_NAMES = ("bash", "interactive")
# Python listens to signals a second after its start; until then one would kill it, and the job would have failed
PYTHON = 'sh -c \'trap "" TERM USR2; exec "$0" "$@"\' {} -P'  # -P: not from the working directory


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--nodes`, `--time`, `--partition` and so on to the parser of a verb."""
    add = parser.add_argument_group("Slurm").add_argument
    add("--nodes", type=_count, default=1, help="machines of a job")
    add("--gpus_per_node", type=_count_or_none, default=0, help="GPUs on each machine")
    add("--tasks_per_node", type=_count, help="processes on each machine (default: one for each GPU, else one)")
    add("--cpus_per_task", type=_count, help="cores of each process")
    add("--time", type=_minutes, default="1:00:00", help=f"time limit: {TIME}; a job that reaches it is queued again")
    add("--partition", help="partition or partitions (default: the cluster's)")
    add("--account", help="account to charge")
    add("--qos", help="quality of service")
    add("--constraint", help="features that the machines must have, such as a100")
    add("--mem", type=_memory, help="memory on each machine, such as 64GB")
    add("--at_once", type=_count, help="of an array: how many of its jobs run at the same time (default: all)")
    add("--save_before", type=_count, default=90, metavar="SECONDS", help="save so long before the time limit")
    add("--job_name", type=_job_name, help="name of the job (default: that of the experiment)")
    add("--setup", action="append", default=[], metavar="LINE", help="shell line to run first; may be repeated")
    add(
        "--sbatch",
        action="append",
        type=_name_and_value,
        default=[],
        metavar="NAME=VALUE",
        help="any other option of sbatch, such as nodelist=n[1-4]; may be repeated",
    )
    add("--dry_run", action="store_true", help="print the sbatch script and submit nothing")


def tasks_per_node(options: argparse.Namespace) -> int:
    """Processes on each machine."""
    return int(options.tasks_per_node or options.gpus_per_node or 1)


def script(options: argparse.Namespace, folder: Path, name: str, count: int = 1) -> str:
    """The sbatch script of a job, for `--dry_run`; Slurm need not be there.

    Args:
        options: The parsed options of `add_slurm_options`.
        folder: Where the logs go.
        name: Name of the job, unless `--job_name` gives one.
        count: Jobs of the array; 1 is a single job.
    """
    executor = _executor(options, folder, name)
    if count > 1:
        executor.parameters["map_count"] = count
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit(options: argparse.Namespace, folder: Path, name: str, work: Sequence[Callable[[], Any]]) -> list[str]:
    """Submits one job for each callable, several of them as an array.

    Each process of a job calls its callable, with Slurm's environment variables. What it prints goes to
    `<folder>/<job id>_<rank>_log.out`.

    Args:
        options: The parsed options of `add_slurm_options`.
        folder: Where logs and scripts go; the machines of the cluster must see it, too.
        name: Name of the job, unless `--job_name` gives one.
        work: The callables; they must be picklable, such as an instance of a class with `__call__`.

    Returns:
        The id of each job, such as `12`, or `12_0` in an array.

    Raises:
        UserError: If Slurm is not there, or refuses the job.
    """
    check_slurm()
    executor = _executor(options, folder, name)
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    is_new = not folder.exists()
    made: list[Path] = []
    try:
        with contextlib.redirect_stderr(io.StringIO()), _noting(executor, made):  # submitit prints what it raises, too
            return [str(job.job_id) for job in executor.submit_array(work)]
    except (FailedJobError, FailedSubmissionError) as error:
        for path in made:  # other jobs write into the folder at the same time
            path.unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # only if it is empty
                folder.rmdir()
        reason = " ".join(str(error).split()).removeprefix("sbatch: error: ")
        raise UserError(f"Slurm refuses the job: {reason}; see `sinfo` for what there is") from None


@contextlib.contextmanager
def _noting(executor: "SlurmExecutor", made: list[Path]) -> Iterator[None]:
    """Notes the files that submitit makes: the pickled work, and the script."""
    from submitit.core.utils import DelayedSubmission

    dump, command = DelayedSubmission.dump, executor._make_submission_command

    def noted_dump(work: DelayedSubmission, path: str | Path) -> None:
        made.append(Path(path))
        dump(work, path)

    def noted_command(path: Path) -> list[str]:
        made.append(path)
        return command(path)

    with (
        mock.patch.object(DelayedSubmission, "dump", noted_dump),
        mock.patch.object(executor, "_make_submission_command", noted_command),
    ):
        yield


def check_slurm() -> None:
    """Looks whether jobs can be submitted from here.

    Raises:
        UserError: If not.
    """
    if missing := [tool for tool in ("sbatch", "srun") if shutil.which(tool) is None]:
        raise UserError(
            f"there is no Slurm here ({missing[0]} is not found): submit from a login node of the cluster, look at the "
            "script with --dry_run, or train on this machine with `lightning-cnn train`"
        )


def _executor(options: argparse.Namespace, folder: Path, name: str) -> "SlurmExecutor":
    from submitit import SlurmExecutor

    class AnywhereExecutor(SlurmExecutor):
        """Writes scripts also where there is no Slurm."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    _check_script(options, folder, name)
    if 2 * options.save_before > 60 * options.time:
        raise UserError(
            f"--save_before {options.save_before}: of {options.time} minutes that leaves too little to train in; "
            "give a longer --time, or a shorter --save_before"
        )
    # how often a job may be queued again is not limited
    executor = AnywhereExecutor(folder, max_num_timeout=1_000_000, python=PYTHON.format(shlex.quote(sys.executable)))
    given = {name: getattr(options, name) for name in ("cpus_per_task", "partition", "account", "qos", "constraint")}
    executor.update_parameters(
        job_name=options.job_name or re.sub(r"[^\w.-]", "-", name),
        time=options.time,
        nodes=options.nodes,
        ntasks_per_node=tasks_per_node(options),
        gpus_per_node=options.gpus_per_node or None,
        mem=options.mem,
        array_parallelism=options.at_once or 1_000_000,
        signal_delay_s=options.save_before,
        stderr_to_stdout=True,
        setup=options.setup or None,
        srun_args=[
            "--kill-on-bad-exit=1",  # one dead process ends the others at once; they would wait for it
            "--open-mode=append",
            # from 22.05 on srun does not take it from sbatch
            *([f"--cpus-per-task={options.cpus_per_task}"] if options.cpus_per_task else []),
        ],
        additional_parameters={"requeue": True, **dict(options.sbatch)},
        **{name: value for name, value in given.items() if value},
    )
    return executor


def _check_script(options: argparse.Namespace, folder: Path, name: str) -> None:
    """Refuses what would end a line of the script, or what Slurm would read as a pattern."""
    check_texts(vars(options))
    check_text("the job name", name)
    check_text("the folder", folder)
    if found := re.search(r"[%\\]", str(folder)):
        raise UserError(
            f"the logs would go to {folder}, where Slurm takes {found[0]} for a pattern: name a folder without it, "
            "with --runs_dir"
        )


def _minutes(text: str) -> int:
    """A time limit in minutes, rounded up."""
    if not re.fullmatch(r"\d+|\d+:\d+:\d+|\d+-\d+(:\d+){0,2}", text):  # Slurm takes 2:00, too, for two minutes
        raise ValueError(text)
    days, _, clock = text.rpartition("-")
    numbers = [int(part) for part in clock.split(":")]
    hours, minutes, seconds = (*numbers, 0, 0)[:3] if days or len(numbers) == 3 else (0, numbers[0], 0)
    total = -(-(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds) // 60)
    if total < 1:
        raise ValueError(text)
    return total


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _memory(text: str) -> str:
    if not re.fullmatch(r"\d+([KMGT]B?)?", text):
        raise ValueError(text)
    return text


def _job_name(text: str) -> str:
    if text in NO_JOB_NAMES or not re.fullmatch(r"[\w.-]+", text):
        raise ValueError(text)
    return text


def _name_and_value(text: str) -> tuple[str, str | bool]:
    name, equals, value = text.removeprefix("--").partition("=")
    if not re.fullmatch(r"[a-z][a-z_-]+", name):
        raise ValueError(text)
    return name.replace("-", "_"), value if equals else True


# argparse names them in its errors
_minutes.__name__ = f"time limit ({TIME})"
_count.__name__, _count_or_none.__name__ = "whole number from 1 on", "whole number from 0 on"
_memory.__name__ = "amount of memory, such as 64GB"
_job_name.__name__ = f"name for a job (letters, digits, - and _, and not {' or '.join(NO_JOB_NAMES)})"
_name_and_value.__name__ = "option of sbatch, such as nodelist=n1"
