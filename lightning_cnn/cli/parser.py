"""The argument parser of the verbs that don't train."""

import argparse
import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lightning_cnn.engine.catalogue import Option, signature
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.plain_text import check_texts

if TYPE_CHECKING:
    from lightning_cnn.engine.loading import Source


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but no `(default: None)` and `(default: False)`, which tell a user nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, [], ()) else super()._get_help_string(action)


ANY_TEXT = ("images", "note")  # files that are there, whatever they are called; and text that is only shown


TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "Path": Path, "str | Path": Path}
METAVARS = {"int": "N", "float": "X", "str": "NAME", "Path": "PATH", "str | Path": "PATH"}


class VerbParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose errors are one `UserError` line and name the nearest option.

    Control characters in the values of options are such an error.

    Args:
        verb: The verb, as typed after `lightning-cnn`.
        description: What the verb does.
    """

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(
            prog=f"lightning-cnn {verb}",
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """The parsed options, and the words that are none."""
        options, words = super().parse_known_args(*args, **named)
        check_texts(vars(options), skip=ANY_TEXT)
        return options, words

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`."""
        hint = ""
        if message.startswith("unrecognized arguments: "):
            options = [name for action in self._actions for name in action.option_strings]
            hint = did_you_mean(message.split()[2].split("=")[0], options)
        raise UserError(message + (hint or f"; see {self.prog} --help"))


def parser_for(verb: str, module: str, function: str | None = None, skip: Sequence[str] = ()) -> VerbParser:
    """The parser of a verb whose options are the arguments of a function, read from its source: nothing is imported.

    Args:
        verb: The verb.
        module: File of the function, such as `engine/probe`.
        function: Name of the function; default the verb.
        skip: Arguments that the verb takes in another way, or not at all.
    """
    known = signature(module, function or verb)
    parser = VerbParser(verb, known.description)
    for option in known.words:
        if option.name not in skip:
            parser.add_argument(option.name, **_as_argument(option, positional=True))
    for option in known.options:
        if option.name not in skip:
            parser.add_argument(f"--{option.name}", **_as_argument(option, positional=False))
    return parser


def values(options: argparse.Namespace, module: str, function: str) -> dict[str, Any]:
    """Of the parsed options those that are arguments of a function, by name."""
    known = signature(module, function)
    return {
        option.name: getattr(options, option.name)
        for option in (*known.words, *known.options)
        if hasattr(options, option.name)
    }


def add_source(parser: VerbParser) -> None:
    """Adds the options of where a model comes from."""
    parser.add_argument(
        "--ckpt_path", metavar="FILE", help="the checkpoint, such as runs/NAME/ID/checkpoints/best.ckpt"
    )
    add_trust(parser)
    parser.add_argument("--architecture", metavar="NAME", help="instead of a checkpoint: a network of timm")
    parser.add_argument("--weights", metavar="FILE", help="with --architecture: its weights; else timm downloads them")


def add_trust(parser: VerbParser) -> None:
    """Adds `--trust`."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="let checkpoints and runs from outside your runs directories import MODULE, which runs its code",
    )


def source_of(options: argparse.Namespace) -> "Source":
    """Where the model comes from, by the options of `add_source`.

    Raises:
        UserError: If they contradict each other.
    """
    from lightning_cnn.engine.loading import Weights  # needs torch

    if (options.ckpt_path is None) == (options.architecture is None):
        raise UserError(
            "which model? Either --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt, "
            "or --architecture NAME with or without --weights FILE"
        )
    if options.ckpt_path is None:
        return Weights(options.architecture, options.weights)
    if options.weights is not None:
        raise UserError("--weights goes with --architecture; a checkpoint has its own weights: leave it out")
    return str(options.ckpt_path)


def _as_argument(option: Option, positional: bool) -> dict[str, Any]:
    """The arguments of `add_argument`."""
    annotation = option.annotation.removesuffix(" | None")
    default = None if option.default is None else ast.literal_eval(option.default)
    found: dict[str, Any] = {"help": option.description[:1].lower() + option.description[1:].rstrip(".")}
    if annotation == "bool":
        return found | {"action": "store_true"}
    several = re.fullmatch(r"Sequence\[(.+)\]", annotation)
    if several:
        annotation = several[1]
        found["nargs"] = "*" if positional and option.default is not None else "+"
    if annotation.startswith("Literal["):
        found["choices"] = ast.literal_eval(annotation.removeprefix("Literal").replace("[", "(").replace("]", ",)"))
    else:
        found["type"] = TYPES[annotation]
    if not positional:
        found["metavar"] = None if "choices" in found else METAVARS[annotation]
    elif option.default is not None and not several:
        found["nargs"] = "?"
    if not (positional and option.default is None):
        found["default"] = default
    return found
