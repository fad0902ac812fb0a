"""What an engine is, and what all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import pyarrow as pa

from stillwatch.errors import EngineError

Value = bool | int | float | str | datetime | None
"""What a parameter may be. Times are aware; an engine reads them as UTC."""

Params = Mapping[str, Value]

NONE: Params = MappingProxyType({})
"""No parameters."""


@runtime_checkable
class Engine(Protocol):
    """Tables and SELECTs. Every verb raises ``EngineError`` with the step's name and its SQL; times are UTC."""

    def append(self, table: str, batch: pa.Table | pa.RecordBatch) -> None:
        """Add rows to ``table``, made by its first append; columns go by name, one that is missing is null."""

    def step(self, name: str, sql: str, params: Params = NONE) -> None:
        """Run one SELECT and keep its rows as table ``name``, in place of what it held."""

    def rows(self, sql: str, params: Params = NONE) -> pa.Table:
        """The rows of a SELECT, or of the table of that name. Their order is the SELECT's, or none."""

    def close(self) -> None:
        """Give everything back; closing twice does no harm."""


def plain(table: pa.Table) -> pa.Table:
    """``table`` with decimals as int64, or float64 where they have places: engines differ in what they sum into."""
    kinds = {
        f.name: pa.int64() if f.type.scale == 0 else pa.float64() for f in table.schema if pa.types.is_decimal(f.type)
    }
    return table.cast(pa.schema([pa.field(f.name, kinds.get(f.name, f.type)) for f in table.schema]))


def step_failed(name: str, sql: str, cause: Exception) -> EngineError:
    """What an engine raises, ``from`` its own error, when a step cannot be run."""
    reason = str(cause).strip().split("\n\nJVM stacktrace", 1)[0]
    return EngineError(f"step {name!r} failed: {reason}\n  {sql.strip()}")
