"""An example's letters, words and minutes as the tables a detector reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from stillwatch.detectors import INPUTS, Example

START = datetime(2026, 1, 1, tzinfo=UTC)
"""Minute 0 of every example."""

_OBSERVATION = ("account", "kind", "value", "count", "first", "last")
_ACCOUNT_COLUMNS = ("account", "customer")

Row = Mapping[str, Any]


def labels(example: Example) -> list[str]:
    """The accounts an example names, sorted; the position of each is its number."""
    named = {row[0] for row in example.rows}
    for rows in example.tables.values():
        named |= {row[c] for row in rows for c in _ACCOUNT_COLUMNS if c in row}
    return sorted(named)


def inputs(example: Example) -> dict[str, pa.Table]:
    """Every input table of a detector but ``kinds``, typed, with the example's rows in it."""
    number = {label: n for n, label in enumerate(labels(example))}
    given = {name: list(example.tables.get(name, ())) for name in INPUTS if name != "kinds"}
    given["observations"] += [_observation(row) for row in example.rows]
    given["facts"] = [{"time": k, "model": 0, "exchange": k + 1} | dict(row) for k, row in enumerate(given["facts"])]
    described = {row["account"] for row in given["accounts"]}
    given["accounts"] += [{"account": label} for label in number if label not in described]
    given["accounts"] = [{"customer": row["account"]} | dict(row) for row in given["accounts"]]
    return {name: _table(rows, INPUTS[name], number) for name, rows in given.items()}


def _observation(row: Sequence[Any]) -> Row:
    named = dict(zip(_OBSERVATION, row))
    return {"count": 1, "last": named.get("first")} | named


def _table(rows: Sequence[Row], schema: pa.Schema, number: Mapping[str, int]) -> pa.Table:
    unknown = {c for row in rows for c in row} - set(schema.names)
    if unknown:
        raise ValueError(f"an example's rows have columns that no table has: {', '.join(sorted(unknown))}")
    columns = [[_plain(row.get(field.name), field, number) for row in rows] for field in schema]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, schema)], schema=schema)


def _plain(value: Any, field: pa.Field, number: Mapping[str, int]) -> Any:
    """A value as its column holds it: accounts numbered, words hashed, minutes as moments."""
    if value is None:
        if not field.nullable:
            raise ValueError(f"an example's row lacks {field.name!r}")
        return None
    if field.name in _ACCOUNT_COLUMNS:
        return number[value]
    if pa.types.is_timestamp(field.type) and not isinstance(value, datetime):
        return START + timedelta(minutes=value)
    if field.type == pa.int64() and isinstance(value, str):
        return int.from_bytes(blake2b(value.encode(), digest_size=7).digest(), "little") | 1
    return value
