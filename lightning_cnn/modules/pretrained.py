"""Pre-trained weights from a file, and the scaling of the images that they were trained on."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo, resolve_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from lightning_cnn.errors import UserError, first_line
from lightning_cnn.plain_tensors import read_tensors

IMAGENET_CLASSES = 1000
# what the weights of a network lie under in a checkpoint of ours
PREFIX = "network."
# where timm's and others' trainings keep the weights, averaged ones first
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
# what torch.compile and DistributedDataParallel put before the names, and what a module of one's own often does
OF_WRAPPERS = ("module.", "_orig_mod.")
OF_MODULES = (*OF_WRAPPERS, "model.", "net.", PREFIX)


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes:
        path: The file.
        state: The tensors by name, as the network calls them.
        preprocessing: How the images were prepared, where the file is a checkpoint of ours; else None.
    """

    path: str
    state: dict[str, Tensor]
    preprocessing: dict[str, Any] | None = None

    def named_as(self, network: Collection[str] = ()) -> "Weights":
        """The weights by the names in a network.

        Args:
            network: Names of its tensors; where it has some of the file, nothing changes.
        """
        return self if self.state.keys() & {*network} else replace(self, state=_without(self.state, OF_MODULES))

    def not_of(self, network: str, reason: str) -> UserError:
        """The error about weights of another network."""
        return UserError(f"the weights in {self.path} do not fit {network} ({reason}): use a file for this network")


def read_weights(path: str) -> Weights:
    """Reads a file of weights as plain tensors; pickled code in it is refused, not run.

    Args:
        path: A state dict saved by torch (`.pth`, `.pt`, `.bin`), a `.safetensors` file, or a checkpoint of ours.

    Raises:
        UserError: If there is no such file or it holds no weights.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no file of weights {path}: name a .pth, .safetensors or .ckpt file")
    if path.endswith(".safetensors"):
        try:
            return Weights(path, load_state_dict(path, device="cpu", weights_only=True))
        except Exception as error:  # every damaged file has an exception of its own
            raise UserError(f"{path} holds no readable weights ({first_line(error)[:100]}): use another file") from None
    content = read_tensors(path, "a file of weights")
    preprocessing = None
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        states = (value for value in content.values() if isinstance(value, dict))
        preprocessing = next((s["preprocessing"] for s in states if isinstance(s.get("preprocessing"), dict)), None)
    state = content
    while isinstance(state, dict) and (key := next((k for k in WRAPPERS if isinstance(state.get(k), dict)), None)):
        state = state[key]
    names = [*state] if isinstance(state, dict) else []
    if not names or not all(isinstance(name, str) and isinstance(state[name], Tensor) for name in names):
        raise UserError(f"{path} holds no named weights: use a file with a state dict")
    if state is not content and any(name.startswith(PREFIX) for name in names):  # beside these, those of a loss
        state = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    return Weights(path, _without(state, OF_WRAPPERS), preprocessing)


def _without(state: dict[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors, without prefixes that all their names have."""
    while prefix := next((each for each in prefixes if all(name.startswith(each) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def overlay(state: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Any]:
    """What timm must know of the weights that it is to load.

    Args:
        state: The tensors by name.
        config: The network's `pretrained_cfg`.

    Returns:
        Changes to the `pretrained_cfg`: the tensors, and their numbers of classes and of channels.
    """
    changes: dict[str, Any] = {"state_dict": dict(state), "custom_load": False}
    names = config.get("classifier") or ()
    heads = [state.get(f"{name}.weight") for name in ((names,) if isinstance(names, str) else names)]
    found = [head for head in heads if head is not None]
    if found:
        # (classes, features), or (classes, features, 1, 1); of capsules (capsules, their dimension, classes, dimension)
        is_capsules = found[0].ndim == 4 and found[0].shape[2:] != (1, 1)
        changes["num_classes"] = found[0].shape[2 if is_capsules else 0]
    first = config.get("first_conv")
    stem = state.get(f"{first}.weight") if isinstance(first, str) else None
    if stem is not None and stem.ndim == 4 and stem.shape[1] in (1, 3):
        changes["input_size"] = (stem.shape[1], *(config.get("input_size") or (3, 224, 224))[1:])
    return changes


def fitting(changes: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    """The changes of `overlay`, without the heads of other classes and without what the network does not use.

    timm removes only the weight and the bias of a head.

    Args:
        changes: What timm must know of the weights.
        network: The network that they are loaded into.
    """
    own, spare = network.state_dict(), unused_weights(network)
    is_other = changes.get("num_classes") not in (None, getattr(network, "num_classes", None))
    heads = tuple(f"{name}." for name in head_names(network)) if is_other else ()
    state = changes["state_dict"].items()
    kept = {k: v for k, v in state if not k.startswith(heads) and (k in own or k not in spare)}
    return changes | {"state_dict": kept}


@contextmanager
def loading() -> Iterator[list[Any]]:
    """Collects what `load_state_dict` says of missing and unexpected names.

    timm loads a file with another number of classes without a check, so that the weights of another architecture
    would go unnoticed.
    """
    said: list[Any] = []
    original = nn.Module.load_state_dict

    def listening(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        said.append(result)
        return result

    nn.Module.load_state_dict = listening  # type: ignore[method-assign]
    try:
        yield said
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def check_loaded(
    network: nn.Module, said: list[Any], architecture: str, weights: Weights, unused: Collection[str] = ()
) -> None:
    """Refuses weights that fill anything less, or hold anything more, than the network without its head.

    Args:
        network: The network.
        said: What `loading` has collected.
        architecture: Its name.
        weights: The weights.
        unused: Weights that the network has no use for.

    Raises:
        UserError: If they don't fit.
    """
    heads = head_names(network)
    lacking = unused_weights(network)
    odd = [
        name
        for result in said
        for names, known in ((result.missing_keys, lacking), (result.unexpected_keys, {*lacking, *unused}))
        for name in names
        if name not in known and not any(name == head or name.startswith(f"{head}.") for head in heads)
    ]
    if not said or odd:
        what = f"they differ in {odd[0]} and {len(odd) - 1} more" if odd else "nothing of it was loaded"
        raise weights.not_of(architecture, what)


def unused_weights(network: nn.Module) -> set[str]:
    """Names of weights that a file may have or lack, as the network says."""
    return network.unused_weights() if hasattr(network, "unused_weights") else set()  # type: ignore[operator]


def reset_new_head(network: nn.Module) -> None:
    """Resets the new head of a pre-trained timm network to PyTorch's default initialization.

    timm's EfficientNets scale the initial weights by the number of outputs: with ten classes the first loss is 18,
    not 2.3.
    """
    config = getattr(network, "pretrained_cfg", None) or {}
    has_head = type(network).__module__.startswith("timm.") and hasattr(network, "num_classes")
    if has_head and config.get("num_classes") != network.num_classes:
        for head in classifiers(network):
            if isinstance(head, nn.Linear | nn.Conv2d):
                head.reset_parameters()


def classifiers(network: nn.Module) -> list[nn.Module]:
    """The modules that make the logits; none of a network without timm's `get_classifier`."""
    heads = network.get_classifier() if hasattr(network, "get_classifier") else []  # type: ignore[operator]
    return list(heads) if isinstance(heads, tuple | list) else [heads]


def head_names(network: nn.Module) -> list[str]:
    """Names of the modules that make the logits; empty for a network without `get_classifier`."""
    wanted = {id(head) for head in classifiers(network)}
    if not wanted:
        return []
    names = [name for name, module in network.named_modules() if name and id(module) in wanted]
    config = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    return [*names, *((config,) if isinstance(config, str) else config)]


def pretrained_preprocessing(network: nn.Module, in_channels: int, weights: Weights | None = None) -> dict[str, Any]:
    """How the images of pre-trained weights were prepared: as their file says, or else timm's configuration.

    Args:
        network: A network of timm.
        in_channels: Channels of the images that it is to see; gray ones get the mean over the colors.
        weights: The file, if the weights are of one.

    Returns:
        The fields of `Preprocessing`: plain data.
    """
    own = weights.preprocessing if weights else None
    config = resolve_data_config({}, model=network, use_test_size=True)
    mean, std = (own["mean"], own["std"]) if own else (config["mean"], config["std"])
    if len(mean) != in_channels:
        mean, std = [sum(mean) / len(mean)] * in_channels, [sum(std) / len(std)] * in_channels
    if own:
        return own | {"in_channels": in_channels, "mean": list(mean), "std": list(std)}
    classes = getattr(network, "num_classes", None)
    return {
        "image_size": config["input_size"][-1],
        "in_channels": in_channels,
        "padding": 0,
        "resize": {"squash": "stretch", "border": "pad"}.get(config["crop_mode"], "crop"),
        "interpolation": "bicubic" if config["interpolation"] == "bicubic" else "bilinear",
        "crop_share": config["crop_pct"],
        "mean": list(mean),
        "std": list(std),
        "class_names": imagenet_names() if classes == IMAGENET_CLASSES else [],
    }


def imagenet_names() -> list[str]:
    """Names of the 1,000 classes of ImageNet, in the order of the outputs; where two are alike, with their number."""
    names = [name.split(",")[0] for name in ImageNetInfo().label_descriptions()]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names)]
