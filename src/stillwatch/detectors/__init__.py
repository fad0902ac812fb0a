"""What a detector is: a reason to link or suspect accounts, as named SQL steps that bring their own proof.

A detector lives in one file of this folder (or in another package, by entry point) as ``DETECTOR``. Its steps are
single SELECTs in the embedded engine's dialect. They read ``INPUTS``, the base tables of ``folds.py`` and earlier steps
by name; the last one yields the evidence, in the ``shape`` the detector declares:

``ties``     an account holds a rare shared value; n holders are n rows
``links``    two accounts, ``left_account < right_account``
``signals``  one account

``bits`` is a log2 likelihood ratio, at least 0 and never null. Detectors notice; they never decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stillwatch import tables
from stillwatch.errors import EngineError
from stillwatch.store import Engine
from stillwatch.store.sql import bare, parameters
from stillwatch.types import FAMILIES

EVIDENCE: Mapping[str, pa.Schema] = {
    "ties": pa.schema(
        {"account": pa.int32(), "kind": pa.string(), "value": pa.int64(), "bits": pa.float64(), "holders": pa.int64()}
    ),
    "links": pa.schema(
        {"left_account": pa.int32(), "right_account": pa.int32(), "bits": pa.float64(), "exhibit": pa.string()}
    ),
    "signals": pa.schema({"account": pa.int32(), "bits": pa.float64(), "exhibit": pa.string()}),
}
"""The columns of each shape of evidence."""

BITS_DIGITS = 6
"""Places of a bit that are kept."""

INPUTS: Mapping[str, pa.Schema] = {
    "observations": tables.OBSERVATIONS.schema,
    "facts": tables.FACTS.schema,
    "accounts": tables.PROFILES.schema,
    "kinds": pa.schema(
        {
            "kind": pa.string(),
            "family": pa.string(),
            "cap": pa.float64(),
            "tested": pa.string(),
            "pool": pa.int32(),
            "many": pa.int32(),
        }
    ),
    "models": pa.schema({"model": pa.int32(), "released_at": tables.UTC_US}),
}
"""The tables a first step may read. ``accounts`` holds ``tables.PROFILES``: hashes, no personal value; ``account`` in
``observations`` is its ``customer``."""

_CANONICAL = {t.name: set(t.names) for t in (tables.EXCHANGES, tables.ACCOUNTS, tables.MODELS)}
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TECHNIQUE = re.compile(r"AML\.T\d{4}(\.\d{3})?\Z")


def pairs(accounts: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Every pair of these accounts, each in order: what an example expects of accounts that all belong together."""
    return frozenset(combinations(sorted(set(accounts)), 2))


@dataclass(frozen=True, slots=True)
class Example:
    """A small log and what the detector must find in it, exactly.

    ``rows`` are observations ``(account, kind, value[, count[, first[, last]]])``, accounts and values named by letters
    or words, times in minutes. ``tables`` adds rows of other inputs as dicts; columns left out are null, or made up
    where the schema requires one (``facts``: a minute apart). ``expect`` holds the pairs of accounts that share a tie
    or link, or, for signals, the accounts; empty for an example from honest customers.
    """

    title: str
    rows: Sequence[tuple[Any, ...]]
    expect: Iterable[Any] = frozenset()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.tables) - set(INPUTS)
        if unknown:
            raise ValueError(f"example {self.title!r}: no such table: {', '.join(sorted(unknown))}")
        if any(not 3 <= len(row) <= 6 for row in self.rows):
            raise ValueError(f"example {self.title!r}: an observation has 3 to 6 fields")
        ordered = (tuple(sorted(e)) if isinstance(e, tuple) else e for e in self.expect)
        object.__setattr__(self, "expect", frozenset(ordered))


@dataclass(frozen=True, slots=True)
class Detector:
    """A reason to link or suspect accounts.

    ``technique`` is the ATLAS id, ``meaning`` one sentence a person reads, ``needs`` the canonical columns without
    which it is blind (``exchanges.ip``), ``params`` its numbers, each to be overridden by name. Steps are named after
    the detector, so that no two write the same table.
    """

    name: str
    family: str
    technique: str
    meaning: str
    shape: str
    needs: tuple[str, ...]
    steps: Mapping[str, str]
    examples: Sequence[Example]
    params: Mapping[str, int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [*_nouns(self), *_steps(self), *_proof(self)]
        if faults:
            raise ValueError(f"detector {self.name!r}: {'; '.join(faults)}")


def run_detector(engine: Engine, detector: Detector, overrides: Mapping[str, int | float] | None = None) -> pa.Table:
    """The evidence of a detector on what the engine holds, in the columns of its shape, sorted.

    ``overrides`` replaces numbers of ``params`` by name. Its steps stay behind as tables. EngineError where a step
    fails, where an override names no parameter of the detector, or where the evidence is not of its shape.
    """
    unknown = set(overrides or ()) - set(detector.params)
    if unknown:
        raise EngineError(
            f"detector {detector.name!r} has no parameter {', '.join(sorted(unknown))}",
            hint=f"it has: {', '.join(detector.params) or 'none'}",
        )
    params = {**detector.params, **(overrides or {})}
    for name, sql in detector.steps.items():
        engine.step(name, sql, params)
    return _evidence(detector, engine.rows(list(detector.steps)[-1]))


def _evidence(detector: Detector, found: pa.Table) -> pa.Table:
    """``found`` in the types of its shape. Bits are rounded: engines and threads sum floats in any order."""
    schema = EVIDENCE[detector.shape]
    if set(found.column_names) != set(schema.names):
        raise EngineError(
            f"detector {detector.name!r} yields {', '.join(found.column_names)}",
            hint=f"{detector.shape} are: {', '.join(schema.names)}",
        )
    table = found.select(schema.names).cast(schema)
    bits = pc.round(table["bits"], BITS_DIGITS)
    sound = pc.and_(pc.is_finite(bits), pc.greater_equal(bits, 0)).fill_null(False)
    if not pc.all(sound, min_count=0).as_py():
        raise EngineError(f"detector {detector.name!r} yields bits that are null, negative or not finite")
    table = table.set_column(schema.get_field_index("bits"), schema.field("bits"), bits)
    return table.sort_by([(name, "ascending") for name in schema.names])


def _nouns(d: Detector) -> Iterable[str]:
    """What is wrong with a detector's name, family, technique, shape and needs."""
    if not _NAME.match(d.name):
        yield "the name must be lower-case words joined by _"
    if d.family not in FAMILIES:
        yield f"family {d.family!r} is none of {', '.join(FAMILIES)}"
    if not _TECHNIQUE.match(d.technique):
        yield f"technique {d.technique!r} is no ATLAS id such as AML.T0024.002"
    if d.shape not in EVIDENCE:
        yield f"shape {d.shape!r} is none of {', '.join(EVIDENCE)}"
    if not d.meaning.strip():
        yield "meaning is empty"
    for need in d.needs:
        table, _, column = need.partition(".")
        if column not in _CANONICAL.get(table, ()):
            yield f"needs {need!r}, which the contract does not know"


def _steps(d: Detector) -> Iterable[str]:
    """What is wrong with a detector's steps and parameters."""
    if not d.steps:
        yield "it has no steps"
    used: set[str] = set()
    for name, sql in d.steps.items():
        if name != d.name and not name.startswith(d.name + "_"):
            yield f"step {name!r} must be called {d.name!r} or start with {d.name + '_'!r}"
        yield from (f"step {name!r} {fault}" for fault in _select(sql))
        used |= parameters(sql)
    for name in sorted(used - set(d.params)):
        yield f"${name} is not in params"
    for name in sorted(set(d.params) - used):
        yield f"no step reads ${name}"


def _select(sql: str) -> Iterable[str]:
    """Why this text is not one plain SELECT."""
    text = bare(sql)
    if not re.match(r"\s*\(?\s*SELECT\b", text, re.IGNORECASE):
        yield "must start with SELECT"
    if re.search(r"\bWITH\b", text, re.IGNORECASE):
        yield "uses WITH: make it a step of its own"
    if ";" in text:
        yield "holds more than one statement"
    if "{" in text or "}" in text:
        yield "holds braces: bind values as $name"


def _proof(d: Detector) -> Iterable[str]:
    """What is missing among a detector's examples."""
    if not any(e.expect for e in d.examples):
        yield "no example finds anything"
    if not any(not e.expect for e in d.examples):
        yield "no example comes from honest customers (expects nothing)"
