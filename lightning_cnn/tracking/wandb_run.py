"""Weights & Biases: offline unless a login is there and its server answers; never a prompt, never a hang."""

import os
import threading
import urllib.error
import urllib.request
from typing import Any, Literal

import wandb
from pytorch_lightning.loggers import WandbLogger

from lightning_cnn.errors import UserError
from lightning_cnn.tracking.run import Run

Mode = Literal["auto", "online", "offline", "disabled"]
STEP = "trainer/global_step"


def start_wandb(run: Run, mode: Mode, project: str, tags: list[str]) -> tuple[WandbLogger | None, str]:
    """Starts the W&B run that belongs to a run folder, or continues it.

    Args:
        run: Its id becomes the id and the name of the W&B run, its experiment the group.
        mode: `auto` is online where a login is there, else offline; `$WANDB_MODE` stands above `auto`.
        project: The W&B project.
        tags: Tags of the run.

    Returns:
        The logger, None where W&B is disabled; and a line to print, empty where all went as expected.

    Raises:
        UserError: If `online` is asked for and there is no login.
    """
    chosen, note = choose_mode(mode)
    if chosen == "disabled":
        run.record.wandb = {"mode": "disabled"}
        return None, note
    wandb.finish()  # an earlier run of this process
    if chosen == "online":
        try:
            experiment = _init(run, "online", project, tags)
        except wandb.errors.Error as error:
            chosen, note = "offline", _offline_note(str(error).splitlines()[0])
            wandb.teardown()
    if chosen == "offline":
        experiment = _init(run, "offline", project, tags)
    experiment.define_metric(STEP)
    experiment.define_metric("*", step_metric=STEP, step_sync=True)
    run.record.wandb = {"id": run.record.id, "mode": chosen, "url": experiment.url if chosen == "online" else None}
    return WandbLogger(experiment=experiment), note


def choose_mode(mode: Mode) -> tuple[Literal["online", "offline", "disabled"], str]:
    """Resolves `auto` and falls back to offline where the server does not answer.

    Returns:
        The mode, and a line to print that says why it is offline against expectation, else an empty string.

    Raises:
        UserError: If `online` is asked for and there is no login.
    """
    wanted = os.environ.get("WANDB_MODE", "auto") if mode == "auto" else mode
    if wanted in ("offline", "dryrun"):
        return "offline", ""
    if wanted == "disabled":
        return "disabled", ""
    if not wandb.login(prompt=False):
        if wanted == "online":
            raise UserError("--wandb online needs a login: run `wandb login` first, or use --wandb offline")
        return "offline", ""
    address = wandb.setup().settings.base_url
    if not server_answers(address):
        return "offline", _offline_note(f"{address} does not answer")
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


def _init(run: Run, mode: Literal["online", "offline"], project: str, tags: list[str]) -> Any:  # noqa: ANN401  wandb's Run
    return wandb.init(
        project=project,
        group=run.record.name,
        name=run.record.id,
        id=run.record.id,
        tags=tags,
        dir=str(run.folder),
        mode=mode,
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(silent=True, init_timeout=30),
    )


def _offline_note(reason: str) -> str:
    return f"W&B is offline for this run ({reason}); send it later with `wandb sync RUN_FOLDER/wandb/offline-run-*`"
