"""What is learned from: LightningDataModules, one file each, loaded when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cnn.datamodules.base import DataModule as DataModule
    from lightning_cnn.datamodules.detection.base import BoxDataModule as BoxDataModule
    from lightning_cnn.datamodules.detection.detection_folder import DetectionFolder as DetectionFolder
    from lightning_cnn.datamodules.house_numbers.boxes import DigitBoxes as DigitBoxes
    from lightning_cnn.datamodules.house_numbers.svhn_boxes import SVHNBoxes as SVHNBoxes
    from lightning_cnn.datamodules.house_numbers.svhn_numbers import SVHNNumbers as SVHNNumbers
    from lightning_cnn.datamodules.house_numbers.synthetic_boxes import SyntheticBoxes as SyntheticBoxes
    from lightning_cnn.datamodules.house_numbers.synthetic_numbers import SyntheticNumbers as SyntheticNumbers
    from lightning_cnn.datamodules.house_numbers.whole_numbers import HouseNumbers as HouseNumbers
    from lightning_cnn.datamodules.images.affine_mnist import AffineMNIST as AffineMNIST
    from lightning_cnn.datamodules.images.base import ImageDataModule as ImageDataModule
    from lightning_cnn.datamodules.images.cifar10 import CIFAR10 as CIFAR10
    from lightning_cnn.datamodules.images.digits import Digits as Digits
    from lightning_cnn.datamodules.images.image_files import ImageFiles as ImageFiles
    from lightning_cnn.datamodules.images.image_folder import ImageFolder as ImageFolder
    from lightning_cnn.datamodules.images.label_table import ImageTable as ImageTable
    from lightning_cnn.datamodules.images.label_table import ImageValues as ImageValues
    from lightning_cnn.datamodules.images.mnist import MNIST as MNIST
    from lightning_cnn.datamodules.images.mnist import FashionMNIST as FashionMNIST
    from lightning_cnn.datamodules.images.overlapping_digits import OverlappingDigits as OverlappingDigits
    from lightning_cnn.datamodules.images.rotated_digits import RotatedDigits as RotatedDigits
    from lightning_cnn.datamodules.images.svhn import SVHN as SVHN
    from lightning_cnn.datamodules.returns.base import ReturnDataModule as ReturnDataModule
    from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns as MonthlyReturns
    from lightning_cnn.datamodules.returns.synthetic_returns import SyntheticReturns as SyntheticReturns
    from lightning_cnn.datamodules.segmentation.base import MaskDataModule as MaskDataModule
    from lightning_cnn.datamodules.segmentation.camvid import CamVid as CamVid
    from lightning_cnn.datamodules.segmentation.membrane import Membrane as Membrane
    from lightning_cnn.datamodules.segmentation.run_lengths import RunLengthMasks as RunLengthMasks
    from lightning_cnn.datamodules.segmentation.segmentation_folder import SegmentationFolder as SegmentationFolder
    from lightning_cnn.datamodules.ships.synthetic_ships import SyntheticShipBoxes as SyntheticShipBoxes
    from lightning_cnn.datamodules.ships.synthetic_ships import SyntheticShips as SyntheticShips

FILES = {
    "AffineMNIST": "images.affine_mnist",
    "BoxDataModule": "detection.base",
    "CIFAR10": "images.cifar10",
    "CamVid": "segmentation.camvid",
    "DataModule": "base",
    "DetectionFolder": "detection.detection_folder",
    "DigitBoxes": "house_numbers.boxes",
    "Digits": "images.digits",
    "FashionMNIST": "images.mnist",
    "HouseNumbers": "house_numbers.whole_numbers",
    "ImageDataModule": "images.base",
    "ImageFiles": "images.image_files",
    "ImageFolder": "images.image_folder",
    "ImageTable": "images.label_table",
    "ImageValues": "images.label_table",
    "MNIST": "images.mnist",
    "MaskDataModule": "segmentation.base",
    "Membrane": "segmentation.membrane",
    "MonthlyReturns": "returns.monthly_returns",
    "OverlappingDigits": "images.overlapping_digits",
    "ReturnDataModule": "returns.base",
    "RotatedDigits": "images.rotated_digits",
    "RunLengthMasks": "segmentation.run_lengths",
    "SVHN": "images.svhn",
    "SVHNBoxes": "house_numbers.svhn_boxes",
    "SVHNNumbers": "house_numbers.svhn_numbers",
    "SegmentationFolder": "segmentation.segmentation_folder",
    "SyntheticBoxes": "house_numbers.synthetic_boxes",
    "SyntheticNumbers": "house_numbers.synthetic_numbers",
    "SyntheticReturns": "returns.synthetic_returns",
    "SyntheticShipBoxes": "ships.synthetic_ships",
    "SyntheticShips": "ships.synthetic_ships",
}
__all__ = [*FILES]


def __getattr__(name: str) -> Any:
    if name not in FILES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{FILES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return __all__
