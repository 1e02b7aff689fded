"""What is learned and how it is measured: LightningModules, one file a kind of task, loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cnn.modules.capsule_classifier import CapsuleClassifier as CapsuleClassifier
    from lightning_cnn.modules.detector import Detector as Detector
    from lightning_cnn.modules.digit_detector import DigitDetector as DigitDetector
    from lightning_cnn.modules.house_number_reader import HouseNumberReader as HouseNumberReader
    from lightning_cnn.modules.image_classifier import ImageClassifier as ImageClassifier
    from lightning_cnn.modules.image_regressor import ImageRegressor as ImageRegressor
    from lightning_cnn.modules.multi_label_classifier import MultiLabelClassifier as MultiLabelClassifier
    from lightning_cnn.modules.return_classifier import ReturnClassifier as ReturnClassifier
    from lightning_cnn.modules.return_regressor import ReturnRegressor as ReturnRegressor
    from lightning_cnn.modules.segmenter import Segmenter as Segmenter

FILES = {
    "CapsuleClassifier": "capsule_classifier",
    "Detector": "detector",
    "DigitDetector": "digit_detector",
    "HouseNumberReader": "house_number_reader",
    "ImageClassifier": "image_classifier",
    "ImageRegressor": "image_regressor",
    "MultiLabelClassifier": "multi_label_classifier",
    "ReturnClassifier": "return_classifier",
    "ReturnRegressor": "return_regressor",
    "Segmenter": "segmenter",
}
__all__ = [*FILES]


def __getattr__(name: str) -> Any:
    if name not in FILES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{FILES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return __all__
