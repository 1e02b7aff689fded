"""Jobs of Slurm: their options, the script and the submission. Imports submitit only then."""

import contextlib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cnn.errors import UserError, check, require
from lightning_cnn.plain_text import check_text, check_texts
from lightning_cnn.resume.files import make_folder, replace_text

if TYPE_CHECKING:
    from submitit import SlurmExecutor

# Python listens to signals a second after its start; until then one would kill it, and the job would have failed
PYTHON = 'sh -c \'trap "" TERM USR2; exec "$0" "$@"\' {} -P'  # -P: not from the working directory

LOGS = "slurm"  # folder in that of an experiment, with one for each submission
# Lightning takes jobs of these names for a terminal session, and starts a training of its own in each task
NO_JOB_NAMES = ("bash", "interactive")


def _option(default: str | int | None, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Slurm:
    """Options of a Slurm job. The metadata of the fields are the help texts of the command line."""

    nodes: int = _option(1, "number of machines")
    gpus_per_node: int = _option(0, "GPUs per machine")
    tasks_per_node: int | None = _option(None, "processes per machine (default: one per GPU, else one)")
    cpus_per_task: int | None = _option(None, "CPU cores per process")
    time: int = _option(60, "time limit in minutes; a job that reaches it is queued again")
    partition: str | None = _option(None, "partition or partitions (default: the cluster's)")
    account: str | None = _option(None, "account to charge")
    qos: str | None = _option(None, "quality of service")
    constraint: str | None = _option(None, "required features of the machines, such as a100")
    mem: str | None = _option(None, "memory per machine, such as 64GB")
    at_once: int | None = _option(None, "maximum number of jobs of an array that run at the same time (default: all)")
    save_before: int = _option(90, "seconds before the time limit at which to save")
    job_name: str | None = _option(None, "name of the job (default: that of the experiment)")
    setup: list[str] = field(default_factory=list, metadata={"help": "shell line to run first; repeatable"})
    sbatch: dict[str, str | bool] = field(
        default_factory=dict,
        metadata={"help": "any other option of sbatch, such as nodelist=n[1-4]; repeatable"},
    )

    def __post_init__(self) -> None:
        """Refuses what Slurm or Lightning would not take, or take for something else.

        Raises:
            UserError: For the first such option.
        """
        for name in ("nodes", "tasks_per_node", "cpus_per_task", "time", "at_once", "save_before"):
            if (number := getattr(self, name)) is not None:
                check(name, number, least=1)
        check("gpus_per_node", self.gpus_per_node, least=0)
        if 2 * self.save_before > 60 * self.time:
            raise UserError(
                f"`save_before` {self.save_before}: leaves too little of {self.time} minutes for training; increase "
                "`time` or decrease `save_before`"
            )
        if self.mem is not None and not re.fullmatch(r"\d+([KMGT]B?)?", self.mem):
            raise UserError(f"`mem` {self.mem!r}: expected an amount of memory, such as 64GB")
        if self.job_name is not None and (self.job_name in NO_JOB_NAMES or not re.fullmatch(r"[\w.-]+", self.job_name)):
            raise UserError(
                f"`job_name` {self.job_name!r}: expected a name for a job (letters, digits, - and _, and not "
                f"{' or '.join(NO_JOB_NAMES)})"
            )
        for name in self.sbatch:
            if not re.fullmatch("[a-z][a-z_]+", name):
                raise UserError(f"`sbatch` {name!r}: expected an option of sbatch, such as nodelist=n1")

    @property
    def processes(self) -> int:
        """Processes on each machine."""
        return self.tasks_per_node or self.gpus_per_node or 1


def script(slurm: Slurm, folder: Path, name: str, count: int = 1) -> str:
    """The sbatch script of a job, for `--dry_run`; Slurm need not be there.

    Args:
        slurm: The options of the job.
        folder: Where the logs go.
        name: Name of the job, unless the options give one.
        count: Jobs of the array; 1 is a single job.
    """
    executor = _executor(slurm, folder, name)
    if count > 1:
        executor.parameters["map_count"] = count
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit(
    slurm: Slurm,
    folder: Path,
    name: str,
    work: Sequence[Callable[[], Any]],
    files: Mapping[str, str] | None = None,
) -> list[str]:
    """Submits one job for each callable, several of them as an array.

    Each process of a job calls its callable, with Slurm's environment variables. What it prints goes to
    `<folder>/<job id>_<rank>_log.out`.

    Args:
        slurm: The options of the job.
        folder: A new folder for logs and scripts; the machines of the cluster must see it, too.
        name: Name of the job, unless the options give one.
        work: The callables; they must be picklable, such as an instance of a class with `__call__`.
        files: What else is written into the folder before, by name.

    Returns:
        The id of each job, such as `12`, or `12_0` in an array.

    Raises:
        UserError: If Slurm is not there, or refuses the job; then the folder is gone.
    """
    check_slurm()
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = _executor(slurm, folder, name)
    try:
        make_folder(folder, "choose another place with `runs_dir`")
        for file, text in (files or {}).items():
            replace_text(folder / file, text)
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
            return [str(job.job_id) for job in executor.submit_array(work)]
    except (UserError, FailedJobError, FailedSubmissionError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # only what is empty
            for above in folder.parents[:3]:
                above.rmdir()
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split()).removeprefix("sbatch: error: ")
        raise UserError(f"Slurm refuses the job: {reason}; see `sinfo` for the resources of the cluster") from None


def log_of(folder: Path, job: str) -> Path:
    """Where the first process of a job prints.

    Args:
        folder: The folder of its submission.
        job: Its id.
    """
    return folder / f"{job}_0_log.out"


def check_slurm() -> None:
    """Looks whether jobs can be submitted from here.

    Raises:
        UserError: If not.
    """
    require("slurm", "`submit()`")
    if missing := [tool for tool in ("sbatch", "srun") if shutil.which(tool) is None]:
        raise UserError(
            f"Slurm is not installed here ({missing[0]} not found): submit from a login node of the cluster, print "
            "the script with `dry_run`, or train on this machine with `train()`"
        )


def _executor(slurm: Slurm, folder: Path, name: str) -> "SlurmExecutor":
    require("slurm", "`submit()`")
    from submitit import SlurmExecutor

    class AnywhereExecutor(SlurmExecutor):
        """Writes scripts also where there is no Slurm."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    _check_script(slurm, folder, name)
    # how often a job may be queued again is not limited
    executor = AnywhereExecutor(folder, max_num_timeout=1_000_000, python=PYTHON.format(shlex.quote(sys.executable)))
    given = {name: getattr(slurm, name) for name in ("cpus_per_task", "partition", "account", "qos", "constraint")}
    executor.update_parameters(
        job_name=slurm.job_name or re.sub(r"[^\w.-]", "-", name),
        time=slurm.time,
        nodes=slurm.nodes,
        ntasks_per_node=slurm.processes,
        gpus_per_node=slurm.gpus_per_node or None,
        mem=slurm.mem,
        array_parallelism=slurm.at_once or 1_000_000,
        signal_delay_s=slurm.save_before,
        stderr_to_stdout=True,
        setup=slurm.setup or None,
        srun_args=[
            "--kill-on-bad-exit=1",  # one dead process ends the others at once; they would wait for it
            "--open-mode=append",
            # from 22.05 on srun does not take it from sbatch
            *([f"--cpus-per-task={slurm.cpus_per_task}"] if slurm.cpus_per_task else []),
        ],
        additional_parameters={"requeue": True, **slurm.sbatch},
        **{name: value for name, value in given.items() if value},
    )
    return executor


def _check_script(slurm: Slurm, folder: Path, name: str) -> None:
    """Refuses what would end a line of the script, or what Slurm would read as a pattern."""
    check_texts(asdict(slurm))
    check_text("the job name", name)
    check_text("the folder", folder)
    if found := re.search(r"[%\\]", str(folder)):
        raise UserError(
            f"the logs would go to {folder}, where Slurm expands {found[0]} as a pattern: set `runs_dir` to a folder "
            "without it"
        )
