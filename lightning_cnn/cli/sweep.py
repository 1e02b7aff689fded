"""`sweep`: trains again and again with other settings, and keeps those whose validation metric is best."""

import re
import shlex
from typing import TYPE_CHECKING

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cli.slurm_options import LAUNCHERS, add_slurm_options, how_to_follow, slurm_of
from lightning_cnn.cli.words import read_words
from lightning_cnn.cluster.slurm import log_of
from lightning_cnn.errors import UserError, require
from lightning_cnn.tracking.monitors import WrongModeError
from lightning_cnn.tracking.record import CONFIG

if TYPE_CHECKING:
    from lightning_cnn.engine.sweep import Sweep


def main(verb: str, argv: list[str]) -> int:
    """Trains the trials that are left, and prints what came of all. Returns the exit code."""
    require("sweep", "`sweep()`")
    from lightning_cnn.engine.sweep import sweep, sweep_script
    from lightning_cnn.engine.sweep.settings import SWEEP
    from lightning_cnn.engine.sweep.studies import find_study

    parser = VerbParser(verb, "")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local")
    options, rest = parser.parse_known_args(argv)
    slurm = None
    if options.launcher == "slurm":
        options, rest = add_slurm_options(VerbParser(verb, "")).parse_known_args(rest)
        slurm = slurm_of(options)
    words = read_words(SWEEP, rest)
    name = words.named_run("SWEEP")
    resumed = None if name is None else find_study(name, words.fields.get("runs_dir"))
    config = words.config(*([] if resumed is None else [resumed.folder / CONFIG]))
    try:
        if slurm and options.dry_run:
            print(sweep_script(config, slurm, resume=resumed))
        else:
            print(_text(sweep(config, resume=resumed, slurm=slurm)))
    except WrongModeError as error:
        if resumed is None or any(re.match(r"(--)?[\w.+]+\.mode\b", word) for word in (*words.rest, *words.fields)):
            raise
        # version 0.1 took it for what the user wants; the journal of the trials has the direction, too
        raise UserError(
            "this sweep optimized a metric in the wrong direction and cannot be resumed; start a new one: "
            f"`lightning-cnn sweep --config {shlex.quote(str(resumed.folder / CONFIG))} --experiment NAME ...` "
            f"({error})"
        ) from None
    return 0


def _text(found: "Sweep") -> str:
    """The result in words."""
    from lightning_cnn.engine.sweep import STATES
    from lightning_cnn.engine.sweep.jobs import LOGS
    from lightning_cnn.engine.sweep.search_space import as_word
    from lightning_cnn.engine.sweep.study import FOLDER

    if found.logs is not None:
        follow = how_to_follow(found.jobs, log_of(found.logs, found.jobs[0]))
        return f"{len(found.jobs)} jobs share the trials: {' '.join(found.jobs)}\n{follow}"
    if found.folder is None:
        return f"no trial has finished so far: what they printed is in {found.home / FOLDER / LOGS}"
    trials = found.trials
    counts = [(int((trials["state"] == state).sum()), state) for state in STATES.values()]
    number = trials.index[trials["run"] == found.folder.name][0]
    lines = [
        "",
        f"trials       {', '.join(f'{count} {state}' for count, state in counts if count)}",
        f"best         {found.monitor} {found.value:.4g} in trial {number}",
        *(f"             {name} {as_word(value)}" for name, value in found.best.items()),
        f"its run      {found.folder}",
        f"pictures     {' '.join(map(str, found.figures))}",
        "",
        f"next: lightning-cnn train --config {shlex.quote(str(found.config))}    lightning-cnn compare "
        f"{shlex.quote(found.home.name)} --sort {shlex.quote(found.monitor)}",
    ]
    return "\n".join(lines)
