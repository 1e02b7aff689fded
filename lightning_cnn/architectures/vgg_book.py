"""VGG16's convolutions with the head that the book uses for transfer learning."""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras


class VGG16Book(Classifier):
    """VGG16 without its dense layers, and the book's head 512-256-classes; 15,111,242 parameters on CIFAR-10.

    Weights of timm's or torchvision's `vgg16` can be loaded; those of the convolutions are used.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015),
    configuration D; the head: the book's notebook on bottleneck features.

    Args:
        num_classes: Number of classes; 0 removes the whole head.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 32.
        drop_rate: Probability of dropping a unit of the head's first layer.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, img_size: int = 32, drop_rate: float = 0.5) -> None:
        self.drop_rate = drop_rate
        layers = make_layers(cfgs["D"])
        layers[0] = nn.Conv2d(in_chans, 64, 3, padding=1)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        super().__init__(nn.Sequential(layers, nn.Flatten()), in_chans, img_size, num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head, all three layers of it, with a new one.

        Args:
            num_classes: Size of the output; 0 removes the head.
            global_pool: Ignored; part of timm's interface.
        """
        self.num_classes = num_classes
        self.head = nn.Identity()
        if num_classes:
            first = [nn.Linear(self.num_features, 512), nn.ReLU(), nn.Dropout(self.drop_rate)]
            self.head = nn.Sequential(*first, nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, num_classes))
            self.head.apply(init_keras).train(self.training)


def _convolutions(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Renames the convolutions of a plain VGG16 to their names here; the new head keeps its weights."""
    if any(name.startswith("features.0.0.") for name in state):
        return state
    renamed = {
        name.replace("features.", "features.0.", 1): value
        for name, value in state.items()
        if name.startswith("features.")
    }
    return {**renamed, **{name: value for name, value in model.state_dict().items() if name.startswith("head.")}}


WEIGHTS = {"hf_hub_id": "timm/vgg16.tv_in1k", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
default_cfgs = generate_default_cfgs(
    {"vgg16_book": config(10, (3, 32, 32), "features.0.0", classifier="head.5", **WEIGHTS)}
)


@register_model
def vgg16_book(pretrained: bool = False, **kwargs: Any) -> VGG16Book:
    """VGG16's convolutions and the book's head, for transfer to CIFAR-10 (15,111,242 parameters)."""
    return build(VGG16Book, "vgg16_book", pretrained, kwargs, pretrained_filter_fn=_convolutions)
