"""Weights & Biases: offline unless a login is there and its server answers; never a prompt, never a hang."""

import logging
import os
import shlex
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from typing import Literal

import wandb
from pytorch_lightning.loggers import WandbLogger

from lightning_cnn.errors import UserError
from lightning_cnn.tracking.loggers import RunWandb, wandb_may_be_gone
from lightning_cnn.tracking.record import Status, unsent
from lightning_cnn.tracking.run import RunFolder

Mode = Literal["auto", "online", "offline", "disabled"]
STEP = "trainer/global_step"
_ours: set[str] = set()  # ids of the W&B runs that were started here
FLUSH_SECONDS = 1  # after which a row is safe on disk: a signal may end W&B's process at any time


def start_wandb(run: RunFolder, mode: Mode, project: str, tags: list[str]) -> tuple[WandbLogger | None, str]:
    """Starts the W&B run that belongs to a run folder, or continues it.

    Args:
        run: Its id becomes the name of the W&B run and, unless the record has another, its id, too; its experiment
            becomes the group.
        mode: `auto` is online where a login is there, else offline; `$WANDB_MODE` stands above `auto`.
        project: The W&B project.
        tags: Tags of the run.

    Returns:
        The logger, None where W&B is disabled; and a line to print, empty where all went as expected.

    Raises:
        UserError: If `online` is asked for and there is no login, or W&B refuses its settings.
    """
    logging.raiseExceptions = False  # on a full disk each line of W&B's own log would become a traceback
    # W&B's reports on itself would make the process wait at its end for a server that is gone
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    chosen, reason = choose_mode(mode)
    if chosen == "disabled":
        run.record.wandb = {"mode": "disabled"}
        return None, reason
    if chosen == "online" and unsent(run.folder):
        chosen, reason = "offline", "an earlier part of it is not sent yet"
    if not _is_ours():
        raise UserError(
            "`wandb`: this process already has a W&B run; end it with `wandb.finish()`, or use `wandb` disabled"
        )
    wandb.finish()  # an earlier run of this process
    continued = any((run.folder / "wandb").glob("*run-*"))
    settings = wandb.Settings(
        silent=True, init_timeout=15, finish_timeout=120, x_transaction_log_flush_interval=FLUSH_SECONDS
    )
    names = {"group": run.record.name, "name": run.record.id, "id": run.record.wandb.get("id", run.record.id)}
    begin = partial(wandb.init, project=project, tags=tags, dir=str(run.folder), settings=settings, **names)
    if chosen == "online":
        try:
            experiment = begin(mode="online", resume="allow")
        except wandb.errors.Error as error:
            chosen, reason = "offline", _one_line(error)
            wandb.teardown()
    if chosen == "offline":
        # `wandb sync` heeds it; without it the part sent last begins again at step 0
        experiment = begin(mode="offline", resume="allow" if continued else None)
    experiment.define_metric(STEP)
    experiment.define_metric("*", step_metric=STEP, step_sync=True)
    _ours.add(experiment.id)
    # the id is another than ours where W&B's own sweep has given it
    run.record.wandb = {"id": experiment.id, "mode": chosen, "url": experiment.url if chosen == "online" else None}
    later = f"send it later with `wandb sync {shlex.quote(f'{run.folder}/wandb')}/offline-run-*`"
    return RunWandb(experiment=experiment), f"W&B is offline for this run ({reason}); {later}" if reason else ""


def finish_wandb(status: Status) -> None:
    """Ends the W&B run that this process has for a run of ours; a pruned one gets a tag."""
    if not _is_ours():
        return
    with wandb_may_be_gone():
        try:
            if status == "pruned" and wandb.run is not None:
                wandb.run.tags = (*(wandb.run.tags or ()), status)
            wandb.finish(exit_code=int(status not in ("finished", "pruned")))
        except OSError:
            with suppress(OSError):
                wandb.teardown()  # it would complain at the very end
            raise


def _is_ours() -> bool:
    """Whether the W&B run of this process, if there is one, is none that the user has begun."""
    return wandb.run is None or wandb.run.id in _ours


def choose_mode(mode: Mode) -> tuple[Literal["online", "offline", "disabled"], str]:
    """Resolves `auto` and falls back to offline where the server does not answer.

    Returns:
        The mode, and why it is offline against expectation, else an empty string.

    Raises:
        UserError: If `online` is asked for and there is no login, or W&B refuses its settings.
    """
    if mode == "disabled":
        return "disabled", ""
    try:
        settings = wandb.setup(wandb.Settings(silent=True)).settings
        wanted = mode if mode != "auto" else os.environ.get("WANDB_MODE") or settings.mode
        if wanted in ("offline", "dryrun"):
            return "offline", ""
        if wanted == "disabled":
            return "disabled", ""
        wandb.setup(wandb.Settings(mode="online"))  # what is typed stands above $WANDB_MODE
        known = wandb.login(prompt=False, verify=False)  # verify would wait for a server that is gone, and raise
    except wandb.errors.Error as error:
        return "offline", _one_line(error)
    except ValueError as error:
        raise UserError(f"W&B rejects its settings ({_one_line(error)}): fix them, or use `wandb` disabled") from None
    if not known:
        if "online" in (mode, os.environ.get("WANDB_MODE")):
            raise UserError("`wandb` online needs a login: run `wandb login` first, or use `wandb` offline")
        return "offline", ""
    if not server_answers(settings.base_url):
        return "offline", f"{settings.base_url} does not answer"
    return "online", ""


def server_answers(address: str, seconds: float = 4.0) -> bool:
    """Whether a web server answers within some seconds; looking up its name counts, too."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=seconds):
                answers.append(True)
        except urllib.error.HTTPError as error:
            answers.append(error.code < 500)
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up knows no time limit of its own
    thread.start()
    thread.join(seconds)
    return answers == [True]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
