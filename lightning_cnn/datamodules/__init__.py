"""What is learned from: LightningDataModules, one file each."""

from lightning_cnn.datamodules.cifar10 import CIFAR10
from lightning_cnn.datamodules.digit_boxes import DigitBoxes
from lightning_cnn.datamodules.digits import Digits
from lightning_cnn.datamodules.house_numbers import HouseNumbers
from lightning_cnn.datamodules.image_datamodule import ImageDataModule
from lightning_cnn.datamodules.image_files import ImageFiles
from lightning_cnn.datamodules.image_folder import ImageFolder
from lightning_cnn.datamodules.mnist import MNIST, FashionMNIST
from lightning_cnn.datamodules.monthly_returns import MonthlyReturns
from lightning_cnn.datamodules.return_datamodule import ReturnDataModule
from lightning_cnn.datamodules.svhn import SVHN
from lightning_cnn.datamodules.svhn_boxes import SVHNBoxes
from lightning_cnn.datamodules.svhn_numbers import SVHNNumbers
from lightning_cnn.datamodules.synthetic_boxes import SyntheticBoxes
from lightning_cnn.datamodules.synthetic_numbers import SyntheticNumbers
from lightning_cnn.datamodules.synthetic_returns import SyntheticReturns

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
