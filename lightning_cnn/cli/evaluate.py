"""`lightning-cnn validate` and `lightning-cnn test`: the metrics of a checkpoint."""

from pathlib import Path

from lightning_cnn.cli.metric_table import metric_table
from lightning_cnn.cli.words import read_words
from lightning_cnn.config.schema import TEST, VALIDATE
from lightning_cnn.engine.evaluate import NotRecordedError, evaluate


def main(verb: str, argv: list[str]) -> int:
    """Measures a checkpoint and prints its metrics. Returns the exit code.

    The plain test of a run's best checkpoint, with nothing else typed, becomes part of the run; a test on other data or
    with other settings is only printed.
    """
    words = read_words(TEST if verb == "test" else VALIDATE, argv)
    try:
        metrics, run = evaluate(words.config(), recorded=words.only_names_a_checkpoint)
    except NotRecordedError as error:
        print(metric_table(error.metrics))
        raise
    if metrics:
        print(metric_table(metrics))
    if run:
        print(f"recorded in {Path(words.fields['ckpt_path']).parent.parent}")
    return 0
