"""Every fingerprint and adapter found keeps its contract; and each contract can be broken."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from stillwatch.adapters import Adapter
from stillwatch.adapters.intake.report import Report
from stillwatch.fingerprints import Fingerprint, Values, column
from stillwatch.plugins import discover
from stillwatch.privacy import Privacy
from stillwatch.tables import EXCHANGES
from stillwatch.testing import check_adapter, check_adapter_refuses, check_fingerprint

FINGERPRINTS: dict[str, Fingerprint] = discover("fingerprints")
ADAPTERS: dict[str, Adapter] = discover("adapters")
CAPTURED = sorted((Path(__file__).parent / "data").glob("*.ndjson"))


def exchanges() -> pa.RecordBatch:
    rows = [
        {
            "exchange_id": f"e{k}", "time": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=k), "model": "m",
            "account_id": f"a{k % 2}", "ip": ["192.0.2.7", None, "2001:db8::1", "no address"][k % 4],
            "prompt": ["Solve it step by step: 2 + 2", None, "", "Grade this answer by the rubric"][k % 4],
            "system": None if k % 3 else "You are a careful grader.", "tools": ["search", "bash"] if k % 2 else None,
            "user_agent": "kit/1.0", "max_tokens": None if k % 3 else 100, "temperature": 0.5 if k % 2 else None,
        }
        for k in range(9)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=EXCHANGES.schema)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprint_keeps_the_contract(name: str) -> None:
    check_fingerprint(FINGERPRINTS[name], exchanges())


def by_country(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    return {"country": privacy.hash_strings(column(batch, "country"), "country")}


def counts_rows(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    return {"country": np.arange(batch.num_rows)}


def one_too_few(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    return {"country": np.zeros(max(0, batch.num_rows - 1), np.int64)}


def fills_more(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    return by_country(batch, privacy) | {"images": np.zeros(batch.num_rows, np.int16)}


GOOD = Fingerprint("country", "its country", ("country",), {"country": "its country"}, ("country",), by_country)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"observe": counts_rows}, "depends on the rows around it"),
        ({"observe": one_too_few}, "8 values for 9 rows"),
        ({"observe": fills_more}, "does not declare"),
        ({"observe": lambda batch, privacy: {}}, "is not filled"),
        ({"observe": lambda batch, privacy: by_country(batch, Privacy.random())}, "second look"),
        ({"kinds": {"images": ""}, "columns": ("images",)}, "keyed hash"),
        ({"kinds": {"tls": ""}}, "one of its columns"),
        ({"kinds": {}, "columns": ("colour",)}, "no fact has"),
        ({"needs": ("colour",)}, "no exchange has"),
    ],
)
def test_a_broken_fingerprint_is_caught(changes: dict[str, object], fault: str) -> None:
    countries = exchanges().set_column(8, EXCHANGES.schema.field("country"), pa.array(["NO"] * 9))
    check_fingerprint(GOOD, countries)
    with pytest.raises(AssertionError, match=fault):
        check_fingerprint(dataclasses.replace(GOOD, **changes), countries)  # type: ignore[arg-type]


def adapter_of(path: Path) -> Adapter:
    """The adapter a captured file is for: the one its name begins with, or the canonical one."""
    return ADAPTERS.get(path.stem.split("_")[0], ADAPTERS["ndjson"])


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_adapter_keeps_the_contract_on_captured_lines(path: Path) -> None:
    check_adapter(adapter_of(path), path)


@pytest.mark.parametrize("name", ["parquet", "csv"])
def test_adapter_keeps_the_contract_on_the_canonical_form(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"log.{name}"
    table = pa.Table.from_batches([exchanges()])
    if name == "csv":
        pa.csv.write_csv(table.drop_columns(["tools"]), path)
    else:
        pa.parquet.write_table(table, path)
    check_adapter(ADAPTERS[name], path)


def test_every_adapter_is_among_those_checked() -> None:
    assert {adapter_of(path).name for path in CAPTURED} | {"parquet", "csv"} == set(ADAPTERS)


FOREIGN = {
    "other objects": b'{"colour": "red"}\n{"colour": null, "size": [1, 2]}\n',
    "no objects": b'[]\n"a"\n17\n{"half": \n',
    "a broken Parquet file": b"PAR1" + bytes(200) + b"PAR1",
    "nothing": b"",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_makes_no_rows_out_of_a_foreign_file(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "foreign").write_bytes(content)
    check_adapter_refuses(ADAPTERS[name], tmp_path / "foreign")


def nothing(path: Path, report: Report) -> Iterator[pa.RecordBatch]:
    yield from ()


def miscounted(path: Path, report: Report) -> Iterator[pa.RecordBatch]:
    report.rows_read = 10
    yield exchanges()


def other_columns(path: Path, report: Report) -> Iterator[pa.RecordBatch]:
    yield exchanges().select(["exchange_id"])


def other_each_time(path: Path, report: Report) -> Iterator[pa.RecordBatch]:
    report.rows_read = 9
    ids = pa.array([f"{id(report)}-{k}" for k in range(9)])
    yield exchanges().set_column(0, EXCHANGES.schema.field("exchange_id"), ids)


@pytest.mark.parametrize(
    ("batches", "fault"),
    [
        (nothing, "reads nothing"),
        (miscounted, "10 read, 9 kept"),
        (other_columns, "not of the schema"),
        (other_each_time, "second reading"),
    ],
)
def test_a_broken_adapter_is_caught(batches: object, fault: str) -> None:
    wrong = Adapter("wrong", "a broken one", lambda path, head: True, batches)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=fault):
        check_adapter(wrong, CAPTURED[0])
    with pytest.raises(AssertionError, match="does not know"):
        check_adapter(dataclasses.replace(wrong, matches=lambda path, head: False), CAPTURED[0])


def test_an_adapter_that_reads_anything_is_caught() -> None:
    wrong = Adapter("wrong", "a broken one", lambda path, head: True, miscounted)
    with pytest.raises(AssertionError, match="makes rows out of"):
        check_adapter_refuses(wrong, CAPTURED[0])
