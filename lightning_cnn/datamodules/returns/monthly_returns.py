"""Monthly returns of stocks, from a file of prices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info

from lightning_cnn.datamodules.returns.base import ReturnDataModule
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
from lightning_cnn.datamodules.returns.summary import check_part, cleaning_report, part_line
from lightning_cnn.datamodules.returns.windows import MONTHS, ReturnWindows, Windows, measure
from lightning_cnn.errors import UserError, check


class MonthlyReturns(ReturnDataModule):
    """Monthly returns of stocks from a price file: windows of past months, and the return of the month that follows.

    The recipe `honest` looks at nothing that was not known at the time: a stock counts in a month if its own window of
    months is complete, clipping and scaling are measured on the training months alone, stocks that stop trading end
    there, and the test months are used for nothing else. Only what a stock earned in a month without a price can't be
    known: such windows are left out, and counted in `without_outcome` and in what is printed; with monthly prices the
    loss of a bankruptcy is among them, unless the file has it.

    The recipe `book` has the flaws of the book, each of which can be switched by itself: `clip_with_test`,
    `full_history`, `fill_forward`, `validate_on_test`. Months are always months of outcome. A price file of stocks that
    exist today is survivor-biased whatever the recipe.

    Args:
        prices: Price file, Parquet or CSV, wide (a row a date, a column a ticker) or long (a row a date and ticker),
            daily or monthly, of closes adjusted for splits and dividends.
        date_column: The column of dates; default the one called date, day, month, time, ...
        ticker_column: The column of tickers of a long file; default the one called ticker, symbol, permno, ...
        price_column: The column of prices of a long file; default the one called adj_close, close, price, ...
        leave_out: Tickers to leave out, such as `[TT]`, because their prices are wrong.
        max_jumps: In how many months the price of a stock may grow more than tenfold, or fall below a tenth; after
            more of them its prices are not trusted, and no later window of it counts. Default 1, in the book's recipe
            any number.
        recipe: `honest`, or `book` with all its flaws.
        lags: Months of a window.
        month_dummies: Whether twelve numbers follow the lags, 1 for the month of the outcome and else 0.
        year_dummies: Whether numbers follow, too, one for each year from `train_start` to `test_end`, 1 for the year of
            the outcome and else 0: of use only inside these years.
        channels: Further series as channels by name, such as `{"volume": {"column": "volume", "monthly": "mean"}}`:
            `file` (default the price file), `column` of a long file (default the name), `monthly` last or mean,
            `change` true for the relative change (default) or false for the value itself. A file with a single series
            is the same for all tickers.
        picture: Whether the network sees, instead of windows of months, a picture of 15 indicators by 15 periods of 6
            to 20 days, computed from daily closes (CNN-TA: Sezer and Ozbayoglu 2018). It has one channel, and neither
            lags nor month dummies.
        train_start: First month of training, such as 2010-01; default the first with a whole window.
        train_end: Last month of training, validation included; default the last before the test and its embargo.
        test_start: First month of the test; default the last 12 months.
        test_end: Last month of the test; default the last month of the prices.
        val_months: How many training months, the last ones, are for validation.
        embargo: Months left out between training and validation, and before the test; default 1, in the book's
            recipe 0.
        clip: Share of the values of each column that is clipped at each end (winsorized).
        scale: Whether the clipped columns are brought to mean 0 and deviation 1; default true, in the book's recipe
            false.
        clip_with_test: Flaw: clipping and scaling are measured on validation and test months, too. Default: as in the
            recipe.
        full_history: Flaw: only stocks with prices in all months of training and test count. Default: as in the recipe.
        fill_forward: Flaw: missing prices are filled with the last one, so that dead stocks have returns of zero.
            Default: as in the recipe.
        validate_on_test: Flaw: the test months are the validation months. Default: as in the recipe.

    Raises:
        UserError: If a value lies outside its range, or the months contradict each other.
    """

    def __init__(
        self,
        prices: str,
        date_column: str | None = None,
        ticker_column: str | None = None,
        price_column: str | None = None,
        leave_out: list[str] | None = None,
        max_jumps: int | None = None,
        recipe: Recipe = "honest",
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
        check("data.lags", lags, least=1)
        check("data.clip", clip, least=0, below=0.5)
        if picture and (channels or year_dummies):
            raise UserError("`data.picture` true has one channel of indicators: leave out channels and year_dummies")
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
        self._file, self._columns = prices, (date_column, ticker_column, price_column)
        self._years = years_between(train_start, test_end) if year_dummies else []

    @property
    def in_channels(self) -> int:
        """Number of series."""
        return 1 + len(self.channels)

    @property
    def window_length(self) -> int:
        """Columns of a window: the lags, and the dummies; of a picture its side."""
        return self.lags + MONTHS * self.month_dummies + len(self._years)

    def read(self) -> Prices:
        """Reads the prices.

        Raises:
            UserError: If the file is missing or damaged, or has no dates or prices.
        """
        prices = read_prices(self._file, *self._columns, keep_days=self.picture)
        if self.picture and not prices.daily:
            raise UserError(
                f"`data.picture` true needs daily prices, and {self._file} has months: leave it out, or give daily ones"
            )
        return prices.without(self._left_out) if self._left_out else prices

    def setup(self, stage: str) -> None:
        """Reads the prices and cuts the windows that the stage needs, once; prints what was found and done.

        Args:
            stage: `fit`, `validate`, `test` or `predict`, as Lightning says.

        Raises:
            UserError: If the prices can't be used, or leave no windows in a part.
        """
        self._draw_seed()
        self._read_panel()
        needed = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["predict"]}[stage]
        measured = ["train", "val", "test"] if self.chosen["clip_with_test"] else ["train"]
        if self.validate_on_test:
            measured = [part for part in measured if part != "val"]  # it is the test
        wanted = dict.fromkeys([*needed, *(measured if self.scaling is None else [])])
        new = [part for part in wanted if part not in self._sets]
        self._sets |= {part: self._windows(part) for part in new}
        if self.scaling is None:
            self.scaling = measure([self._sets[part] for part in measured], self.clip, self.chosen["scale"])
        shape = self._sets[needed[0]].shape
        if self.scaling.low.shape != shape:
            raise UserError(
                f"the checkpoint knows windows of {self.scaling.low.shape} channels and lags, these have {shape}: "
                "leave out what changes them, such as `data.lags`"
            )
        for part in new:
            self._sets[part].scale(self.scaling)
        months = {part: month_span(*self.months_of(part)) for part in wanted}
        for part in needed:
            check_part(part, months[part], self._sets[part], self.window_months)
        for part in new:
            rank_zero_info(part_line(part, months[part], self._sets[part], self.without_outcome[part]))

    def _read_panel(self) -> Panel:
        """Reads the prices and the further series, once; prints what was found and done."""
        if self._panel is None:
            prices = self.read()
            given = prices, self._file, *self._columns[:2]
            others = {name: read_series(name, options, *given) for name, options in self.channels.items()}
            how = self.window_months, self.chosen["max_jumps"], self.chosen["fill_forward"], self.picture
            self._panel = make_panel(prices, others, *how)
            flaws = [name for name in FLAWS if self.chosen[name]]
            rank_zero_info(cleaning_report(type(self).__name__, prices, self.recipe, flaws, self._panel.distrusted))
        self.prices, self.tickers = self._panel.prices, self._panel.prices.tickers
        return self._panel

    def latest_windows(self, month: str | None = None) -> tuple[NDArray[np.float32], list[str], np.datetime64]:
        """What the network is to see for a month, whether or not its outcome is known.

        Args:
            month: Such as `2018-01`; default the month after the prices.

        Returns:
            Windows `(n, channels, length)`, or pictures, clipped and scaled as in the training; the ticker of each, and
            the month.

        Raises:
            UserError: If the prices can't be used, or no stock has a whole window before that month.
        """
        panel = self._read_panel()
        wanted = parse_month("month", month)
        self._asked = panel.last + 1 if wanted is None else wanted
        if not panel.first <= self._asked <= panel.last + 1:
            raise UserError(
                f"`data.month` {month}: the prices go from {month_name(panel.first)} to {month_name(panel.last)}, so "
                f"it can be up to {month_name(panel.last + 1)}"
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
        panel = self._read_panel()
        if part == "predict":
            month = panel.last + 1 if self._asked is None else self._asked
            return month, month
        return self._periods.parts(panel.first, panel.last, self.window_months)[part]

    def _windows(self, part: str) -> Windows:
        panel, (low, high) = self._read_panel(), self.months_of(part)
        rows = slice(low - panel.first, high + 1 - panel.first)
        outcomes = np.concatenate([panel.returns, np.full_like(panel.returns[:1], np.nan)])[rows]
        whole = panel.whole[rows]
        self.without_outcome[part] = 0
        if part == "predict":
            if panel.prices.stale is not None:
                whole = whole & ~panel.prices.stale[low - panel.first - 1]
        else:
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
