"""Files of features: one row an image, as Parquet or as .npz."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lightning_cnn.errors import UserError, first_line, require
from lightning_cnn.resume.files import make_folder, replacing

GROUP_BYTES = 2**26  # of features in a row group: large enough to compress and to read at once
SUFFIXES = (".parquet", ".npz")


@dataclass(frozen=True)
class Features:
    """Features of images, or of a part of them.

    Attributes:
        values: float32, `(n, size)`.
        labels: int64, `(n,)`.
        files: Name of each image's file, or its position in the data.
        parts: For each image `train`, `val` or `test`.
        class_names: Names of the classes by label.
        source: What computed them: `architecture`, `weights` and `data`.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    files: NDArray[np.str_]
    parts: NDArray[np.str_]
    class_names: tuple[str, ...]
    source: dict[str, str]

    def part(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features `(n, size)` and labels `(n,)` of one part, empty where there is none."""
        chosen = self.parts == name
        return self.values[chosen], self.labels[chosen]


def check_suffix(path: str | Path) -> Path:
    """The path of a file of features.

    Raises:
        UserError: If its name does not say the format, or Parquet can't be read or written here.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: expected a file name that ends in .parquet or .npz")
    if suffix == ".parquet":
        require("features", f"{path}: Parquet", "; or name a file that ends in .npz, which needs nothing more")
    return Path(path)


def write_features(path: Path, chunks: Iterator[Features]) -> None:
    """Writes features as they come; the file appears when it is whole.

    Args:
        path: Ends in `.parquet` or `.npz`. Parquet needs memory for some of the features only,
            .npz for all of them, twice.
        chunks: Features with the same classes and source.

    Raises:
        StorageError: If it can't be written.
    """
    hint = "choose another place with `output`"
    make_folder(path.parent, hint)
    with replacing(path, hint) as file:  # opened before all the work
        (_write_parquet if path.suffix.lower() == ".parquet" else _write_npz)(file, chunks)


def read_features(path: Path) -> Features:
    """Reads a file that `write_features` wrote.

    Raises:
        UserError: If there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}: write one with `features()`")
    try:
        features = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_npz(path)
        if not len(features.values) == len(features.labels) == len(features.files) == len(features.parts):
            raise ValueError("its columns differ in length")
        return features
    except Exception as error:  # every damaged file has an exception of its own
        reason = first_line(error, 100)
        raise UserError(f"{path} is not a file of features ({reason}): write one with `features()`") from None


def _write_parquet(file: BinaryIO, chunks: Iterator[Features]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    try:
        for chunk in _gathered(chunks, GROUP_BYTES):
            size = chunk.values.shape[1]
            columns = {
                "file_name": pa.array(chunk.files),
                "part": pa.array(chunk.parts),
                "label": pa.array(chunk.labels),
                "class": pa.array([chunk.class_names[label] for label in chunk.labels]),
                "features": pa.FixedSizeListArray.from_arrays(pa.array(chunk.values.ravel()), size),
            }
            about = {"class_names": json.dumps(chunk.class_names), "source": json.dumps(chunk.source)}
            table = pa.table(columns).replace_schema_metadata(about)
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_npz(file: BinaryIO, chunks: Iterator[Features]) -> None:
    whole = _joined([*chunks])
    np.savez(
        file,
        features=whole.values,
        label=whole.labels,
        file_name=whole.files,
        part=whole.parts,
        class_names=np.array(whole.class_names),
        source=np.array(json.dumps(whole.source)),
    )


def _gathered(chunks: Iterator[Features], size: int) -> Iterator[Features]:
    """Joins chunks until their features have so many bytes."""
    waiting: list[Features] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(one.values.nbytes for one in waiting) >= size:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(chunks: list[Features]) -> Features:
    names = ("values", "labels", "files", "parts")
    columns: dict[str, Any] = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names}
    return replace(chunks[0], **columns)


def _read_parquet(path: Path) -> Features:
    from pyarrow import parquet

    table = parquet.read_table(path)
    about: dict[bytes, Any] = table.schema.metadata
    values = table["features"].combine_chunks()
    return Features(
        values.flatten().to_numpy().reshape(len(table), -1).astype(np.float32, copy=False),
        table["label"].to_numpy(),
        np.array(table["file_name"].to_pylist()),
        np.array(table["part"].to_pylist()),
        tuple(json.loads(about[b"class_names"])),
        json.loads(about[b"source"]),
    )


def _read_npz(path: Path) -> Features:
    with np.load(path, allow_pickle=False) as content:
        columns = content["features"], content["label"], content["file_name"], content["part"]
        return Features(*columns, tuple(content["class_names"].tolist()), json.loads(content["source"].item()))
