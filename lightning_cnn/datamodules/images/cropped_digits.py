"""The images and labels of SVHN's `*_32x32.mat`.

A child of `child_reader.py` reads them; nothing of this package is imported here.
"""

from typing import Any

import scipy.io
from numpy.typing import NDArray


def read(path: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The variables `X`, the images as uint8 `(32, 32, 3, n)`, and `y`, their labels `(n,)`.

    Args:
        path: A file in the format of MATLAB 5.

    Raises:
        Exception: Nearly any kind, if the file is damaged or none of these.
    """
    content = scipy.io.loadmat(path, variable_names=("X", "y"))
    for name in ("X", "y"):
        if name not in content:
            raise ValueError(f"it has no variable {name}")
    return content["X"], content["y"].ravel()
