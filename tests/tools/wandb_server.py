"""A W&B server for tests: answers what the client asks for and remembers what it was sent."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

ENTITY = "tester"
HISTORY = "wandb-history.jsonl"


@dataclass
class SentRun:
    """What the server knows of one run; `variables` are those of the first UpsertBucket."""

    variables: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The logged rows in their order; a row that is sent again replaces the one at its place."""
        lines = self.streams.get(HISTORY, {})
        return [json.loads(lines[number]) for number in sorted(lines)]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration without the client's own part."""
        return {name: entry["value"] for name, entry in self.config.items() if name != "_wandb"}

    @property
    def summary(self) -> dict[str, Any]:
        """The summary that was sent last."""
        content: dict[str, Any] = json.loads(self.streams["wandb-summary.json"][0])
        return content

    def bucket(self, name: str) -> dict[str, Any]:
        """The run in the words of the GraphQL interface."""
        lines = self.streams.get(HISTORY, {})
        return {
            "id": f"storage-{name}",
            "name": name,
            "displayName": self.variables["displayName"],
            "description": None,
            "notes": None,
            "sweepName": None,
            "config": json.dumps(self.config),
            "tags": self.variables["tags"],
            "summaryMetrics": self.streams.get("wandb-summary.json", {}).get(0, "{}"),
            "logLineCount": len(self.streams.get("output.log", {})),
            "historyLineCount": len(lines),
            "eventsLineCount": len(self.streams.get("wandb-events.jsonl", {})),
            "historyTail": json.dumps([lines[max(lines)]] if lines else []),
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": self.config.get("_wandb", {}).get("value", {}).get("t", {})}),
            "project": {
                "id": "1",
                "name": self.variables["project"],
                "entity": {"id": "1", "name": ENTITY},
            },
        }


class QuietServer(ThreadingHTTPServer):
    """Does not report that a client has hung up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class WandbServer:
    """Runs in a thread on a free port of this machine while its `with` block lasts.

    Attributes:
        runs: What was sent, by run id.
        posted: The paths of all POST requests.
        refuses: Whether to answer every request but the first look with 401.
        address: The address for WANDB_BASE_URL.
    """

    def __init__(self) -> None:
        self.runs: dict[str, SentRun] = {}
        self.posted: list[str] = []
        self.refuses = False
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply({"ok": True})

            def do_POST(self) -> None:
                body = self._body()
                with owner._lock:
                    owner.posted.append(self.path)
                    if owner.refuses:
                        self.send_error(401)
                    elif self.path == "/graphql":
                        request = json.loads(body)
                        answer = owner._graphql(request["query"], request.get("variables") or {})
                        self._reply({"data": answer})
                    elif self.path.endswith("/file_stream"):
                        self._reply(owner._file_stream(unquote(self.path).split("/")[-2], json.loads(body)))
                    else:
                        self.send_error(404)

            def do_PUT(self) -> None:
                body = self._body()
                _, _, run_id, name = unquote(self.path).split("/", 3)
                with owner._lock:
                    owner.runs[run_id].files[name] = body
                self._reply({})

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _reply(self, content: dict[str, Any]) -> None:
                text = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self._http = QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = query.strip().removeprefix("query").removeprefix("mutation").strip().split("(")[0].split("{")[0].strip()
        if name == "UpsertBucket":
            return self._upsert(variables)
        if name == "RunResumeStatus":
            found = self.runs.get(variables["name"])
            bucket = found.bucket(variables["name"]) if found else None
            entity = {"id": "1", "name": ENTITY}
            return {"model": {"id": "1", "name": variables["project"], "entity": entity, "bucket": bucket}}
        if name == "CreateRunFiles":
            run_id = variables["run"]
            files = [{"name": f, "uploadUrl": f"{self.address}/put/{run_id}/{f}"} for f in variables["files"]]
            return {"createRunFiles": {"runID": run_id, "uploadHeaders": [], "files": files}}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if "viewer" in query:
            teams = {"edges": [{"node": {"name": ENTITY}}]}
            viewer = {"id": "1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}
            return {"viewer": viewer, "serverInfo": None}
        return {}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        run_id = variables["name"]
        inserted = run_id not in self.runs
        run = self.runs.setdefault(run_id, SentRun(variables))
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        return {"upsertBucket": {"bucket": run.bucket(run_id), "inserted": inserted}}

    def _file_stream(self, run_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[run_id]
        for name, part in (sent.get("files") or {}).items():
            stream = run.streams.setdefault(name, {})
            stream.update(enumerate(part["content"], part.get("offset", 0)))
        if sent.get("complete"):
            run.finished.append(sent["exitcode"])
        return {}
