"""`sweep`: trains again and again with other settings, and keeps those whose validation metric is best."""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import torch
import yaml

from lightning_cnn.config.parser import option_values, without_option
from lightning_cnn.config.trust import remember
from lightning_cnn.engine.resumption import note_run
from lightning_cnn.engine.sweep.best import BEST
from lightning_cnn.engine.sweep.find import find_study
from lightning_cnn.engine.sweep.jobs import LOGS, Ended, run_jobs, work
from lightning_cnn.engine.sweep.search_space import as_word
from lightning_cnn.engine.sweep.settings import SETTINGS, SweepSettings
from lightning_cnn.engine.sweep.slurm import show_script, submit_jobs, take_launcher
from lightning_cnn.engine.sweep.study import FOLDER, NUMBER, Study, setting_words
from lightning_cnn.engine.wiring import ExperimentCLI, experiment_name
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.figures import plots
from lightning_cnn.figures import sweep as figures
from lightning_cnn.modules.optimization import OptimizedModule
from lightning_cnn.resume.files import replace_text
from lightning_cnn.resume.signals import Interrupted
from lightning_cnn.resume.workers import how_it_ended
from lightning_cnn.tracking.monitors import WrongModeError
from lightning_cnn.tracking.run import CONFIG, RUN_FOLDER, default_runs_dir, given_folder
from lightning_cnn.tracking.settings import flatten, matters
from lightning_cnn.tracking.wandb_run import choose_mode

MAY_CHANGE = ("trials", "jobs")  # when a sweep goes on


def main(verb: str, argv: list[str]) -> int:
    """Trains the trials that are left, and writes what came of all. Returns the exit code."""
    slurm, words = take_launcher(verb, _one_search(argv))
    resumed = None
    if "--resume" in words or option_values(words, "--resume"):
        resumed, words = _resume(words)
    cli = ExperimentCLI(verb, words)
    try:
        cli.check_metrics()
    except WrongModeError as error:
        if resumed is None or any(re.match(r"--[\w.+]+\.mode\b", word) for word in words):
            raise
        # version 0.1 took it for what the user wants; the journal of the trials has the direction, too
        raise UserError(
            "this sweep optimized a metric in the wrong direction and cannot be resumed; start a new one: "
            f"`lightning-cnn sweep --config {shlex.quote(str(resumed.folder / CONFIG))} --experiment NAME ...` "
            f"({error})"
        ) from None
    home = _home(cli, words) if resumed is None else resumed.home
    if slurm and slurm.dry_run:
        show_script(slurm, home, cli.config["jobs"])
        return 0
    try:
        return _run(cli, home, resumed, slurm)
    except (Interrupted, KeyboardInterrupt, StorageError) as stop:
        if (home / FOLDER / CONFIG).is_file():
            stop.add_note(f"resume with: lightning-cnn sweep --resume {_name(home)}")
        raise


def _run(cli: ExperimentCLI, home: Path, resumed: Study | None, slurm: argparse.Namespace | None) -> int:
    """Begins the sweep, or goes on with it. Returns the exit code."""
    is_new = False
    if resumed is None:
        choose_mode(cli.config["wandb"])  # what can't be tracked shows now, not in each trial
        with suppress(FileExistsError):  # the same command once more, or another process has just been faster
            study, is_new = Study.create(home, cli.resolved(), _shared(cli)), True
            remember(home.parent)
    if not is_new:
        study = _go_on(resumed or Study(home), cli, is_named=resumed is not None)
    left = study.left()
    jobs = min(cli.config["jobs"], left)
    print(f"{study.settings.trials} trials in {home}, {left} of them to be trained", flush=True)
    if slurm and left:
        submit_jobs(slurm, home, jobs)
        return 0
    _check_end(study, _train(study, jobs), is_new)
    study.write_best()
    print(_results(study))
    return 0


def _one_search(argv: list[str]) -> list[str]:
    """The words with all that is searched behind one `--search`, as the parser understands it."""
    searches = option_values(argv, "--search")
    return [*without_option(argv, "--search"), "--search", json.dumps(searches)] if searches else argv


def _resume(words: list[str]) -> tuple[Study, list[str]]:
    """The sweep to go on with, and the command line that repeats it with what is typed on top."""
    names = option_values(words, "--resume")
    if not names:
        raise UserError("--resume needs a sweep: sweep --resume EXPERIMENT")
    study = find_study(names[-1], Path((option_values(words, "--runs_dir") or [str(default_runs_dir())])[-1]))
    note_run(study.home, words)
    return study, ["--config", str(study.folder / CONFIG), *without_option(words, "--resume")]


def _settings(cli: ExperimentCLI) -> SweepSettings:
    return SweepSettings(**{name: cli.config[name] for name in SETTINGS})


def _check(cli: ExperimentCLI) -> None:
    """Refuses what can't be searched, and what would let the test data choose."""
    config = cli.config
    if given_folder():
        raise UserError(f"${RUN_FOLDER} names the folder of one run: unset it for a sweep, which has many")
    monitor = str(config["checkpoint"]["monitor"])
    if not monitor.startswith("val"):
        raise UserError(f"--checkpoint.monitor {monitor}: the validation data must choose; take val/loss or val/acc")
    if getattr(cli.datamodule, "validate_on_test", False):
        raise UserError("the data validate on the test months, so that the test would choose: take other data")
    if config["trainer"]["fast_dev_run"]:
        raise UserError("--trainer.fast_dev_run keeps nothing to choose from: try --trials 2 --trainer.max_epochs 1")
    if config["trainer"]["devices"] not in ("auto", "1", 1) or config["trainer"]["num_nodes"] != 1:
        raise UserError("--trainer.devices: a trial is trained on one device; --jobs trains several trials at once")
    if config["ckpt_path"] is not None:
        raise UserError("--ckpt_path: every trial starts anew; --model.weights FILE gives them weights to start from")


def _try_values(settings: SweepSettings, cli: ExperimentCLI, words: list[str]) -> None:
    """Makes model and data with each choice and with the ends of each range, so that a refused one shows now."""
    for dimension in settings.space:
        for value in dimension.extremes():
            try:
                tried = ExperimentCLI(cli.verb, [*words, *setting_words({dimension.name: value})])
                _check(tried)
                tried.check_metrics()
                if isinstance(tried.model, OptimizedModule):
                    tried.model.make_optimizer(tried.model.hparams)
            except UserError as error:
                reason = str(error)
                if reason.startswith(f"--{dimension.name}"):
                    raise UserError(f"--search {reason.removeprefix('--')}") from None
                raise UserError(f"--search {dimension.name}, with {as_word(value)}: {reason}") from None


def _home(cli: ExperimentCLI, words: list[str]) -> Path:
    """The folder of the sweep, that of the experiment which its trials are runs of; only where all is in order."""
    settings = _settings(cli)
    _check(cli)
    searched = [dimension.name for dimension in settings.space]
    for finder in cli.finders():
        if finder.setting in searched:
            name = type(finder).__name__
            raise UserError(f"--search {finder.setting}: {name} finds it in each trial; leave one of the two out")
    runs_dir = Path(cli.config["runs_dir"]) if cli.config["runs_dir"] else default_runs_dir()
    name = experiment_name(cli, words)
    if not option_values(words, "--experiment"):
        name += "_sweep"
    cli.config["experiment"] = name
    if not (runs_dir / name / FOLDER / CONFIG).is_file():
        _try_values(settings, cli, words)
    return runs_dir / name


def _shared(cli: ExperimentCLI) -> dict[str, object]:
    """The configuration of the trials: that of the sweep without what only concerns the whole."""
    config = cli.resolved()
    for name in (*SETTINGS, "experiment", "runs_dir"):
        config.pop(name, None)
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    return config


def _go_on(study: Study, cli: ExperimentCLI, is_named: bool) -> Study:
    """Takes up another number of trials; anything else would mix what can't be compared.

    Args:
        study: The sweep that is there.
        cli: The command line.
        is_named: Whether it names the sweep by `--resume`; otherwise it is that which began the sweep, once more.
    """
    before, now = flatten(study.config), flatten(cli.resolved())
    for name in sorted({**before, **now}):
        if matters(name) and name not in MAY_CHANGE and before.get(name) != now.get(name):
            way = "without it" if is_named else f"by `lightning-cnn sweep --resume {_name(study.home)}`"
            way = "" if name.endswith(".mode") else f"go on {way}, or "  # a sweep with the wrong mode can't
            raise UserError(
                f"--{name} {now.get(name)}: the sweep in {study.home} was begun with {before.get(name)}; {way}"
                "begin another sweep with --experiment NAME"
            )
    _settings(cli)
    if not is_named:
        print(f"resuming the sweep in {study.home}; use another --experiment NAME to start a new one")
    if cli.config["trials"] != study.config["trials"]:
        config = study.config | {"trials": cli.config["trials"]}
        replace_text(study.folder / CONFIG, yaml.safe_dump(config, sort_keys=False))
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


def _results(study: Study) -> str:
    """Draws the pictures; returns the result in words."""
    if not study.finished:
        return f"no trial has finished so far: what they printed is in {study.folder / LOGS}"
    drawn = {"history": figures.history(study), "importance": figures.importance(study)}
    for name, figure in drawn.items():
        if figure is not None:
            plots.save(figure, study.home / f"{name}.png")
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
        f"pictures     {' '.join(f'{study.home}/{name}.png' for name, figure in drawn.items() if figure)}",
        "",
        f"next: lightning-cnn train --config {shlex.quote(str(study.home / BEST))}    lightning-cnn compare "
        f"{shlex.quote(study.home.name)} --sort {shlex.quote(study.monitor)}",
    ]
    return "\n".join(lines)


def _name(home: Path) -> str:
    """What to type to mean the sweep in a folder."""
    return shlex.quote(home.name if home.parent == default_runs_dir() else str(home))
