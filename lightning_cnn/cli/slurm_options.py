"""The options of Slurm on the command line, by the fields of `Slurm`."""

import argparse
import re
import shlex
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cluster.slurm import Slurm

LAUNCHERS = ("local", "slurm")
LABELS = ("follow it", "its state", "stop it"), ("follow one", "their state", "stop them")
TIME = "90 (minutes), 12:00:00 (hours:minutes:seconds) or 2-12 (days-hours)"


def add_slurm_options(parser: VerbParser) -> VerbParser:
    """Adds `--nodes`, `--time`, `--partition` and so on to the parser of a verb, and `--dry_run`; returns it."""
    add = parser.add_argument_group("Slurm").add_argument
    for option in fields(Slurm):
        default: Any = [] if option.default is MISSING else option.default
        number = {"type": int} if "int" in str(option.type) else {}
        how = {"default": default, "help": option.metadata["help"]} | number | HOW.get(option.name, {})
        add(f"--{option.name}", **how)
    add("--dry_run", action="store_true", help="print the sbatch script and submit nothing")
    return parser


def slurm_of(options: argparse.Namespace) -> Slurm:
    """The options of the job among those that were parsed."""
    given = {option.name: getattr(options, option.name) for option in fields(Slurm)}
    return Slurm(**given | {"sbatch": dict(options.sbatch)})


def how_to_follow(jobs: list[str], log: Path, note: str = "") -> str:
    """What to type to follow jobs that were submitted.

    Args:
        jobs: Their ids.
        log: That of the first.
        note: What to know of the log.
    """
    first = jobs[0].split("_")[0]
    texts = f"tail -F {shlex.quote(str(log))}{note}", f"squeue --jobs {first}", f"scancel {first}"
    return "\n".join(f"{label:<13}{text}" for label, text in zip(LABELS[len(jobs) > 1], texts, strict=True))


def _minutes(text: str) -> int:
    """A time limit in minutes, rounded up."""
    if not re.fullmatch(r"\d+|\d+:\d+:\d+|\d+-\d+(:\d+){0,2}", text):  # Slurm takes 2:00, too, for two minutes
        raise ValueError(text)
    days, _, clock = text.rpartition("-")
    numbers = [int(part) for part in clock.split(":")]
    hours, minutes, seconds = (*numbers, 0, 0)[:3] if days or len(numbers) == 3 else (0, numbers[0], 0)
    total = -(-(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds) // 60)
    if total < 1:
        raise ValueError(text)
    return total


def _name_and_value(text: str) -> tuple[str, str | bool]:
    name, equals, value = text.removeprefix("--").partition("=")
    return name.replace("-", "_"), value if equals else True


_minutes.__name__ = f"time limit ({TIME})"  # argparse names it in its errors

# how the options are typed, where that is not as a text
HOW: dict[str, dict[str, Any]] = {
    "time": {
        "type": _minutes,
        "default": "1:00:00",
        "help": f"time limit: {TIME}; a job that reaches it is queued again",
    },
    "save_before": {"metavar": "SECONDS"},
    "setup": {"action": "append", "metavar": "LINE"},
    "sbatch": {"action": "append", "type": _name_and_value, "metavar": "NAME=VALUE"},
}
