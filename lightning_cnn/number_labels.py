"""How house numbers are written as labels, and as the outputs of a network."""

from torch import Tensor

MAX_DIGITS = 5
BLANK = 10  # the label of a place that a number does not have
# what a reader gives for an image: logits of the lengths 0 to 5, of ten first digits, and of ten digits or none
# for each of the four other places
HEADS = (1 + MAX_DIGITS, BLANK, *(BLANK + 1,) * (MAX_DIGITS - 1))


def number_text(label: Tensor) -> str:
    """A number as text, such as `210`.

    Args:
        label: int64 `(6,)`: count of digits, then each, `BLANK` where there is none.
    """
    length, *digits = label.tolist()
    return "".join(map(str, digits[:length]))
