"""Each adapter reads its captured line; the row that comes of it is compared in full."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from stillwatch.adapters import Source, coverage_card, read_exchanges
from stillwatch.errors import InputRejected, UsageError
from stillwatch.tables import EXCHANGES

DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
KEY_HASH = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"


def at(hour: int, minute: int = 0, second: int = 0, us: int = 0) -> datetime:
    return datetime(2026, 11, 7, hour, minute, second, us, tzinfo=UTC)


def log(path: Path, **options: Any) -> Source:
    return read_exchanges(path, now=NOW, **options)


def rows(source: Source) -> list[dict[str, Any]]:
    """All rows, without their nulls."""
    batches = list(source)
    assert all(b.schema.equals(EXCHANGES.schema) for b in batches)
    return [{k: v for k, v in row.items() if v is not None} for b in batches for row in b.to_pylist()]


CAPTURED: dict[str, tuple[str, dict[str, Any]]] = {
    "canonical": ("ndjson", {
        "exchange_id": "ex-1", "time": at(14), "account_id": "acct-1", "model": "large", "ip": "203.0.113.5",
        "asn": 64500,
        "country": "DE", "user_agent": "sdk/1", "turn": 0, "prompt": "Hello", "response": "Hi", "tools": ["bash"],
        "input_tokens": 3, "output_tokens": 1, "temperature": 0.5, "stream": True, "status": 200,
    }),
    "litellm": ("litellm", {
        "exchange_id": "b1f6a7de-52c9-4a1e-9a0b-1f2e3d4c5b6a", "time": at(10, us=250_000), "account_id": KEY_HASH,
        "end_user": "user-0173", "channel": "api", "model": "large", "ip": "203.0.113.24",
        "user_agent": "OpenAI/Python 3.54.0", "conversation_id": "sess-4411", "turn": 2,
        "system": "You are a careful tutor.", "prompt": "Explain this figure.", "response": "It shows a sieve.",
        "tools": ["lookup"], "images": 1, "input_tokens": 212, "output_tokens": 96, "reasoning_tokens": 40,
        "max_tokens": 512, "temperature": 0.7, "n": 1, "logprobs": True, "thinking": True, "stream": True,
        "status": 200,
        "stop_reason": "stop",
    }),
    "litellm_spendlogs": ("litellm", {
        "exchange_id": "chatcmpl-91ab", "time": at(9, 30, us=125_000), "account_id": KEY_HASH, "end_user": "",
        "channel": "api", "model": "small", "ip": "198.51.100.7", "user_agent": "curl/8.9", "conversation_id": "sess-2",
        "turn": 0, "prompt": "Translate: hello", "response": "Grüß dich.", "images": 0, "input_tokens": 40,
        "output_tokens": 21, "max_tokens": 21, "temperature": 0.0, "status": 200, "stop_reason": "length",
    }),
    "otlp_traces": ("otlp", {
        "exchange_id": "msg_01x", "time": at(10, us=250_000), "account_id": "acct-42", "end_user": "p-55",
        "channel": "api",
        "model": "sonnet-x", "ip": "2001:db8::7", "user_agent": "anthropic-sdk/2.12",
        "ja4": "t13d1516h2_8daaf6152771_02713d6af862", "conversation_id": "conv-7", "turn": 2,
        "system": "Answer briefly.", "prompt": "List three rivers.", "response": "Rhine, Elbe, Oder.",
        "tools": ["search"], "images": 0, "input_tokens": 321, "output_tokens": 77, "reasoning_tokens": 12,
        "max_tokens": 1024, "temperature": 0.2, "stream": False, "status": 200, "stop_reason": "end_turn",
    }),
    "otlp_traces_old": ("otlp", {
        "exchange_id": "bbb19b7ec3c1b176", "time": at(10, 1, 40), "account_id": "acct-7", "channel": "api",
        "model": "gpt-old", "turn": 0, "system": "Be kind.", "prompt": "Hello there", "response": "Hello!",
        "tools": ["weather"], "images": 0, "input_tokens": 9, "output_tokens": 4, "stream": True, "stop_reason": "stop",
    }),
    "otlp_logs": ("otlp", {
        "exchange_id": "ccc19b7ec3c1b177", "time": at(10, 3, 20), "account_id": "anon-3", "end_user": "anon-3",
        "channel": "api", "model": "gpt-new", "turn": 0, "prompt": "Name a colour.", "response": "Blue.", "images": 0,
        "input_tokens": 15, "output_tokens": 3, "n": 4, "stop_reason": "stop",
    }),
    "anthropic": ("anthropic", {
        "exchange_id": "req_011", "time": at(10), "account_id": "acct-100", "end_user": "user_abc", "model": "opus-y",
        "ip": "192.0.2.9", "user_agent": "claude-cli/3.1", "turn": 2, "system": "You write code.\nBe terse.",
        "prompt": "Fix the failing test.", "response": "The import is wrong.", "tools": ["bash", "web_search"],
        "images": 1, "input_tokens": 900, "output_tokens": 120, "reasoning_tokens": 64, "max_tokens": 4096,
        "temperature": 1.0, "thinking": True, "stream": True, "status": 200, "stop_reason": "tool_use",
    }),
    "anthropic_batch": ("anthropic", {
        "exchange_id": "acct-101:msgbatch_01:q-0001", "time": at(10), "account_id": "acct-101", "model": "haiku-z",
        "turn": 0, "system": "Grade the answer from 1 to 5.", "prompt": "Question: 2+2? Answer: 4", "images": 0,
        "max_tokens": 300, "stream": False, "batch": True,
    }),
    "openai_chat": ("openai", {
        "exchange_id": "chatcmpl-200", "time": at(10), "account_id": "acct-200", "end_user": "si-1", "model": "gpt-new",
        "ip": "2001:db8::9", "user_agent": "OpenAI/JS 6.1.0", "turn": 0, "system": "Reply in JSON.",
        "prompt": "Sort 3,1,2", "response": "[1,2,3]\n[1, 2, 3]", "tools": ["sort_list"], "images": 0,
        "input_tokens": 20, "output_tokens": 14, "reasoning_tokens": 0, "max_tokens": 64, "n": 2, "logprobs": True,
        "thinking": False, "status": 200, "stop_reason": "stop",
    }),
    "openai_responses": ("openai", {
        "exchange_id": "resp_201", "time": at(12), "account_id": "acct-201", "model": "gpt-new", "ip": "203.0.113.77",
        "turn": 0, "system": "Be exact.", "prompt": "What is in the picture?", "response": "A bridge.",
        "tools": ["web_search", "crop"], "images": 1, "input_tokens": 800, "output_tokens": 50, "reasoning_tokens": 30,
        "max_tokens": 500, "logprobs": True, "thinking": True, "stream": False, "status": 200,
        "stop_reason": "completed",
    }),
    "openai_batch": ("openai", {
        "exchange_id": "acct-202:batch_7:task-1", "time": at(11), "account_id": "acct-202", "model": "gpt-small",
        "turn": 0, "system": "Rewrite politely.", "prompt": "Send it now.", "images": 0, "max_tokens": 100,
        "temperature": 0.3, "stream": False, "batch": True,
    }),
    "envoy": ("envoy", {
        "exchange_id": "6f1c7a52-1f0e-4c53-9f55-000000000001", "time": at(13, us=1000), "account_id": "tenant-8",
        "channel": "api", "model": "large", "ip": "198.51.100.20", "user_agent": "python-httpx/0.28.1",
        "conversation_id": "agent-9", "input_tokens": 33, "output_tokens": 44, "reasoning_tokens": 5, "status": 200,
    }),
}  # fmt: skip

UNKNOWN = {"otlp_traces": {"deployment.ring": 1}, "openai_chat": {"request.x_trace": 1}, "envoy": {"x-region": 1}}


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in wanted.items()}


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_line(name: str) -> None:
    adapter, wanted = CAPTURED[name]
    source = log(DATA / f"{name}.ndjson")
    (row,) = rows(source)
    same(row, wanted)
    assert dict(source.formats) == {adapter: 1}
    assert source.rejects == []
    assert source.unknown == UNKNOWN.get(name, {})


def test_every_captured_line_is_tried_and_every_adapter_has_one() -> None:
    from stillwatch.plugins import discover

    assert {p.stem for p in DATA.glob("*.ndjson")} == set(CAPTURED)
    assert {a for a, _ in CAPTURED.values()} | {"parquet", "csv"} == set(discover("adapters"))


def test_a_folder_of_mixed_formats() -> None:
    source = log(DATA)
    assert len(rows(source)) == source.rows_kept == len(CAPTURED)
    assert source.formats == {"ndjson": 1, "litellm": 2, "otlp": 3, "anthropic": 2, "openai": 3, "envoy": 1}
    assert source.bytes_done == source.bytes_total > 0


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


LITELLM = (DATA / "litellm.ndjson").read_text()


@pytest.mark.parametrize("name, make", {
    "json array on one line": lambda: f"[{LITELLM.strip()}]\n",
    "a JSON array a line": lambda: f"[{LITELLM.strip()}]\n[{LITELLM.strip().replace('b1f6a7de', 'c2')}]\n",
    "single, pretty": lambda: json.dumps(json.loads(LITELLM), indent=2),
    "array, pretty": lambda: json.dumps([json.loads(LITELLM)], indent=2),
    "array, pretty, with a byte order mark": lambda: "\ufeff" + json.dumps([json.loads(LITELLM)], indent=2),
}.items())  # fmt: skip
def test_litellm_in_all_log_formats(tmp_path: Path, name: str, make: Any) -> None:
    got = rows(log(write(tmp_path / "x.json", make())))
    same(got[0], CAPTURED["litellm"][1])


def test_spend_logs_as_csv_and_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([json.loads((DATA / "litellm_spendlogs.ndjson").read_text())])
    pq.write_table(table, tmp_path / "dump.parquet")
    pacsv.write_csv(table.drop_columns(["organization_id"]), tmp_path / "dump.csv")
    for name in ("dump.parquet", "dump.csv"):
        source = log(tmp_path / name)
        (row,) = rows(source)
        same({"end_user": ""} | row, CAPTURED["litellm_spendlogs"][1])
        assert dict(source.formats) == {"litellm": 1}


CANONICAL = json.loads((DATA / "canonical.ndjson").read_text())


def canonical(count: int) -> list[dict[str, Any]]:
    return [CANONICAL | {"exchange_id": f"ex-{i}", "prompt": f"Hello {i}, “quoted”,\nline"} for i in range(count)]


def ndjson(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(r) + "\n" for r in records)


def test_canonical_containers_agree(tmp_path: Path) -> None:
    records = canonical(50)
    text = ndjson(records)
    wanted = rows(log(write(tmp_path / "a.ndjson", text)))
    assert len(wanted) == 50
    assert wanted[7]["prompt"] == "Hello 7, “quoted”,\nline"
    write(tmp_path / "b.ndjson.gz", gzip.compress(text[:9000].encode()) + gzip.compress(text[9000:].encode()))
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(text.encode())
    write(tmp_path / "c.ndjson.zst", sink.getvalue().to_pybytes())
    table = pa.Table.from_pylist(records)
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=17)
    flat = [r | {"tools": json.dumps(r["tools"])} for r in records]
    pacsv.write_csv(pa.Table.from_pylist(flat), tmp_path / "e.csv")
    write(tmp_path / "f.csv.gz", gzip.compress((tmp_path / "e.csv").read_bytes()))
    for name in ("b.ndjson.gz", "c.ndjson.zst", "d.parquet", "e.csv", "f.csv.gz"):
        source = log(tmp_path / name)
        assert rows(source) == wanted, name
        assert source.rejects == source.notes == []


def test_parquet_in_other_types(tmp_path: Path) -> None:
    wanted = rows(log(DATA / "canonical.ndjson"))
    stamp = int(at(14).timestamp())
    types: dict[str, list[Any]] = {
        "exchange_id": [pa.array(["ex-1"], pa.large_string())],
        "time": [
            pa.array([stamp], pa.timestamp("s")),
            pa.array([stamp * 10**9], pa.timestamp("ns", "Europe/Berlin")),
            pa.array([stamp * 1000], pa.int64()),
            pa.array([float(stamp)], pa.float64()),
            pa.array(["2026-11-07 15:00:00+01"]),
        ],
        "account_id": [pa.array(["acct-1"]).dictionary_encode(), pa.array(["acct-1"], pa.string_view())],
        "model": [pa.array([b"large"], pa.binary())],
        "asn": [pa.array([64500], pa.uint64()), pa.array(["64500"]), pa.array([64500.0])],
        "turn": [pa.array([0], pa.uint8())],
        "stream": [pa.array([1], pa.int8()), pa.array(["true"])],
        "temperature": [pa.array([0.5], pa.float16()), pa.array(["0.5"])],
        "tools": [
            pa.array([["bash"]], pa.large_list(pa.large_string())),
            pa.array(['["bash"]']),
            pa.array(['[{"type": "function", "function": {"name": "bash"}}]']),
            pa.array([[{"name": "bash"}]]),
            pa.array(["bash"]),
        ],
    }
    plain = {k: pa.array([v]) for k, v in CANONICAL.items()}
    for column, spellings in types.items():
        for n, spelling in enumerate(spellings):
            path = tmp_path / f"{column}{n}.parquet"
            pq.write_table(pa.table(plain | {column: spelling}), path)
            assert rows(log(path)) == wanted, (column, spelling.type)


def test_numbers_as_ids_keep_to_the_fast_way(tmp_path: Path) -> None:
    records = [CANONICAL | {"exchange_id": i, "account_id": 7} for i in range(300)]
    got = rows(log(write(tmp_path / "x.ndjson", ndjson(records))))
    assert [r["exchange_id"] for r in got] == [str(i) for i in range(300)]
    assert {r["account_id"] for r in got} == {"7"}


def test_unknown_fields_of_any_shape_are_counted(tmp_path: Path) -> None:
    shapes: list[Any] = [1, "x", [1, "a"], {"a": 1}, {"a": "b"}, None]
    records = [r | {"extra": shapes[i % 6], "note": 1} for i, r in enumerate(canonical(600))]
    source = log(write(tmp_path / "x.ndjson", ndjson(records)))
    assert len(rows(source)) == 600
    assert source.unknown["note"] == 600
    assert source.unknown["extra"] in (500, 600)


def test_standard_input() -> None:
    code = (
        "from pathlib import Path; from stillwatch.adapters import read_exchanges;"
        "from datetime import datetime, UTC\n"
        "s = read_exchanges(Path('-'), now=datetime(2026, 12, 1, tzinfo=UTC))\n"
        "print(sum(len(b) for b in s), s.bytes_total)"
    )
    text = ndjson(canonical(5000))
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["5000", "0"]


def test_batches_are_bounded_and_progress_is_told(tmp_path: Path) -> None:
    from stillwatch.adapters import Limits

    write(tmp_path / "x.ndjson", ndjson(canonical(1000)))
    seen: list[int] = []
    limits = Limits(batch_rows=100, batch_bytes=20_000, block_bytes=30_000)
    source = log(tmp_path, progress=lambda s: seen.append(s.rows_kept), limits=limits)
    assert source.estimated_rows == pytest.approx(1000, rel=0.1)
    batches = list(source)
    assert max(len(b) for b in batches) <= 100
    assert max(b.nbytes for b in batches) <= 20_000
    assert sum(len(b) for b in batches) == seen[-1] == 1000
    assert source.bytes_done == source.bytes_total


def test_iterating_again_counts_anew(tmp_path: Path) -> None:
    source = log(write(tmp_path / "x.ndjson", ndjson(canonical(10))))
    assert rows(source) == rows(source)
    assert (source.rows_read, source.rows_kept, source.rejects) == (10, 10, [])


def test_coverage_card() -> None:
    card = coverage_card(log(DATA))
    by_name = {c.column: c for c in card.columns}
    assert list(by_name) == EXCHANGES.names
    assert by_name["account_id"].share == 1
    assert (by_name["ja4"].rows, by_name["ja4"].meaning) == (1, "TLS client fingerprint")
    assert card.unknown == {"deployment.ring": 1, "request.x_trace": 1, "x-region": 1}
    assert card.rows_read == card.rows_kept == len(CAPTURED)


def test_a_forced_adapter_and_an_unknown_one(tmp_path: Path) -> None:
    assert len(rows(log(DATA / "envoy.ndjson", adapter="envoy"))) == 1
    with pytest.raises(InputRejected, match="a record that is none of envoy's"):
        rows(log(DATA / "anthropic.ndjson", adapter="envoy"))
    with pytest.raises(UsageError, match="no adapter named 'envy'"):
        log(tmp_path, adapter="envy")
