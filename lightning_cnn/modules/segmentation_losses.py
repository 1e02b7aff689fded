"""Losses of segmentation: cross-entropy, focal loss and soft Dice loss of the labelled pixels."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.errors import UserError, check, check_choice
from lightning_cnn.options import IGNORE

LOSSES = ("cross_entropy", "dice", "focal")


@dataclass(frozen=True)
class Criterion:
    """A sum of losses of the pixels whose class is known.

    Attributes:
        names: The losses that are added, of `LOSSES`.
        focal_gamma: Exponent of the focal loss.
    """

    names: tuple[str, ...]
    focal_gamma: float = 2.0

    @classmethod
    def of(cls, text: str, focal_gamma: float) -> "Criterion":
        """From the options of a task.

        Args:
            text: Names of losses, with `+` between two.
            focal_gamma: Exponent of the focal loss.

        Raises:
            UserError: If an option is invalid.
        """
        names = tuple(name.strip() for name in text.split("+"))
        for name in names:
            check_choice("model.criterion", name, LOSSES)
        if len(set(names)) < len(names):
            raise UserError(f"`model.criterion` {text}: name each loss once")
        check("model.focal_gamma", focal_gamma, least=0)
        return cls(names, focal_gamma)

    def __call__(self, logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
        """The sum of the losses over all pixels together; 0 where no class is known.

        Args:
            logits: `(n, num_classes, height, width)`.
            masks: Classes, int64 `(n, height, width)`; pixels with `IGNORE` don't count.
            weights: Of the classes, `(num_classes,)`; None weighs all alike.
        """
        logits = logits.float()
        weights = logits.new_ones(logits.shape[1]) if weights is None else weights
        known = masks != IGNORE
        classes = masks.where(known, 0)
        of_pixel = weights[classes] * known
        logs = logits.log_softmax(1)
        entropy = -logs.gather(1, classes[:, None])[:, 0]
        found = []
        for name in self.names:
            if name == "dice":
                found.append(_dice(logs.exp(), classes, known, weights))
            else:
                # away from 0, where the derivative of a power below 1 is infinite
                wrong = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).eps)
                factor = wrong**self.focal_gamma if name == "focal" else 1
                found.append(_ratio((of_pixel * factor * entropy).sum(), of_pixel.sum()))
        return torch.stack(found).sum()


def _dice(shares: Tensor, classes: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, `2 |P G| / (|P| + |G|)`, as the weighted mean of the classes that occur.

    Source: Milletari, Navab and Ahmadi, "V-Net" (2016), section 3; with sums in the denominator in the place of sums of
    squares, as in Sudre et al. (2017).

    Args:
        shares: Probabilities `(n, num_classes, height, width)`.
        classes: True classes `(n, height, width)`.
        known: Which pixels count.
        weights: Of the classes.
    """
    true = F.one_hot(classes, shares.shape[1]).movedim(-1, 1) * known[:, None]
    shares = shares * known[:, None]
    dims = (0, 2, 3)
    counts = true.sum(dims)
    scores = _ratio(2 * (shares * true).sum(dims), shares.sum(dims) + counts)
    weights = weights * (counts > 0)
    return _ratio((weights * (1 - scores)).sum(), weights.sum())


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """The ratio; 0 of nothing, with a gradient of 0."""
    return part / whole.where(whole > 0, 1.0)
