"""A live day, all of it real: nginx before a model, the server and its judge beside them, from the first request to an appeal.

A month with a campaign in it comes in as a gateway would have sent it and is judged by the server's own judge; the accounts then
call through nginx. Only the model is a stand-in. Without nginx this is skipped: apt-get install nginx-light (or nginx).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pyarrow.parquet as pq
import pytest

from fixtures_gateways import Served, answers, ended, free_port, wait_for
from stillwatch.serving.access import Role
from stillwatch.serving.gateways import Receive, Scope, Send, hashed
from stillwatch.simulate import default_world, parse_campaign, simulate
from test_nginx import EXAMPLE, MAIN, NGINX
from test_serve_cli import Running, started

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="no nginx: apt-get install nginx-light")]

JUDGED_WITHIN_S = 600
HONEST = ("honest-1", "honest-2")
SETTINGS = """
loop_every_s = 0.1
public_url = "https://api.example"
[judge]
every = "1d"
interval = "1d"
final_scan = "always"
accounts = "{world}/accounts.parquet"
models = "{world}/models.csv"
"""
POLICY = """
[[rules]]
name = "slow_down"
rung = "throttle"
when = { confidence = 0.8, accounts = 20 }
settings = { requests_per_minute = 1, burst = 2 }
lasts = "7d"
[[rules]]
name = "stop"
rung = "suspend"
when = { confidence = 0.8, accounts = 20 }
lasts = "7d"
signatures = 1
[caps]
traffic_share_per_hour = 1.0
[bulk]
suspend = 100
[organisations]
ask = "known"
"""


@dataclass
class Model:
    """Answers as OpenAI's API does, and keeps a record of each exchange until it is told to send them."""

    records: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {n.decode(): v.decode() for n, v in scope["headers"]}
        asked = json.loads(body)
        self.records.append({
            "exchange_id": str(uuid.uuid4()), "time": datetime.now(UTC).isoformat(), "model": asked["model"],
            "account_id": headers["authorization"].removeprefix("Bearer sk-"), "prompt": asked["messages"][-1]["content"],
        })  # fmt: skip
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "2"}}
        said = json.dumps({"object": "chat.completion", "model": asked["model"], "choices": [choice]}).encode()
        told = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": said})


class Nginx:
    """The example of the docs, before that model and that server, with a line for each account in its maps."""

    def __init__(self, home: Path, server: Running, model: Served, accounts: list[str], token: str) -> None:
        self.port = free_port()
        example = EXAMPLE.read_text().replace("the token of this gateway", token)
        ours = server.url.rpartition(":")[2]
        for usual, here in (("8620", ours), ("8000", model.port), ("8080", self.port)):
            example = example.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{here}")
        # A machine with little time to spare is not what is tried here.
        example = example.replace("proxy_connect_timeout 50ms", "proxy_connect_timeout 20s")
        example = example.replace("proxy_read_timeout 200ms", "proxy_read_timeout 20s")
        (home / "example.conf").write_text(example)
        (home / "nginx.conf").write_text(MAIN.format(home=home))
        (home / "accounts.map").write_text("".join(f'"Bearer sk-{a}" {a};\n' for a in accounts))
        (home / "keys.map").write_text("".join(f'"Bearer sk-{a}" {hashed(f"sk-{a}")};\n' for a in accounts))
        assert NGINX is not None
        log = home / "error.log"
        self._process = subprocess.Popen(
            [NGINX, "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: answers(self.port) or self._process.poll() is not None, 60)
        assert self._process.poll() is None, log.read_text()

    def ask(self, account: str) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "canary-4711 1+1?"}]}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        return httpx.post(url, json=body, headers={"authorization": f"Bearer sk-{account}"}, timeout=60)

    def close(self) -> None:
        ended(self._process)


@dataclass
class Day:
    """Everything that runs, and who asks the server for what."""

    server: Running
    nginx: Nginx
    model: Model
    planted: list[str]
    tokens: dict[Role, dict[str, str]]

    def post(self, path: str, given: Any, role: Role | None = Role.ADMIN) -> Any:
        headers = self.tokens[role] if role else {}
        got = httpx.post(self.server.url + path, json=given, headers=headers, timeout=60)
        assert got.is_success, got.text
        return got.json()

    def get(self, path: str) -> Any:
        got = httpx.get(self.server.url + path, headers=self.tokens[Role.ADMIN], timeout=60)
        assert got.is_success, got.text
        return got.json()

    def send(self, records: list[dict[str, Any]]) -> dict[str, int]:
        """What the server says to records of exchanges."""
        return self.post("/ingest/exchanges", records, Role.INGEST)

    def living(self, account: str) -> dict[str, str]:
        """The ids of an account's living actions, by rung."""
        return {a["rung"]: a["action_id"] for a in self.get(f"/api/actions?account={account}")["actions"]}

    def suspend(self, account: str) -> httpx.Response:
        """Sign the suspension that waits, and the refusal that the account then gets."""
        case = self.living(account)["suspend"]
        self.post("/api/actions/sign", {"actions": [case]}, Role.APPROVER)
        wait_for(lambda: self.nginx.ask(account).status_code == 403, 60)
        refused = self.nginx.ask(account)
        error = refused.json()["error"]
        assert refused.headers["x-stillwatch-case"] == case
        assert case in error["message"]
        assert {"message", "type", "code", "param"} <= set(error)
        return refused

    def passes(self, account: str) -> bool:
        return [self.nginx.ask(account).status_code for _ in range(4)] == [200] * 4


@pytest.fixture
def day() -> Iterator[Day]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        folder = Path(name)
        world, home, front = folder / "world", folder / "home", folder / "nginx"
        home.mkdir()
        front.mkdir()
        plan = parse_campaign("balanced_reasoning:40")
        simulate(default_world(4, accounts=600, exchanges=12_000, campaigns=(plan,)), world)
        truth = pq.read_table(world / "truth.parquet").to_pylist()
        planted = [row["account_id"] for row in truth if row["campaign_id"]]
        (home / "serve.toml").write_text(SETTINGS.format(world=world))
        (home / "policy.toml").write_text(POLICY)
        server, model = started(home), Model()
        behind = Served(model)
        try:
            tokens = {role: server.token(role) for role in (Role.ADMIN, Role.APPROVER, Role.INGEST, Role.GATEWAY)}
            token = tokens[Role.GATEWAY]["authorization"].removeprefix("Bearer ")
            nginx = Nginx(front, server, behind, [*planted, *HONEST], token)
            try:
                yield Day(server, nginx, model, planted, tokens)
            finally:
                nginx.close()
        finally:
            behind.stop()
            code = server.end()
        assert code == 0, server.lines
        assert not any(b"canary-4711" in p.read_bytes() for p in home.rglob("*") if p.is_file())


def month(world: Path) -> list[dict[str, Any]]:
    """The simulated month as records in JSON."""
    rows = pq.read_table(world / "exchanges").to_pylist()
    return [{n: v.isoformat() if n == "time" else v for n, v in row.items() if v is not None} for row in rows]


def test_from_the_first_request_to_an_appeal(day: Day) -> None:
    # Traffic of a few accounts: all pass, and each exchange is kept once, however often it is sent.
    callers = (*HONEST, *day.planted[:3])
    for _ in range(3):
        assert [day.nginx.ask(a).status_code for a in callers] == [200] * len(callers)
    taken = day.send(day.model.records)
    assert (taken["kept"], taken["duplicates"], taken["refused"]) == (15, 0, 0)
    again = day.send(day.model.records)
    assert (again["kept"], again["duplicates"]) == (0, 15)

    # The month that went before, judged by the server's own judge.
    before = month(day.server.home.parent / "world")
    assert day.send(before)["kept"] == len(before)
    day.post("/api/judge-now", {})
    wait_for(lambda: day.get("/api/campaigns")["campaigns"], JUDGED_WITHIN_S)
    (found,) = day.get("/api/campaigns")["campaigns"]
    wait_for(lambda: day.get("/api/actions?standing=pending")["count"], 60)
    slowed = {a["account_id"] for a in day.get("/api/actions?standing=in_force&limit=1000")["actions"]}
    assert slowed and slowed <= set(day.planted), found["campaign_id"]
    first, second, third = sorted(slowed)[:3]

    # Throttled at once by the policy, suspended only after a signature; nobody else feels anything.
    assert [day.nginx.ask(third).status_code for _ in range(3)] == [200, 200, 429]
    for account in (first, second):
        assert set(day.living(account)) == {"throttle", "suspend"}
        assert day.nginx.ask(account).status_code == 200
    refused = {account: day.suspend(account) for account in (first, second)}
    assert all(day.passes(a) for a in HONEST)

    # Undone: the account passes again, and the rules do not take it up once more.
    wish = {"actions": list(day.living(first).values()), "reason": "a class of students"}
    day.post("/api/actions/undo", wish, Role.APPROVER)
    wait_for(lambda: day.nginx.ask(first).status_code == 200, 60)
    assert day.passes(first)
    assert day.nginx.ask(second).status_code == 403

    # An appeal, with the link of the refusal, decided by somebody who had no part in it.
    link = parse_qs(urlsplit(refused[second].headers["link"].partition("<")[2].partition(">")[0]).query)
    wish = {"case": link["case"][0], "proof": link["proof"][0], "text": "we are a laboratory"}
    appeal = day.post("/appeals", wish, None)["appeal"]
    (waiting,) = day.get("/api/appeals?open=true")["appeals"]
    assert (waiting["account_id"], waiting["text"]) == (second, "we are a laboratory")
    own = httpx.post(
        f"{day.server.url}/api/appeals/{appeal}/decide", json={"outcome": "upheld", "reason": "mine"},
        headers=day.tokens[Role.APPROVER], timeout=60,
    )  # fmt: skip
    assert own.status_code == 400 and "had a part" in own.json()["error"]
    assert day.nginx.ask(second).status_code == 403
    day.post(f"/api/appeals/{appeal}/decide", {"outcome": "overturned", "reason": "they are"})
    wait_for(lambda: day.nginx.ask(second).status_code == 200, 60)
    assert day.passes(second)
    assert day.get("/api/appeals?open=true")["count"] == 0
