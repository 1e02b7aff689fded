"""`validate` and `test`: measure a checkpoint. The checkpoint says which model and data; what is typed wins."""

from lightning_cnn.commands.metric_table import metric_table
from lightning_cnn.errors import UserError
from lightning_cnn.wiring import ExperimentCLI, mendable


def main(verb: str, argv: list[str]) -> int:
    """Measures a checkpoint and prints its metrics. Returns the exit code."""
    cli = ExperimentCLI(verb, argv)
    path = cli.config["ckpt_path"]
    if path is None:
        raise UserError(f"which checkpoint? {verb} --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt")
    if verb == "test" and "test" not in getattr(cli.datamodule, "stages", ("test",)):
        raise UserError("the data has no test part: use validate, or add a test/ folder")
    cli.datamodule.prepare_data()
    cli.datamodule.setup(verb)
    callbacks = [*cli.user_callbacks(), *cli.bar()]
    trainer = cli.instantiate_trainer(logger=False, enable_checkpointing=False, callbacks=callbacks)
    measure = trainer.validate if verb == "validate" else trainer.test
    with mendable():
        (metrics,) = measure(cli.model, cli.datamodule, ckpt_path=path, weights_only=True, verbose=False)
    if trainer.is_global_zero:
        print(metric_table(metrics))
    return 0
