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
from jsonargparse.typing import PositiveInt

from lightning_cnn.cli.report import summary
from lightning_cnn.cli.words import read_words
from lightning_cnn.config.schema import Group, Kind
from lightning_cnn.config.trust import note_origin, remember
from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns
from lightning_cnn.engine.build import Experiment, mendable
from lightning_cnn.engine.recording import recorded
from lightning_cnn.engine.report import run_source, write_report
from lightning_cnn.engine.walkforward.fold import FoldJob, train_fold
from lightning_cnn.engine.walkforward.record import record_fold, track, write_frame
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.measures import Settings
from lightning_cnn.evaluation.returns.month_split import MonthSplit
from lightning_cnn.evaluation.returns.predictions import BASELINES, KEYS, LOST, PREDICTIONS
from lightning_cnn.regular_files import read_regular
from lightning_cnn.resume.files import make_folder, replace_text
from lightning_cnn.resume.workers import each
from lightning_cnn.tracking.configurations import SAME_TRIAL, configurations_tried
from lightning_cnn.tracking.record import CONFIG, RECORD, default_runs_dir
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import find_run
from lightning_cnn.tracking.settings import matters
from lightning_cnn.tracking.wandb_run import choose_mode

FOLDS, SHARED, FILES = "folds", "train.yaml", "data.sha256"
SPLIT = ("scheme", "test_months", "train_months", "embargo", "first_test", "last_test")
REPORT = ("cost_bps", "deciles", "block_months")
ONE_DEVICE = {"enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
MONTHS = ("train_start", "train_end", "test_start", "test_end")  # of the data, set for each fold


class OfTheWhole:
    """What a walk-forward does with its folds.

    Args:
        note: Caveat shown at the top of the report.
        jobs: Folds that are trained at the same time, in processes.
    """

    def __init__(self, note: str | None = None, jobs: PositiveInt = 1) -> None:
        self.note, self.jobs = note, jobs


REPORTED = Group(Settings, skip=frozenset({"seed", "trials"}))
WALK_FORWARD = Kind("walkforward", groups=(Group(MonthSplit), REPORTED, Group(OfTheWhole)))


def main(verb: str, argv: list[str]) -> int:
    """Trains all folds that are not finished, joins their predictions and writes the report. Returns the exit code."""
    command = shlex.join(["lightning-cnn", verb, *argv])
    words = read_words(WALK_FORWARD, argv)
    name = words.named_run("RUN (`lightning-cnn list runs`)")
    resumed = None if name is None else _resumed(name, words.runs_dir)
    experiment = Experiment(words.config(*([] if resumed is None else [resumed.folder / CONFIG])), resumed)
    experiment.check_metrics()
    config = experiment.config
    split = MonthSplit(**{name: config[name] for name in SPLIT})
    settings = Settings(**{name: config[name] for name in REPORT})
    folds = split.folds(_months(experiment))
    if resumed is not None:
        _refuse_changes(resumed, experiment)
    choose_mode(config["wandb"])  # what can't be tracked shows now, not after hours
    run = _open_run(experiment, command, resumed)
    config = experiment.config
    with recorded(run, verb, is_new=resumed is None):
        run.write_config(config.to_yaml())
        _share_config(experiment, run)
        folder = run.folder / FOLDS
        jobs = [FoldJob(folder / fold.name, folder / SHARED, fold, split.embargo) for fold in folds]
        runs = _train(jobs, config["jobs"], run)
        _join(runs, run.folder)
        settings = replace(settings, trials=configurations_tried(run, run.folder.parent.parent))
        evaluation = write_report(run_source(run), settings, config["note"])
        run.record.metrics, run.record.better = evaluation.metrics(), dict(evaluation.better)
        track(config, run, runs)
    print(f"\n{summary(evaluation)}\nrun folder   {run.folder}\nthe page     {run.folder}/report.html")
    return 0


def _resumed(name: str, runs_dir: Path) -> RunFolder:
    """The walk-forward to go on with."""
    run = find_run(runs_dir, name)
    note_origin(run.folder, is_config=True)
    if not (run.folder / FOLDS).is_dir():
        raise UserError(
            f"{run.folder} is no walk-forward: go on with it by `train --resume {shlex.quote(run.record.id)}`"
        )
    run.check_free()
    return run


def _months(experiment: Experiment) -> Any:
    """The months that can be outcomes.

    Raises:
        UserError: If the data or the settings don't go with a walk-forward.
    """
    data, config = experiment.data, experiment.config
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


def _refuse_changes(run: RunFolder, experiment: Experiment) -> None:
    """Other settings than those of the finished folds would join what does not belong together."""
    mended = experiment.chosen.mended
    saved = yaml.safe_load(read_regular(run.folder / CONFIG))
    for name, (before, now) in experiment.config.differences(saved).items():
        if matters(name) and name not in (*SAME_TRIAL, *mended):
            raise UserError(
                f"--{name} {now}: {run.folder} was begun with {before}; go on without it, "
                "or start a walk-forward of its own"
            )
    files = run.folder / FOLDS / FILES
    if files.is_file() and files.read_text() != _fingerprints(experiment.data):
        raise UserError(
            f"the file of prices is another one than when {run.folder} was begun: bring that back, or start a "
            "walk-forward of its own"
        )
    if mended and any((run.folder / FOLDS).glob(f"*/*/{RECORD}")):
        print("finished folds used the wrong mode and are kept; start a new walk-forward for consistent folds")


def _fingerprints(data: MonthlyReturns) -> str:
    """SHA-256 of the files that the data are read from, a line for each."""
    given = data.hparams
    channels = (given.get("channels") or {}).values()
    files = [given.get("prices"), *(dict(options).get("file") for options in channels)]
    lines = []
    for name in filter(None, files):
        with open(name, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _open_run(experiment: Experiment, command: str, resumed: RunFolder | None) -> RunFolder:
    config = experiment.config
    if resumed is None:
        runs_dir = Path(config["runs_dir"]) if config["runs_dir"] else default_runs_dir()
        experiment.set(experiment=(name := experiment.name()))
        text = experiment.config.to_yaml()
        run = RunFolder.create(runs_dir, name, command, config["seed_everything"], config=text)
        remember(runs_dir)
        return run
    resumed.resume(command)
    experiment.set(experiment=resumed.record.name)
    return resumed


def _share_config(experiment: Experiment, run: RunFolder) -> None:
    """Writes the configuration of the folds: that of the walk-forward without what only concerns the whole."""
    config = experiment.config.without(*SPLIT, *REPORT, "note", "jobs", "experiment", "runs_dir")
    config["wandb"] = "disabled"  # the walk-forward is one run on W&B
    config["trainer"] = config["trainer"] | ONE_DEVICE
    path = run.folder / FOLDS / SHARED
    make_folder(path.parent, parents=False)
    replace_text(path.parent / FILES, _fingerprints(experiment.data))
    replace_text(path, yaml.safe_dump(config, sort_keys=False))


def _train(jobs: Sequence[FoldJob], count: int, run: RunFolder) -> list[RunFolder]:
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
            done[job] = RunFolder.open(folder)
            record_fold(run, done[job], f"{len(done)} of {len(jobs)}", job.fold.name)
    return [done[job] for job in jobs]


def _join(runs: Sequence[RunFolder], folder: Path) -> None:
    """The predictions of all folds in one file, and those of the baselines."""
    for name in (BASELINES, PREDICTIONS):
        frames = [pd.read_parquet(run.folder / name) for run in runs]
        joined = pd.concat(frames, ignore_index=True).sort_values(KEYS, ignore_index=True)
        joined.attrs = dict(frames[0].attrs)
        if LOST in joined.attrs:
            joined.attrs[LOST] = sum(frame.attrs[LOST] for frame in frames)
        write_frame(joined, folder / name)
