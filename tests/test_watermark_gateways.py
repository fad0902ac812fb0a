"""The gateway alone chooses the key: by the campaign, from the ledger, and never by what a client sends."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from stillwatch.errors import UsageError
from stillwatch.notes import Signer
from stillwatch.policy import parse
from stillwatch.protection.book import Book
from stillwatch.protection.keys import Key, Scheme
from stillwatch.protection.sequences import Sequences
from stillwatch.protection.vetting import Vetting
from stillwatch.responders import change_request
from stillwatch.secret import Secret
from stillwatch.serving import snapshot
from stillwatch.serving.backup import backup, restore
from stillwatch.serving.decisions import Decisions, Table
from stillwatch.serving.doctor import examine
from stillwatch.serving.gateways import App, Gate, Receive, Scope, Send, Wiring, asgi, in_force, litellm_hook
from stillwatch.serving.gateways.edits import REWRITE, WATERMARK
from stillwatch.serving.gateways.ext_authz import ext_authz
from stillwatch.serving.home import Home
from stillwatch.serving.rounds import Loop
from stillwatch.serving.services import Services, derived, opened
from stillwatch.serving.settings import Settings
from stillwatch.types import Action, InForce, Rung, Standing

ID = "3f9c01ab77de4410"
MASTER = Secret("a master secret of the tests, long enough")
SIGNER = Signer.make("stillwatch/test")
VETTING = Vetting(Sequences.of(np.random.default_rng(0).integers(0, 200, (80, 40))))


def held(rung: Rung, who: str, **settings: Any) -> InForce:
    return InForce(who, rung, f"case-{who}", "C-1", datetime.now(UTC) + timedelta(hours=1), settings)


MARKED = {"watermark": True, "watermark_key": ID}
TABLE = Table(
    {
        "marked": held(Rung.PROTECT, "marked", **MARKED),
        "slowed": held(Rung.THROTTLE, "slowed", requests_per_minute=6000, burst=100, **MARKED),
        "keyless": held(Rung.PROTECT, "keyless", watermark=True),
        "shielded": held(Rung.PROTECT, "shielded"),
        "watched": held(Rung.OBSERVE, "watched", **MARKED),
    }
)

CHOSEN = {
    "watermarking": False,
    "watermark": {"enabled": False},
    "logits_processors": ["evil.Processor"],
    "custom_logit_processor": "{}",
    "vllm_xargs": {"stillwatch_key": "of-another", "top_z": 3},
    "extra_body": {"watermarking": False, "vllm_xargs": {"stillwatch_key": "of-another"}, "kept": 1},
}
CHAT = {"model": "llama-9", "messages": [{"role": "user", "content": "tell me of watermarks"}], "temperature": 0.5}


@pytest.fixture
def gate() -> Gate:
    return Gate(Decisions(TABLE), Wiring(dialect="vllm"))


class Upstream:
    """A model's server: keeps what reaches it."""

    def __init__(self) -> None:
        self.raw, self.headers = b"", dict[str, str]()

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = {n.decode(): v.decode() for n, v in scope["headers"]}
        self.raw, more = b"", True
        while more:
            message = await receive()
            self.raw += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


def post(app: App, who: str, body: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    async def posted() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://stillwatch") as client:
            given = {"x-stillwatch-account": who, **{n.replace("_", "-"): v for n, v in headers.items()}}
            content = body if isinstance(body, bytes) or hasattr(body, "__aiter__") else json.dumps(body).encode()
            return await client.post(path, content=content, headers=given)

    return asyncio.run(posted())


def test_vllm_is_told_the_key_of_the_account_and_keeps_its_other_arguments(gate: Gate, upstream: Upstream) -> None:
    for who in ("marked", "slowed"):
        post(asgi.stillwatch(upstream, gate), who, {**CHAT, "vllm_xargs": {"top_z": 3, "stillwatch_key": "mine"}})
        assert upstream.body["vllm_xargs"] == {"top_z": 3, "stillwatch_key": ID}
        assert upstream.headers[WATERMARK] == ID
    post(asgi.stillwatch(upstream, gate), "marked", CHAT)
    assert upstream.body["vllm_xargs"] == {"stillwatch_key": ID}


@pytest.mark.parametrize("who", ["keyless", "shielded", "watched", "nobody"])
def test_nobody_else_is(gate: Gate, upstream: Upstream, who: str) -> None:
    post(asgi.stillwatch(upstream, gate), who, CHAT)
    assert "vllm_xargs" not in upstream.body and WATERMARK not in upstream.headers


@pytest.mark.parametrize(
    ("path", "usual", "is_named"),
    [
        ("/v1/responses", "vllm", True),
        ("/v1/responses", "openai_chat", False),
        ("/v1/chat/completions", "openai_chat", False),
        ("/v1/messages", "vllm", False),
    ],
)
@pytest.mark.parametrize("layer", ["stillwatch", "rewriting"])
def test_a_dialect_without_a_field_for_it_is_told_in_a_header_alone(
    upstream: Upstream, path: str, usual: str, is_named: bool, layer: str
) -> None:
    gate = Gate(Decisions(TABLE), Wiring(dialect=usual))
    app, told = asgi.stillwatch(upstream, gate), {}
    if layer == "rewriting":
        app, allowed = asgi.rewriting(upstream), post(ext_authz(gate), "marked", b"", f"/ext_authz{path}")
        told = {"x_stillwatch_watermark": allowed.headers[WATERMARK], "x_stillwatch_rewrite": allowed.headers[REWRITE]}
    post(app, "marked", CHAT, path, **told)
    assert upstream.body.get("vllm_xargs") == ({"stillwatch_key": ID} if is_named else None)
    assert upstream.headers[WATERMARK] == ID
    assert "vllm_xargs" not in change_request(TABLE.accounts["marked"], CHAT, "openai_chat").request


@pytest.mark.parametrize("who", ["marked", "keyless", "shielded", "watched", "nobody"])
@pytest.mark.parametrize("layer", ["stillwatch", "rewriting"])
def test_no_client_chooses_or_switches_off_a_watermark(gate: Gate, upstream: Upstream, who: str, layer: str) -> None:
    app = asgi.stillwatch(upstream, gate) if layer == "stillwatch" else asgi.rewriting(upstream)
    asked = {"x_stillwatch_watermark": "of-another"}
    if layer == "rewriting":
        allowed = post(ext_authz(gate), who, b"", "/ext_authz/v1/chat/completions")
        asked = {"x_stillwatch_watermark": allowed.headers[WATERMARK], "x_stillwatch_rewrite": allowed.headers[REWRITE]}
    assert post(app, who, {**CHAT, **CHOSEN}, **asked).status_code == 200
    mine = {"stillwatch_key": ID} if who == "marked" else {}
    assert upstream.body == {
        **CHAT, "vllm_xargs": {"top_z": 3, **mine}, "extra_body": {"vllm_xargs": {}, "kept": 1},
        **({"include_reasoning": False} if who in ("marked", "keyless", "shielded") else {}),
    }  # fmt: skip
    assert upstream.headers.get(WATERMARK, "") == (ID if who == "marked" else "")
    assert int(upstream.headers["content-length"]) == len(upstream.raw)


@pytest.mark.parametrize("field", sorted(CHOSEN))
def test_a_name_that_is_spelt_another_way_is_the_same_name(gate: Gate, upstream: Upstream, field: str) -> None:
    plain = json.dumps({**CHAT, field: CHOSEN[field]})
    for name in (*[c[-1] for c in litellm_hook.CHOICES],):
        plain = plain.replace(f'"{name}"', f'"\\u{ord(name[0]):04x}{name[1:]}"')
    for raw in (plain.encode(), plain.encode("utf-16"), plain.encode("utf-16-be"), plain.encode("utf-32")):
        post(asgi.stillwatch(upstream, gate), "nobody", raw)
        for choice in litellm_hook.CHOICES:
            found: Any = upstream.body
            for name in choice:
                found = found.get(name) if isinstance(found, dict) else None
            assert found is None
        assert upstream.body["messages"] == CHAT["messages"]


def test_a_field_given_twice_is_taken_out_twice(gate: Gate, upstream: Upstream) -> None:
    raw = b'{"watermarking": false, "model": "m", "watermarking": false}'
    post(asgi.stillwatch(upstream, gate), "nobody", raw)
    assert upstream.raw == b'{"model":"m"}'


def test_each_request_of_a_batch_is_looked_at(gate: Gate, upstream: Upstream) -> None:
    batch = {"requests": [{"custom_id": "a", "params": {**CHAT, **CHOSEN}}, {"custom_id": "b", "params": dict(CHAT)}]}
    post(asgi.stillwatch(upstream, gate), "nobody", batch, "/v1/messages/batches")
    first, second = (r["params"] for r in upstream.body["requests"])
    assert "watermarking" not in first and first["vllm_xargs"] == {"top_z": 3} and second == CHAT


def test_what_has_no_such_field_passes_byte_by_byte(gate: Gate, upstream: Upstream) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for byte in raw:
            yield bytes([byte])

    raw = b'{ "model":"m",  "n": 1.50, "messages": [] }'
    for body in (raw, parts()):
        post(asgi.stillwatch(upstream, gate), "nobody", body)
        assert upstream.raw == raw
    broken = b'{"watermarking": fal'
    post(asgi.stillwatch(upstream, gate), "nobody", broken)
    assert (upstream.raw, gate.decisions.counts.unreadable) == (broken, 1)


def test_ext_authz_and_in_force_say_the_key(gate: Gate) -> None:
    allowed = post(ext_authz(gate), "marked", b"", "/ext_authz/v1/chat/completions")
    assert allowed.headers[WATERMARK] == ID and ID in allowed.headers[REWRITE]
    forged = post(ext_authz(gate), "nobody", b"", "/ext_authz/v1/chat/completions", x_stillwatch_watermark="mine")
    assert forged.headers[WATERMARK] == ""
    assert in_force.answer(gate, {"account": "marked"})["watermark"] == ID
    for who in ("nobody", "keyless", "watched"):
        assert in_force.answer(gate, {"account": who})["watermark"] is None


# LiteLLM


class Asker(litellm_hook.Asker):
    """Asks the gate itself; with none, nobody answers."""

    def __init__(self, gate: Gate | None, **settings: str) -> None:
        super().__init__(settings)
        self._gate = gate

    def _fetch(self, question: str) -> Any:
        if self._gate is None:
            raise OSError("nobody answers")
        return in_force.answer(self._gate, dict(p.split("=") for p in question.split("&")))


def called(asker: Asker, who: str, request: dict[str, Any]) -> dict[str, Any]:
    try:
        user = types.SimpleNamespace(user_id=who, team_id="", token="", end_user_id=None)
        return asyncio.run(asker.before(user, request, "acompletion"))
    finally:
        asker.close()


@pytest.mark.parametrize("answers", [True, False])
def test_hook_takes_choices_out_of_every_call_whether_we_answer_or_not(gate: Gate, answers: bool) -> None:
    given = {**CHAT, **CHOSEN}
    before = json.dumps(given)
    changed = called(Asker(gate if answers else None), "nobody", given)
    assert changed == {**CHAT, "vllm_xargs": {"top_z": 3}, "extra_body": {"vllm_xargs": {}, "kept": 1}}
    assert json.dumps(given) == before, "what was given was changed"


def test_hook_names_the_key_to_vllm_and_to_no_other_engine(gate: Gate) -> None:
    told = called(Asker(gate, STILLWATCH_VLLM="llama-*, qwen-*"), "marked", dict(CHAT))
    assert told == {**CHAT, "extra_body": {"vllm_xargs": {"stillwatch_key": ID}}}
    own = {**CHAT, "extra_body": {"vllm_xargs": {"top_z": 3}, "a": 1}}
    told = called(Asker(gate, STILLWATCH_VLLM="*"), "marked", own)
    assert told["extra_body"] == {"vllm_xargs": {"top_z": 3, "stillwatch_key": ID}, "a": 1}
    assert "extra_body" not in called(Asker(gate, STILLWATCH_VLLM="gpt-*"), "marked", dict(CHAT))
    assert "extra_body" not in called(Asker(gate), "marked", dict(CHAT))
    assert "extra_body" not in called(Asker(gate, STILLWATCH_VLLM="*"), "keyless", dict(CHAT))


# From the ledger to the table


RULE = '[[rules]]\nname = "mark"\nrung = "protect"\nlasts = "30d"\nsettings = { %s }\n'


def test_a_policy_says_whether_and_never_which() -> None:
    (rule,) = parse(RULE % "watermark = true").rules
    assert rule.settings["watermark"] is True
    for wrong in ('watermark = "yes"', 'watermark_key = "3f9c"'):
        with pytest.raises(UsageError, match="watermark"):
            parse(RULE % wrong)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with opened(Home(tmp_path / "home"), Settings(), judge=False) as services:
        yield services


def issued(home: Home, campaign: str) -> Key:
    with Book(home.watermarks, SIGNER) as book:
        return book.issue(campaign, Scheme(), VETTING, MASTER, "ann")


def act(services: Services, account: str, campaign: str, **settings: Any) -> None:
    now = datetime.now(UTC) - timedelta(minutes=1)
    action = Action(
        action_id=f"A-{account}", key=account, account_id=account, campaign_id=campaign, rung=Rung.PROTECT, rule="r",
        reason="test", standing=Standing.DUE, proposed_at=now, starts_at=now, expires_at=now + timedelta(days=1),
        settings=settings,
    )  # fmt: skip
    services.clerk.do_now(lambda desk: desk.actions.propose([action]))


def keys_told(services: Services) -> dict[str, str | None]:
    return {who: h.settings.get("watermark_key") for who, h in services.decisions.table.accounts.items()}


def test_the_table_has_the_key_of_each_campaign_as_the_ledger_says(services: Services) -> None:
    loop = Loop(services)
    act(services, "a", "C-1", watermark=True)
    act(services, "b", "C-2", watermark=True)
    act(services, "c", "C-1")
    asyncio.run(loop.round())
    assert keys_told(services) == {"a": None, "b": None, "c": None}
    assert "C-1, C-2" in services.alarms["watermark_missing"]

    key = issued(services.home, "C-1")
    asyncio.run(loop.round())
    assert keys_told(services) == {"a": key.key_id, "b": None, "c": None}
    assert services.alarms["watermark_missing"].endswith("C-2")
    known = snapshot.load(services.home.in_force, derived(services.privacy, "in force"))
    assert not known.faults and known.table.accounts["a"].settings["watermark_key"] == key.key_id

    other = issued(services.home, "C-2")
    asyncio.run(loop.round())
    assert keys_told(services) == {"a": key.key_id, "b": other.key_id, "c": None}
    assert "watermark_missing" not in services.alarms
    with Book(services.home.watermarks, SIGNER) as book:
        book.retire(key.key_id, "ann", "over")
    asyncio.run(loop.round())
    assert keys_told(services) == {"a": None, "b": other.key_id, "c": None}


def test_a_rotation_is_followed_when_its_time_comes(services: Services) -> None:
    act(services, "a", "C-1", watermark=True)
    first = issued(services.home, "C-1")
    with Book(services.home.watermarks, SIGNER) as book:
        second = book.rotate("C-1", VETTING, MASTER, "ann", after=timedelta(hours=1))
    loop, now = Loop(services), datetime.now(UTC)

    def told(desk: Any) -> list[Any]:
        desk.actions.start_due(now)
        moments = (now, now + timedelta(minutes=50), now + timedelta(minutes=70), now + timedelta(hours=3))
        return [loop._table(desk, at).accounts["a"].settings["watermark_key"] for at in moments]

    assert services.clerk.do_now(told) == [first.key_id, first.key_id, second.key_id, second.key_id]


def test_a_ledger_that_was_tampered_with_is_told_and_the_last_goes_on(services: Services) -> None:
    loop = Loop(services)
    act(services, "a", "C-1", watermark=True)
    key = issued(services.home, "C-1")
    asyncio.run(loop.round())
    log = services.home.watermarks / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole.replace('"C-1"', '"C-9"'))
    asyncio.run(loop.round())
    assert keys_told(services) == {"a": key.key_id}
    assert "hash does not fit" in services.alarms["watermark_unreadable"]
    log.write_text(whole)
    asyncio.run(loop.round())
    assert "watermark_unreadable" not in services.alarms and keys_told(services) == {"a": key.key_id}


def test_doctor_and_backup_know_the_ledger(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with opened(home, Settings(), judge=False) as services:
        act(services, "a", "C-1", watermark=True)
        act(services, "b", "C-2", watermark=True)
        issued(home, "C-1")
        asyncio.run(Loop(services).round())

    def seen(home: Home) -> tuple[str, str]:
        return next((c.level, c.said) for c in examine(home) if c.name == "watermarks")

    assert seen(home) == ("warn", "answers are unmarked, no key for C-2")
    backup(home, tmp_path / "b.tar.gz")
    restore(tmp_path / "b.tar.gz", Home(tmp_path / "again"))
    assert (tmp_path / "again" / "watermarks" / "log.jsonl").read_bytes() == (
        home.watermarks / "log.jsonl"
    ).read_bytes()
    issued(home, "C-2")
    log = home.watermarks / "log.jsonl"
    log.write_text(log.read_text().replace('"C-1"', '"C-9"'))
    assert seen(home)[0] == "fail"
