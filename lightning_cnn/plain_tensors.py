"""Files of torch from outside, read as plain data: no code from them runs, whatever they hold."""

import pickle
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import escaped

# what timm's training and others' put beside the weights; each is made by torch's unpickler from plain data alone
_PLAIN: tuple[Any, ...] = (Namespace, np.dtype, *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"))
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def read_tensors(path: str | Path, what: str, instead: str = "use another file") -> Any:
    """The content of a file that torch has saved.

    Args:
        path: The file.
        what: What it should be, such as "a checkpoint".
        instead: What to do where it is damaged.

    Raises:
        UserError: If it can't be read, is damaged, or holds pickled code, which is named.
    """
    try:
        with torch.serialization.safe_globals([*_PLAIN, *((_number, name) for name in _SCALAR)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
        raise UserError(
            f"{path} can't be read ({error.strerror}): use another file, or change its permissions"
        ) from None
    except Exception as error:  # torch's unpickler raises nearly everything
        code = (
            re.search(r"GLOBAL (\S+)|class (\S+) ", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        )
        if code is None or "nsupported" not in str(error):
            raise UserError(f"{path} is truncated or not {what}: {instead}") from None
        name = escaped(str(code[1] or code[2]))[:80]
        raise UserError(
            f"{path} contains pickled code ({name}) and was not loaded: use {what} of plain data, such as a state dict"
        ) from None


def _number(kind: Any, content: Any) -> Any:
    """A number of NumPy as Python's; torch's unpickler calls it where a file names `numpy.core.multiarray.scalar`."""
    raw = content.encode("latin-1") if isinstance(content, str) else bytes(content)
    return np.frombuffer(raw, kind, count=1)[0].item()
