"""`sweep`: trains again and again with other settings, and keeps those whose validation metric is best."""

import os
import re
import shlex
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import torch
import yaml
from matplotlib.figure import Figure
from optuna.importance import get_param_importances
from optuna.trial import TrialState

from lightning_cnn.cli.messages import as_typed
from lightning_cnn.cli.slurm_options import take_launcher
from lightning_cnn.cli.words import read_words
from lightning_cnn.cluster.slurm import Slurm
from lightning_cnn.config.config import Config
from lightning_cnn.config.layers import last_given
from lightning_cnn.config.trust import note_origin, remember
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.sweep.best import BEST
from lightning_cnn.engine.sweep.find import find_study
from lightning_cnn.engine.sweep.jobs import LOGS, Ended, run_jobs, work
from lightning_cnn.engine.sweep.search_space import as_word, setting
from lightning_cnn.engine.sweep.settings import SETTINGS, SWEEP, SweepSettings
from lightning_cnn.engine.sweep.slurm import JOB_LOGS, script_of, submit_jobs
from lightning_cnn.engine.sweep.study import FOLDER, NUMBER, Study
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.figures.style import encode
from lightning_cnn.figures.sweep import history, importance
from lightning_cnn.modules.optimization import OptimizedModule
from lightning_cnn.resume.files import replace_bytes, replace_text
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.resume.signals import Interrupted
from lightning_cnn.resume.workers import how_it_ended
from lightning_cnn.tracking.monitors import WrongModeError
from lightning_cnn.tracking.record import CONFIG, default_runs_dir, given_folder
from lightning_cnn.tracking.settings import matters
from lightning_cnn.tracking.wandb_run import choose_mode

MAY_CHANGE = ("trials", "jobs")  # when a sweep goes on
FEWEST = 4  # finished trials of which a word about importance can be said


def main(verb: str, argv: list[str]) -> int:
    """Trains the trials that are left, and writes what came of all. Returns the exit code."""
    slurm, is_dry, left = take_launcher(verb, argv)
    words = read_words(SWEEP, left)
    name = words.named_run("SWEEP")
    resumed = None if name is None else _resumed(name, words.runs_dir)
    experiment = Experiment(words.config(*([] if resumed is None else [resumed.folder / CONFIG])))
    try:
        experiment.check_metrics()
    except WrongModeError as error:
        if resumed is None or any(re.match(r"(--)?[\w.+]+\.mode\b", word) for word in (*words.rest, *words.fields)):
            raise
        # version 0.1 took it for what the user wants; the journal of the trials has the direction, too
        raise UserError(
            "this sweep optimized a metric in the wrong direction and cannot be resumed; start a new one: "
            f"`lightning-cnn sweep --config {shlex.quote(str(resumed.folder / CONFIG))} --experiment NAME ...` "
            f"({error})"
        ) from None
    home = _home(experiment) if resumed is None else resumed.home
    if slurm and is_dry:
        print(script_of(slurm, home, experiment.config["jobs"]))
        return 0
    try:
        return _run(experiment.config, home, resumed, slurm)
    except (Interrupted, KeyboardInterrupt, StorageError) as stop:
        if (home / FOLDER / CONFIG).is_file():
            stop.add_note(f"resume with: lightning-cnn sweep --resume {_name(home)}")
        raise


def _run(config: Config, home: Path, resumed: Study | None, slurm: Slurm | None) -> int:
    """Begins the sweep, or goes on with it. Returns the exit code."""
    is_new = False
    if resumed is None:
        choose_mode(config["wandb"])  # what can't be tracked shows now, not in each trial
        with suppress(FileExistsError):  # the same command once more, or another process has just been faster
            study, is_new = Study.create(home, config.values, _shared(config)), True
            remember(home.parent)
    if not is_new:
        study = _go_on(resumed or Study(home), config, is_named=resumed is not None)
    left = study.left()
    jobs = min(config["jobs"], left)
    print(f"{study.settings.trials} trials in {home}, {left} of them to be trained", flush=True)
    if slurm and left:
        _show_jobs(home, submit_jobs(slurm, home, jobs))
        return 0
    _check_end(study, _train(study, jobs), is_new)
    study.write_best()
    print(_results(study))
    return 0


def _show_jobs(home: Path, numbers: list[str]) -> None:
    """Says how to follow the jobs of a sweep."""
    first = numbers[0].split("_")[0]
    print(f"{len(numbers)} jobs share the trials: {' '.join(numbers)}")
    print(f"follow one   tail -F {shlex.quote(f'{home / JOB_LOGS / numbers[0]}_0_log.out')}")
    print(f"their state  squeue --jobs {first}")
    print(f"stop them    scancel {first}")


def _resumed(name: str, runs_dir: Path) -> Study:
    """The sweep to go on with."""
    study = find_study(name, runs_dir)
    note_origin(study.home, is_config=True)
    return study


def _settings(config: Config) -> SweepSettings:
    return SweepSettings(**{name: config[name] for name in SETTINGS})


def _check(experiment: Experiment) -> None:
    """Refuses what can't be searched, and what would let the test data choose."""
    config = experiment.config
    if given_folder():
        raise UserError(f"${RUN_FOLDER} names the folder of one run: unset it for a sweep, which has many")
    monitor = str(config["checkpoint"]["monitor"])
    if not monitor.startswith("val"):
        raise UserError(f"--checkpoint.monitor {monitor}: the validation data must choose; take val/loss or val/acc")
    if getattr(experiment.data, "validate_on_test", False):
        raise UserError("the data validate on the test months, so that the test would choose: take other data")
    if config["trainer"]["fast_dev_run"]:
        raise UserError("--trainer.fast_dev_run keeps nothing to choose from: try --trials 2 --trainer.max_epochs 1")
    if config["trainer"]["devices"] not in ("auto", "1", 1) or config["trainer"]["num_nodes"] != 1:
        raise UserError("--trainer.devices: a trial is trained on one device; --jobs trains several trials at once")
    if config["ckpt_path"] is not None:
        raise UserError("--ckpt_path: every trial starts anew; --model.weights FILE gives them weights to start from")


def _try_values(settings: SweepSettings, config: Config) -> None:
    """Makes model and data with each choice and with the ends of each range, so that a refused one shows now."""
    for dimension in settings.space:
        for value in dimension.extremes():
            try:
                tried = Experiment(config.override(setting(dimension.name, value)))
                _check(tried)
                tried.check_metrics()
                if isinstance(tried.model, OptimizedModule):
                    tried.model.make_optimizer(tried.model.hparams)
            except UserError as error:
                reason = as_typed(str(error))
                if reason.startswith(f"--{dimension.name}"):
                    raise UserError(f"--search {reason.removeprefix('--')}") from None
                raise UserError(f"--search {dimension.name}, with {as_word(value)}: {reason}") from None


def _home(experiment: Experiment) -> Path:
    """The folder of the sweep, that of the experiment which its trials are runs of; only where all is in order."""
    settings = _settings(experiment.config)
    _check(experiment)
    searched = [dimension.name for dimension in settings.space]
    for finder in experiment.finders():
        if finder.setting in searched:
            name = type(finder).__name__
            raise UserError(f"--search {finder.setting}: {name} finds it in each trial; leave one of the two out")
    config = experiment.config
    runs_dir = Path(config["runs_dir"]) if config["runs_dir"] else default_runs_dir()
    name = experiment.name()
    if last_given([layer for layer in config.layers if layer.file is None], "experiment") is None:
        name += "_sweep"
    experiment.set(experiment=name)
    if not (runs_dir / name / FOLDER / CONFIG).is_file():
        _try_values(settings, config)
    return runs_dir / name


def _shared(config: Config) -> dict[str, object]:
    """The configuration of the trials: that of the sweep without what only concerns the whole."""
    shared = config.without(*SETTINGS, "experiment", "runs_dir")
    one = {"enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    return shared | {"trainer": shared["trainer"] | one}


def _go_on(study: Study, config: Config, is_named: bool) -> Study:
    """Takes up another number of trials; anything else would mix what can't be compared.

    Args:
        study: The sweep that is there.
        config: The configuration with which it is to go on.
        is_named: Whether `--resume` names the sweep; otherwise it is the command that began the sweep, once more.
    """
    for name, (before, now) in config.differences(study.config).items():
        if matters(name) and name not in MAY_CHANGE:
            way = "without it" if is_named else f"by `lightning-cnn sweep --resume {_name(study.home)}`"
            way = "" if name.endswith(".mode") else f"go on {way}, or "  # a sweep with the wrong mode can't
            raise UserError(
                f"--{name} {now}: the sweep in {study.home} was begun with {before}; {way}"
                "begin another sweep with --experiment NAME"
            )
    _settings(config)
    if not is_named:
        print(f"resuming the sweep in {study.home}; use another --experiment NAME to start a new one")
    if config["trials"] != study.config["trials"]:
        values = study.config | {"trials": config["trials"]}
        replace_text(study.folder / CONFIG, yaml.safe_dump(values, sort_keys=False))
    return Study(study.home)


def _train(study: Study, jobs: int) -> list[Ended]:
    """Trains what is left; returns how the processes have ended."""
    if jobs < 2:
        try:
            work(study.home)
        except StorageError as error:
            return [Ended(2, str(error))]
        return [Ended(0)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return run_jobs(study.home, jobs, visible.split(",")[:count] if visible else [*map(str, range(count))])


def _check_end(study: Study, ends: list[Ended], is_new: bool) -> None:
    """Says so where a sweep has not come to its end, or to nothing."""
    bad = next((end for end in sorted(ends, key=lambda end: not end.error) if end.code), None)
    if reason := study.hopeless():
        if is_new and not any(study.run_folder(trial).is_dir() for trial in study.trials):
            shutil.rmtree(study.folder)
            if not any(study.home.iterdir()):
                study.home.rmdir()
        raise UserError(f"every trial so far has failed: {reason}")
    if bad and (left := study.left()):
        if bad.error:
            raise StorageError(bad.error)
        fewer = " --jobs 1" if bad.code == -signal.SIGKILL else ""
        raise UserError(
            f"a process {how_it_ended(bad.code)}; {left} trials are left: lightning-cnn sweep --resume "
            f"{_name(study.home)}{fewer}"
        )
    if not study.finished and not study.left():
        raise UserError(f"no trial has finished: what they printed is in {study.folder / LOGS}")


def _figures(study: Study) -> dict[str, Figure]:
    """How the best value came about; with enough trials also what mattered (PED-ANOVA, Watanabe et al. 2023)."""
    finished, pruned = (
        [(t.user_attrs[NUMBER] + 1, t.value) for t in study.trials if t.state == state and t.value is not None]
        for state in (TrialState.COMPLETE, TrialState.PRUNED)
    )
    name, falls = study.home.name, study.mode == "min"
    drawn = {"history": history(finished, pruned, study.monitor, falls, f"{name}: {len(finished)} finished trials")}
    if len(finished) >= FEWEST and (shares := get_param_importances(study.optuna)):
        title = f"{name}: what mattered in {len(finished)} finished trials"
        drawn["importance"] = importance(shares, study.monitor, title)
    return drawn


def _results(study: Study) -> str:
    """Draws the pictures; returns the result in words."""
    if not study.finished:
        return f"no trial has finished so far: what they printed is in {study.folder / LOGS}"
    drawn = _figures(study)
    for name, figure in drawn.items():
        replace_bytes(study.home / f"{name}.png", encode(figure))
    best = study.optuna.best_trial
    states = [trial.state.name for trial in study.trials]
    counts = [f"{states.count(name)} {word}" for name, word in (("COMPLETE", "finished"), ("PRUNED", "pruned"))]
    counts += [f"{states.count(name)} {word}" for name, word in (("FAIL", "failed"), ("RUNNING", "still running"))]
    lines = [
        "",
        f"trials       {', '.join(count for count in counts if not count.startswith('0 '))}",
        f"best         {study.monitor} {best.value:.4g} in trial {best.user_attrs[NUMBER] + 1}",
        *(f"             {name} {as_word(value)}" for name, value in best.params.items()),
        f"its run      {study.run_folder(best)}",
        f"pictures     {' '.join(f'{study.home}/{name}.png' for name in drawn)}",
        "",
        f"next: lightning-cnn train --config {shlex.quote(str(study.home / BEST))}    lightning-cnn compare "
        f"{shlex.quote(study.home.name)} --sort {shlex.quote(study.monitor)}",
    ]
    return "\n".join(lines)


def _name(home: Path) -> str:
    """What to type to mean the sweep in a folder."""
    return shlex.quote(home.name if home.parent == default_runs_dir() else str(home))
