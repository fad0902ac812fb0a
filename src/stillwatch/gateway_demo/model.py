"""A stand-in for the models behind the gateway: OpenAI's chat completions, with the answers that the simulated log has."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from stillwatch.gateway_demo.month import Call

ANSWER = "2"
"""What is answered to anything that no call of the log asked."""


class Model:
    """Answers on a port of its own while it is open. ``asked`` counts the requests that came through to it."""

    def __init__(self, calls: Mapping[str, Call] | None = None) -> None:
        self.calls, self.asked = calls or {}, 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.model = self
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="model", daemon=True)

    def __enter__(self) -> Model:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A chat completion for a request's fields."""
        with self._lock:
            self.asked += 1
        call = self.calls.get(str(asked["messages"][-1]["content"]))
        said = {"role": "assistant", "content": (call.response if call else ANSWER) or ANSWER}
        told, wrote = (call.input_tokens, call.output_tokens) if call else (8, 1)
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": 0, "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": said}],
            "usage": {"prompt_tokens": told, "completion_tokens": wrote, "total_tokens": told + wrote},
        }  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    model: Model


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))
        said = json.dumps(self.server.model.answer(asked)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: there is content in it."""
