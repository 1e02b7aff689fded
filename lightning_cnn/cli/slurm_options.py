"""The options of Slurm on the command line, by the fields of `Slurm`."""

import argparse
import re
from dataclasses import MISSING, fields
from typing import Any

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cluster.slurm import Slurm, check_slurm
from lightning_cnn.errors import UserError

LAUNCHERS = ("local", "slurm")
TIME = "90 (minutes), 12:00:00 (hours:minutes:seconds) or 2-12 (days-hours)"
# Lightning takes jobs of these names for a terminal session, and starts a training of its own in each task
NO_JOB_NAMES = ("bash", "interactive")


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--nodes`, `--time`, `--partition` and so on to the parser of a verb, and `--dry_run`."""
    add = parser.add_argument_group("Slurm").add_argument
    for option in fields(Slurm):
        default: Any = [] if option.default is MISSING else option.default
        how = {"default": default, "help": option.metadata["help"]} | HOW.get(option.name, {})
        add(f"--{option.name}", **how)
    add("--dry_run", action="store_true", help="print the sbatch script and submit nothing")


def slurm_of(options: argparse.Namespace) -> Slurm:
    """The options of the job among those that were parsed."""
    given = {option.name: getattr(options, option.name) for option in fields(Slurm)}
    return Slurm(**given | {"sbatch": dict(options.sbatch)})


def slurm_parser(verb: str) -> VerbParser:
    """The options of the jobs."""
    parser = VerbParser(verb, "")
    add_slurm_options(parser)
    return parser


def take_launcher(verb: str, argv: list[str]) -> tuple[Slurm | None, bool, list[str]]:
    """The options of Slurm, None where this machine trains; whether the script is only shown; and the other words.

    Raises:
        UserError: If they can't be used for a sweep, or there is no Slurm.
    """
    parser = VerbParser(verb, "")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local")
    chosen, words = parser.parse_known_args(argv)
    if chosen.launcher == "local":
        return None, False, words
    options, words = slurm_parser(verb).parse_known_args(words)
    slurm = slurm_of(options)
    if slurm.nodes != 1 or slurm.processes != 1:
        raise UserError(
            "--nodes, --gpus_per_node, --tasks_per_node: a trial is trained on one device, so at most 1 of each; "
            "--jobs says how many trials are trained at the same time"
        )
    if not options.dry_run:
        check_slurm()
    return slurm, bool(options.dry_run), words


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


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _memory(text: str) -> str:
    if not re.fullmatch(r"\d+([KMGT]B?)?", text):
        raise ValueError(text)
    return text


def _job_name(text: str) -> str:
    if text in NO_JOB_NAMES or not re.fullmatch(r"[\w.-]+", text):
        raise ValueError(text)
    return text


def _name_and_value(text: str) -> tuple[str, str | bool]:
    name, equals, value = text.removeprefix("--").partition("=")
    if not re.fullmatch(r"[a-z][a-z_-]+", name):
        raise ValueError(text)
    return name.replace("-", "_"), value if equals else True


# argparse names them in its errors
_minutes.__name__ = f"time limit ({TIME})"
_count.__name__, _count_or_none.__name__ = "whole number from 1 on", "whole number from 0 on"
_memory.__name__ = "amount of memory, such as 64GB"
_job_name.__name__ = f"name for a job (letters, digits, - and _, and not {' or '.join(NO_JOB_NAMES)})"
_name_and_value.__name__ = "option of sbatch, such as nodelist=n1"

# how the options are typed, where that is not as a text
HOW: dict[str, dict[str, Any]] = {
    **{name: {"type": _count} for name in ("nodes", "tasks_per_node", "cpus_per_task", "at_once")},
    "gpus_per_node": {"type": _count_or_none},
    "time": {
        "type": _minutes,
        "default": "1:00:00",
        "help": f"time limit: {TIME}; a job that reaches it is queued again",
    },
    "mem": {"type": _memory},
    "save_before": {"type": _count, "metavar": "SECONDS"},
    "job_name": {"type": _job_name},
    "setup": {"action": "append", "metavar": "LINE"},
    "sbatch": {"action": "append", "type": _name_and_value, "metavar": "NAME=VALUE"},
}
