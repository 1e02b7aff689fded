"""The base of all data sets of house numbers with boxes: whole photos, and where each digit lies in them."""

from typing import Any, ClassVar

from lightning_cnn.datamodules.detection.base import BoxDataModule

MIRRORING = ("flip", "alternating_flip")


class DigitBoxes(BoxDataModule):
    """Base class of photos padded to squares; the label is float32 `(max_boxes, 5)`, a row per digit.

    A row is the digit and its box: left, top, right, bottom in pixels of the square; the digit is -1 in unused rows.
    A subclass defines `load`, which may use `boxes_as_labels`.

    Args:
        max_boxes: Maximum number of digits in an image.

    Raises:
        UserError: If a value lies outside its range, or an augmentation would leave the boxes behind or mirror digits.
    """

    unfit: ClassVar[dict[str, str]] = BoxDataModule.unfit | dict.fromkeys(
        MIRRORING, "would mirror the digits: leave it out"
    )
    default_model = "DigitDetector"
    num_classes = 10
    class_names = tuple("0123456789")
    what = "digits"

    def __init__(self, root: str | None = None, *, max_boxes: int = 6, **options: Any) -> None:
        super().__init__(root, max_boxes=max_boxes, **options)
