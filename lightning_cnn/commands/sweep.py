"""`sweep`: trains again and again with other settings, and keeps those whose validation metric is best."""

import json
import os
import shutil
from pathlib import Path

import torch
import yaml

from lightning_cnn import plots
from lightning_cnn.commands.sweep_jobs import LOGS, run_jobs, work
from lightning_cnn.commands.sweep_slurm import show_script, submit_jobs, take_launcher
from lightning_cnn.config_parser import option_values, without_option
from lightning_cnn.errors import UserError
from lightning_cnn.interruption import Interrupted
from lightning_cnn.modules.optimization import OptimizedModule
from lightning_cnn.sweeps import figures
from lightning_cnn.sweeps.search_space import as_word
from lightning_cnn.sweeps.settings import SETTINGS, SweepSettings
from lightning_cnn.sweeps.study import BEST, FOLDER, NUMBER, Study, find_study, setting_words
from lightning_cnn.tracking.run import CONFIG, RUN_FOLDER, default_runs_dir, replace_text
from lightning_cnn.tracking.settings import flatten, matters
from lightning_cnn.tracking.wandb_run import choose_mode
from lightning_cnn.wiring import ExperimentCLI, experiment_name

MAY_CHANGE = ("trials", "jobs")  # when a sweep goes on


def main(verb: str, argv: list[str]) -> int:
    """Trains the trials that are left, and writes what came of all. Returns the exit code."""
    slurm, words = take_launcher(verb, _one_search(argv))
    resumed = None
    if "--resume" in words or option_values(words, "--resume"):
        resumed, words = _resume(words)
    cli = ExperimentCLI(verb, words)
    home = _new_home(cli, words) if resumed is None else resumed.home
    if slurm and slurm.dry_run:
        show_script(slurm, home, cli.config["jobs"])
        return 0
    if resumed is None:
        choose_mode(cli.config["wandb"])  # what can't be tracked shows now, not in each trial
        study = Study.create(home, cli.resolved(), _shared(cli))
    else:
        study = _go_on(resumed, cli)
    left = study.left()
    jobs = min(cli.config["jobs"], left)
    print(f"{study.settings.trials} trials in {home}, {left} of them to be trained", flush=True)
    if slurm and left:
        submit_jobs(slurm, home, jobs)
        return 0
    try:
        codes = _train(study, jobs)
    except (Interrupted, KeyboardInterrupt):
        print(f"go on with: lightning-cnn sweep --resume {_name(study)}")
        raise
    _check_end(study, codes, is_new=resumed is None)
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
    return study, ["--config", str(study.folder / CONFIG), *without_option(words, "--resume")]


def _settings(cli: ExperimentCLI) -> SweepSettings:
    return SweepSettings(**{name: cli.config[name] for name in SETTINGS})


def _check(cli: ExperimentCLI) -> None:
    """Refuses what can't be searched, and what would let the test data choose."""
    config = cli.config
    if os.environ.get(RUN_FOLDER):
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
                if isinstance(tried.model, OptimizedModule):
                    tried.model.make_optimizer(tried.model.hparams)
            except UserError as error:
                reason = str(error)
                if reason.startswith(f"--{dimension.name}"):
                    raise UserError(f"--search {reason.removeprefix('--')}") from None
                raise UserError(f"--search {dimension.name}, with {as_word(value)}: {reason}") from None


def _new_home(cli: ExperimentCLI, words: list[str]) -> Path:
    """The folder of a new sweep, that of the experiment which its trials are runs of; only where all is in order."""
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
    home = runs_dir / name
    if (home / FOLDER / CONFIG).is_file():
        before = Study(home)
        if before.finished or before.at_work():
            raise UserError(
                f"{home} has a sweep already: go on with it by `lightning-cnn sweep --resume {name}`, "
                "or give this one a name with --experiment NAME"
            )
    _try_values(settings, cli, words)
    cli.config["experiment"] = name
    return home


def _shared(cli: ExperimentCLI) -> dict[str, object]:
    """The configuration of the trials: that of the sweep without what only concerns the whole."""
    config = cli.resolved()
    for name in (*SETTINGS, "experiment", "runs_dir"):
        config.pop(name, None)
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    return config


def _go_on(study: Study, cli: ExperimentCLI) -> Study:
    """Takes up another number of trials; anything else would mix what can't be compared."""
    before, now = flatten(study.config), flatten(cli.resolved())
    for name in sorted({**before, **now}):
        if matters(name) and name not in MAY_CHANGE and before.get(name) != now.get(name):
            raise UserError(
                f"--{name} {now.get(name)}: the sweep in {study.home} was begun with {before.get(name)}; go on without "
                "it, or begin another sweep with --experiment NAME"
            )
    _settings(cli)
    if cli.config["trials"] != study.config["trials"]:
        config = study.config | {"trials": cli.config["trials"]}
        replace_text(study.folder / CONFIG, yaml.safe_dump(config, sort_keys=False))
    return Study(study.home)


def _train(study: Study, jobs: int) -> list[int]:
    """Trains what is left; returns the exit codes of the processes."""
    if jobs < 2:
        work(study.home)
        return [0]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return run_jobs(study.home, jobs, visible.split(",")[:count] if visible else [*map(str, range(count))])


def _check_end(study: Study, codes: list[int], is_new: bool) -> None:
    """Says so where a sweep has not come to its end, or to nothing."""
    if reason := study.hopeless():
        if is_new and not any(study.run_folder(trial).is_dir() for trial in study.trials):
            shutil.rmtree(study.folder)
            if not any(study.home.iterdir()):
                study.home.rmdir()
        raise UserError(f"every trial so far has failed: {reason}")
    if not study.finished and not study.left():
        raise UserError(f"no trial has finished: what they printed is in {study.folder / LOGS}")
    if any(codes) and study.left():
        raise UserError(
            f"a process ended with code {next(filter(None, codes))}, perhaps for want of memory (-9): "
            f"go on with fewer --jobs, lightning-cnn sweep --resume {_name(study)} --jobs 1"
        )


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
        f"next: lightning-cnn train --config {study.home / BEST}    lightning-cnn compare {study.home.name} "
        f"--sort {study.monitor}",
    ]
    return "\n".join(lines)


def _name(study: Study) -> str:
    """What to type to mean this sweep."""
    return study.home.name if study.home.parent == default_runs_dir() else str(study.home)
