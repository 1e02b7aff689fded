"""Where `predict` and `export` take their model from: a checkpoint, or a named network with pre-trained weights."""

import argparse
from textwrap import shorten
from typing import Any

import timm
from pytorch_lightning import LightningModule

from lightning_cnn.config.trust import class_named
from lightning_cnn.config.user_code import PACKAGE, find_user_code
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.wiring import STARTING_WEIGHTS, check_fit
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.modules.pretrained import overlay, read_weights
from lightning_cnn.tracking.checkpoint import class_and_arguments, data_state, preprocessing_of, read_checkpoint


def load_source(options: argparse.Namespace) -> tuple[LightningModule, Preprocessing]:
    """The model that the options name, in evaluation mode, and the preparation of its images.

    Raises:
        UserError: If it can't be had, or the options contradict each other.
    """
    if (options.ckpt_path is None) == (options.architecture is None):
        raise UserError(
            "which model? Either --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt, "
            "or --architecture NAME with or without --weights FILE"
        )
    find_user_code(*options.trust)
    if options.ckpt_path is not None:
        if options.weights is not None:
            raise UserError("--weights goes with --architecture; a checkpoint has its own weights: leave it out")
        model, preprocessing = load_model(read_checkpoint(options.ckpt_path))
    else:
        model, preprocessing = _pretrained_model(options.architecture, options.weights)
    return model.eval(), preprocessing


def load_model(checkpoint: dict[str, Any]) -> tuple[LightningModule, Preprocessing]:
    """The model in a checkpoint, with its weights, and the preprocessing of its training data.

    Raises:
        UserError: If the checkpoint does not carry both, or its class can't be found.
    """
    carried = preprocessing_of(checkpoint)
    if carried is None and data_state(checkpoint, "scaling"):
        raise UserError("the checkpoint is one of monthly returns, not of images: use predict with --prices FILE")
    if carried is None:
        raise UserError("the checkpoint does not say how its images were prepared: train with a data module of ours")
    try:
        preprocessing = Preprocessing.from_dict(carried)
    except TypeError:
        raise UserError("the checkpoint's preparation of images is damaged: take another one") from None
    return model_in(checkpoint), preprocessing


def model_in(checkpoint: dict[str, Any]) -> LightningModule:
    """The model in a checkpoint, with its weights.

    Raises:
        UserError: If its class can't be found, or the weights are not those of its network any more.
    """
    class_path, arguments = class_and_arguments(checkpoint, "model") or ("", checkpoint.get("hyper_parameters", {}))
    kind = class_named(class_path, LightningModule) if class_path else ImageClassifier
    # the checkpoint has better weights than those that its run began with
    arguments = {name: STARTING_WEIGHTS.get(name, value) for name, value in arguments.items()}
    model: LightningModule = made(kind, arguments)
    check_fit(model, checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    return model


def made(kind: type, arguments: dict[str, Any]) -> Any:
    """An object of a class of ours with the arguments in a checkpoint, or of a user's.

    Raises:
        UserError: If a class of ours does not take the arguments.
    """
    try:
        return kind(**arguments)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        if kind.__module__.partition(".")[0] != PACKAGE:
            raise
        reason = shorten(str(error) or type(error).__name__, 100, placeholder=" ...")
        raise UserError(
            f"{kind.__name__} does not accept the checkpoint's arguments ({reason}); use another checkpoint"
        ) from None


def _pretrained_model(architecture: str, weights: str | None) -> tuple[LightningModule, Preprocessing]:
    """A network of timm as it was trained, with all its classes."""
    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if config is None:
        hint = did_you_mean(architecture, timm.list_models()) or "; train it, then use --ckpt_path"
        raise UserError(f"--architecture {architecture}: timm knows no weights of that name{hint}")
    if weights is None and not config.has_weights:
        raise UserError(
            f"--architecture {architecture}: timm has no weights for it; name a file with --weights, "
            "or train it, then use --ckpt_path"
        )
    config = config.to_dict()
    changes = overlay(read_weights(weights).state, config) if weights is not None else {}
    channels, _, size = config.get("test_input_size") or config["input_size"]
    classes = changes.get("num_classes", config["num_classes"])
    try:
        model = ImageClassifier(architecture, classes, channels, size, pretrained=weights is None, weights=weights)
    except UserError as error:
        raise UserError(str(error).replace("--model.", "--")) from None  # what the options are called here
    assert model.pretrained_preprocessing is not None
    return model, Preprocessing.from_dict(model.pretrained_preprocessing)
