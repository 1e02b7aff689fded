"""What is learned from: LightningDataModules, one file each."""

from lightning_cnn.datamodules.cifar10 import CIFAR10
from lightning_cnn.datamodules.digits import Digits
from lightning_cnn.datamodules.image_datamodule import ImageDataModule
from lightning_cnn.datamodules.image_files import ImageFiles
from lightning_cnn.datamodules.image_folder import ImageFolder
from lightning_cnn.datamodules.mnist import MNIST, FashionMNIST

__all__ = ["CIFAR10", "MNIST", "Digits", "FashionMNIST", "ImageDataModule", "ImageFiles", "ImageFolder"]
