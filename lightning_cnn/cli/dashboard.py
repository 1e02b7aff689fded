"""`lightning-cnn dashboard`: the dashboard, and where the W&B runs are."""

import shlex
import socket
import threading
from urllib.parse import urlsplit

from lightning_cnn.cli.parser import parser_for
from lightning_cnn.cli.tables import text_table
from lightning_cnn.tracking.record import OFFLINE, default_runs_dir

NEWEST = 10  # so many addresses are listed


def main(verb: str, argv: list[str]) -> int:
    """Serves the dashboard until Ctrl-C. Returns the exit code."""
    parser = parser_for(verb, "engine/dashboard")
    parser.description = f"{parser.description} Ctrl-C ends it."
    options = parser.parse_args(argv)

    from lightning_cnn.engine.dashboard import dashboard

    try:
        served = dashboard(**parser.arguments(options))
        if served.online:
            print("on W&B:", *text_table(served.online[-NEWEST:]).splitlines(), sep="\n  ")
        if len(served.online) > NEWEST:
            print(f"and {len(served.online) - NEWEST} earlier")
        if served.offline:
            every = f"{shlex.quote(str(options.runs_dir or default_runs_dir()))}/*/*/{OFFLINE}"
            named = " ".join(shlex.quote(str(folder)) for folder in served.offline)
            print(f"to send the offline runs to W&B: wandb sync {every if len(served.offline) > 2 else named}")
        print(f"{served.runs} run{'s' * (served.runs > 1)} at {served.address} (Ctrl-C ends it)", flush=True)
        if not served.opened and not options.no_browser:
            port = urlsplit(served.address).port
            print(
                f"no browser here; from your own machine: ssh -NL {port}:localhost:{port} {socket.gethostname()}",
                flush=True,
            )
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    return 0
