"""`walkforward`: trains and tests returns fold by fold, each tested after its training, predictions joined."""

import hashlib
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lightning_cnn.commands.report import BASELINES, PREDICTIONS, run_source, summary, write_report
from lightning_cnn.commands.train import recorded
from lightning_cnn.config.parser import option_values, without_option
from lightning_cnn.config.trust import remember
from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns
from lightning_cnn.engine.resumption import note_run
from lightning_cnn.engine.walkforward.fold import FoldJob, train_fold
from lightning_cnn.engine.walkforward.record import record_fold, track
from lightning_cnn.engine.wiring import ExperimentCLI, experiment_name, mendable
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.measures import Settings
from lightning_cnn.evaluation.returns.month_split import MonthSplit
from lightning_cnn.evaluation.returns.predictions import KEYS, LOST, write_frame
from lightning_cnn.regular_files import read_regular
from lightning_cnn.resume.files import make_folder, replace_text
from lightning_cnn.resume.workers import each
from lightning_cnn.tracking.configurations import SAME_TRIAL, configurations_tried
from lightning_cnn.tracking.run import CONFIG, RECORD, Run, default_runs_dir, find_run
from lightning_cnn.tracking.settings import flatten, matters
from lightning_cnn.tracking.wandb_run import choose_mode

FOLDS, SHARED, FILES = "folds", "train.yaml", "data.sha256"
SPLIT = ("scheme", "test_months", "train_months", "embargo", "first_test", "last_test")
REPORT = ("cost_bps", "deciles", "block_months")
MONTHS = ("train_start", "train_end", "test_start", "test_end")  # of the data, set for each fold


def main(verb: str, argv: list[str]) -> int:
    """Trains all folds that are not finished, joins their predictions and writes the report. Returns the exit code."""
    command = shlex.join(["lightning-cnn", verb, *argv])
    resumed = None
    if "--resume" in argv or option_values(argv, "--resume"):
        resumed, argv = _resume(argv)
    cli = ExperimentCLI(verb, argv, earlier=resumed)
    cli.check_metrics()
    split = MonthSplit(**{name: cli.config[name] for name in SPLIT})
    settings = Settings(**{name: cli.config[name] for name in REPORT})
    folds = split.folds(_months(cli))
    if resumed is not None:
        _refuse_changes(resumed, cli)
    choose_mode(cli.config["wandb"])  # what can't be tracked shows now, not after hours
    run = _open_run(cli, argv, command, resumed)
    with recorded(run, verb, is_new=resumed is None):
        run.write_config(yaml.safe_dump(cli.resolved(), sort_keys=False))
        _share_config(cli, run)
        folder = run.folder / FOLDS
        jobs = [FoldJob(folder / fold.name, folder / SHARED, fold, split.embargo) for fold in folds]
        runs = _train(jobs, cli.config["jobs"], run)
        _join(runs, run.folder)
        settings = replace(settings, trials=configurations_tried(run, run.folder.parent.parent))
        evaluation = write_report(run_source(run), settings, cli.config["note"])
        run.record.metrics, run.record.better = evaluation.metrics(), dict(evaluation.better)
        track(cli, run, runs)
    print(f"\n{summary(evaluation)}\nrun folder   {run.folder}\nthe page     {run.folder}/report.html")
    return 0


def _resume(argv: list[str]) -> tuple[Run, list[str]]:
    """The walk-forward to go on with, and the command line that repeats it with what is typed on top."""
    names = option_values(argv, "--resume")
    if not names:
        raise UserError("--resume needs a run: walkforward --resume RUN (`lightning-cnn list runs`)")
    runs_dir = Path((option_values(argv, "--runs_dir") or [str(default_runs_dir())])[-1])
    run = find_run(runs_dir, names[-1])
    note_run(run.folder, argv)
    if not (run.folder / FOLDS).is_dir():
        raise UserError(
            f"{run.folder} is no walk-forward: go on with it by `train --resume {shlex.quote(run.record.id)}`"
        )
    run.check_free()
    return run, ["--config", str(run.folder / CONFIG), *without_option(argv, "--resume")]


def _months(cli: ExperimentCLI) -> Any:
    """The months that can be outcomes.

    Raises:
        UserError: If the data or the settings don't go with a walk-forward.
    """
    data, config = cli.datamodule, cli.config
    if not isinstance(data, MonthlyReturns):
        raise UserError(f"--data {type(data).__name__}: a walk-forward needs months, as MonthlyReturns has them")
    if data.validate_on_test:
        raise UserError("the data validate on the test months: add --data.validate_on_test false for a walk-forward")
    if given := [name for name in MONTHS if data.hparams[name] is not None]:
        raise UserError(f"--data.{given[0]}: the folds say this; use --first_test, --last_test and --train_months")
    if config["trainer"]["fast_dev_run"]:
        raise UserError("--trainer.fast_dev_run keeps nothing to join: try --first_test and --last_test for one fold")
    if config["trainer"]["devices"] not in ("auto", "1", 1) or config["trainer"]["num_nodes"] != 1:
        raise UserError("--trainer.devices: a fold is trained on one device; --jobs trains several folds at once")
    if config["ckpt_path"] is not None:
        raise UserError("--ckpt_path: every fold starts anew; `walkforward --resume RUN` goes on with a walk-forward")
    with mendable():
        months = data.read().months
    if len(months) <= data.window_months + 1:
        raise UserError(
            f"{len(months)} months of prices are too few for a walk-forward whose windows have "
            f"{data.window_months}: give more"
        )
    return months[data.window_months + 1 :]  # the first month has no return


def _refuse_changes(run: Run, cli: ExperimentCLI) -> None:
    """Other settings than those of the finished folds would join what does not belong together."""
    before = flatten(yaml.safe_load(read_regular(run.folder / CONFIG)))
    now = flatten(cli.resolved())
    names = [name for name in {**before, **now} if matters(name) and name not in (*SAME_TRIAL, *cli.chosen.mended)]
    changed = [name for name in names if before.get(name) != now.get(name)]
    if changed:
        name = changed[0]
        raise UserError(
            f"--{name} {now.get(name)}: {run.folder} was begun with {before.get(name)}; go on without it, "
            "or start a walk-forward of its own"
        )
    files = run.folder / FOLDS / FILES
    if files.is_file() and files.read_text() != _fingerprints(cli):
        raise UserError(
            f"the file of prices is another one than when {run.folder} was begun: bring that back, or start a "
            "walk-forward of its own"
        )
    if cli.chosen.mended and any((run.folder / FOLDS).glob(f"*/*/{RECORD}")):
        print("finished folds used the wrong mode and are kept; start a new walk-forward for consistent folds")


def _fingerprints(cli: ExperimentCLI) -> str:
    """SHA-256 of the files that the data are read from, a line for each."""
    given = cli.datamodule.hparams
    channels = (given.get("channels") or {}).values()
    files = [given.get("prices"), *(dict(options).get("file") for options in channels)]
    lines = []
    for name in filter(None, files):
        with open(name, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _open_run(cli: ExperimentCLI, argv: list[str], command: str, resumed: Run | None) -> Run:
    if resumed is None:
        runs_dir = Path(cli.config["runs_dir"]) if cli.config["runs_dir"] else default_runs_dir()
        cli.config["experiment"] = name = experiment_name(cli, argv)
        config = yaml.safe_dump(cli.resolved(), sort_keys=False)
        run = Run.create(runs_dir, name, command, cli.config["seed_everything"], config=config)
        remember(runs_dir)
        return run
    resumed.resume(command)
    cli.config["experiment"] = resumed.record.name
    return resumed


def _share_config(cli: ExperimentCLI, run: Run) -> None:
    """Writes the configuration of the folds: that of the walk-forward without what only concerns the whole."""
    config = cli.resolved()
    for name in (*SPLIT, *REPORT, "note", "jobs", "experiment", "runs_dir"):
        config.pop(name, None)
    config["wandb"] = "disabled"  # the walk-forward is one run on W&B
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    path = run.folder / FOLDS / SHARED
    make_folder(path.parent, parents=False)
    replace_text(path.parent / FILES, _fingerprints(cli))
    replace_text(path, yaml.safe_dump(config, sort_keys=False))


def _train(jobs: Sequence[FoldJob], count: int, run: Run) -> list[Run]:
    """Trains what is not finished; says a line for each fold as it ends. Returns the runs in the order of the folds."""
    done = {job: found for job in jobs if (found := job.finished()) is not None}
    for job, found in done.items():
        print(f"{job.fold.name}  finished before  {found.record.id}")
    run.record.epochs = sum(found.record.epochs for found in done.values())
    left = [job for job in jobs if job not in done]
    count = min(count, len(left))
    folders = each(train_fold, left, count) if count > 1 else ((job, train_fold(job)) for job in left)
    with closing(folders):
        for job, folder in folders:
            done[job] = Run.open(folder)
            record_fold(run, done[job], f"{len(done)} of {len(jobs)}", job.fold.name)
    return [done[job] for job in jobs]


def _join(runs: Sequence[Run], folder: Path) -> None:
    """The predictions of all folds in one file, and those of the baselines."""
    for name in (BASELINES, PREDICTIONS):
        frames = [pd.read_parquet(run.folder / name) for run in runs]
        joined = pd.concat(frames, ignore_index=True).sort_values(KEYS, ignore_index=True)
        joined.attrs = dict(frames[0].attrs)
        if LOST in joined.attrs:
            joined.attrs[LOST] = sum(frame.attrs[LOST] for frame in frames)
        write_frame(joined, folder / name)
