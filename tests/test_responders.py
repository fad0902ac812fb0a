"""Every responder keeps its contract; what each rung does to a request, and that nothing is left of it afterwards."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.errors import UsageError
from stillwatch.plugins import discover
from stillwatch.responders import (
    API_KEY,
    BEARER,
    DIALECTS,
    Answer,
    Buckets,
    Changed,
    Responder,
    Usage,
    answer_request,
    change_request,
    ladder,
    refusal,
)
from stillwatch.testing import ASKED, check_responder
from stillwatch.types import InForce, Part, Rung

RESPONDERS: dict[str, Responder] = discover("responders")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def held(rung: Rung, **settings: Any) -> InForce:
    return InForce("acct", rung, "A-17", "C-1", NOW + timedelta(days=1), settings)


def usage(model: str = "m", credential: str = API_KEY, **more: Any) -> Usage:
    return Usage(Buckets(), model, credential, **more)


def protected(request: Mapping[str, Any], dialect: str, **settings: Any) -> Mapping[str, Any]:
    return change_request(held(Rung.PROTECT, **settings), request, dialect).request


def message_of(answer: Answer | None) -> str:
    assert answer is not None
    return str(answer.body["error"]["message"])


# The contract


@pytest.mark.parametrize("name", RESPONDERS)
def test_responder_keeps_the_contract(name: str) -> None:
    check_responder(RESPONDERS[name])


def test_every_rung_has_its_responder_and_the_ladder_is_in_order() -> None:
    assert [r.rung for r in ladder()] == list(Rung)


def writes_to_it(request: Any, dialect: str, settings: Any) -> Changed:
    request["n"] = 1
    return Changed(request)


def rewords(request: Any, dialect: str, settings: Any) -> Changed:
    return Changed({**request, "messages": []}, ("messages emptied",)) if request.get("messages") else Changed(request)


def grows(request: Any, dialect: str, settings: Any) -> Changed:
    return Changed({**request, "max_tokens": request.get("max_tokens", 0) + 1}, ("max_tokens raised",))


def in_silence(request: Any, dialect: str, settings: Any) -> Changed:
    return Changed({**request, "user": "x"})


def breaks_headers(in_force: Any, dialect: str, now: Any, usage: Any) -> Answer:
    return refusal(403, "permission", "no", dialect, {"x-case": "A\r\nset-cookie: x"})


def says_five_hundred(in_force: Any, dialect: str, now: Any, usage: Any) -> Answer:
    return refusal(500, "permission", "no", dialect)


def one_dialect_for_all(in_force: Any, dialect: str, now: Any, usage: Any) -> Answer:
    return refusal(403, "permission", "no", "anthropic")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"change": writes_to_it}, "own request was written to"),
        ({"change": rewords}, "messages was touched"),
        ({"change": grows}, "changing twice"),
        ({"change": in_silence}, "notes do not say"),
        ({"answer": breaks_headers}, "header"),
        ({"answer": says_five_hundred}, "refuses with 500"),
        ({"answer": one_dialect_for_all}, "not in its dialect"),
        ({"told": " "}, "does not say what it does"),
    ],
)
def test_the_contract_can_be_broken(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_responder(dataclasses.replace(RESPONDERS["observe"], **wrong))


def test_a_responder_of_no_rung_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a rung"):
        Responder("ban", "m", "t")


# Undoing


@pytest.mark.parametrize("rung", Rung)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_is_left_of_a_rung_once_it_is_undone(rung: Rung, dialect: str) -> None:
    settings = {"models": ["cheap"], "requests_per_minute": 0.01, "max_tokens": 2048}
    for request in ASKED[dialect]:
        before, asked = copy.deepcopy(request), usage()
        change_request(held(rung, **settings), request, dialect)
        for _ in range(3):
            answer_request(held(rung, **settings), dialect, NOW, asked)
        after = change_request(None, request, dialect)
        assert after.request is request
        assert request == before
        assert after.notes == ()
        assert answer_request(None, dialect, NOW, asked) is None


def test_what_has_run_out_refuses_nothing() -> None:
    suspended = held(Rung.SUSPEND)
    assert answer_request(suspended, "anthropic", suspended.expires_at, usage()) is None
    assert answer_request(suspended, "anthropic", suspended.expires_at - MINUTE, usage()) is not None


def test_an_unknown_dialect_is_an_error_and_not_guessed() -> None:
    with pytest.raises(UsageError, match="no such dialect"):
        change_request(None, {}, "gopher")
    with pytest.raises(UsageError, match="dialects are anthropic"):
        answer_request(None, "gopher", NOW, usage())


# Protect: the table of request fields


@pytest.mark.parametrize("display", ["omitted", "summarized"])
def test_protect_hides_thinking(display: str) -> None:
    asked = {"thinking": {"type": "adaptive"}, "messages": [], "max_tokens": 9}
    assert protected(asked, "anthropic", reasoning=display)["thinking"] == {"type": "adaptive", "display": display}
    hidden = {"thinking": {"type": "adaptive", "display": "omitted"}}
    assert protected(hidden, "anthropic", reasoning=display) is hidden, "what is left out stays out"


@pytest.mark.parametrize("thinking", [None, {"type": "disabled"}, {}, "?"])
def test_protect_adds_no_thinking(thinking: Any) -> None:
    asked = {"max_tokens": 9} | ({} if thinking is None else {"thinking": thinking})
    assert protected(asked, "anthropic") is asked


def test_protect_drops_probabilities_and_asks_for_one_answer() -> None:
    assert protected({"logprobs": True, "top_logprobs": 3, "n": 5}, "openai_chat") == {"n": 1}
    assert protected({"logprobs": 1, "prompt_logprobs": 1, "best_of": 3, "n": 3}, "vllm") == {
        "n": 1, "include_reasoning": False,
    }  # fmt: skip
    assert protected({"top_logprobs": 3, "model": "m"}, "openai_responses") == {"model": "m"}


def test_protect_drops_what_shows_reasoning_in_responses() -> None:
    asked = {
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content", "file_search_call.results"],
        "reasoning": {"effort": "high", "summary": "auto"},
    }
    found = protected(asked, "openai_responses")
    assert found == {"include": ["file_search_call.results"], "reasoning": {"effort": "high"}}


def test_protect_leaves_sealed_reasoning_to_who_has_nothing_stored() -> None:
    asked = {"include": ["reasoning.encrypted_content"], "store": False}
    assert protected(asked, "openai_responses") is asked, "its next turn would fail without"
    assert protected({**asked, "store": True}, "openai_responses")["include"] == []


@pytest.mark.parametrize(
    ("dialect", "request_", "found"),
    [
        ("anthropic", {"max_tokens": 9000}, {"max_tokens": 4096}),
        ("anthropic", {"max_tokens": 100}, {"max_tokens": 100}),
        ("openai_chat", {}, {"max_completion_tokens": 4096}),
        ("openai_chat", {"max_tokens": 9000}, {"max_tokens": 4096}),
        ("openai_chat", {"max_tokens": 10, "max_completion_tokens": 9000}, {"max_tokens": 10, "max_completion_tokens": 4096}),
        ("openai_responses", {"max_output_tokens": None}, {"max_output_tokens": 4096}),
    ],
)  # fmt: skip
def test_protect_shortens_answers_where_it_is_told_to(
    dialect: str, request_: dict[str, Any], found: dict[str, Any]
) -> None:
    assert protected(request_, dialect, max_tokens=4096) == found
    assert protected(request_, dialect) is request_


def test_a_shorter_answer_still_has_room_beside_the_thinking() -> None:
    asked = {"max_tokens": 64_000, "thinking": {"type": "enabled", "budget_tokens": 32_000, "display": "omitted"}}
    found = protected(asked, "anthropic", max_tokens=2048)
    assert found["max_tokens"] == 2048
    # Anthropic refuses a budget below 1,024 or not below max_tokens.
    assert 1024 <= found["thinking"]["budget_tokens"] < found["max_tokens"]


def test_notes_say_what_was_changed_and_hold_no_value_of_the_caller() -> None:
    changed = change_request(held(Rung.PROTECT), ASKED["openai_chat"][1], "openai_chat")
    assert set(changed.notes) == {"logprobs dropped", "top_logprobs dropped", "n set to 1"}


def test_higher_rungs_protect_too() -> None:
    asked = {"logprobs": True}
    assert change_request(held(Rung.SUSPEND), asked, "openai_chat").request == {}
    assert change_request(held(Rung.OBSERVE), asked, "openai_chat").request is asked


# Throttle


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_throttle_lets_through_what_it_says_and_tells_when_to_come_back() -> None:
    clock = Clock()
    slow, asked = held(Rung.THROTTLE, requests_per_minute=6), Usage(Buckets(clock=clock))
    passed = [answer_request(slow, "openai_chat", NOW, asked) for _ in range(7)]
    assert passed[:6] == [None] * 6
    refused = passed[6]
    assert refused is not None and refused.status == 429
    assert refused.headers["retry-after"] == "10"
    assert refused.headers["ratelimit"] == '"account";r=0;t=10'
    assert refused.headers["ratelimit-policy"] == '"account";q=6;w=60'
    assert refused.body["error"]["code"] == "rate_limit_exceeded"
    clock.now += 10
    assert answer_request(slow, "openai_chat", NOW, asked) is None
    assert answer_request(slow, "openai_chat", NOW, asked) is not None


@given(st.lists(st.floats(0, 30), min_size=1, max_size=80), st.floats(0.5, 60), st.integers(1, 10))
def test_no_stretch_of_time_gets_more_than_burst_and_rate(gaps: list[float], rate: float, burst: int) -> None:
    clock = Clock()
    slow, asked = held(Rung.THROTTLE, requests_per_minute=rate, burst=float(burst)), Usage(Buckets(clock=clock))
    passed = []
    for gap in gaps:
        clock.now += gap
        if answer_request(slow, "vllm", NOW, asked) is None:
            passed.append(clock.now)
    for i, start in enumerate(passed):
        for j in range(i, len(passed)):
            assert j - i + 1 <= burst + (passed[j] - start) * rate / 60 + 1e-6


def test_a_refused_request_takes_nothing_from_the_bucket() -> None:
    asked = usage()
    for _ in range(50):
        answer_request(held(Rung.SUSPEND, requests_per_minute=6), "vllm", NOW, asked)
    assert answer_request(held(Rung.THROTTLE, requests_per_minute=6), "vllm", NOW, asked) is None


def test_a_key_is_slowed_down_by_itself_and_told_so() -> None:
    one, other = (replace(held(Rung.THROTTLE, requests_per_minute=6, burst=1.0), part=Part.KEY, mark=m) for m in "ab")
    asked = usage()
    assert answer_request(one, "openai_chat", NOW, asked) is None
    refused = answer_request(one, "openai_chat", NOW, asked)
    assert message_of(refused).startswith("This key may make")
    assert refused.headers["ratelimit-policy"].startswith('"key";')
    assert answer_request(other, "openai_chat", NOW, asked) is None, "another key's bucket was emptied"
    assert answer_request(held(Rung.THROTTLE, requests_per_minute=6), "openai_chat", NOW, asked) is None


@pytest.mark.parametrize("rung", [Rung.VERIFY, Rung.RESTRICT, Rung.SUSPEND])
@pytest.mark.parametrize(
    ("part", "said"), [(Part.KEY, "This key "), (Part.END_USER, "This user "), (Part.ACCOUNT, "This account ")]
)
def test_who_is_refused_is_told_what_of_the_account(rung: Rung, part: Part, said: str) -> None:
    on_it = replace(held(rung, models=["none"]), part=part, mark="" if part is Part.ACCOUNT else "m")
    assert message_of(answer_request(on_it, "openai_chat", NOW, usage())).startswith(said)


# Verify, restrict, suspend


def test_a_bearer_is_asked_to_step_up_as_rfc_9470_says() -> None:
    asked = answer_request(
        held(Rung.VERIFY, acr_values="mfa phr", max_age=600), "openai_chat", NOW, usage(credential=BEARER)
    )
    assert asked is not None and asked.status == 401
    challenge = asked.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="insufficient_user_authentication", ')
    assert 'acr_values="mfa phr"' in challenge
    assert 'max_age="600"' in challenge


@pytest.mark.parametrize(
    ("acr", "age_s", "passes"), [("phr", 600, True), ("phr", 601, False), ("pwd", 1, False), ("", None, False)]
)
def test_who_has_stepped_up_passes(acr: str, age_s: int | None, passes: bool) -> None:
    at = None if age_s is None else NOW - timedelta(seconds=age_s)
    asked = usage(credential=BEARER, acr=acr, authenticated_at=at)
    answer = answer_request(held(Rung.VERIFY, acr_values="mfa phr", max_age=600), "openai_chat", NOW, asked)
    assert (answer is None) is passes


def test_an_api_key_is_sent_to_the_page_and_without_one_to_support() -> None:
    answer = answer_request(held(Rung.VERIFY, verification_url="https://v.example/x"), "anthropic", NOW, usage())
    assert answer is not None and answer.status == 403
    assert "https://v.example/x" in message_of(answer)
    assert answer.headers["link"] == '<https://v.example/x>; rel="help"'
    assert "A-17" in message_of(answer_request(held(Rung.VERIFY), "anthropic", NOW, usage()))


@pytest.mark.parametrize(
    ("model", "passes"), [("small-1", True), ("small-9", True), ("large", False), ("", True), ("Small-1", False)]
)
def test_restrict_lets_the_models_named_pass(model: str, passes: bool) -> None:
    answer = answer_request(held(Rung.RESTRICT, models=["small-*"]), "vllm", NOW, usage(model))
    assert (answer is None) is passes


def stepped_up(model: str) -> Usage:
    return usage(model, BEARER, acr="mfa", authenticated_at=NOW)


def test_suspend_refuses_all_and_names_case_and_appeal() -> None:
    answer = answer_request(
        held(Rung.SUSPEND, appeal_url="https://a.example/?c={case}"), "anthropic", NOW, stepped_up("m")
    )
    assert answer is not None and answer.status == 403
    assert answer.body["type"] == "error"
    assert answer.body["error"]["type"] == "permission_error"
    assert "A-17" in message_of(answer) and "https://a.example/?c=A-17" in message_of(answer)


@pytest.mark.parametrize("rung", [Rung.VERIFY, Rung.RESTRICT, Rung.SUSPEND])
def test_a_refusal_says_nothing_of_how_it_was_found(rung: Rung) -> None:
    answer = answer_request(held(rung, models=["x"]), "openai_chat", NOW, usage())
    text = json.dumps(answer.body if answer else None).lower()
    assert not [word for word in ("campaign", "cluster", "c-1", "distil", "risk", "detect") if word in text]


def test_milder_rungs_that_are_set_hold_on_higher_ones() -> None:
    both, asked = held(Rung.RESTRICT, models=["m"], requests_per_minute=1), usage()
    first, second = (answer_request(both, "vllm", NOW, asked) for _ in range(2))
    assert first is None
    assert second is not None and second.status == 429
    verified = held(Rung.RESTRICT, models=["m"], acr_values="mfa", max_age=600)
    assert "verified" in message_of(answer_request(verified, "vllm", NOW, usage()))


# Settings


@pytest.mark.parametrize(
    ("rung", "name", "value", "said"),
    [
        ("throttle", "requests_per_minute", 0, "must lie in"),
        ("throttle", "requests_per_minute", "6", "must be a number"),
        ("throttle", "requests_per_minute", True, "must be a number"),
        ("throttle", "requests_per_minute", float("nan"), "must lie in"),
        ("protect", "reasoning", "raw", "must be one of omitted, summarized"),
        ("protect", "max_tokens", 12, "must lie in"),
        ("protect", "max_tokens", 4096.5, "must be a whole number"),
        ("verify", "verification_url", "https://x\r\nset-cookie: y", "one line"),
        ("restrict", "models", [], "must be a list of texts"),
        ("restrict", "models", ["a", 1], "must be a list of texts"),
    ],
)
def test_a_wrong_setting_is_seen(rung: str, name: str, value: Any, said: str) -> None:
    fault = RESPONDERS[rung].settings[name].fault(value)
    assert fault is not None and said in fault


def test_right_settings_have_no_fault() -> None:
    given_ = {
        "throttle": {"requests_per_minute": 6, "burst": 2.5},
        "restrict": {"models": ["a"]},
        "protect": {"max_tokens": 4096},
    }
    for rung, settings in given_.items():
        assert [RESPONDERS[rung].settings[n].fault(v) for n, v in settings.items()] == [None] * len(settings)
