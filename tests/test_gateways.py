"""Each gateway asks in its own words and is answered in them; who is unknown passes, and nothing ours fails refuses anybody."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch import responders
from stillwatch.errors import UsageError
from stillwatch.responders import DIALECTS, change_request
from stillwatch.serving.decisions import UNKEYED, Decisions, Table
from stillwatch.serving.gateways import App, Caller, Gate, Receive, Scope, Send, Wiring, asgi, in_force, litellm_hook
from stillwatch.serving.gateways.edits import LITELLM, REWRITE, edits
from stillwatch.serving.gateways.ext_authz import ext_authz
from stillwatch.serving.gateways.guardrail import PATH, GuardrailWiring, guardrail
from stillwatch.types import InForce, Rung

APPEALS = "https://api.example/appeals/{case}"
SECRET = "sk-of-the-bad-key"
KEY = hashlib.sha256(SECRET.encode()).hexdigest()


def held(rung: Rung, who: str = "acme", **settings: Any) -> InForce:
    return InForce(who, rung, f"case-{who}", "camp-1", datetime.now(UTC) + timedelta(hours=1), settings)


TABLE = Table(
    {
        "watched": held(Rung.OBSERVE, "watched"),
        "shielded": held(Rung.PROTECT, "shielded"),
        "slowed": held(Rung.THROTTLE, "slowed", requests_per_minute=6, burst=2),
        "asked": held(Rung.VERIFY, "asked", verification_url="https://api.example/verify"),
        "limited": held(Rung.RESTRICT, "limited", models=["small-*"]),
        "gone": held(Rung.SUSPEND, "gone"),
    },
    {UNKEYED.key(KEY): held(Rung.SUSPEND, "by-key")},
    {UNKEYED.end_user(who, "eve"): held(Rung.SUSPEND, "by-end-user") for who in ("watched", "calm")},
)


@pytest.fixture
def gate() -> Gate:
    return Gate(Decisions(TABLE), Wiring(appeals=APPEALS))


def call(app: App, method: str = "GET", url: str = "/", **given: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://stillwatch") as client:
            return await client.request(method, url, **given)

    return asyncio.run(asked())


def account(name: str, **more: str) -> dict[str, str]:
    return {"x-stillwatch-account": name, **{k.replace("_", "-"): v for k, v in more.items()}}


# ext_authz: what Envoy's HTTP protocol promises and asks for


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_envoy_any_method_and_path_of_an_unknown_account_is_allowed(gate: Gate, method: str) -> None:
    answer = call(ext_authz(gate), method, "/ext_authz/v1/anything?x=1", headers=account("nobody"))
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["x-stillwatch-rung"] == "none"
    assert answer.headers["x-stillwatch-rewrite"] == "" == answer.headers["x-stillwatch-case"]


def test_envoy_a_header_of_the_clients_own_is_always_replaced(gate: Gate) -> None:
    forged = account("nobody") | {"x-stillwatch-rung": "observe", REWRITE: "[]", "x-stillwatch-case": "mine"}
    answer = call(ext_authz(gate), "POST", "/ext_authz/v1/messages", headers=forged)
    assert [answer.headers[h] for h in ("x-stillwatch-rung", REWRITE, "x-stillwatch-case")] == ["none", "", ""]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/messages", {"type", "error", "request_id"}),
        ("/v1/chat/completions", {"error"}),
        ("/v1/responses", {"error"}),
    ],
)
def test_envoy_a_suspended_account_is_denied_in_its_own_dialect(gate: Gate, path: str, shape: set[str]) -> None:
    headers = account("gone", x_request_id="r1")
    answer = call(ext_authz(gate, "/authz"), "POST", f"/authz{path}", headers=headers)
    assert answer.status_code == 403
    assert set(answer.json()) == shape
    assert "case-gone" in answer.text and "https://api.example/appeals/case-gone" in answer.text
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert gate.decisions.counts.refused[Rung.SUSPEND] == 1


def test_envoy_a_client_cannot_choose_the_dialect_its_request_is_rewritten_in(gate: Gate) -> None:
    forged = account("shielded", x_original_uri="/v1/messages", anthropic_version="2023-06-01")
    answer = call(ext_authz(gate), "POST", "/ext_authz/v1/chat/completions", headers=forged)
    assert json.loads(answer.headers[REWRITE]) == edits(TABLE.accounts["shielded"], "openai_chat")


def test_envoy_no_body_is_waited_for(gate: Gate) -> None:
    async def never() -> Any:
        raise AssertionError("the body was asked for")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    names = [(b"x-stillwatch-account", b"gone"), (b"content-length", b"99")]
    scope = {"type": "http", "method": "POST", "path": "/ext_authz/v1/messages", "headers": names, "query_string": b""}
    asyncio.run(ext_authz(gate)(scope, never, send))
    assert sent[0]["status"] == 403


def test_envoy_a_throttled_account_passes_its_burst_then_gets_429(gate: Gate) -> None:
    app = ext_authz(gate)
    answers = [call(app, "POST", "/ext_authz/v1/messages", headers=account("slowed")) for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert answers[0].headers["x-stillwatch-rung"] == "throttle"
    assert answers[2].headers["retry-after"] == "10"
    assert "ratelimit-policy" in answers[2].headers


def test_envoy_the_key_and_the_end_user_count_as_the_account_does(gate: Gate) -> None:
    app = ext_authz(gate)
    for headers in (
        {"authorization": f"Bearer {SECRET}"},
        {"authorization": f"bearer  {SECRET}"},
        {"x-api-key": SECRET},
        {"x-stillwatch-key": KEY},
        {"x-stillwatch-end-user": "eve"},
    ):
        assert call(app, "POST", "/ext_authz/v1/messages", headers=account("watched") | headers).status_code == 403, (
            headers
        )
    assert call(app, headers={"authorization": "Bearer another"}).status_code == 200


def test_envoy_what_to_rewrite_goes_upstream_as_one_line(gate: Gate) -> None:
    answer = call(ext_authz(gate), "POST", "/ext_authz/v1/chat/completions", headers=account("shielded"))
    assert answer.status_code == 200
    assert json.loads(answer.headers[REWRITE]) == edits(TABLE.accounts["shielded"], "openai_chat")
    assert "\n" not in answer.headers[REWRITE]


def stepped_up(name: str, **more: str) -> dict[str, str]:
    """The headers of a client whose fresh, strong token the gateway has checked."""
    return account(name, x_stillwatch_acr="mfa", x_stillwatch_auth_time=str(int(datetime.now(UTC).timestamp())), **more)


def test_envoy_models_are_restricted_where_the_gateway_names_them() -> None:
    app = ext_authz(Gate(Decisions(TABLE), Wiring(credential="bearer")))
    statuses = {
        model: call(app, "POST", "/ext_authz/v1/messages", headers=stepped_up("limited", x_stillwatch_model=model))
        for model in ("large-9", "small-9", "")
    }
    assert [a.status_code for a in statuses.values()] == [403, 200, 200]
    assert "case-limited" in statuses["large-9"].json()["error"]["message"]


def test_a_token_that_has_stepped_up_passes_verification() -> None:
    table = Table({"asked": held(Rung.VERIFY, "asked", acr_values="mfa", requests_per_minute=100)})
    app = ext_authz(Gate(Decisions(table), Wiring(credential="bearer", appeals=APPEALS)))
    answer = call(app, "POST", "/ext_authz/v1/messages", headers=account("asked"))
    assert answer.status_code == 401
    assert 'error="insufficient_user_authentication"' in answer.headers["www-authenticate"]
    assert call(app, "POST", "/ext_authz/v1/messages", headers=stepped_up("asked")).status_code == 200
    nonsense = account("asked", x_stillwatch_acr="mfa", x_stillwatch_auth_time="9" * 30)
    assert call(app, "POST", "/ext_authz/v1/messages", headers=nonsense).status_code == 401


def test_a_fault_of_a_responder_lets_pass_and_is_counted(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a plug-in that fails")

    monkeypatch.setattr("stillwatch.serving.gateways.answer_request", broken)
    assert call(ext_authz(gate), headers=account("gone")).status_code == 200
    assert gate.decisions.counts.faults == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"dialect": "klingon"}, "klingon"), ({"credential": "badge"}, "badge"), ({"body_bytes": -1}, "body_bytes")],
)
def test_a_wiring_that_cannot_be_is_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Wiring(**wrong)


# nginx knows 2xx, 401 and 403


@pytest.mark.parametrize(
    ("name", "status", "meant"), [("gone", 403, "403"), ("asked", 403, "403"), ("slowed", 403, "429")]
)
def test_nginx_is_told_only_what_it_knows_and_the_rest_in_headers(
    gate: Gate, name: str, status: int, meant: str
) -> None:
    app = ext_authz(gate, "/nginx_auth", nginx=True)
    headers = account(name, x_original_uri="/v1/messages?beta=true")
    answers = [call(app, "GET", "/nginx_auth", headers=headers) for _ in range(3)]
    assert answers[-1].status_code == status
    assert answers[-1].headers["x-stillwatch-status"] == meant
    assert json.loads(answers[-1].headers["x-stillwatch-body"])["type"] == "error"
    assert answers[-1].content == b""


# LiteLLM's generic guardrail


def question(name: str = "nobody", **more: Any) -> dict[str, Any]:
    """As LiteLLM 1.109 sends it."""
    return {
        "input_type": "request",
        "litellm_call_id": "call-1",
        "litellm_trace_id": "trace-1",
        "structured_messages": [{"role": "user", "content": "hello"}],
        "images": None,
        "tools": None,
        "texts": ["hello"],
        "request_data": {"user_api_key_hash": "ab" * 32, "user_api_key_user_id": name, "user_api_key_team_id": "gone"},
        "request_headers": {"user-agent": "[present]"},
        "litellm_version": "1.109.1",
        "additional_provider_specific_params": {},
        "tool_calls": None,
        "model": "large-1",
        **more,
    }


def guarded(gate: Gate, asked: Any, **wiring: Any) -> httpx.Response:
    return call(guardrail(gate, GuardrailWiring(**wiring)), "POST", PATH, json=asked)


def test_litellm_passes_unknown_accounts_and_blocks_suspended_ones(gate: Gate) -> None:
    assert guarded(gate, question()).json() == {"action": "NONE"}
    blocked = guarded(gate, question("gone")).json()
    assert blocked["action"] == "BLOCKED"
    assert "case-gone" in blocked["blocked_reason"] and "appeals/case-gone" in blocked["blocked_reason"]


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"user_api_key_user_id": None, "user_api_key_team_id": "gone"}, "BLOCKED"),
        ({"user_api_key_hash": KEY}, "BLOCKED"),
        ({"user_api_key_user_id": "calm", "user_api_key_end_user_id": "eve"}, "BLOCKED"),
        ({"user_api_key_user_id": "other", "user_api_key_end_user_id": "eve"}, "NONE"),
        ({"user_api_key_user_id": 7, "user_api_key_hash": ["x"]}, "NONE"),
        ({"user_api_key_alias": "gone"}, "NONE"),
        ({}, "NONE"),
    ],
)
def test_litellm_account_key_and_end_user_are_where_litellm_puts_them(gate: Gate, fields: Any, action: str) -> None:
    assert guarded(gate, question(request_data=fields)).json()["action"] == action


def test_litellm_the_fields_of_the_account_can_be_chosen(gate: Gate) -> None:
    asked = question(request_data={"user_api_key_alias": "gone"})
    assert guarded(gate, asked, account_fields=("user_api_key_alias",)).json()["action"] == "BLOCKED"
    with pytest.raises(UsageError, match="user_api_key_nickname"):
        GuardrailWiring(("user_api_key_nickname",))


def test_litellm_is_throttled_and_a_response_takes_nothing(gate: Gate) -> None:
    for _ in range(5):
        assert guarded(gate, question("slowed", input_type="response")).json() == {"action": "NONE"}
    actions = [guarded(gate, question("slowed")).json()["action"] for _ in range(3)]
    assert actions == ["NONE", "NONE", "BLOCKED"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b"[" * 10_000, b'{"request_data": {}, "input_type": "both"}']
)
def test_litellm_what_is_no_question_is_a_400_and_never_a_verdict(gate: Gate, body: bytes) -> None:
    answer = call(guardrail(gate), "POST", PATH, content=body)
    assert (answer.status_code, set(answer.json())) == (400, {"error", "hint", "request_id"})
    assert call(guardrail(gate), "GET", PATH).status_code == 405


# Edits, and the endpoint that serves them

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "n": st.sampled_from([None, 1, 2, 8]),
    "logprobs": st.sampled_from([None, True, 5]),
    "top_logprobs": st.sampled_from([None, 20]),
    "prompt_logprobs": st.just(1),
    "best_of": st.just(4),
    "include_reasoning": st.sampled_from([None, True, False]),
    "store": st.sampled_from([None, True, False]),
    "include": st.one_of(
        st.none(),
        st.lists(
            st.sampled_from(["reasoning.encrypted_content", "message.output_text.logprobs", "file_search_call.results"])
        ),
    ),
    "reasoning": st.one_of(
        st.none(), st.dictionaries(st.sampled_from(["summary", "generate_summary", "effort"]), st.just("auto"))
    ),
    "thinking": st.one_of(
        st.none(),
        st.just("on"),
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["enabled", "adaptive", "disabled"]),
                "display": st.sampled_from(["summarized", "omitted"]),
                "budget_tokens": st.sampled_from([1024, 5000, 50_000]),
            },
        ),
    ),
    "max_tokens": st.sampled_from([None, 100, 4096, 100_000, "many"]),
    "max_completion_tokens": st.sampled_from([None, 100, 100_000]),
    "max_output_tokens": st.sampled_from([None, 100, 100_000]),
    "messages": st.just([{"role": "user", "content": "hello"}]),
    "vllm_xargs": st.sampled_from([None, {}, {"top_z": 1}, {"stillwatch_key": "mine"}, "odd"]),
}
REQUESTS = st.fixed_dictionaries({"model": st.just("m")}, optional=FIELDS)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "reasoning": st.sampled_from(["omitted", "summarized"]),
        "max_tokens": st.sampled_from([2048, 8192]),
        "watermark": st.booleans(),
        "watermark_key": st.just("3f9c01ab77de4410"),
    },
)


@settings(max_examples=300, deadline=None)
@given(REQUESTS, RULES, st.sampled_from(DIALECTS), st.sampled_from(list(Rung)))
def test_edits_do_what_the_responders_do(
    request: dict[str, Any], rules: dict[str, Any], dialect: str, rung: Rung
) -> None:
    before = json.dumps(request)
    by_edits = litellm_hook.apply(json.loads(json.dumps(edits(held(rung, **rules), dialect))), request)
    assert by_edits == change_request(held(rung, **rules), request, dialect).request
    assert json.dumps(request) == before, "what was given was changed"


def test_litellms_own_dialect_hides_thinking_as_well() -> None:
    said = edits(held(Rung.PROTECT), LITELLM)
    changed = litellm_hook.apply(said, {"thinking": {"type": "enabled"}, "logprobs": True, "n": 3})
    assert changed == {"thinking": {"type": "enabled", "display": "omitted"}, "n": 1}


def test_an_edit_that_is_not_known_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    assert litellm_hook.apply([{"do": "encrypt", "at": ["x"]}, {"do": "drop", "at": ["n"]}], {"n": 1}) == {}
    assert "encrypt" in caplog.text


def asked(gate: Gate, **parameters: str) -> dict[str, Any]:
    answer = call(in_force.in_force(gate), "GET", "/v1/in-force", params=parameters)
    assert answer.status_code == 200
    return answer.json()


def test_in_force_says_nothing_of_the_unknown_and_all_of_the_known(gate: Gate) -> None:
    assert asked(gate, account="nobody") == dict(in_force.NOTHING)
    said = asked(gate, account="shielded", dialect="anthropic")
    assert (said["rung"], said["case"], said["campaign"], said["refusal"]) == (
        "protect",
        "case-shielded",
        "camp-1",
        None,
    )
    assert said["edits"] == edits(TABLE.accounts["shielded"], "anthropic")
    left = (TABLE.accounts["shielded"].expires_at - datetime.now(UTC)).total_seconds()
    assert left <= said["expires_in_s"] <= left + 60
    assert datetime.fromisoformat(said["expires_at"]) == TABLE.accounts["shielded"].expires_at
    assert asked(gate, secret=SECRET)["case"] == "case-by-key"
    assert asked(gate, account="calm", end_user="eve")["refusal"]["status"] == 403
    assert asked(gate, account="other", end_user="eve")["refusal"] is None


def test_in_force_takes_from_the_bucket_only_when_told_to(gate: Gate) -> None:
    looked = [asked(gate, account="slowed") for _ in range(5)]
    assert all(answer["refusal"] is None for answer in looked)
    taken = [asked(gate, account="slowed", take="1")["refusal"] for _ in range(3)]
    assert [r and r["status"] for r in taken] == [None, None, 429]
    assert looked[0]["requests_per_minute"] == 6
    assert looked[0]["at_the_limit"]["status"] == 429
    assert gate.decisions.counts.refused[Rung.THROTTLE] == 1


@pytest.mark.parametrize(("query", "named"), [("acount=x", "acount"), ("account=x&dialect=klingon", "klingon")])
def test_in_force_names_what_it_does_not_know(gate: Gate, query: str, named: str) -> None:
    answer = call(in_force.in_force(gate), "GET", f"/v1/in-force?{query}")
    assert answer.status_code == 400
    assert named in answer.json()["error"]
    assert call(in_force.in_force(gate), "POST", "/v1/in-force").status_code == 405


# The ASGI layer


class Upstream:
    """A model's server: keeps what reaches it, and streams its answer in three parts."""

    def __init__(self) -> None:
        self.body = b""
        self.headers: dict[str, str] = {}
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        self.headers = {n.decode(): v.decode() for n, v in scope["headers"]}
        self.body, more = b"", True
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for part in (b"one ", b"two ", b"three"):
            await send({"type": "http.response.body", "body": part, "more_body": part != b"three"})


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


CHAT = {"model": "small-1", "messages": [{"role": "user", "content": "grüße 你好"}], "logprobs": True, "n": 3}


def posted(app: App, name: str, body: Any = None, url: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(CHAT if body is None else body).encode()
    return call(app, "POST", url, content=content, headers=account(name, **headers))


def test_asgi_who_is_not_under_action_passes_byte_by_byte(gate: Gate, upstream: Upstream) -> None:
    raw = b'{"n": 3,   "n": 1, broken'
    for name in ("nobody", "watched"):
        assert posted(asgi.stillwatch(upstream, gate), name, raw).text == "one two three"
        assert upstream.body == raw


def test_asgi_rewrites_and_mends_the_length(gate: Gate, upstream: Upstream) -> None:
    assert posted(asgi.stillwatch(upstream, gate), "shielded").status_code == 200
    assert json.loads(upstream.body) == {"model": "small-1", "messages": CHAT["messages"], "n": 1}
    assert int(upstream.headers["content-length"]) == len(upstream.body)
    assert gate.decisions.counts.rewritten == 1


def test_asgi_a_chunked_body_is_put_together(gate: Gate, upstream: Upstream) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for byte in json.dumps(CHAT).encode():
            yield bytes([byte])

    call(asgi.stillwatch(upstream, gate), "POST", "/v1/chat/completions", content=parts(), headers=account("shielded"))
    assert json.loads(upstream.body)["n"] == 1
    assert "transfer-encoding" not in upstream.headers


def test_asgi_a_field_given_twice_means_one_thing_to_all(gate: Gate, upstream: Upstream) -> None:
    posted(asgi.stillwatch(upstream, gate), "shielded", b'{"model": "m", "n": 8, "n": 1}')
    assert upstream.body == b'{"model":"m","n":1}'
    assert gate.decisions.counts.rewritten == 0


def test_asgi_half_a_surrogate_pair_survives(gate: Gate, upstream: Upstream) -> None:
    posted(asgi.stillwatch(upstream, gate), "shielded", b'{"model": "m", "user": "\\ud800", "n": 2}')
    assert json.loads(upstream.body) == {"model": "m", "user": "\ud800", "n": 1}


@pytest.mark.parametrize("chunked", [True, False])
def test_asgi_a_body_over_the_cap_passes_whole_and_is_counted(upstream: Upstream, chunked: bool) -> None:
    gate = Gate(Decisions(TABLE), Wiring(body_bytes=100))
    raw = json.dumps({**CHAT, "pad": "x" * 500}).encode()

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(raw), 60):
            yield raw[at : at + 60]

    content = parts() if chunked else raw
    app = asgi.stillwatch(upstream, gate)
    assert call(app, "POST", "/v1/chat/completions", content=content, headers=account("shielded")).status_code == 200
    assert upstream.body == raw
    assert (gate.decisions.counts.too_large, gate.decisions.counts.rewritten) == (1, 0)
    assert call(app, "POST", "/v1/chat/completions", content=raw, headers=account("gone")).status_code == 403


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{broken", b"\xff\xfe", b"[" * 10_000])
def test_asgi_what_is_no_object_passes_as_it_is_and_is_counted(gate: Gate, upstream: Upstream, raw: bytes) -> None:
    posted(asgi.stillwatch(upstream, gate), "shielded", raw)
    assert upstream.body == raw
    assert gate.decisions.counts.unreadable == 1


def test_asgi_a_compressed_body_passes_and_is_counted(gate: Gate, upstream: Upstream) -> None:
    posted(asgi.stillwatch(upstream, gate), "shielded", b"\x1f\x8b", content_encoding="gzip")
    assert (upstream.body, gate.decisions.counts.unreadable) == (b"\x1f\x8b", 1)


def test_asgi_refuses_without_calling_what_is_behind(gate: Gate, upstream: Upstream) -> None:
    app = asgi.stillwatch(upstream, gate)
    assert posted(app, "gone").status_code == 403
    assert upstream.calls == 0
    assert call(app, "GET", "/v1/models", headers=account("gone")).status_code == 403


def test_asgi_each_request_of_a_batch_is_rewritten_and_each_model_looked_at(gate: Gate, upstream: Upstream) -> None:
    thinking = {"type": "enabled", "budget_tokens": 2048, "display": "summarized"}
    batch = {
        "requests": [
            {"custom_id": "a", "params": {"model": "small-1", "thinking": thinking}},
            "odd",
            {"custom_id": "b"},
        ]
    }
    app = asgi.stillwatch(upstream, gate)
    posted(app, "shielded", batch, "/v1/messages/batches")
    sent = json.loads(upstream.body)
    assert sent["requests"][0]["params"]["thinking"]["display"] == "omitted"
    assert sent["requests"][1:] == batch["requests"][1:]


def test_asgi_the_model_is_read_from_the_body_and_in_a_batch_every_one_is(upstream: Upstream) -> None:
    app = asgi.stillwatch(upstream, Gate(Decisions(TABLE), Wiring(credential="bearer")))

    def status(body: Any, url: str = "/v1/chat/completions") -> int:
        return call(app, "POST", url, json=body, headers=stepped_up("limited")).status_code

    assert [status({**CHAT, "model": model}) for model in ("small-1", "large-1")] == [200, 403]
    asked = [{"params": {"model": model}} for model in ("small-1", "large-1", "small-2")]
    assert status({"requests": asked}, "/v1/messages/batches") == 403
    assert status({"requests": [asked[0], asked[2]]}, "/v1/messages/batches") == 200
    assert upstream.calls == 2


def test_asgi_the_caller_can_be_named_by_the_gateways_own_code(gate: Gate, upstream: Upstream) -> None:
    app = asgi.stillwatch(upstream, gate, lambda scope: Caller("gone"))
    assert posted(app, "nobody").status_code == 403


def test_asgi_answers_stream_through_and_a_client_that_leaves_is_heard_of(gate: Gate) -> None:
    heard: list[str] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        assert sent[-1]["body"] == b"one", "the answer was held back"
        heard.append((await receive())["type"])

    waiting = [
        {"type": "http.request", "body": json.dumps(CHAT).encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    names = [(b"x-stillwatch-account", b"shielded")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": names}
    asyncio.run(asgi.stillwatch(behind, gate)(scope, receive, send))
    assert heard == ["http.disconnect"]
    assert not waiting


def test_asgi_a_client_that_leaves_within_its_body_is_passed_on(gate: Gate) -> None:
    seen: list[Any] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(message["body"])

    waiting = [{"type": "http.request", "body": b'{"n":', "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return waiting.pop(0)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/messages",
        "headers": [(b"x-stillwatch-account", b"shielded")],
    }
    asyncio.run(asgi.stillwatch(behind, gate)(scope, receive, receive))
    assert seen == [b'{"n":']


def opened(app: App, name: str, extensions: dict[str, Any]) -> list[Any]:
    """What is sent when a websocket is asked for."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    names = [(b"x-stillwatch-account", name.encode())]
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": names, "extensions": extensions}
    asyncio.run(app(scope, receive, send))
    return sent


def test_asgi_a_websocket_is_refused_before_it_is_open(gate: Gate) -> None:
    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    app = asgi.stillwatch(behind, gate)
    assert opened(app, "shielded", {}) == [{"type": "websocket.accept"}] == opened(app, "nobody", {})
    assert opened(app, "gone", {}) == [{"type": "websocket.close", "code": 1008}]
    start, body = opened(app, "gone", {"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    assert b"case-gone" in body["body"]


def test_asgi_where_code_names_the_caller_no_header_of_a_client_counts(upstream: Upstream) -> None:
    gate = Gate(Decisions(TABLE), Wiring(credential="bearer"))
    app = asgi.stillwatch(upstream, gate, lambda scope: Caller("asked"))
    assert call(app, "POST", "/v1/messages", json=CHAT, headers=stepped_up("nobody")).status_code == 401
    checked = asgi.stillwatch(
        upstream, gate, lambda scope: Caller("asked", acr="mfa", authenticated_at=datetime.now(UTC))
    )
    assert call(checked, "POST", "/v1/messages", json=CHAT).status_code == 200


def test_asgi_other_than_http_passes(gate: Gate) -> None:
    seen: list[str] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    for app in (asgi.stillwatch(behind, gate), asgi.rewriting(behind)):
        asyncio.run(app({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan", "lifespan"]


def test_rewriting_behind_envoy_does_the_edits_of_its_header_and_takes_it_away(gate: Gate, upstream: Upstream) -> None:
    allowed = call(ext_authz(gate), "POST", "/ext_authz/v1/chat/completions", headers=account("shielded"))
    app = asgi.rewriting(upstream, counts=gate.decisions.counts)
    posted(app, "shielded", x_stillwatch_rewrite=allowed.headers[REWRITE])
    assert json.loads(upstream.body) == {"model": "small-1", "messages": CHAT["messages"], "n": 1}
    assert REWRITE not in upstream.headers
    assert gate.decisions.counts.rewritten == 1


@pytest.mark.parametrize("said", ["", "no json", "7", '[{"do":"set"}]', '[{"do":"drop","at":[]}]', '["drop"]'])
def test_rewriting_a_header_that_holds_no_edits_changes_nothing(upstream: Upstream, said: str) -> None:
    raw = b'{"n":  3}'
    assert posted(asgi.rewriting(upstream), "x", raw, x_stillwatch_rewrite=said).status_code == 200
    assert upstream.body == raw


# The hook inside of a LiteLLM proxy


class Server:
    """The endpoint over real HTTP, for a client that is not ours to patch; ``app`` may be exchanged, or None to break off."""

    def __init__(self, gate: Gate) -> None:
        self.app: Callable[[dict[str, str]], Any] | None = lambda asked: in_force.answer(gate, asked)
        self.asked: list[dict[str, str]] = []
        self.authorization = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                assert url.path == "/base/v1/in-force"
                outer.asked.append(dict(parse_qsl(url.query)))
                outer.authorization = self.headers.get("authorization", "")
                if outer.app is None:
                    self.close_connection = True
                    return
                body = json.dumps(outer.app(outer.asked[-1])).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/base"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(gate: Gate) -> Iterator[Server]:
    server = Server(gate)
    yield server
    server.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def asker(server: Server) -> Iterator[litellm_hook.Asker]:
    told = {"STILLWATCH_URL": server.url, "STILLWATCH_TOKEN": "t0k3n", "STILLWATCH_TIMEOUT_MS": "2000"}
    asker = litellm_hook.Asker(told, Clock())
    yield asker
    asker.close()


def key(user: str = "", **more: str) -> Any:
    return types.SimpleNamespace(user_id=user, team_id="", token="cd" * 32, end_user_id=None, **more)


def before(asker: litellm_hook.Asker, user: str, call_type: str = "acompletion", **request: Any) -> dict[str, Any]:
    return asyncio.run(asker.before(key(user), {**CHAT, **request}, call_type))


def test_hook_unknown_passes_and_is_asked_about_once_in_a_while(asker: litellm_hook.Asker, server: Server) -> None:
    assert before(asker, "nobody") == CHAT
    assert before(asker, "nobody") == CHAT
    assert server.asked == [
        {"account": "nobody", "key": "cd" * 32, "model": "small-1", "dialect": "litellm", "take": "1"}
    ]
    assert server.authorization == "Bearer t0k3n"
    asker._clock.now += 6  # type: ignore[attr-defined]
    before(asker, "nobody")
    assert len(server.asked) == 2


def test_hook_does_the_edits_it_is_given(asker: litellm_hook.Asker) -> None:
    changed = before(asker, "shielded", thinking={"type": "enabled"})
    assert changed["n"] == 1 and "logprobs" not in changed
    assert changed["thinking"]["display"] == "omitted"
    assert asker.counts["rewritten"] == 1
    anthropic = before(asker, "shielded", "anthropic_messages", thinking={"type": "enabled"})
    assert anthropic["thinking"]["display"] == "omitted" and anthropic["n"] == 3


def test_hook_refuses_in_the_shape_litellm_reads(asker: litellm_hook.Asker) -> None:
    with pytest.raises(litellm_hook.Refused) as e:
        before(asker, "gone")
    refused = e.value
    assert (refused.status_code, refused.type, refused.param) == (403, "permission_error", None)
    assert refused.message == refused.detail and "case-gone" in refused.message
    assert refused.headers["x-stillwatch-case"] == "case-gone"
    assert refused.code


def test_hook_a_pace_is_asked_for_each_request(asker: litellm_hook.Asker, server: Server) -> None:
    for _ in range(2):
        before(asker, "slowed")
    with pytest.raises(litellm_hook.Refused) as e:
        before(asker, "slowed")
    assert (e.value.status_code, e.value.headers["retry-after"]) == (429, "10")
    assert len(server.asked) == 3


def test_hook_when_nobody_answers_unknown_pass_and_known_bad_keep_their_answer(
    asker: litellm_hook.Asker, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    clock: Any = asker._clock
    for user in ("gone", "shielded", "slowed"):
        try:
            before(asker, user)
        except litellm_hook.Refused:
            assert user == "gone"
    server.app = None
    clock.now += 60
    assert before(asker, "nobody") == CHAT
    with pytest.raises(litellm_hook.Refused, match="case-gone"):
        before(asker, "gone")
    assert before(asker, "shielded")["n"] == 1
    assert before(asker, "slowed")["n"] == 1
    with pytest.raises(litellm_hook.Refused) as e:
        before(asker, "slowed")
    assert e.value.status_code == 429
    clock.now += 10.1
    before(asker, "slowed")
    assert asker.counts["failed"] >= 1
    assert "did not answer" in caplog.text
    clock.now += 3600
    assert before(asker, "gone") == CHAT, "an action outlived its end"


def test_hook_is_not_kept_waiting(server: Server) -> None:
    def slow(asked: dict[str, str]) -> Any:
        import time

        time.sleep(0.4)
        return {}

    server.app = slow
    asker = litellm_hook.Asker({"STILLWATCH_URL": server.url, "STILLWATCH_TIMEOUT_MS": "50"})

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await asker.before(key("nobody"), dict(CHAT), "acompletion") == CHAT
        return loop.time() - began

    assert asyncio.run(timed()) < 0.35
    assert asker.counts["failed"] == 1
    asker.close()


@pytest.mark.parametrize(
    "answer",
    [
        [],
        "x",
        None,
        {"edits": None},
        {"rung": None},
        {"edits": 7, "expires_in_s": 9},
        {"edits": [{"do": "set"}], "expires_in_s": 9},
        {"edits": ["drop"], "expires_in_s": 9},
        {"refusal": {"status": 403}},
        {"refusal": "no"},
        {"refusal": {"status": "many", "error": {"message": "m"}}},
        {"expires_in_s": "soon"},
    ],
)
def test_hook_an_answer_of_another_shape_lets_pass(server: Server, asker: litellm_hook.Asker, answer: Any) -> None:
    server.app = lambda asked: answer
    assert before(asker, "nobody") == CHAT


def test_hook_what_is_kept_is_bounded(asker: litellm_hook.Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_hook, "MOST_KEPT", 3)
    for i in range(6):
        before(asker, f"user-{i}")
    assert len(asker._kept) == len(asker._passed) == 3


def test_hook_is_a_custom_logger_whose_own_class_has_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    class CustomLogger:
        def __init__(self) -> None:
            self.made = True

        async def async_pre_call_hook(self, *_: Any) -> None:
            raise AssertionError("LiteLLM's own was called")

    names = ("litellm", "litellm.integrations", "litellm.integrations.custom_logger")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules[names[2]], "CustomLogger", CustomLogger, raising=False)
    hook = litellm_hook.stillwatch
    try:
        assert isinstance(hook, CustomLogger) and hook.made
        assert "async_pre_call_hook" in vars(type(hook)), "LiteLLM skips inherited hooks"
        assert litellm_hook.stillwatch is hook
    finally:
        del litellm_hook.__dict__["stillwatch"]
    with pytest.raises(AttributeError):
        litellm_hook.no_such_thing  # noqa: B018


def test_hook_runs_alone_in_an_empty_folder_on_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "litellm_hook.py").write_bytes(Path(litellm_hook.__file__).read_bytes())
    code = (
        "import sys; sys.path.insert(0, '.'); import litellm_hook as h\n"
        "assert h.apply([{'do': 'drop', 'at': ['n']}], {'n': 2}) == {}\n"
        "known = set(sys.stdlib_module_names) | {'litellm_hook'}\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules} - known - {'__main__'}))\n"
        "assert not any(m.startswith('litellm.') for m in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""


def test_every_rung_has_its_answer_here(gate: Gate) -> None:
    """A rung that is added must be thought of here: who passes, who is refused."""
    statuses = {name: call(ext_authz(gate), headers=account(name)).status_code for name in TABLE.accounts}
    assert len(responders.ladder()) == len(statuses) == 6
    assert statuses == {"watched": 200, "shielded": 200, "slowed": 200, "asked": 403, "limited": 200, "gone": 403}
