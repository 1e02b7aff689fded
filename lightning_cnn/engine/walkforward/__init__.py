"""Walk-forward: trains and tests returns fold by fold, each tested after its training, and joins the predictions."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lightning_cnn.config.config import Config
from lightning_cnn.config.layers import read_yaml
from lightning_cnn.datamodules.returns.folder import files_of, is_table
from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns
from lightning_cnn.datamodules.returns.price_file import prices_kept
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.parts import check_parts, check_same, config_of_parts
from lightning_cnn.engine.recording import new_run, open_loggers, recorded
from lightning_cnn.engine.report import run_source, write_report
from lightning_cnn.engine.resumption import saved_values
from lightning_cnn.engine.return_predictions import write_frame
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.engine.walkforward.fold import MONTHS, FoldJob, months_of, train_fold
from lightning_cnn.engine.walkforward.settings import WALK_FORWARD, WalkForwardSettings
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.measures import Evaluation
from lightning_cnn.evaluation.returns.month_split import MonthSplit
from lightning_cnn.evaluation.returns.predictions import KEYS, LOST
from lightning_cnn.notes import say
from lightning_cnn.resume.files import make_folder, replace_text
from lightning_cnn.resume.workers import each
from lightning_cnn.tracking.configurations import SAME_TRIAL, configurations_tried
from lightning_cnn.tracking.loggers import log_settings
from lightning_cnn.tracking.record import BASELINES, METRICS, PREDICTIONS, RECORD
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.wandb_run import choose_mode

FOLDS, SHARED, FILES = "folds", "train.yaml", "data.sha256"
SHOWN = ("test/auc", "test/ic", "test/acc", "test/up_rate")

OnFold = Callable[[RunFolder, str], None]


@dataclass(frozen=True)
class WalkForward:
    """A walk-forward that has come to its end.

    Attributes:
        run: Its run.
        evaluation: What the joined predictions are worth.
    """

    run: RunFolder
    evaluation: Evaluation


def walk_forward(
    config: Config, *, resume: RunFolder | None = None, on_fold: OnFold | None = None, command: str = ""
) -> WalkForward:
    """Trains all folds that are not finished, joins their predictions and writes the report.

    Args:
        config: The configuration, of the kind `WALK_FORWARD`.
        resume: The walk-forward that goes on.
        on_fold: Is told of each fold when it is done, those that were finished before included: its run, and a line
            about it. Default: the line is said (`lightning_cnn.notes`).
        command: The command that the run notes.

    Raises:
        UserError: If it can't be done, or another configuration was begun with.
        Interrupted: If a signal has asked for the end.
    """
    experiment = Experiment(config, resume)
    experiment.check()
    split, whole = experiment.config.make(MonthSplit), experiment.config.make(WalkForwardSettings)
    with prices_kept():
        folds = split.folds(_months(experiment))
        if resume is not None:
            _check_unchanged(resume, experiment)
        embargo = _embargo(experiment, split, resume)
        for fold in folds:  # now, not when its turn comes
            try:
                experiment.data.check_months(embargo, **months_of(fold))
            except UserError as error:
                raise UserError(f"fold {fold.name}: {error}") from None
        choose_mode(config["wandb"])  # what can't be tracked shows now, not after hours
        if resume is not None:
            resume.go_on(command)
            experiment.set(experiment=resume.record.name)
        run = resume or new_run(experiment, command)
        with recorded(run, "walk_forward", is_new=resume is None):
            run.write_config(experiment.config.to_yaml())
            _share_config(experiment, run, embargo)
            folder = run.folder / FOLDS
            jobs = [FoldJob(folder / fold.name, folder / SHARED, fold, split.embargo) for fold in folds]
            say(f"{len(jobs)} folds, {jobs[0].fold.name} to {jobs[-1].fold.name}, in {run.folder}")
            runs = _train(jobs, whole.jobs, run, on_fold or (lambda _, line: say(line)))
            _join(runs, run.folder)
            settings = replace(whole.settings, trials=configurations_tried(run, run.folder.parent.parent))
            evaluation = write_report(run_source(run), settings, whole.note)
            run.record.metrics, run.record.better = evaluation.metrics(), dict(evaluation.better)
            _track(experiment.config, run, runs)
    return WalkForward(run, evaluation)


def _months(experiment: Experiment) -> Any:
    """The months that can be outcomes.

    Raises:
        UserError: If the data or the settings don't go with a walk-forward.
    """
    data = experiment.data
    if not isinstance(data, MonthlyReturns):
        raise UserError(f"`data` {type(data).__name__}: a walk-forward needs monthly data: use MonthlyReturns")
    if data.validate_on_test:
        raise UserError("the data validate on the test months: add `data.validate_on_test` false for a walk-forward")
    if given := [name for name in MONTHS if data.hparams[name] is not None]:
        raise UserError(f"`data.{given[0]}`: set for each fold; use `first_test`, `last_test` and `train_months`")
    quick = "keeps nothing to join: try `first_test` and `last_test` for one fold"
    check_parts(experiment.config, "fold", quick, "go on with a walk-forward by `resume`")
    with user_errors():
        months = data.read_panel().prices.months
    if len(months) <= data.window_months + 1:
        raise UserError(
            f"{len(months)} months of prices are too few for a walk-forward with windows of {data.window_months}: add "
            "prices"
        )
    return months[data.window_months + 1 :]  # the first month has no return


def _check_unchanged(run: RunFolder, experiment: Experiment) -> None:
    """Refuses what would join folds that do not belong together."""
    corrected, anew = experiment.chosen.corrected, "or start a walk-forward of its own"
    free, begun = (*SAME_TRIAL, *corrected), str(run.folder)
    check_same(experiment.config, saved_values(run) or {}, free, begun, lambda _: f"go on without it, {anew}")
    files = run.folder / FOLDS / FILES
    if files.is_file() and not _are_same(files.read_text("utf-8"), _fingerprints(experiment.data)):
        raise UserError(f"the price file has changed since {begun} was started: restore it, {anew}")
    if corrected and any((run.folder / FOLDS).glob(f"*/*/{RECORD}")):
        say("finished folds used the wrong mode and are kept; start a new walk-forward for consistent folds")


def _fingerprints(data: MonthlyReturns) -> str:
    """SHA-256 of the files that the data are read from, and their places in the folder that was given, a line each."""
    given = data.hparams
    channels = (given.get("channels") or {}).values()
    given_files = [given.get("prices"), given.get("returns"), *(dict(options).get("file") for options in channels)]
    lines = []
    for name in filter(None, given_files):
        whole = Path(name)
        for path in files_of(whole, returns=name == given.get("returns"))[0]:
            place = path.relative_to(whole) if path != whole else path.name
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {place}\n")
    return "".join(lines)


def _are_same(before: str, now: str) -> bool:
    """Whether fingerprints are equal; those of earlier versions have whole paths, and files that are not read."""
    missing, folders = [line.partition("  ")[::2] for line in before.splitlines()], set[str]()
    for digest, place in (line.partition("  ")[::2] for line in now.splitlines()):
        found = next((one for one in missing if one[0] == digest and f"/{one[1]}".endswith(f"/{place}")), None)
        if found is None:
            return False
        missing.remove(found)
        folders.add(found[1][: -len(place)])
    # what is left has been removed since, unless it was not read
    left = [next((path.removeprefix(each) for each in folders if path.startswith(each)), path) for _, path in missing]
    return all(path and not is_table(path) for path in left)


def _embargo(experiment: Experiment, split: MonthSplit, resumed: RunFolder | None) -> int | None:
    """`data.embargo` of the folds: what is given, or no more than the walk-forward's; None for that of the recipe."""
    if resumed is not None and (begun := resumed.folder / FOLDS / SHARED).is_file():
        found: int | None = read_yaml(begun)["data"]["init_args"].get("embargo")
        return found  # of the finished folds, also where an earlier version began them
    given: int | None = experiment.data.hparams["embargo"]
    return split.embargo if given is None and split.embargo < experiment.data.chosen["embargo"] else given


def _share_config(experiment: Experiment, run: RunFolder, embargo: int | None) -> None:
    """Writes the configuration of the folds."""
    config = config_of_parts(experiment.config, *WALK_FORWARD.fields)
    config["wandb"] = "disabled"  # the walk-forward is one run on W&B
    if embargo is not None:
        config["data"]["init_args"]["embargo"] = embargo
    path = run.folder / FOLDS / SHARED
    make_folder(path.parent, parents=False)
    replace_text(path.parent / FILES, _fingerprints(experiment.data))
    replace_text(path, yaml.safe_dump(config, sort_keys=False))


def _train(jobs: Sequence[FoldJob], count: int, run: RunFolder, on_fold: OnFold) -> list[RunFolder]:
    """Trains what is not finished, and tells of each fold as it ends. Returns the runs in the order of the folds."""
    done = {job: found for job in jobs if (found := job.finished()) is not None}
    for job, found in done.items():
        on_fold(found, f"{job.fold.name}  finished before  {found.id}")
    run.record.epochs = sum(found.record.epochs for found in done.values())
    left = [job for job in jobs if job not in done]
    count = min(count, len(left))
    folders = each(train_fold, left, count, prices_kept) if count > 1 else ((job, train_fold(job)) for job in left)
    with closing(folders):
        for job, folder in folders:
            done[job] = RunFolder.open(folder)
            line = _record_fold(run, done[job], f"{len(done)} of {len(jobs)}", job.fold.name)
            on_fold(done[job], line)
    return [done[job] for job in jobs]


def _record_fold(parent: RunFolder, fold: RunFolder, count: str, name: str) -> str:
    """Adds a finished fold to the record of the walk-forward; returns a line about it."""
    record = parent.record
    record.epochs += fold.record.epochs
    record.parameters, record.device = fold.record.parameters, fold.record.device
    parent.save()
    tested = fold.record.metrics
    numbers = [f"{key.removeprefix('test/')} {tested[key]:.4f}" for key in SHOWN if key in tested]
    return f"{name}  {count}  {'  '.join(numbers)}  {fold.record.seconds:.0f} s"


def _join(runs: Sequence[RunFolder], folder: Path) -> None:
    """The predictions of all folds in one file, and those of the baselines."""
    for name in (BASELINES, PREDICTIONS):
        frames = [pd.read_parquet(run.folder / name) for run in runs]
        joined = pd.concat(frames, ignore_index=True).sort_values(KEYS, ignore_index=True)
        joined.attrs = dict(frames[0].attrs)
        if LOST in joined.attrs:
            joined.attrs[LOST] = sum(frame.attrs[LOST] for frame in frames)
        write_frame(joined, folder / name)


def _track(config: Config, run: RunFolder, folds: Sequence[RunFolder]) -> None:
    """Hands the metrics of the folds, as curves over their number, and of the whole to CSV, TensorBoard and W&B."""
    (run.folder / METRICS).unlink(missing_ok=True)  # a resumed walk-forward has all its folds, too
    for events in run.folder.glob("events.out.tfevents.*"):
        events.unlink()
    loggers = open_loggers(run, config)
    for number, fold in enumerate(folds):
        tested = {name: value for name, value in fold.record.metrics.items() if name.startswith("test/")}
        for logger in loggers:
            logger.log_metrics({f"fold/{name.removeprefix('test/')}": value for name, value in tested.items()}, number)
    for logger in loggers:
        logger.log_metrics(run.record.metrics, len(folds))
        logger.save()
    log_settings(loggers, config.flat(), run.record.metrics)
    run.save()
