"""Models that were trained: from a checkpoint, or a network of timm with its weights."""

from collections.abc import Sequence
from dataclasses import replace
from textwrap import shorten
from typing import Any

import timm
from pytorch_lightning import LightningModule

from lightning_cnn.config.checkpoint import class_and_arguments, read_checkpoint
from lightning_cnn.config.trust import class_named
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.build import check_fit
from lightning_cnn.engine.source import Source, Weights, checkpoint_of
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.modules.base import STARTING_WEIGHTS
from lightning_cnn.modules.pretrained import overlay, read_weights
from lightning_cnn.resume.checkpoint_file import data_state, preprocessing_of
from lightning_cnn.user_code import PACKAGE, find_user_code


def load(source: Source, trust: Sequence[str] = ()) -> tuple[LightningModule, Preprocessing]:
    """A model, in evaluation mode, and the preparation of its images.

    Args:
        source: A run, its folder, the path of a checkpoint, or `Weights`.
        trust: Modules that a checkpoint from outside the own runs directories may import.

    Raises:
        UserError: If it can't be had.
    """
    find_user_code(*trust)
    found = checkpoint_of(source)
    model, preprocessing = _of_timm(found) if isinstance(found, Weights) else load_model(read_checkpoint(found))
    return model.eval(), preprocessing


def load_model(checkpoint: dict[str, Any]) -> tuple[LightningModule, Preprocessing]:
    """The model in a checkpoint, with its weights, and the preprocessing of its training data.

    Raises:
        UserError: If the checkpoint does not carry both, or its class can't be found.
    """
    carried = preprocessing_of(checkpoint)
    if carried is None and data_state(checkpoint, "scaling"):
        raise UserError(
            "the checkpoint was trained on monthly returns, not images: use `predict()` with `prices` or `returns`"
        )
    if carried is None:
        raise UserError("the checkpoint does not record its preprocessing: train with a data module of this package")
    try:
        preprocessing = Preprocessing.from_dict(carried)
    except TypeError:
        raise UserError("the preprocessing in the checkpoint is damaged: use another checkpoint") from None
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


def _of_timm(source: Weights) -> tuple[LightningModule, Preprocessing]:
    """A network of timm as it was trained, with all its classes."""
    architecture, weights = source.architecture, source.file
    config = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if config is None:
        hint = did_you_mean(architecture, timm.list_models()) or "; train it, then use `ckpt_path`"
        raise UserError(f"`architecture` {architecture}: timm has no weights of that name{hint}")
    if weights is None and not config.has_weights:
        raise UserError(
            f"`architecture` {architecture}: timm has no weights for it; add `weights` FILE, or train it and use "
            "`ckpt_path`"
        )
    config = config.to_dict()
    changes = overlay(read_weights(weights).named_as().state, config) if weights is not None else {}
    channels, _, size = config.get("test_input_size") or config["input_size"]
    classes = changes.get("num_classes", config["num_classes"])
    shape = {"num_classes": classes, "in_channels": channels, "image_size": size}
    try:
        model = ImageClassifier(architecture, **shape, pretrained=weights is None, weights=weights)
    except UserError as error:
        raise UserError(str(error).replace("`model.", "`")) from None  # what the options are called here
    assert model.pretrained_preprocessing is not None
    return model, replace(Preprocessing.from_dict(model.pretrained_preprocessing), background="white")
