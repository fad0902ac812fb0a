"""Which API a request speaks, and that a refusal is one that its client's library understands."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.responders import BEARER, DIALECTS, Buckets, Usage, answer_request
from stillwatch.serving.dialects import case_headers, dialect_of, is_request, line, told
from stillwatch.types import InForce, Rung

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
APPEAL = "https://api.example/appeals/act-7"
SETTINGS: dict[str, Any] = {"models": ["small-*"], "requests_per_minute": 6, "burst": 1}


def held(rung: Rung, **settings: Any) -> InForce:
    return InForce("acme", rung, "act-7", "camp-1", NOW + timedelta(hours=1), {**SETTINGS, **settings})


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        ("/v1/messages", {}, "anthropic"),
        ("/v1/messages?beta=true", {}, "anthropic"),
        ("/anthropic/v1/messages/batches", {}, "anthropic"),
        ("/v1/messages/count_tokens", {}, "anthropic"),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, "anthropic"),
        ("/v1/models", {}, "openai_chat"),
        ("/v1/chat/completions", {}, "openai_chat"),
        ("/openai/deployments/x/chat/completions/", {}, "openai_chat"),
        ("/v1/completions", {}, "openai_chat"),
        ("/v1/responses", {}, "openai_responses"),
        ("/v1/responses/resp_1/cancel", {}, "openai_responses"),
        ("/v1/chat/completions", {"x-stillwatch-dialect": "anthropic"}, "openai_chat"),
        ("/v1/chat/completions", {"anthropic-version": "2023-06-01"}, "openai_chat"),
    ],
)
def test_the_dialect_is_told_by_path_then_headers(path: str, headers: dict[str, str], dialect: str) -> None:
    assert dialect_of(path, headers) == dialect


def test_the_usual_dialect_stands_for_paths_that_are_several() -> None:
    assert dialect_of("/v1/chat/completions", {}, "vllm") == "vllm"
    assert dialect_of("/v1/models", {}, "vllm") == "vllm"
    assert dialect_of("/v1/messages", {}, "vllm") == "anthropic"
    assert dialect_of("/v1/chat/completions", {}, "anthropic") == "openai_chat"


def test_only_what_is_posted_to_a_model_is_a_request() -> None:
    assert is_request("/v1/messages?beta=true") and is_request("/v1/chat/completions/")
    assert not any(
        map(is_request, ("/v1/messages/batches", "/v1/files", "/v1/responses/resp_1", "/v1/embeddings", "/"))
    )


def refused(rung: Rung, dialect: str, credential: str = "api_key", **settings: Any) -> Any:
    bucket = Buckets()
    bucket.take("acme", 6, 1)
    usage = Usage(bucket, "large-1", credential)
    answer = answer_request(held(rung, **settings), dialect, NOW, usage)
    assert answer is not None
    return told(answer, held(rung, **settings), dialect, APPEAL, "req-9")


REFUSING = [Rung.THROTTLE, Rung.VERIFY, Rung.RESTRICT, Rung.SUSPEND]


@pytest.mark.parametrize("rung", REFUSING)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_refusal_has_the_shape_of_its_dialect_and_names_case_and_appeal(rung: Rung, dialect: str) -> None:
    answer = refused(rung, dialect)
    body = json.loads(answer.body)
    assert answer.status == (429 if rung is Rung.THROTTLE else 403)
    if dialect == "anthropic":
        assert body["type"] == "error" and body["request_id"] == "req-9"
        assert body["error"]["type"] == ("rate_limit_error" if rung is Rung.THROTTLE else "permission_error")
    else:
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "code", "param"}
    message = body["error"]["message"]
    assert message == answer.message
    assert message.count("act-7") <= 2 and "act-7" in message
    assert message.count(APPEAL) == 1
    assert answer.headers["x-stillwatch-rung"] == rung
    assert answer.headers["x-stillwatch-case"] == "act-7"
    assert answer.headers["link"] == f'<{APPEAL}>; rel="help"'
    assert answer.headers["content-type"] == "application/json"


def test_a_throttled_client_is_told_when_to_come_back_and_by_which_policy() -> None:
    headers = refused(Rung.THROTTLE, "openai_chat").headers
    assert headers["retry-after"] == "10"
    assert headers["ratelimit"].split(";")[1:] == ["r=0", "t=10"]
    assert headers["ratelimit-policy"].split(";")[1:] == ["q=1", "w=10"]


def test_who_can_fetch_a_token_is_challenged_by_rfc_9470() -> None:
    answer = refused(Rung.VERIFY, "openai_chat", BEARER, acr_values="mfa hwk", max_age=600)
    assert answer.status == 401
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="insufficient_user_authentication"')
    assert 'acr_values="mfa hwk"' in challenge and 'max_age="600"' in challenge


def test_without_a_url_nothing_is_linked_and_without_an_id_none_is_given() -> None:
    usage = Usage(Buckets())
    answer = answer_request(held(Rung.SUSPEND), "anthropic", NOW, usage)
    assert answer is not None
    said = told(answer, held(Rung.SUSPEND), "anthropic")
    assert "link" not in said.headers
    assert "request_id" not in json.loads(said.body)
    assert "http" not in said.message and "act-7" in said.message


def test_who_passes_has_headers_that_say_so() -> None:
    assert case_headers(None) == {"x-stillwatch-rung": "none", "x-stillwatch-case": ""}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_nothing_can_break_out_of_a_header(text: str) -> None:
    hostile = InForce(
        text, Rung.SUSPEND, text, text, NOW + timedelta(hours=1), {"appeal_url": text, "verification_url": text}
    )
    answer = answer_request(hostile, "openai_chat", NOW, Usage(Buckets()))
    assert answer is not None
    said = told(answer, hostile, "openai_chat", text)
    assert all(" " <= c <= "~" for value in said.headers.values() for c in value)
    assert said.body.isascii() and b"\n" not in said.body
    assert line(line(text)) == line(text)
