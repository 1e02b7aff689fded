"""Dates of tables in the forms that files have, as days since 1970-01-01."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import available_timezones

import numpy as np
from numpy.typing import NDArray

from lightning_cnn.errors import UserError

Integers = NDArray[np.int64]

NEVER = np.iinfo(np.int64).min  # where there is no date
NOON, LAST_MINUTE = 12 * 3600, 24 * 3600 - 60
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
REST = r"(?:[T ]\s*(?P<h>\d{1,2}):(?P<min>\d\d)\S*(?: ?[AaPp][Mm])?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?)?"
# name of a form, and its expression; of numbers with two readings `a` comes first
FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(expression + REST))
    for name, expression in (
        ("YYYY-MM-DD", r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})"),
        ("YYYYMMDD", r"(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)(?:\.0*)?"),
        ("two numbers and YYYY", r"(?P<a>\d{1,2})[-/.](?P<b>\d{1,2})[-/.](?P<y>\d{4}|\d\d)"),
        ("YYYY-MM", r"(?P<y>\d{4})[-/.M]?(?P<m>\d{1,2})(?:\.0*)?"),
        ("DD Mon YYYY", r"(?P<d>\d{1,2})[-/. ]?(?P<name>[A-Za-z]{3,9})\.?,?[-/. ]?(?P<y>\d{4}|\d\d)"),
        ("Mon DD, YYYY", r"(?P<name>[A-Za-z]{3,9})\.? (?P<d>\d{1,2}),? (?P<y>\d{4})"),
        ("Mon YYYY", r"(?P<name>[A-Za-z]{3,9})\.?[-/. ]?(?P<y>\d{4})"),
        ("YYYY-Qn", r"(?P<y>\d{4})[-/ ]?Q(?P<q>[1-4])"),
    )
)
ORDERS = {"dmy": "DD/MM/YYYY", "mdy": "MM/DD/YYYY"}
UTC = re.compile(r"(Z|UTC|[+-]00:?00)$")


class UnclearDatesError(UserError):
    """Dates that can be read in two ways."""


@dataclass(frozen=True)
class DateForm:
    """How the dates of a column are read.

    Attributes:
        name: The form, such as `YYYY-MM-DD`.
        order: Of two numbers before a year: `dmy` or `mdy`.
        format: The format of `datetime.strptime` that was given.
        zone: The time zone that was given; times are converted to it.
        next_day: Whether times after noon belong to the next day: midnights of the east, stored as UTC.
        freq: Of periods of pandas: their frequency, such as `M`.
    """

    name: str
    order: str = "dmy"
    format: str | None = None
    zone: str | None = None
    next_day: bool = False
    freq: str | None = None

    @property
    def text(self) -> str:
        """The form and what was decided, in words."""
        moved = ", midnights east of Greenwich stored as UTC: times after noon count as the next day"
        return self.name + (f", in {self.zone}" if self.zone else moved if self.next_day else "")

    def days(self, column: Any) -> Integers:
        """Days since 1970-01-01 of a column of pyarrow, `NEVER` where there is no date, `(n,)`.

        Args:
            column: Text, dates, timestamps, periods of pandas, or numbers such as 20171229 and 201712.
        """
        days, seconds, _ = _instants(column, self)
        if self.next_day and seconds is not None:
            days = np.where((days != NEVER) & _is_late(seconds), days + 1, days)
        return days


def find_form(
    column: Any,
    format: str | None = None,
    zone: str | None = None,
    hint: Callable[[str, str], str] = lambda option, example: "write them as 2010-01-31",
    more: Callable[[], Any] | None = None,
    freq: str | None = None,
) -> DateForm:
    """Decides how dates are read.

    Args:
        column: Some of them, or all.
        format: A format of `datetime.strptime`; default what the texts have.
        zone: The time zone to which times are converted; default none, with one exception: the times of daily prices
            that are midnights east of Greenwich, stored as UTC, count as the next day.
        hint: Says how to decide between two readings; it gets the name of the option and an example.
        more: Gives all dates, where some don't decide.
        freq: The frequency of pandas' periods, if the column holds their numbers.

    Raises:
        UnclearDatesError: If there are two readings, and nothing decides between them.
        UserError: If the zone or the format is none.
    """
    if zone is not None and zone not in available_timezones():
        raise UserError(f"`data.time_zone` {zone}: there is no such time zone; give one such as Asia/Tokyo")
    freq = freq or getattr(column.type, "freq", None)
    if freq is not None:
        return DateForm(f"periods ({freq})", freq=freq)
    texts = _texts(column)
    if format is not None:
        try:
            datetime.strptime(datetime(2001, 2, 3).strftime(format), format)
        except ValueError as error:
            raise UserError(f"`data.date_format` {format}: not a format such as %d/%m/%Y ({error})") from None
        return DateForm(format, format=format, zone=zone)
    name, order = "numbers", "dmy"
    if texts is not None:
        found = [next((form for form, expression in FORMS if expression.fullmatch(text)), "") for text in texts]
        known = [form for form in found if form]
        name = max(dict.fromkeys(known), key=known.count) if known else "no dates"
        if name.startswith("two"):
            orders = _orders(texts)
            if len(orders) > 1 and more is not None:
                whole = _texts(more())
                orders = _orders(whole) if whole is not None else orders
            if len(orders) > 1:
                first = next(text for text in texts if FORMS[2][1].fullmatch(text))
                raise UnclearDatesError(
                    f"dates such as {first} can be DD/MM/YYYY or MM/DD/YYYY, and no day above 12 decides: "
                    + hint("date_format", "%d/%m/%Y or %m/%d/%Y")
                )
            order = orders[0]
            name = ORDERS[order]
    elif not _is_number(column.type):
        name = str(column.type)
    form = DateForm(name, order, None, zone)
    return form if zone is not None else _moved(column, form, hint)


def _moved(column: Any, form: DateForm, hint: Callable[[str, str], str]) -> DateForm:
    """Midnights of Tokyo are afternoons of the day before in Greenwich: the weekdays tell."""
    days, seconds, is_utc = _instants(column, form)
    if seconds is None:
        return form
    days, seconds = days[days != NEVER], seconds[days != NEVER]
    late = _is_late(seconds)
    if not late.any():
        return form
    there, next_day = np.unique(days), np.unique(days + late)
    weekends = [float(np.mean((each + 3) % 7 > 4)) for each in (there, next_day)]  # 1970-01-01 was a Thursday
    moved = DateForm(form.name, form.order, None, None, True)
    if max(weekends) > 0.05 and min(weekends) < 0.01:
        return moved if weekends[1] < weekends[0] else form
    months = [each.astype("datetime64[D]").astype("datetime64[M]") for each in (days, days + late)]
    if not is_utc or (months[0] == months[1]).all():
        return form
    both = [str(each.astype("datetime64[D]")) for each in (days[0], (days + late)[0])]
    raise UnclearDatesError(
        f"the times are UTC, and neither midnights nor times of weekdays alone, so the first date can be {both[0]} or, "
        f"east of Greenwich, {both[1]}: " + hint("time_zone", "UTC or Asia/Tokyo")
    )


def _is_late(seconds: Integers) -> NDArray[np.bool_]:
    """Whether times can be midnights of the east, stored as UTC; 23:59 is the end of a day."""
    return (seconds >= NOON) & (seconds < LAST_MINUTE)


def _orders(texts: list[str]) -> list[str]:
    """The orders of day and month that all texts allow."""
    pairs = [(int(found["a"]), int(found["b"])) for text in texts if (found := FORMS[2][1].fullmatch(text))]
    possible = [("dmy", all(b <= 12 for _, b in pairs)), ("mdy", all(a <= 12 for a, _ in pairs))]
    if not any(fits for _, fits in possible):  # single mistakes
        return ["dmy" if sum(a > 12 for a, _ in pairs) >= sum(b > 12 for _, b in pairs) else "mdy"]
    return [order for order, fits in possible if fits]


def _instants(column: Any, form: DateForm) -> tuple[Integers, Integers | None, bool]:
    """Days, seconds of the day where there are times, and whether they are said to be those of Greenwich."""
    import pyarrow as pa
    from pyarrow import compute

    kind = column.type
    if form.freq is not None:
        return _period_days(column, form.freq), None, False
    if is_text(kind):
        return _text_instants(column, form)
    if pa.types.is_timestamp(kind):
        zone = kind.tz
        if form.zone is not None:
            column = column.cast(pa.timestamp(kind.unit, form.zone)) if zone else compute.assume_timezone(column, "UTC")
            column = compute.local_timestamp(column.cast(pa.timestamp(kind.unit, form.zone)))
        elif zone is not None:
            column = compute.local_timestamp(column)
        values = np.asarray(column).astype("datetime64[s]")
        days = values.astype("datetime64[D]")
        seconds = (values - days).astype(np.int64)
        return _whole(days), seconds if (seconds > 0).any() else None, zone in ("UTC", "Etc/UTC", "GMT", "+00:00")
    if pa.types.is_temporal(kind):
        return _whole(np.asarray(column).astype("datetime64[D]")), None, False
    if _is_number(kind):
        return _number_days(np.asarray(column.cast(pa.float64()))), None, False
    return np.full(len(column), NEVER), None, False


def _whole(days: Any) -> Integers:
    return np.where(np.isnat(days), NEVER, days.astype(np.int64))


def _number_days(values: NDArray[np.float64]) -> Integers:
    """Of numbers such as 20171229 or 201712; a month stands for its first day."""
    known = np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 1e9)
    numbers = np.where(known, values, 0).astype(np.int64)
    numbers = np.where(numbers < 1_000_000, numbers * 100 + 1, numbers)
    years, months, of_month = numbers // 10_000, numbers // 100 % 100, numbers % 100
    known &= (years > 1700) & (years < 2300) & (months > 0) & (months < 13) & (of_month > 0) & (of_month < 32)
    first = ((years - 1970) * 12 + months - 1)[known].astype("datetime64[M]").astype("datetime64[D]")
    days = np.full(len(values), NEVER)
    days[known] = first.astype(np.int64) + of_month[known] - 1
    return days


def _period_days(column: Any, freq: str) -> Integers:
    """The last day of each period of pandas."""
    import pandas as pd

    storage = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    storage = getattr(storage, "storage", storage)
    known, ordinals = np.asarray(storage.is_valid()), np.asarray(storage.fill_null(0)).astype(np.int64)
    ends = pd.PeriodIndex.from_ordinals(ordinals, freq=freq).to_timestamp(how="end").to_numpy().astype("datetime64[D]")
    return np.where(known, ends.astype(np.int64), NEVER)


def _text_instants(column: Any, form: DateForm) -> tuple[Integers, Integers | None, bool]:
    coded = _coded(column)
    texts = [(text or "").strip() for text in coded.dictionary.to_pylist()]
    days = np.array([*_text_days(texts, form), NEVER], dtype=np.int64)
    places = np.asarray(coded.indices.fill_null(len(texts)))
    if not any(":" in text for text in texts) or form.format is not None or form.zone is not None:
        return days[places], None, False
    times = [next((m for _, e in FORMS if (m := e.fullmatch(text))), None) for text in texts]
    at = [int(m["h"] or 0) * 3600 + int(m["min"] or 0) * 60 if m else 0 for m in times]
    known = [text for text in texts if ":" in text]
    is_utc = all(UTC.search(text) for text in known)
    if not is_utc and any(re.search(r"[+-]\d\d:?\d\d$", text[10:]) for text in known):
        return days[places], None, False  # the day of a time is that of the place where it was measured
    return days[places], np.array([*at, 0])[places], is_utc


def _text_days(texts: list[str], form: DateForm) -> list[int]:
    if form.zone is not None and any(":" in text for text in texts):
        import pandas as pd

        options: dict[str, Any] = {"format": "mixed", "dayfirst": form.name == ORDERS["dmy"]}
        if form.format is not None and re.search("%[HITXc]", form.format):
            options = {"format": form.format}
        elif form.format is not None:  # of the days alone
            options["dayfirst"] = 0 <= form.format.find("%d") < form.format.find("%m")
        moments = pd.to_datetime(pd.Series(texts, dtype=object), utc=True, errors="coerce", **options)
        local = moments.dt.tz_convert(form.zone).dt.tz_localize(None).to_numpy().astype("datetime64[D]")
        return [int(day) for day in _whole(local)]
    if form.format is None and form.name == "YYYY-MM-DD":
        try:
            quick = np.array([text[:10] for text in texts], dtype="datetime64[D]")
            if all(len(text) == 10 for text in texts):
                return [int(day) for day in _whole(quick)]
        except ValueError:
            pass
    return [_text_day(text, form) for text in texts]


def _text_day(text: str, form: DateForm) -> int:
    try:
        if form.format is not None:
            return datetime.strptime(text, form.format).toordinal() - date(1970, 1, 1).toordinal()
        found = next((match for _, expression in FORMS if (match := expression.fullmatch(text))), None)
        if found is None:
            return NEVER
        part = found.groupdict()
        year = int(part["y"])
        year += 0 if len(part["y"]) == 4 else 1900 if year > 68 else 2000
        if part.get("q"):  # a quarter stands for its last day
            ends = np.datetime64(f"{year}-{3 * int(part['q']):02d}", "M") + 1
            return int(ends.astype("datetime64[D]").astype(np.int64)) - 1
        if part.get("a"):
            day, month = (part["a"], part["b"]) if form.order == "dmy" else (part["b"], part["a"])
        else:
            day = part.get("d") or "1"
            month = part.get("m") or str(MONTHS.index(part["name"][:3].lower()) + 1)
        return date(year, int(month), int(day)).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return NEVER


def _texts(column: Any) -> list[str] | None:
    """The different texts, None of a column that holds none."""
    if not is_text(column.type):
        return None
    return [text.strip() for text in _coded(column).dictionary.to_pylist() if text and text.strip()]


def _coded(column: Any) -> Any:
    import pyarrow as pa
    from pyarrow import compute

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column if pa.types.is_dictionary(column.type) else compute.dictionary_encode(column.cast(pa.string()))


def is_text(kind: Any) -> bool:
    """Whether a type of pyarrow is one of texts."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
