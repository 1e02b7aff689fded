"""What is learned from: LightningDataModules, one file each."""

from lightning_cnn.datamodules.house_numbers.boxes import DigitBoxes
from lightning_cnn.datamodules.house_numbers.svhn_boxes import SVHNBoxes
from lightning_cnn.datamodules.house_numbers.svhn_numbers import SVHNNumbers
from lightning_cnn.datamodules.house_numbers.synthetic_boxes import SyntheticBoxes
from lightning_cnn.datamodules.house_numbers.synthetic_numbers import SyntheticNumbers
from lightning_cnn.datamodules.house_numbers.whole_numbers import HouseNumbers
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.datamodules.images.cifar10 import CIFAR10
from lightning_cnn.datamodules.images.digits import Digits
from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.image_folder import ImageFolder
from lightning_cnn.datamodules.images.mnist import MNIST, FashionMNIST
from lightning_cnn.datamodules.images.svhn import SVHN
from lightning_cnn.datamodules.returns.base import ReturnDataModule
from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns
from lightning_cnn.datamodules.returns.synthetic_returns import SyntheticReturns

__all__ = [
    "CIFAR10",
    "MNIST",
    "SVHN",
    "DigitBoxes",
    "Digits",
    "FashionMNIST",
    "HouseNumbers",
    "ImageDataModule",
    "ImageFiles",
    "ImageFolder",
    "MonthlyReturns",
    "ReturnDataModule",
    "SVHNBoxes",
    "SVHNNumbers",
    "SyntheticBoxes",
    "SyntheticNumbers",
    "SyntheticReturns",
]
