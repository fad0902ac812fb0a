"""Reasoning is shown as the policy says and never else; answers stay as they are, byte for byte; and the next turn goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch import plugins
from stillwatch.errors import UsageError
from stillwatch.protection import traces
from stillwatch.protection.canaries import derive
from stillwatch.protection.reasoning import Binding, Bounds, Keyring, Malformed, OtherSession, References
from stillwatch.protection.traces import UNKEPT, Counts, Curtain, Rewriter, Rewriting, Showing, Shown, outlined, streams
from stillwatch.protection.traces.opening import Opening
from stillwatch.protection.traces.splicing import Place, spliced
from stillwatch.secret import Secret
from stillwatch.serving.decisions import Decisions, Table
from stillwatch.serving.gateways import App, Caller, Gate, Receive, Scope, Send
from stillwatch.serving.gateways.reasoning import Veil, conversation, veiled
from stillwatch.types import InForce, Rung

REFERENCES = References(Keyring.made())
HERE = Binding("acme", "session-1", "large-9")
SECRET = "xylophone"
TRACE = f"# Plan\nStep 1: take the {SECRET}.\nStep 2: check the {SECRET} again."
WITHHELD = Showing(Shown.WITHHELD, "an action is in force, case c-1")
SUMMARY = Showing(Shown.SUMMARY, "the provider's policy")


def curtain(showing: Showing = WITHHELD, **more: Any) -> Curtain:
    return Curtain(showing, lambda trace: REFERENCES.seal(trace, HERE), **more)


def opening(binding: Binding = HERE, **more: Any) -> Opening:
    return Opening(lambda reference: REFERENCES.open(reference, binding), **more)


# Whole answers

CHAT = (
    '{ "id":"c1",\n  "choices": [ {"index":0, "message":{"role":"assistant", "reasoning_content": %s,'
    ' "content":"4 \\u00e9 \\/ ok", "tool_calls":null}, "logprobs":{"content":[{"token":"%s"}]}, "finish_reason":"stop"}],'
    '\n "usage":{"total_tokens": 1.50e2, "completion_tokens_details":{"reasoning_tokens":17}} }'
)
MESSAGE = (
    '{"type":"message","content":[{"type":"thinking", "thinking":%s,"signature":"sig-%s"},'
    ' {"type":"redacted_thinking","data":"opaque-%s"}, {"type":"text","text":"4 \\u00e9"}], "usage":{"output_tokens": 9}}'
)
RESPONSE = (
    '{"id":"r1","output":[{"id":"rs_1","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":%s}],'
    '"encrypted_content":"theirs-%s"}, {"type":"message","content":[{"type":"output_text","text":"4 \\u00e9"}]}],'
    ' "usage":{"output_tokens": 9}}'
)


def whole(dialect: str) -> str:
    told = json.dumps(TRACE)
    if dialect == "anthropic":
        return MESSAGE % (told, SECRET, SECRET)
    return RESPONSE % (told, SECRET) if dialect == "openai_responses" else CHAT % (told, SECRET)


DIALECTS = ("openai_chat", "openai_responses", "anthropic")


def handed_back(dialect: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The next request of a client that hands back what it was given."""
    if dialect == "openai_chat":
        return {"messages": [{"role": "user", "content": "?"}, answer["choices"][0]["message"]]}
    if dialect == "anthropic":
        return {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer["content"]}]}
    return {"input": [{"role": "user", "content": "?"}, *answer["output"]]}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("showing", [WITHHELD, SUMMARY])
def test_a_whole_answer_tells_nothing_of_its_trace_and_the_next_turn_has_it_again(
    dialect: str, showing: Showing
) -> None:
    original = json.loads(whole(dialect))
    told = streams.body(whole(dialect).encode(), dialect, curtain(showing))
    assert SECRET not in told.decode()
    answer = json.loads(told)
    assert answer["stillwatch_reasoning"] == showing.field()
    assert ("2 steps" in told.decode()) == (showing is SUMMARY)
    back = opening().request(handed_back(dialect, answer), dialect)
    assert back == handed_back(dialect, original)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_but_reasoning_is_touched_byte_for_byte(dialect: str) -> None:
    raw = whole(dialect)
    told = streams.body(raw.encode(), dialect, curtain()).decode()
    for piece in (
        ('"text":"4 \\u00e9"', '"usage":{"output_tokens": 9}}')
        if dialect != "openai_chat"
        else (
            '"content":"4 \\u00e9 \\/ ok", "tool_calls":null}',
            '"usage":{"total_tokens": 1.50e2, "completion_tokens_details":{"reasoning_tokens":17}} }',
            '\n  "choices": [ {"index":0, "message":{"role":"assistant", "reasoning_content": ',
        )
    ):
        assert piece in raw and piece in told


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "raw", [b'{"a" :1.0}', b' {"choices":[{"message":{"content":"x"}}],"output":[],"content":[]}\n', b"[1]"]
)
def test_an_answer_without_reasoning_is_the_same_bytes(dialect: str, raw: bytes) -> None:
    assert streams.body(raw, dialect, curtain()) == raw


@pytest.mark.parametrize("name", ["reasoning_details", "thinking_blocks"])
def test_lists_of_blocks_and_what_litellm_nests_are_kept_back_too(name: str) -> None:
    blocks = [{"type": "thinking", "thinking": TRACE, "text": TRACE, "index": 0}]
    message = {"role": "assistant", "content": "4", name: blocks, "provider_specific_fields": {name: blocks, "x": [1]}}
    raw = json.dumps({"choices": [{"message": message}]}).encode()
    told = streams.body(raw, "openai_chat", curtain())
    assert SECRET.encode() not in told
    answer = json.loads(told)
    assert answer["choices"][0]["message"]["provider_specific_fields"]["x"] == [1]
    assert opening().request(handed_back("openai_chat", answer), "openai_chat")["messages"][1] == message


def test_doubled_members_are_all_kept_back() -> None:
    raw = '{"choices":[{"message":{"reasoning":"SECRET","content":"a","reasoning":null,"reasoning":"SECRET"}}]}'
    raw = raw.replace("SECRET", SECRET)
    assert SECRET not in streams.body(raw.encode(), "openai_chat", curtain()).decode()
    doubled = '{"content":[{"type":"text","type":"thinking","thinking":"SECRET","type":"text"}]}'.replace(
        "SECRET", SECRET
    )
    assert SECRET not in streams.body(doubled.encode(), "anthropic", curtain()).decode()


def test_a_members_name_may_be_written_with_escapes() -> None:
    raw = '{"choices":[{"message":{"\\u0072easoning":"SECRET","content":"a"}}]}'.replace("SECRET", SECRET)
    assert SECRET not in streams.body(raw.encode(), "openai_chat", curtain()).decode()


def test_a_models_own_summary_is_what_is_shown() -> None:
    body = json.loads(whole("openai_responses"))
    body["output"][0]["summary"] = [{"type": "summary_text", "text": "It counted."}]
    raw = json.dumps(body).encode()
    assert (
        json.loads(streams.body(raw, "openai_responses", curtain(SUMMARY)))["output"][0]["summary"]
        == (body["output"][0]["summary"])
    )
    assert b"It counted" not in streams.body(raw, "openai_responses", curtain(WITHHELD))
    own = Rewriting(Rewriter("upper", "in capitals", str.upper))
    told = json.loads(streams.body(raw, "openai_responses", curtain(SUMMARY, rewriting=own)))
    assert told["output"][0]["summary"][0]["text"] == TRACE.upper()


def test_results_of_a_batch_are_lines() -> None:
    line = json.dumps({"custom_id": "1", "result": {"type": "succeeded", "message": json.loads(whole("anthropic"))}})
    told = streams.lines(f"{line}\n\n{line}\n".encode(), "anthropic", curtain())
    assert SECRET.encode() not in told
    assert [bool(part) for part in told.split(b"\n")] == [True, False, True, False]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ü", "a\n"]), inner, max_size=3),
), st.sampled_from([None, 1, "\t"]), st.booleans())  # fmt: skip
def test_places_are_where_json_says_they_are(value: Any, indent: Any, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_)
    place = Place.of(f" {text} ")
    assert place.value == value
    members = [(name, p.value, json.loads(p.text[p.start : p.end])) for name, p in place.members()]
    assert members == ([(n, v, v) for n, v in value.items()] if isinstance(value, dict) else [])
    items = [p.value for p in place.items()]
    assert items == (value if isinstance(value, list) else [])
    assert spliced(place.text, []) == place.text
    edits = [p.put("new") for _, p in place.members()]
    if isinstance(value, dict):
        assert json.loads(spliced(place.text, edits)) == dict.fromkeys(value, "new")
        assert json.loads(spliced(place.text, place.having("z", [1]))) == {**value, "z": [1]}


# Streams


def sse(*events: Any, named: bool = False, end: str = "\n") -> bytes:
    said = []
    for event in events:
        name = f"event: {event['type']}{end}" if named else ""
        data = event if isinstance(event, str) else json.dumps(event)
        said.append(f"{name}data: {data}{end}{end}")
    return "".join(said).encode()


def chunk(delta: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "large-9", "choices": [choice], **more}


PIECES = [TRACE[i : i + 9] for i in range(0, len(TRACE), 9)]
CALL = {"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "add", "arguments": '{"a":1}'}}]}
CHAT_STREAM = [
    chunk({"role": "assistant", "content": ""}),
    *(chunk({"reasoning_content": p}) for p in PIECES),
    chunk({"content": "4"}),
    chunk(CALL),
    chunk({}, finish_reason="tool_calls"),
    {"id": "c1", "choices": [], "usage": {"total_tokens": 9}},
    "[DONE]",
]
ANTHROPIC_STREAM = [
    {"type": "message_start", "message": {"id": "m1", "content": [], "usage": {"input_tokens": 5}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    *({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": p}} for p in PIECES),
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": f"sig-{SECRET}"}},
    {"type": "ping"},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "redacted_thinking", "data": f"opaque-{SECRET}"},
    },
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t1", "name": "add"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 40}},
    {"type": "message_stop"},
]
ITEM = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": TRACE}],
    "encrypted_content": f"theirs-{SECRET}",
}
TOOL = {"type": "function_call", "call_id": "t1", "name": "add", "arguments": '{"a":1}'}
RESPONSES_STREAM = [
    {"type": "response.created", "response": {"id": "r1", "output": []}},
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"id": "rs_1", "type": "reasoning", "summary": []},
    },
    {"type": "response.content_part.added", "item_id": "rs_1", "part": {"type": "reasoning_text", "text": ""}},
    *({"type": "response.reasoning_text.delta", "item_id": "rs_1", "delta": p} for p in PIECES),
    {"type": "response.reasoning_text.done", "item_id": "rs_1", "text": TRACE},
    {"type": "response.content_part.done", "item_id": "rs_1", "part": {"type": "reasoning_text", "text": TRACE}},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.output_item.done", "output_index": 1, "item": TOOL},
    {"type": "response.output_text.delta", "delta": "4"},
    {"type": "response.completed", "response": {"id": "r1", "output": [ITEM, TOOL], "usage": {"output_tokens": 9}}},
]
STREAMS = {"openai_chat": CHAT_STREAM, "anthropic": ANTHROPIC_STREAM, "openai_responses": RESPONSES_STREAM}


def fed(dialect: str, pieces: list[bytes], made: Curtain | None = None, **more: Any) -> bytes:
    events = streams.Events(dialect, made or curtain(), **more)
    return b"".join([*(events.feed(p) for p in pieces), events.end()])


def events_of(raw: bytes) -> list[Any]:
    """What a client reads: the data of each event."""
    found = []
    for event in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        data = b"\n".join(ln[5:].strip() for ln in event.split(b"\n") if ln.startswith(b"data:"))
        if data:
            found.append("[DONE]" if data == b"[DONE]" else json.loads(data))
    return found


def gathered(dialect: str, events: list[Any]) -> dict[str, Any]:
    """The answer that a client's library makes of events."""
    told = [e for e in events if isinstance(e, dict)]
    if dialect == "openai_responses":
        return next(e["response"] for e in told if e["type"] == "response.completed")
    if dialect == "openai_chat":
        message: dict[str, Any] = {}
        for delta in [c["delta"] for e in told for c in e["choices"]]:
            for name, value in delta.items():
                is_text = isinstance(message.get(name), str) and isinstance(value, str)
                if value is not None:
                    message[name] = message[name] + value if is_text else value
        return {"choices": [{"message": message}]}
    blocks: dict[int, dict[str, Any]] = {}
    for event in told:
        if event["type"] == "content_block_start":
            blocks[event["index"]] = dict(event["content_block"])
        if event["type"] == "content_block_delta":
            block, delta = blocks[event["index"]], dict(event["delta"])
            for name in ("thinking", "signature", "partial_json"):
                if name in delta:
                    block[name] = block.get(name, "") + delta[name]
    return {"content": [blocks[i] for i in sorted(blocks)]}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("showing", [WITHHELD, SUMMARY])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_tells_nothing_of_its_trace_and_the_next_turn_has_it_again(
    dialect: str, showing: Showing, end: str
) -> None:
    raw = sse(*STREAMS[dialect], named=dialect == "anthropic", end=end)
    told = fed(dialect, [raw], curtain(showing))
    assert SECRET.encode() not in told
    assert (b"2 steps" in told) == (showing is SUMMARY)
    assert json.dumps(showing.reason)[1:-1].encode() in told
    back = opening().request(handed_back(dialect, gathered(dialect, events_of(told))), dialect)
    assert back == handed_back(dialect, gathered(dialect, STREAMS[dialect]))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_events_without_reasoning_are_the_same_bytes_in_the_same_order(dialect: str) -> None:
    named = dialect == "anthropic"
    told = fed(dialect, [sse(*STREAMS[dialect], named=named)])
    mute = ("thinking", "signature", "reasoning", "redacted")
    at = 0
    for event in STREAMS[dialect]:
        raw = sse(event, named=named)
        if not any(word in raw.decode() for word in mute):
            assert (at := told.find(raw, at) + len(raw)) >= len(raw), raw


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DIALECTS), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 6000), max_size=40))
def test_where_a_stream_is_cut_changes_nothing(dialect: str, end: str, cuts: list[int]) -> None:
    raw = b": a comment" + end.encode() * 2 + sse(*STREAMS[dialect], named=dialect == "anthropic", end=end)
    edges = [0, *sorted({min(c, len(raw)) for c in cuts}), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(edges)]
    plain = Curtain(WITHHELD)  # without references, which are never alike twice
    assert fed(dialect, pieces, plain) == fed(dialect, [raw], plain)
    assert SECRET.encode() not in fed(dialect, pieces)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_byte_by_byte_nothing_leaks_at_any_moment(dialect: str) -> None:
    raw = sse(*STREAMS[dialect], named=dialect == "anthropic")
    for stop in range(0, len(raw), 37):
        assert SECRET.encode() not in fed(dialect, [raw[:stop]])


def test_reasoning_between_pieces_of_the_answer_and_of_several_choices_is_told_where_it_stood() -> None:
    both = chunk({"reasoning": f"c {SECRET}", "content": "2"})
    events = [
        chunk({"role": "assistant", "reasoning": f"a {SECRET}"}),
        chunk({"reasoning": f"x {SECRET}"}, index=1),
        chunk({"content": "1"}),
        both,
        chunk({"content": "9"}, index=1),
        chunk({"reasoning": f"d {SECRET}"}),
        "[DONE]",
    ]
    told = events_of(fed("openai_chat", [sse(*events)]))
    assert SECRET not in json.dumps(told)
    order = [(c["index"], *(k for k, v in c["delta"].items() if v)) for e in told[:-1] for c in e["choices"]]
    assert order == [
        (0, "role"), (0, "reasoning"), (0, "content"), (0, "reasoning"), (0, "content"), (1, "reasoning"), (1, "content"),
        (0, "reasoning"),
    ]  # fmt: skip
    first = gathered("openai_chat", [e for e in told if e == "[DONE]" or e["choices"][0]["index"] == 0])
    back = opening().request(handed_back("openai_chat", first), "openai_chat")
    assert back["messages"][1] == {
        "role": "assistant",
        "reasoning": f"a {SECRET}c {SECRET}d {SECRET}",
        "content": "12",
    }


def test_usage_in_every_chunk_and_other_fields_nested_go_on() -> None:
    nested = {"provider_specific_fields": {"reasoning_content": SECRET, "citation": "page 4"}}
    events = [chunk({"reasoning": SECRET}, usage={"total_tokens": k}) for k in range(3)]
    told = events_of(fed("openai_chat", [sse(*events, chunk(nested))]))
    assert [e["usage"]["total_tokens"] for e in told if "usage" in e] == [0, 1, 2]
    assert "page 4" in json.dumps(told) and SECRET not in json.dumps(told)


def test_pieces_of_one_block_are_put_together_again() -> None:
    details = [[{"type": "reasoning.text", "text": p, "index": 0}] for p in PIECES]
    details.append([{"type": "reasoning.text", "signature": "s", "index": 0}])
    events = [*(chunk({"reasoning_details": d}) for d in details), chunk({"content": "4"}), "[DONE]"]
    told = gathered("openai_chat", events_of(fed("openai_chat", [sse(*events)])))
    back = opening().request(handed_back("openai_chat", told), "openai_chat")["messages"][1]
    assert back["reasoning_details"] == [{"type": "reasoning.text", "text": TRACE, "index": 0, "signature": "s"}]


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic"])
def test_a_trace_that_is_too_long_to_hold_is_told_to_be_and_not_kept(dialect: str) -> None:
    counts = Counts()
    raw = sse(*STREAMS[dialect], named=dialect == "anthropic")
    told = fed(dialect, [raw], curtain(SUMMARY, most=20, counts=counts))
    assert SECRET.encode() not in told and b"steps" not in told
    assert UNKEPT.encode() in told and counts.unkept >= 1
    back = opening().request(handed_back(dialect, gathered(dialect, events_of(told))), dialect)
    assert "swr1" not in json.dumps(back)


def test_what_is_held_of_a_stream_is_bounded() -> None:
    events = streams.Events("openai_chat", curtain(most=1000))
    for _ in range(50):
        events.feed(sse(chunk({"reasoning": SECRET * 100})))
    held = events._stream._runs[0]  # type: ignore[attr-defined]
    assert sum(len("".join(parts)) for parts in held.texts.values()) <= 1000
    small = streams.Events("anthropic", curtain(), most=1000)
    said = small.feed(b"data: " + b"x" * 5000)
    assert b"too long" in said and b"xxx" not in said
    assert small.feed(sse(chunk({"content": "4"}))) == b"" == small.end()
    assert len(small._buffer) == 0


def test_long_reasoning_beats_and_a_broken_event_is_not_passed_on() -> None:
    counts = Counts()
    told = fed("openai_chat", [sse(*(chunk({"reasoning": SECRET}) for _ in range(200)))], curtain(counts=counts))
    assert told.count(streams.BEAT) == 3
    told = fed("openai_chat", [b'data: {"choices": ' + SECRET.encode() + b"\n\n"], curtain(counts=counts))
    assert told == b"" and counts.unreadable == 1


# Rewriters


def test_the_built_in_one_says_nothing_of_what_was_thought() -> None:
    text = "# Find the sum\n1. add apples\n2. add pears\n\n**Check it**\nlast words"
    assert outlined(text) == "2 steps, 14 words. Headings: Find the sum; Check it"
    assert outlined("one\n\ntwo words") == "2 steps, 3 words."
    assert len(outlined("# heading\n" * 1000)) < 260
    began = time.perf_counter()
    for hard in ("# " + "# " * 200_000, "\n" * 400_000, "** " * 200_000, "1" * 400_000, " \t" * 200_000):
        outlined(hard)
    assert time.perf_counter() - began < 5


def boom(text: str) -> str:
    raise RuntimeError(text)


@pytest.mark.parametrize("rewrite", [boom, lambda text: None, lambda text: 7])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_rewriter_that_fails_leads_to_withholding(
    dialect: str, rewrite: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    counts = Counts()
    own = Rewriting(Rewriter("own", "fails", rewrite))
    told = streams.body(whole(dialect).encode(), dialect, curtain(SUMMARY, rewriting=own, counts=counts))
    assert SECRET.encode() not in told and SECRET not in caplog.text
    assert counts.failed == 1 and counts.shown == 0
    assert opening().request(handed_back(dialect, json.loads(told)), dialect) == (
        handed_back(dialect, json.loads(whole(dialect)))
    )


def test_a_rewriter_that_is_slow_leads_to_withholding_and_those_that_hang_have_a_bound() -> None:
    counts, go = Counts(), threading.Event()

    def hang(text: str) -> str:
        go.wait(10)
        return text

    own = Rewriting(Rewriter("own", "hangs", hang), seconds=0.05, most=2)
    for _ in range(4):
        told = streams.body(
            whole("openai_chat").encode(), "openai_chat", curtain(SUMMARY, rewriting=own, counts=counts)
        )
        assert SECRET.encode() not in told
    assert counts.slow == 4
    go.set()
    quick = Rewriting(Rewriter("own", "is quick", lambda text: "in short"))
    assert b"in short" in streams.body(whole("openai_chat").encode(), "openai_chat", curtain(SUMMARY, rewriting=quick))


def test_rewriters_are_plugins_and_off_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Rewriter("own", "a rewriter of a package", str.upper)
    module = types.ModuleType("rewriting_of_a_package")
    module.REWRITER = own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = EntryPoint("own", module.__name__, "stillwatch.rewriters")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert traces.rewriter("own") is own
    assert traces.rewriter("outline") is traces.OUTLINE is Rewriting().rewriter
    with pytest.raises(UsageError, match="no such rewriter"):
        traces.rewriter("another")


# Opening


@pytest.mark.parametrize("dialect", DIALECTS)
def test_in_another_session_a_reference_is_refused_or_left_out(dialect: str) -> None:
    answer = json.loads(streams.body(whole(dialect).encode(), dialect, curtain()))
    request = handed_back(dialect, answer)
    elsewhere = Binding("acme", "session-2", "large-9")
    with pytest.raises(OtherSession):
        opening(elsewhere).request(request, dialect)
    dropping = opening(elsewhere, drops=True)
    left = dropping.request(request, dialect)
    assert "swr1" not in json.dumps(left) and dropping.dropped >= 1
    assert "4 " in json.dumps(left)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": "no list", "input": "a text"},
        {
            "messages": [None, 1, "x", {"content": 3}, {"role": "user", "content": "swr1.0a0a0a0a.AAAA"}],
            "input": [None, 3, {}],
        },
        {
            "messages": [
                {
                    "role": "assistant",
                    "reasoning_content": "plain",
                    "content": [{"type": "thinking", "signature": "own"}],
                }
            ]
        },
    ],
)
def test_a_request_without_references_is_the_very_same(dialect: str, body: dict[str, Any]) -> None:
    assert opening().request(body, dialect) is body


def test_a_reference_in_the_wrong_place_opens_nothing() -> None:
    text = REFERENCES.seal(json.dumps({"type": "thinking"}).encode(), HERE)
    with pytest.raises(Malformed):
        opening().request({"messages": [{"role": "assistant", "reasoning_content": text}]}, "openai_chat")
    with pytest.raises(Malformed):
        opening().request({"messages": [{"role": "assistant", "reasoning_content": "swr1.cut"}]}, "openai_chat")


# The layer


def under_action(rung: Rung = Rung.PROTECT, who: str = "acme", **setting: Any) -> InForce:
    return InForce(who, rung, f"case-{who}", "camp-1", datetime.now(UTC) + timedelta(hours=1), setting)


TABLE = Table({"acme": under_action(), "brief": under_action(who="brief", reasoning="summarized"),
               "watched": under_action(Rung.OBSERVE, "watched")})  # fmt: skip
PATHS = {"openai_chat": "/v1/chat/completions", "openai_responses": "/v1/responses", "anthropic": "/v1/messages"}


class Upstream:
    """A model's server: answers as it is told, and keeps what it was asked."""

    def __init__(self, raw: bytes, kind: str = "application/json", status: int = 200, **headers: str) -> None:
        self.raw, self.kind, self.status, self.headers = raw, kind, status, headers
        self.asked: list[Any] = []
        self.seen: dict[bytes, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked.append(json.loads(body) if body else None)
        self.seen = dict(scope["headers"])
        headers = [(b"content-type", self.kind.encode()), (b"content-length", b"%d" % len(self.raw))]
        headers += [(n.replace("_", "-").encode(), v.encode()) for n, v in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for at in range(0, len(self.raw), 50):
            piece = {"type": "http.response.body", "body": self.raw[at : at + 50], "more_body": True}
            await send(piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def veil(**more: Any) -> Veil:
    return Veil(References(Keyring.made()), **more)


def call(
    app: App, path: str, body: Any = None, who: str = "acme", method: str = "POST", **headers: str
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            named = {"x-stillwatch-account": who, **headers}
            return await client.request(method, path, json=body, headers=named)

    return asyncio.run(asked())


def first_request(dialect: str, **more: Any) -> dict[str, Any]:
    question = [{"role": "user", "content": [{"type": "text", "text": "What is 2 + 2?"}]}]
    return {"model": "large-9", "input" if dialect == "openai_responses" else "messages": question, **more}


def next_request(dialect: str, answer: dict[str, Any], **more: Any) -> dict[str, Any]:
    request = first_request(dialect, **more)
    name = "input" if dialect == "openai_responses" else "messages"
    return {
        **request,
        name: [*request[name], *handed_back(dialect, answer)[name][1:], {"role": "user", "content": "go on"}],
    }


def gate() -> Gate:
    return Gate(Decisions(TABLE))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("is_stream", [False, True])
def test_turns_with_tools_go_on_and_other_sessions_do_not(dialect: str, is_stream: bool) -> None:
    raw = sse(*STREAMS[dialect], named=dialect == "anthropic") if is_stream else whole(dialect).encode()
    upstream = Upstream(raw, "text/event-stream; charset=utf-8" if is_stream else "application/json")
    made = veil()
    app, path = veiled(upstream, gate(), made), PATHS[dialect]
    answer = call(app, path, first_request(dialect))
    assert answer.status_code == 200 and SECRET not in answer.text
    assert answer.headers["x-stillwatch-reasoning"] == 'withheld; reason="an action is in force, case case-acme"'
    assert ("content-length" in answer.headers) == (not is_stream)
    told = gathered(dialect, events_of(answer.content)) if is_stream else answer.json()
    plain = gathered(dialect, STREAMS[dialect]) if is_stream else json.loads(whole(dialect))

    follow = next_request(dialect, told)
    assert call(app, path, follow).status_code == 200
    assert upstream.asked[-1] == next_request(dialect, plain)

    # Another conversation, another model, another tenant: the same reference is worth nothing.
    asked = len(upstream.asked)
    for other, who in (
        (next_request(dialect, told) | {"model": "small-1"}, "acme"),
        (next_request(dialect, told, system="other", instructions="other"), "acme"),
        (follow, "watched"),
    ):
        refused = call(app, path, other, who=who)
        assert refused.status_code == 400
        assert "not valid here" in refused.json()["error"]["message"]
    assert len(upstream.asked) == asked
    counted = {reason: n for reason, n in made.references.refused.items() if n}
    assert counted == {"other_model": 1, "other_session": 1, "other_tenant": 1}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_who_is_not_under_action_gets_all_as_it_came_and_may_hand_references_back(dialect: str) -> None:
    upstream = Upstream(whole(dialect).encode(), etag="x")
    app = veiled(upstream, gate(), veil())
    for who in ("watched", "nobody"):
        answer = call(app, PATHS[dialect], first_request(dialect), who=who)
        assert answer.content == upstream.raw
        assert answer.headers["etag"] == "x" and "x-stillwatch-reasoning" not in answer.headers
    brief = call(app, PATHS[dialect], first_request(dialect), who="brief")
    assert brief.headers["x-stillwatch-reasoning"].startswith("summary")
    assert "2 steps" in brief.text and SECRET not in brief.text


def test_a_session_that_the_gateway_knows_is_what_binds() -> None:
    upstream = Upstream(whole("anthropic").encode())
    app = veiled(upstream, gate(), veil(session=lambda scope, body: dict(scope["headers"])[b"x-session"].decode()))
    told = call(app, "/v1/messages", first_request("anthropic"), **{"x-session": "s1"}).json()
    other = next_request("anthropic", told, system="begun otherwise")
    assert call(app, "/v1/messages", other, **{"x-session": "s1"}).status_code == 200
    assert call(app, "/v1/messages", other, **{"x-session": "s2"}).status_code == 400


def test_without_anything_to_bind_to_reasoning_is_withheld_all_the_same() -> None:
    made = veil(usual=WITHHELD)
    app = veiled(Upstream(whole("openai_chat").encode()), gate(), made)
    answer = call(app, "/v1/chat/completions", {"messages": []}, who="")
    assert SECRET not in answer.text and UNKEPT in answer.text
    assert made.counts.unkept == 1


def test_what_cannot_be_looked_through_is_not_passed_on() -> None:
    raw = whole("openai_chat").encode()
    for upstream, more in (
        (Upstream(gzip.compress(raw), content_encoding="gzip"), {}),
        (Upstream(raw[:-5]), {}),
        (Upstream(raw), {"most": 100}),
    ):
        made = veil(**more)
        answer = call(veiled(upstream, gate(), made), "/v1/chat/completions", first_request("openai_chat"))
        assert (answer.status_code, made.counts.unreadable) == (502, 1)
        assert "without its reasoning" in answer.json()["error"]["message"] and SECRET not in answer.text
        assert upstream.seen[b"accept-encoding"] == b"identity"


def test_other_kinds_of_answer_pass_and_kept_answers_do_not() -> None:
    sound = Upstream(b"\x00\x01 not json", "audio/mpeg")
    assert (
        call(veiled(sound, gate(), veil()), "/v1/chat/completions", first_request("openai_chat")).content == sound.raw
    )
    text = Upstream(b"upstream is away", "text/plain", 503)
    answer = call(veiled(text, gate(), veil()), "/v1/chat/completions", first_request("openai_chat"))
    assert (answer.status_code, answer.content) == (503, text.raw)
    kept = Upstream(whole("openai_responses").encode())
    assert SECRET not in call(veiled(kept, gate(), veil()), "/v1/responses/r1", method="GET").text
    line = json.dumps({"result": {"message": json.loads(whole("anthropic"))}}).encode()
    results = Upstream(line + b"\n" + line, "application/x-jsonl")
    assert SECRET not in call(veiled(results, gate(), veil()), "/v1/messages/batches/b1/results", method="GET").text
    other = Upstream(b'{"reasoning": "of another kind"}')
    assert call(veiled(other, gate(), veil()), "/v1/files/f1", method="GET").content == other.raw


def test_a_connection_that_is_not_looked_through_is_closed() -> None:
    async def connect(who: str) -> list[Any]:
        sent: list[Any] = []

        async def accept(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/v1/responses", "headers": [(b"x-stillwatch-account", who.encode())]}
        await veiled(accept, gate(), veil())(scope, receive, send)
        return sent

    assert asyncio.run(connect("acme"))[0]["code"] == 1008
    assert asyncio.run(connect("nobody"))[0]["type"] == "websocket.accept"


def test_a_slow_rewriter_holds_nobody_else_up() -> None:
    def slow(text: str) -> str:
        time.sleep(0.3)
        return "in short"

    app = veiled(
        Upstream(whole("openai_chat").encode()), gate(), veil(rewriting=Rewriting(Rewriter("own", "slow", slow)))
    )

    async def all_at_once() -> tuple[list[httpx.Response], float]:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            began = time.perf_counter()
            asked = [
                client.post(
                    "/v1/chat/completions", json=first_request("openai_chat"), headers={"x-stillwatch-account": "brief"}
                )
                for _ in range(4)
            ]
            return await asyncio.gather(*asked), time.perf_counter() - began

    answers, took = asyncio.run(all_at_once())
    assert all("in short" in a.text for a in answers)
    assert took < 4 * 0.3


def test_a_conversation_is_known_by_how_it_begins() -> None:
    begun = first_request("anthropic", system="be brief")
    later = next_request(
        "anthropic", {"content": [{"type": "text", "text": "4"}]}, system=[{"type": "text", "text": "be brief"}]
    )
    marked = json.loads(json.dumps(later))
    marked["messages"][0]["content"][0]["cache_control"] = {"type": "ephemeral"}
    names = {conversation("anthropic", body) for body in (begun, later, marked)}
    assert len(names) == 1
    assert conversation("anthropic", {**begun, "system": "be long"}) not in names
    assert conversation("openai_responses", {"input": "hi"}) == conversation(
        "openai_responses", {"input": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    )
    assert conversation("openai_responses", {"conversation": {"id": "c1"}, "input": "hi"}) == "conversation c1"


def test_a_reference_ends() -> None:
    now = [datetime(2026, 11, 1, tzinfo=UTC)]
    ending = References(Keyring.made(), Bounds(timedelta(hours=1)), lambda: now[0])
    app = veiled(Upstream(whole("anthropic").encode()), gate(), Veil(ending))
    told = call(app, "/v1/messages", first_request("anthropic")).json()
    now[0] += timedelta(hours=2)
    refused = call(app, "/v1/messages", next_request("anthropic", told))
    assert refused.status_code == 400 and "has ended" in refused.json()["error"]["message"]
    dropping = veiled(Upstream(whole("anthropic").encode()), gate(), Veil(ending, drops=True))
    assert call(dropping, "/v1/messages", next_request("anthropic", told)).status_code == 200


def test_canaries_go_into_whole_answers_of_campaigns_under_action_alone_and_are_counted() -> None:
    canary = derive(Secret("m" * 48), "camp-1", "placeholder/python")
    code = "```python\ndef foo(): ...\n```"
    raw = json.dumps({"choices": [{"message": {"role": "assistant", "content": code}}]}).encode()
    made = veil(canaries=lambda campaign: [canary] if campaign == "camp-1" else [])
    app = veiled(Upstream(raw), gate(), made)
    said = call(app, "/v1/chat/completions", first_request("openai_chat")).json()["choices"][0]["message"]["content"]
    assert said == code.replace("foo", canary.target)
    for who in ("watched", "nobody"):
        assert call(app, "/v1/chat/completions", first_request("openai_chat"), who=who).content == raw
    named = {**first_request("openai_chat"), "messages": [{"role": "user", "content": "what is foo?"}]}
    assert call(app, "/v1/chat/completions", named).content == raw
    assert (
        call(veiled(Upstream(raw), gate(), veil()), "/v1/chat/completions", first_request("openai_chat")).content == raw
    )
    stream = sse(chunk({"content": code}), "[DONE]")
    streamed = veiled(Upstream(stream, "text/event-stream"), gate(), made)
    assert call(streamed, "/v1/chat/completions", first_request("openai_chat")).content == stream
    (deed,) = made.tally.deeds()
    assert deed.subject == "camp-1" and deed.facts["answers"] == 1
    assert deed.facts["positions"] == {canary.canary_id: 1} and deed.facts["left"] == {"asked": 1}


def test_the_caller_is_who_the_gateway_says() -> None:
    app = veiled(Upstream(whole("anthropic").encode()), gate(), veil(), identify=lambda scope: Caller("acme"))
    assert SECRET not in call(app, "/v1/messages", first_request("anthropic"), who="nobody").text


def chunks() -> Iterator[bytes]:
    for event in STREAMS["openai_chat"]:
        yield sse(event)


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "protection.md").read_text(encoding="utf-8")
    code = page.partition("\n## Reasoning\n")[2].partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    upstream = Upstream(whole("anthropic").encode())
    for _ in range(2):  # the second time with the keys of the first
        told: dict[str, Any] = {"upstream": upstream}
        exec(code.replace("async def gateway(scope, receive, send): ...", "gateway = upstream"), told)
        named = told["app"]

        async def asked(scope: Scope, receive: Receive, send: Send, app: App = named) -> None:
            await app({**scope, "user": "acme"}, receive, send)

        assert call(asked, "/v1/messages", first_request("anthropic")).content == upstream.raw
        told["gate"].decisions.replace(TABLE)
        assert SECRET not in call(asked, "/v1/messages", first_request("anthropic")).text
    assert len((tmp_path / "reasoning.keys").read_text().split()) == 2


def test_a_piece_of_the_answer_goes_on_as_soon_as_it_has_come() -> None:
    events = streams.Events("openai_chat", curtain())
    said = [events.feed(piece) for piece in chunks()]
    assert b'"content": "4"' in said[1 + len(PIECES)]
    assert said[0] == sse(CHAT_STREAM[0])
    assert all(s == b"" for s in said[1 : 1 + len(PIECES)])
