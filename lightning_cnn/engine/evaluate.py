"""`validate` and `test`: the metrics of a checkpoint, which names its model and data."""

import os
from pathlib import Path

from lightning_cnn.config.config import Config
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError
from lightning_cnn.figures.callback import Figures
from lightning_cnn.notes import say
from lightning_cnn.resume.processes import on_loopback
from lightning_cnn.tracking.loggers import log_figure, save_table
from lightning_cnn.tracking.run import RunFolder


class NotRecordedError(UserError):
    """The metrics were measured but not recorded in their run.

    Args:
        message: Why not.
        metrics: The metrics.
    """

    def __init__(self, message: str, metrics: dict[str, float]) -> None:
        super().__init__(message)
        self.metrics = metrics


def evaluate(config: Config, *, recorded: bool = False) -> tuple[dict[str, float], RunFolder | None]:
    """Measures a checkpoint.

    Args:
        config: The configuration, of the kind `VALIDATE` or `TEST`; its `ckpt_path` names the checkpoint.
        recorded: Whether the test of a run's best checkpoint becomes part of the run, as if `train` had made it.

    Returns:
        The metrics, and the run in which they were recorded; none in other processes than the first.

    Raises:
        UserError: If there is no checkpoint, the data have no such part, or it does not fit.
    """
    experiment, stage = Experiment(config), config.kind.name
    path, checkpoint = experiment.config["ckpt_path"], experiment.config.checkpoint
    if path is None:
        raise UserError(f"which checkpoint? {stage} with `ckpt_path` runs/EXPERIMENT/RUN/checkpoints/best.ckpt")
    if stage == "test" and "test" not in getattr(experiment.data, "stages", ("test",)):
        raise UserError("the data has no test part: use `validate()`, or add a test/ folder")
    experiment.prepare(stage)
    assert checkpoint is not None
    run = _run_of(path, checkpoint["global_step"]) if recorded and stage == "test" else None
    figures = [Figures(run.folder / "figures", log_figure, save_table)] if run else []
    callbacks = [*experiment.callbacks(), *experiment.bar(), *figures]
    trainer = experiment.trainer(logger=False, enable_checkpointing=False, callbacks=callbacks)
    measure = trainer.validate if stage == "validate" else trainer.test
    with user_errors(), on_loopback(trainer):
        loaders = measure(experiment.model, experiment.data, ckpt_path=path, weights_only=True, verbose=False)
    if not loaders:
        short = "val" if stage == "validate" else stage
        raise UserError(f"nothing was measured: set `trainer.limit_{short}_batches` to more than 0")
    metrics = {name: value for each in loaders for name, value in each.items()}
    if not trainer.is_global_zero:
        return {}, None
    if run:
        try:
            with run.held():  # a training may have gone on with it since
                run.record.metrics |= metrics
                run.save()
        except UserError as error:
            raise NotRecordedError(f"the test was not recorded: {error}", dict(metrics)) from None
    return dict(metrics), run


def _run_of(path: str, step: int) -> RunFolder | None:
    """The finished run whose best checkpoint this is, taken after so many steps."""
    folder = Path(path).resolve().parent.parent
    try:
        run = RunFolder.open(folder)
    except UserError:
        return None
    best = run.record.best.get("checkpoint")
    is_best = best is not None and (folder / str(best)).resolve() == Path(path).resolve()
    # a process that was killed may have written a newer one than its record says
    is_best = is_best and run.record.best.get("step") in (None, step)
    if not is_best or run.status == "running":
        return None
    if not all(os.access(each, os.W_OK | os.X_OK) for each in (folder, folder / "figures") if each.exists()):
        say(f"the test is not recorded: {folder} can't be written", is_warning=True)
        return None
    return run
