"""Hops 1 to 3: a log and what was declared about its accounts, turned into the engine's tables.

Content is read in ``take_in`` and goes no further: what stays are facts, numbers and sketches of wordings, and the sketches
go once the families of the whole log are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch import wordings
from stillwatch.adapters import Source, read_accounts, read_exchanges, read_models
from stillwatch.errors import InputRejected, Reject
from stillwatch.fingerprints import observe
from stillwatch.numbering import Numbering
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.progress import Progress
from stillwatch.store import Engine
from stillwatch.tables import FACTS


@dataclass(frozen=True, slots=True)
class Log:
    """What a scan reads: the exchanges, and where there are any the accounts and the models' release times."""

    exchanges: Path
    accounts: Path | None = None
    models: Path | None = None
    adapter: str | None = None
    maps: tuple[Path, ...] = ()


@dataclass(slots=True)
class Intake:
    """What hops 1 and 2 leave of a log: facts by batch, sketches of wordings, and the numbers given to names.

    ``facts`` lack ``wording``; ``systems`` holds one row for each account and system text: account, hash, sketch.
    """

    accounts: Numbering = field(default_factory=Numbering)
    models: Numbering = field(default_factory=Numbering)
    facts: list[pa.RecordBatch] = field(default_factory=list)
    numbers: list[np.ndarray] = field(default_factory=list)
    sketches: list[np.ndarray] = field(default_factory=list)
    systems: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Declared:
    """What was declared beside the log: accounts, models with their release times, and the faults of both files."""

    accounts: pa.Table | None
    models: pa.Table | None
    faults: tuple[Reject, ...]


def open_log(log: Log) -> tuple[Declared, Source]:
    """The declared tables, read, and the log's source, ready to be iterated."""
    accounts, faults = read_accounts(log.accounts) if log.accounts else (None, [])
    models, more = read_models(log.models) if log.models else (None, [])
    source = read_exchanges(log.exchanges, adapter=log.adapter, maps=log.maps)
    return Declared(accounts, models, (*faults, *more)), source


def take_in(source: Source, privacy: Privacy, progress: Progress) -> Intake:
    """Hops 1 and 2: read batches, fingerprint them, drop their content."""
    intake = Intake()
    for batch in source:
        seen = observe(batch, privacy)
        account = intake.accounts.number(batch["account_id"])
        model = intake.models.number(batch["model"])
        columns = {name: seen.facts[name] for name in seen.facts.schema.names}
        quarters = seen.facts["time"].cast(pa.int64()).to_numpy() // (6 * 3600 * 10**6)
        columns |= {"account": pa.array(account), "model": pa.array(model), "slot": pa.array(quarters.astype(np.int32))}
        fields = [f for f in FACTS.schema if f.name != "wording"]
        intake.facts.append(pa.RecordBatch.from_arrays([columns[f.name] for f in fields], schema=pa.schema(fields)))
        intake.numbers.append(account)
        intake.sketches.append(seen.sketch)
        system = seen.facts["system"].to_numpy(zero_copy_only=False)
        _, first = np.unique(np.column_stack([account, system]), axis=0, return_index=True)
        first = first[system[first] != 0]
        intake.systems.append((account[first], system[first], seen.system_sketch[first]))
        progress.advance(batch.num_rows)
    if not intake.facts:
        raise InputRejected("no exchange could be judged", hint="\n  ".join(str(r) for r in source.rejects[:10]))
    renumber(intake)
    return intake


def renumber(intake: Intake) -> None:
    """Number accounts by name: what is found must not hang on the order in which a log happens to hold them."""
    number = intake.accounts.sorted_order()
    at = FACTS.schema.get_field_index("account")
    for k, batch in enumerate(intake.facts):
        intake.numbers[k] = number[intake.numbers[k]]
        intake.facts[k] = batch.set_column(at, batch.schema.field(at), pa.array(intake.numbers[k]))
    intake.systems[:] = [(number[account], text, sketch) for account, text, sketch in intake.systems]


def keep(engine: Engine, intake: Intake, declared: Declared, privacy: Privacy) -> None:
    """Hop 3: find the wording families of the whole log, then append facts, accounts and models to the engine."""
    families = wordings.resolve(intake.sketches, np.concatenate(intake.numbers)).family
    intake.sketches.clear()
    systems = system_families(intake.systems)
    engine.append("accounts", profiles(declared.accounts, intake.accounts, privacy))
    engine.append("models", release_times(declared.models, intake.models))
    at = 0
    while intake.facts:
        batch = intake.facts.pop(0)
        wording = pa.array(families[at : at + batch.num_rows])
        at += batch.num_rows
        columns = dict(zip(batch.schema.names, batch.columns)) | {"wording": wording}
        columns["system"] = pa.array(mapped(batch["system"].to_numpy(zero_copy_only=False), *systems))
        engine.append("facts", pa.table({f.name: columns[f.name].cast(f.type) for f in FACTS.schema}))


def system_families(systems: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted hashes of system texts and, for each, its wording family, or the hash itself where it has none."""
    account = np.concatenate([s[0] for s in systems])
    text = np.concatenate([s[1] for s in systems])
    # One row for each account and text, however the log was cut into batches.
    _, once = np.unique(np.column_stack([account, text]), axis=0, return_index=True)
    account, text, sketch = account[once], text[once], np.concatenate([s[2] for s in systems])[once]
    family = wordings.resolve(sketch, account).family if len(text) else np.zeros(0, np.int64)
    distinct, first = np.unique(text, return_index=True)
    return distinct, np.where(family[first] != 0, family[first], distinct)


def mapped(values: np.ndarray, known: np.ndarray, to: np.ndarray) -> np.ndarray:
    """``values`` with each one in the sorted ``known`` replaced by its entry of ``to``; 0 stays 0."""
    if not len(known):
        return values
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[at] == values, to[at], values)


def release_times(released: pa.Table | None, models: Numbering) -> pa.Table:
    """Number and release time of the models seen in the log."""
    if released is None:
        return pa.table({"model": pa.array([], pa.int32()), "released_at": pa.array([], pa.timestamp("us", "UTC"))})
    number = models.find(released["model"].combine_chunks())
    seen = pa.array(number >= 0)
    return pa.table({"model": pa.array(number), "released_at": released["released_at"]}).filter(seen)


def uncovered(seen: Numbering, declared: pa.Table | None) -> tuple[Reject, ...]:
    """A note where the accounts file lacks accounts of the log; they are judged without it."""
    if declared is None:
        return ()
    found = pc.is_in(seen.names, value_set=declared["account_id"].combine_chunks())
    lacking = len(seen) - int(pc.sum(found).as_py() or 0)
    return (Reject("accounts of the log that the accounts file lacks", lacking, "accounts"),) if lacking else ()
