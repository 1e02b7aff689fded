"""The argument parser of the verbs that don't train."""

import argparse
import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from lightning_cnn.engine.catalogue import Option, signature
from lightning_cnn.engine.catalogue import options as class_options
from lightning_cnn.engine.source import Source, Weights
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.plain_text import check_texts, with_paths


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but no `(default: None)` and `(default: False)`, which tell a user nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, [], ()) else super()._get_help_string(action)


ANY_TEXT = ("image", "images", "note")  # files that are there, whatever they are called; and text that is only shown
# what an annotation means on the command line; of several types the first counts
TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "Path": Path, "Photo": str}
METAVARS = {"int": "N", "float": "X", "Path": "PATH"}  # of texts NAME
TRUST = "let checkpoints and runs from outside your runs directories import MODULE, which runs its code"
PARENTHESES = str.maketrans("[]", "()")


class Extending(argparse.Action):
    """Takes the values of an option that is given several times, where `extend` would append to the default."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: Any, option_string: object = None
    ) -> None:
        """Takes further values."""
        given = [] if getattr(namespace, self.dest) is self.default else getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*given, *values])


class VerbParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose errors are one `UserError` line and name the nearest option.

    Control characters in the values of options are such an error.

    Args:
        verb: The verb, as typed after `lightning-cnn`.
        description: What the verb does.
    """

    def __init__(self, verb: str, description: str) -> None:
        name = f"lightning-cnn {verb}"
        super().__init__(prog=name, description=description, allow_abbrev=False, formatter_class=_Formatter)
        self.names: list[str] = []  # of the arguments of a function that are options

    def arguments(self, options: argparse.Namespace) -> dict[str, Any]:
        """Of the parsed options those that are arguments of the function, by name."""
        return {name: getattr(options, name) for name in self.names}

    def add_fields(self, class_name: str, folder: str, fields: Sequence[str]) -> None:
        """Adds options of a class, such as `data.date_format`.

        Args:
            class_name: Name of the class.
            folder: Folder of the package that has it.
            fields: Their dotted names.
        """
        known = {option.name: option for option in class_options(class_name, folder)}
        for field in fields:
            option = known[field.rpartition(".")[2]]
            self.add_argument(f"--{field}", **_as_argument(replace(option, default=None)))

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """The parsed options, and the words that are none."""
        options, words = super().parse_known_args(*args, **named)
        check_texts(vars(options), skip=ANY_TEXT)
        for name, value in with_paths(vars(options)).items():
            setattr(options, name, value)
        return options, words

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`."""
        hint = ""
        if message.startswith("unrecognized arguments: "):
            options = [name for action in self._actions for name in action.option_strings]
            hint = did_you_mean(message.split()[2].split("=")[0], options)
        raise UserError(message + (hint or f"; see {self.prog} --help"))


def parser_for(verb: str, module: str) -> VerbParser:
    """The parser of a verb whose options are the arguments of a function, read from its source: nothing is imported.

    An argument of the type `Source` becomes the options that `source_of` reads; one of the type `Any` none.

    Args:
        verb: The verb.
        module: File of the function, which has the same name, such as `engine/probe`.
    """
    description, known = signature(module, module.rpartition("/")[2])
    parser = VerbParser(verb, description)
    arguments = [option for option in known if option.annotation != "Any"]
    others = [option for option in arguments if not option.annotation.startswith("Source")]
    parser.names = [option.name for option in others]
    for option in others:
        if option.name != "trust":
            parser.add_argument(option.name if option.by_position else f"--{option.name}", **_as_argument(option))
    has_source = len(others) < len(arguments)
    if has_source:
        text = "the checkpoint, such as runs/NAME/ID/checkpoints/best.ckpt"
        parser.add_argument("--ckpt_path", metavar="FILE", help=text)
    if "trust" in parser.names:
        parser.add_argument("--trust", action="append", default=[], metavar="MODULE", help=TRUST)
    if has_source:
        parser.add_argument("--architecture", metavar="NAME", help="timm network, instead of a checkpoint")
        text = "weights for --architecture (default: timm downloads them)"
        parser.add_argument("--weights", metavar="FILE", help=text)
    return parser


def source_of(options: argparse.Namespace) -> Source:
    """Where the model comes from.

    Raises:
        UserError: If nothing says it, or several options do.
    """
    if (options.ckpt_path is None) == (options.architecture is None):
        raise UserError(
            "which model? Either --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt, "
            "or --architecture NAME with or without --weights FILE"
        )
    if options.ckpt_path is None:
        return Weights(options.architecture, options.weights)
    if options.weights is not None:
        raise UserError("--weights requires --architecture; a checkpoint has its own weights: remove it")
    return str(options.ckpt_path)


def _as_argument(option: Option) -> dict[str, Any]:
    """The arguments of `add_argument`."""
    annotation = option.annotation.partition(" | ")[0]
    text = option.description
    text = re.sub(r"(?<!\.)\.$", "", text if text[1:2].isupper() else text[:1].lower() + text[1:])  # JSON stays
    found: dict[str, Any] = {"help": text.replace("%", "%%")}
    if annotation == "bool":
        return found | {"action": "store_true"}
    if option.default is not None:
        found["default"] = ast.literal_eval(option.default)
    if several := re.fullmatch(r"Sequence\[(.+)\]", annotation):
        annotation = several[1]
        found["nargs"] = "*" if option.by_position and option.default is not None else "+"
        found["action"] = Extending
    elif option.by_position and option.default is not None:
        found["nargs"] = "?"
    if annotation.startswith("Literal["):
        return found | {"choices": ast.literal_eval(annotation.removeprefix("Literal").translate(PARENTHESES))}
    metavar = {} if option.by_position else {"metavar": METAVARS.get(annotation, "NAME")}
    return found | {"type": TYPES[annotation]} | metavar
