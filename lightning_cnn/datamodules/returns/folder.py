"""Which files of a folder hold prices, what the names of its folders say, and what opens a file."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from lightning_cnn.datamodules.returns.csv_files import COMPRESSIONS, CsvTable
from lightning_cnn.datamodules.returns.excel_files import ExcelTable
from lightning_cnn.datamodules.returns.file_options import DECIMALS, EXCEL, NOTHING_SAID, FileOptions
from lightning_cnn.datamodules.returns.table_files import ArrowTable, ParquetTable, TableFile
from lightning_cnn.errors import UserError

SUFFIXES = (
    ".parquet", ".pq", ".csv", ".txt", ".tsv", ".feather", ".arrow", ".ipc", ".zip", *EXCEL, *COMPRESSIONS,
)  # fmt: skip
NO_TABLE = "no table"
HIDDEN = "._"  # what the names of files begin with that are not looked at


def files_of(path: Path, returns: bool) -> tuple[list[Path], dict[str, str]]:
    """The files that may be tables, and the others with the reason; of a file itself.

    `pyarrow.dataset` is not used: it takes the 000001 of `code=000001` for the number 1 unless the columns are known
    before, reads neither Excel nor a CSV file with two rows of names, and ends with the first file that is no table.

    Args:
        path: A file or folder.
        returns: Whether it is said to hold returns, for messages.

    Raises:
        UserError: If there is none.
    """
    if not path.exists():
        what, option = ("file of returns", "returns") if returns else ("price file", "prices")
        raise UserError(f"there is no {what} {path}: set `data.{option}` to a .parquet or .csv file")
    if not path.is_dir():
        return [path], {}
    found = [file for file in sorted(path.rglob("*")) if file.is_file()]
    shown = [file for file in found if not is_hidden(file.relative_to(path).parts)]
    files = [file for file in shown if is_table(str(file.relative_to(path)))]
    if not files:
        raise UserError(f"there is no price file in the folder {path}: it holds no {', '.join(SUFFIXES[:6])}")
    return files, {str(file.relative_to(path)): NO_TABLE for file in shown if file not in files}


def is_hidden(parts: Sequence[str]) -> bool:
    """Whether the file, or a folder that it lies in, is not looked at."""
    return any(part[0] in HIDDEN for part in parts)


def is_table(path: str) -> bool:
    """Whether a file is read, by its path within the folder that was given."""
    return not is_hidden(Path(path).parts) and Path(path).suffix.lower() in SUFFIXES


def constants_of(file: Path, folder: Path) -> dict[str, str]:
    """Columns that are the same in a whole file, as text: `ticker=AAPL` in the names of its folders.

    Args:
        file: The file.
        folder: The folder that was given; or the file itself.
    """
    parts = file.relative_to(folder).parts[:-1] if file != folder else ()
    pairs = (part.partition("=") for part in parts)
    return {unquote(name): unquote(value) for name, mark, value in pairs if mark}


def stem_of(file: Path) -> str:
    """The name of a file without its suffixes: the ticker of a file of one stock."""
    name = file.name
    while Path(name).suffix.lower() in SUFFIXES:
        name = name[: -len(Path(name).suffix)]
    return name.strip()


def open_table(path: Path, options: FileOptions = NOTHING_SAID) -> TableFile:
    """Opens a file of any format: its first bytes tell which one it is.

    Args:
        path: The file.
        options: What the user said about it.

    Raises:
        UserError: If it can't be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None
    suffix, decimal = path.suffix.lower(), DECIMALS[options.decimal] if options.decimal else None
    if start.startswith(b"PAR1"):
        return ParquetTable(path, decimal)
    if start.startswith((b"ARROW1", b"FEA1")):
        return ArrowTable(path, decimal)
    if start.startswith(b"\xd0\xcf\x11\xe0") or suffix in EXCEL:
        return ExcelTable(path, decimal)
    if suffix in (".parquet", ".pq"):
        return ParquetTable(path, decimal)
    if suffix in (".feather", ".arrow", ".ipc"):
        return ArrowTable(path, decimal)
    return CsvTable(path, decimal)
