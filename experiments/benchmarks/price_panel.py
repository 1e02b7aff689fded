"""Times reading price files of tens of thousands of tickers, and cutting windows; says the peak memory of each.

    uv run experiments/benchmarks/price_panel.py --tickers 20000 --years 25 --folder /tmp/panel

The prices are drawn, one for each weekday. The files are wide and long Parquet, long Parquet with its rows shuffled
(within 500 tickers), wide and long CSV of a tenth of the tickers, and a wide file of 50,000 tickers and 12 months. Each
is read in a process of its own; of its peak
memory the part before the reading is that of Python, torch and pyarrow. Files that are there already are read again.
With --other FOLDER, a checkout of another version, each file is also read by that one, in turn; each time is the least
of --repeats.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.datamodules.returns.price_file import Prices, read_prices

LAST = np.datetime64("2024-12-31")
GROUP = 500  # tickers drawn and written at once
FILES = (
    "wide.parquet",
    "long.parquet",
    "shuffled.parquet",
    "wide_tenth.csv",
    "long_tenth.csv",
    "wide_short.parquet",
    "wide_short.csv",
)
SHORT = 50_000, 12  # tickers and months of the short files


def weekdays(years: int) -> NDArray[Any]:
    """The weekdays of so many years."""
    days = np.arange(LAST - years * 365, LAST + 1)
    return days[np.is_busday(days)]


def walks(days: int, first: int, count: int) -> NDArray[np.float64]:
    """Prices of some tickers, `(days, count)`."""
    steps = np.random.default_rng(first).normal(0.0003, 0.02, (days, count))
    prices: NDArray[np.float64] = 100 * np.exp(np.cumsum(steps, axis=0, dtype=np.float64))
    return prices.round(4)


def write(path: Path, tickers: int, days: NDArray[Any]) -> None:
    """Writes one of the files."""
    names = [f"T{number:05d}" for number in range(tickers)]
    if path.stem == "wide_short":
        tickers, months = SHORT
        names, ends = (
            [f"T{n:05d}" for n in range(tickers)],
            pd.period_range("2023-01", periods=months, freq="M").end_time,
        )
        table = pa.table([pa.array(ends.date), *map(pa.array, walks(months, 0, tickers).T)], ["date", *names])
        parquet.write_table(table, path) if path.suffix == ".parquet" else csv.write_csv(table, path)
        return
    if path.stem.startswith("wide"):
        columns = [pa.array(days)]
        for first in range(0, tickers, GROUP):
            columns += map(pa.array, walks(len(days), first, min(GROUP, tickers - first)).T)
        table = pa.table(columns, ["date", *names])
        parquet.write_table(table, path) if path.suffix == ".parquet" else csv.write_csv(table, path)
        return
    schema = pa.schema([("date", pa.date32()), ("ticker", pa.string()), ("adj_close", pa.float64())])
    writer = (parquet.ParquetWriter if path.suffix == ".parquet" else csv.CSVWriter)(path, schema)
    for first in range(0, tickers, GROUP):
        count = min(GROUP, tickers - first)
        coded = pa.DictionaryArray.from_arrays(np.repeat(np.arange(count), len(days)), names[first : first + count])
        columns = [
            pa.array(np.tile(days, count)),
            coded.cast(pa.string()),
            pa.array(walks(len(days), first, count).T.ravel()),
        ]
        table = pa.table(columns, schema=schema)
        if path.stem == "shuffled":
            table = table.take(np.random.default_rng(first).permutation(len(table)))
        writer.write_table(table)
    writer.close()


def read(path: Path) -> None:
    """Reads a file, and prints what it took; the work of a process."""
    before, start = peak(), time.perf_counter()
    prices = read_prices(path)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "before": before, "peak": peak(), "given": prices.report.given}))


def peak() -> float:
    """The most memory that this process has had, in GiB; Linux says it. `getrusage` would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


class GivenReturns(MonthlyReturns):
    """Windows of prices that are in memory."""

    given: Prices

    def read(self) -> Prices:
        """The prices."""
        return self.given


def build(tickers: int, years: int, repeats: int = 5) -> tuple[float, int]:
    """Seconds to cut, clip and scale all windows of month-end prices (the least of some repeats), and how many."""
    closes = walks(12 * years, 0, tickers)
    months = np.arange(LAST.astype("datetime64[M]") + 1 - 12 * years, LAST.astype("datetime64[M]") + 1)
    best, count = float("inf"), 0
    for _ in range(repeats):
        data = GivenReturns("")
        data.given = Prices(months, [f"T{number:05d}" for number in range(tickers)], closes)
        start = time.perf_counter()
        for stage in ("fit", "test"):
            data.setup(stage)
        best = min(best, time.perf_counter() - start)
        count = sum(len(data.dataset(part)) for part in ("train", "val", "test"))
    return best, count


def main() -> None:
    """Writes the files, reads each in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=20_000)
    parser.add_argument("--years", type=int, default=25)
    parser.add_argument("--folder", type=Path, default=Path("panel"))
    parser.add_argument("--files", nargs="+", default=FILES, choices=FILES)
    parser.add_argument("--other", type=Path, help="checkout of another version, which reads the same files")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seconds, count = build(500, 17)
    print(f"windows of 500 tickers x 17 years: {count:,} windows of 24 lags in {seconds:.3f} s")
    options.folder.mkdir(parents=True, exist_ok=True)
    days = weekdays(options.years)
    print(f"{'file':<18}{'prices':>14}{'on disk':>10}{'read':>9}{'peak memory':>24}")
    for name in options.files:
        path = options.folder / name
        if not path.exists():
            write(path, options.tickers // 10 if "tenth" in name else options.tickers, days)
        size = path.stat().st_size / 2**30
        code = {"": Path(__file__).parents[2]} | ({"other": options.other} if options.other else {})
        tries: dict[str, list[Any]] = {version: [] for version in code}
        for _ in range(options.repeats):
            for version, folder in code.items():
                call = [sys.executable, __file__, "--read", str(path)]
                env = {**os.environ, "PYTHONPATH": str(folder.resolve())}
                done = subprocess.run(call, check=True, capture_output=True, env=env)
                tries[version].append(json.loads(done.stdout))
        for version, found in tries.items():
            best = min(found, key=lambda one: one["seconds"])
            memory = f"{best['peak']:.2f} GiB ({best['before']:.2f} before)"
            read_in = f"{best['seconds']:.1f} s"
            print(f"{name:<18}{best['given']:>14,}{size:>7.2f}GiB{read_in:>9}{memory:>24} {version}", flush=True)


if __name__ == "__main__":
    main()
