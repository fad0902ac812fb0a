"""Fingerprints read observations off exchanges: record batch in, columns out. Content goes no further than this hop.

Each module here holds one ``FINGERPRINT``; other people's come by entry point (``plugins.py``). ``observe`` runs them
over a batch and gives the columns of ``tables.FACTS`` they fill, plus the two sketches that ``wordings.py`` needs.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.errors import UsageError
from stillwatch.privacy import Privacy
from stillwatch.tables import FACTS, SKETCH_WIDTH

SYSTEM_SKETCH_WIDTH = 24
"""Sampled shingles of a system text: shorter than a prompt's, since system texts hold little but wrapper."""

Values: TypeAlias = npt.NDArray[Any] | pa.Array
"""A column a fingerprint gives: a numpy array, an Arrow array, or for a sketch a matrix."""

UNOBSERVED = ("account", "model", "wording")
"""Facts no fingerprint fills: dense numbers and wording families are known to the whole run only."""


@dataclass(frozen=True)
class Fingerprint:
    """A trait read off exchanges.

    ``needs`` names the exchange columns without which it is blind; ``kinds`` the observation kinds it emits, each with
    a line of meaning (a kind is the fact column that holds its keyed hash); ``columns`` all fact columns it fills.
    """

    name: str
    meaning: str
    needs: tuple[str, ...]
    kinds: Mapping[str, str]
    columns: tuple[str, ...]
    observe: Callable[[pa.RecordBatch, Privacy], dict[str, Values]]


@dataclass(frozen=True)
class Observed:
    """What is kept of a batch: fact columns, row by row, and the sketches of prompt and system text (0 = empty)."""

    facts: pa.RecordBatch
    sketch: npt.NDArray[np.uint32]
    system_sketch: npt.NDArray[np.uint32]


def column(batch: pa.RecordBatch, name: str, kind: pa.DataType | None = None) -> pa.Array:
    """A column of the batch, cast to ``kind``; all null where the source lacks it."""
    at = batch.schema.get_field_index(name)
    if at < 0:
        return pa.nulls(batch.num_rows, kind or pa.string())
    values = batch.column(at)
    return values if kind is None or values.type == kind else values.cast(kind, safe=False)


@cache
def builtin() -> tuple[Fingerprint, ...]:
    """The fingerprints of this package, by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(importlib.import_module(f"{__name__}.{n}").FINGERPRINT for n in names)


def observe(batch: pa.RecordBatch, privacy: Privacy, fingerprints: Iterable[Fingerprint] | None = None) -> Observed:
    """Runs the fingerprints (all built-in ones unless told) over a batch of exchanges.

    ``facts`` has every column of FACTS but ``account``, ``model`` and ``wording``, in that order and typed; what no
    fingerprint fills is null. ``system`` holds the hash of the whole system text until its family is known.
    """
    rows = batch.num_rows
    found: dict[str, Values] = {"time": column(batch, "time"), "exchange": _identity(batch, privacy)}
    for fingerprint in builtin() if fingerprints is None else fingerprints:
        _merge(found, fingerprint.name, fingerprint.observe(batch, privacy), rows)
    sketch = found.pop("sketch", np.zeros((rows, SKETCH_WIDTH), np.uint32))
    system_sketch = found.pop("system_sketch", np.zeros((rows, SYSTEM_SKETCH_WIDTH), np.uint32))
    fields = [f for f in FACTS.schema if f.name not in UNOBSERVED]
    arrays = [_typed(found.get(f.name), f.type, rows) for f in fields]
    return Observed(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), sketch, system_sketch)


def _identity(batch: pa.RecordBatch, privacy: Privacy) -> Values:
    return privacy.hash_strings(column(batch, "exchange_id"), "exchange")


def _merge(found: dict[str, Values], name: str, given: Mapping[str, Values], rows: int) -> None:
    for key, values in given.items():
        if key in found:
            raise UsageError(f"fingerprint {name!r} fills column {key!r}, which another one fills already")
        if len(values) != rows:
            raise UsageError(f"fingerprint {name!r} gave {len(values)} values of {key!r} for {rows} rows")
        found[key] = values


def _typed(values: Values | None, kind: pa.DataType, rows: int) -> pa.Array:
    if values is None:
        return pa.nulls(rows, kind)
    array = pa.array(values)
    return array if array.type == kind else array.cast(kind)
