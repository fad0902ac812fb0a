"""Field maps: a user's own, built-in ones extended, and what is said of a wrong one."""

from __future__ import annotations

import copy
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.adapters import read_exchanges
from stillwatch.adapters.intake.converters import CONVERTERS
from stillwatch.adapters.intake.dig import dig
from stillwatch.adapters.intake.mapfile import MAPS, load
from stillwatch.errors import InputRejected, UsageError
from stillwatch.tables import EXCHANGES

DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def rows(path: Path, *maps: Path, adapter: str | None = None) -> list[dict[str, Any]]:
    source = read_exchanges(path, maps=maps, adapter=adapter, now=NOW)
    return [{k: v for k, v in row.items() if v is not None} for batch in source for row in batch.to_pylist()]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


OWN = """
meaning = "our edge proxy"
path = '(?P<region>[a-z]+)/[^/]+$'
ignore = ["debug.*"]

[match]
all = ["req.model", "who"]
none = ["kind=health"]

[columns]
exchange_id = { join = ["who.org", "seq"] }
time = { from = ["ts"], as = "epoch_auto" }
account_id = ["who.key", "who.org"]
channel = "path.region"
model = "req.model"
system = ["req.sys", "req.turns|system_text"]
prompt = { from = ["req.turns"], as = "last_user_text" }
batch = { value = true }
input_tokens = "use.0"
"""


def test_a_users_own_map(tmp_path: Path) -> None:
    record = {
        "ts": 1794060000123, "seq": 17, "who": {"org": "o1"}, "debug": {"x": 1}, "odd": 1, "use": [5, 6],
        "req": {"model": "m", "turns": [{"role": "system", "content": "S"}, {"role": "user", "content": '["json"]'}]},
    }  # fmt: skip
    log = write(
        tmp_path / "eu" / "log.ndjson", json.dumps(record) + "\n" + json.dumps(record | {"kind": "health"}) + "\n"
    )
    source = read_exchanges(log, maps=[write(tmp_path / "edge.toml", OWN)], now=NOW)
    (row,) = [{k: v for k, v in r.items() if v is not None} for b in source for r in b.to_pylist()]
    assert row == {
        "exchange_id": "o1:17", "time": datetime(2026, 11, 7, 14, 0, 0, 123000, tzinfo=UTC), "account_id": "o1",
        "channel": "eu", "model": "m", "system": "S", "prompt": '["json"]', "batch": True, "input_tokens": 5,
    }  # fmt: skip
    assert source.unknown == {"odd": 1}
    assert dict(source.formats) == {"edge": 1}
    assert [str(r) for r in source.rejects] == [
        f"{log}:2: a record that is none of edge's (1 row)\n"
        "  hint: a field map for these records can be given with --map FILE"
    ]  # fmt: skip


def test_a_map_that_extends_a_built_in_one(tmp_path: Path) -> None:
    teams = write(
        tmp_path / "teams.toml", 'extends = "litellm"\n[columns]\naccount_id = "metadata.user_api_key_team_id"\n'
    )
    tenant = write(tmp_path / "tenant.toml", 'extends = "otlp"\n[columns]\naccount_id = "deployment.ring"\n')
    (usual,) = rows(DATA / "litellm.ndjson")
    assert rows(DATA / "litellm.ndjson", teams) == [usual | {"account_id": "t-3"}]
    assert rows(DATA / "otlp_traces.ndjson", teams, tenant)[0]["account_id"] == "blue"


def test_a_batch_file_without_sender_says_what_to_do_and_a_map_helps(tmp_path: Path) -> None:
    line = json.dumps({"custom_id": "q1", "params": {"model": "m", "messages": [{"role": "user", "content": "x"}]}})
    log = write(tmp_path / "acct-5" / "b1.jsonl", line + "\n")
    with pytest.raises(InputRejected, match="a batch line names no sender and no time: add account_id and created_at"):
        rows(log)
    by_path = """
        extends = "anthropic_batch"
        path = '(?P<account>[^/]+)/(?P<batch>[^/]+)\\.jsonl$'
        [columns]
        exchange_id = { join = ["path.batch", "custom_id"] }
        account_id = "path.account"
        time = { value = "2026-11-01T00:00:00Z" }
    """
    (row,) = rows(log, write(tmp_path / "m.toml", by_path))
    assert (row["exchange_id"], row["account_id"], row["time"]) == (
        "b1:q1",
        "acct-5",
        datetime(2026, 11, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("text, message", {
    '[columns]\nacount_id = "x"': "no column named 'acount_id'\n  hint: did you mean account_id?",
    '[columns]\nprompt = {from = ["x"], as = "last_text"}': "no converter named 'last_text'\n  hint: did you mean",
    '[columns]\nprompt = "x|upper"': "no converter named 'upper'\n  hint: there are ",
    '[columns]\nprompt = 5': "prompt needs a path, a list of paths, or a value",
    '[columns]\nprompt = {form = "x"}': "no setting of prompt named 'form'\n  hint: did you mean from?",
    'extends = "litelm"': "no map to extend named 'litelm'\n  hint: did you mean litellm?",
    'unfold = "otel"': "no unfold named 'otel'",
    'path = "("': "path is no regular expression",
    'colums = 1': "no key named 'colums'\n  hint: did you mean columns?",
    'x = ': "the field map cannot be read: ",
}.items())  # fmt: skip
def test_a_wrong_map(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "m.toml", text)
    with pytest.raises(UsageError, match=re.escape(f"{path}: {message}")):
        read_exchanges(DATA, maps=[path])


def test_a_missing_map(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.toml: the field map cannot be read"):
        read_exchanges(DATA, maps=[tmp_path / "gone.toml"])


@pytest.mark.parametrize("name", sorted(p.stem for p in MAPS.glob("*.toml")))
def test_built_in_maps_fill_what_is_required(name: str) -> None:
    made = load(name)
    assert set(EXCHANGES.required) <= set(made.rules)
    assert made.meaning
    assert "account_id" in made.hints


def test_paths() -> None:
    record = {"a.b": {"c": 1}, "d": {"e": [{"f": 2}]}, "g": '{"h": [3]}', "n": {"x": None}}
    found = {p: dig(record, p) for p in ("a.b.c", "a.b", "d.e.0.f", "d.e.1.f", "g.h.0", "n.x", "z", "d.e.f")}
    assert found == {
        "a.b.c": 1, "a.b": {"c": 1}, "d.e.0.f": 2, "d.e.1.f": None, "g.h.0": 3, "n.x": None, "z": None, "d.e.f": None,
    }  # fmt: skip


@pytest.mark.parametrize("name, value, wanted", [
    ("text", "plain", "plain"), ("text", '["not parts"]', '["not parts"]'), ("text", [], None),
    ("text", '[{"type": "text", "content": "x"}]', "x"),
    ("text", [{"type": "text", "text": "a"}, {"type": "image"}, "b"], "a\nb"),
    ("first_text", [{"role": "user", "content": "a"}, "b"], "a"),
    ("last_user_text", [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "tool_result"}]}], "a"),
    ("last_user_text", '{"messages": [{"role": "user", "content": "a"}]}', "a"),
    ("last_user_text", "{broken", "{broken"), ("last_user_text", [{"role": "assistant", "content": "a"}], None),
    ("system_text", [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}], "a\nb"),
    ("messages_before", [{"role": "system"}, {"role": "user"}, {"role": "assistant"}], 1),
    ("messages_before", [], None),
    ("answer_text", '{"a": 1}', '{"a": 1}'), ("answer_text", "[1, 2]", "[1, 2]"), ("answer_text", {"error": "x"}, None),
    ("answer_text", {"content": "x"}, "x"), ("answer_text", [{"type": "thinking", "thinking": "x"}], None),
    ("answer_text", {"choices": [{"text": "a"}, {"text": "b"}]}, "a\nb"),
    ("tool_names", {"a": {"name": "x"}}, ["x"]), ("tool_names", 5, None),
    ("tool_names", [{"type": "function", "function": {"name": "x"}}, {"type": "web_search"}, {}], ["x", "web_search"]),
    ("count_images", [{"role": "user", "content": [{"type": "input_image"}, {"type": "uri", "modality": "image"}]}], 2),
    ("is_asked", {"type": "disabled"}, False), ("is_asked", {"budget_tokens": 5}, True), ("is_asked", "none", False),
    ("is_asked", "high", True), ("is_asked", 0, False), ("is_asked", {"effort": "none"}, False),
    ("asks_logprobs", ["message.output_text.logprobs"], True), ("asks_logprobs", ["other"], False),
    ("asks_logprobs", 5, True),
    ("first", ["a", "b"], "a"), ("first", [], None), ("first", "a", "a"),
    ("first_address", "1.2.3.4, 5.6.7.8", "1.2.3.4"), ("first_address", "1.2.3.4:80", "1.2.3.4"),
    ("first_address", "[2001:db8::1]:80", "2001:db8::1"), ("first_address", "2001:db8::1", "2001:db8::1"),
    ("http_status", "429", 429), ("http_status", "success", 200), ("http_status", "failure", None),
    ("http_status", 0, None),
    ("epoch_auto", 5, 5), ("epoch_auto", True, None), ("as_text", 5, "5"), ("as_text", {}, None), ("plain", [], None),
])  # fmt: skip
def test_converters(name: str, value: Any, wanted: Any) -> None:
    assert CONVERTERS[name](value) == wanted


def test_content_that_looks_like_json_is_left_alone(tmp_path: Path) -> None:
    record = json.loads((DATA / "openai_chat.ndjson").read_text())
    record["request"]["messages"] = [{"role": "user", "content": '{"messages": [{"role": "user", "content": "x"}]}'}]
    record["response"]["choices"] = [{"message": {"content": '[{"role": "assistant", "content": "y"}]'}}]
    (row,) = rows(write(tmp_path / "x.ndjson", json.dumps(record)))
    assert row["prompt"] == record["request"]["messages"][0]["content"]
    assert row["response"] == record["response"]["choices"][0]["message"]["content"]


def test_otlp_of_other_schools(tmp_path: Path) -> None:
    def attributes(**values: Any) -> list[dict[str, Any]]:
        return [{"key": k.replace("__", "."), "value": {"stringValue": v}} for k, v in values.items()]

    span = {
        "traceId": "t", "spanId": "s1", "startTimeUnixNano": "1794045600000000000",
        "attributes": attributes(
            openinference__span__kind="LLM", llm__model_name="m1", user__id="u1",
            llm__input_messages__0__message__role="user",
            llm__input_messages__0__message__content="Hi", llm__output_messages__0__message__content="Ho",
            llm__invocation_parameters='{"temperature": 0.25, "max_tokens": 9}',
            llm__tools__0__tool__json_schema='{"name": "f"}',
        ),
    }  # fmt: skip
    by_events = {
        "traceId": "t", "spanId": "s2", "startTimeUnixNano": "1794045600000000000",
        "attributes": attributes(gen_ai__system="x", gen_ai__request__model="m2", enduser__id="u2"),
        "events": [
            {"name": "gen_ai.system.message", "attributes": attributes(content="Sys")},
            {"name": "gen_ai.user.message", "attributes": attributes(content="Ask")},
            {"name": "gen_ai.choice", "attributes": attributes(message='{"content": "Told"}')},
            {"name": "exception", "attributes": attributes(gen_ai__request__model="wrong")},
        ],
    }  # fmt: skip
    tool = {
        "spanId": "s3",
        "attributes": attributes(gen_ai__operation__name="execute_tool", gen_ai__request__model="m"),
    }
    line = {"resourceSpans": [{"scopeSpans": [{"spans": [span, by_events, tool]}]}]}
    first, second = rows(write(tmp_path / "x.ndjson", json.dumps(line)))
    shown = ("account_id", "model", "prompt", "response", "temperature", "max_tokens", "tools")
    assert {k: first[k] for k in shown} == {
        "account_id": "u1", "model": "m1", "prompt": "Hi", "response": "Ho", "temperature": 0.25, "max_tokens": 9,
        "tools": ["f"],
    }  # fmt: skip
    assert {k: second[k] for k in ("account_id", "model", "system", "prompt", "response")} == {
        "account_id": "u2", "model": "m2", "system": "Sys", "prompt": "Ask", "response": "Told",
    }  # fmt: skip


CAPTURED = {p.stem: json.loads(p.read_text()) for p in sorted(DATA.glob("*.ndjson")) if p.stem != "canonical"}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "role", "text"]), inner),
    max_leaves=4,
)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [pair for k in keys for pair in [(value, k), *nodes(value[k])]]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CAPTURED)), st.lists(st.tuples(st.integers(0), ANY_JSON), min_size=1, max_size=3))
def test_whatever_stands_in_a_record_it_is_read_or_counted(name: str, changes: list[tuple[int, Any]]) -> None:
    record = copy.deepcopy(CAPTURED[name])
    for number, value in changes:
        places = nodes(record)
        if places:
            container, key = places[number % len(places)]
            container[key] = value
    adapter = name.partition("_")[0]
    with TemporaryDirectory() as folder:
        log = write(Path(folder) / "x.ndjson", json.dumps(record) + "\n" + json.dumps(CAPTURED[name]) + "\n")
        source = read_exchanges(log, adapter=adapter, now=NOW)
        list(source)
        assert source.rows_kept >= 1
        assert source.rows_read == source.rows_kept + sum(r.rows for r in source.rejects)


def test_hints_are_those_of_the_map_that_read_the_record(tmp_path: Path) -> None:
    record = json.loads((DATA / "anthropic.ndjson").read_text())
    del record["account_id"]
    with pytest.raises(InputRejected, match="put account_id beside request and response"):
        rows(write(tmp_path / "x.ndjson", json.dumps(record)))
