"""`lightning-cnn filters`: what was drawn."""

from lightning_cnn.cli.parser import parser_for, source_of


def main(verb: str, argv: list[str]) -> int:
    """Writes the figure. Returns the exit code."""
    parser = parser_for(verb, "engine/filters")
    options = parser.parse_args(argv)

    from lightning_cnn.engine.filters import filters

    seen = filters(source_of(options), **parser.arguments(options))
    where = seen.layers[0] if len(seen.layers) == 1 else f"{len(seen.layers)} layers"
    if options.maximize:
        print(f"{where}: images for {len(seen.filters)} filters, seed {seen.seed}, written to {seen.path}")
        strongest, weakest = seen.activations[0], seen.activations[-1]
        print(f"mean activations from {strongest:.3g} (filter {seen.filters[0]}) to {weakest:.3g}")
    else:
        what = "filters" if options.image is None else "maps" if len(seen.layers) == 1 else "maps of each"
        print(f"{where}: {len(seen.filters)} {what}, written to {seen.path}")
    return 0
