"""A real LiteLLM proxy before a model, with the server beside it: what comes in, what is refused, what passes again.

LITELLM names the proxy's command, in a venv of its own (make test-litellm); without it these are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures_gateways import Served, answers, free_port, wait_for
from stillwatch.serving.access import Role
from stillwatch.serving.gateways import hashed, litellm_hook
from test_live_day import Model
from test_serve_cli import Running, started

LITELLM = os.environ.get("LITELLM")
pytestmark = [pytest.mark.litellm, pytest.mark.skipif(not LITELLM, reason="no LiteLLM: make test-litellm")]

WITHIN_S = 180
ACCOUNTS = """
from litellm.proxy._types import UserAPIKeyAuth
async def known(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, user_id=api_key.removeprefix("sk-"))
"""
CONFIG = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "http://127.0.0.1:{model}/v1", api_key: sk-models}}
litellm_settings:
  callbacks: ["stillwatch", "litellm_hook.stillwatch"]
callback_settings:
  stillwatch:
    callback_type: generic_api
    endpoint: {ours}/ingest/litellm
    headers: {{Authorization: "{ingest}"}}
    event_types: [llm_api_success]
    log_format: ndjson
general_settings:
  custom_auth: accounts.known
"""


class Proxy:
    """The proxy, its two ends, and one customer's way in."""

    def __init__(self, folder: Path) -> None:
        (folder / "home").mkdir()
        (folder / "home" / "serve.toml").write_text("loop_every_s = 0.1\n")
        self.server: Running = started(folder / "home")
        self.model = Served(Model())
        tokens = {r: self.server.token(r) for r in (Role.ADMIN, Role.APPROVER, Role.INGEST, Role.GATEWAY)}
        self.tokens, self.port = tokens, free_port()
        shutil.copy(litellm_hook.__file__, folder / "litellm_hook.py")
        (folder / "accounts.py").write_text(ACCOUNTS)
        ingest = tokens[Role.INGEST]["authorization"]
        (folder / "config.yaml").write_text(CONFIG.format(model=self.model.port, ours=self.server.url, ingest=ingest))
        settings = {
            "STILLWATCH_URL": self.server.url, "STILLWATCH_TIMEOUT_MS": "20000", "STILLWATCH_TTL_S": "0",
            "STILLWATCH_TOKEN": tokens[Role.GATEWAY]["authorization"].removeprefix("Bearer "),
            "LITELLM_MASTER_KEY": "sk-" + os.urandom(32).hex(), "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }  # fmt: skip
        around = {n: v for n, v in os.environ.items() if n != "DATABASE_URL"} | settings
        with (folder / "proxy.log").open("wb") as log:
            command = [str(LITELLM), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(self.port)]
            self._process = subprocess.Popen(command, cwd=folder, env=around, stdout=log, stderr=log)
        wait_for(lambda: answers(self.port) or self._process.poll() is not None, WITHIN_S)
        assert self._process.poll() is None, (folder / "proxy.log").read_text()

    def ask(self, account: str) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "1+1?"}]}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        return httpx.post(url, json=body, headers={"authorization": f"Bearer sk-{account}"}, timeout=60)

    def post(self, path: str, given: Any, role: Role = Role.ADMIN) -> Any:
        got = httpx.post(self.server.url + path, json=given, headers=self.tokens[role], timeout=60)
        assert got.is_success, got.text
        return got.json()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self.model.stop()
        self.server.end()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with tempfile.TemporaryDirectory() as name:
        proxy = Proxy(Path(name))
        yield proxy
        proxy.close()


def test_a_real_proxy_sends_its_log_and_refuses_as_it_is_told(proxy: Proxy) -> None:
    assert [proxy.ask(a).status_code for a in ("acme", "other", "acme")] == [200] * 3
    metrics = proxy.server.url + "/metrics"
    kept = 'stillwatch_ingest_rows_total{source="litellm"} 3'
    wait_for(lambda: kept in httpx.get(metrics, headers=proxy.tokens[Role.ADMIN], timeout=60).text, WITHIN_S)

    # The log names an account by the hash of its key: it is by that name that it is judged, and acted on.
    key = hashed("sk-acme")
    wish = {"accounts": [key], "rung": "suspend", "reason": "one of a ring"}
    (action,) = proxy.post("/api/actions", wish)["proposed"]
    assert proxy.ask("acme").status_code == 200
    proxy.post("/api/actions/sign", {"actions": [action["action_id"]]}, Role.APPROVER)
    wait_for(lambda: proxy.ask("acme").status_code == 403, WITHIN_S)
    error = proxy.ask("acme").json()["error"]
    assert action["action_id"] in error["message"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert proxy.ask("other").status_code == 200

    proxy.post("/api/actions/undo", {"actions": [action["action_id"]], "reason": "a mistake"}, Role.APPROVER)
    wait_for(lambda: proxy.ask("acme").status_code == 200, WITHIN_S)
