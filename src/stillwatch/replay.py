"""A log walked in event time: at each step it is judged by what had arrived until then, never by what comes later.

Two paces. At every step what has just arrived is held against the campaigns known so far (``recognition.py``): that costs by the
row. Everything that has arrived is judged anew, with the judgement of a scan, when enough of what nobody explains has been
added (``Schedule``): that costs by the log, and is rationed so that a replay costs about two scans more than a scan.
The last step is a scan of the whole log, so both end with the same answer.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch import campaigns, wordings
from stillwatch.arrivals import Arrivals, Seats, Systems, pair_of
from stillwatch.carrying import Carried
from stillwatch.checkpoint import Checkpoint, Hashes, Saved, resumed
from stillwatch.config import Config
from stillwatch.detectors import Detector
from stillwatch.errors import UsageError
from stillwatch.evidence import Holdings
from stillwatch.findings import Findings, Run
from stillwatch.intake import Declared, Intake, Log, Reading, keep, mapped, open_log, release_times, take_in
from stillwatch.ledger import NEVER, Ledger
from stillwatch.membership import Rules
from stillwatch.pipeline import blindness, run_of, weigh
from stillwatch.pipeline import judge as judge_all
from stillwatch.pipeline import name as name_all
from stillwatch.plugins import discover
from stillwatch.privacy import Privacy
from stillwatch.profiles import profiles
from stillwatch.progress import Progress
from stillwatch.recognition import Book, Profile, keys_of, recognise
from stillwatch.scoring import Verdict
from stillwatch.store import Engine, open_engine
from stillwatch.store.state import undisturbed
from stillwatch.tables import FACTS, PROFILES
from stillwatch.telling import Told, flagged_accounts, history, micros, moment, present, renamed
from stillwatch.types import Outcome
from stillwatch.watch import Watch
from stillwatch.windows import length_text

SMALL = 150_000
"""Arrivals up to which wordings are resolved anew over the whole log so far; beyond, over the newest rows."""
RECENT_ROWS = 60_000
"""At least so many of the newest rows are looked at for new wordings."""
ARRIVED = f"""
    SELECT {", ".join(n for n in PROFILES.schema.names if n != "customer")},
           min(account) OVER (PARTITION BY customer) AS customer
    FROM accounts_known WHERE account IN (SELECT DISTINCT account FROM facts)"""
"""Accounts that have arrived; a customer goes by the first of its accounts that has."""


@dataclass(slots=True)
class Judge:
    """What judging needs beside the watch; ``heard`` is what the last judgement of everything came to, if it was made here."""

    engine: Engine
    intake: Intake
    detectors: Sequence[Detector]
    config: Config
    systems: Systems
    seats: Seats
    customer: np.ndarray
    """Number of the customer of each account, by all accounts of the log."""
    share: float = 0.0
    heard: tuple[list[Verdict], Holdings] | None = None


@dataclass(slots=True)
class Along:
    """Results on the way: a walk that has far to go need not have ended for what it has judged so far to be told.

    ``tell`` is handed what a judgement of everything found, as of the end of its step; at most every ``every_s`` seconds, and so
    that telling takes no more than a twentieth of the time. Accounts that have not arrived by then are not in it.
    """

    tell: Callable[[Findings, Run, list[dict[str, Any]]], None]
    every_s: float = 60.0
    next_at: float = -math.inf

    def is_due(self) -> bool:
        """Whether to tell now."""
        return time.monotonic() >= self.next_at

    def told(self, began: float) -> None:
        """That what was begun at a time by the monotonic clock has been told."""
        now = time.monotonic()
        self.next_at = now + max(self.every_s, 19 * (now - began))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a log is walked: in steps of ``every``, to the end of the one that ends at or after ``until``, with the state in
    ``checkpoint`` taken up and left there; without the last two, once and to the end.

    ``passed`` is the time (us) by which a step must have ended to be over; without it, that of the newest exchange, or
    ``until``. ``final_scan`` is ``always`` where a scan of the whole log is the last step. With ``when_due`` the log is judged
    as a whole only after steps that are over, when the schedule says so: what that found is told, with whom was recognised since.
    ``share`` of a core's time may go into judging everything, beside what the schedule allows by rows. ``along``, where given, is
    handed what was found as the walk goes on: see ``Along``.
    """

    every: timedelta
    until: datetime | None = None
    checkpoint: Checkpoint | None = None
    passed: int | None = None
    final_scan: str = "always"
    share: float = 0.0
    along: Along | None = None

    @property
    def before(self) -> int | None:
        """The end of the last step to take, us since 1970; None where that is the log's."""
        if self.until is None:
            return None
        length = self.every // timedelta(microseconds=1)
        return -(-micros(self.until) // length) * length

    def settings(self) -> dict[str, str]:
        """For ``run.json``."""
        until = {"until": self.until.isoformat()} if self.until else {}
        share = {"share": f"{self.share:g}"} if self.share else {}
        return {"every": length_text(self.every)} | share | until


@dataclass(slots=True)
class Material:
    """What there is to judge: rows and names, what was declared beside them, how they were read, the state to go on from."""

    started: datetime
    intake: Intake
    declared: Declared
    reading: Reading
    saved: Saved | None = None
    carried: Carried | None = None
    """What is known of campaigns from before, where there is no state to go on from."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What a walk ends with: findings and run as of a scan, the history of each campaign, the end (us) of each step that was
    taken and may go on, and what the last judgement of everything found, where that is told."""

    findings: Findings
    run: Run
    history: list[dict[str, Any]]
    open_ends: tuple[int, ...]
    told: Told | None


def replay(
    log: Log, plan: Plan, config: Config, privacy: Privacy, progress: Progress
) -> tuple[Findings, Run, list[dict[str, Any]]]:
    """Walk the log; findings and run as of a scan, and the history of each campaign.

    InputRejected where nothing in the log can be judged, UsageError where the state is of other settings or another log.
    """
    followed = follow(read(log, plan, privacy, progress), plan, config, privacy, progress)
    return followed.findings, followed.run, followed.history


def read(log: Log, plan: Plan, privacy: Privacy, progress: Progress) -> Material:
    """The state, and all of a log that it has not taken in."""
    started = datetime.now(UTC)
    progress.stage("read state")
    saved = take_up(plan)
    progress.stage("read accounts")
    declared, source = open_log(log)
    progress.stage("read and fingerprint", total=source.estimated_rows)
    intake = take_in(source, privacy, progress, plan.before, saved.taken if saved else None)
    return Material(started, intake, declared, Reading.of(source), saved)


def follow(
    material: Material, plan: Plan, config: Config, privacy: Privacy, progress: Progress, last: Told | None = None
) -> Followed:
    """Walk what was read, wherever it came from. ``last`` is what was told before: it is told again as long as it is newest."""
    intake, declared = material.intake, material.declared
    blind = blindness(discover("detectors"), material.reading.coverage, declared.accounts, declared.models)
    sighted = [d for name, d in discover("detectors").items() if name not in blind]
    known = profiles(declared.accounts, intake.accounts, privacy)
    arrivals, watch = begin(intake, known, privacy, material.saved, material.carried)
    taken_up, material.saved = watch.until, None
    first, last_time = (t.as_py() for t in pc.min_max(arrivals.facts["time"]).values())
    told: Told | None = None
    with open_engine(config.engine, config.memory, config.threads or None) as engine:
        engine.append("accounts_known", known)
        engine.append("models", release_times(declared.models, intake.models))
        customer = known["customer"].to_numpy()
        judge = Judge(
            engine, intake, sighted, config, Systems.of(intake, arrivals), Seats.of(arrivals), customer, plan.share
        )
        if watch.schedule.rows:
            engine.append("facts", engine_rows(arrivals, arrivals.order[: watch.schedule.rows]))
        progress.stage("watch", total=len(arrivals) - taken_up)

        def told_now() -> None:
            began, until = time.monotonic(), moment(watch.end)
            heard = Told(watch.schedule.rows, name_all(engine, intake, *judge.heard, until)) if judge.heard else None
            if plan.along and heard:
                found = as_arrived(present(heard, watch, arrivals, intake.accounts, customer), arrivals, watch.until)
                span = first, min(last_time, until)
                run = run_of(
                    material.reading, declared, intake, config, privacy, progress, blind, span, material.started
                )
                plan.along.tell(found, so_far(run, plan, watch, found), history(watch.ledger))
                plan.along.told(began)

        open_ends = walk(watch, arrivals, judge, plan, Hashes.of(intake, privacy), progress, told_now)
        if plan.final_scan == "when_due":
            told = last if last and last.rows == watch.schedule.rows else told_again(watch, judge, progress)
            findings = present(told, watch, arrivals, intake.accounts, customer)
        judge.heard = None
    if plan.final_scan == "always":
        with open_engine(config.engine, config.memory, config.threads or None) as engine:
            progress.stage("wordings")
            end = int(last_step(arrivals.times, plan.every))
            arrivals.sketches = np.zeros((0, 0), np.uint32)
            keep(engine, intake, declared, privacy)
            findings = conclude(engine, intake, sighted, config, watch, end, progress)
    progress.end()
    run = run_of(
        material.reading, declared, intake, config, privacy, progress, blind, (first, last_time), material.started
    )
    run = dataclasses.replace(run, settings={**run.settings, **plan.settings()})
    if plan.checkpoint:
        figures = {"state_bytes": plan.checkpoint.bytes, "taken_up_rows": taken_up, "late_rows": watch.late}
        run = dataclasses.replace(run, state=figures)
    return Followed(findings, run, history(watch.ledger), open_ends, told)


def take_up(plan: Plan) -> Saved | None:
    """The state to go on from, if there is one; UsageError where it is beyond the end of the plan."""
    saved = plan.checkpoint.load() if plan.checkpoint else None
    if saved and plan.before is not None and plan.before < saved.end:
        raise UsageError(
            f"the state has seen the log to {moment(saved.end)}, which is later than --until",
            hint="give a later --until, or --state an empty folder to begin afresh",
        )
    return saved


def as_arrived(findings: Findings, arrivals: Arrivals, until: int) -> Findings:
    """Findings with rows of those accounts only that are among the first ``until`` arrivals."""
    seen = np.zeros(findings.accounts.num_rows, bool)
    seen[arrivals.account[arrivals.order[:until]]] = True
    return dataclasses.replace(findings, accounts=findings.accounts.filter(pa.array(seen)))


def so_far(run: Run, plan: Plan, watch: Watch, findings: Findings) -> Run:
    """How a result on the way was made: by the exchanges of the steps that were taken."""
    counts = dataclasses.replace(run.counts, exchanges_kept=watch.until, accounts=findings.accounts.num_rows)
    settings = {**run.settings, **plan.settings(), "on_the_way_to": run.counts.exchanges_kept}
    return dataclasses.replace(run, counts=counts, settings=settings)


def begin(
    intake: Intake, known: pa.Table, privacy: Privacy, saved: Saved | None, carried: Carried | None = None
) -> tuple[Arrivals, Watch]:
    """The log laid out, and the watch as it was saved, or a new one, with what is ``carried`` over."""
    if saved is None:
        watch = Watch(Ledger.empty(len(intake.accounts)))
        if carried:
            carried.into(watch, Hashes.of(intake, privacy).accounts, known["customer"].to_numpy(), privacy)
        return Arrivals.of(intake, known), watch
    settled = len(saved.taken)
    arrivals = Arrivals.of(intake, known, settled, saved.end)
    arrivals.wording[:settled], arrivals.system[:settled] = saved.wording, saved.system
    watch = resumed(saved, Hashes.of(intake, privacy), known["customer"].to_numpy())
    watch.ledger.note_absent(watch.absent, watch.end)
    watch.late += int((arrivals.facts["time"].cast(pa.int64()).to_numpy()[settled:] < saved.end).sum())
    return arrivals, watch


def walk(
    watch: Watch, arrivals: Arrivals, judge: Judge, plan: Plan, hashes: Hashes, progress: Progress,
    told_now: Callable[[], None],
) -> tuple[int, ...]:  # fmt: skip
    """Take all steps that are ahead. The state is saved when due, when interrupted, and after the last step that is over: one
    is when something later is in the log, or the plan says so. A step that may go on is taken, but not saved; the ends (us)
    of those are returned. ``told_now`` is called after judgements of everything that may be told on the way."""
    checkpoint = plan.checkpoint
    ahead = [(end, until) for end, until in steps(arrivals.times, plan.every) if until > watch.until]
    passed = plan.passed
    if passed is None:
        passed = max(judge.intake.latest, micros(plan.until) if plan.until else 0)
    over = [s for s in ahead if s[0] <= passed] if checkpoint else []

    def save() -> None:
        if checkpoint:
            checkpoint.save(watch, arrivals, judge.systems, hashes)

    try:
        for end, until in over:
            # An interrupt waits for the end of the step: a state in the midst of one could not be taken up.
            with undisturbed():
                step(watch, arrivals, judge, end, until, progress)
            if checkpoint and checkpoint.due(watch):
                save()
            if plan.along and watch.schedule.at == end and plan.along.is_due() and end != ahead[-1][0]:
                told_now()
    except KeyboardInterrupt:
        save()
        raise
    save()
    for end, until in ahead[len(over) :]:
        step(watch, arrivals, judge, end, until, progress, may_judge=plan.final_scan == "always")
    return tuple(end for end, _ in ahead[len(over) :])


def steps(times: np.ndarray, every: timedelta) -> list[tuple[int, int]]:
    """The end (us) of each step in which something arrived, and how much had arrived by then; ends divide the time since 1970."""
    width = every // timedelta(microseconds=1)
    ends = (np.unique(times // width) + 1) * width
    return [(int(e), int(n)) for e, n in zip(ends, np.searchsorted(times, ends))]


def last_step(times: np.ndarray, every: timedelta) -> int:
    """The end of the last step, us."""
    width = every // timedelta(microseconds=1)
    return int((times[-1] // width + 1) * width)


def step(
    watch: Watch, arrivals: Arrivals, judge: Judge, end: int, until: int, progress: Progress, *, may_judge: bool = True
) -> None:
    """Take in what arrived up to ``until``: recognise known campaigns in it, and judge everything if that may be and is due."""
    rows = arrivals.order[watch.until : until]
    progress.advance(len(rows))
    watch.until, watch.end = until, end
    arrivals.wording[rows] = watch.wrappers.assign(arrivals.sketches[rows])
    arrivals.system[rows] = mapped(arrivals.system[rows], *watch.systems)
    greet(watch, arrivals, rows, judge.seats.by(until), end)
    watch.unexplained += unexplained(watch.ledger, arrivals, rows)
    if may_judge and watch.schedule.due(until, watch.unexplained, end, judge.share):
        rejudge(watch, arrivals, judge, end)
        progress.stage("watch")


def greet(watch: Watch, arrivals: Arrivals, rows: np.ndarray, seats: np.ndarray, at: int) -> None:
    """Flag the accounts of these rows that belong to a known campaign."""
    if not len(watch.book.profiles):
        return
    keys, customers = arrivals.telling(rows)
    hit = watch.book.tells(keys) & (watch.ledger.owner[customers] == NEVER)
    pairs, first = np.unique(pair_of(customers[hit], keys[hit]), return_index=True)
    new = ~np.isin(pairs, pair_of(watch.tried[:, 0], watch.tried[:, 1]), assume_unique=True)
    reached = np.setdiff1d(customers[hit][first[new]], seats)
    if not len(reached):
        return
    looked_at = first[new]
    watch.tried = np.concatenate([watch.tried, np.column_stack([customers[hit], keys[hit]])[looked_at]])
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
    grouped = [(name, np.unique(judge.customer[members])) for name, members in found]
    numbers = watch.ledger.record(grouped, at, keep_carried=at < watch.carried_until)
    watch.book = Book.of([(n, Profile.of(holdings, v.case)) for n, v in zip(numbers, accused)])
    watch.tried = np.zeros((0, 2), np.int64)
    watch.shared = np.sort(keys_of(holdings.kind, holdings.value)[holdings.holders >= 2])
    watch.unexplained = unexplained(watch.ledger, arrivals, arrivals.order[: watch.until])
    watch.schedule.done(watch.until, watch.unexplained, at, judge.share)
    judge.heard = verdicts, holdings


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
    if whole and last:
        judge.engine.step("facts_before", "SELECT * FROM facts WHERE 1 = 0")
        judge.engine.step("facts", "SELECT * FROM facts_before")
    judge.engine.append("facts", engine_rows(arrivals, new))
    judge.engine.step("accounts", ARRIVED)


def engine_rows(arrivals: Arrivals, rows: np.ndarray) -> pa.Table:
    """These rows as the engine has them, with the families known so far."""
    taken = arrivals.facts.take(pa.array(rows))
    columns = {n: taken[n] for n in taken.column_names}
    columns |= {"wording": pa.array(arrivals.wording[rows]), "system": pa.array(arrivals.system[rows])}
    return pa.table({f.name: columns[f.name].cast(f.type) for f in FACTS.schema})


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
    watch: Watch,
    at: int,
    progress: Progress,
) -> Findings:
    """The last step: a scan of all that the engine holds, under the names that the ledger knows."""
    ledger = watch.ledger
    judged = judge_all(engine, intake, detectors, config, moment(at), progress)
    progress.stage("conclude")
    number = intake.accounts.find
    members = [np.sort(number(pa.array([m.account_id for m in c.members]))) for c in judged.campaigns]
    grouped = [(c.campaign_id, m) for c, m in zip(judged.campaigns, members)]
    numbers = ledger.record(grouped, at, keep_carried=at < watch.carried_until)
    told = tuple(renamed(c, n, ledger) for c, n in zip(judged.campaigns, numbers))
    return Findings(
        told, judged.review, judged.let_go, flagged_accounts(intake.accounts.names, told, judged.review, ledger)
    )


def told_again(watch: Watch, judge: Judge, progress: Progress) -> Told:
    """What the last judgement of everything found, in full; where an earlier run made it, it is made once more, by the rows it
    had."""
    if not watch.schedule.rows:
        return Told(0, campaigns.Judged((), (), ()))
    at = moment(watch.end)
    if judge.heard:
        return Told(watch.schedule.rows, name_all(judge.engine, judge.intake, *judge.heard, at))
    judge.engine.step("accounts", ARRIVED)
    return Told(watch.schedule.rows, judge_all(judge.engine, judge.intake, judge.detectors, judge.config, at, progress))
