"""The nginx example of the docs, run: a real nginx before a real server of ours and a stand-in for the models.

Without the binary these are skipped: apt-get install nginx-light (or nginx).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures_gateways import NAMES, Served, answers, ended, free_port, models, table, wait_for
from stillwatch.serving.access import Access, Role
from stillwatch.serving.app import ROUTES
from stillwatch.serving.decisions import Decisions, Table
from stillwatch.serving.edge import endpoint
from stillwatch.serving.gateways import App, Gate, Wiring, asgi, hashed
from stillwatch.serving.gateways.ext_authz import ext_authz
from stillwatch.serving.home import Home
from stillwatch.serving.services import opened
from stillwatch.serving.settings import Settings

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
EXAMPLE = Path(__file__).parent.parent / "docs" / "gateways" / "nginx.conf"

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx: apt-get install nginx-light")

MAIN = """
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    include example.conf;
}}
"""


class Bench:
    """nginx, what it asks, and what is behind it."""

    def __init__(self, home: Path, ours: App | None = None, token: str = "") -> None:
        self.gate = Gate(Decisions(table()), Wiring(appeals="https://api.example/appeals/{case}"))
        self.ours = Served(ours or ext_authz(self.gate, "/nginx_auth", nginx=True))
        self.models = Served(asgi.rewriting(models))
        self.port = free_port()
        example = EXAMPLE.read_text()
        for usual, here in (("8620", self.ours.port), ("8000", self.models.port), ("8080", self.port)):
            assert example.count(f"127.0.0.1:{usual}") == 1
            example = example.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{here}")
        (home / "example.conf").write_text(example.replace("the token of this gateway", token))
        (home / "nginx.conf").write_text(MAIN.format(home=home))
        (home / "accounts.map").write_text("".join(f'"Bearer sk-{name}" {name};\n' for name in NAMES))
        (home / "keys.map").write_text("".join(f'"Bearer sk-{name}" {hashed(f"sk-{name}")};\n' for name in NAMES))
        self._log = home / "error.log"
        assert NGINX is not None
        self._nginx = subprocess.Popen(
            [NGINX, "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(self._log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: answers(self.port) or self._nginx.poll() is not None)
        assert self._nginx.poll() is None, self._log.read_text()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10)

    def post(self, name: str, url: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        sent = {"authorization": f"Bearer sk-{name}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.client.post(url, json={"model": "m", "n": 3}, headers=sent)

    def close(self) -> None:
        self.client.close()
        ended(self._nginx)
        self.ours.stop()
        self.models.stop()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_nginx_asks_us_and_does_as_it_is_told(bench: Bench) -> None:
    for unknown in ("nobody", "in no map"):
        passed = bench.post(unknown, x_stillwatch_account="gone", x_stillwatch_rewrite="forged")
        assert passed.status_code == 200
        assert json.loads(passed.json()["body"]) == {"model": "m", "n": 3}
        assert passed.json()["headers"]["x-stillwatch-rung"] == "none"
        assert passed.json()["headers"].get("x-stillwatch-rewrite", "") == ""

    rewritten = bench.post("shielded").json()
    assert json.loads(rewritten["body"]) == {"model": "m", "n": 1}
    assert rewritten["headers"]["x-stillwatch-rung"] == "protect"

    for who in ("gone", "keyed"):
        refused = bench.post(who, "/v1/messages?beta=true")
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/json"
        assert refused.json()["error"]["type"] == "permission_error"
        assert f"appeals/case-{who}" in refused.json()["error"]["message"]
        assert refused.headers["x-stillwatch-case"] == f"case-{who}"
        assert "rel=" in refused.headers["link"]
    assert "request_id" in refused.json()

    slowed = [bench.post("slowed") for _ in range(3)]
    assert [a.status_code for a in slowed] == [200, 200, 429]
    assert slowed[2].headers["retry-after"] == "10"
    assert slowed[2].headers["ratelimit"] and slowed[2].headers["ratelimit-policy"]
    assert slowed[2].json()["error"]["code"]
    assert bench.post("gone").status_code == 403


def test_nginx_leaves_the_models_own_refusals_alone(bench: Bench) -> None:
    for status in (401, 403, 429, 500):
        answer = bench.post("nobody", x_answer_with=str(status))
        assert answer.status_code == status
        assert answer.json()["path"] == "/v1/chat/completions"


def test_nginx_when_we_are_silent_unknown_pass_and_who_was_refused_stays_refused(bench: Bench) -> None:
    assert bench.post("gone").status_code == 403
    bench.ours.stop()
    time.sleep(1.1)
    assert bench.post("nobody").status_code == 200
    refused = bench.post("gone")
    assert refused.status_code == 403
    assert "case-gone" in refused.json()["error"]["message"]


def test_nginx_a_fault_of_ours_refuses_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(bench.gate, "judge", broken)
    assert bench.post("nobody").status_code == 200


def test_nginx_an_action_undone_is_felt_within_a_second(bench: Bench) -> None:
    assert bench.post("gone").status_code == 403
    bench.gate.decisions.replace(Table())
    wait_for(lambda: bench.post("gone").status_code == 200, within_s=3)


@pytest.mark.parametrize("role", [None, Role.INGEST, Role.GATEWAY])
def test_nginx_with_a_token_that_does_not_hold_turns_no_customer_away(tmp_path: Path, role: Role | None) -> None:
    """The fault is the operator's: what is done is what the configuration has for our silence, and an alarm stands."""
    with opened(Home(tmp_path / "home"), Settings(), judge=False) as services:
        services.decisions.replace(table())
        token = "sw_gateway_0_forged"
        if role:
            token = services.door.do_now(Access.issue, "nginx", role, "test").secret.reveal()
        (route,) = (r for r in ROUTES if r.path == "/nginx_auth")
        (tmp_path / "nginx").mkdir()
        bench = Bench(tmp_path / "nginx", endpoint(route, services), token)
        try:
            assert bench.post("nobody").status_code == 200
            assert bench.post("gone").status_code == (403 if role is Role.GATEWAY else 200)
        finally:
            bench.close()
        assert ("gateway_locked_out" in services.alarms) == (role is not Role.GATEWAY)
