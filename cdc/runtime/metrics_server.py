"""``/metrics`` for Prometheus, and ``/health/live`` and ``/health/ready`` for whoever restarts and routes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cdc.errors import ConfigError
from cdc.runtime.metrics import samples
from cdc.runtime.supervisor import TaskStatus
from cdc.telemetry import exposition

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """Serves until the block ends. ``alive`` tells whether the supervisor turns; port 0 chooses one (``port``).

    ready: 200 when every task runs, else 503; either way the body says how each task is.
    """

    def __init__(
        self, port: int, tasks: Callable[[], Sequence[TaskStatus]], alive: Callable[[], bool]
    ) -> None:
        try:
            self._server = _Server(port, tasks, alive)
        except OSError as error:
            raise ConfigError(
                f"metrics.port {port} cannot be listened on: {error.strerror}",
                "choose another one with --metrics-port, or leave it out",
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, port: int, tasks: Callable[[], Sequence[TaskStatus]], alive: Callable[[], bool]
    ) -> None:
        super().__init__(("", port), _Handler)
        self.tasks = tasks
        self.alive = alive


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """One of the three pages."""
        tasks = self.server.tasks()
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, _TEXT, exposition(samples(tasks)))
            case "/health/live" | "/health":
                alive = self.server.alive()
                self._answer_json(200 if alive else 503, {"alive": alive})
            case "/health/ready":
                ready = bool(tasks) and all(task.state == "running" for task in tasks)
                states = [
                    {"name": task.name, "state": task.state, "error": task.said.get("error")}
                    for task in tasks
                ]
                self._answer_json(200 if ready else 503, {"ready": ready, "tasks": states})
            case _:
                self._answer(404, _TEXT, "see /metrics, /health/live, /health/ready\n")

    def _answer_json(self, status: int, body: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(body) + "\n")

    def _answer(self, status: int, kind: str, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Scrapes are not worth a line each."""
