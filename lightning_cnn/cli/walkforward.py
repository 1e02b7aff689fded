"""`walkforward`: trains and tests returns fold by fold, and prints what the joined predictions are worth."""

import shlex

from lightning_cnn.cli.report import summary
from lightning_cnn.cli.words import read_words
from lightning_cnn.engine.walkforward import walk_forward
from lightning_cnn.engine.walkforward.settings import WALK_FORWARD


def main(verb: str, argv: list[str]) -> int:
    """Trains all folds that are not finished, and prints the report. Returns the exit code."""
    config, resumed = read_words(WALK_FORWARD, argv).begun()
    found = walk_forward(config, resume=resumed, command=shlex.join(["lightning-cnn", verb, *argv]))
    folder = found.run.folder
    print(f"\n{summary(found.evaluation)}\nrun folder   {folder}\nreport       {folder}/report.html")
    return 0
