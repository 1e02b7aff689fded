"""`validate` and `test`: measure a checkpoint. The checkpoint says which model and data; what is typed wins."""

from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from lightning_cnn.callbacks import Figures
from lightning_cnn.cli.metric_table import metric_table
from lightning_cnn.engine.wiring import ExperimentCLI, mendable
from lightning_cnn.errors import UserError
from lightning_cnn.resume.processes import on_loopback
from lightning_cnn.tracking.run import Run


def main(verb: str, argv: list[str]) -> int:
    """Measures a checkpoint and prints its metrics. Returns the exit code.

    The plain test of a run's best checkpoint, with nothing else typed, becomes part of the run, as if `train` had made
    it; a test on other data or with other settings is only printed.
    """
    cli = ExperimentCLI(verb, argv)
    path = cli.config["ckpt_path"]
    if path is None:
        raise UserError(f"which checkpoint? {verb} --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt")
    if verb == "test" and "test" not in getattr(cli.datamodule, "stages", ("test",)):
        raise UserError("the data has no test part: use validate, or add a test/ folder")
    cli.datamodule.prepare_data()
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # of several processes one reads
        with mendable():
            cli.datamodule.setup(verb)
    assert cli.checkpoint is not None
    run = (
        _run_of(path, cli.checkpoint["global_step"])
        if verb == "test" and argv in (["--ckpt_path", path], [f"--ckpt_path={path}"])
        else None
    )
    callbacks = [*cli.user_callbacks(), *cli.bar(), *([Figures(run.folder)] if run else [])]
    trainer = cli.instantiate_trainer(logger=False, enable_checkpointing=False, callbacks=callbacks)
    measure = trainer.validate if verb == "validate" else trainer.test
    with mendable(), on_loopback(trainer):
        (metrics,) = measure(cli.model, cli.datamodule, ckpt_path=path, weights_only=True, verbose=False)
    if trainer.is_global_zero:
        print(metric_table(metrics))
        if run:
            try:
                with run.held():  # a training may have gone on with it since
                    run.record.metrics |= metrics
                    run.save()
            except UserError as error:
                raise UserError(f"the test was not recorded: {error}") from None
            print(f"recorded in {Path(path).parent.parent}")
    return 0


def _run_of(path: str, step: int) -> Run | None:
    """The finished run whose best checkpoint this is, taken after so many steps."""
    folder = Path(path).resolve().parent.parent
    try:
        run = Run.open(folder)
    except UserError:
        return None
    best = run.record.best.get("checkpoint")
    is_best = best is not None and (folder / str(best)).resolve() == Path(path).resolve()
    # a process that was killed may have written a newer one than its record says
    is_best = is_best and run.record.best.get("step") in (None, step)
    return run if is_best and run.status != "running" else None
