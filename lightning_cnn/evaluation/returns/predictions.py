"""Files of predictions: Parquet with the columns date, ticker, prediction and outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_cnn.dates import NEVER, find_form
from lightning_cnn.errors import UserError

Floats = NDArray[np.float64]
Kind = Literal["probability", "score", "rank"]
KEYS = ["date", "ticker"]
COLUMNS = [*KEYS, "prediction", "outcome"]
KIND = "kind"  # in `attrs` of the frame, which pandas writes into the file: probability, score or rank
LOST = "without_outcome"  # in `attrs`, too: predictions that were left out because the stock has no price in the month
EVEN = 5  # stocks of a month at least, of which percentile ranks are told from probabilities
MODEL = "model"  # what the predictions themselves are called in tables


@dataclass(frozen=True)
class Panel:
    """Predictions and outcomes as tables of months and tickers, NaN where there is no prediction.

    Attributes:
        months: Months of outcome, sorted, `(months,)`.
        tickers: The tickers, sorted.
        outcomes: Returns of those months, `(months, tickers)`.
        predictions: Of each method, the model first, the same shape.
        kinds: What each method predicts: probabilities of a positive outcome, scores (above 0 means up), or ranks.
        lost: Number of further windows without an outcome, because their stock has no price in the month.
    """

    months: NDArray[np.datetime64]
    tickers: NDArray[np.object_]
    outcomes: Floats
    predictions: dict[str, Floats]
    kinds: dict[str, Kind]
    lost: int = 0


def read_predictions(path: Path) -> pd.DataFrame:
    """Reads and checks a file of predictions.

    Args:
        path: Parquet with the columns `date` (any day of the month of outcome), `ticker`, `prediction` and `outcome`
            (the return of that month, 0.01 is one per cent).

    Raises:
        UserError: If it can't be read, lacks a column, or contains values that can't be evaluated.
    """
    return checked(_read(path, COLUMNS), path)


def checked(frame: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The rows of a frame of predictions, sorted by month and ticker.

    Raises:
        UserError: If there are no rows, rows twice, missing numbers or outcomes of one class only.
    """
    if frame.empty:
        raise UserError(f"{source} has no rows: there is nothing to report")
    try:
        dates = month_of(frame["date"])
        numbers = frame[["prediction", "outcome"]].astype(np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"{source}: date must hold dates, prediction and outcome numbers ({error})") from None
    finite = np.isfinite(numbers.to_numpy()).all(1) & ~np.isnat(dates)
    if not finite.all():
        raise UserError(
            f"{source} has {np.sum(~finite):,} of {len(frame):,} rows without a date or a finite prediction and "
            "outcome: leave them out"
        )
    months = dates
    tidy = pd.DataFrame({"date": months.astype("datetime64[ns]"), "ticker": frame["ticker"].astype(str).to_numpy()})
    tidy[["prediction", "outcome"]] = numbers.to_numpy()
    if (twice := int(tidy.duplicated(KEYS).sum())) > 0:
        raise UserError(f"{source} has {twice:,} rows with the same month and ticker: keep one prediction each")
    up = tidy["outcome"] > 0
    if up.all() or not up.any():
        raise UserError(
            f"{source}: all {len(tidy):,} outcomes are {'above 0' if up.all() else '0 or below'}, one class only: add "
            "months"
        )
    if frame.attrs.get(KIND) == "probability" and not tidy["prediction"].between(0, 1).all():
        raise UserError(
            f"{source} declares probabilities, but its predictions range from "
            f"{tidy['prediction'].min():.3g} to {tidy['prediction'].max():.3g}: apply the sigmoid to them first"
        )
    tidy.attrs = dict(frame.attrs)
    return tidy.sort_values(KEYS, ignore_index=True)


def read_baselines(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The predictions of the baselines, one column each, in the order of some rows.

    Args:
        path: Parquet with the columns `date`, `ticker` and one for each baseline.
        rows: What `read_predictions` gave.

    Raises:
        UserError: If it can't be read, or has other rows.
    """
    frame = _read(path, KEYS)
    frame["date"] = month_of(frame["date"]).astype("datetime64[ns]")
    frame["ticker"] = frame["ticker"].astype(str)
    joined = rows[KEYS].merge(frame, on=KEYS, how="left", validate="one_to_one", indicator=True)
    if len(frame) != len(rows) or (joined.pop("_merge") != "both").any():
        raise UserError(f"{path} does not have the rows of the predictions: remove it, or write both again")
    return joined.drop(columns=KEYS)


def month_of(dates: pd.Series) -> NDArray[np.datetime64]:
    """The month of each date, datetime64[M], NaT where there is none.

    Args:
        dates: Dates, timestamps (of a time zone: those of that zone), periods, texts, or numbers such as 20171229.

    Raises:
        UserError: If they can be read in two ways.
    """
    import pyarrow as pa

    if isinstance(dates.dtype, pd.PeriodDtype):
        dates = dates.dt.to_timestamp(how="end").dt.normalize()
    values = pa.array(dates, from_pandas=True)
    days = find_form(values).days(values)
    months = np.where(days == NEVER, 0, days).astype("datetime64[D]").astype("datetime64[M]")
    months[days == NEVER] = np.datetime64("NaT")
    return months


def panel(rows: pd.DataFrame, baselines: pd.DataFrame | None = None, kinds: Mapping[str, Kind] | None = None) -> Panel:
    """Predictions as tables of months and tickers.

    Args:
        rows: What `read_predictions` gave.
        baselines: Further methods, one column each, in the same order.
        kinds: What each method predicts; by default, it is inferred from the file or the values.
    """
    row, months = pd.factorize(rows["date"], sort=True)
    column, tickers = pd.factorize(rows["ticker"], sort=True)

    def table(values: pd.Series) -> Floats:
        filled = np.full((len(months), len(tickers)), np.nan)
        filled[row, column] = values.to_numpy(np.float64)
        return filled

    methods = {MODEL: rows["prediction"]}
    if baselines is not None:
        methods |= {str(name): baselines[name] for name in baselines.columns}
    told: dict[str, Kind] = {MODEL: rows.attrs[KIND]} if KIND in rows.attrs else {}
    told |= kinds or {}
    return Panel(
        months=months.to_numpy().astype("datetime64[M]"),
        tickers=np.asarray(tickers, dtype=object),
        outcomes=table(rows["outcome"]),
        predictions={name: table(values) for name, values in methods.items()},
        kinds={name: told.get(name) or _guess(values, rows["date"]) for name, values in methods.items()},
        lost=int(rows.attrs.get(LOST, 0)),
    )


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except Exception as error:  # pyarrow and pandas raise nearly everything at a damaged file
        raise UserError(f"{path} can't be read as Parquet ({' '.join(str(error).split())[:100]})") from None
    frame = frame.reset_index() if set(columns) & set(frame.index.names) else frame
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: it needs {', '.join(columns)}, "
            f"and has {', '.join(map(str, frame.columns[:8]))}"
        )
    return frame


def _guess(values: pd.Series, dates: pd.Series) -> Kind:
    """Probabilities lie between 0 and 1 and are not all below a half, as returns would be.

    So do percentile ranks: in each month these are evenly spread from about 0 to 1.
    """
    if not values.between(0, 1).all() or values.max() <= 0.5:
        return "score"
    place = (values.groupby(dates).rank() - 0.5) / values.groupby(dates).transform("size")
    several = values.groupby(dates).transform("size") >= EVEN
    is_rank = several.any() and bool(
        ((values - place).abs()[several] < 1 / values.groupby(dates).transform("size")[several]).all()
    )
    return "rank" if is_rank else "probability"
