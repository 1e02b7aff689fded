"""Monthly returns of stocks, from a file of prices."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info

from lightning_cnn.datamodules.returns.base import ReturnDataModule
from lightning_cnn.datamodules.returns.periods import (
    Period,
    Periods,
    month_name,
    month_span,
    parse_month,
    years_between,
)
from lightning_cnn.datamodules.returns.pictures import SIDE, WINDOW_MONTHS, DailyCloses, ReturnPictures
from lightning_cnn.datamodules.returns.price_file import Prices, read_prices
from lightning_cnn.datamodules.returns.series import SeriesOptions, read_series
from lightning_cnn.datamodules.returns.summary import check_part, cleaning_report, part_line
from lightning_cnn.datamodules.returns.whole_windows import jumped, past_all, unchanged
from lightning_cnn.datamodules.returns.windows import MONTHS, Flags, ReturnWindows, Windows, change, measure
from lightning_cnn.errors import UserError

Recipe = Literal["honest", "book"]
# what a recipe sets where nothing else is said
RECIPES: dict[str, dict[str, Any]] = {
    "honest": {"embargo": 1, "scale": True, "max_jumps": 1},
    "book": {"embargo": 0, "scale": False, "max_jumps": 2**31 - 1},
}
FLAWS = ("clip_with_test", "full_history", "fill_forward", "validate_on_test")


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
        batch_size: Windows in a batch, over all processes together.
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
        batch_size: int = 256,
        clip: float = 0.01,
        scale: bool | None = None,
        clip_with_test: bool | None = None,
        full_history: bool | None = None,
        fill_forward: bool | None = None,
        validate_on_test: bool | None = None,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters(logger=False)
        if lags < 1:
            raise UserError(f"--data.lags {lags}: it must be at least 1")
        if batch_size < 1:
            raise UserError(f"--data.batch_size {batch_size}: it must be at least 1")
        if not 0 <= clip < 0.5:
            raise UserError(f"--data.clip {clip}: expected a share from 0 to below 0.5, such as 0.01")
        self.recipe = recipe
        if picture and (channels or year_dummies):
            raise UserError("--data.picture true has one channel of indicators: leave out channels and year_dummies")
        self.lags = SIDE if picture else lags
        self.window_months = WINDOW_MONTHS if picture else lags
        self.month_dummies = month_dummies and not picture
        self.picture = picture
        self.channels = channels or {}
        self.clip = clip
        self.scale = RECIPES[recipe]["scale"] if scale is None else scale
        self.max_jumps = RECIPES[recipe]["max_jumps"] if max_jumps is None else max_jumps
        given = (clip_with_test, full_history, fill_forward, validate_on_test)
        switches = [recipe == "book" if value is None else value for value in given]
        self.clip_with_test, self.full_history, self.fill_forward, self.validate_on_test = switches
        months = {"train_start": train_start, "train_end": train_end, "test_start": test_start, "test_end": test_end}
        self._periods = Periods(
            **{name: parse_month(name, text) for name, text in months.items()},
            val_months=val_months,
            embargo=RECIPES[recipe]["embargo"] if embargo is None else embargo,
            validate_on_test=self.validate_on_test,
        )
        self.prices: Prices | None = None
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
                f"--data.picture true needs daily prices, and {self._file} has months: leave it out, or give daily ones"
            )
        return prices.without(self._left_out) if self._left_out else prices

    def setup(self, stage: str) -> None:
        """Reads the prices and cuts the windows that the stage needs, once; prints what was found and done.

        Args:
            stage: `fit`, `validate`, `test` or `predict`, as Lightning says.

        Raises:
            UserError: If the prices can't be used, or leave no windows in a part.
        """
        self._seed = torch.initial_seed() % 2**31
        if self.prices is None:
            self._prepare(self.read())
        assert self.prices is not None
        needed = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["predict"]}[stage]
        measured = ["train", "val", "test"] if self.clip_with_test else ["train"]
        if self.validate_on_test and self.clip_with_test:
            measured.remove("val")  # it is the test
        new = [
            part
            for part in dict.fromkeys([*needed, *(measured if self.scaling is None else [])])
            if part not in self._sets
        ]
        self._sets |= {part: self._windows(part) for part in new}
        if self.scaling is None:
            self.scaling = measure([self._sets[part] for part in measured], self.clip, self.scale)
        shape = self._sets[needed[0]].shape
        if self.scaling.low.shape != shape:
            raise UserError(
                f"the checkpoint knows windows of {self.scaling.low.shape} channels and lags, these have {shape}: "
                "leave out what changes them, such as --data.lags"
            )
        for part in new:
            self._sets[part].scale(self.scaling)
        for part in needed:
            check_part(part, month_span(*self.months_of(part)), self._sets[part], self.window_months)
        for part in new:
            windows = self._sets[part]
            months = month_span(*self.months_of(part))
            lost = self.without_outcome[part]
            rank_zero_info(part_line(part, months, windows.tickers, windows.outcomes.numpy(), lost))

    def _prepare(self, prices: Prices) -> None:
        """Returns, further series, and which windows are whole."""
        self._returns = change(prices.closes, self.fill_forward)
        columns = self._columns[:2]
        others = [read_series(name, options, prices, self._file, *columns) for name, options in self.channels.items()]
        series = np.stack([self._returns, *others]).astype(np.float32)
        if np.isinf(series).any():
            channel, month, number = np.argwhere(np.isinf(series))[0]
            raise UserError(
                f"the {['return', *self.channels][channel]} of {prices.tickers[number]} in {prices.months[month]} is "
                "infinite: correct its values in that month and the one before"
            )
        self._first = int(prices.months[0].astype(np.int64))
        self._last = self._first + len(prices.months) - 1
        self._known: Flags = np.asarray(np.isfinite(series).all(0))
        self._whole = past_all(self._known, self.window_months)
        if self.picture:
            assert prices.days is not None and prices.day_closes is not None
            self._days = DailyCloses(prices.days, prices.day_closes, self._first, len(prices.months))
            self._whole = self._days.whole()
        if not self.fill_forward:
            self._whole &= ~unchanged(self._returns, self.window_months)
        distrusted = self._whole & jumped(self._returns, self.max_jumps)
        self._whole &= ~distrusted
        self._newest_first = torch.from_numpy(np.ascontiguousarray(series[:, ::-1].transpose(0, 2, 1)))
        self.prices, self.tickers = prices, prices.tickers
        flaws = [name for name in FLAWS if getattr(self, name)]
        rank_zero_info(cleaning_report(type(self).__name__, prices, self.recipe, flaws, int(distrusted.sum())))

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
        if self.prices is None:
            self._prepare(self.read())
        wanted = parse_month("month", month)
        self._asked = self._last + 1 if wanted is None else wanted
        if not self._first <= self._asked <= self._last + 1:
            raise UserError(
                f"--data.month {month}: the prices go from {month_name(self._first)} to {month_name(self._last)}, so "
                f"it can be up to {month_name(self._last + 1)}"
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
        if part == "predict":
            month = self._last + 1 if self._asked is None else self._asked
            return month, month
        return self._periods.parts(self._first, self._last, self.window_months)[part]

    def _windows(self, part: str) -> Windows:
        low, high = self.months_of(part)
        rows = slice(low - self._first, high + 1 - self._first)
        outcomes = np.concatenate([self._returns, np.full_like(self._returns[:1], np.nan)])[rows]
        whole = self._whole[rows]
        self.without_outcome[part] = 0
        if part == "predict":
            assert self.prices is not None
            if self.prices.stale is not None:
                whole = whole & ~self.prices.stale[low - self._first - 1]
        else:
            self.without_outcome[part] = int((whole & ~np.isfinite(outcomes)).sum())
            whole = whole & np.isfinite(outcomes)
            if self.full_history:
                begin, end = self.months_of("train")[0] - self.window_months, self.months_of("test")[1]
                whole &= self._known[begin - self._first : end + 1 - self._first].all(0)
        rows_found, tickers = np.nonzero(whole)
        found = rows_found + low, tickers, outcomes[rows_found, tickers]
        if self.picture:
            return ReturnPictures(self._days, *found)
        return ReturnWindows(self._newest_first, self._last, self.lags, *found, self.month_dummies, self._years)
