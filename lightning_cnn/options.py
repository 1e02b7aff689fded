"""Options that are declared once, in a base class: `**options` in the subclasses, whole signatures and plain data."""

import inspect
from collections.abc import Mapping
from datetime import date
from pathlib import PurePath
from typing import Any

from lightning_cnn.errors import UserError

# what data may tell a model before any of it is read, and what all images do
IMAGE_FACTS = ("num_classes", "in_channels", "image_size")
FACTS = (*IMAGE_FACTS, "labels_per_image", "has_background", "object_classes", "lags", "window_length")
# the class of pixels of a mask that count in no loss and no metric: void, padding, and what lies outside of an image
IGNORE = 255
# the name of a class that figures of masks don't color, and without which metrics are measured, too
BACKGROUND = "background"


def merged_signature(kind: type) -> inspect.Signature:
    """The arguments of a class: those of its `__init__`, and where that takes `**options`, those of its bases.

    Args:
        kind: The class. Arguments of its bases can be passed by name only. Those in `fixed`, where a class has this, it
            sets itself, and does not take.
    """
    found: dict[str, inspect.Parameter] = {}
    fixed: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        _, *own = inspect.signature(vars(base)["__init__"]).parameters.values()
        for parameter in own:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in fixed:
                continue
            by_name = parameter.replace(kind=parameter.KEYWORD_ONLY) if found and base is not kind else parameter
            found.setdefault(parameter.name, by_name)
        fixed.update(vars(base).get("fixed", ()))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return inspect.Signature([*found.values()])


def plain(field: str, value: Any) -> Any:
    """A value as plain data, which a checkpoint and a YAML file can hold.

    Args:
        field: Name of the field, such as `model.lr`.
        value: Its value. Scalars of NumPy become numbers, paths and dates texts, tuples lists.

    Raises:
        UserError: If it can't be converted.
    """
    if value is None:
        return None
    for kind in (bool, int, float, str):  # or a subclass, such as a positive int
        if isinstance(value, kind):
            return kind(value)
    if hasattr(value, "as_dict"):  # jsonargparse's
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(f"{field}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(field, inner) for inner in value]
    if isinstance(value, PurePath | date):
        return str(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise UserError(f"`{field}`: {type(value).__name__} is not plain data; expected a number, string, list or dict")
