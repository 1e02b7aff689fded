"""Monthly returns of stocks, from a file of prices."""

import calendar
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info

from lightning_cnn.datamodules.returns.base import ReturnDataModule
from lightning_cnn.datamodules.returns.file_options import DECIMALS, EXCEL, Decimal, FileOptions, LastMonth, LayoutName
from lightning_cnn.datamodules.returns.panel import Panel, make_panel
from lightning_cnn.datamodules.returns.periods import (
    Period,
    Periods,
    month_name,
    month_span,
    parse_month,
    years_between,
)
from lightning_cnn.datamodules.returns.pictures import SIDE, WINDOW_MONTHS, ReturnPictures
from lightning_cnn.datamodules.returns.price_file import Prices, read_prices
from lightning_cnn.datamodules.returns.recipes import FLAWS, Recipe, settings
from lightning_cnn.datamodules.returns.series import SeriesOptions, read_series
from lightning_cnn.datamodules.returns.summary import check_part, cleaning_report, part_line, ticker_table
from lightning_cnn.datamodules.returns.windows import MONTHS, ReturnWindows, Windows, measure
from lightning_cnn.errors import UserError, check, check_choice, require


class MonthlyReturns(ReturnDataModule):
    """Monthly returns of stocks from a price file: windows of past months, and the return of the next month.

    The recipe `point_in_time` uses only information known at the time: a stock is included in a month if its window
    is complete, clipping and scaling are measured on the training months only, delisted stocks end at their last
    price, and the test months are used for testing only. The return in a month without a price is unknown: such
    windows are excluded, and counted in `without_outcome` and in the printed summary. With monthly prices they
    include the loss of a bankruptcy, unless the file contains it.

    The recipe `book` has the flaws of the book, each of which can be set separately: `clip_with_test`,
    `full_history`, `fill_forward`, `validate_on_test`. Months are always months of the outcome. A price file of
    stocks that exist today is survivor-biased with any recipe.

    Args:
        prices: Price file of daily or monthly closes adjusted for splits and dividends: Parquet, CSV, Feather or Excel,
            wide (a row per date, a column per ticker), long (a row per date and ticker) or of one stock; or a folder of
            such files. The layouts of CRSP, Compustat, yfinance and others are recognized.
        returns: Instead of prices: file of daily or monthly returns in one of these layouts, 0.01 for one per cent.
        date_column: Column of dates; default the one named date, day, month, time, ...
        ticker_column: Column of tickers of a long file; default the one named ticker, symbol, permno, ...
        price_column: Column of prices (or returns) of a long file; default the one named adj_close, close, price, ...
        layout: Layout of the file: wide, long or one_stock; default recognized.
        date_format: Format of the dates, such as %d/%m/%Y; default recognized.
        time_zone: Time zone to which times are converted, such as Asia/Tokyo; default as they are.
        last_month: Whether the last month is finished or unfinished; default finished if at most two weekdays follow
            its last date.
        delisting_return: Return from the last price on of a stock whose prices are 0 from then to its last row; 0 if 0
            means a missing price. Default -1, if no more than a tenth of the stocks end so.
        decimal: Decimal separator of numbers in a text file, comma or point; default recognized.
        leave_out: Tickers to exclude, such as `[TT]`, for example because of wrong prices.
        max_jumps: Number of months in which the price of a stock may rise more than tenfold or fall below a tenth.
            After more of them, all later windows of the stock are excluded. Default 1, in the book's recipe unlimited.
        recipe: `point_in_time`, or `book` with all its flaws.
        lags: Length of a window in months.
        month_dummies: Whether to append twelve dummy variables for the month of the outcome.
        year_dummies: Whether to append a dummy variable for each year from `train_start` to `test_end`; useful only
            inside these years.
        channels: Further series as channels by name, such as `{"volume": {"column": "volume", "monthly": "mean"}}`:
            `file` (default the price file), `column` of a long file (default the name), `monthly` last or mean,
            `decimal` comma or point, `change` true for the relative change (default) or false for the level. A file
            with a single series applies to all tickers.
        picture: Whether to replace windows of months by an image of 15 indicators by 15 periods of 6 to 20 days,
            computed from daily closes (CNN-TA: Sezer and Ozbayoglu 2018). It has one channel, and neither lags nor
            month dummies.
        train_start: First month of training, such as 2010-01; default the first with a complete window.
        train_end: Last month of training, including validation; default the last before the test and its embargo.
        test_start: First month of the test; default the last 12 months.
        test_end: Last month of the test; default the last month of the prices.
        val_months: Number of months for validation, the last ones of training.
        embargo: Months purged between training and validation, and before the test (the gap of scikit-learn); default
            1, in the book's recipe 0.
        clip: Share of the values of each column that is clipped at each end (winsorized).
        scale: Whether to standardize the clipped columns to mean 0 and standard deviation 1; default true, in the
            book's recipe false.
        clip_with_test: Flaw: clipping and scaling are also measured on validation and test months. Default: as in the
            recipe.
        full_history: Flaw: only stocks with prices in all months of training and test are used. Default: as in the
            recipe.
        fill_forward: Flaw: missing prices are filled with the last price, so that delisted stocks have returns of zero.
            Default: as in the recipe.
        validate_on_test: Flaw: the test months are the validation months. Default: as in the recipe.

    Raises:
        UserError: If a value lies outside its range, or the months contradict each other.
    """

    def __init__(
        self,
        prices: str | None = None,
        returns: str | None = None,
        date_column: str | None = None,
        ticker_column: str | None = None,
        price_column: str | None = None,
        layout: LayoutName | None = None,
        date_format: str | None = None,
        time_zone: str | None = None,
        last_month: LastMonth | None = None,
        delisting_return: float | None = None,
        decimal: Decimal | None = None,
        leave_out: list[str] | None = None,
        max_jumps: int | None = None,
        recipe: Recipe = "point_in_time",
        lags: int = 24,
        month_dummies: bool = True,
        year_dummies: bool = False,
        channels: dict[str, SeriesOptions] | None = None,
        picture: bool = False,
        train_start: str | None = None,
        train_end: str | None = None,
        test_start: str | None = None,
        test_end: str | None = None,
        val_months: int = 12,
        embargo: int | None = None,
        clip: float = 0.01,
        scale: bool | None = None,
        clip_with_test: bool | None = None,
        full_history: bool | None = None,
        fill_forward: bool | None = None,
        validate_on_test: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if (prices is None) == (returns is None):
            raise UserError("which file? Set `data.prices` FILE, or `data.returns` FILE, and not both")
        check("data.lags", lags, least=1)
        check("data.clip", clip, least=0, below=0.5)
        if picture and (channels or year_dummies):
            raise UserError("`data.picture` true excludes `data.channels` and `data.year_dummies`: remove them")
        self.lags, self.window_months = (SIDE, WINDOW_MONTHS) if picture else (lags, lags)
        self.month_dummies = month_dummies and not picture
        self.picture = picture
        self.channels = channels or {}
        self.clip = clip
        flaws = dict(zip(FLAWS, (clip_with_test, full_history, fill_forward, validate_on_test), strict=True))
        self.chosen = settings(recipe, embargo=embargo, scale=scale, max_jumps=max_jumps, **flaws)
        self.recipe, self.validate_on_test = recipe, bool(self.chosen["validate_on_test"])
        months = {"train_start": train_start, "train_end": train_end, "test_start": test_start, "test_end": test_end}
        self._periods = Periods(
            **{name: parse_month(name, text) for name, text in months.items()},
            val_months=val_months,
            embargo=self.chosen["embargo"],
            validate_on_test=self.validate_on_test,
        )
        self.prices: Prices | None = None
        self._panel: Panel | None = None
        self._asked: int | None = None
        self.without_outcome: dict[str, int] = {}
        self._left_out = leave_out or []
        if delisting_return is not None:
            check("data.delisting_return", delisting_return, least=-1)
        for field, value, valid in (
            ("layout", layout, ("wide", "long", "one_stock")),
            ("last_month", last_month, ("finished", "unfinished")),
            ("decimal", decimal, DECIMALS),
        ):
            if value is not None:
                check_choice(f"data.{field}", value, valid)
        self._file = str(prices if prices is not None else returns)
        if Path(self._file).suffix.lower() in EXCEL:
            require("excel", self._file)
        columns = date_column, ticker_column, price_column
        self._options = FileOptions(
            *columns, layout, date_format, time_zone, returns is not None, last_month, delisting_return, decimal
        )
        self._years = years_between(train_start, test_end) if year_dummies else []

    @property
    def in_channels(self) -> int:
        """Number of series."""
        return 1 + len(self.channels)

    @property
    def window_length(self) -> int:
        """Length of a window: the lags and the dummies; with `picture` its side."""
        return self.lags + MONTHS * self.month_dummies + len(self._years)

    @property
    def series(self) -> list[str]:
        """Names of the series of a window; the first is the return."""
        return ["return", *self.channels]

    @property
    def columns(self) -> list[str]:
        """Names of the columns of a window: the lags, `lag 1` the month before the outcome, then the dummies."""
        months = list(calendar.month_name)[1:] if self.month_dummies else []
        return [*(f"lag {lag + 1}" for lag in range(self.lags)), *months, *map(str, self._years)]

    def read(self) -> Prices:
        """Reads the prices.

        Raises:
            UserError: If the file is missing or damaged, or has no dates or prices.
        """
        prices = read_prices(self._file, self._options, keep_days=self.picture)
        if self.picture and not prices.daily:
            raise UserError(
                f"`data.picture` true requires daily prices, but {self._file} is monthly: remove it, or use daily "
                "prices"
            )
        return prices.without(self._left_out) if self._left_out else prices

    def describe(self, by_ticker: bool = False) -> pd.DataFrame:
        """What is found in the file, what is taken, and what is skipped and why; nothing is trained.

        Args:
            by_ticker: Whether to give a row for each ticker instead: its first and last month, how many it has, and how
                often each rule met it.

        Returns:
            The columns `item` and `value`; by ticker `ticker`, `first`, `last`, `months`, `end`, and one for each rule.

        Raises:
            UserError: If the file can't be read.
        """
        prices = self.prices or self.read()
        return ticker_table(prices) if by_ticker else prices.report.frame()

    def description(self) -> dict[str, str]:
        """What was found in the file, for the record of a run; empty before it is read."""
        if self.prices is None:
            return {}
        frame = self.prices.report.frame()
        texts: dict[str, str] = {}
        for item, value in zip(frame["item"], frame["value"], strict=True):
            texts[item] = f"{texts[item]}; {value}" if item in texts else value
        return texts | {f"channel {name}": text for name, text in self.read_panel().channels.items()}

    def check_months(self, embargo: int | None, **months: str) -> None:
        """Checks that these months could be trained and tested on, without making the data ready for it.

        Args:
            embargo: Months purged before validation and test; None for those of the data.
            months: `train_start`, `train_end`, `test_start` and `test_end`, which replace those of the data.

        Raises:
            UserError: If the prices can't be used, or leave no windows, or outcomes of one class, in a part.
        """
        blame, before = self.read_panel().blame, self._periods
        given: dict[str, Any] = {name: parse_month(name, text) for name, text in months.items()}
        given |= {} if embargo is None else {"embargo": embargo}
        self._periods = replace(before, **given)
        try:
            for part in ("train", "val", "test"):
                check_part(part, month_span(*self.months_of(part)), self._windows(part), self.window_months, blame)
        finally:
            self._periods = before

    def setup(self, stage: str) -> None:
        """Reads the prices and makes the windows of the stage, once; prints a summary.

        Args:
            stage: `fit`, `validate`, `test` or `predict`, as Lightning says.

        Raises:
            UserError: If the prices can't be used, or leave no windows in a part.
        """
        self._seed_of_run()
        self.read_panel()
        needed = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["predict"]}[stage]
        measured = ["train", "val", "test"] if self.chosen["clip_with_test"] else ["train"]
        if self.validate_on_test:
            measured = [part for part in measured if part != "val"]  # it is the test
        wanted = dict.fromkeys([*needed, *(measured if self.scaling is None else [])])
        new = [part for part in wanted if part not in self._sets]
        self._sets |= {part: self._windows(part) for part in new}
        months = {part: month_span(*self.months_of(part)) for part in wanted}
        for part in needed:
            check_part(part, months[part], self._sets[part], self.window_months, self.read_panel().blame)
        if self.scaling is None:
            self.scaling = measure([self._sets[part] for part in measured], self.clip, self.chosen["scale"])
        shape = self._sets[needed[0]].shape
        if self.scaling.low.shape != shape:
            raise UserError(
                f"the checkpoint was trained on windows of shape {self.scaling.low.shape}, but these have {shape}: "
                "remove options that change it, such as `data.lags`"
            )
        for part in new:
            self._sets[part].scale(self.scaling)
        for part in new:
            rank_zero_info(part_line(part, months[part], self._sets[part], self.without_outcome[part]))

    def read_panel(self) -> Panel:
        """Reads the prices and the further series, once; prints what was found and done.

        Raises:
            UserError: If a file is missing or damaged.
        """
        if self._panel is None:
            prices = self.read()
            given = prices, self._file, self._options
            others = {name: read_series(name, options, *given) for name, options in self.channels.items()}
            how = self.window_months, self.chosen["max_jumps"], self.chosen["fill_forward"], self.picture
            self._panel = make_panel(prices, others, *how)
            flaws = [name for name in FLAWS if self.chosen[name]]
            rank_zero_info(cleaning_report(type(self).__name__, self._panel, self.recipe, flaws))
        self.prices, self.tickers = self._panel.prices, self._panel.prices.tickers
        return self._panel

    def latest_windows(self, month: str | None = None) -> tuple[NDArray[np.float32], list[str], np.datetime64]:
        """Windows for a month, whether or not its outcome is known.

        Args:
            month: Such as `2018-01`; default the month after the prices.

        Returns:
            Windows `(n, channels, length)`, or pictures, clipped and scaled as in the training; the ticker of each, and
            the month.

        Raises:
            UserError: If the prices can't be used, or no stock has a whole window before that month.
        """
        panel = self.read_panel()
        wanted = parse_month("month", month)
        self._asked = panel.last + 1 if wanted is None else wanted
        if not panel.first <= self._asked <= panel.last + 1:
            raise UserError(
                f"`data.month` {month}: the prices go from {month_name(panel.first)} to {month_name(panel.last)}, so "
                f"the latest is {month_name(panel.last + 1)}"
            )
        self._sets.pop("predict", None)
        self.setup("predict")
        windows, _, _ = self.arrays("predict")
        return windows, list(self.frame("predict").ticker), np.datetime64(self._asked, "M")

    def months_of(self, part: str) -> Period:
        """First and last month of outcome of a part, as months since 1970-01.

        Args:
            part: `train`, `val`, `test`, or `predict`: the month after the prices, or that of `latest_windows`.
        """
        panel = self.read_panel()
        if part == "predict":
            month = panel.last + 1 if self._asked is None else self._asked
            return month, month
        return self._periods.parts(panel.first, panel.last, self.window_months)[part]

    def _windows(self, part: str) -> Windows:
        panel, (low, high) = self.read_panel(), self.months_of(part)
        rows = slice(low - panel.first, high + 1 - panel.first)
        outcomes = np.concatenate([panel.returns, np.full_like(panel.returns[:1], np.nan)])[rows]
        whole = panel.whole[rows]
        self.without_outcome[part] = 0
        if part != "predict":
            self.without_outcome[part] = int((whole & ~np.isfinite(outcomes)).sum())
            whole = whole & np.isfinite(outcomes)
            if self.chosen["full_history"]:
                begin, end = self.months_of("train")[0] - self.window_months, self.months_of("test")[1]
                whole &= panel.known[begin - panel.first : end + 1 - panel.first].all(0)
        rows_found, tickers = np.nonzero(whole)
        found = rows_found + low, tickers, outcomes[rows_found, tickers]
        if panel.days is not None:
            return ReturnPictures(panel.days, *found)
        return ReturnWindows(panel.newest_first, panel.last, self.lags, *found, self.month_dummies, self._years)
