"""What a sweep refuses before its first trial."""

from pathlib import Path

from lightning_cnn.cluster.slurm import Slurm
from lightning_cnn.config.config import Config
from lightning_cnn.config.layers import last_given
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.parts import check_parts
from lightning_cnn.engine.sweep.search_space import as_word, extremes, setting
from lightning_cnn.engine.sweep.settings import SweepSettings, settings_of
from lightning_cnn.engine.sweep.study import FOLDER, Study
from lightning_cnn.errors import UserError
from lightning_cnn.modules.base import LOSS_OPTIONS
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking.record import CONFIG, given_folder


def ready(config: Config, resume: Study | None, slurm: Slurm | None) -> tuple[Experiment, Path]:
    """The experiment and the folder of the sweep; only where all is in order."""
    if slurm and (slurm.nodes != 1 or slurm.processes != 1):
        raise UserError(
            "`nodes`, `gpus_per_node`, `tasks_per_node`: each trial is trained on one device, so at most 1 of each; "
            "`jobs` trains several trials in parallel"
        )
    experiment = Experiment(config)
    experiment.check()
    return experiment, resume.home if resume else _new_home(experiment)


def _new_home(experiment: Experiment) -> Path:
    """The folder of the sweep, that of the experiment which its trials are runs of."""
    settings = settings_of(experiment.config.values)
    _check(experiment)
    for finder in experiment.finders():
        if finder.setting in settings.space:
            name = type(finder).__name__
            raise UserError(f"`search` {finder.setting}: {name} sets it in each trial; remove one of the two")
    config = experiment.config
    name = experiment.name()
    if last_given([layer for layer in config.layers if layer.file is None], "experiment") is None:
        name += "_sweep"
    experiment.set(experiment=name)
    home = config.runs_dir / name
    if not (home / FOLDER / CONFIG).is_file():
        _try_values(settings, config)
    return home


def _check(experiment: Experiment) -> None:
    """Refuses what can't be searched, and what would let the test data choose."""
    if given_folder():
        raise UserError(f"${RUN_FOLDER} names the folder of one run: unset it for a sweep, which has many")
    monitor = str(experiment.config["checkpoint"]["monitor"])
    if not monitor.startswith("val"):
        raise UserError(f"`checkpoint.monitor` {monitor}: expected a validation metric, such as val/loss or val/acc")
    if getattr(experiment.data, "validate_on_test", False):
        raise UserError("the data validate on the test months, so the test would select the settings: use other data")
    quick = "keeps nothing to choose from: try `trials` 2 `trainer.max_epochs` 1"
    check_parts(experiment.config, "trial", quick, "`model.weights` FILE gives them weights to start from")


def _try_values(settings: SweepSettings, config: Config) -> None:
    """Makes model and data with each choice and with the ends of each range, so that a refused one shows now."""
    for name, where in settings.space.items():
        if name in LOSS_OPTIONS and config["checkpoint"]["monitor"] == "val/loss":
            raise UserError(
                f"`search` {name}: the val/loss of different losses can't be compared; choose by another metric with "
                "`checkpoint.monitor`, such as val/mae, val/iou or val/ic"
            )
        for value in extremes(where):
            try:
                tried = Experiment(config.override(setting(name, value)))
                _check(tried)
                tried.check()
            except UserError as error:
                reason = str(error)
                if reason.startswith(f"`{name}`"):
                    raise UserError(f"`search` {name}{reason.removeprefix(f'`{name}`')}") from None
                raise UserError(f"`search` {name}, with {as_word(value)}: {reason}") from None
