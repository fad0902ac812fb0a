"""The server's routes against a real home: who may do what, what is answered, what is on disk before it is."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures_findings import REVIEW, SHAPES, campaign, findings, run
from stillwatch import results
from stillwatch.audit import AuditUnwritable, entries, public_key, verify
from stillwatch.errors import Terminal, Transient
from stillwatch.serving import newest, rounds, snapshot
from stillwatch.serving.access import RIGHTS, Access, Role
from stillwatch.serving.app import ROUTES, build
from stillwatch.serving.belonging import Belongings
from stillwatch.serving.edge import OUR_HEADER, Route
from stillwatch.serving.gateways import hashed
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Overseen, Status
from stillwatch.serving.rounds import Loop
from stillwatch.serving.services import Services, derived, opened
from stillwatch.serving.settings import Settings
from stillwatch.serving.standing_policy import StandingPolicy
from stillwatch.spool import Overload

RING = campaign(SHAPES[2])
MEMBERS = [m.account_id for m in RING.members]
POLICY = """
[[rules]]
name = "protect"
rung = "protect"
when = { confidence = 0.9 }
lasts = "30d"
[[rules]]
name = "stop"
rung = "suspend"
when = { confidence = 0.9, risk = 0.97 }
lasts = "14d"
signatures = 1
[caps]
traffic_share_per_hour = 1.0
"""
PUBLIC = Settings(public_url="https://w.example/")


@dataclass
class Server:
    """A server over a home, asked in this process, with a token for each role."""

    services: Services
    tokens: dict[Role, str]

    def __post_init__(self) -> None:
        self.app = build(self.services)

    def ask(self, method: str, path: str, role: Role | None = Role.ADMIN, **given: Any) -> httpx.Response:
        headers = dict(given.pop("headers", {}))
        if role is not None:
            headers = {"authorization": f"Bearer {self.tokens[role]}"} | headers

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://stillwatch") as client:
                return await client.request(method, path, headers=headers, **given)

        return asyncio.run(asked())

    def get(self, path: str, role: Role | None = Role.ADMIN, **given: Any) -> Any:
        got = self.ask("GET", path, role, **given)
        assert got.status_code == 200, got.text
        return got.json()

    def post(self, path: str, body: Any = None, role: Role | None = Role.ADMIN, status: int = 200) -> Any:
        got = self.ask("POST", path, role, json=body if body is not None else {})
        assert got.status_code == status, got.text
        return got.json()

    def round(self) -> dict[str, Exception]:
        """A round of a new loop; what went wrong in it."""
        return asyncio.run(Loop(self.services).round()).found

    def events(self, event: str) -> list[Any]:
        return [e for e in entries(self.services.home.audit) if e.deed.event == event]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a home forces every commit to disk, and a disk is slow."""
    quick = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=quick) as name:
        yield Path(name)


def issued(services: Services) -> dict[Role, str]:
    """A token of each role."""
    return {r: services.door.do_now(Access.issue, f"a-{r}", r, "test").secret.reveal() for r in Role}


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Server]]:
    """Opens servers over homes in a temporary folder, without a judge."""
    stack = []

    def made(settings: Settings = PUBLIC, policy: str = POLICY, found: bool = True) -> Server:
        home = Home(folder / "home").made()
        home.policy.write_text(policy)
        if found:
            judged(home)
        context = opened(home, settings, judge=False)
        services = context.__enter__()
        stack.append(context)
        assert not services.door.do_now(Access.tokens)
        tokens = issued(services)
        return Server(services, tokens)

    yield made
    for context in reversed(stack):
        context.__exit__(None, None, None)


def judged(home: Home, *shapes: Any, found: Any = None) -> None:
    """A result in the home, as a judgement writes it."""
    made = found or findings([RING], [campaign(REVIEW[0])], honest=20)
    results.write(made, run(finished=datetime.now(UTC)), home.results)


def body(count: int = 3, **changes: Any) -> bytes:
    start = datetime.now(UTC) - timedelta(days=1)
    rows = [
        {
            "exchange_id": f"e{i}", "time": (start + timedelta(seconds=i)).isoformat(), "account_id": f"a{i % 2}",
            "model": "m", "prompt": f"canary-4711 explain step by step: {i}",
        } | changes
        for i in range(count)
    ]  # fmt: skip
    return b"\n".join(json.dumps(r).encode() for r in rows) + b"\n"


def filled(path: str) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "x", path)


def sent(server: Server, route: Route, headers: dict[str, str]) -> httpx.Response:
    method = "GET" if route.method == "*" else route.method
    return server.ask(method, filled(route.path), None, headers=headers, content=b"" if method == "POST" else None)


# Rights


def test_every_route_has_a_right_or_a_reason_to_have_none() -> None:
    assert {r.path for r in ROUTES if r.right is None} == {"/appeals", "/healthz", "/readyz", "/openapi.json"}
    with pytest.raises(ValueError, match="needs a right"):
        dataclasses.replace(ROUTES[0], right=None)
    assert len({(r.method, r.path) for r in ROUTES}) == len(ROUTES)


def test_who_may_ask_what_is_the_table_and_nothing_else(serve: Callable[..., Server]) -> None:
    server = serve()
    server.services.judging = None
    for route in ROUTES:
        bare = sent(server, route, {})
        if route.right is None:
            assert bare.status_code not in (401,), route.path
            continue
        # Where the status would be the customer's, it is that of a fault of ours.
        denied = (503, 503) if route.token_header else (401, 403)
        assert bare.status_code == denied[0], f"{route.method} {route.path} answers without a token"
        assert bare.json()["error"] == "no valid token"
        assert bare.headers.get("www-authenticate", "").startswith("Bearer") != route.token_header
        for role in Role:
            name = OUR_HEADER if route.token_header else "authorization"
            scheme = "" if route.token_header else "Bearer "
            got = sent(server, route, {name: scheme + server.tokens[role]})
            told_no = got.status_code == denied[1] and got.json()["error"].startswith("this token may not")
            assert told_no == (route.right not in RIGHTS[role]), f"{role} on {route.method} {route.path}: {got.text}"
            assert got.status_code != 401


def test_a_forged_revoked_or_foreign_token_is_nobody(serve: Callable[..., Server]) -> None:
    server = serve()
    token = server.tokens[Role.VIEWER]
    for wrong in (token[:-1] + ("a" if token[-1] != "a" else "b"), token.replace("viewer", "admin"), "", "Basic x"):
        headers = {"authorization": f"Bearer {wrong}"}
        assert server.ask("GET", "/api/campaigns", None, headers=headers).status_code == 401
    server.services.door.do_now(Access.revoke, token.split("_")[2], "test")
    assert server.ask("GET", "/api/campaigns", Role.VIEWER).status_code == 401


def test_on_a_gateways_route_the_clients_authorization_is_not_our_token(serve: Callable[..., Server]) -> None:
    server = serve()
    assert server.ask("GET", "/ext_authz/v1/messages", Role.GATEWAY).status_code == 503
    ours = {OUR_HEADER: server.tokens[Role.GATEWAY], "authorization": "Bearer sk-customer"}
    assert server.ask("GET", "/ext_authz/v1/messages", None, headers=ours).status_code == 200


def test_the_other_methods_of_a_path_are_not_there(serve: Callable[..., Server]) -> None:
    server = serve()
    for method, path in (("HEAD", "/api/accounts/x"), ("DELETE", "/api/actions"), ("GET", "/ingest/litellm")):
        assert server.ask(method, path).status_code == 405
    got = server.ask("GET", "/api")
    assert (got.status_code, got.json()["hint"]) == (404, "GET /openapi.json lists all there is")


# Traffic in


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_what_was_answered_200_is_on_disk_without_its_content(serve: Callable[..., Server], encoding: str) -> None:
    server = serve()
    content = gzip.compress(body()) if encoding else body()
    headers = {"content-type": "application/x-ndjson"} | ({"content-encoding": encoding} if encoding else {})
    got = server.ask("POST", "/ingest/exchanges", Role.INGEST, content=content, headers=headers)
    assert (got.status_code, got.json()["kept"], got.json()["refused"]) == (200, 3, 0)
    again = server.ask("POST", "/ingest/exchanges", Role.INGEST, content=content, headers=headers)
    assert (again.json()["kept"], again.json()["duplicates"]) == (0, 3)
    assert sum(rows.num_rows for _, rows in server.services.spool.read()) == 3
    held = b"".join(p.read_bytes() for p in server.services.home.folder.rglob("*") if p.is_file())
    assert b"canary-4711" not in held
    assert server.services.metrics.value("stillwatch_ingest_rows_total", source="exchanges") == 3


def test_bad_records_are_told_and_kept_as_dead_letters(serve: Callable[..., Server]) -> None:
    server = serve()
    content = body(2) + b'{"exchange_id": "canary-9", "time": "soon", "account_id": "a", "model": "m"}\nno json\n'
    got = server.ask("POST", "/ingest/exchanges", Role.INGEST, content=content).json()
    assert (got["records"], got["kept"], got["refused"]) == (4, 2, 2)
    assert all(r["reason"] and r["first"] for r in got["reasons"])
    letters = server.get("/api/dead-letters")
    assert letters["count"] == 2
    assert "canary" not in json.dumps(letters)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"x" * 5000, {}, 413),
        (gzip.compress(b" " * 100_000), {"content-encoding": "gzip"}, 413),
        (b"{}", {"content-type": "text/html"}, 415),
        (b"{}", {"content-encoding": "br"}, 415),
        (b"not gzip", {"content-encoding": "gzip"}, 400),
    ],
)
def test_a_body_that_cannot_be_read_says_why(
    serve: Callable[..., Server], content: bytes, headers: dict[str, str], status: int
) -> None:
    small = dataclasses.replace(PUBLIC.bodies, body_bytes=4096, inflated_bytes=8192)
    server = serve(dataclasses.replace(PUBLIC, bodies=small))
    sent_as = {"content-type": "application/json"} | headers
    got = server.ask("POST", "/ingest/exchanges", Role.INGEST, content=content, headers=sent_as)
    assert got.status_code == status
    told = got.json()
    assert told["error"]
    assert told["request_id"] == got.headers["x-request-id"]


def test_overload_is_503_with_when_to_come_again(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()

    def full(*_: object) -> None:
        raise Overload("the spool is full", wait_s=12.2, hint="free its disk")

    monkeypatch.setattr(server.services.spool, "put", full)
    got = server.ask("POST", "/ingest/exchanges", Role.INGEST, content=body())
    assert (got.status_code, got.headers["retry-after"], got.json()["hint"]) == (503, "13", "free its disk")
    monkeypatch.undo()
    assert server.ask("POST", "/ingest/exchanges", Role.INGEST, content=body()).status_code == 200
    server.round()
    assert server.services.alarms["intake_refusing"] == "the spool is full"
    monkeypatch.setattr(rounds, "REFUSED_S", 0)
    server.round()
    assert "intake_refusing" not in server.services.alarms


def test_more_bodies_than_may_wait_are_503_and_decisions_are_not_held_up(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(dataclasses.replace(PUBLIC, intake_threads=1, intake_waiting=1))
    put, gate = server.services.spool.put, asyncio.Event()

    async def all_at_once() -> tuple[list[int], int]:
        loop = asyncio.get_running_loop()

        def slow(*args: Any) -> Any:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            return put(*args)

        monkeypatch.setattr(server.services.spool, "put", slow)
        transport = httpx.ASGITransport(app=server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://stillwatch") as client:
            headers = {"authorization": f"Bearer {server.tokens[Role.INGEST]}"}
            posts = [
                asyncio.create_task(client.post("/ingest/exchanges", content=body(), headers=headers)) for _ in range(4)
            ]
            while sum(p.done() for p in posts) < 2:
                await asyncio.sleep(0.001)
            ours = {"authorization": f"Bearer {server.tokens[Role.GATEWAY]}"}
            decided = await client.get("/v1/in-force?account=a", headers=ours)
            gate.set()
            return [(await p).status_code for p in posts], decided.status_code

    statuses, decided = asyncio.run(all_at_once())
    assert sorted(statuses) == [200, 200, 503, 503]
    assert decided == 200


def test_otlp_is_answered_in_its_own_words(serve: Callable[..., Server]) -> None:
    server = serve()
    span = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat m"}
    export = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    got = server.ask("POST", "/v1/traces", Role.INGEST, json=export)
    assert (got.status_code, got.headers["content-type"]) == (200, "application/json")
    assert set(got.json()) <= {"partialSuccess"}
    for kind, told in (("application/json", b"{}"), ("application/x-protobuf", b"")):
        got = server.ask("POST", "/v1/metrics", Role.INGEST, content=b"{}", headers={"content-type": kind})
        assert (got.status_code, got.content, got.headers["content-type"]) == (200, told, kind)
    assert server.services.metrics.value("stillwatch_ingest_dropped_total", source="otlp/metrics") == 2


def test_what_is_said_of_accounts_is_kept_and_masked(serve: Callable[..., Server]) -> None:
    server = serve()
    said = [{"account_id": MEMBERS[0], "plan": "payg", "email_domain": "canary.example", "payment_hash": "c4"}]
    assert server.ask("POST", "/ingest/accounts", Role.INGEST, json=said).json()["kept"] == 1
    path = f"/api/accounts/{MEMBERS[0]}"
    told = server.get(path, Role.ANALYST)
    assert told["declared"]["plan"] == "payg"
    assert told["declared"]["email_domain"] == "masked"
    assert told["declared"]["org_id"] is None
    assert server.ask("GET", f"{path}?unmask=true", Role.ANALYST).status_code == 400
    shown = server.get(f"{path}?unmask=true&reason=case+7", Role.ANALYST)
    assert shown["declared"]["email_domain"] == "canary.example"
    looks = [e.deed for e in server.events("account.looked")]
    assert [(d.who, d.subject, d.facts["unmasked"]) for d in looks] == [
        ("a-analyst", MEMBERS[0], False),
        ("a-analyst", MEMBERS[0], True),
    ]
    assert looks[1].facts["reason"] == "case 7"


def test_nobody_is_shown_what_the_audit_cannot_be_told(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()

    def full(*_: object) -> int:
        raise AuditUnwritable("audit: No space left on device", hint="free its disk")

    monkeypatch.setattr(server.services.audit, "append", full)
    got = server.ask("GET", f"/api/accounts/{MEMBERS[0]}")
    assert got.status_code == 503
    assert "retry-after" in got.headers
    assert MEMBERS[0] not in got.text


# From a judgement to what a gateway is told


def test_a_judgement_becomes_actions_by_the_policy_and_gateways_are_told(serve: Callable[..., Server]) -> None:
    server = serve()
    assert server.round() == {}
    protected = server.get("/api/actions?standing=in_force")
    waiting = server.get("/api/actions?standing=pending&limit=500")
    assert (protected["count"], {a["rung"] for a in protected["actions"]}) == (23, {"protect"})
    assert {a["rung"] for a in waiting["actions"]} == {"suspend"}
    ours = {"authorization": f"Bearer {server.tokens[Role.GATEWAY]}"}
    told = server.get(f"/v1/in-force?account={MEMBERS[0]}", None, headers=ours)
    assert (told["rung"], told["refusal"]) == ("protect", None)
    assert server.get("/v1/in-force?account=honest", None, headers=ours)["rung"] is None
    listed = server.get("/api/campaigns")["campaigns"][0]
    assert listed["actions"] == {"in_force": 23, "pending": waiting["count"]}
    key = derived(server.services.privacy, "in force")
    assert len(snapshot.load(server.services.home.in_force, key).table) == 23
    assert verify(server.services.home.audit, public_key(server.services.home.audit)).is_sound


def test_a_suspension_waits_for_people_holds_at_a_gateway_and_is_undone_at_once(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    pending = server.get("/api/actions?standing=pending&limit=500")["actions"]
    case, who = pending[0]["action_id"], pending[0]["account_id"]
    assert server.post("/api/actions/sign?preview=true", {"actions": [case]})["count"] == 1
    assert server.get("/api/actions?standing=due")["count"] == 0
    signed = server.post("/api/actions/sign", {"actions": [case]}, Role.APPROVER)
    assert signed["actions"][0]["standing"] in ("due", "in_force")
    server.round()
    ours = {OUR_HEADER: server.tokens[Role.GATEWAY], "x-stillwatch-account": who}
    refused = server.ask("POST", "/ext_authz/v1/chat/completions", None, headers=ours)
    assert refused.status_code == 403
    assert case in refused.text
    assert f"https://w.example/appeals?case={case}&proof=" in refused.text.replace("\\u0026", "&")
    asked = {"input_type": "request", "request_data": {"user_api_key_user_id": who}, "model": "m"}
    blocked = server.post("/beta/litellm_basic_guardrail_api", asked, Role.GATEWAY)
    assert blocked["action"] == "BLOCKED"
    undone = server.post("/api/actions/undo", {"actions": [case], "reason": "a mistake"}, Role.APPROVER)
    assert undone["count"] == 1
    assert server.ask("POST", "/ext_authz/v1/chat/completions", None, headers=ours).status_code == 200


def test_all_of_a_campaign_is_undone_with_one_request(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    living = server.get("/api/actions?limit=1000")["count"]
    wish = {"campaign": RING.campaign_id, "reason": "not one operator"}
    assert server.post("/api/actions/undo?preview=true", wish)["count"] == living
    assert server.post("/api/actions/undo", wish)["count"] == living
    assert server.get("/api/actions")["count"] == 0
    assert not server.services.decisions.table.accounts


def test_pending_actions_are_turned_down(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    wish = {"campaign": RING.campaign_id, "reason": "too strict"}
    refused = server.post("/api/actions/refuse", wish, Role.APPROVER)
    assert refused["count"] > 0
    assert server.get("/api/actions?standing=pending")["count"] == 0
    assert server.ask("POST", "/api/actions/refuse", json=wish).status_code == 404


def test_a_person_proposes_what_they_have_looked_at(serve: Callable[..., Server]) -> None:
    server = serve(policy="rules = []")
    server.round()
    wish = {"campaign": RING.campaign_id, "rung": "throttle", "reason": "as agreed", "lasts": "3d"}
    looked = server.post("/api/actions?preview=true", wish, Role.ANALYST)
    assert (looked["count"], looked["signatures"], looked["unknown"]) == (23, 1, 0)
    assert server.get("/api/actions")["count"] == 0
    named = {"accounts": looked["accounts"][:2], "rung": "throttle", "reason": "as agreed", "lasts": "3d"}
    proposed = server.post("/api/actions", named, Role.ANALYST)["proposed"]
    assert [a["standing"] for a in proposed] == ["pending", "pending"]
    suspended = server.post("/api/actions?preview=true", {**wish, "rung": "suspend"}, Role.ANALYST)
    assert suspended["signatures"] == 2
    assert {e.deed.who for e in server.events("action.proposed")} == {"a-analyst"}


def test_a_person_narrows_an_action_to_a_key_or_an_end_user(serve: Callable[..., Server], folder: Path) -> None:
    server = serve(policy="rules = []")
    secret, wish = "sk-canary-0815", {"rung": "verify", "reason": "one key is resold", "accounts": ["acme"]}
    key = hashed(secret)
    looked = server.post("/api/actions?preview=true", {**wish, "key": key}, Role.ANALYST)
    assert (looked["count"], looked["part"], looked["already"]) == (1, "key", {})
    made = [
        server.post("/api/actions", {**wish, **more}, Role.ANALYST)["proposed"][0]
        for more in ({"key": key}, {"end_user": "eve-canary-4711", "rung": "throttle"})
    ]
    assert [a["part"] for a in made] == ["key", "end_user"]
    server.post("/api/actions/sign", {"actions": [a["action_id"] for a in made]}, Role.APPROVER)
    assert server.round() == {}

    def asked(**who: str) -> Any:
        got = server.ask("GET", "/v1/in-force", Role.GATEWAY, params=who)
        return got.json()["rung"], got.json()["part"]

    assert asked(account="acme", secret=secret) == ("verify", "key")
    assert asked(key=key) == ("verify", "key")
    assert asked(account="acme", end_user="eve-canary-4711") == ("throttle", "end_user")
    assert asked(account="acme", key=key, end_user="eve-canary-4711") == ("verify", "key")
    for others in (
        {"account": "acme"},
        {"account": "acme", "secret": "sk-2"},
        {"account": "b", "end_user": "eve-canary-4711"},
    ):
        assert asked(**others) == (None, None), others
    again = server.post("/api/actions?preview=true", {**wish, "key": key}, Role.ANALYST)
    assert again["already"] == {"verify": 1}
    assert "one key of the account" in server.get(f"/api/statement/{made[0]['action_id']}")["limits"]
    assert server.round() == {}
    known = snapshot.load(server.services.home.in_force, derived(server.services.privacy, "in force"))
    assert known.faults == () and known.table == server.services.decisions.table

    server.post("/api/actions/undo", {"actions": [made[0]["action_id"]], "reason": "a mistake"}, Role.APPROVER)
    assert asked(key=key) == (None, None)
    written = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert made[0]["mark"].encode() in written
    assert b"canary" not in written and key.encode() not in written


def test_a_gateway_that_knows_no_account_is_answered_by_what_the_log_has_said(serve: Callable[..., Server]) -> None:
    server = serve(policy="rules = []")
    wish = {"rung": "verify", "reason": "a ring", "accounts": ["a0"]}
    (action,) = server.post("/api/actions", wish, Role.ANALYST)["proposed"]
    server.post("/api/actions/sign", {"actions": [action["action_id"]]}, Role.APPROVER)
    assert server.round() == {}

    def asked(**who: str) -> Any:
        return server.ask("GET", "/v1/in-force", Role.GATEWAY, params=who).json()["rung"]

    assert (asked(end_user="eve"), asked(secret="sk-1")) == (None, None)
    lines = body(1, end_user="eve") + body(1, end_user="bob", exchange_id="e9", account_id="a9")
    sent_as = {"content-type": "application/x-ndjson"}
    assert server.ask("POST", "/ingest/exchanges", Role.INGEST, content=lines, headers=sent_as).status_code == 200
    said = json.dumps([
        {"account_id": "a0", "plan": "free", "keys": [hashed("sk-1"), "no digest"]},
        {"class_uid": 3001, "activity_id": 3, "time": 1767225600000, "user": {"uid": "a0"},
         "unmapped": {"keys": [hashed("sk-2")]}},
    ])  # fmt: skip
    taken = server.ask(
        "POST", "/ingest/accounts", Role.INGEST, content=said, headers={"content-type": "application/json"}
    )
    assert taken.status_code == 200 and taken.json()["unknown_fields"] == []
    assert [asked(end_user="eve"), asked(secret="sk-1"), asked(secret="sk-2")] == ["verify"] * 3
    assert [asked(end_user="bob"), asked(secret="sk-3"), asked(account="a9", secret="sk-1")] == [None] * 3
    assert server.round() == {}
    assert 'stillwatch_belongings{what="known"} 4' in server.ask("GET", "/metrics", Role.METRICS).text
    again = Belongings(server.services.home.folder / "belongings.jsonl", server.services.marks)
    assert again.owner("", "eve") == "a0"


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"rung": "banish", "reason": "r", "accounts": ["a"]}, "no such rung"),
        ({"rung": "throttle", "accounts": ["a"]}, "no reason"),
        ({"rung": "throttle", "reason": "r"}, "no accounts"),
        ({"rung": "throttle", "reason": "r", "accounts": []}, "no accounts"),
        ({"rung": "throttle", "reason": "r", "accounts": ["a"], "settings": {"x": 1}}, "has no setting"),
        ({"rung": "throttle", "reason": "r", "accounts": ["a"], "lasts": "ever"}, "is no length"),
        ({"rung": "throttle", "reason": "r", "accounts": ["a"], "extra": 1}, "unknown fields: extra"),
        ({"rung": "throttle", "reason": "r", "accounts": ["a", "b"], "end_user": "e"}, "one of one account"),
        (
            {"rung": "throttle", "reason": "r", "accounts": ["a"], "end_user": "e", "key": "0" * 64},
            "one of one account",
        ),
        ({"rung": "throttle", "reason": "r", "accounts": ["a"], "key": "sk-1"}, "the SHA-256"),
        ({"rung": "throttle", "reason": "r", "accounts": ["a"], "end_user": 7}, "must be a text"),
        ([], "is no JSON object"),
    ],
)
def test_a_wish_that_makes_no_sense_says_why(serve: Callable[..., Server], wish: Any, said: str) -> None:
    assert said in serve(found=False).post("/api/actions", wish, status=400)["error"]


def test_without_a_policy_the_default_one_is_in_shadow(serve: Callable[..., Server]) -> None:
    server = serve()
    server.services.home.policy.unlink()
    assert server.round() == {}
    assert {a["standing"] for a in server.get("/api/actions?standing=shadow")["actions"]} == {"shadow"}
    assert not server.services.decisions.table.accounts
    assert server.services.decisions.table.shadows
    assert "stands in shadow" in server.get("/api/policy")["source"]


def test_a_policy_that_cannot_be_read_proposes_nothing_and_takes_nothing_away(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    before = server.services.decisions.table.accounts
    server.services.home.policy.write_text("[[rules]]\nrung = 'banish'\n")
    judged(server.services.home, found=findings([RING, campaign(SHAPES[0])]))
    server.round()
    assert server.services.decisions.table.accounts == before
    assert server.get("/api/actions?limit=9999")["count"] == 23 + server.get("/api/actions?standing=pending")["count"]
    assert "policy_unreadable" in server.services.alarms
    assert "no rule stands" in server.get("/api/policy")["source"]


def test_an_account_that_is_cleared_is_let_go(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    smaller = dataclasses.replace(RING, members=RING.members[:20])
    judged(server.services.home, found=findings([smaller], [], [campaign(REVIEW[1])], honest=5))
    gone = [m.account_id for m in RING.members[20:]]
    made = findings([smaller], honest=0)
    import pyarrow as pa

    from stillwatch.findings import Findings, accounts_table

    seen = pa.array([*MEMBERS, "acct_honest"])
    made = Findings((smaller,), (), (), accounts_table(seen, (smaller,)))
    judged(server.services.home, found=made)
    server.round()
    table = server.services.decisions.table.accounts
    assert not set(gone) & set(table)
    assert len(table) == 20


@pytest.mark.parametrize("status", [Status("failed", judged=datetime.now(UTC)), None])
def test_a_judge_that_fails_or_has_not_looked_for_long_raises_no_rung(
    serve: Callable[..., Server], status: Any
) -> None:
    server = serve()
    old = Status("waiting", judged=datetime.now(UTC) - timedelta(days=1))

    class Judge:
        def status(self) -> Any:
            return status or old

        def overseen(self) -> Any:
            return Overseen(True, 1, 0, None, "")

    server.services.judging = Judge()  # type: ignore[assignment]
    server.round()
    assert server.get("/api/actions")["count"] == 0
    assert ("judge_failing" in server.services.alarms) == (status is not None)


def test_how_many_one_may_suspend_alone_is_the_policys_that_stands(serve: Callable[..., Server]) -> None:
    server = serve(policy="[bulk]\nsuspend = 2\n" + POLICY)
    proposed = {"rung": "suspend", "reason": "they do", "lasts": "7d"}

    def needed(accounts: list[str]) -> set[int]:
        made = server.post("/api/actions", {**proposed, "accounts": accounts}, Role.ANALYST)["proposed"]
        ids = [a["action_id"] for a in made]
        return server.services.clerk.do_now(lambda desk: {desk.actions.get(i).needed for i in ids})

    def signed(accounts: list[str]) -> set[str]:
        made = server.post("/api/actions", {**proposed, "accounts": accounts}, Role.ANALYST)["proposed"]
        told = server.post("/api/actions/sign", {"actions": [a["action_id"] for a in made]}, Role.APPROVER)
        return {a["standing"] for a in told["actions"]}

    assert needed(["x1", "x2", "x3"]) == {2}
    server.services.home.policy.write_text("[bulk]\nsuspend = 8\n" + POLICY)
    assert signed(["y1", "y2", "y3"]) == {"due"}, "the file was changed, and the number that holds was not"
    server.services.home.policy.write_text("[[rules")
    server.round()
    assert "policy_unreadable" in server.services.alarms
    assert server.services.policy.now().bulk.suspend == 8, "what was last known"
    assert StandingPolicy(server.services.home.policy).now().bulk.suspend == 0, "nothing is known: nobody alone"


def test_a_judgement_is_stale_only_where_something_waits_for_it(serve: Callable[..., Server]) -> None:
    server = serve()
    told = Status("waiting", judged=datetime.now(UTC) - timedelta(days=1), newest=1)

    class Judge:
        def status(self) -> Any:
            return told

        def overseen(self) -> Any:
            return Overseen(True, 1, 0, None, "")

    server.services.judging = Judge()  # type: ignore[assignment]
    ingested = server.ask("POST", "/ingest/exchanges", Role.INGEST, content=body())
    assert ingested.json()["kept"] == 3, ingested.text
    assert server.services.spool.last() == 1
    server.round()
    assert "judgement_stale" not in server.services.alarms, "all that came in was judged a day ago"
    assert server.ask("POST", "/ingest/exchanges", Role.INGEST, content=body(5)).json()["kept"] == 2
    server.round()
    assert "waits for a judgement" in server.services.alarms["judgement_stale"]
    told = dataclasses.replace(told, judged=datetime.now(UTC))
    server.round()
    assert "judgement_stale" not in server.services.alarms


# A loop that survives


def test_a_part_of_the_loop_that_fails_changes_nothing_in_force(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    server.round()
    before = server.services.decisions.table
    (server.services.home.results / "campaigns.json").write_text("{")
    (server.services.home.results / "run.json").write_text("{}")

    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(rounds, "decide", broken)
    found = server.round()
    assert set(found) == {"results", "policy"}
    assert isinstance(found["results"], Terminal)
    assert server.services.decisions.table == before
    assert "policy: ZeroDivisionError" in server.services.alarms["loop_failing"]
    assert server.services.metrics.value("stillwatch_loop_runs_total", outcome="failed") == 1
    monkeypatch.undo()
    judged(server.services.home)
    assert server.round() == {}
    assert "loop_failing" not in server.services.alarms


def test_an_audit_that_cannot_be_written_begins_nothing_and_says_so(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()

    def full(*_: object) -> Any:
        raise AuditUnwritable("audit: No space left on device")

    monkeypatch.setattr(server.services.audit, "append_all", full)
    found = server.round()
    assert isinstance(found["policy"], AuditUnwritable)
    assert not server.services.decisions.table.accounts
    assert {"audit_failing", "loop_failing"} <= set(server.services.alarms)
    monkeypatch.undo()
    assert server.round() == {}
    assert len(server.services.decisions.table.accounts) == 23


def test_the_last_known_is_answered_before_anything_else_runs(serve: Callable[..., Server], folder: Path) -> None:
    server = serve()
    server.round()
    asked = f"/v1/in-force?account={MEMBERS[0]}"
    first = server.get(asked, Role.GATEWAY)
    known = server.services.home.in_force.read_bytes()
    other = Home(folder / "other").made()
    other.in_force.write_bytes(known)
    (other.folder / "keys").mkdir()
    other.privacy_key.write_bytes(server.services.home.privacy_key.read_bytes())
    other.privacy_key.chmod(0o600)
    with opened(other, PUBLIC, judge=False) as services:
        tokens = issued(services)
        told = Server(services, tokens).get(asked, Role.GATEWAY)
    assert {n: told[n] for n in ("rung", "case")} == {n: first[n] for n in ("rung", "case")}


def test_a_body_that_is_the_senders_fault_is_no_fault_of_ours_in_the_log(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    for kind, status in (("application/json", 400), ("text/css", 415)):
        told = server.ask("POST", "/ingest/accounts", Role.INGEST, content=b"", headers={"content-type": kind})
        assert told.status_code == status
    assert [r for r in caplog.records if r.levelno > logging.DEBUG] == []


def test_in_force_says_what_is_wrong_with_a_question_and_names_the_request(serve: Callable[..., Server]) -> None:
    server = serve()
    for query in ("acount=a", "account=a&dialect=latin"):
        told = server.ask("GET", f"/v1/in-force?{query}", Role.GATEWAY)
        assert told.status_code == 400 and all(told.json()[n] for n in ("error", "hint"))
        assert told.json()["request_id"] == told.headers["x-request-id"]


def test_a_gateway_is_let_in_while_the_state_cannot_be_read(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    assert server.ask("GET", "/v1/in-force?account=a", Role.GATEWAY).status_code == 200

    def broken(*_: object) -> Any:
        raise Transient("state.db: disk I/O error")

    monkeypatch.setattr(Access, "who", broken)
    assert server.ask("GET", "/v1/in-force?account=a", Role.GATEWAY).status_code == 200
    assert server.ask("GET", "/api/campaigns", Role.ADMIN).status_code == 503
    unseen = {"authorization": f"Bearer sw_gateway_{'0' * 12}_{'x' * 43}"}
    assert server.ask("GET", "/v1/in-force?account=a", None, headers=unseen).status_code == 503


# People


def test_a_campaign_shows_its_accounts_to_those_who_may_read_accounts(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    path = f"/api/campaigns/{RING.campaign_id}"
    seen = server.get(path, Role.VIEWER)
    assert (seen["members"], seen["history"]) == ("masked", "masked")
    assert not any(m in json.dumps(seen) for m in MEMBERS)
    shown = server.get(f"{path}?limit=5", Role.ANALYST)
    assert (len(shown["members"]), shown["accounts"]) == (5, 23)
    assert shown["members"][0]["risk"] >= shown["members"][4]["risk"]
    assert shown["history"][0]["event"] == "proposed"
    assert len(server.events("campaign.looked")) == 2
    assert server.ask("GET", "/api/campaigns/none").status_code == 404


def test_before_the_first_judgement_there_is_nothing_and_no_fault(serve: Callable[..., Server]) -> None:
    server = serve(found=False)
    assert server.round() == {}
    assert server.get("/api/campaigns") == {"judged": None, "campaigns": [], "review": []}
    assert server.ask("GET", "/api/accounts/nobody").status_code == 404
    assert server.ask("POST", "/api/policy/preview", json={}).status_code == 409
    assert server.ask("POST", "/api/judge-now").status_code == 409


def test_an_appeal_is_filed_with_the_token_of_its_refusal_and_decided_by_somebody_else(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    server.round()
    case = server.get("/api/actions?standing=in_force")["actions"][0]["action_id"]
    proof = server.services.appeal_proof(case)
    wish = {"case": case, "proof": proof, "text": "we are a class of students"}
    assert server.post("/appeals", {**wish, "proof": "0" * 32}, None, 403)["error"] == "this proof is not of that case"
    filed = server.post("/appeals", wish, None, 201)
    assert server.post("/appeals", wish, None, 409)["error"].startswith(f"appeal {filed['appeal']} is open already")
    waiting = server.get("/api/appeals?open=true")["appeals"]
    assert [a["text"] for a in waiting] == ["we are a class of students"]
    account = waiting[0]["account_id"]
    decided = server.post(f"/api/appeals/{filed['appeal']}/decide", {"outcome": "overturned", "reason": "they are"})
    assert decided["outcome"] == "overturned"
    assert account not in server.services.decisions.table.accounts
    assert server.get("/api/judgements")["judgements"][0]["verdict"] == "negative"
    server.round()
    assert account not in server.services.decisions.table.accounts
    assert "students" not in (server.services.home.audit / "log.jsonl").read_text()


def test_a_statement_names_case_reason_and_where_to_appeal(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    case = server.get("/api/actions?standing=in_force")["actions"][0]["action_id"]
    told = server.get(f"/api/statement/{case}")
    assert told["case"] == case
    assert told["appeal_url"] == server.services.appeal_url(case)
    assert "You may appeal" in told["text"]
    assert server.ask("GET", "/api/statement/A-none").status_code == 404


def test_a_judgement_outranks_the_rules_from_the_next_round_on(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    wish = {"subject": RING.campaign_id, "verdict": "negative", "reason": "a known tool"}
    server.post("/api/judgements", wish, Role.ANALYST, 201)
    assert server.services.wake.is_set()
    server.round()
    assert not server.services.decisions.table.accounts
    assert server.post("/api/judgements", {**wish, "verdict": "guilty"}, status=400)["error"] == "no such verdict"
    (event,) = server.events("judgement.said")
    assert (event.deed.who, event.deed.facts["verdict"]) == ("a-analyst", "negative")


def test_a_policy_is_explained_and_tried_before_it_acts(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    assert any("protect" in line for line in server.get("/api/policy")["says"])
    other = POLICY.replace(
        '"protect"\nrung = "protect"', '"slow"\nrung = "throttle"\nsettings = { requests_per_minute = 6 }'
    )
    would = {r["rule"]: r for r in server.post("/api/policy/preview", {"policy": other})["would"]}
    assert would["slow"]["accounts"] == 23
    fault = server.post("/api/policy/preview", {"policy": "[[rules]]\n"}, status=400)
    assert "policy" in fault["error"]


def test_the_checkpoint_is_a_signed_note(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    note = server.ask("GET", "/api/audit/checkpoint").text
    folder = server.services.home.audit
    assert verify(folder, public_key(folder), since=note).is_sound


# The server itself


def test_probes_say_whether_and_why_and_nothing_else(serve: Callable[..., Server]) -> None:
    server = serve()
    assert server.get("/healthz", None) == {"alive": True}
    early = server.ask("GET", "/readyz", None)
    assert (early.status_code, early.json()["ready"]) == (503, False)
    assert "first round" in early.json()["why"]
    server.round()
    assert server.get("/readyz", None) == {"ready": True}
    server.services.draining = True
    late = server.ask("GET", "/readyz", None)
    assert (late.status_code, late.json()) == (503, {"ready": False, "why": "the server is being stopped"})
    assert server.ask("GET", "/healthz", None).status_code == 200


def test_figures_tell_routes_as_patterns_and_no_account(serve: Callable[..., Server]) -> None:
    server = serve()
    server.round()
    server.ask("GET", f"/api/accounts/{MEMBERS[0]}")
    server.ask("GET", "/nothing/canary")
    server.ask("GET", f"/v1/in-force?account={MEMBERS[0]}", Role.GATEWAY)
    text = server.ask("GET", "/metrics", Role.METRICS).text
    assert 0 <= time.time() - server.services.metrics.value("stillwatch_started_seconds") < 600
    assert "\nstillwatch_started_seconds " in text
    assert 'stillwatch_requests_total{route="/api/accounts/{account_id}",status="200"} 1' in text
    assert 'stillwatch_requests_total{route="none",status="404"} 1' in text
    assert 'stillwatch_in_force{rung="protect"} 23' in text
    assert 'stillwatch_decisions_by_rung_total{what="in_force",rung="protect"} 1' in text
    assert 'stillwatch_alarm{alarm="loop_failing"} 0' in text
    assert 'stillwatch_spool{figure="rows"} 0' in text
    assert MEMBERS[0] not in text
    assert "canary" not in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{[^{}]*(\{\w+(:\w+)?\}[^{}]*)*\})? [-+0-9.e]+", line), line


def test_a_fault_of_ours_is_500_without_a_word_of_it(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()

    def broken(*_: object) -> Any:
        raise ValueError("canary-4711")

    monkeypatch.setattr(server.services.spool, "dead_letters", broken)
    got = server.ask("GET", "/api/dead-letters", headers={"x-request-id": "mine-1"})
    assert (got.status_code, got.json()["error"]) == (500, "a fault of the server")
    assert got.headers["x-request-id"] == "mine-1"
    assert "canary" not in got.text
    odd = server.ask("GET", "/healthz", None, headers={"x-request-id": "a b\tc"})
    assert re.fullmatch("[0-9a-f]{32}", odd.headers["x-request-id"])


def test_every_answer_has_safe_headers(serve: Callable[..., Server]) -> None:
    got = serve().ask("GET", "/api/campaigns")
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in got.headers["content-security-policy"]


def test_openapi_is_the_table(serve: Callable[..., Server]) -> None:
    told = serve().get("/openapi.json", None)
    assert told["openapi"] == "3.1.0"
    for route in ROUTES:
        found = told["paths"][re.sub(r":\w+\}", "}", route.path)]
        operation = found["get" if route.method == "*" else route.method.lower()]
        assert operation["summary"] == route.summary
        assert bool(operation["security"]) == (route.right is not None)
        assert (str(route.right) if route.right else route.open_because) in operation["description"]
    ids = [o["operationId"] for p in told["paths"].values() for o in p.values()]
    assert len(set(ids)) == len(ids)


def test_the_lifespan_runs_the_loop_and_writes_what_is_in_force_last(serve: Callable[..., Server]) -> None:
    server = serve()

    async def live() -> None:
        async with server.app.router.lifespan_context(server.app):
            for _ in range(500):
                if server.services.home.in_force.exists():
                    break
                await asyncio.sleep(0.01)
            server.services.home.in_force.unlink()

    asyncio.run(live())
    assert server.services.draining
    key = derived(server.services.privacy, "in force")
    assert len(snapshot.load(server.services.home.in_force, key).table) == 23


def test_a_result_replaced_while_it_is_read_is_read_again(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    marks = iter([newest.Mark(1, 1, 1), newest.Mark(2, 2, 2), newest.Mark(2, 2, 2)])
    monkeypatch.setattr(newest, "mark", lambda folder: next(marks))
    with pytest.raises(Transient, match="was replaced while it was read"):
        newest.read(server.services.home.results)
    monkeypatch.undo()
    assert newest.read(server.services.home.results) is not None
