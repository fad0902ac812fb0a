"""However a log is split into files, blocks and containers, the same rows come out; and what remembers the ids is
right.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stillwatch.adapters import Limits, Seen, read_exchanges
from stillwatch.adapters.intake.depth import MAX_DEPTH, deep_lines
from stillwatch.adapters.intake.times import to_utc

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SOME = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FULL = {"exchange_id", "time", "account_id", "model", "prompt", "input_tokens", "tools", "stream"}

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)
records = st.fixed_dictionaries({
    "exchange_id": st.integers(0, 25).map("e{}".format),
    "time": st.sampled_from(["2026-11-07T14:00:00Z", "2026-11-07 14:00:01", "1794060000", "1794060000123"]),
    "account_id": st.sampled_from(["a", "b"]),
    "model": st.just("m"),
    "prompt": texts,
    "input_tokens": st.none() | st.integers(0, 9),
    "tools": st.none() | st.lists(st.sampled_from(["x", "y"]), max_size=2),
    "stream": st.none() | st.booleans(),
})  # fmt: skip
broken = st.sampled_from(["{", "[1]", '{"exchange_id": 5, "prompt": {}}', "", "   ", '{"a": 1}{"b": 2}', '"text"'])


def read(path: Path, **limits: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    source = read_exchanges(path, now=NOW, limits=Limits(**limits) if limits else None)
    rows = [{k: v for k, v in row.items() if k in FULL} for batch in source for row in batch.to_pylist()]
    assert source.rows_read == source.rows_kept + sum(r.rows for r in source.rejects)
    return rows, {r.reason: r.rows for r in source.rejects}


def expected(log: list[dict[str, Any]]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    for record in log:
        first.setdefault(record["exchange_id"], record["prompt"])
    return list(first.items())


def pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(r["exchange_id"], r["prompt"]) for r in rows]


def write_parts(folder: Path, log: list[dict[str, Any]], cuts: list[int], kind: str) -> None:
    bounds = [0, *sorted(c % (len(log) + 1) for c in cuts), len(log)]
    for n, (start, end) in enumerate(pairwise(bounds)):
        part = log[start:end]
        path = folder / f"{n:03}.{kind}"
        if part and kind == "ndjson":
            path.write_text("".join(json.dumps(r) + "\n" for r in part), encoding="utf-8")
        elif part and kind == "parquet":
            types = {"tools": pa.list_(pa.string()), "stream": pa.bool_(), "input_tokens": pa.int64()}
            columns = {k: pa.array([r[k] for r in part], types.get(k)) for k in part[0]}
            pq.write_table(pa.table(columns), path, row_group_size=3)
        elif part:
            rows = [r | {"tools": None if r["tools"] is None else json.dumps(r["tools"])} for r in part]
            lines = [",".join(part[0]), *(",".join(_field(r[name]) for name in part[0]) for r in rows)]
            path.write_bytes("\n".join(lines).encode())


def _field(value: Any) -> str:
    """Quoted unless there is nothing: so empty text and no text differ."""
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'


@settings(SOME, max_examples=10, phases=[Phase.generate])  # shrinking reads dozens of files a step
@given(st.lists(records, min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=2), st.integers(200, 3000))
def test_any_split_gives_the_same_rows(log: list[dict[str, Any]], cuts: list[int], block: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        seen = []
        for kind in ("ndjson", "parquet", "csv"):
            whole, parts = Path(folder) / f"whole-{kind}", Path(folder) / f"parts-{kind}"
            whole.mkdir()
            parts.mkdir()
            write_parts(whole, log, [], kind)
            write_parts(parts, log, cuts, kind)
            seen += [read(whole), read(parts, block_bytes=block, batch_rows=7)]
    assert pairs(seen[0][0]) == expected(log)
    assert all(s == seen[0] for s in seen[1:])


@SOME
@given(st.lists(records.map(json.dumps) | broken, max_size=300), st.integers(100, 5000))
def test_broken_lines_cost_themselves_wherever_blocks_end(lines: list[str], block: int) -> None:
    good = [r for line in lines if (r := _good(line)) is not None]
    sound = json.dumps({"exchange_id": "z", "time": 1794060000, "account_id": "a", "model": "m", "prompt": ""})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.ndjson"
        path.write_text("\n".join([sound, *lines]), encoding="utf-8")
        rows, rejects = read(path, block_bytes=block)
        assert (rows, rejects) == read(path)
    assert pairs(rows) == [("z", ""), *expected(good)]
    bad = sum(bool(line.strip()) for line in lines) - len(good)
    assert sum(n for reason, n in rejects.items() if not reason.startswith("duplicate")) == bad


def _good(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "time" in record else None


moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))


@SOME
@given(st.lists(moments, min_size=1, max_size=20), st.integers(-14 * 60, 14 * 60))
def test_iso_times_are_read_as_python_reads_them(times: list[datetime], minutes: int) -> None:
    zone = timedelta(minutes=minutes)
    sign, total = ("-" if minutes < 0 else "+"), abs(minutes)
    texts = [f"{t.isoformat()}{sign}{total // 60:02}:{total % 60:02}" for t in times]
    read_back, failed = to_utc(pa.array(texts))
    assert not failed.any()
    epoch = datetime(1970, 1, 1)
    assert read_back.cast(pa.int64()).to_pylist() == [(t - zone - epoch) // timedelta(microseconds=1) for t in times]


@SOME
@given(st.lists(st.text(max_size=25), max_size=20))
def test_no_text_makes_a_time_or_a_crash(texts: list[str]) -> None:
    times, failed = to_utc(pa.array(texts, pa.string()))
    assert len(times) == len(texts)
    assert all(f or t is not None for f, t in zip(failed, times.cast(pa.int64()).to_pylist()))


def batch(ids: list[str], prompts: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"exchange_id": ids, "prompt": prompts, "n": [1] * len(ids)})


@SOME
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("pq")), max_size=200), st.integers(1, 50))
def test_seen_agrees_with_a_dict(stream: list[tuple[int, str]], size: int) -> None:
    seen, known, wanted, got = Seen(slots=2), dict[str, str](), [], []
    for start in range(0, len(stream), size):
        part = stream[start : start + size]
        ids, prompts = [f"id{i}" for i, _ in part], [p for _, p in part]
        rows = batch(ids, prompts)
        got += seen.mark(rows["exchange_id"], seen.content_hashes(rows)).tolist()
    for number, prompt in stream:
        name = f"id{number}"
        wanted.append(0 if name not in known else 1 if known[name] == prompt else 2)
        known.setdefault(name, prompt)
    assert got == wanted
    assert len(seen) == len(known)


def test_seen_holds_ten_million_ids_in_300_mb() -> None:
    seen = Seen()
    seen._reserve(10_000_000)
    half = seen.nbytes / 2
    assert seen.nbytes + half < 300e6, "the table and, while it grows, the one before"


def test_contents_differ_by_any_byte_and_column() -> None:
    base = {"exchange_id": "e", "prompt": "x" * 37, "n": 5, "stream": None, "temperature": 0.5}
    changes: list[dict[str, Any]] = [{"prompt": "x" * i + "y" + "x" * (36 - i)} for i in range(37)]
    changes += [{"prompt": "x" * 38}, {"prompt": None}, {"n": 6}, {"n": None}, {"stream": True}, {"temperature": 0.25}]
    rows = pa.RecordBatch.from_pylist([base, base, *(base | c for c in changes)])
    hashes = Seen().content_hashes(rows)
    assert hashes[0] == hashes[1]
    assert len(np.unique(hashes)) == len(changes) + 1


def test_deep_lines_are_found_and_brackets_in_text_are_not() -> None:
    deep = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
    text = json.dumps({"a": "[" * 1000 + '"{{{' * 100}).encode()
    just = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert deep_lines(b"\n".join([text, deep, just, b'{"a": [[[1]]]}', text, deep, b""])).tolist() == [1, 5]
