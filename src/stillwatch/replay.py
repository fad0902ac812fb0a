"""A log walked in event time: at each step it is judged by what had arrived until then, never by what comes later.

Two paces. At every step what has just arrived is held against the campaigns known so far (``recognition.py``): that costs by the
row. Everything that has arrived is judged anew, with the judgement of a scan, when enough of what nobody explains has been
added (``Schedule``): that costs by the log, and is rationed so that a replay costs about two scans more than a scan.
The last step is a scan of the whole log, so both end with the same answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch import campaigns, wordings
from stillwatch.arrivals import Arrivals, pair_of
from stillwatch.config import Config
from stillwatch.detectors import Detector
from stillwatch.findings import CLEARED_AT, Findings, Run, accounts_table
from stillwatch.intake import Intake, Log, keep, mapped, open_log, release_times, system_families, take_in
from stillwatch.ledger import NEVER, Ledger
from stillwatch.membership import Rules
from stillwatch.pipeline import blindness, run_of, weigh
from stillwatch.pipeline import judge as judge_all
from stillwatch.plugins import discover
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.progress import Progress
from stillwatch.recognition import Book, Profile, keys_of, recognise
from stillwatch.store import Engine, open_engine
from stillwatch.tables import FACTS, UTC_US
from stillwatch.types import Outcome

SMALL = 150_000
"""Arrivals up to which wordings are resolved anew over the whole log so far; beyond, over the newest rows."""
RECENT_ROWS = 60_000
"""At least so many of the newest rows are looked at for new wordings."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Schedule:
    """When to judge everything again. Costs are microseconds of a usual core, counted by rows and not by the clock, so that a
    replay gives the same answer on any machine."""

    rows: int = 0
    unexplained: int = 0
    spent: float = 0.0

    FIXED, PER_ROW = 1.5e6, 13.0
    """What a judgement costs: always, and for each row."""
    ALLOWED, ALLOWED_PER_ROW = 12e6, 42.0
    """What all judgements together may cost: at once, and for each row that has arrived."""
    GROWTH, LEAST = 0.25, 25
    """By how much, and by how many rows at least, the log or what is unexplained in it must have grown."""

    def due(self, arrived: int, unexplained: int) -> bool:
        """Whether to judge now; ``unexplained`` rows read like training data and are of no known campaign."""
        grown = arrived - self.rows >= max(self.LEAST, self.GROWTH * self.rows)
        alarming = unexplained - self.unexplained >= max(self.LEAST, self.GROWTH * self.unexplained)
        affordable = self.spent + self.cost(arrived) <= self.ALLOWED + self.ALLOWED_PER_ROW * arrived
        return (grown or alarming) and affordable

    def cost(self, arrived: int) -> float:
        """Of a judgement of so many rows."""
        return self.FIXED + self.PER_ROW * arrived

    def done(self, arrived: int, unexplained: int) -> None:
        """Note that everything was judged; ``unexplained`` as it is after that."""
        self.spent += self.cost(arrived)
        self.rows, self.unexplained = arrived, unexplained


@dataclass(slots=True)
class Watch:
    """What a replay remembers from step to step."""

    ledger: Ledger
    schedule: Schedule = field(default_factory=Schedule)
    book: Book = field(default_factory=lambda: Book.of(()))
    wrappers: wordings.Wrappers = field(default_factory=wordings.no_wrappers)
    systems: tuple[np.ndarray, np.ndarray] = field(
        default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64))
    )
    shared: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Sorted keys of the values that at least two customers held at the last judgement."""
    tried: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Pairs (account, key) that were looked at since then: an account is looked at again once it holds something new."""
    until: int = 0
    """Arrivals seen."""
    unexplained: int = 0


@dataclass(frozen=True, slots=True)
class Judge:
    """What judging needs beside the watch."""

    engine: Engine
    intake: Intake
    detectors: Sequence[Detector]
    config: Config
    systems: Systems
    seats: np.ndarray
    """Customers of several accounts: declared organisations are not accused."""


@dataclass(frozen=True, slots=True)
class Systems:
    """System texts by account: who used which (``text``), with its sketch, and its first place among the arrivals."""

    account: np.ndarray
    text: np.ndarray
    sketch: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, intake: Intake, arrivals: Arrivals) -> Systems:
        """From the intake's, one row for each account and text."""
        account = np.concatenate([s[0] for s in intake.systems])
        text = np.concatenate([s[1] for s in intake.systems])
        sketch = np.concatenate([s[2] for s in intake.systems])
        pairs, first = np.unique(np.column_stack([account, text]), axis=0, return_index=True)
        raw = arrivals.facts["system"].fill_null(0).to_numpy()[arrivals.order]
        lined = np.column_stack([arrivals.account[arrivals.order], raw])[raw != 0]
        _, at = np.unique(lined, axis=0, return_index=True)
        return cls(pairs[:, 0], pairs[:, 1], sketch[first], np.flatnonzero(raw)[at])

    def families(self, until: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``system_families``, of the texts among the first ``until`` arrivals."""
        seen = self.place < until
        return system_families([(self.account[seen], self.text[seen], self.sketch[seen])])


def replay(
    log: Log, every: timedelta, config: Config, privacy: Privacy, progress: Progress
) -> tuple[Findings, Run, list[dict[str, Any]]]:
    """Walk the log in steps of ``every``; findings and run as of a scan, and the history of each campaign.

    Raises UsageError where ``every`` is not positive, InputRejected where nothing in the log can be judged.
    """
    started = datetime.now(UTC)
    progress.stage("read accounts")
    declared, source = open_log(log)
    progress.stage("read and fingerprint", total=source.estimated_rows)
    intake = take_in(source, privacy, progress)
    blind = blindness(discover("detectors"), source.coverage, declared.accounts, declared.models)
    sighted = [d for name, d in discover("detectors").items() if name not in blind]
    known = profiles(declared.accounts, intake.accounts, privacy)
    arrivals = Arrivals.of(intake, known)
    watch = Watch(Ledger.empty(len(intake.accounts)))
    with open_engine(config.engine, config.memory, config.threads or None) as engine:
        engine.append("accounts_known", known)
        engine.append("models", release_times(declared.models, intake.models))
        judge = Judge(engine, intake, sighted, config, Systems.of(intake, arrivals), seats_of(known))
        progress.stage("watch", total=len(arrivals))
        for end, until in steps(arrivals.times, every):
            step(watch, arrivals, judge, end, until, progress)
    with open_engine(config.engine, config.memory, config.threads or None) as engine:
        progress.stage("wordings")
        end = int(last_step(arrivals.times, every))
        span = tuple(_EPOCH + timedelta(microseconds=int(t)) for t in (arrivals.times[0], arrivals.times[-1]))
        arrivals.sketches = np.zeros((0, 0), np.uint32)
        keep(engine, intake, declared, privacy)
        findings = conclude(engine, intake, sighted, config, watch.ledger, end, progress)
    progress.end()
    run = run_of(source, declared, intake, config, privacy, progress, blind, (span[0], span[1]), started)
    return findings, run, history(watch.ledger)


def steps(times: np.ndarray, every: timedelta) -> list[tuple[int, int]]:
    """The end (us) of each step in which something arrived, and how much had arrived by then; ends divide the time since 1970."""
    width = every // timedelta(microseconds=1)
    ends = (np.unique(times // width) + 1) * width
    return [(int(e), int(n)) for e, n in zip(ends, np.searchsorted(times, ends))]


def last_step(times: np.ndarray, every: timedelta) -> int:
    """The end of the last step, us."""
    width = every // timedelta(microseconds=1)
    return int((times[-1] // width + 1) * width)


def seats_of(known: pa.Table) -> np.ndarray:
    """Customers with more than one account, sorted."""
    customers, accounts = np.unique(known["customer"].to_numpy(), return_counts=True)
    return customers[accounts > 1]


def step(watch: Watch, arrivals: Arrivals, judge: Judge, end: int, until: int, progress: Progress) -> None:
    """Take in what arrived up to ``until``: recognise known campaigns in it, and judge everything if that is due."""
    rows = arrivals.order[watch.until : until]
    progress.advance(len(rows))
    watch.until = until
    arrivals.wording[rows] = watch.wrappers.assign(arrivals.sketches[rows])
    arrivals.system[rows] = mapped(arrivals.system[rows], *watch.systems)
    greet(watch, arrivals, rows, judge.seats, end)
    watch.unexplained += unexplained(watch.ledger, arrivals, rows)
    if watch.schedule.due(until, watch.unexplained):
        rejudge(watch, arrivals, judge, end)
        progress.stage("watch")


def greet(watch: Watch, arrivals: Arrivals, rows: np.ndarray, seats: np.ndarray, at: int) -> None:
    """Flag the accounts of these rows that belong to a known campaign."""
    if not len(watch.book.profiles):
        return
    keys, customers = arrivals.telling(rows)
    hit = watch.book.tells(keys) & (watch.ledger.owner[customers] == NEVER)
    pairs, first = np.unique(pair_of(customers[hit], keys[hit]), return_index=True)
    new = ~np.isin(pairs, watch.tried, assume_unique=True)
    reached = np.setdiff1d(customers[hit][first[new]], seats)
    if not len(reached):
        return
    watch.tried = np.union1d(watch.tried, pairs[new])
    accounts, numbers = recognise(watch.book, arrivals.seen(reached, watch.until, watch.shared), Rules())
    watch.ledger.join(accounts, numbers, at)


def rejudge(watch: Watch, arrivals: Arrivals, judge: Judge, at: int) -> None:
    """Judge all that has arrived, enter the outcome into the ledger, and write the profiles of its campaigns anew."""
    load(watch, arrivals, judge)
    verdicts, holdings = weigh(
        judge.engine, len(judge.intake.accounts), judge.detectors, judge.config, Progress(quiet=True)
    )
    accused = [v for v in verdicts if v.outcome is Outcome.CAMPAIGN]
    names = judge.intake.accounts.names
    found = [(campaigns.named_after(names.take(pa.array(v.case.members)).to_pylist()), v.case.members) for v in accused]
    numbers = watch.ledger.record(found, at)
    watch.book = Book.of([(n, Profile.of(holdings, v.case)) for n, v in zip(numbers, accused)])
    watch.tried = np.zeros(0, np.int64)
    watch.shared = np.sort(keys_of(holdings.kind, holdings.value)[holdings.holders >= 2])
    watch.unexplained = unexplained(watch.ledger, arrivals, arrivals.order[: watch.until])
    watch.schedule.done(watch.until, watch.unexplained)


def unexplained(ledger: Ledger, arrivals: Arrivals, rows: np.ndarray) -> int:
    """How many of these rows read like training data and are of no known campaign."""
    return int(arrivals.elicited[rows][ledger.owner[arrivals.customer[rows]] == NEVER].sum())


def load(watch: Watch, arrivals: Arrivals, judge: Judge) -> None:
    """Put what has arrived since the last judgement into the engine, its wordings known as well as they can be by now."""
    last, until = watch.schedule.rows, watch.until
    whole = until <= SMALL
    window = arrivals.order[0 if whole else max(0, until - max(int(1.2 * (until - last)), RECENT_ROWS)) : until]
    new = arrivals.order[0 if whole else last : until]
    found = wordings.resolve(arrivals.sketches[window], arrivals.account[window])
    wrappers, family = lasting(found, arrivals.wording[window])
    fresh = np.isin(window, new)
    arrivals.wording[window[fresh]] = family[fresh]
    watch.wrappers, watch.systems = wrappers, judge.systems.families(until)
    raw = arrivals.facts["system"].take(pa.array(new)).fill_null(0).to_numpy()
    arrivals.system[new] = mapped(raw, *watch.systems)
    taken = arrivals.facts.take(pa.array(new))
    columns = {n: taken[n] for n in taken.column_names}
    columns |= {"wording": pa.array(arrivals.wording[new]), "system": pa.array(arrivals.system[new])}
    rows = pa.table({f.name: columns[f.name].cast(f.type) for f in FACTS.schema})
    if whole and last:
        judge.engine.step("facts_before", "SELECT * FROM facts WHERE 1 = 0")
        judge.engine.step("facts", "SELECT * FROM facts_before")
    judge.engine.append("facts", rows)
    judge.engine.step("accounts", "SELECT * FROM accounts_known WHERE account IN (SELECT DISTINCT account FROM facts)")


def lasting(found: wordings.Families, before: np.ndarray) -> tuple[wordings.Wrappers, np.ndarray]:
    """The wrappers and the families of the rows under the names they had ``before``, where most of their rows had one.

    A family takes an old name if that makes up half of its rows that had any, and it has most of that name's rows.
    """
    known = (found.family != 0) & (before != 0)
    names = np.unique(found.family[found.family != 0])
    if not known.any():
        return found.wrappers, found.family
    pairs, rows = np.unique(np.column_stack([found.family[known], before[known]]), axis=0, return_counts=True)
    renamed, taken = {}, set()
    for k in np.lexsort((pairs[:, 1], pairs[:, 0], -rows)):
        new, old = int(pairs[k, 0]), int(pairs[k, 1])
        if new not in renamed and old not in taken and 2 * rows[k] >= rows[pairs[:, 0] == new].sum():
            renamed[new] = old
            taken.add(old)
    to = np.array([renamed.get(int(n), int(n)) for n in names], np.int64)
    wrappers = dataclasses.replace(found.wrappers, name=mapped(found.wrappers.name, names, to))
    return wrappers, mapped(found.family, names, to)


def conclude(
    engine: Engine,
    intake: Intake,
    detectors: Sequence[Detector],
    config: Config,
    ledger: Ledger,
    at: int,
    progress: Progress,
) -> Findings:
    """The last step: a scan of all that the engine holds, under the names that the ledger knows."""
    judged = judge_all(engine, intake, detectors, config, moment(at), progress)
    progress.stage("conclude")
    number = intake.accounts.find
    members = [np.sort(number(pa.array([m.account_id for m in c.members]))) for c in judged.campaigns]
    numbers = ledger.record([(c.campaign_id, m) for c, m in zip(judged.campaigns, members)], at)
    told = tuple(
        dataclasses.replace(
            c, campaign_id=ledger.entries[n].campaign_id, detected_at=moment(ledger.entries[n].named_at),
            predecessors=tuple(ledger.entries[n].predecessors),
        )
        for c, n in zip(judged.campaigns, numbers)
    )  # fmt: skip
    return Findings(
        told, judged.review, judged.let_go, flagged_accounts(intake.accounts.names, told, judged.review, ledger)
    )


def flagged_accounts(
    names: pa.Array, told: Sequence[campaigns.Campaign], review: Sequence[campaigns.Campaign], ledger: Ledger
) -> pa.Table:
    """``accounts.parquet`` of a replay: with the time each account was first flagged, and when that was taken back."""
    rows = accounts_table(names, told, review)
    flagged = pa.array(ledger.flagged_at, pa.int64(), mask=ledger.flagged_at == NEVER).cast(UTC_US)
    cleared = pa.array(ledger.cleared_at, pa.int64(), mask=ledger.cleared_at == NEVER).cast(UTC_US)
    at = rows.schema.get_field_index("first_flagged_at")
    return rows.set_column(at, rows.schema.field(at), flagged).append_column(CLEARED_AT, cleared)


def history(ledger: Ledger) -> list[dict[str, Any]]:
    """Every campaign ever told, with what became of it: the rows of ``history.json``."""
    return [
        {
            "campaign_id": e.campaign_id,
            "named_at": moment(e.named_at),
            "predecessors": e.predecessors,
            "merged_into": e.merged_into,
            "events": [
                {"at": moment(at), "event": what} | ({"accounts": n} if n > 0 else {}) for at, what, n in e.history
            ],
        }
        for e in ledger.entries
    ]


def moment(us: int) -> datetime:
    """Microseconds since 1970 as a moment in UTC."""
    return _EPOCH + timedelta(microseconds=us)
