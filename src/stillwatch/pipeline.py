"""The whole way of an exchange, on one page: a log in, campaigns out.

    adapters.read_exchanges -> fingerprints.observe -> store.append, folds.fold -> detectors -> clusters.resolve,
    refining.refine -> cases.convene, scoring.judge, campaigns.name -> results.write

Each hop is a function from tables to tables and can be run alone; docs/concepts.md has their nouns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch import __version__, campaigns, cases, clusters, folds, membership, pivots, refining, scoring, wordings
from stillwatch.adapters import Source, read_accounts, read_exchanges, read_models
from stillwatch.config import Config
from stillwatch.detectors import EVIDENCE, Detector, run_detector
from stillwatch.errors import InputRejected, Reject
from stillwatch.evidence import Holdings
from stillwatch.findings import Counts, Findings, Run, accounts_table
from stillwatch.fingerprints import observe
from stillwatch.numbering import Numbering
from stillwatch.plugins import discover
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.progress import Progress, peak_memory_bytes
from stillwatch.store import Engine, open_engine
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


def scan(log: Log, config: Config, privacy: Privacy, progress: Progress) -> tuple[Findings, Run]:
    """Judge a log as a whole. InputRejected where nothing in it can be judged; bad rows are counted in the run."""
    started = datetime.now(UTC)
    progress.stage("read accounts")
    declared, faults = read_accounts(log.accounts) if log.accounts else (None, [])
    released, more = read_models(log.models) if log.models else (None, [])
    source = read_exchanges(log.exchanges, adapter=log.adapter, maps=log.maps)
    progress.stage("read and fingerprint", total=source.estimated_rows)
    intake = take_in(source, privacy, progress)
    blind = blindness(discover("detectors"), source.coverage, declared, released)
    known = profiles(declared, intake.accounts, privacy)
    with open_engine(config.engine, config.memory, config.threads or None) as engine:
        progress.stage("wordings")
        keep(engine, intake, known, released)
        progress.stage("fold")
        folds.fold(engine)
        folds.prepare(engine)
        progress.stage("detect")
        ties = detect(engine, [d for n, d in discover("detectors").items() if n not in blind], config)
        progress.stage("cluster")
        holdings = Holdings.load(engine, len(intake.accounts))
        proposals = clusters.resolve(ties["ties"])
        found = refining.refine(holdings, proposals, membership.Rules())
        progress.stage("judge")
        verdicts = scoring.judge(cases.convene(engine, holdings, found), holdings, ties["signals"])
        names = campaigns.Names(intake.accounts.names, intake.models.names.to_pylist())
        # Without a case there are no tables of cases to look for moves in.
        moves = pivots.find(engine, names.models) if verdicts else {}
        judged = campaigns.name(verdicts, holdings, names, moves, started)
        span = engine.rows("SELECT min(time) AS first, max(time) AS last FROM facts").to_pylist()[0]
    progress.stage("conclude")
    findings = Findings(
        judged.campaigns,
        judged.review,
        judged.let_go,
        accounts_table(intake.accounts.names, judged.campaigns, judged.review),
    )
    counts = Counts(
        source.rows_read, source.rows_kept, len(intake.accounts), len(intake.models), span["first"], span["last"]
    )
    progress.stage("done")
    run = Run(
        version=__version__,
        settings=config.plain() | {"key_id": privacy.key_id},
        counts=counts,
        started=started,
        finished=datetime.now(UTC),
        rejects=(*source.rejects, *faults, *more, *uncovered(intake.accounts, declared)),
        notes=tuple(source.notes),
        timings=dict(progress.timings),
        peak_memory_bytes=peak_memory_bytes(),
        blind=blind,
        coverage={name: rows / max(1, source.rows_kept) for name, rows in source.coverage.items()},
        unknown_columns=tuple(source.unknown),
    )
    return findings, run


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
    return intake


def keep(engine: Engine, intake: Intake, known: pa.Table, released: pa.Table | None) -> None:
    """Hop 3: find the wording families of the whole log, then append facts and accounts to the engine."""
    families = wordings.resolve(intake.sketches, np.concatenate(intake.numbers)).family
    intake.sketches.clear()
    systems = system_families(intake.systems)
    engine.append("accounts", known)
    engine.append("models", release_times(released, intake.models))
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
    family = wordings.resolve([s[2] for s in systems], account).family if len(text) else np.zeros(0, np.int64)
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


def detect(engine: Engine, detectors: Sequence[Detector], config: Config) -> dict[str, pa.Table]:
    """Hop 4: all ties and all signals, each with its detector and family."""
    found = {shape: [with_origin(EVIDENCE[shape].empty_table(), "", "")] for shape in ("ties", "signals")}
    for detector in detectors:
        rows = run_detector(engine, detector, config.detectors.get(detector.name, {}))
        found[detector.shape].append(with_origin(rows, detector.name, detector.family))
    return {shape: pa.concat_tables(rows, promote_options="permissive") for shape, rows in found.items()}


def with_origin(rows: pa.Table, detector: str, family: str) -> pa.Table:
    """``rows`` with the columns ``detector`` and ``family``."""
    for column, text in (("detector", detector), ("family", family)):
        rows = rows.append_column(column, pa.array([text] * rows.num_rows, pa.string()))
    return rows


def blindness(
    detectors: Mapping[str, Detector], coverage: Mapping[str, int], accounts: pa.Table | None, models: pa.Table | None
) -> dict[str, str]:
    """The detectors that cannot work on this log, each with a sentence naming the columns it misses."""
    held = {f"exchanges.{name}" for name, rows in coverage.items() if rows}
    for name, table in (("accounts", accounts), ("models", models)):
        if table is not None:
            held |= {f"{name}.{c}" for c in table.column_names if table[c].null_count < table.num_rows}
    missing = {name: [n for n in d.needs if n not in held] for name, d in detectors.items()}
    return {name: f"no {', '.join(gaps)} in the log" for name, gaps in missing.items() if gaps}


def uncovered(seen: Numbering, declared: pa.Table | None) -> list[Reject]:
    """A note where the accounts file lacks accounts of the log; they are judged without it."""
    if declared is None:
        return []
    found = pc.is_in(seen.names, value_set=declared["account_id"].combine_chunks())
    lacking = len(seen) - int(pc.sum(found).as_py() or 0)
    return [Reject("accounts of the log that the accounts file lacks", lacking, "accounts")] if lacking else []
