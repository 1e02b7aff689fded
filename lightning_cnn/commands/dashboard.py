"""`lightning-cnn dashboard`: TensorBoard over all runs, and where the W&B runs are."""

import argparse
import contextlib
import http.client
import io
import os
import platform
import shlex
import socket
import threading
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cli.tables import text_table
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.run import Run, default_runs_dir
from lightning_cnn.tracking.selection import label, some_runs

NEWEST = 10  # so many addresses are listed
OFFLINE = "wandb/offline-run-*"
PATIENCE = 30  # seconds until the first answer


def main(verb: str, argv: list[str]) -> int:
    """Serves the dashboard until Ctrl-C.

    Args:
        verb: `dashboard`.
        argv: The words after it.

    Raises:
        UserError: If there are no runs, or nothing can be served at this address.
    """
    parser = VerbParser(verb, "Opens the local dashboard (TensorBoard) over all runs. Ctrl-C ends it.")
    parser.add_argument("--port", type=_port, default=6006, help="port to serve at; 0 takes a free one")
    parser.add_argument("--host", default="localhost", help="address to serve at; 0.0.0.0 opens it to the network")
    parser.add_argument("--runs_dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of all runs")
    parser.add_argument("--no_browser", action="store_true", help="don't open a browser")
    args = parser.parse_args(argv)
    runs = some_runs(args.runs_dir)
    for line in _wandb_lines(runs, args.runs_dir):
        print(line)
    try:
        address = _serve(args.runs_dir, args.host, args.port)
        print(f"{len(runs)} run{'s' * (len(runs) > 1)} at {address} (Ctrl-C ends it)", flush=True)
        if not args.no_browser:
            _open_browser(address)
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    return 0


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: type a number from 1024 to 65535, or 0 for a free one")
    return int(text)


def _wandb_lines(runs: Sequence[Run], runs_dir: Path) -> list[str]:
    """Where the online runs are, and how to send the offline ones there."""
    online = [(label(run), str(run.record.wandb["url"])) for run in runs if run.record.wandb.get("url")]
    lines = []
    if online:
        lines += ["on W&B:", *(f"  {line}" for line in text_table(online[-NEWEST:]).splitlines())]
        if len(online) > NEWEST:
            lines.append(f"  and {len(online) - NEWEST} earlier")
    folders = [folder for run in runs for folder in sorted(run.folder.glob(OFFLINE)) if not _is_synced(folder)]
    if folders:
        named = [shlex.quote(str(folder)) for folder in folders]
        every = f"{shlex.quote(str(runs_dir))}/*/*/{OFFLINE}"
        lines.append("to send the offline runs to W&B: wandb sync " + (every if len(named) > 2 else " ".join(named)))
    return lines


def _is_synced(folder: Path) -> bool:
    return any(folder.glob("*.wandb.synced"))


def _serve(runs_dir: Path, host: str, port: int) -> str:
    """Starts TensorBoard in threads of this process; returns its address as soon as it answers."""
    from tensorboard import program  # type: ignore[import-untyped]  # only here: it takes a second

    board = program.TensorBoard()
    chatter = io.StringIO()  # notes about its fast loading, which no user has asked for
    words = [f"--logdir={runs_dir}", f"--host={host}", f"--port={port}", "--window_title=lightning_cnn"]
    try:
        with contextlib.redirect_stderr(chatter):
            board.configure(["tensorboard", *words])
            address = str(board.launch())
    except program.TensorBoardPortInUseError:
        raise UserError(f"port {port} is taken: try --port {_free_port()}, or --port 0 for any") from None
    except (program.TensorBoardServerException, OSError, SystemExit) as error:
        said = chatter.getvalue().strip().splitlines() or ["no reason given"]
        reason = getattr(error, "msg", None) or getattr(error, "strerror", None) or said[-1]
        raise UserError(f"can't serve at {host}:{port} ({reason}): try --host localhost --port 0") from None
    _wait_until_it_answers(address)
    return address


def _wait_until_it_answers(address: str) -> None:
    parts = urlsplit(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname or "localhost")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(host, parts.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/data/environment")
            connection.getresponse()
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    raise UserError(f"the dashboard doesn't answer at {address}: try another --host or --port")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def _open_browser(address: str) -> None:
    has_display = platform.system() != "Linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_display and webbrowser.open(address):
        return
    port = urlsplit(address).port
    print(f"no browser here; from your own machine: ssh -NL {port}:localhost:{port} {socket.gethostname()}", flush=True)
