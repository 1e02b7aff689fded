"""SVHN as whole photos with a box around each digit, from the official folders."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from lightning_cnn.datamodules.house_numbers.boxes import DigitBoxes
from lightning_cnn.datamodules.house_numbers.letterbox import letterbox
from lightning_cnn.datamodules.house_numbers.svhn_folder import CACHE, SVHNFolders, read_folder
from lightning_cnn.datamodules.images.photo import photo_facts


class SVHNBoxes(SVHNFolders, DigitBoxes):
    """SVHN: photos of house numbers with a box around each digit, 33,402 for training and 13,068 for the test.

    The folders `train/` and `test/` of the official archives are expected in `<root>/`, each with its photos and its
    `digitStruct.mat`. Photos are resized and padded to a square, and rotated with their boxes by their orientation
    tag; at 128 pixels the training part takes 1.6 GB of memory.

    Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning" (2011).

    Args:
        max_boxes: Maximum number of digits in an image; one training image has six.
    """

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """The photos of the training or the test part as squares, and their labels, in the official order.

        Returns:
            uint8 `(n, 3, side, side)`; float32 `(n, max_boxes, 5)`.
        """
        folder, side = self.root / ("train" if train else "test"), self.image_size
        annotations = read_folder(folder, self.root / CACHE)
        paths = [str(folder / name) for name in annotations.names]
        images = self.read_photos(paths, self.preprocessing.read, 3, side, f"Reading {folder}")
        annotations = annotations.upright([photo_facts(path) for path in paths])
        own = np.repeat(annotations.sizes, annotations.lengths, axis=0)
        # clipped to the photo first: the bars around it are no part of a digit
        inside = annotations.boxes.clip(0, np.tile(own, 2))
        return images, self.boxes_as_labels(replace(annotations, boxes=letterbox(inside, own, side)))
