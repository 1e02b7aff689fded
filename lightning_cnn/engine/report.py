"""`report`: what predictions of returns are worth, in numbers, figures and one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_cnn.config.trust import note_origin
from lightning_cnn.datamodules.returns.recipes import FLAWS
from lightning_cnn.engine.return_predictions import predict_test
from lightning_cnn.errors import UserError, require
from lightning_cnn.evaluation.returns import predictions
from lightning_cnn.evaluation.returns.baselines import KINDS
from lightning_cnn.evaluation.returns.measures import Evaluation, Settings, evaluate
from lightning_cnn.evaluation.returns.page import figures, page
from lightning_cnn.figures.style import encode
from lightning_cnn.resume.files import check_writable, make_folder, replace_bytes, replace_text
from lightning_cnn.tracking.configurations import configurations_tried, read_settings
from lightning_cnn.tracking.record import BASELINES, PREDICTIONS, RECORD, default_runs_dir
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import find_run
from lightning_cnn.user_code import find_user_code

PAGE = "report.html"


@dataclass(frozen=True)
class Source:
    """What is reported.

    Attributes:
        predictions: The file of predictions.
        heading: What to call it.
        output: The page.
        run: The run that made the predictions, where one did.
    """

    predictions: Path
    heading: str
    output: Path
    run: RunFolder | None = None


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        evaluation: Its numbers.
        page: The page.
    """

    evaluation: Evaluation
    page: Path

    @property
    def frame(self) -> pd.DataFrame:
        """The numbers of the methods: a row for each, the model first, a column for each number."""
        methods = self.evaluation.methods
        return pd.DataFrame([method.numbers for method in methods], pd.Index([m.name for m in methods], name="method"))


def report(
    source: str | Path | RunFolder,
    *,
    cost_bps: float = 10.0,
    deciles: int = 10,
    block_months: int = 6,
    seed: int = 0,
    trials: int | None = None,
    note: str | None = None,
    output: str | Path | None = None,
    trust: Sequence[str] = (),
    runs_dir: str | Path | None = None,
) -> Report:
    """Evaluates predictions of monthly returns.

    Rank IC, AUC within months, deciles, and a long-short portfolio with costs, compared with baselines. Writes
    figures to figures/ and a self-contained HTML page.

    Args:
        source: A run of `walkforward` or `train` (of a training, its test months), or a Parquet file with the columns
            date, ticker, prediction, outcome; a baselines.parquet beside it is reported, too.
        cost_bps: Cost of trading, in basis points of its value.
        deciles: Number of groups of stocks.
        block_months: Block length of the bootstrap in months.
        seed: Seed of the bootstrap.
        trials: Number of configurations tried, for the deflated Sharpe ratio (default: the different ones among the
            runs on the same data).
        note: Caveat shown at the top of the report, such as 'survivor-biased: only ...'.
        output: The page (default: report.html, in the folder of the run).
        trust: Modules that runs from outside your runs directories may import, which runs their code.
        runs_dir: Folder of all runs (default: $LIGHTNING_CNN_RUNS or runs).

    Raises:
        UserError: If there is no such run or file, the predictions can't be evaluated, or nothing can be written.
    """
    require("returns", "`report()`")
    own = Path(runs_dir or default_runs_dir())
    find_user_code(*trust).runs_dirs.add(str(own))
    found = _source(source, own)
    if output is not None:
        found = replace(found, output=Path(output))
    if trials is None:
        runs = found.run.folder.resolve().parent.parent if found.run and runs_dir is None else own
        trials = 1 if found.run is None else configurations_tried(found.run, runs)
    settings = Settings(cost_bps, deciles, block_months, seed, trials)
    return Report(write_report(found, settings, note), found.output)


def write_report(source: Source, settings: Settings, note: str | None) -> Evaluation:
    """Evaluates predictions; writes the figures into `figures/` and the page beside it.

    Args:
        source: What is reported.
        settings: How it is evaluated.
        note: Caveat shown at the top of the report; None takes that of the run.

    Raises:
        UserError: If the predictions can't be read or evaluated, or nothing can be written.
    """
    hint = "choose another place with `output`"
    check_writable(source.output, hint)  # before all the work
    rows = predictions.read_predictions(source.predictions)
    file = source.predictions.with_name(BASELINES)
    others = predictions.read_baselines(file, rows) if file.is_file() else None
    evaluation = evaluate(predictions.panel(rows, others, KINDS), settings)
    facts, known_note = _facts(source)
    notes = [text for text in (note or known_note, evaluation.warning()) if text]
    images = {name: encode(figure) for name, figure in figures(evaluation).items()}
    folder = source.output.parent / "figures"
    make_folder(folder, hint)
    for name, content in images.items():
        replace_bytes(folder / f"{name}.png", content, hint)
    replace_text(source.output, page(evaluation, images, source.heading, facts, notes), hint)
    return evaluation


def run_source(run: RunFolder) -> Source:
    """A run as a source; one without predictions makes them first, from its best checkpoint.

    Raises:
        UserError: If it has neither.
    """
    if not (run.folder / PREDICTIONS).is_file():
        if not run.checkpoint("best").is_file():
            raise UserError(f"{run.folder} has no predictions and no checkpoint: finish its training")
        predict_test(run)
    return Source(run.folder / PREDICTIONS, run.label, run.folder / PAGE, run)


def _source(given: str | Path | RunFolder, runs_dir: Path) -> Source:
    if isinstance(given, RunFolder):
        run = given
    elif (path := Path(given)).is_file() or path.suffix == ".parquet":
        maker = RunFolder.open(path.parent) if (path.parent / RECORD).is_file() else None
        return Source(path, path.stem, Path(PAGE), maker)
    else:
        run = find_run(runs_dir, str(given))
    note_origin(run.folder, is_config=True)
    return run_source(run)


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
            f"Walk-forward: {settings['scheme']} windows, {_months(settings.get('test_months'))} a test, "
            f"{_months(_embargo(settings))} purged before it; every prediction comes from a network that was "
            "trained, and whose data were scaled, on earlier months alone."
        )
    lines += [f"{name[:1].upper()}{name[1:]}: {text}." for name, text in record.data.items()]
    if record.parameters:
        lines.append(f"Network: {settings.get('model.architecture')}, {record.parameters:,} parameters.")
    return lines, str(settings["note"]) if settings.get("note") else None


def _embargo(settings: Mapping[str, Any]) -> int:
    """The months between training and test: those of the walk-forward, or of the data where these are more."""
    return max(int(settings.get(name) or 0) for name in ("embargo", "data.embargo"))


def _months(count: object) -> str:
    return "1 month" if count == 1 else f"{count} months"
