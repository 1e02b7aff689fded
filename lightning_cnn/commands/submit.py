"""`submit`: trains on a Slurm cluster. The command line is checked here and now, and the run folder is chosen."""

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lightning_cnn.commands.parser import VerbParser
from lightning_cnn.commands.slurm_options import add_slurm_options, check_slurm, script, submit, tasks_per_node
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.launcher import check_number
from lightning_cnn.tracking.run import CONFIG, RUN_FOLDER, default_runs_dir, new_folder

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

    from lightning_cnn.wiring import ExperimentCLI

LOGS = "slurm"  # folder in that of the experiment


class TrainJob:
    """What each process of a job does: it trains, or goes on where the job was stopped before.

    Args:
        folder: The run folder.
        words: The words behind `lightning-cnn train`.
    """

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.folder = folder
        self.words = words

    def __call__(self) -> None:
        """Trains, and ends the process where that fails."""
        from lightning_cnn.cli import main

        os.environ[RUN_FOLDER] = str(self.folder)
        if code := main(["train", *self.words]):
            raise SystemExit(code)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit asks for when a signal comes before the training has begun: the same again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def main(verb: str, argv: list[str]) -> int:
    """Submits. Returns the exit code."""
    options, words = _parser(verb).parse_known_args(argv)
    seeds = _seeds(" ".join(options.array)) if options.array else None
    if not options.dry_run:
        check_slurm()
    cli, resumed = _checked(options, words)
    if resumed is not None:
        if seeds is not None:
            raise UserError("--array with --resume: a run keeps its seed; go on with one run at a time")
        logs, name, folders = resumed.parent / LOGS, resumed.parent.name, [resumed]
    else:
        name = str(cli.config["experiment"])
        runs_dir = Path(cli.config["runs_dir"] or default_runs_dir())
        logs = runs_dir / name / LOGS
        folders = _new_folders(runs_dir, name, len(seeds or [0]))
    if options.dry_run:
        print(script(options, logs, name, len(folders)))
        return 0
    if resumed is None:
        for folder, seed in zip(folders, seeds or [cli.config["seed_everything"]], strict=True):
            folder.mkdir(parents=True)
            config = cli.resolved() | {"seed_everything": seed}
            (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    work = [
        TrainJob(folder.absolute(), words if resumed else ["--config", str(folder.absolute() / CONFIG)])
        for folder in folders
    ]
    try:
        jobs = submit(options, logs, name, work)
    except UserError:
        if resumed is None:
            for folder in folders:
                shutil.rmtree(folder)
        raise
    _show(jobs, folders, logs, seeds)
    return 0


def _checked(options: Any, words: list[str]) -> tuple["ExperimentCLI", Path | None]:
    """The parsed options of the training, so that a mistake shows now, and the folder of a run that goes on."""
    from lightning_cnn.commands.resumption import resumed_run
    from lightning_cnn.commands.train import check_resumed
    from lightning_cnn.config_parser import option_values, without_option
    from lightning_cnn.wiring import ExperimentCLI, experiment_name

    run, argv = resumed_run(words, 0) if option_values(words, "--resume") else (None, words)
    try:
        cli = ExperimentCLI("train", argv)
    except UserError as error:
        if found := re.match(r"unknown option (--\w+)", str(error)):
            ours = [name for action in _parser("submit")._actions for name in action.option_strings]
            if hint := did_you_mean(found[1], ours, count=1):
                raise UserError(f"unknown option {found[1]}{hint}") from None
        raise
    if run is not None:
        check_resumed(cli, run)
        words[:] = without_option(words, "--resume")
    else:
        cli.config["experiment"] = experiment_name(cli, argv)
    for name, usual, wanted, by in (
        ("devices", "auto", tasks_per_node(options), "--gpus_per_node or --tasks_per_node"),
        ("num_nodes", 1, options.nodes, "--nodes"),
    ):
        check_number(name, cli.config["trainer"][name], usual, wanted, by)
    return cli, run.folder if run else None


def _new_folders(runs_dir: Path, name: str, count: int) -> list[Path]:
    folders: set[Path] = set()
    while len(folders) < count:
        folders.add(new_folder(runs_dir, name))
    return sorted(folders)


def _show(jobs: list[str], folders: list[Path], logs: Path, seeds: list[int] | None) -> None:
    for number, (job, folder) in enumerate(zip(jobs, folders, strict=True)):
        print(f"job {job:<8} {f'seed {seeds[number]:<4} ' if seeds else ''}run folder {folder}")
    first = jobs[0].split("_")[0]
    print(f"\nfollow it    tail -F {logs / jobs[0]}_0_log.out   (_0_ is process 0; the others have logs of their own)")
    print(f"its state    squeue --jobs {first}")
    print(f"stop it      scancel {first}")


def _seeds(text: str) -> list[int]:
    if not re.fullmatch(r"seeds \d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise UserError(f"--array {text!r}: expected seeds, such as --array seeds 0-9 or --array seeds 1,2,5-7")
    seeds: list[int] = []
    for part in text.removeprefix("seeds ").split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    if not seeds or len({*seeds}) < len(seeds):
        raise UserError(f"--array {text!r}: expected seeds in ascending order, each of them once")
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
