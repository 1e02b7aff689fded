"""What is learned and how it is measured: LightningModules, one file a kind of task."""

from lightning_cnn.modules.capsule_classifier import CapsuleClassifier
from lightning_cnn.modules.detector import Detector
from lightning_cnn.modules.digit_detector import DigitDetector
from lightning_cnn.modules.house_number_reader import HouseNumberReader
from lightning_cnn.modules.image_classifier import ImageClassifier
from lightning_cnn.modules.image_regressor import ImageRegressor
from lightning_cnn.modules.multi_label_classifier import MultiLabelClassifier
from lightning_cnn.modules.return_classifier import ReturnClassifier
from lightning_cnn.modules.return_regressor import ReturnRegressor
from lightning_cnn.modules.segmenter import Segmenter

__all__ = [
    "CapsuleClassifier",
    "Detector",
    "DigitDetector",
    "HouseNumberReader",
    "ImageClassifier",
    "ImageRegressor",
    "MultiLabelClassifier",
    "ReturnClassifier",
    "ReturnRegressor",
    "Segmenter",
]
