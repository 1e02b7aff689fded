"""Which training images are held out for validation: a share of them, or one of several folds."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.errors import UserError, check, check_choice

ValSplit = Literal["random", "stratified", "first", "last"]


@dataclass(frozen=True)
class Split:
    """How training images are divided.

    Attributes:
        fraction: Share of the images that is held out.
        how: Which ones: `random`, `stratified`, or the `first` or `last`.
        seed: Seed of the random draws.
        fold: One of several folds in place of the share, such as `3/5`.
    """

    fraction: float
    how: ValSplit
    seed: int
    fold: str | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            UserError: If one is out of range.
        """
        check("data.val_fraction", self.fraction, above=0, below=1)
        check_choice("data.val_split", self.how, ("random", "stratified", "first", "last"))
        if self.fold is not None:
            found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.fold)
            if not found or not 1 <= int(found[1]) <= int(found[2]) or int(found[2]) < 2:
                raise UserError(f"`data.fold` {self.fold}: expected one of several folds, such as 1/5, 2/5, ..., 5/5")
            if self.how in ("first", "last"):
                raise UserError(f"`data.fold` {self.fold} with `data.val_split` {self.how}: set one of the two")

    def rows(self, length: int, labels: Tensor | None, groups: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        """The positions of the images for training and of those for validation, sorted, int64.

        Args:
            length: Number of images.
            labels: Class of each image, where each has one.
            groups: Group of each image, where there are groups; these stay together.

        Raises:
            UserError: If there are too few images, groups or images of a class.
        """
        if length < 2:
            raise UserError(f"{length} training images are too few to hold out validation images: add some")
        if self.how == "stratified" and labels is None:
            raise UserError("`data.val_split` stratified requires one class per image: use random")
        if self.fold is not None or groups is not None:
            return self._fold(length, labels, groups)
        count = min(max(1, round(length * self.fraction)), length - 1)
        if self.how == "stratified" and labels is not None:
            found = _stratified(labels, count, self.seed)
            if found is not None:
                return found
        if self.how in ("random", "stratified"):
            order = torch.randperm(length, generator=torch.Generator().manual_seed(self.seed))
        else:
            order = torch.arange(length)
        border = length - count if self.how == "last" else count
        first, second = (half.sort().values for half in order.tensor_split([border]))
        return (first, second) if self.how == "last" else (second, first)

    def _fold(self, length: int, labels: Tensor | None, groups: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        most = length if groups is None else len({*groups})
        if self.fold is not None:
            number, folds = map(int, self.fold.split("/"))
        elif self.how in ("first", "last"):
            raise UserError(f"`data.groups` with `data.val_split` {self.how}: groups are divided at random; remove one")
        else:  # about the share that is wanted
            number, folds = 1, max(2, min(round(1 / self.fraction), most))
        if folds > most:
            what = "images" if groups is None else "groups"
            field = "`data.groups`" if self.fold is None else f"`data.fold` {self.fold}"
            raise UserError(f"{field}: {most} {what} are too few for {folds} folds")
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        classes = np.zeros(length, dtype=np.int64) if labels is None else labels.numpy()
        if np.bincount(classes).max() < folds:
            raise UserError(f"`data.fold` {self.fold}: no class has {folds} images: use fewer folds")
        with warnings.catch_warnings():  # of classes with fewer images than folds, which are named afterwards
            warnings.simplefilter("ignore")
            splits = kind(folds, shuffle=True, random_state=self.seed).split(classes, classes, groups)
            train, val = next(islice(splits, number - 1, None))
        return torch.from_numpy(train), torch.from_numpy(val)


def _stratified(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor] | None:
    """Holds out the same share of each class; of classes with one image none. None where some would get no image."""
    from sklearn.model_selection import train_test_split

    counts = labels.bincount()
    several = (counts[labels] > 1).nonzero().flatten()
    classes = int((counts > 1).sum())
    if not classes <= count <= len(several) - classes:
        return None
    _, val = train_test_split(several.numpy(), test_size=count, stratify=labels[several].numpy(), random_state=seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[torch.from_numpy(val)] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
