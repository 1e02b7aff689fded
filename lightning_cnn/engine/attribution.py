"""Attribution maps of a classifier's answers, by captum."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnn.engine.cam_layer import check_layer, default_layer
from lightning_cnn.errors import UserError, check, check_choice, did_you_mean
from lightning_cnn.modules.image_task import ClassTask

CAM = ("gradcam", "guided_gradcam")
METHODS = (*CAM, "integrated_gradients", "occlusion", "saliency")
SIGNED = ("guided_gradcam", "integrated_gradients", "occlusion")
WINDOWS = 7  # that lie side by side on an image, by default
STEPS = 50
STEP_BATCH = 64  # images that integrated gradients computes at once, at least


@dataclass(frozen=True)
class Settings:
    """How answers are explained, by the arguments of `explain`.

    Attributes:
        method: One of `METHODS`.
        layer: Layer of the Grad-CAM methods; None for the default one.
        steps: Steps of integrated gradients; None for `STEPS`.
        window: Side of the square of occlusion; None for a seventh of the image.

    Raises:
        UserError: If they contradict each other.
    """

    method: str
    layer: str | None
    steps: int | None
    window: int | None

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_choice("method", self.method, METHODS)
        for name, methods in (("layer", CAM), ("steps", ("integrated_gradients",)), ("window", ("occlusion",))):
            value = getattr(self, name)
            if value is not None and self.method not in methods:
                raise UserError(f"`{name}` is for `method` {' and '.join(methods)}: remove it")
            if name != "layer" and value is not None:
                check(name, value, least=1)


class Explainer:
    """Computes the maps of a classifier.

    Args:
        model: The classifier, with its weights.
        settings: How answers are explained.
        device: What to compute on.

    Attributes:
        layer: The layer of the Grad-CAM methods; empty for the others.

    Raises:
        UserError: If the model is no image classifier, or the method does not fit it.
    """

    def __init__(self, model: Any, settings: Settings, device: torch.device) -> None:
        if not isinstance(model, ClassTask):
            raise UserError(f"{type(model).__name__} is not a classifier of images: `explain()` can't explain it")
        self.model, self.settings, self.device = model.eval().to(device), settings, device
        self.network: nn.Module = model.network
        for module in self.network.modules():  # captum looks at values that would be overwritten
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        name, image = str(model.hparams["architecture"]), torch.zeros_like(model.example_input_array).to(device)  # type: ignore[arg-type]
        self.layer = ""
        if settings.method in CAM and settings.layer is None:
            self.layer = default_layer(self.network, name, image)
        elif settings.method in CAM:
            self.layer = check_layer(self.network, str(settings.layer), image)
        if settings.method == "guided_gradcam" and not any(isinstance(m, nn.ReLU) for m in self.network.modules()):
            raise UserError(
                f"{name} has no layers nn.ReLU, whose gradients `method` guided_gradcam changes: use `method` gradcam"
            )
        if settings.window is not None and settings.window > min(image.shape[2:]):
            raise UserError(f"`window` {settings.window} is larger than the images, {image.shape[2]}x{image.shape[3]}")

    def probabilities(self, images: Tensor) -> Tensor:
        """What the task predicts of images, `(n, classes)`: probabilities, of capsules their lengths.

        Args:
            images: As the network sees them, `(n, channels, height, width)`.
        """
        with torch.no_grad():
            found: Tensor = self.model.predict_step((images.to(self.device), torch.zeros(len(images))), 0)  # type: ignore[operator]
        return found.float().cpu()

    def maps(self, images: Tensor, targets: Tensor) -> Tensor:
        """The map of each image, `(n, height, width)`.

        Args:
            images: As the network sees them, `(n, channels, height, width)`.
            targets: The class of each, int64 `(n,)`.
        """
        from captum import attr

        images, targets, network = images.to(self.device), targets.to(self.device), self.network
        method: str = self.settings.method
        if method == "gradcam":
            cam = attr.LayerGradCam(network, network.get_submodule(self.layer))
            small = cam.attribute(images, targets, relu_attributions=True)
            found = attr.LayerAttribution.interpolate(small, tuple(images.shape[2:]), "bilinear")[:, 0]
        elif method == "guided_gradcam":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that it sets hooks
                guided = attr.GuidedGradCam(network, network.get_submodule(self.layer))
                found = guided.attribute(images, targets, interpolate_mode="bilinear").sum(1)
        elif method == "integrated_gradients":
            size = max(len(images), STEP_BATCH)
            steps = {"n_steps": self.settings.steps or STEPS, "internal_batch_size": size}
            found = attr.IntegratedGradients(network).attribute(images, 0.0, targets, **steps).sum(1)
        elif method == "saliency":
            found = attr.Saliency(network).attribute(images, targets).amax(1)
        else:
            side = self.settings.window or max(1, round(min(images.shape[2:]) / WINDOWS))
            shape, strides = ((images.shape[1], each, each) for each in (side, max(1, side // 2)))
            found = attr.Occlusion(network).attribute(images, shape, strides, 0.0, targets)[:, 0]
        maps: Tensor = found.detach().float().cpu()
        return maps


def class_number(target: str | int, names: tuple[str, ...]) -> int:
    """The class that a user means by its name or its number.

    Args:
        target: The name or the number.
        names: Names of all classes.

    Raises:
        UserError: If there is no such class.
    """
    if target in names:
        return names.index(str(target))
    number = int(target) if str(target).isdecimal() else -1
    if not 0 <= number < len(names):
        hint = did_you_mean(str(target), names) or f"; the {len(names)} classes are {names[0]} to {names[-1]}"
        raise UserError(f"`target` {target}: there is no such class{hint}")
    return number
