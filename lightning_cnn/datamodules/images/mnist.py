"""MNIST and Fashion-MNIST, in the idx files of torchvision."""

from pathlib import Path
from typing import ClassVar

import torch
import torchvision
from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file

from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.datamodules.images.download import Missing
from lightning_cnn.errors import UserError


class MNIST(ImageDataModule):
    """MNIST: 70,000 handwritten digits of 28x28 pixels, 60,000 for training and 10,000 for the test.

    The four idx files are expected in `<root>/MNIST/raw/`, as in torchvision; missing files are downloaded.

    Source: LeCun et al., "Gradient-based learning applied to document recognition" (1998), section III.A.
    """

    num_classes = 10
    in_channels = 1
    native_size = 28
    class_names: tuple[str, ...] = tuple("0123456789")
    source: ClassVar[type[torchvision.datasets.MNIST]] = torchvision.datasets.MNIST

    def prepare_data(self) -> None:
        """Downloads the files where they are missing.

        Raises:
            UserError: If they are missing and can't be downloaded.
        """
        missing = [path for train in (True, False) for path in self._files(train) if not path.is_file()]
        if not missing:
            return
        folder, name = missing[0].parent, self.source.__name__
        zipped = missing[0].with_name(missing[0].name + ".gz").is_file()
        cure = f"unpack them: gunzip {folder}/*.gz" if zipped else f"unpack the four idx files into {folder}"
        cure += f", or set `data.root` to the folder that contains {name}/raw/"
        absent = Missing(type(self).__name__, f"{missing[0]} is missing", cure)
        absent.download(lambda folder: self.source(folder, download=True), self.root, self.download)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """60,000 training or 10,000 test images, uint8 `(n, 1, 28, 28)`, and their labels."""
        image_file, label_file = self._files(train)
        images, labels = self._read(image_file, 3), self._read(label_file, 1)
        if len(images) != len(labels):
            raise UserError(
                f"{image_file} has {len(images)} images and {label_file} {len(labels)} labels: one of them is wrong"
            )
        if len(labels) == 0 or int(labels.max()) >= self.num_classes:
            raise UserError(f"{label_file} is not a label file of {type(self).__name__}: replace it by the original")
        return images.unsqueeze(1), labels

    def _files(self, train: bool) -> tuple[Path, Path]:
        folder, part = self.root / self.source.__name__ / "raw", "train" if train else "t10k"
        return folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"

    def _read(self, path: Path, dimensions: int) -> Tensor:
        try:
            content: Tensor = read_image_file(str(path)) if dimensions == 3 else read_label_file(str(path))
        except FileNotFoundError:
            raise UserError(
                f"{path} is missing; unpack the four idx files into {path.parent}, or set `data.root` to the folder "
                f"that contains {self.source.__name__}/raw/"
            ) from None
        except Exception as error:  # torchvision asserts, unpacks and indexes: every kind means the same
            reason = str(error) or "its length does not fit its header"
            raise UserError(
                f"{path} is truncated or not an idx file ({reason}): replace it, or delete it to download it anew"
            ) from None
        return content if dimensions == 3 else content.to(torch.int64)


class FashionMNIST(MNIST):
    """Fashion-MNIST: 70,000 images of clothes of 28x28 pixels, a harder drop-in replacement for MNIST.

    The four idx files are expected in `<root>/FashionMNIST/raw/`, as in torchvision; missing files are downloaded.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset" (2017).
    """

    class_names = (
        "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    source = torchvision.datasets.FashionMNIST
