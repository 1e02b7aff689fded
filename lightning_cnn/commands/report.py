"""`report`: what predictions of returns are worth, as a table, pictures and one HTML page."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from lightning_cnn.cli import parsers
from lightning_cnn.cli.tables import text_table
from lightning_cnn.config.trust import note_origin
from lightning_cnn.config.user_code import find_user_code
from lightning_cnn.datamodules.returns.monthly_returns import FLAWS
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns import predictions
from lightning_cnn.evaluation.returns.baselines import KINDS
from lightning_cnn.evaluation.returns.measures import Evaluation, Settings, evaluate
from lightning_cnn.evaluation.returns.page import COLUMNS, interval, number, page
from lightning_cnn.figures import returns_report as report_figures
from lightning_cnn.figures.returns_report import title
from lightning_cnn.resume.files import replace_text
from lightning_cnn.tracking.configurations import configurations_tried, read_settings
from lightning_cnn.tracking.run import RECORD, Run, find_run

PREDICTIONS, BASELINES, PAGE = "predictions.parquet", "baselines.parquet", "report.html"
BEST = "checkpoints/best.ckpt"
IN_TERMINAL = ("acc", "auc", "auc_month", "ic", "ic_t", "ic_positive", "sharpe", "sharpe_net", "turnover")


@dataclass(frozen=True)
class Source:
    """What is reported.

    Attributes:
        predictions: The file of predictions.
        heading: What to call it.
        output: The page, where nothing else is said.
        run: The run that made the predictions, where one did.
    """

    predictions: Path
    heading: str
    output: Path
    run: Run | None = None


def main(verb: str, argv: list[str]) -> int:
    """Evaluates predictions and writes the page. Returns the exit code."""
    args = parsers.report(verb).parse_args(argv)
    find_user_code(*args.trust).runs_dirs.add(str(args.runs_dir))
    source = _source(args.source, args.runs_dir)
    settings = Settings(args.cost_bps, args.deciles, args.block_months, args.seed, _trials(source, args))
    evaluation = write_report(source, settings, args.note, args.output)
    print(summary(evaluation))
    print(f"wrote {args.output or source.output}")
    return 0


def write_report(source: Source, settings: Settings, note: str | None, output: Path | None = None) -> Evaluation:
    """Evaluates predictions; writes the pictures into `figures/` and the page beside it.

    Args:
        source: What is reported.
        settings: How it is evaluated.
        note: What must be read beside every number; None takes that of the run.
        output: The page; None takes that of the source.

    Raises:
        UserError: If the predictions can't be read or evaluated, or nothing can be written.
    """
    path = output or source.output
    rows = predictions.read_predictions(source.predictions)
    file = source.predictions.with_name(BASELINES)
    others = predictions.read_baselines(file, rows) if file.is_file() else None
    evaluation = evaluate(predictions.panel(rows, others, KINDS), settings)
    facts, known_note = _facts(source)
    notes = [text for text in (note or known_note, evaluation.warning()) if text]
    hint = "choose another place with --output"
    pictures = report_figures.save(report_figures.figures(evaluation), path.parent / "figures", hint)
    replace_text(path, page(evaluation, pictures, source.heading, facts, notes), hint)
    return evaluation


def summary(evaluation: Evaluation) -> str:
    """The table for the terminal."""
    chosen = [column for column in COLUMNS if column[2] in IN_TERMINAL]
    head = [
        f"{name} {small.split(',')[0]}" if name in ("AUC", "Sharpe", "return") else name for name, small, _, _ in chosen
    ]
    rows = [["", *head, "95 % interval"]]
    for method in evaluation.methods:
        values = [number(method.numbers[name], form) for _, _, name, form in chosen]
        rows.append([title(method.name), *values, interval(method)])
    found, settings = evaluation.model.numbers, evaluation.settings
    lines = [
        text_table(rows, right=[False, *[True] * (len(head) + 1)]),
        "",
        f"{len(evaluation.months)} months, {evaluation.months[0]} to {evaluation.months[-1]}, "
        f"{evaluation.stocks.sum():,} predictions; up-rate {100 * evaluation.up_rate:.2f} %; "
        f"net of {settings.cost_bps:g} basis points",
    ]
    if math.isfinite(found["deflated"]):
        tried = f"{settings.trials} configuration{'s' * (settings.trials != 1)} tried on these data"
        lines.append(f"deflated Sharpe ratio {found['deflated']:.1%} ({tried})")
    if evaluation.dead:
        lines.append(f"AUC without dead stocks {found['auc_alive']:.4f}, with them {found['auc']:.4f}")
    if evaluation.lost:
        lines.append(f"left out, because the stock has no price in the month: {evaluation.lost:,} further predictions")
    if warning := evaluation.warning():
        lines.append(f"warning: {warning}")
    return "\n".join(lines)


def run_source(run: Run) -> Source:
    """A run as a source; one without predictions makes them first, from its best checkpoint.

    Raises:
        UserError: If it has neither.
    """
    if not (run.folder / PREDICTIONS).is_file():
        if not (run.folder / BEST).is_file():
            raise UserError(f"{run.folder} has no predictions and no checkpoint to make them with: train it to its end")
        from lightning_cnn.engine.walkforward.predictions import predict_test  # torch, only where it is needed

        predict_test(run)
    return Source(run.folder / PREDICTIONS, f"{run.record.name}/{run.record.id}", run.folder / PAGE, run)


def _source(name: str, runs_dir: Path) -> Source:
    path = Path(name)
    if path.is_file() or path.suffix == ".parquet":
        run = Run.open(path.parent) if (path.parent / RECORD).is_file() else None
        return Source(path, path.stem, Path(PAGE), run)
    run = find_run(runs_dir, name)
    note_origin(run.folder, is_config=True)
    return run_source(run)


def _trials(source: Source, args: argparse.Namespace) -> int:
    if args.trials is not None:
        return int(args.trials)
    if source.run is None:
        return 1
    return configurations_tried(source.run, args.runs_dir)


def _facts(source: Source) -> tuple[list[str], str | None]:
    """Where the predictions come from, and what the run's user noted about them."""
    if source.run is None:
        return [f"Predictions: {source.predictions}."], None
    record, settings = source.run.record, read_settings(source.run.folder)
    flaws = [name for name in FLAWS if settings.get(f"data.{name}") is True]
    lines = [f"Command: {record.command}"]
    if settings.get("data.recipe"):
        lines.append(f"Data: {settings.get('data')}, recipe {settings['data.recipe']}.")
    if flaws:
        lines.append(f"Flaws that were switched on: {', '.join(flaws)}.")
    if settings.get("scheme"):
        lines.append(
            f"Walk-forward: {settings['scheme']} windows, {settings.get('test_months')} months a test, "
            f"{settings.get('embargo')} months left out before it; every prediction comes from a network that was "
            "trained, and whose data were scaled, on earlier months alone."
        )
    if record.parameters:
        lines.append(f"Network: {settings.get('model.architecture')}, {record.parameters:,} parameters.")
    return lines, str(settings["note"]) if settings.get("note") else None
