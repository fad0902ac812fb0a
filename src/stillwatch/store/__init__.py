"""The engine: where tables by the million live, and the four verbs anybody may say to it.

    append   rows of Arrow into a table          rows    a table or a SELECT out as Arrow
    step     a named SELECT becomes a table      close   give back memory, threads and files

The SELECTs are one text in the embedded engine's dialect; another engine translates it in its own file and nowhere
else. Parameters are bound, never formatted in. Each engine is one file here, opened by its name; nothing outside this
folder asks which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa

from stillwatch.errors import EngineError, UsageError

Value = bool | int | float | str | datetime | None
"""What a parameter may be. Times are aware; an engine reads them as UTC."""

Params = Mapping[str, Value]

ENGINES = ("duckdb", "spark")


@runtime_checkable
class Engine(Protocol):
    """Tables and SELECTs. Every verb raises ``EngineError`` with the step's name and its SQL; times are UTC."""

    def append(self, table: str, batch: pa.Table | pa.RecordBatch) -> None:
        """Add rows to ``table``, made by its first append; columns go by name, one that is missing is null."""

    def step(self, name: str, sql: str, params: Params = ...) -> None:
        """Run one SELECT and keep its rows as table ``name``, in place of what it held."""

    def rows(self, sql: str, params: Params = ...) -> pa.Table:
        """The rows of a SELECT, or of the table of that name. Their order is the SELECT's, or none."""

    def close(self) -> None:
        """Give everything back; closing twice does no harm."""


def open_engine(
    name: str = "duckdb", memory: str = "3GB", threads: int | None = None, spill: Path | None = None
) -> AbstractContextManager[Engine]:
    """A fresh, empty engine, closed at the end of its ``with``.

    ``name`` is ``duckdb``, ``spark`` or ``spark:MASTER`` (``spark:yarn``, ``spark:local[8]``; ``spark`` alone is local).
    ``memory`` caps the engine, not the process, which takes about 1 GB more; ``threads`` None or 0 is all cores; ``spill``
    is the folder for tables and sorts that outgrow memory (a folder of the system's own where None), left as it was
    found. UsageError where the engine is unknown or its packages are missing.
    """
    if name == "duckdb":
        from stillwatch.store.duckdb import DuckDB  # noqa: PLC0415  # engines load on first use

        return DuckDB(memory, threads, spill)
    if name == "spark" or name.startswith("spark:"):
        from stillwatch.store.spark import Spark, session  # noqa: PLC0415

        return Spark(session(memory, threads, name.partition(":")[2]), spill)
    raise UsageError(f"no engine is called {name!r}", hint=f"known: {', '.join(ENGINES)}")


def plain(table: pa.Table) -> pa.Table:
    """``table`` with its decimals as int64, or as float64 where they have places: each engine sums into other ones."""
    kinds = {
        f.name: pa.int64() if f.type.scale == 0 else pa.float64() for f in table.schema if pa.types.is_decimal(f.type)
    }
    return table.cast(pa.schema([pa.field(f.name, kinds.get(f.name, f.type)) for f in table.schema]))


def step_failed(name: str, sql: str, cause: Exception) -> EngineError:
    """What an engine raises, ``from`` its own error, when a step cannot be run."""
    reason = str(cause).strip().split("\n\nJVM stacktrace", 1)[0]
    return EngineError(f"step {name!r} failed: {reason}\n  {sql.strip()}")
