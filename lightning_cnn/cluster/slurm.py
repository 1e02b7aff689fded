"""Jobs of Slurm: their options, the script and the submission. Imports submitit only then."""

import contextlib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text, check_texts

if TYPE_CHECKING:
    from submitit import SlurmExecutor

# Python listens to signals a second after its start; until then one would kill it, and the job would have failed
PYTHON = 'sh -c \'trap "" TERM USR2; exec "$0" "$@"\' {} -P'  # -P: not from the working directory


def _option(default: str | int | None, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Slurm:
    """Options of a job. The metadata of the fields say what they are, for the help of the verbs."""

    nodes: int = _option(1, "machines of a job")
    gpus_per_node: int = _option(0, "GPUs on each machine")
    tasks_per_node: int | None = _option(None, "processes on each machine (default: one for each GPU, else one)")
    cpus_per_task: int | None = _option(None, "cores of each process")
    time: int = _option(60, "time limit in minutes; a job that reaches it is queued again")
    partition: str | None = _option(None, "partition or partitions (default: the cluster's)")
    account: str | None = _option(None, "account to charge")
    qos: str | None = _option(None, "quality of service")
    constraint: str | None = _option(None, "features that the machines must have, such as a100")
    mem: str | None = _option(None, "memory on each machine, such as 64GB")
    at_once: int | None = _option(None, "of an array: how many of its jobs run at the same time (default: all)")
    save_before: int = _option(90, "save so long before the time limit")
    job_name: str | None = _option(None, "name of the job (default: that of the experiment)")
    setup: list[str] = field(default_factory=list, metadata={"help": "shell line to run first; may be repeated"})
    sbatch: dict[str, str | bool] = field(
        default_factory=dict,
        metadata={"help": "any other option of sbatch, such as nodelist=n[1-4]; may be repeated"},
    )

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


def submit(slurm: Slurm, folder: Path, name: str, work: Sequence[Callable[[], Any]]) -> list[str]:
    """Submits one job for each callable, several of them as an array.

    Each process of a job calls its callable, with Slurm's environment variables. What it prints goes to
    `<folder>/<job id>_<rank>_log.out`.

    Args:
        slurm: The options of the job.
        folder: Where logs and scripts go; the machines of the cluster must see it, too.
        name: Name of the job, unless the options give one.
        work: The callables; they must be picklable, such as an instance of a class with `__call__`.

    Returns:
        The id of each job, such as `12`, or `12_0` in an array.

    Raises:
        UserError: If Slurm is not there, or refuses the job.
    """
    check_slurm()
    executor = _executor(slurm, folder, name)
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


def _executor(slurm: Slurm, folder: Path, name: str) -> "SlurmExecutor":
    from submitit import SlurmExecutor

    class AnywhereExecutor(SlurmExecutor):
        """Writes scripts also where there is no Slurm."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    _check_script(slurm, folder, name)
    if 2 * slurm.save_before > 60 * slurm.time:
        raise UserError(
            f"--save_before {slurm.save_before}: of {slurm.time} minutes that leaves too little to train in; "
            "give a longer --time, or a shorter --save_before"
        )
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
            f"the logs would go to {folder}, where Slurm takes {found[0]} for a pattern: name a folder without it, "
            "with --runs_dir"
        )
