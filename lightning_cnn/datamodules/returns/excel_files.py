"""Excel files: the first sheet, as columns of dates, numbers or texts."""

from typing import Any

import numpy as np
import pyarrow as pa

from lightning_cnn.datamodules.returns.table_files import ArrowTable
from lightning_cnn.errors import require


class ExcelTable(ArrowTable):
    """The first sheet of an Excel file."""

    format = "Excel"

    def open(self) -> None:
        """Reads the sheet; a column with any text is one of texts."""
        require("excel", f"{self.path}")
        import python_calamine

        try:
            workbook = python_calamine.CalamineWorkbook.from_path(str(self.path))
            rows = workbook.get_sheet_by_index(0).to_python()
        except (python_calamine.CalamineError, IndexError) as error:
            raise ValueError(f"{error}") from None
        if len(rows) < 2:
            raise ValueError("its first sheet has no rows")
        header, *body = rows
        self.take(pa.table([_cells([row[n] for row in body]) for n in range(len(header))], [str(h) for h in header]))


def _cells(values: list[Any]) -> Any:
    """A column of a sheet: dates, numbers, or texts."""
    known = [None if value == "" else value for value in values]
    if all(isinstance(value, int | float) for value in known if value is not None):
        return pa.array([None if value is None else float(value) for value in known], pa.float64())
    if all(hasattr(value, "year") for value in known if value is not None):
        return pa.array([None if value is None else np.datetime64(value, "s") for value in known], pa.timestamp("s"))
    texts = [str(int(v)) if isinstance(v, float) and v.is_integer() else v for v in known]
    return pa.array([None if value is None else str(value) for value in texts], pa.string())
