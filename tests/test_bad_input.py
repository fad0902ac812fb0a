"""Every kind of bad input: what is said of it, where, and that the good rows around it are still read."""

from __future__ import annotations

import errno
import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.adapters import Limits, Source, read_accounts, read_exchanges, read_models
from stillwatch.errors import InputRejected

NOW = datetime(2026, 12, 1, tzinfo=UTC)
GOOD: dict[str, Any] = {"time": "2026-11-07T14:00:00Z", "account_id": "a", "model": "m", "prompt": "p"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages show paths as they were given: short ones here."""
    monkeypatch.chdir(tmp_path)


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {"exchange_id": f"e{number}"} | GOOD | changes


def ndjson(*records: dict[str, Any] | str | bytes, name: str = "log.ndjson") -> Path:
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in records]
    Path(name).write_bytes(b"\n".join(lines) + b"\n")
    return Path(name)


def read(path: Path | str, **options: Any) -> tuple[list[dict[str, Any]], Source]:
    source = read_exchanges(Path(path), now=NOW, **options)
    rows = [row for batch in source for row in batch.to_pylist()]
    in_rows = sum(r.rows for r in source.rejects)
    assert source.rows_read == source.rows_kept + in_rows, "each row ends in one place"
    return rows, source


def rejects(source: Source) -> list[str]:
    return [str(r) for r in source.rejects]


def refused(path: Path | str, **options: Any) -> str:
    with pytest.raises(InputRejected) as caught:
        read(path, **options)
    assert caught.value.exit_code == 3
    return str(caught.value)


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [r["exchange_id"] for r in rows]


# Files that cannot be read


def test_no_such_file() -> None:
    assert refused("gone.parquet") == (
        "gone.parquet: no such file or folder\n  hint: give the log's file or folder, or - for standard input"
    )


def test_neither_file_nor_folder() -> None:
    os.mkfifo("pipe")
    assert refused("pipe") == (
        "pipe: neither a file nor a folder\n  hint: pipe it in instead, and give - as the log"
    )  # fmt: skip


def test_empty_file() -> None:
    Path("log.ndjson").touch()
    assert refused("log.ndjson") == (
        "log.ndjson: nothing in it can be judged, 0 rows read\n"
        "  log.ndjson: the file is empty (0 rows)\n"
        "    hint: was it written to the end?"
    )


def test_empty_folder() -> None:
    Path("logs").mkdir()
    Path("logs/.hidden.ndjson").write_text("{}")
    assert refused("logs") == (
        "logs: the folder holds no files\n  hint: give a folder with Parquet, NDJSON or CSV files"
    )  # fmt: skip


def parquet(name: str, *records: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(list(records)), name, **options)
    return Path(name)


def test_truncated_parquet() -> None:
    whole = parquet("log.parquet", *(record(i) for i in range(100))).read_bytes()
    Path("log.parquet").write_bytes(whole[:-100])
    assert (
        "  log.parquet: a Parquet file that was cut off or damaged (0 rows)\n    hint: write or copy it again"
        in refused("log.parquet")
    )


def test_damaged_row_group_costs_itself() -> None:
    path = parquet("log.parquet", *(record(i) for i in range(300)), row_group_size=100, compression="gzip")
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[at + 30 : at + 200] = b"\xff" * 170
    path.write_bytes(data)
    rows, source = read(path)
    assert ids(rows) == [f"e{i}" for i in (*range(100), *range(200, 300))]
    (reject,) = source.rejects
    assert (reject.rows, reject.place) == (100, "log.parquet:101")
    assert reject.reason.startswith("a damaged row group: ")


def test_text_named_parquet() -> None:
    Path("log.parquet").write_text("an error page of some proxy")
    assert (
        "  log.parquet: not a Parquet file, in spite of its name (0 rows)\n"
        "    hint: text must be NDJSON or CSV under another name than .parquet"
    ) in refused("log.parquet")


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    ndjson(record(1))
    if os.geteuid() == 0:
        # The superuser may read everything, so the system's answer is put in its mouth.
        plain = Path.open

        def denied(self: Path, *args: Any, **options: Any) -> Any:
            if self.name == "log.ndjson":
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return plain(self, *args, **options)

        monkeypatch.setattr(Path, "open", denied)
    else:
        Path("log.ndjson").chmod(0)
    assert "  log.ndjson: no permission to read it (0 rows)\n    hint: check the file's owner and mode" in refused(
        "log.ndjson"
    )


def test_truncated_gzip_keeps_what_came_before() -> None:
    text = b"".join(json.dumps(record(i, prompt=os.urandom(40).hex())).encode() + b"\n" for i in range(3000))
    Path("log.ndjson.gz").write_bytes(gzip.compress(text)[:-2000])
    rows, source = read("log.ndjson.gz", limits=Limits(block_bytes=50_000))
    assert 2000 < len(rows) < 3000
    assert rejects(source) == [
        "log.ndjson.gz: cannot be read on: Truncated compressed stream (0 rows)\n"
        "  hint: it looks cut off or damaged; write or copy it again"
    ]


def test_gzip_bomb() -> None:
    Path("log.ndjson.gz").write_bytes(gzip.compress(json.dumps(record(1)).encode() + b"\n" + b" " * 30_000_000))
    rows, source = read("log.ndjson.gz", limits=Limits(ratio_from_bytes=1_000_000, block_bytes=100_000))
    assert ids(rows) == ["e1"]
    assert rejects(source) == [
        "log.ndjson.gz: inflates to over 200 times its size, like a decompression bomb; the rest was not read (0 rows)\n"
        "  hint: unpack it by hand if you trust it, or raise the limit `max_ratio`"
    ]
    assert read("log.ndjson.gz", limits=Limits(max_ratio=5000))[1].rejects == []


def test_gzip_bomb_by_default_limits() -> None:
    Path("log.ndjson.gz").write_bytes(gzip.compress(b'{"exchange_id": "' + b"x" * 100_000_000, 1))
    assert "inflates to over 200 times its size" in refused("log.ndjson.gz")


def test_file_larger_than_allowed() -> None:
    ndjson(*(record(i) for i in range(2000)))
    rows, source = read("log.ndjson", limits=Limits(file_bytes=100_000, block_bytes=10_000))
    assert 900 < len(rows) < 1500
    assert rejects(source) == [
        "log.ndjson: holds more than 100,000 bytes; the rest was not read (0 rows)\n"
        "  hint: split the file, or raise the limit `file_bytes`"
    ]


def test_a_bad_file_among_good_ones() -> None:
    Path("logs/deep").mkdir(parents=True)
    ndjson(record(1), name="logs/a.ndjson")
    Path("logs/b.ndjson").touch()
    Path("logs/c.parquet").write_bytes(b"PAR1 and then nothing")
    Path("logs/d.bin").write_bytes(bytes(range(256)))
    ndjson(record(2), name="logs/deep/e.ndjson")
    rows, source = read("logs")
    assert ids(rows) == ["e1", "e2"]
    assert sorted((r.place, r.reason) for r in source.rejects) == [
        ("logs/b.ndjson", "the file is empty"),
        ("logs/c.parquet", "a Parquet file that was cut off or damaged"),
        ("logs/d.bin", "no adapter knows this format"),
    ]


def test_all_faults_of_a_folder_are_gathered() -> None:
    Path("logs").mkdir()
    Path("logs/a.ndjson").touch()
    ndjson(record(1, time=5), name="logs/b.ndjson")
    message = refused("logs")
    assert message.startswith("logs: nothing in it can be judged, 1 row read\n")
    assert "  logs/a.ndjson: the file is empty" in message
    assert "  logs/b.ndjson:1: time lies before 2015 (1 row)" in message


# Columns


def test_missing_required_columns() -> None:
    ndjson({"id": "1", "timestamp": 1, "user_id": "a", "model": "m", "prompt": "p"})
    assert refused("log.ndjson") == (
        "log.ndjson: nothing in it can be judged, 0 rows read\n"
        "  log.ndjson: no columns exchange_id, time, account_id (found: id, model, prompt, timestamp, user_id) (0 rows)\n"
        "    hint: if they are there under other names, say so in a field map under [columns]: "
        'exchange_id = "id"; time = "timestamp"; account_id = "user_id", and pass --map FILE'
    )


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_missing_required_column_in_other_containers(name: str) -> None:
    if name == "log.csv":
        Path(name).write_text("exchange_id,time,model,acount_id\n1,2,3,4\n")
    else:
        parquet(name, {"exchange_id": "1", "time": 2, "model": "3", "acount_id": "4"})
    message = refused(name)
    assert f"  {name}: no column account_id (found: acount_id, exchange_id, model, time)" in message
    assert 'account_id = "acount_id"' in message


def test_unknown_columns_are_counted_not_dropped_in_silence() -> None:
    _, source = read(ndjson(record(1, colour="red"), record(2), record(3, colour="blue", size=3)))
    assert source.unknown == {"colour": 2, "size": 1}
    _, source = read(parquet("log.parquet", record(1, colour="red"), record(2, colour=None)))
    assert source.unknown == {"colour": 2}


def test_names_without_bound_do_not_fill_memory() -> None:
    records = [record(i) | {f"k{i}": 1} for i in range(1500)]
    _, source = read(ndjson(*records))
    assert len(source.unknown) == 1001
    assert sum(source.unknown.values()) == 1500


# Rows


def test_broken_lines() -> None:
    good = [record(i) for i in range(500)]
    path = ndjson(
        *good[:100], '{"exchange_id": "cut off', *good[100:300], "[1, 2]", "", "nonsense", *good[300:], "{}{}"
    )
    rows, source = read(path)
    assert ids(rows) == [f"e{i}" for i in range(500)]
    assert rejects(source) == [
        "log.ndjson:101: broken JSON (3 rows)\n  hint: each line must be one whole JSON object",
        "log.ndjson:302: a line that is no JSON object (1 row)\n  hint: each line must be one whole JSON object",
    ]


def test_line_numbers_after_a_byte_order_mark_and_blank_lines() -> None:
    rows, source = read(
        ndjson(b"\xef\xbb\xbf" + json.dumps(record(1)).encode(), "", "  ", record(2), record(3, time="?"))
    )
    assert ids(rows) == ["e1", "e2"]
    assert source.rejects[0].place == "log.ndjson:5"


def test_deep_nesting_is_one_broken_line() -> None:
    rows, source = read(ndjson(record(1), '{"a":' * 100_000 + "1" + "}" * 100_000, record(2)))
    assert ids(rows) == ["e1", "e2"]
    assert source.rejects[0].place == "log.ndjson:2"


def test_a_line_without_end() -> None:
    path = ndjson(record(1), '{"prompt": "' + "x" * 300_000, record(2))
    rows, source = read(path, limits=Limits(line_bytes=100_000, block_bytes=10_000))
    assert ids(rows) == ["e1", "e2"]
    assert rejects(source) == ["log.ndjson:2: a record over 100,000 bytes (1 row)"]


def test_wrong_types() -> None:
    rows, source = read(ndjson(
        record(1, input_tokens="many"), record(2, input_tokens=1.5), record(3, input_tokens="12"),
        record(4, turn=70_000), record(5, stream="perhaps"), record(6, temperature="warm"), record(7, prompt=["a"]),
        record(8, tools={"a": 1}), record(9, tools='["a"]', stream="yes", temperature="0.5"), record(10, account_id=5),
    ))  # fmt: skip
    assert ids(rows) == ["e3", "e9", "e10"]
    assert (rows[0]["input_tokens"], rows[1]["tools"], rows[1]["stream"]) == (12, ["a"], True)
    assert rows[2]["account_id"] == "5"
    assert {(r.reason, r.rows, r.place) for r in source.rejects} == {
        ("input_tokens is not a whole number that fits 32 bits", 2, "log.ndjson:1"),
        ("turn is not a whole number that fits 16 bits", 1, "log.ndjson:4"),
        ("stream is not true or false", 1, "log.ndjson:5"),
        ("temperature is not a number", 1, "log.ndjson:6"),
        ("prompt is not text", 1, "log.ndjson:7"),
        ("tools is not a list of names", 1, "log.ndjson:8"),
    }


def test_wrong_types_in_parquet() -> None:
    path = parquet(
        "log.parquet", record(1, input_tokens="3"), record(2, input_tokens="x"), record(3, input_tokens=None)
    )
    rows, source = read(path)
    assert [r["input_tokens"] for r in rows] == [3, None]
    assert source.rejects[0].place == "log.parquet:2"


def test_csv_rows_of_another_width() -> None:
    Path("log.csv").write_text(
        "exchange_id,time,account_id,model,prompt\n"
        'e1,2026-11-07,a,m,"two\nlines, one ""field"""\n'
        "e2,2026-11-07,a,m\n"
        "\n"
        "e3,2026-11-07,a,m,x,y\n"
        'e4,2026-11-07,a,m,""\n'
        "e5,2026-11-07,a,m,\n"
        "e6,yesterday,a,m,\n"
    )
    rows, source = read("log.csv")
    assert [(r["exchange_id"], r["prompt"]) for r in rows] == [
        ("e1", 'two\nlines, one "field"'), ("e4", ""), ("e5", None),
    ]  # fmt: skip
    assert rejects(source) == [
        "log.csv:4: wrong number of fields (2 rows)\n"
        "  hint: each line must have as many fields as the first; a field with the delimiter or a quote in it is quoted",
        "log.csv:9: time is not a time (1 row)\n"
        "  hint: times are ISO 8601, or seconds, ms, us or ns since 1970; no zone means UTC",
    ]


def test_empty_and_missing_required_values() -> None:
    rows, source = read(ndjson(
        record(1, account_id=""), record(2, account_id=None), record(3, model=""), dict(GOOD),
        record(5, time=None), record(6, time=""), record(7),
    ))  # fmt: skip
    assert ids(rows) == ["e7"]
    assert {(r.reason, r.rows, r.place) for r in source.rejects} == {
        ("account_id is missing", 2, "log.ndjson:1"),
        ("model is missing", 1, "log.ndjson:3"),
        ("exchange_id is missing", 1, "log.ndjson:4"),
        ("time is missing", 2, "log.ndjson:5"),
    }


MOMENT = datetime(2026, 11, 7, 14, 0, 0, 250_000, tzinfo=UTC)
SECONDS = 1_794_060_000


@pytest.mark.parametrize("spelling", [
    SECONDS + 0.25, SECONDS * 1000 + 250, SECONDS * 10**6 + 250_000, SECONDS * 10**9 + 250_000_000,
    f"{SECONDS}.25", f"{SECONDS * 1000 + 250}", "2026-11-07T14:00:00.25Z", "2026-11-07T14:00:00.250",
    "2026-11-07 14:00:00.250000", "2026-11-07T15:00:00.25+01:00", "2026-11-07 09:00:00.250-0500",
    "2026-11-07T14:00:00.25+00", " 2026-11-07T14:00:00,250 UTC ", "2026-11-07t14:00:00.250000001z",
], ids=str)  # fmt: skip
def test_times_in_every_spelling(spelling: Any) -> None:
    rows, _ = read(ndjson(record(1, time=spelling)))
    assert rows[0]["time"] == MOMENT


def test_times_mixed_in_one_file() -> None:
    spellings: list[Any] = [SECONDS, SECONDS * 1000, str(SECONDS), "2026-11-07T14:00:00Z", float(SECONDS)] * 50
    rows, source = read(ndjson(*(record(i, time=t) for i, t in enumerate(spellings))))
    assert {r["time"] for r in rows} == {MOMENT.replace(microsecond=0)}
    assert source.rejects == []


@pytest.mark.parametrize(
    "spelling",
    ["soon", "2026-13-01", "2026-02-30T00:00:00Z", "2026-11-07T25:00:00", "07/11/2026", True, "1e9", "2026-11-07T"],
)
def test_times_that_are_none(spelling: Any) -> None:
    rows, source = read(ndjson(record(1), record(2, time=spelling)))
    assert ids(rows) == ["e1"]
    assert [(r.reason, r.place) for r in source.rejects] == [("time is not a time", "log.ndjson:2")]


def test_times_in_the_future_and_long_ago() -> None:
    rows, source = read(ndjson(
        record(1, time=(NOW + timedelta(hours=23)).isoformat()),
        record(2, time=(NOW + timedelta(hours=25)).isoformat()),
        record(3, time=0), record(4, time="1970-01-01T00:00:00Z"), record(5, time="9999-12-31T00:00:00Z"),
        record(6, time="2015-01-01"), record(7, time=-5),
    ))  # fmt: skip
    assert ids(rows) == ["e1", "e6"]
    assert rejects(source) == [
        "log.ndjson:3: time lies before 2015 (3 rows)\n"
        "  hint: times are ISO 8601, or seconds, ms, us or ns since 1970; no zone means UTC",
        "log.ndjson:2: time lies in the future (2 rows)\n"
        "  hint: check the clock that wrote the log, and the unit of its times",
    ]  # fmt: skip


def test_duplicates() -> None:
    Path("logs").mkdir()
    ndjson(record(1), record(2), record(1), record(2, prompt="other"), name="logs/a.ndjson")
    ndjson(record(3), record(2), name="logs/b.ndjson")
    rows, source = read("logs")
    assert [(r["exchange_id"], r["prompt"]) for r in rows] == [("e1", "p"), ("e2", "p"), ("e3", "p")]
    assert rejects(source) == [
        "logs/a.ndjson:3: duplicate (2 rows)",
        "logs/a.ndjson:4: duplicate exchange_id with different content (1 row)",
    ]


# Text


def test_nul_bytes_and_broken_utf8_are_replaced_not_lost() -> None:
    raw = json.dumps(record(1, prompt="PP", account_id="AA")).encode()
    rows, source = read(ndjson(
        raw.replace(b"PP", b"x\xff\xfey").replace(b"AA", b"a\xff"), record(2, prompt="x\0y", account_id="a\0"),
        raw.replace(b"e1", b"e3").replace(b"PP", b"x\0y").replace(b"AA", b"a"), record(4, prompt="ü"),
        raw.replace(b"e1", b"e5").replace(b"PP", b"\\ud800"),
    ))  # fmt: skip
    assert [r["prompt"].replace("\ufffd", "?") for r in rows] == ["x??y", "x?y", "x?y", "ü", "???"]
    assert [r["account_id"] for r in rows] == ["a\\xff", "a\\x00", "a", "a", "AA"]
    assert source.rejects == []
    assert {(n.reason, n.rows) for n in source.notes} == {
        ("prompt: invalid UTF-8 in text, replaced", 2),
        ("account_id: invalid UTF-8 in text, replaced", 1),
        ("prompt: NUL bytes in text, replaced", 1),
        ("account_id: NUL bytes in text, replaced", 1),
        ("NUL bytes in a line, replaced", 1),
    }


def test_broken_utf8_in_parquet_and_csv() -> None:
    columns = {k: pa.array([v, v], pa.string()) for k, v in GOOD.items()} | {"exchange_id": pa.array(["e1", "e2"])}
    columns["prompt"] = pa.array([b"a\xff", b"b"], pa.binary()).view(pa.string())
    columns["stream"] = pa.array([b"true", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table(columns), "log.parquet")
    Path("log.csv").write_bytes(
        b"exchange_id,time,account_id,model,prompt,stream\ne1,2026-11-07,a,m,a\xff,true\ne2,2026-11-07,a,m,b,\xff\n"
    )
    for name in ("log.parquet", "log.csv"):
        rows, source = read(name)
        assert [r["prompt"] for r in rows] == ["a\ufffd"], name
        assert [(r.reason, r.rows) for r in source.rejects] == [("stream is not true or false", 1)]


def test_huge_prompts_are_cut_and_empty_ones_kept() -> None:
    for name, write in (("log.ndjson", ndjson), ("log.parquet", None)):
        records = [record(1, prompt="ü" * 5_000_000), record(2, prompt=""), record(3, prompt=None), record(4)]
        path = ndjson(*records) if write else parquet(name, *records)
        rows, source = read(path)
        assert [len((r["prompt"] or "").encode()) for r in rows] == [1 << 20, 0, 0, 1]
        assert set(rows[0]["prompt"]) == {"ü"}
        assert rows[1]["prompt"] == ""
        assert rows[2]["prompt"] is None
        assert [str(n) for n in source.notes] == [f"{name}:1: prompt: text over 1,048,576 bytes, cut (1 row)"]


def test_counts_below_zero_are_unknown() -> None:
    rows, source = read(ndjson(record(1, output_tokens=-1), record(2, output_tokens=5)))
    assert [r["output_tokens"] for r in rows] == [None, 5]
    assert [str(n) for n in source.notes] == ["log.ndjson:1: output_tokens: below zero, taken as unknown (1 row)"]


def test_reasons_are_bounded() -> None:
    from stillwatch.adapters.intake.report import MAX_REASONS, Tally

    tally = Tally()
    for i in range(1000):
        tally.add(f"reason {i}", 1, "x:1")
    assert len(tally.rejects) == MAX_REASONS + 1
    assert (tally.rejects[0].reason, tally.rejects[0].rows) == ("other reasons", 1000 - MAX_REASONS)


# The two small tables


def test_accounts_missing_or_unreadable() -> None:
    with pytest.raises(InputRejected, match=r"accounts\.csv: no such file or folder"):
        read_accounts(Path("accounts.csv"))
    Path("accounts.csv").write_text("acount,created_at\na,2026-01-01\n")
    with pytest.raises(
        InputRejected, match=r"no accounts can be read from it\n  accounts.csv: no column account_id \(found: ac"
    ):
        read_accounts(Path("accounts.csv"))


def test_accounts_listed_more_than_once() -> None:
    Path("accounts.csv").write_text(
        "account_id,created_at,org_id,colour\n"
        "a,2026-01-01,org1,x\n"
        "b,2026-01-02,org1,x\n"
        "a,2026-01-01,org1,x\n"
        "c,2026-03-01,late,x\n"
        "c,2026-02-01,early,x\n"
        "d,,first,x\n"
        "d,,last,x\n"
        "e,whenever,org9,x\n"
        ",2026-01-01,nobody,x\n"
    )
    table, faults = read_accounts(Path("accounts.csv"))
    rows = [(r["account_id"], r["org_id"], r["created_at"] and r["created_at"].month) for r in table.to_pylist()]
    assert rows == [("a", "org1", 1), ("b", "org1", 1), ("c", "late", 3), ("d", "last", None), ("e", "org9", None)]
    assert {(r.reason, r.rows, r.place) for r in faults} == {
        ("account_id listed more than once with different values; the latest row stands", 2, "accounts.csv"),
        ("account_id is missing", 1, "accounts.csv:10"),
        ("created_at is not a time; the value is left out", 1, "accounts.csv:9"),
    }


def test_accounts_in_every_container_and_models() -> None:
    records = [{"account_id": f"a{i}", "created_at": f"2026-01-0{i}T00:00:00", "plan": "free"} for i in range(1, 9)]
    tables = [read_accounts(ndjson(*records, name="a.ndjson"))[0], read_accounts(parquet("a.parquet", *records))[0]]
    Path("a.csv").write_text("account_id,created_at,plan\n" + "".join(",".join(r.values()) + "\n" for r in records))
    tables.append(read_accounts(Path("a.csv"))[0])
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    Path("models.csv").write_text("model,released_at\nlarge,2026-05-01\nsmall,2026-06-01T12:00:00Z\nbig,\n")
    models, faults = read_models(Path("models.csv"))
    assert [(m["model"], m["released_at"].month) for m in models.to_pylist()] == [("large", 5), ("small", 6)]
    assert [str(f).split("\n")[0] for f in faults] == ["models.csv:4: released_at is missing (1 row)"]
