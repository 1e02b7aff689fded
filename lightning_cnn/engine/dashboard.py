"""`dashboard`: TensorBoard over all runs, and where the W&B runs are."""

import contextlib
import io
import os
import platform
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_cnn.errors import UserError, check
from lightning_cnn.tracking.record import default_runs_dir, unsent
from lightning_cnn.tracking.selection import some_runs


@dataclass(frozen=True)
class Dashboard:
    """A dashboard that is being served, as long as this process lives.

    Attributes:
        address: Where a browser finds it.
        runs: Number of runs.
        online: Label and address of each run on W&B.
        offline: Folders that `wandb sync` would send to W&B.
        opened: Whether a browser was opened.
    """

    address: str
    runs: int
    online: Sequence[tuple[str, str]]
    offline: Sequence[Path]
    opened: bool


def dashboard(
    *, port: int = 6006, host: str = "localhost", runs_dir: Path | str | None = None, no_browser: bool = False
) -> Dashboard:
    """Opens the local dashboard (TensorBoard) over all runs.

    Args:
        port: Port to serve at; 0 takes a free one.
        host: Address to serve at; 0.0.0.0 opens it to the network.
        runs_dir: Folder of all runs (default: $LIGHTNING_CNN_RUNS or runs).
        no_browser: Don't open a browser.

    Raises:
        UserError: If there are no runs, or nothing can be served at this address.
    """
    check("port", port, least=0, most=65535)
    folder = Path(runs_dir or default_runs_dir())
    runs = some_runs(folder)
    address = _serve(folder, host, port)
    return Dashboard(
        address,
        len(runs),
        online=[(run.label, str(run.record.wandb["url"])) for run in runs if run.record.wandb.get("url")],
        offline=[path for run in runs for path in unsent(run.folder)],
        opened=not no_browser and _open_browser(address),
    )


def _serve(runs_dir: Path, host: str, port: int) -> str:
    """Starts TensorBoard in threads of this process; returns its address."""
    from tensorboard import program  # type: ignore[import-untyped]  # only here: it takes a second

    board = program.TensorBoard()
    chatter = io.StringIO()  # notes about its fast loading, which no user has asked for
    words = [f"--logdir={runs_dir}", f"--host={host}", f"--port={port}", "--window_title=lightning_cnn"]
    try:
        with contextlib.redirect_stderr(chatter):
            board.configure(["tensorboard", *words])
            return str(board.launch())
    except program.TensorBoardPortInUseError:
        raise UserError(f"port {port} is in use: use `port` 0 for a free one") from None
    except (program.TensorBoardServerException, OSError, SystemExit) as error:
        said = chatter.getvalue().strip().splitlines() or ["no reason given"]
        reason = getattr(error, "msg", None) or getattr(error, "strerror", None) or said[-1]
        raise UserError(f"can't serve at {host}:{port} ({reason}): try `host` localhost and `port` 0") from None


def _open_browser(address: str) -> bool:
    has_display = platform.system() != "Linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(has_display) and webbrowser.open(address)
