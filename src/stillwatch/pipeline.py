"""The whole way of an exchange, on one page: a log in, campaigns out.

    adapters.read_exchanges -> fingerprints.observe -> store.append, folds.fold -> detectors -> clusters.resolve, hypotheses,
    grouping.groups -> cases.convene, scoring.judge, campaigns.name -> results.write

Each hop is a function from tables to tables and can be run alone; docs/concepts.md has their nouns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from stillwatch import (
    __version__,
    campaigns,
    cases,
    clusters,
    folds,
    grouping,
    hypotheses,
    membership,
    pivots,
    refining,
    scoring,
    weighing,
)  # fmt: skip
from stillwatch.config import Config
from stillwatch.detectors import EVIDENCE, Detector, run_detector
from stillwatch.evidence import Holdings
from stillwatch.findings import Counts, Findings, Run, accounts_table
from stillwatch.ground import Ground
from stillwatch.intake import Declared, Intake, Log, Reading, keep, open_log, take_in, uncovered
from stillwatch.plugins import discover
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress, peak_memory_bytes
from stillwatch.store import Engine, open_engine
from stillwatch.types import Outcome

__all__ = ["Log", "blindness", "detect", "judge", "scan"]


def scan(log: Log, config: Config, privacy: Privacy, progress: Progress) -> tuple[Findings, Run]:
    """Judge a log as a whole. InputRejected where nothing in it can be judged; bad rows are counted in the run."""
    started = datetime.now(UTC)
    progress.stage("read accounts")
    declared, source = open_log(log)
    progress.stage("read and fingerprint", total=source.estimated_rows)
    intake = take_in(source, privacy, progress)
    blind = blindness(discover("detectors"), source.coverage, declared.accounts, declared.models)
    sighted = [d for name, d in discover("detectors").items() if name not in blind]
    with open_engine(config.engine, config.memory, config.threads or None) as engine:
        progress.stage("wordings")
        keep(engine, intake, declared, privacy)
        judged = judge(engine, intake, sighted, config, started, progress)
        span = engine.rows("SELECT min(time) AS first, max(time) AS last FROM facts").to_pylist()[0]
    progress.stage("conclude")
    accounts = accounts_table(intake.accounts.names, judged.campaigns, judged.review)
    progress.end()
    findings = Findings(judged.campaigns, judged.review, judged.let_go, accounts)
    return findings, run_of(
        Reading.of(source), declared, intake, config, privacy, progress, blind, (span["first"], span["last"]), started
    )


def run_of(
    read: Reading, declared: Declared, intake: Intake, config: Config, privacy: Privacy, progress: Progress,
    blind: Mapping[str, str], span: tuple[datetime, datetime], started: datetime,
) -> Run:  # fmt: skip
    """How a result was made, for ``run.json``."""
    kept = read.rows_kept - intake.later
    counts = Counts(read.rows_read, kept, len(intake.accounts), len(intake.models), *span, intake.later)
    return Run(
        version=__version__,
        settings=config.plain() | {"key_id": privacy.key_id},
        counts=counts,
        started=started,
        finished=datetime.now(UTC),
        rejects=(*read.rejects, *declared.faults, *uncovered(intake.accounts, declared.accounts)),
        notes=read.notes,
        timings=dict(progress.timings),
        peak_memory_bytes=peak_memory_bytes(),
        blind=blind,
        coverage={name: rows / max(1, read.rows_kept) for name, rows in read.coverage.items()},
        unknown_columns=read.unknown,
    )


def judge(
    engine: Engine, intake: Intake, detectors: Sequence[Detector], config: Config, at: datetime, progress: Progress
) -> campaigns.Judged:
    """Hops 3 to 6 on what the engine holds: every cluster as a campaign, a case for review, or let go."""
    return name(engine, intake, *weigh(engine, len(intake.accounts), detectors, config, progress), at)


def name(
    engine: Engine, intake: Intake, verdicts: list[scoring.Verdict], holdings: Holdings, at: datetime
) -> campaigns.Judged:
    """Hop 6: verdicts, whose cases the engine still has, as campaigns, cases for review, or let go."""
    names = campaigns.Names(intake.accounts.names, intake.models.names.to_pylist())
    # Without a case there are no tables of cases to look for moves in.
    suspected = [v.case.members for v in verdicts if v.outcome is not Outcome.LET_GO]
    moves = pivots.find(engine, names.models, np.concatenate([np.zeros(0, np.int64), *suspected])) if verdicts else {}
    return campaigns.name(verdicts, holdings, names, moves, at)


def weigh(
    engine: Engine, accounts: int, detectors: Sequence[Detector], config: Config, progress: Progress
) -> tuple[list[scoring.Verdict], Holdings]:
    """Hops 3 to 5: a verdict on every cluster, and who holds what; ``accounts`` is one more than their largest number."""
    progress.stage("fold")
    folds.fold(engine)
    folds.prepare(engine)
    progress.stage("detect")
    evidence = detect(engine, detectors, config)
    progress.stage("cluster")
    holdings, rules = Holdings.load(engine, accounts), membership.Rules()
    ground = Ground.load(engine, holdings)
    tied = clusters.resolve(evidence["ties"])
    proven, others = apart(scoring.judge(
        cases.convene(engine, holdings, refining.refine(holdings, tied, rules)), ground, evidence["signals"]
    ))  # fmt: skip
    proven = grouping.rejoined(ground, proven, weighing.weights())
    guesses = grouping.without([*hypotheses.hypotheses(holdings), *tied], proven)
    standing = grouping.groups(ground, guesses, weighing.weights(), rules)
    found = grouping.disjoint(holdings, proven, standing, others)
    progress.stage("judge")
    return scoring.judge(cases.convene(engine, holdings, found), ground, evidence["signals"]), holdings


def apart(verdicts: list[scoring.Verdict]) -> tuple[list[grouping.Found], list[grouping.Found]]:
    """Clusters each of whose axes is proven, to be left whole whatever comes of them, and the others, with the scores
    of their members."""
    rules = scoring.Rules()
    proven = [v.outcome is not Outcome.LET_GO and scoring.proven(v, rules) and v.odds >= 0 for v in verdicts]
    found = [(v.case.members, v.case.scored) for v in verdicts]
    return [f for f, p in zip(found, proven) if p], [f for f, p in zip(found, proven) if not p]


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
