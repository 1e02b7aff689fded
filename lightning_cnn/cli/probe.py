"""`lightning-cnn probe`: the accuracy of a classifier on a file of features."""

import json

from lightning_cnn.cli.parser import parser_for
from lightning_cnn.cli.tables import text_table
from lightning_cnn.tracking.record import finite


def main(verb: str, argv: list[str]) -> int:
    """Prints the accuracies. Returns the exit code."""
    parser = parser_for(verb, "engine/probe")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)

    from lightning_cnn.engine.probe import probe

    found = probe(**parser.arguments(options))
    if options.json:
        names = ("features", "train_images", "source", "accuracy", "images", "seconds")
        result = {"method": found.method, found.chosen: found.value} | {name: getattr(found, name) for name in names}
        print(json.dumps(finite(result), indent=2, allow_nan=False))
        return 0
    chosen = f"{found.chosen} {found.value}"
    if len(found.scores) > 1:
        chosen += f", the best of {', '.join(f'{value} ({score:.4f})' for value, score in found.scores.items())}"
        chosen += " on validation"
    print(f"{found.method} on {found.features:,} features of {found.train_images:,} training images; {chosen}")
    lines = [[part, f"{found.images[part]:,}", f"{accuracy:.4f}"] for part, accuracy in found.accuracy.items()]
    print(text_table([["", "images", "acc"], *lines], right=[False, True, True]))
    print(f"time {found.seconds:.1f} s")
    return 0
