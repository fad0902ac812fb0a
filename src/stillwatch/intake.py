"""Hops 1 to 3: a log and what was declared about its accounts, turned into the engine's tables.

Content is read in ``take_in`` and goes no further: what stays are facts, numbers and sketches of wordings, and the sketches
go once the families of the whole log are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch import wordings
from stillwatch.adapters import Source, read_accounts, read_exchanges, read_models
from stillwatch.errors import InputRejected, Reject, Terminal, UsageError
from stillwatch.fingerprints import Observed, observe
from stillwatch.numbering import Numbering
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.progress import Progress
from stillwatch.store import Engine
from stillwatch.tables import FACTS

KEPT = pa.schema([f for f in FACTS.schema if f.name != "wording"])
"""The columns of an intake's facts."""


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
    ``latest`` is the time of the newest exchange (us), ``later`` how many were left aside because they came too late.
    """

    accounts: Numbering = field(default_factory=Numbering)
    models: Numbering = field(default_factory=Numbering)
    facts: list[pa.RecordBatch] = field(default_factory=list)
    numbers: list[np.ndarray] = field(default_factory=list)
    sketches: list[np.ndarray] = field(default_factory=list)
    systems: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    latest: int = 0
    later: int = 0

    def earlier(self, batch: pa.RecordBatch, before: int | None) -> pa.RecordBatch:
        """The rows of a batch with a time (us) less than ``before``, all where that is None; the others are counted."""
        moment = batch["time"].cast(pa.int64()).to_numpy()
        self.latest = max(self.latest, int(moment.max(initial=0)))
        if before is None or self.latest < before:
            return batch
        self.later += int((moment >= before).sum())
        return batch.filter(pa.array(moment < before))

    def add(self, accounts: pa.Array, models: pa.Array, seen: Observed) -> None:
        """Add what is kept of observed rows, given the names of the account and the model of each."""
        account, model = self.accounts.number(accounts), self.models.number(models)
        columns = {name: seen.facts[name] for name in seen.facts.schema.names}
        quarters = seen.facts["time"].cast(pa.int64()).to_numpy() // (6 * 3600 * 10**6)
        columns |= {"account": pa.array(account), "model": pa.array(model), "slot": pa.array(quarters.astype(np.int32))}
        self.facts.append(pa.RecordBatch.from_arrays([columns[f.name] for f in KEPT], schema=KEPT))
        self.numbers.append(account)
        self.sketches.append(seen.sketch)
        system = seen.facts["system"].to_numpy(zero_copy_only=False)
        _, first = np.unique(np.column_stack([account, system]), axis=0, return_index=True)
        first = first[system[first] != 0]
        self.systems.append((account[first], system[first], seen.system_sketch[first]))

    def complete(self, taken: Taken | None, privacy: Privacy) -> None:
        """Put rows that an earlier run took in before all others, and number accounts by name.

        Terminal where a name that those rows stand under is not among those numbered.
        """
        if taken:
            put_first(self, taken, privacy)
        renumber(self)


@dataclass(slots=True)
class Taken:
    """Rows that an earlier run took in, which need not be fingerprinted again.

    ``facts``, ``sketches`` and ``systems`` are as an ``Intake`` has them, in the order the rows arrived, but accounts and
    models stand under keyed hashes of their names; ``digest`` is ``digest_of`` the rows. ``met`` and ``met_digest`` are
    those of the rows the log still holds.
    """

    facts: pa.Table
    sketches: np.ndarray
    systems: tuple[np.ndarray, np.ndarray, np.ndarray]
    digest: int
    met: int = 0
    met_digest: int = 0
    exchanges: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.exchanges = np.sort(self.facts["exchange"].to_numpy())

    def __len__(self) -> int:
        return len(self.exchanges)

    def leave_out(self, batch: pa.RecordBatch, privacy: Privacy) -> pa.RecordBatch:
        """The rows of a batch that were not taken in before; the others are tallied."""
        exchange = privacy.hash_strings(batch["exchange_id"], "exchange")
        known = self.holds(exchange)
        account = privacy.hash_strings(batch["account_id"], "account")
        moment = batch["time"].cast(pa.int64()).to_numpy()
        self.met += int(known.sum())
        self.met_digest = (self.met_digest + digest_of(exchange[known], moment[known], account[known])) % 2**64
        return batch.filter(pa.array(~known))

    def holds(self, exchange: np.ndarray) -> np.ndarray:
        """Which of these exchanges (hashes) were taken in before."""
        if not len(self):
            return np.zeros(len(exchange), bool)
        at = np.minimum(np.searchsorted(self.exchanges, exchange), len(self) - 1)
        return np.asarray(self.exchanges[at] == exchange)

    def check(self) -> None:
        """UsageError where the log is another than these rows were taken from, or no longer holds them as they were."""
        hint = "give the whole log with what has been added to it, or --state an empty folder to begin afresh"
        if self.met < len(self):
            lacking = f"lacks {len(self) - self.met:,} of the {len(self):,} exchanges that the state has taken in"
            raise UsageError(f"the log {lacking}", hint=hint)
        if self.met_digest != self.digest:
            raise UsageError("the log gives exchanges the state has taken in another time or account", hint=hint)


def digest_of(exchange: np.ndarray, moment: np.ndarray, account: np.ndarray) -> int:
    """Of rows in whatever order: the sum modulo 2^64 of a hash of each one's exchange, time (us) and account."""
    mixed = exchange.astype(np.int64).view(np.uint64)
    for part in (moment, account):
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93) + part.view(np.uint64)
    return int(((mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)).sum(dtype=np.uint64))


@dataclass(frozen=True, slots=True)
class Declared:
    """What was declared beside the log: accounts, models with their release times, and the faults of both files."""

    accounts: pa.Table | None
    models: pa.Table | None
    faults: tuple[Reject, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of the rows of a log: ``coverage`` are the rows kept in which each canonical column has a value, ``unknown``
    the columns that no canonical one takes; ``rejects`` were left out, ``notes`` kept but changed."""

    rows_read: int
    rows_kept: int
    coverage: Mapping[str, int]
    rejects: tuple[Reject, ...] = ()
    notes: tuple[Reject, ...] = ()
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source) -> Reading:
        """Of a source that was read to its end."""
        counts = source.rows_read, source.rows_kept, source.coverage
        return cls(*counts, tuple(source.rejects), tuple(source.notes), tuple(source.unknown))


def open_log(log: Log) -> tuple[Declared, Source]:
    """The declared tables, read, and the log's source, ready to be iterated."""
    accounts, faults = read_accounts(log.accounts) if log.accounts else (None, [])
    models, more = read_models(log.models) if log.models else (None, [])
    source = read_exchanges(log.exchanges, adapter=log.adapter, maps=log.maps)
    return Declared(accounts, models, (*faults, *more)), source


def take_in(
    source: Source, privacy: Privacy, progress: Progress, before: int | None = None, taken: Taken | None = None
) -> Intake:
    """Hops 1 and 2: read batches, fingerprint them, drop their content.

    Rows at or after ``before`` (us) are left aside. Rows ``taken`` in by an earlier run come first, in their order, and are
    not fingerprinted again; UsageError where the log no longer holds them.
    """
    intake = Intake()
    for batch in source:
        progress.advance(batch.num_rows)
        wanted = intake.earlier(batch, before)
        intake.accounts.number(wanted["account_id"])
        intake.models.number(wanted["model"])
        new = taken.leave_out(wanted, privacy) if taken else wanted
        if new.num_rows:
            intake.add(new["account_id"], new["model"], observe(new, privacy))
    if taken:
        taken.check()
    elif not intake.facts:
        early = "no exchange is as early as --until says" if intake.later else ""
        raise InputRejected("no exchange could be judged", hint=early or "\n  ".join(map(str, source.rejects[:10])))
    intake.complete(taken, privacy)
    return intake


def put_first(intake: Intake, taken: Taken, privacy: Privacy) -> None:
    """Put the rows of an earlier run before those of the intake, whose numberings know all their names."""
    accounts = privacy.hash_strings(intake.accounts.names, "account")
    models = privacy.hash_strings(intake.models.names, "model")
    for what, known in (("account", accounts), ("model", models)):
        if lacking := int((~np.isin(pc.unique(taken.facts[what]).to_numpy(), known)).sum()):
            hint = "restore the file of names that was kept with the state, or begin afresh with an empty state"
            raise Terminal(f"the names of {lacking:,} {what}s that the state has taken in are lacking", hint=hint)
    columns = {n: taken.facts[n] for n in taken.facts.column_names}
    columns["account"] = pa.array(places(accounts, columns["account"].to_numpy()).astype(np.int32))
    columns["model"] = pa.array(places(models, columns["model"].to_numpy()).astype(np.int32))
    batches = pa.table({f.name: columns[f.name] for f in KEPT}, schema=KEPT).combine_chunks().to_batches()
    intake.facts[:0] = batches
    intake.numbers[:0] = [b["account"].to_numpy() for b in batches]
    intake.sketches.insert(0, taken.sketches)
    account, text, sketch = taken.systems
    intake.systems.insert(0, (places(accounts, account).astype(np.int32), text, sketch))


def places(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The position in ``known``, which holds each value once in whatever order, of each of ``values``."""
    order = np.argsort(known)
    return np.asarray(order[np.searchsorted(known, values, sorter=order)])


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
