"""Arrow columns out of Python values of mixed types: the slow way in, for foreign formats and for damaged blocks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The values as one column that ``cast`` can read towards ``kind``; what fits no plain type goes as JSON text."""
    if pa.types.is_string(kind):
        return _texts(values)
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        return _texts(values)


def _texts(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return pa.array([None if v is None else _bytes(v) for v in values], pa.binary()).view(pa.string())


def _bytes(value: Any) -> bytes:
    """UTF-8 of a text, its broken bytes as they came; any other value as its JSON."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def columns_of(rows: Iterable[dict[str, Any]], types: dict[str, pa.DataType]) -> dict[str, pa.Array]:
    """One column for each name of ``types`` that any row has."""
    kept = list(rows)
    present = {name for row in kept for name in row}
    return {name: array_of([r.get(name) for r in kept], kind) for name, kind in types.items() if name in present}
