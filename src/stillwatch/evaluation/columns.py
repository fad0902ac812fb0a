"""Every column of an account that can be had from a canonical log without reading a word of it.

Volumes, times, networks, clients, sessions, settings, tokens, outcomes, identity, who shares what, and what ids and
file order give away. Prompt, system and response are never opened, not even for their lengths. A column the log lacks
gives no column here; nor does one that is the same for all accounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillwatch.errors import UsageError
from stillwatch.evaluation.queries import (
    ACCOUNT_QUERIES,
    EXCHANGE_QUERIES,
    HOLDING,
    KINDS,
    SHARING,
    TRAITS,
    VALUE_SHARE,
)
from stillwatch.tables import ACCOUNTS, EXCHANGES, Table

CONTENT = ("system", "prompt", "response")
COMMON_VALUES = 6
"""Of a kind with few values, this many of the commonest become a column each."""
SQL_TYPES = {
    pa.string(): "VARCHAR", pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.float32(): "FLOAT", pa.bool_(): "BOOLEAN",
    pa.list_(pa.string()): "VARCHAR[]", pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """``values[i, j]`` is column ``names[j]`` of account ``account_ids[i]``, NaN where it has none; ``families[j]``
    says what sort of column it is."""

    account_ids: pa.Array
    names: tuple[str, ...]
    families: tuple[str, ...]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Block:
    """Columns of one query: its first column is account_id, the rest are numbers."""

    family: str
    rows: pa.Table


def account_columns(log: Path, accounts: Path | None, account_ids: pa.Array) -> Columns:
    """All columns for these accounts, from a log in Parquet (file or folder) and an accounts file, if there is one."""
    with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as engine:
        _open(engine, "exchanges", EXCHANGES, _parquet_files(log))
        blocks = [*_from_exchanges(engine)]
        if accounts is not None:
            _open(engine, "accounts", ACCOUNTS, _parquet_files(accounts))
            blocks += _from_accounts(engine)
    return _line_up(account_ids, blocks)


def _parquet_files(path: Path) -> list[str]:
    files = sorted(map(str, path.rglob("*.parquet"))) if path.is_dir() else [str(path)] if path.exists() else []
    if not files or not files[0].endswith(".parquet"):
        raise UsageError(
            f"{path}: no Parquet file there", hint="the leak probe reads logs as `stillwatch simulate` writes"
        )
    return files


def _open(engine: duckdb.DuckDBPyConnection, name: str, table: Table, files: list[str]) -> None:
    """A view of the canonical columns without content, typed nulls for the missing ones, and each row's place."""
    try:
        raw = engine.read_parquet(files, union_by_name=True, file_row_number=True, filename=True)
    except duckdb.Error as error:
        raise UsageError(f"{files[0]}: cannot be read: {error}") from error
    raw.create_view(f"raw_{name}")
    if missing := [c for c in table.required if c not in raw.columns]:
        raise UsageError(f"{files[0]}: no column {', '.join(missing)}", hint=f"is this the {name} table of a log?")
    wanted = [c for c in table.columns if c.name not in CONTENT]
    chosen = [f"{c.name if c.name in raw.columns else 'NULL'}::{SQL_TYPES[c.type]} AS {c.name}" for c in wanted]
    engine.execute(f"CREATE VIEW {name} AS SELECT {', '.join(chosen)}, filename, file_row_number FROM raw_{name}")


def _from_exchanges(engine: duckdb.DuckDBPyConnection) -> Iterator[_Block]:
    for family, query in EXCHANGE_QUERIES.items():
        yield _Block(family, engine.sql(query).to_arrow_table())
    for kind in KINDS:
        engine.execute(HOLDING.replace("$value", kind.value).replace("$table", "exchanges"))
        yield _Block(kind.family, _named(engine.sql(SHARING).to_arrow_table(), kind.name))
        if kind.few_values:
            yield from _value_shares(engine, kind.name, kind.family)


def _from_accounts(engine: duckdb.DuckDBPyConnection) -> Iterator[_Block]:
    for family, query in ACCOUNT_QUERIES.items():
        yield _Block(family, engine.sql(query).to_arrow_table())
    for trait in TRAITS:
        engine.execute(HOLDING.replace("$value", trait.value).replace("$table", "accounts"))
        held = engine.sql(SHARING).to_arrow_table().select(["account_id", "holders"])
        yield _Block("sharing", _named(held, trait.name))
        if trait.few_values:
            yield from _value_shares(engine, trait.name, "identity")


def _value_shares(engine: duckdb.DuckDBPyConnection, name: str, family: str) -> Iterator[_Block]:
    """For each of the commonest values, the share of each account's rows that hold it."""
    common = "SELECT value FROM holding GROUP BY value ORDER BY count(*) DESC, value LIMIT $most"
    for (value,) in engine.execute(common, {"most": COMMON_VALUES}).fetchall():
        rows = engine.sql(VALUE_SHARE, params={"value": value}).to_arrow_table()
        yield _Block(family, rows.rename_columns(["account_id", f"{name} = {value}"]))


def _named(rows: pa.Table, kind: str) -> pa.Table:
    first, *rest = rows.column_names
    return rows.rename_columns([first, *(f"{kind} {name}" for name in rest)])


def _line_up(account_ids: pa.Array, blocks: list[_Block]) -> Columns:
    names, families, columns = [], [], []
    for block in blocks:
        at = pc.index_in(account_ids, value_set=block.rows["account_id"].combine_chunks())
        for name in block.rows.column_names[1:]:
            values = block.rows[name].cast(pa.float64()).take(at)
            column = pc.fill_null(values, float("nan")).to_numpy().astype(np.float32)
            if len(np.unique(column)) > 1:
                names.append(name.replace("_", " "))
                families.append(block.family)
                columns.append(column)
    values = np.stack(columns, axis=1) if columns else np.empty((len(account_ids), 0), np.float32)
    return Columns(account_ids, tuple(names), tuple(families), values)
