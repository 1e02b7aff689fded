"""Packed price files: read as they are, and refused where they unpack to absurdly more than they are."""

import bz2
import gzip
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lightning_cnn.datamodules.returns import csv_files
from lightning_cnn.datamodules.returns.csv_files import CsvTable
from lightning_cnn.errors import UserError

ROWS = "".join(f"2001-01-{day:02},A,{day}.5\n" for day in range(1, 29))


def _packed(name: str, text: str) -> Path:
    path = Path(name)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("prices.csv", text)
    else:
        pack: Any = {".gz": gzip.compress, ".bz2": bz2.compress}[path.suffix]
        path.write_bytes(pack(text.encode()))
    return path


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.zip"])
def test_a_packed_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "date,ticker,price\n"
    table = CsvTable(_packed(name, header + ROWS))
    assert table.names == ["date", "ticker", "price"]
    (block,) = table.blocks([0, 2], wide=False)
    assert block[1][2].to_pylist() == [day + 0.5 for day in range(1, 29)]
    monkeypatch.setattr(csv_files, "LEAST_LIMIT", 1 << 20)
    monkeypatch.setattr(csv_files, "LARGEST_RATIO", 20)
    bomb = CsvTable(_packed(name, header + ROWS * 10_000))  # 5 MB of a few kB
    with pytest.raises(UserError, match=r"it unpacks to more than [\d,]+ bytes, 20 times its size"):
        list(bomb.blocks([0, 2], wide=False))
    with pytest.raises(UserError, match="it unpacks to more than"):
        bomb.whole(1)


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first line is as long as all of it, and longer than a cell of Python's CSV reader."""
    with pytest.raises(UserError, match=r"can't be read as CSV \(field larger than field limit"):
        CsvTable(_packed("a.csv.gz", "x" * 300_000))
