"""What stands around a gateway that is tried for real: our server, the models behind it, and actions to try."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import uvicorn

from stillwatch.serving.decisions import UNKEYED, Table
from stillwatch.serving.gateways import App, Receive, Scope, Send, hashed
from stillwatch.types import InForce, Rung

NAMES = ("nobody", "shielded", "slowed", "gone", "keyed")


def held(rung: Rung, who: str, **settings: Any) -> InForce:
    return InForce(who, rung, f"case-{who}", "camp-1", datetime.now(UTC) + timedelta(hours=1), settings)


def table() -> Table:
    return Table(
        {
            "shielded": held(Rung.PROTECT, "shielded"),
            "slowed": held(Rung.THROTTLE, "slowed", requests_per_minute=6, burst=2),
            "gone": held(Rung.SUSPEND, "gone"),
        },
        {UNKEYED.key(hashed("sk-keyed")): held(Rung.SUSPEND, "keyed")},
    )


class Served:
    """An application on a port of its own, by uvicorn in a thread, that can be stopped and started on the same port."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._start()

    def _start(self) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(self._app, log_level="error", lifespan="off", interface="asgi3", timeout_graceful_shutdown=1)  # type: ignore[arg-type]
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()
        wait_for(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def wait_for(holds: Any, within_s: float = 10) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def ended(process: subprocess.Popen[bytes], within_s: float = 10) -> None:
    """The process, ended: asked again and again, and by force after `within_s`.

    nginx of one process looks whether it was asked and then sleeps: a signal between the two is not heard until the next.
    """
    until = time.monotonic() + within_s
    while process.poll() is None:
        process.terminate() if time.monotonic() < until else process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


async def models(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells what reached it; refuses by itself what it is asked to."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {n.decode(): v.decode() for n, v in scope["headers"]}
    status = int(headers.get("x-answer-with", "200"))
    said = json.dumps({"path": scope["path"], "headers": headers, "body": body.decode()}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})
