"""Bodies as senders send them: every route and form, what is refused and why, and nothing that takes the server down."""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from stillwatch.adapters import read_accounts, read_exchanges
from stillwatch.errors import Terminal, UsageError
from stillwatch.privacy import Privacy
from stillwatch.serving import reception
from stillwatch.serving.bodies import KINDS, MEMBERS
from stillwatch.serving.reception import ROUTES, BodyRefused, Limits, Received, answer, formats, receive
from stillwatch.spool import Spool, fingerprinted
from stillwatch.tables import EXCHANGES

DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
FUZZ = int(os.environ.get("STILLWATCH_FUZZ_EXAMPLES", "60"))
PRIVACY = Privacy(b"a key for these tests only")

Rows = list[dict[str, Any]]


def captured(name: str) -> Rows:
    return [json.loads(line) for line in (DATA / f"{name}.ndjson").read_text().splitlines() if line.strip()]


LITELLM, SPENT, CANONICAL = captured("litellm")[0], captured("litellm_spendlogs")[0], captured("canonical")[0]
TRACES, OLD_TRACES, LOGS = captured("otlp_traces")[0], captured("otlp_traces_old")[0], captured("otlp_logs")[0]


def take(body: Any, route: str, kind: str = "application/json", encoding: str = "", **given: Any) -> Received:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    got = receive(body, kind, encoding, route, given.pop("limits", None), now=NOW, **given)
    assert got.records == got.kept + got.rejected + got.duplicates + got.passed_over, "a record is unaccounted for"
    assert all(b.schema.equals(EXCHANGES.schema) for b in got.batches)
    return got


def rows(got: Received) -> Rows:
    return [{k: v for k, v in row.items() if v is not None} for batch in got.batches for row in batch.to_pylist()]


def said(got: Received) -> Rows:
    return [{k: v for k, v in row.items() if v is not None} for row in got.accounts.to_pylist()]


def refused(got: Received) -> list[tuple[str, str, int]]:
    return sorted((d.reason, d.place, d.count) for d in got.refused)


def from_file(name: str, path: Path, records: Rows) -> Rows:
    path = path / name
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    source = read_exchanges(path, now=NOW)
    return [{k: v for k, v in row.items() if v is not None} for batch in source for row in batch.to_pylist()]


def many(record: dict[str, Any], key: str, count: int) -> Rows:
    return [record | {key: f"id-{k}"} for k in range(count)]


def lines(records: Rows) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


# Routes and forms


@pytest.mark.parametrize(
    ("route", "record", "key"),
    [
        ("litellm", LITELLM, "litellm_call_id"),
        ("litellm", SPENT, "request_id"),
        ("exchanges", CANONICAL, "exchange_id"),
    ],
)
def test_every_form_gives_what_a_file_of_it_gives(route: str, record: Any, key: str, tmp_path: Path) -> None:
    records = many(record, key, 3)
    wanted = from_file("log.ndjson", tmp_path, records)
    assert [r["exchange_id"] for r in wanted] == ["id-0", "id-1", "id-2"]
    forms = {
        "array": json.dumps(records).encode(),
        "pretty array": json.dumps(records, indent=2).encode(),
        "lines": lines(records),
        "lines that end": lines(records) + b"\r\n\n",
        "lines with a mark": b"\xef\xbb\xbf" + lines(records),
    }
    for name, body in forms.items():
        assert rows(take(body, route)) == wanted, name
    assert rows(take(forms["lines"], route, "application/x-ndjson; charset=UTF-8")) == wanted
    for body in (
        json.dumps(records[0]).encode(),
        json.dumps(records[0], indent=1).encode(),
        b" \n" + lines(records[:1]),
    ):
        assert rows(take(body, route)) == wanted[:1]


def otlp_json(document: Any) -> Any:
    """The JSON of OTLP as protobuf's own JSON has it: ids in base64."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(v) for v in node]
        if not isinstance(node, dict):
            return node
        ids = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id"}
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ids else walk(v) for k, v in node.items()}

    return walk(document)


def on_the_wire(document: Any, route: str) -> bytes:
    request = ExportTraceServiceRequest() if route == "otlp/traces" else ExportLogsServiceRequest()
    return json_format.ParseDict(otlp_json(document), request).SerializeToString()


@pytest.mark.parametrize(
    ("route", "document"), [("otlp/traces", TRACES), ("otlp/traces", OLD_TRACES), ("otlp/logs", LOGS)]
)
def test_protobuf_and_json_of_a_captured_request_are_equal(route: str, document: Any, tmp_path: Path) -> None:
    as_json = take(document, route)
    as_wire = take(on_the_wire(document, route), route, "application/x-protobuf")
    if document is LOGS:  # it names no account but the customer's own user
        assert as_json.kept == 1
    assert rows(as_json) == rows(as_wire) == from_file("otlp.ndjson", tmp_path, [document])
    assert (as_json.records, as_json.passed_over, as_json.unknown) == (
        as_wire.records,
        as_wire.passed_over,
        as_wire.unknown,
    )


VALUES = st.recursive(
    st.one_of(
        st.text(max_size=8).map(lambda v: {"stringValue": v}),
        st.booleans().map(lambda v: {"boolValue": v}),
        st.integers(-(2**63), 2**63 - 1).map(lambda v: {"intValue": str(v)}),
        st.sampled_from([0.5, -1e300, "NaN", "Infinity", "-Infinity"]).map(lambda v: {"doubleValue": v}),
        st.binary(max_size=4).map(lambda v: {"bytesValue": base64.b64encode(v).decode()}),
        st.just({}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: {"arrayValue": {"values": v}}),
        st.lists(st.tuples(st.sampled_from(["role", "content", "parts", "type", "text", "x"]), inner), max_size=3).map(
            lambda v: {"kvlistValue": {"values": [{"key": k, "value": w} for k, w in v]}}
        ),
    ),
    max_leaves=6,
)
NAMES = st.sampled_from([
    "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.response.id", "user.id", "gen_ai.input.messages", "client.address",
    "gen_ai.request.temperature", "gen_ai.usage.input_tokens", "gen_ai.prompt.0.content", "gen_ai.prompt.0.role",
    "gen_ai.tool.definitions", "gen_ai.system_instructions", "http.response.status_code", "event.name", "anything",
])  # fmt: skip
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(
    lambda p: [{"key": k, "value": v} for k, v in dict(p).items()]
)
BASE = [
    {"key": "gen_ai.request.model", "value": {"stringValue": "m"}},
    {"key": "user.id", "value": {"stringValue": "a"}},
]
NANOS = st.sampled_from(["0", "1794045600250000000"])
LEAVES = st.fixed_dictionaries(
    {
        "attributes": PAIRS.map(lambda p: BASE + p),
        "traceId": st.just("5b8efff798038103d269b633813fc60c"),
        "spanId": st.integers(1, 2**64 - 1).map(lambda n: f"{n:016x}"),
    }
)
SPANS = st.tuples(LEAVES, NANOS, st.lists(st.fixed_dictionaries({
    "name": st.sampled_from(["gen_ai.user.message", "gen_ai.choice", "gen_ai.content.prompt", "x"]), "attributes": PAIRS,
}), max_size=2)).map(lambda t: t[0] | {"startTimeUnixNano": t[1], "events": t[2]})  # fmt: skip
RECORDS = st.tuples(
    LEAVES, NANOS, NANOS, VALUES, st.sampled_from(["", "x", "gen_ai.client.inference.operation.details"])
).map(lambda t: t[0] | {"timeUnixNano": t[1], "observedTimeUnixNano": t[2], "body": t[3], "eventName": t[4]})


def request_of(outer: str, middle: str, inner: str) -> Callable[[Any], dict[str, Any]]:
    return lambda parts: {
        outer: [{"resource": {"attributes": shared}, middle: [{inner: leaves}]} for shared, leaves in parts]
    }


SPAN_REQUESTS = st.lists(st.tuples(PAIRS, st.lists(SPANS, max_size=3)), max_size=3).map(
    request_of("resourceSpans", "scopeSpans", "spans")
)
LOG_REQUESTS = st.lists(st.tuples(PAIRS, st.lists(RECORDS, max_size=3)), max_size=3).map(
    request_of("resourceLogs", "scopeLogs", "logRecords")
)


def same(route: str, document: Any) -> None:
    as_json = take(document, route)
    as_wire = take(on_the_wire(document, route), route, "application/x-protobuf")
    assert str(rows(as_json)) == str(rows(as_wire))
    assert refused(as_json) == refused(as_wire)
    assert as_json.passed_over == as_wire.passed_over


@settings(max_examples=FUZZ, deadline=None)
@given(SPAN_REQUESTS)
def test_protobuf_and_json_of_any_spans_are_equal(document: Any) -> None:
    same("otlp/traces", document)


@settings(max_examples=FUZZ, deadline=None)
@given(LOG_REQUESTS)
def test_protobuf_and_json_of_any_log_records_are_equal(document: Any) -> None:
    same("otlp/logs", document)


def test_one_bad_span_costs_itself() -> None:
    good = TRACES["resourceSpans"][0]["scopeSpans"][0]["spans"][0]

    def span(number: int, **changed: Any) -> dict[str, Any]:
        attributes = [p for p in good["attributes"] if p["key"] not in changed.get("without", ())]
        attributes = [
            p | {"value": {"stringValue": f"r{number}"}} if p["key"] == "gen_ai.response.id" else p for p in attributes
        ]
        return good | {"attributes": attributes} | {k: v for k, v in changed.items() if k != "without"}

    spans = [
        span(1),
        span(2, without=("user.id", "enduser.pseudo.id")),
        span(3, startTimeUnixNano="0"),
        "no span",
        span(4),
        span(5, attributes=3),
    ]
    document = {"resourceSpans": [{"scopeSpans": [{"spans": spans}, 7]}, None, {"scopeSpans": "x"}, {}]}
    got = take(document, "otlp/traces")
    assert [r["exchange_id"] for r in rows(got)] == ["r1", "r4"]
    assert refused(got) == [
        ("a record that is no JSON object", "otlp/traces:4", 4),
        ("account_id is missing", "otlp/traces:2", 1),
        ("time is missing", "otlp/traces:3", 1),
    ]
    assert got.passed_over == 1, "a span without attributes is no inference"
    body, media = answer("otlp/traces", "application/json", got)
    partial = json.loads(body)["partialSuccess"]
    assert (partial["rejectedSpans"], media) == ("6", "application/json")
    assert "account_id is missing (1, first at otlp/traces:2)" in partial["errorMessage"]
    body, media = answer("otlp/traces", "application/x-protobuf", got)
    assert ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans == 6
    assert media == "application/x-protobuf"


def test_an_answer_where_all_was_taken_is_empty() -> None:
    got = take(LOGS, "otlp/logs")
    assert answer("otlp/logs", "application/json", got) == (b"{}", "application/json")
    assert answer("otlp/logs", "application/x-protobuf", got)[0] == b""
    assert not ExportLogsServiceResponse.FromString(b"").HasField("partial_success")
    json_format.Parse(
        answer("otlp/logs", "application/json", Received(refused=got.refused))[0], ExportLogsServiceResponse()
    )
    with pytest.raises(ValueError, match="no route of OTLP"):
        answer("litellm", "application/json", got)


def test_answers_in_json_are_as_protobuf_reads_them() -> None:
    bad = json.loads(json.dumps(LOGS).replace("enduser.pseudo.id", "nobody"))
    got = take(bad, "otlp/logs")
    told = json_format.Parse(answer("otlp/logs", "application/json", got)[0], ExportLogsServiceResponse())
    assert told.partial_success.rejected_log_records == 1
    assert told == ExportLogsServiceResponse.FromString(answer("otlp/logs", "application/x-protobuf", got)[0])


def test_an_empty_export_is_fine() -> None:
    assert take(b"", "otlp/traces", "application/x-protobuf").records == 0
    assert take(b"{}", "otlp/logs").records == 0
    assert take({"resourceSpans": []}, "otlp/traces").records == 0
    assert take(b"[]", "litellm").records == 0


def test_a_providers_own_map_reads_its_attribute(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('extends = "otlp"\n[columns]\naccount_id = "deployment.ring"\n')
    other = tmp_path / "edge.toml"
    other.write_text(
        '[match]\nall = ["who"]\n[columns]\nexchange_id = "n"\ntime = "t"\naccount_id = "who"\nmodel = "m"\n'
    )
    mine = formats((own, other))
    assert [r["account_id"] for r in rows(take(TRACES, "otlp/traces", formats=mine))] == ["blue"]
    record = {"who": "w", "n": "1", "t": "2026-11-01", "m": "m"}
    assert rows(take([record, LITELLM], "litellm", formats=mine))[0]["account_id"] == "w"
    with pytest.raises(UsageError):
        formats((tmp_path / "missing.toml",))


# The canonical form, fast and slow


def test_the_fast_way_and_the_slow_way_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {k: v for k, v in CANONICAL.items() if k in EXCHANGES.names}
    odd = [{"temperature": 1}, {"tools": []}, {"prompt": ""}, {"prompt": "ü\ud83d\ude00 \\ \" \n"}, {"turn": -1}, {"ip": None},
           {"time": "2026-11-03T04:05:06.789+02:00"}, {"time": "nonsense"}, {"time": "2031-01-01"}, {"status": 200}]  # fmt: skip
    records = [kept | {"exchange_id": f"e{k}"} | change for k, change in enumerate([*odd, {}, {"exchange_id": "e0"}])]
    fast = take(lines(records), "exchanges")
    ways: list[object] = []
    monkeypatch.setattr(reception, "_by_arrow", ways.append)
    slow = take(lines(records), "exchanges")
    assert ways and fast.kept == 9
    assert rows(fast) == rows(slow)
    assert refused(fast) == refused(slow) and len(refused(fast)) == 2
    assert fast.duplicates == slow.duplicates == 1
    assert [d.record for d in fast.refused] == [d.record for d in slow.refused]


@pytest.mark.parametrize(
    ("change", "column", "value"),
    [({"exchange_id": 5}, "exchange_id", "5"), ({"time": 1794045800}, "model", "gpt-5o"), ({"odd": {"a": 1}}, "model", "gpt-5o"),
     ({"input_tokens": "12"}, "input_tokens", 12), ({"temperature": "0.5"}, "temperature", 0.5), ({"stream": 1}, "stream", True)],
)  # fmt: skip
def test_lines_that_do_not_keep_to_the_letter_are_read_all_the_same(change: Any, column: str, value: Any) -> None:
    record = {"exchange_id": "e", "time": "2026-11-01T00:00:00Z", "account_id": "a", "model": "gpt-5o"}
    got = take(lines([record, record | {"exchange_id": "f"} | change]), "exchanges")
    assert rows(got)[1][column] == value
    assert dict(got.unknown) == ({"odd": 1} if "odd" in change else {})


def test_a_line_that_is_broken_costs_itself() -> None:
    records = many(CANONICAL, "exchange_id", 4)
    text = lines(records).split(b"\n")
    text[1] = text[1][:-5]
    text.insert(3, b"[1, 2]")
    text.insert(4, b"")
    text += [text[0] + text[2], json.dumps(CANONICAL | {"prompt": ["no", "text"]}).encode(), b'{"exchange_id": "x"}']
    got = take(b"\n".join(text), "exchanges")
    assert [r["exchange_id"] for r in rows(got)] == ["id-0", "id-2", "id-3"]
    assert refused(got) == [
        ("a record of a shape that the contract's do not have", "exchanges:8", 1),
        ("a record that is no JSON object", "exchanges:4", 1),
        ("broken JSON", "exchanges:2", 2),
        ("time is missing", "exchanges:9", 1),
    ]


def test_columns_without_end_cost_no_memory() -> None:
    wide = {f"k{i}": i for i in range(100_000)}
    body = lines([CANONICAL | {"exchange_id": f"e{k}"} for k in range(400)] + [CANONICAL | wide])
    tracemalloc.start()
    got = take(body, "exchanges")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert got.kept == 401 and len(got.unknown) <= 1001
    assert peak < 100 << 20
    assert pa.total_allocated_bytes() < 100 << 20


# Accounts


CREATED = {
    "class_uid": 3001, "activity_id": 1, "time": 1794045600000, "metadata": {"version": "1.8.0"}, "severity_id": 1,
    "user": {"uid": "acct-1", "email_addr": "Ann.Other@Example.EDU", "org": {"uid": "org-9", "name": "Nine"}},
    "src_endpoint": {"ip": "203.0.113.9"}, "http_request": {"referrer": "https://example.org/offer"},
    "ja4_fingerprint_list": [{"type_id": 1, "value": "t13d1516h2_8daaf6152771_02713d6af862"}],
    "unmapped": {"plan": "free", "payment_hash": "ph1", "verification": "email", "other": "x", "at": "2031-01-01"},
}  # fmt: skip
LOGON = {
    "class_uid": 3002, "activity_id": 1, "time": "2026-11-08T00:00:00Z", "is_mfa": True,
    "user": {"account": {"uid": "acct-1"}, "uid": "person-5", "org": {"name": "Nine"}}, "src_endpoint": {"ip": "198.51.100.1"},
}  # fmt: skip


def test_ocsf_events_become_words_on_accounts() -> None:
    at = datetime.fromtimestamp(1794045600, UTC)
    got = take([CREATED, LOGON, {"account_id": "acct-2", "plan": "payg", "created_at": "2026-10-01"}], "accounts")
    assert said(got) == [
        {
            "at": at, "account_id": "acct-1", "created_at": at, "org_id": "org-9", "plan": "free", "email_domain": "example.edu",
            "payment_hash": "ph1", "signup_ip": "203.0.113.9", "signup_ja4": "t13d1516h2_8daaf6152771_02713d6af862",
            "referrer": "https://example.org/offer", "verification": "email",
        },
        {"at": datetime(2026, 11, 8, tzinfo=UTC), "account_id": "acct-1", "org_id": "Nine"},
        {"at": NOW, "account_id": "acct-2", "plan": "payg", "created_at": datetime(2026, 10, 1, tzinfo=UTC)},
    ]  # fmt: skip
    assert "Ann" not in str(said(got))


def test_the_latest_word_on_an_account_holds_in_the_spool(tmp_path: Path) -> None:
    changed = CREATED | {"activity_id": 3, "time": CREATED["time"] + 1000, "unmapped": {"plan": "enterprise"}}  # type: ignore[operator]
    with Spool(tmp_path / "spool.db") as spool:
        for event in (changed, LOGON, CREATED):
            got = take(event, "accounts")
            spool.put(pa.Table.from_batches([], schema=fingerprinted(_batch(), PRIVACY).schema), accounts=got.accounts)
        (row,) = spool.accounts().to_pylist()
    assert (row["plan"], row["org_id"], row["signup_ip"]) == ("enterprise", "Nine", "203.0.113.9")


def _batch() -> pa.RecordBatch:
    return take(CANONICAL, "exchanges").batches[0]


def test_events_that_say_nothing_of_an_account_are_refused_with_a_reason() -> None:
    events = [CREATED, {"class_uid": 6003, "user": {"uid": "a"}}, {"hello": 1}, CREATED | {"user": {"name": "Ann"}},
              CREATED | {"time": None}, CREATED | {"time": 2**53}, CREATED | {"time": 5},
              LOGON | {"class_uid": [3002]}]  # fmt: skip
    got = take(events, "accounts")
    assert len(said(got)) == 1
    assert refused(got) == [
        ("a record that is neither an OCSF event nor an account", "accounts:3", 1),
        ("account_id is missing", "accounts:4", 1),
        ("an event of another class than account_change and authentication", "accounts:2", 2),
        ("at is missing", "accounts:5", 1),
        ("at lies before 2015", "accounts:7", 1),
        ("at lies in the future", "accounts:6", 1),
    ]


def test_a_value_that_cannot_be_read_costs_itself_not_the_account() -> None:
    got = take({"account_id": "a", "created_at": "last spring", "org_id": "o", "colour": "red"}, "accounts")
    assert said(got) == [{"at": NOW, "account_id": "a", "org_id": "o"}]
    assert [n.reason for n in got.notes] == ["created_at is not a time; the value is left out"]
    assert dict(got.unknown) == {"colour": 1}


def test_canonical_accounts_are_read_as_from_a_file(tmp_path: Path) -> None:
    accounts = [
        {"account_id": f"a{k}", "org_id": "o", "created_at": "2026-10-01T00:00:00Z", "plan": "free"} for k in range(3)
    ]
    (tmp_path / "accounts.ndjson").write_bytes(lines(accounts) + b"\n")
    table, _ = read_accounts(tmp_path / "accounts.ndjson")
    assert take(lines(accounts), "accounts").accounts.drop(["at"]).equals(table)


# Refused as a whole


def status(body: bytes, kind: str, encoding: str, route: str, limits: Limits | None = None) -> tuple[int, str]:
    with pytest.raises(BodyRefused) as caught:
        receive(body, kind, encoding, route, limits, now=NOW)
    assert isinstance(caught.value, Terminal)
    return caught.value.status, caught.value.message


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "route", "code", "what"),
    [
        (b"{}", "text/plain", "", "litellm", 415, "media type"),
        (b"{}", "application/x-protobuf", "", "litellm", 415, "media type"),
        (b"{}", "", "", "otlp/traces", 415, "media type"),
        (b"{}", "application/x-ndjson", "", "otlp/traces", 415, "media type"),
        (b"{}", "application/json; charset=latin-1", "", "litellm", 415, "UTF-8"),
        (b"{}", "application/json", "br", "litellm", 415, "encoding"),
        (b"{}", "application/json", "zstd", "litellm", 415, "encoding"),
        (b"{}", "application/json", "gzip, gzip", "litellm", 415, "encoding"),
        (b"", "application/json", "", "litellm", 400, "empty"),
        (b" \r\n ", "application/json", "", "exchanges", 400, "empty"),
        (b"", "application/json", "gzip", "litellm", 400, "empty"),
        (b"{}", "application/json", "gzip", "litellm", 400, "not in the encoding"),
        (b"{}", "application/json", "deflate", "litellm", 400, "midst"),
        (b"\xff{}", "application/json", "deflate", "litellm", 400, "not in the encoding"),
        (gzip.compress(b"{}" * 50)[:-9], "application/json", "gzip", "litellm", 400, "midst"),
        (gzip.compress(b"{}") + b"garbage", "application/json", "gzip", "litellm", 400, "not in the encoding"),
        (gzip.compress(b"") * (MEMBERS + 1), "application/json", "gzip", "litellm", 400, "parts"),
        (zlib.compress(b"{}") + b"x", "application/json", "deflate", "litellm", 400, "follow"),
        (b'[{"a": 1}, {"b": ', "application/json", "", "litellm", 400, "broken JSON at line 1, column 18"),
        (b'{"a": 1', "application/json", "", "accounts", 400, "broken JSON"),
        (b"hello", "application/json", "", "exchanges", 400, "broken JSON"),
        (b"hello\nthere", "application/x-ndjson", "", "exchanges", 400, "no line"),
        (b'"text"', "application/json", "", "litellm", 400, "no JSON object"),
        (b"3 4", "application/json", "", "litellm", 400, "no line"),
        (b"[]", "application/json", "", "otlp/logs", 400, "resourceLogs"),
        (b'{"resourceLogs": []}', "application/json", "", "otlp/traces", 400, "resourceSpans"),
        (b"{}\n{}", "application/json", "", "otlp/traces", 400, "resourceSpans"),
        (b"\xff\xff\xff", "application/x-protobuf", "", "otlp/traces", 400, "protobuf"),
        (b"[" * 100_000, "application/json", "", "litellm", 400, "nested deeper than 128"),
    ],
)  # fmt: skip
def test_a_body_refused_as_a_whole_says_why(
    body: bytes, kind: str, encoding: str, route: str, code: int, what: str
) -> None:
    got, message = status(body, kind, encoding, route)
    assert got == code and what in message


def test_every_media_type_is_taken_somewhere() -> None:
    taken = {kind for route in ROUTES.values() for kind in route.kinds}
    assert taken == set(KINDS.values())


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress),
                                                ("deflate", lambda b: zlib.compress(b, wbits=-15)), (" GZIP ", gzip.compress),
                                                ("identity", bytes)])  # fmt: skip
def test_encodings(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    body = json.dumps([LITELLM]).encode()
    assert rows(take(pack(body), "litellm", encoding=encoding)) == rows(take(body, "litellm"))
    wire = on_the_wire(TRACES, "otlp/traces")
    assert take(pack(wire), "otlp/traces", "application/x-protobuf", encoding).kept == 1


def test_gzip_in_parts() -> None:
    text = json.dumps([LITELLM]).encode()
    body = gzip.compress(text[:40]) + gzip.compress(text[40:])
    assert take(body, "litellm", encoding="gzip").kept == 1


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_decompression_bomb_is_refused_before_it_goes_off(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(b"[" + b" " * (200 << 20) + b"]")
    limits = Limits(inflated_bytes=1 << 20)
    tracemalloc.start()
    code, message = status(bomb, "application/json", encoding, "litellm", limits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert code == 413 and "inflates to over 1,048,576" in message
    assert peak < 8 << 20


def test_a_bomb_in_many_parts_is_one_bomb() -> None:
    part = gzip.compress(b" " * (1 << 20))
    assert status(part * 10, "application/json", "gzip", "litellm", Limits(inflated_bytes=8 << 20))[0] == 413


def test_bounds_of_size_and_number() -> None:
    body = json.dumps(many(LITELLM, "litellm_call_id", 4)).encode()
    assert status(body, "application/json", "", "litellm", Limits(body_bytes=100))[0] == 413
    assert status(body, "application/json", "", "litellm", Limits(inflated_bytes=100))[0] == 413
    assert "4 records, over 3" in status(body, "application/json", "", "litellm", Limits(records=3))[1]
    for route, record in (("exchanges", CANONICAL), ("exchanges", CANONICAL | {"odd": 1}), ("litellm", LITELLM)):
        assert status(lines([record] * 4), "application/json", "", route, Limits(records=3))[0] == 413
        assert take(lines([record] * 3) + b"\n", route, limits=Limits(records=3)).records == 3
    two = {"resourceSpans": TRACES["resourceSpans"] * 2}
    for sent, kind in (
        (json.dumps(two).encode(), "application/json"),
        (on_the_wire(two, "otlp/traces"), "application/x-protobuf"),
    ):
        assert status(sent, kind, "", "otlp/traces", Limits(records=3))[0] == 413


def test_values_by_the_million_are_refused_before_they_are_made() -> None:
    assert status(b"[" + b"{}," * 5_000_000 + b"{}]", "application/json", "", "litellm")[0] == 413


def nested(depth: int) -> Any:
    node: Any = "x"
    for _ in range(depth):
        node = [node]
    return node


def deep(record: dict[str, Any], at: str, depth: int) -> bytes:
    return json.dumps(record | {at: "DEEP"}).encode().replace(b'"DEEP"', b"[" * depth + b"]" * depth)


@pytest.mark.parametrize("depth", [200, 5_000, 200_000])
@pytest.mark.parametrize(("route", "record", "key", "at"), [("litellm", LITELLM, "litellm_call_id", "messages"),
                                                          ("exchanges", CANONICAL, "exchange_id", "odd"),
                                                          ("accounts", CREATED, "time", "enrichments")])  # fmt: skip
def test_a_deep_record_costs_itself(route: str, record: Any, key: str, at: str, depth: int) -> None:
    first, last = (record | {key: v} for v in ((1794045600000, 1794045601000) if key == "time" else ("first", "last")))
    for opens, between, closes in ((b"[", b",", b"]"), (b"", b"\n", b"\n")):
        body = (
            opens
            + between.join([json.dumps(first).encode(), deep(record, at, depth), json.dumps(last).encode()])
            + closes
        )
        got = take(body, route)
        assert got.kept == 2
        assert refused(got) == [("JSON nested deeper than 128 levels", f"{route}:2", 1)]


def test_a_deep_span_costs_itself_and_nothing_nested_escapes() -> None:
    text = json.dumps({"resourceSpans": [*TRACES["resourceSpans"], *OLD_TRACES["resource_spans"]]})
    value = '"value": ' + '{"arrayValue":{"values":[' * 3000 + "{}" + "]}}" * 3000
    text = text.replace('"value": {"stringValue": "blue"}', value)
    got = take(text.encode(), "otlp/traces")
    assert [d.reason for d in got.refused] == ["JSON nested deeper than 128 levels"]
    assert take({"resourceSpans": [{"resource": nested(100)}]}, "otlp/traces").records == 0


def test_deep_json_inside_of_text_is_text() -> None:
    said_ = "[" * 20_000 + "]" * 20_000
    record = LITELLM | {
        "messages": said_,
        "response": said_,
        "metadata": LITELLM["metadata"] | {"requester_metadata": said_},
    }
    assert take([record], "litellm").kept == 1
    for depth in (300, 900, 990):
        record = LITELLM | {"messages": [{"role": "user", "content": "[" * depth + "]" * depth}]}
        assert take([record], "litellm").kept == 1


@pytest.mark.parametrize("tools", [["\ud800x"], [{"name": "\udcbc"}], '["\\ud800x"]', [{"type": "\ud800"}, "ü"]])
def test_half_a_surrogate_pair_in_the_name_of_a_tool(tools: Any) -> None:
    (row,) = rows(take(CANONICAL | {"tools": tools}, "exchanges"))
    assert row["tools"][0][0] == "?"
    changed = LITELLM["model_parameters"] | {"tools": tools}
    assert take([LITELLM | {"model_parameters": changed}, SPENT], "litellm").kept == 2


@pytest.mark.parametrize("change", [{}, {"odd": 1}])
def test_broken_utf8_in_the_name_of_a_tool(change: Any) -> None:
    text = lines([CANONICAL | change | {"exchange_id": "e", "tools": ["abc", "XX"]}, CANONICAL | change])
    got = take(text.replace(b"XX", b"x\xff"), "exchanges")
    for batch in got.batches:
        batch.validate(full=True)
    first, second = rows(got)
    assert first["tools"] in (["abc", "x\ufffd"], ["abc", "x?"])
    assert second["tools"] == CANONICAL["tools"]
    assert fingerprinted(got.batches[0], PRIVACY).num_rows == 2


def test_a_number_of_many_digits_costs_itself() -> None:
    text = json.dumps([LITELLM, LITELLM | {"litellm_call_id": "b", "prompt_tokens": "HUGE"}]).replace(
        '"HUGE"', "9" * 5000
    )
    got = take(text.encode(), "litellm")
    assert got.records == 2 and got.kept >= 1


def test_a_line_cannot_hide_what_follows_it() -> None:
    # An open quote or brackets that close too often must not shift how deep the next line is thought to be.
    bad = [b'{"exchange_id": "', b"]" * 500, b"}" * 500]
    body = b"\n".join([json.dumps(CANONICAL).encode(), *bad, deep(CANONICAL, "odd", 3000)])
    assert refused(take(body, "exchanges")) == [
        ("JSON nested deeper than 128 levels", "exchanges:5", 1), ("broken JSON", "exchanges:2", 3),
    ]  # fmt: skip


def test_a_refused_record_is_known_again_and_tells_nothing() -> None:
    poison = LITELLM | {"metadata": {"user_api_key_hash": ""}}
    first, again = (take([LITELLM, poison], "litellm", privacy=PRIVACY).refused[0] for _ in range(2))
    assert first == again and first.place == "litellm:2" and first.record != 0
    assert (
        first.record == take(json.dumps([1, poison], indent=2).encode(), "litellm", privacy=PRIVACY).refused[-1].record
    )
    other = take([LITELLM, poison], "litellm", privacy=Privacy(b"another key, as long as it")).refused[0]
    assert other.record != first.record
    assert first.record == int(PRIVACY.hash_strings(pa.array([json.dumps(poison, sort_keys=True)]), "record")[0])
    secret = str(LITELLM["messages"][-1]["content"])[:20]
    assert secret not in str(first)


def test_the_same_exchange_twice_in_a_body_is_a_duplicate() -> None:
    got = take([LITELLM, LITELLM, LITELLM | {"model_group": "other"}], "litellm")
    assert (got.kept, got.duplicates, got.rejected) == (1, 2, 0)


def test_an_unknown_route_is_the_callers_mistake() -> None:
    with pytest.raises(KeyError):
        receive(b"{}", "application/json", "", "nowhere")


# Fuzz: whatever comes, only BodyRefused comes out


def bodies() -> dict[str, list[tuple[bytes, str]]]:
    """Valid bodies of each route, to be mutated."""
    return {
        "litellm": [(json.dumps([LITELLM, SPENT]).encode(), "application/json"), (lines([LITELLM]), "application/x-ndjson")],
        "otlp/traces": [(json.dumps(d).encode(), "application/json") for d in (TRACES, OLD_TRACES)]
        + [(on_the_wire(d, "otlp/traces"), "application/x-protobuf") for d in (TRACES, OLD_TRACES)],
        "otlp/logs": [
            (json.dumps(LOGS).encode(), "application/json"),
            (on_the_wire(LOGS, "otlp/logs"), "application/x-protobuf"),
        ],
        "exchanges": [(lines(many(CANONICAL, "exchange_id", 3)), "application/x-ndjson"), (json.dumps([CANONICAL]).encode(), "")],
        "accounts": [(json.dumps([CREATED, LOGON]).encode(), "application/json")],
    }  # fmt: skip


VALID = bodies()
PIECES = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\0", b"\n", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"null", b"true",
          b"1e999", b"-0", b"NaN", b"9" * 30, b"[" * 300, b'{"a":' * 300,
          b"\x00\x01", b"\xfe\xff", b"{}", b"[]", b'""']  # fmt: skip


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The body with a few bytes changed, cut, doubled, or replaced by something that hurts."""
    text = bytearray(body)
    for _ in range(chance.randrange(1, 5)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((0, 1, 1, 4, 40)))
        doubled = bytes(text[start : start + 60])
        text[start:end] = chance.choice((b"", doubled, bytes([chance.randrange(256)]), chance.choice(PIECES)))
    return bytes(text)


def altered(body: bytes, chance: random.Random) -> bytes:
    """A body of JSON with some of its values replaced by ones of another kind."""
    odd: list[Any] = [None, True, 0, -1, 2**70, 0.5, math.nan, math.inf, "", "x", "\ud800", [], {}, [None], [[1], "a"], {"a": {}},
                      [{"b": 1}, 2], "[1]", '{"a": [{}]}', nested(100), "9" * 40,
                      {"": ""}, [{"role": []}], {"role": "user"}]  # fmt: skip

    def walk(node: Any) -> Any:
        if chance.random() < 0.04:
            return chance.choice(odd)
        if isinstance(node, list):
            return [walk(v) for v in node]
        return {k: walk(v) for k, v in node.items()} if isinstance(node, dict) else node

    return json.dumps(walk(json.loads(body))).encode()


def attempt(route: str, body: bytes, kind: str, encoding: str = "") -> None:
    """Receive, fingerprint and account for a body; anything but BodyRefused goes through to the test."""
    try:
        got = take(body, route, kind, encoding)
    except BodyRefused as e:
        assert e.status in (400, 413, 415)
        return
    for batch in got.batches:
        batch.validate(full=True)
        fingerprinted(batch, PRIVACY)
    got.accounts.validate(full=True)


def one_input(route: str, chance: random.Random) -> None:
    """One input of the fuzzer: arbitrary bytes, or a valid body mutated, in some encoding."""
    body, kind = chance.choice(VALID[route])
    how = chance.randrange(4)
    if how == 0:
        body = chance.randbytes(chance.randrange(200))
    elif how == 1 and kind in ("application/json", ""):
        body = altered(body, chance)
    else:
        body = mutated(body, chance)
    encoding = chance.choice(("", "", "", "gzip", "deflate"))
    if encoding:
        packed = gzip.compress(body, 1) if encoding == "gzip" else zlib.compress(body, 1)
        body = mutated(packed, chance) if chance.random() < 0.5 else packed
    attempt(route, body, kind, encoding)


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_arbitrary_bytes_are_refused_or_read(route: str) -> None:
    kinds = [k for k, v in KINDS.items() if v in ROUTES[route].kinds]

    @settings(max_examples=FUZZ, deadline=None)
    @given(st.binary(max_size=300), st.sampled_from(kinds), st.sampled_from(["", "gzip", "deflate", "x"]))
    def run(body: bytes, kind: str, encoding: str) -> None:
        attempt(route, body, kind, encoding)

    run()


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["account_id", "exchange_id", "time", "model", "metadata", "messages", "call_type", "startTime", "user",
                         "uid", "class_uid", "resourceSpans", "scopeSpans", "spans", "attributes", "key", "value",
                         "arrayValue", "values"]),
        inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_arbitrary_json_is_refused_or_read(route: str) -> None:
    @settings(max_examples=FUZZ, deadline=None)
    @given(JSON_VALUES)
    def run(value: Any) -> None:
        attempt(route, json.dumps(value).encode(), "application/json")

    run()


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_mutated_bodies_are_refused_or_read(route: str) -> None:
    @settings(max_examples=FUZZ, deadline=None)
    @given(st.integers(0, 2**64))
    def run(seed: int) -> None:
        one_input(route, random.Random(seed))

    run()


def test_the_fuzzer_reaches_what_it_should() -> None:
    # Were every mutation refused at the first look, the fuzzer would prove nothing.
    chance, kept = random.Random(5), 0
    for route in ROUTES:
        for _ in range(20):
            body, kind = chance.choice(VALID[route])
            try:
                kept += take(mutated(body, chance), route, kind).records > 0
            except BodyRefused:
                continue
    assert 20 < kept < 100
