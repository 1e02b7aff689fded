"""`lightning-cnn export`: what was written, and how much it differs from torch."""

from lightning_cnn.cli.parser import add_source, parser_for, source_of, values


def main(verb: str, argv: list[str]) -> int:
    """Writes the file. Returns the exit code."""
    parser = parser_for(verb, "engine/export", skip=("source", "trust"))
    add_source(parser)
    options = parser.parse_args(argv)

    from lightning_cnn.engine.export import export

    found = export(source_of(options), **values(options, "engine/export", "export"))
    shape = ", ".join(map(str, found.shape))
    print(f"written to {found.path} ({found.size / 1e6:.1f} MB): images (n, {shape}) to logits, for any n")
    print(f"the same as torch: largest difference {found.difference:.1e}, logits reach {found.largest:.3g}")
    return 0
