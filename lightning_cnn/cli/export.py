"""`lightning-cnn export`: what was written, and how much it differs from torch."""

import shlex

from lightning_cnn.cli.parser import parser_for, source_of
from lightning_cnn.config.shipped import SHIPPED


def main(verb: str, argv: list[str]) -> int:
    """Writes the file. Returns the exit code."""
    parser = parser_for(verb, "engine/export")
    options = parser.parse_args(argv)

    from lightning_cnn.engine.export import export

    found = export(source_of(options), **parser.arguments(options))
    shape = ", ".join(map(str, found.shape))
    print(f"written to {found.path} ({found.size / 1e6:.1f} MB): images (n, {shape}) to {found.output}, for any n")
    print(f"the same as torch: largest difference {found.difference:.1e}, {found.output} reach {found.largest:.3g}")
    if found.path.suffix.lower() == ".onnx":
        script, file = shlex.quote(str(SHIPPED / "onnx_predict.py")), shlex.quote(str(found.path))
        print(f"to use it without torch: python {script} {file} IMAGE")
    return 0
