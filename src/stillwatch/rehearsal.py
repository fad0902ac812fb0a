"""What a policy would have done during a replay: whom, when, how much had been let through by then, and who honest was hit.

The policy is asked at each moment an account was flagged or let go, and each day, of what was known then. Three things are
not known of the past, and are taken as they make the policy look no better: accounts that were let go are counted to a campaign
that is certain and meets every condition on its size; confidence and risk are those of the end; and whatever waits for a person
is signed at once, and told apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from stillwatch.errors import UsageError
from stillwatch.findings import Findings
from stillwatch.policy import Newest, Policy, Suspect, Told, Traffic, decide, told_of
from stillwatch.types import Action, Campaign, Rung, Standing

ASSUMED = (
    "confidence and risk of a campaign are those it had at the end",
    "accounts that were let go count as of a campaign that is certain and large enough for every rule",
    "whatever waits for a person is signed at once",
)

TRUTH = "truth.parquet"
DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tally:
    """When each account made its exchanges: account n's are ``times[starts[n]:starts[n + 1]]``, ascending, us since 1970."""

    number: Mapping[str, int]
    starts: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], account: np.ndarray, time_us: np.ndarray) -> Tally:
        """Of exchanges by the place of their account in ``names``."""
        order = np.lexsort((time_us, account))
        starts = np.searchsorted(account[order], np.arange(len(names) + 1))
        return cls({name: n for n, name in enumerate(names)}, starts, time_us[order])

    @classmethod
    def of_facts(cls, names: pa.Array, facts: Iterable[pa.RecordBatch]) -> Tally:
        """Of what a replay took in: facts with ``account``, the place in ``names``, and ``time``."""
        table = pa.Table.from_batches([b.select(["account", "time"]) for b in facts])
        return cls.of(names.to_pylist(), table["account"].to_numpy(), table["time"].cast(pa.int64()).to_numpy())

    @property
    def span(self) -> tuple[int, int]:
        """Times of the first and the last exchange."""
        return (int(self.times.min()), int(self.times.max())) if len(self.times) else (0, 0)

    def of_account(self, account_id: str) -> np.ndarray:
        """Times of an account's exchanges; none where it is unknown."""
        n = self.number.get(account_id)
        return self.times[:0] if n is None else self.times[self.starts[n] : self.starts[n + 1]]

    def between(self, account_id: str, start: datetime, end: datetime) -> int:
        """How many exchanges an account made from ``start`` on, before ``end``."""
        low, high = np.searchsorted(self.of_account(account_id), [_us(start), _us(end)])
        return max(int(high - low), 0)


@dataclass(frozen=True, slots=True)
class Done:
    """An action as it would have been: from ``start`` to ``end``, ``waited`` where a person had to sign."""

    account_id: str
    rung: Rung
    rule: str
    start: datetime
    end: datetime
    waited: bool
    shadow: bool


@dataclass(frozen=True, slots=True)
class RungRow:
    """One rung over the whole replay. Accounts count once, under ``without_person`` if they got there without one.

    ``before`` are the exchanges that accounts on this rung made before they were on it or a higher one, of ``exchanges`` in
    all. ``honest`` counts those that the truth calls honest, ``honest_exchanges`` what they asked while on it; None without one.
    """

    rung: Rung
    without_person: int
    signed: int
    shadow: int
    before: int
    exchanges: int
    honest: int | None
    honest_exchanges: int | None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a policy would have done: by rung, and how many accounts came to each rung on each day."""

    rungs: tuple[RungRow, ...]
    days: Mapping[str, Mapping[Rung, int]]
    undone: int
    """Actions taken back because the account was let go."""
    honest_share: float | None
    """Share of honest exchanges that were asked while on a rung above observe; None without a truth."""
    assumed: tuple[str, ...] = ASSUMED

    def to_dict(self) -> dict[str, Any]:
        """The shape of ``policy.json``."""
        return {
            "rungs": [dataclasses.asdict(r) | {"rung": r.rung.value} for r in self.rungs],
            "days": {day: {rung.value: n for rung, n in found.items()} for day, found in self.days.items()},
            "undone": self.undone,
            "honest_share": self.honest_share,
            "assumed": list(self.assumed),
        }


def rehearse(
    policy: Policy,
    findings: Findings,
    tally: Tally,
    seed: bytes,
    *,
    organisations: Mapping[str, str] | None = None,
    honest: Collection[str] | None = None,
) -> Rehearsal:
    """What ``policy`` would have done during the replay that ended in ``findings``.

    ``honest`` are the accounts that the truth calls honest. UsageError where the findings are a scan's, without times.
    """
    past = _Past.of(findings, tally)
    traffic = Traffic({a: len(tally.of_account(a)) for a in past.flags}, len(tally.times), organisations or {})
    stage = _Stage(policy, past, traffic, seed)
    for at in past.moments:
        stage.ask(at)
    done = stage.all_done()
    known = None if honest is None else frozenset(honest)
    rows = tuple(_rung_row(rung, done, tally, known) for rung in Rung if any(d.rung is rung for d in done))
    return Rehearsal(rows, _by_day(done), stage.undone, _honest_share(done, tally, known))


@dataclass(frozen=True, slots=True)
class _Flag:
    """From when to when an account was flagged, and the campaign it was counted to at the end, None if to none."""

    campaign_id: str | None
    risk: float
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class _Past:
    """What was known when."""

    flags: Mapping[str, _Flag]
    campaigns: Mapping[str, Campaign]
    moments: tuple[datetime, ...]
    tally: Tally
    seen: Mapping[str, np.ndarray]
    """By campaign, the times of its accounts' exchanges, ascending."""

    @classmethod
    def of(cls, findings: Findings, tally: Tally) -> _Past:
        rows = findings.accounts
        if "cleared_at" not in rows.column_names:
            raise UsageError(
                "a rehearsal needs to know what was known when", hint="replay the log instead of scanning it"
            )
        some = rows.filter(pc.is_valid(rows["first_flagged_at"]))
        columns = ("account_id", "campaign_id", "risk", "first_flagged_at", "cleared_at")
        flags = {a: _Flag(c, r, since, until) for a, c, r, since, until in zip(*(some[n].to_pylist() for n in columns))}
        groups: dict[str, list[np.ndarray]] = {}
        for account_id, flag in flags.items():
            groups.setdefault(_home(flag), []).append(tally.of_account(account_id))
        seen = {name: np.sort(np.concatenate(times)) for name, times in groups.items()}
        return cls(flags, {c.campaign_id: c for c in findings.campaigns}, _moments(flags, tally), tally, seen)

    def known_at(self, at: datetime) -> tuple[Newest, Newest]:
        """The findings of that moment: campaigns that stand to the end, and accounts that were let go later."""
        groups: dict[str, list[tuple[str, _Flag]]] = {}
        for account_id, flag in self.flags.items():
            if flag.since <= at and (flag.until is None or at < flag.until):
                groups.setdefault(_home(flag), []).append((account_id, flag))
        gone = frozenset(a for a, f in self.flags.items() if f.until is not None and f.until <= at)
        told = {name: self._told(name, members, at) for name, members in groups.items()}
        standing = tuple(t for name, t in told.items() if name in self.campaigns)
        let_go = tuple(t for name, t in told.items() if name not in self.campaigns)
        total = len(self.tally.times)
        return Newest(standing, gone, total), Newest(let_go, frozenset(), total)

    def _told(self, name: str, members: Sequence[tuple[str, _Flag]], at: datetime) -> Told:
        first = min(f.since for _, f in members)
        so_far = self.seen[name][: int(np.searchsorted(self.seen[name], _us(at)))]
        last = _EPOCH + timedelta(microseconds=int(so_far[-1])) if len(so_far) else first
        if name not in self.campaigns:
            suspects = tuple(Suspect(a, 1.0, f.since) for a, f in members)
            return Told(name, 1.0, len(so_far), last, first, {}, suspects)
        campaign = told_of(self.campaigns[name])
        suspects = tuple(Suspect(a, f.risk, f.since) for a, f in members)
        return dataclasses.replace(
            campaign, exchanges=len(so_far), last_seen=last, accounts=suspects,
            detected_at=min(first, campaign.detected_at or first),
        )  # fmt: skip


def _home(flag: _Flag) -> str:
    """The campaign of the end; accounts that were let go go by when they were flagged."""
    return flag.campaign_id or f"let go, flagged {flag.since.isoformat()}"


def _moments(flags: Mapping[str, _Flag], tally: Tally) -> tuple[datetime, ...]:
    """When something changed, and the beginning of each day from the first flag to the end of the log."""
    if not flags:
        return ()
    turns = {t for f in flags.values() for t in (f.since, f.until) if t is not None}
    first, last = _us(min(turns)), tally.span[1]
    days = range((first // DAY_US + 1) * DAY_US, last + 1, DAY_US)
    return tuple(sorted(turns | {_EPOCH + timedelta(microseconds=d) for d in days}))


@dataclass(slots=True)
class _Stage:
    """Actions as they would have come and gone, by key."""

    policy: Policy
    past: _Past
    traffic: Traffic
    seed: bytes
    actions: dict[str, Action] = field(default_factory=dict)
    ended: dict[str, datetime] = field(default_factory=dict)
    undone: int = 0

    def ask(self, at: datetime) -> None:
        """Have the policy decide at this moment, and do it."""
        self._pass_time(at)
        standing, let_go = self.past.known_at(at)
        for policy, newest in ((self.policy, standing), (_lenient(self.policy), let_go)):
            known = [a for a in self.actions.values() if a.expires_at > at]
            for action in decide(policy, newest, known, {}, self.traffic, at, self.seed):
                self._do(action, at)
        self._pass_time(at)

    def _do(self, action: Action, at: datetime) -> None:
        if action.standing is Standing.UNDONE:
            self.undone += 1
            self.ended[action.key] = at
        elif action.standing is Standing.PENDING:
            action = dataclasses.replace(action, standing=Standing.DUE)
        self.actions[action.key] = action

    def _pass_time(self, at: datetime) -> None:
        for key, action in self.actions.items():
            if action.standing is Standing.DUE and action.starts_at <= at:
                self.actions[key] = dataclasses.replace(action, standing=Standing.IN_FORCE)

    def all_done(self) -> list[Done]:
        """What had begun before the log ended, each to when it ended."""
        last = _EPOCH + timedelta(microseconds=self.past.tally.span[1] + 1)
        done = []
        for key, a in self.actions.items():
            end = min(a.expires_at, self.ended.get(key, last), last)
            if a.starts_at < end:
                shadow = a.standing is Standing.SHADOW
                done.append(Done(a.account_id, a.rung, a.rule, a.starts_at, end, a.needed > 0, shadow))
        return done


def _lenient(policy: Policy) -> Policy:
    """The policy as it is to accounts whose campaign is no longer known: no condition on it can fail."""
    rules = (
        dataclasses.replace(r, when=dataclasses.replace(r.when, accounts=0, capabilities=())) for r in policy.rules
    )
    return dataclasses.replace(policy, rules=tuple(rules))


def _rung_row(rung: Rung, done: Sequence[Done], tally: Tally, honest: frozenset[str] | None) -> RungRow:
    mine = [d for d in done if d.rung is rung]
    alone = {d.account_id for d in mine if not d.waited and not d.shadow}
    signed = {d.account_id for d in mine if d.waited and not d.shadow} - alone
    shadow = {d.account_id for d in mine if d.shadow} - alone - signed
    reached: dict[str, datetime] = {}
    for d in done:
        if d.account_id in alone | signed and not d.shadow and d.rung.height >= rung.height:
            reached[d.account_id] = min(d.start, reached.get(d.account_id, d.start))
    hit = None if honest is None else (alone | signed) & honest
    return RungRow(
        rung=rung,
        without_person=len(alone),
        signed=len(signed),
        shadow=len(shadow),
        before=sum(tally.between(a, _EPOCH, start) for a, start in reached.items()),
        exchanges=sum(len(tally.of_account(a)) for a in alone | signed),
        honest=None if hit is None else len(hit),
        honest_exchanges=None if hit is None else sum(_while([d for d in mine if not d.shadow], tally, hit).values()),
    )


def _while(done: Iterable[Done], tally: Tally, accounts: Collection[str]) -> dict[str, int]:
    """By account, exchanges asked while any of these actions held, each counted once."""
    marks = {a: np.zeros(len(tally.of_account(a)), np.bool_) for a in accounts}
    for d in done:
        if d.account_id in marks:
            times = tally.of_account(d.account_id)
            marks[d.account_id] |= (times >= _us(d.start)) & (times < _us(d.end))
    return {a: int(m.sum()) for a, m in marks.items()}


def _by_day(done: Iterable[Done]) -> dict[str, dict[Rung, int]]:
    """How many accounts came to each rung for the first time, by day; shadows left out."""
    first: dict[tuple[str, Rung], datetime] = {}
    for d in done:
        if not d.shadow:
            first[d.account_id, d.rung] = min(d.start, first.get((d.account_id, d.rung), d.start))
    days: dict[str, dict[Rung, int]] = {}
    for (_, rung), start in sorted(first.items(), key=lambda item: (item[1], item[0][1].height)):
        found = days.setdefault(start.date().isoformat(), {})
        found[rung] = found.get(rung, 0) + 1
    return days


def _honest_share(done: Iterable[Done], tally: Tally, honest: frozenset[str] | None) -> float | None:
    if honest is None:
        return None
    above = [d for d in done if d.rung is not Rung.OBSERVE and not d.shadow]
    total = sum(len(tally.of_account(a)) for a in honest)
    return sum(_while(above, tally, honest & {d.account_id for d in above}).values()) / total if total else 0.0


def honest_of(log: Path) -> frozenset[str] | None:
    """The honest accounts of a simulated log, whose truth lies with it; None where there is no truth."""
    file = next((p / TRUTH for p in (log, log.parent) if (p / TRUTH).is_file()), None)
    if file is None:
        return None
    try:
        table = pq.read_table(file, columns=["account_id", "campaign_id"])
    except (OSError, pa.ArrowException) as e:
        raise UsageError(f"{file}: cannot be read: {e}", hint="the truth is what stillwatch simulate wrote") from e
    return frozenset(table.filter(pc.is_null(table["campaign_id"]))["account_id"].to_pylist())


def show(rehearsal: Rehearsal, console: Console) -> None:
    """The rehearsal for a person."""
    if not rehearsal.rungs:
        console.print("the policy would have done nothing")
        return
    console.print(_rung_table(rehearsal))
    console.print(_day_table(rehearsal))
    if rehearsal.undone:
        console.print(f"{rehearsal.undone:,} actions would have been undone, as their accounts were let go")
    if rehearsal.honest_share is not None:
        console.print(f"{rehearsal.honest_share:.3%} of honest exchanges would have met a rung above observe")
    console.print("taken for granted: " + "; ".join(rehearsal.assumed), style="dim")


def _rung_table(rehearsal: Rehearsal) -> Table:
    title = "what the policy would have done: accounts, and exchanges let through before"
    table = Table("rung", title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    has_truth = any(r.honest is not None for r in rehearsal.rungs)
    names = ["alone", "if signed", "shadow", "before", "of theirs"]
    for name in names + (["honest", "honest exchanges"] if has_truth else []):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rehearsal.rungs:
        share = f"{r.before / r.exchanges:.0%}" if r.exchanges else ""
        cells = [f"{r.without_person:,}", f"{r.signed:,}", f"{r.shadow:,}", f"{r.before:,}", share]
        table.add_row(r.rung.value, *cells, *([f"{r.honest:,}", f"{r.honest_exchanges:,}"] if has_truth else []))
    return table


def _day_table(rehearsal: Rehearsal) -> Table:
    rungs = [r.rung for r in rehearsal.rungs]
    table = Table(
        "day", title="accounts that came to a rung", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for rung in rungs:
        table.add_column(rung.value, justify="right")
    for day, found in rehearsal.days.items():
        table.add_row(day, *(f"{found[r]:,}" if r in found else "" for r in rungs))
    return table


def _us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
