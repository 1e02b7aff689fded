"""Reads a pickle of dictionaries, lists, text, numbers and uint8 arrays, and runs nothing that it names.

An ordinary unpickler calls whatever a file asks for, so a downloaded file could run any code. Even numpy's own part of
it believes the file: it would take bytes for pointers if the file said so. Here the file builds stand-ins only.
"""

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PickledArray:
    """What a pickle says of a numpy array."""

    def __init__(self, *arguments: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Takes version, shape, type, whether it lies column by column, and the bytes."""
        self.state = state

    def pixels(self) -> NDArray[np.uint8]:
        """The array, in the shape that the pickle gives it.

        Raises:
            ValueError: If its elements are not uint8, or are too many or too few for the shape.
        """
        _version, shape, kind, by_columns, content = self.state
        if kind.name not in ("u1", b"u1"):
            raise ValueError("the array is not of uint8")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


class _ArrayOfBuffer(PickledArray):
    """The same, as pickle's protocol 5 says it."""

    def __init__(self, content: Any, kind: Any, shape: Any, order: Any, *_: Any) -> None:
        self.state = (1, shape, kind, order == "F", content)


class _Type:
    """What a pickle says of the type of an array's elements."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Takes byte order and the like, which a uint8 has not."""


class _Bytes(bytes):
    """Bytes, as Python 3 says them in a pickle that Python 2 can read."""

    def __new__(cls, text: str, encoding: str) -> "_Bytes":
        return super().__new__(cls, text.encode("latin1"))


STAND_INS = {
    "numpy.ndarray": PickledArray,
    "numpy.dtype": _Type,
    "numpy.core.multiarray._reconstruct": PickledArray,
    "numpy._core.multiarray._reconstruct": PickledArray,
    "numpy.core.numeric._frombuffer": _ArrayOfBuffer,
    "numpy._core.numeric._frombuffer": _ArrayOfBuffer,
    "_codecs.encode": _Bytes,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what the file names."""
        stand_in = STAND_INS.get(f"{module}.{name}")
        if stand_in is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a file of arrays does not need")
        return stand_in


def read_pickle(content: bytes) -> Any:
    """What a pickle holds, of any protocol and of Python 2 or 3; text of Python 2 comes as bytes.

    Raises:
        Exception: Nearly any kind, if the content is damaged, or holds something else.
    """
    return _Reader(io.BytesIO(content), encoding="bytes").load()
