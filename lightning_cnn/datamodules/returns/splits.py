"""Splits that prices are not adjusted for: a jump by a usual ratio that stays, in prices that go on as before."""

from dataclasses import dataclass, field

import numpy as np

from lightning_cnn.datamodules.returns.price_table import Floats, Integers

# shares after a split for those before, such as 7 for 1; reverse splits are the same the other way round
RATIOS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 100)
LEAST = 1.8  # jumps below it are not looked at: 3 for 2 is told from no usual loss
CALM = 0.06  # deviation of the daily returns before a split at most: prices that jump all the time are wrong
AROUND = 20  # prices before and after a jump that are looked at
DAYS = 10  # between two prices of days at most
MONTH = 45  # between two prices of months at most; there, ratios from 3 on are told from usual returns
MANY = 6  # jumps of a ticker in a piece, above which its prices are wrong
CHUNK = 1 << 16


@dataclass
class SplitFinder:
    """Looks for splits in prices that come piece by piece.

    Attributes:
        found: Ticker's code, day and ratio of each: 7 for seven new shares for one, 1/10 for one for ten.
    """

    found: list[tuple[int, int, float]] = field(default_factory=list)
    _last: dict[int, tuple[int, float]] = field(default_factory=dict)

    def add(self, days: Integers, codes: Integers, prices: Floats) -> None:
        """Looks at a piece.

        Args:
            days: Days since 1970-01-01, `(n,)`.
            codes: Codes of the tickers, ascending.
            prices: Their prices, above 0.
        """
        places = self._jumps(codes, prices)
        different, first, counts = np.unique(codes[places], return_index=True, return_counts=True)
        for code, start, count in zip(different.tolist(), first.tolist(), counts.tolist(), strict=True):
            if count > MANY:
                continue
            begin, end = int(np.searchsorted(codes, code, "left")), int(np.searchsorted(codes, code, "right"))
            for place in places[start : start + count].tolist():
                low, high = max(place + 1 - AROUND, begin), min(place + 1 + AROUND, end)
                if bool((days[low + 1 : high] > days[low : high - 1]).all()):
                    self._look(code, days[low:high], prices[low:high], place + 1 - low)
        self._across(days, codes, prices)

    @staticmethod
    def _jumps(codes: Integers, prices: Floats) -> Integers:
        """The places before jumps; some at a time, so that the processor's cache holds them."""
        found = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(codes) - 1, CHUNK):
            here, there = prices[start : start + CHUNK], prices[start + 1 : start + CHUNK + 1]
            here = here[: len(there)]
            large = (there > LEAST * here) | (here > LEAST * there)
            if large.any():
                places = np.flatnonzero(large) + start
                found.append(places[codes[places + 1] == codes[places]])
        return np.concatenate(found)

    def _across(self, days: Integers, codes: Integers, prices: Floats) -> None:
        """Looks at the jump from the last piece to this one."""
        if not len(codes):
            return
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        ends = np.r_[starts[1:], len(codes)] - 1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            code = int(codes[start])
            if code in self._last:
                day, price = self._last[code]
                if day < days[start] and not 1 / LEAST < prices[start] / price < LEAST:
                    here = slice(start, min(end + 1, start + AROUND))
                    self._look(code, np.r_[day, days[here]], np.r_[price, prices[here]], 1)
            self._last[code] = int(days[end]), float(prices[end])

    def _look(self, code: int, days: Integers, prices: Floats, jump: int) -> None:
        """Decides about a jump between two prices.

        Args:
            code: The ticker.
            days: Of the prices around it.
            prices: The prices around it.
            jump: The place of the first one after it.
        """
        apart = int(days[jump] - days[jump - 1])
        if apart > MONTH:
            return
        is_daily = apart <= DAYS
        steps = np.diff(np.log(prices))
        step = float(steps[jump - 1])
        ratio = min(RATIOS, key=lambda each: abs(np.log(each) - abs(step)))
        noise = float(np.std(steps[: jump - 1])) if jump > 5 else 0.01 if is_daily else 0.05
        if is_daily and noise > CALM:
            return
        allowed = min(max(0.025, 3 * noise), 0.08) if is_daily else 0.15
        if abs(np.log(ratio) - abs(step)) > allowed or (not is_daily and ratio < 3):
            return
        after = steps[jump:]
        stays = abs(float(np.median(prices[jump:])) / prices[jump] - 1) < (0.15 if is_daily else 0.3)
        # after a crash prices swing
        calm = len(after) < 5 or float(np.std(after)) < 2 * noise + 0.005
        if stays and calm:
            self.found.append((code, int(days[jump]), ratio if step < 0 else 1 / ratio))


def in_words(ratio: float) -> str:
    """A ratio such as `7:1`, new shares for old ones."""
    new, old = (ratio, 1.0) if ratio >= 1 else (1.0, 1 / ratio)
    return f"{new:g}:{old:g}"
