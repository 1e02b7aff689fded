"""What later prices would change in a training: nothing, unless the data have a flaw that looks ahead."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from price_files import dirty_panel, long, write

from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.errors import UserError

LAST_KNOWN = "2011-06"


@pytest.fixture(scope="module")
def dirty() -> pd.DataFrame:
    """Prices with late listings, gaps and delistings."""
    return dirty_panel()


def changed_after(closes: pd.DataFrame, how: str) -> pd.DataFrame:
    """Other prices after LAST_KNOWN, the same ones up to it."""
    table = closes.copy()
    future = table.loc["2011-07":].index
    random = np.random.default_rng(5)
    if how == "other prices":
        table.loc[future] = 100 * np.exp(np.cumsum(random.normal(0, 0.1, (len(future), table.shape[1])), axis=0))
    elif how == "frozen":
        table.loc[future] = 7.0
    else:  # most are delisted, others zero or negative
        table.loc[future, table.columns[3:]] = np.nan
        table.loc[future[:200], "T01"] = -1.0
    return table


def known(data: MonthlyReturns) -> dict[str, Any]:
    """All that a network may see up to the month, as bytes."""
    data.setup("fit")
    assert data.scaling is not None
    found: dict[str, Any] = {"scaling": repr(data.scaling.to_dict())}
    for part in ("train", "val"):
        windows, outcomes, _ = data.arrays(part)
        frame = data.frame(part)
        past = frame.date <= f"{LAST_KNOWN}-30"
        assert past.all() == (part == "train") and past.any()
        found[part] = windows[past].tobytes(), outcomes[past].tobytes(), frame[past].to_csv()
    return found


def leak_options(name: str) -> dict[str, Any]:
    options: dict[str, dict[str, Any]] = {
        "windows": {"lags": 12},
        "no scaling": {"lags": 3, "scale": False, "clip": 0.05},
        "pictures": {"picture": True},
        "channels": {"channels": {"same": {"column": "adj_close", "monthly": "mean"}}, "lags": 6},
        "clip_with_test": {"lags": 12, "clip_with_test": True},
        "full_history": {"lags": 12, "full_history": True},
    }
    return options[name]


@pytest.mark.parametrize("how", ["other prices", "frozen", "delisted"])
@pytest.mark.parametrize("name", ["windows", "no scaling", "pictures", "channels", "clip_with_test", "full_history"])
def test_the_future_changes_nothing(name: str, how: str, dirty: pd.DataFrame) -> None:
    """Bit for bit; and with a flaw that looks ahead the same comparison finds it."""
    split: dict[str, Any] = {
        "train_end": "2011-12",
        "val_months": 8,
        "embargo": 0,
        "test_start": "2012-01",
        "test_end": "2012-06",
    }
    found: list[Any] = []
    for number, table in enumerate((dirty, changed_after(dirty, how))):
        table = long(table) if name == "channels" else table
        data = MonthlyReturns(str(write(table, Path(f"p{number}.parquet"))), **split, **leak_options(name))
        try:
            found.append(known(data))
        except UserError as error:  # with most stocks delisted a part is empty, or nothing goes up
            assert name in ("clip_with_test", "full_history") and how != "other prices", error
            found.append({})
    assert (found[0] != found[1]) == (name in ("clip_with_test", "full_history"))
