"""The loop that turns judgements into actions, and the clock into beginnings and ends.

A round reads a new result if there is one, asks the policy, proposes, ends what has run out, begins what is due, and puts what is
in force into the table that gateways are answered from. Each of these may fail alone: it is counted, logged and an alarm is
raised, the others go on, and nothing that failed has changed what is in force.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from stillwatch.actions import LIVING
from stillwatch.adapters import read_accounts
from stillwatch.audit import AuditUnwritable
from stillwatch.errors import StillwatchError, Transient
from stillwatch.policy import Policy, Traffic, decide
from stillwatch.protection.book import Ledger
from stillwatch.serving import newest, orders, quarantine, snapshot
from stillwatch.serving.decisions import Table
from stillwatch.serving.judging import Status
from stillwatch.serving.lines import say
from stillwatch.serving.services import Desk, Services, derived
from stillwatch.serving.watermarks import unmarked, with_watermark
from stillwatch.store.state import Judgement
from stillwatch.types import Action, InForce, Part, Rung, Standing

NEVER = datetime.max.replace(tzinfo=UTC)

REFUSED_S = 60.0
"""How long after a sender was last told to come again, or a gateway not let in, the alarm about it stands, in seconds."""


@dataclass(slots=True)
class Faults:
    """What went wrong in a round, by the part it went wrong in."""

    found: dict[str, Exception] = field(default_factory=dict)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Go on after any error of this part."""
        try:
            yield
        except Exception as e:  # a loop that must survive: kept, logged, counted
            self.found[part] = e


@dataclass(slots=True)
class Loop:
    """Rounds over the services. ``decided`` is the result and the policy that were decided on last; ``held`` is the table that
    was worked out last, for all that had happened by ``held_by`` and by the ledger ``held_under``, from ``held_from`` until
    ``held_until``."""

    services: Services
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    decided: tuple[object, object] | None = None
    written: Table | None = None
    held: Table | None = None
    held_by: int = -1
    held_under: Ledger | None = None
    held_from: datetime = NEVER
    held_until: datetime | None = None
    began_at: float = field(default_factory=time.monotonic)

    async def forever(self) -> None:
        """A round every ``loop_every_s``, sooner when woken, until cancelled."""
        while True:
            await self.round()
            self.services.wake.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.services.wake.wait(), self.services.settings.loop_every_s)

    async def round(self) -> Faults:
        """One round; what went wrong in it."""
        began, faults = time.perf_counter(), Faults()
        with faults.of("results"):
            await self._read()
        with faults.of("desk"):
            await self.services.clerk.do(self._at_desk, faults)
        with faults.of("figures"):
            self._look(await self.services.readers.run(self.services.spool.last))
        self._tell(faults, time.perf_counter() - began)
        # Whatever failed has its alarm; what is in force is answered from the last that is known.
        self.services.is_ready = True
        return faults

    # Reading

    async def _read(self) -> None:
        """The newest result, if it is another one than that we have."""
        services = self.services
        there = newest.mark(services.home.results)
        if there is None or (services.result is not None and there == services.result.mark):
            return
        with suppress(Transient):  # replaced while it was read: the next round reads it
            services.result = await services.readers.run(newest.read, services.home.results)
            say(logging.INFO, "new judgement", campaigns=len(services.result.campaigns) if services.result else 0)

    # At the desk

    def _at_desk(self, desk: Desk, faults: Faults) -> None:
        """All that needs the state, in one go."""
        now = self.clock()
        with faults.of("tokens"):
            orders.carry_out(desk.access, desk.state, now)
        with faults.of("policy"):
            self._decide(desk, now)
        with faults.of("expire"):
            desk.actions.expire(now)
        with faults.of("start"):
            started = desk.actions.start_due(now)
            self._say_started(started)
        with faults.of("table"):
            self._replace(desk, now)
        with faults.of("belongings"):
            self.services.belongings.write()

    def _decide(self, desk: Desk, now: datetime) -> None:
        """Propose what the policy wants by the newest result: when either is new, when a judgement is, and every hour."""
        services = self.services
        # A judgement that failed, or is old, raises no rung: then nothing but undoing is decided.
        policy = services.policy.now() if self._is_trusted(now) else Policy(rules=())
        judgements = desk.state.judgements()
        hour = now.replace(minute=0, second=0, microsecond=0)
        basis = (services.result and services.result.mark, (policy, len(judgements), _latest(judgements), hour))
        if services.result is None or basis == self.decided:
            return
        known = desk.actions.known(now)
        told = services.result.newest(a.account_id for a in known if a.standing in LIVING)
        proposed = decide(policy, told, known, judgements, traffic_of(services), now, services.seed)
        new = desk.actions.propose(proposed)
        self.decided = basis
        for rung, count in Counter(a.rung for a in new).items():
            services.metrics.add("stillwatch_actions_proposed_total", count, rung=rung)
        if proposed:
            undone = sum(a.standing is Standing.UNDONE for a in proposed)
            say(logging.INFO, "decided", proposed=len(new), undone=undone)

    def _is_trusted(self, now: datetime) -> bool:
        """Whether the last judgement is one to act by: the judge is well, and has looked not long ago."""
        if self.services.judging is None:
            return True
        status = self.services.judging.status()
        if status.status == "failed" or status.judged is None:
            return False
        return (now - status.judged).total_seconds() <= self.services.settings.stale_after_s

    def _say_started(self, started: list[Action]) -> None:
        if started:
            say(logging.INFO, "begun", actions=len(started), rungs=dict(Counter(str(a.rung) for a in started)))

    def _replace(self, desk: Desk, now: datetime) -> None:
        """What is in force, into the table, and on disk if it has changed."""
        services = self.services
        table = self._table(desk, now)
        services.decisions.replace(table)
        by_rung = Counter(h.rung for part in (table.accounts, table.keys, table.end_users) for h in part.values())
        services.metrics.only("stillwatch_in_force", "rung", {str(r): by_rung[r] for r in Rung})
        standing = {str(s): n for s, n in desk.actions.counts().items()}
        services.metrics.only("stillwatch_actions", "standing", standing)
        services.alarm("watermark_unreadable", services.watermarks.fault)
        without = unmarked(table)
        services.alarm("watermark_missing", f"no key was issued for {', '.join(without[:10])}" if without else "")
        if table is not self.written:
            self._write(table, now)

    def _table(self, desk: Desk, now: datetime) -> Table:
        """What holds now and what would; the last one again where nothing has happened since and no time has come.

        With thousands of actions it takes a good part of a second, and most rounds change nothing.
        """
        newest, ledger = desk.actions.newest(), self.services.watermarks.now()
        stands = self.held_from <= now and (self.held_until is None or now < self.held_until)
        if self.held is None or newest != self.held_by or ledger is not self.held_under or not stands:
            table = replace(held_table(desk, self.services, now), shadows=desk.actions.shadows(now))
            self.held = self.held if table == self.held else table
            self.held_by, self.held_under, self.held_from = newest, ledger, now
            self.held_until = min(filter(None, (desk.actions.turns_at(now), ledger.turns_at(now))), default=None)
        return self.held

    def _write(self, table: Table, now: datetime) -> None:
        services = self.services
        try:
            snapshot.save(services.home.in_force, table, now, derived(services.privacy, "in force"))
        except StillwatchError as e:
            services.alarm("snapshot_failing", e.message)
            raise
        self.written = table
        services.alarm("snapshot_failing", "")

    # Looking

    def _look(self, newest: int) -> None:
        """Alarms that need no state; ``newest`` is the number of the spool's last batch."""
        services = self.services
        free = shutil.disk_usage(services.home.folder).free
        services.metrics.put("stillwatch_disk_free_bytes", free)
        known = services.belongings
        figures = {"known": len(known), "shared": known.shared, "forgotten": known.forgotten}
        services.metrics.only("stillwatch_belongings", "what", figures)
        low = free < services.settings.disk_free_bytes
        services.alarm("disk_low", f"{free:,} bytes are free" if low else "")
        if time.monotonic() - services.refused_at > REFUSED_S:
            services.alarm("intake_refusing", "")
        if time.monotonic() - services.locked_out_at > REFUSED_S:
            services.alarm("gateway_locked_out", "")
        lost = len(quarantine.files(services.home))
        services.alarm("spool_damaged", f"{lost} batches lie in {services.home.quarantine}" if lost else "")
        services.alarm("judge_rebuilt", f"see {services.home.rebuilt}" if services.home.rebuilt.exists() else "")
        services.alarm("policy_unreadable", services.policy.fault)
        fault = services.audit.fault
        services.alarm("audit_failing", fault.message if fault else "")
        self._look_at_judge(newest)

    def _look_at_judge(self, newest: int) -> None:
        services, judging = self.services, self.services.judging
        if judging is None:
            return
        status, seen = judging.status(), judging.overseen()
        services.metrics.put("stillwatch_judge_running", seen.alive)
        failed = status.status == "failed" or (not seen.alive and seen.deaths > 0)
        services.alarm("judge_failing", (status.error or "its process has ended") if failed else "")
        services.metrics.put("stillwatch_judgement_age_seconds", judgement_age_s(services, self.clock()))
        services.alarm("judgement_stale", self._staleness(status, newest))

    def _staleness(self, status: Status, newest: int) -> str:
        """Why the last judgement is too old, empty where it is not. Nothing to judge is no fault: only what has come in
        since the judge last looked makes an old judgement stale."""
        since = time.monotonic() - self.began_at
        if status.judged is not None:
            since = (self.clock() - status.judged).total_seconds()
        if newest <= status.newest or since <= self.services.settings.stale_after_s:
            return ""
        return f"what has come in waits for a judgement; the last one ended {since:.0f} s ago"

    def _tell(self, faults: Faults, seconds: float) -> None:
        services, outcome = self.services, "failed" if faults.found else "good"
        services.metrics.add("stillwatch_loop_runs_total", outcome=outcome)
        services.metrics.took("stillwatch_loop_seconds", seconds, outcome=outcome)
        services.alarm("loop_failing", "; ".join(f"{part}: {_why(e)}" for part, e in faults.found.items()))
        if any(isinstance(e, AuditUnwritable) for e in faults.found.values()):
            services.alarm("audit_failing", "the last entry could not be written")
        for part, error in faults.found.items():
            say(logging.ERROR, "a part of the loop failed", error=error, part=part)


def traffic_of(services: Services) -> Traffic:
    """What the policy may know of accounts beside the findings: how many exchanges in all, and declared organisations."""
    declared = [services.spool.accounts()]
    if services.settings.judge.accounts is not None:
        declared.insert(0, read_accounts(services.settings.judge.accounts)[0])
    organisations = {
        r["account_id"]: r["org_id"]
        for table in declared
        if "org_id" in table.column_names
        for r in table.select(["account_id", "org_id"]).to_pylist()
        if r["org_id"]
    }
    return Traffic(total=services.result.exchanges if services.result else 0, organisations=organisations)


def held_table(desk: Desk, services: Services, now: datetime) -> Table:
    """What is in force now, as gateways are told."""
    ledger = services.watermarks.now()
    held = {
        part: {who: with_watermark(with_appeal(services, h), ledger, now) for who, h in found.items()}
        for part, found in desk.actions.holding(now).items()
    }
    return Table(held[Part.ACCOUNT], held[Part.KEY], held[Part.END_USER])


def with_appeal(services: Services, held: InForce) -> InForce:
    """What is in force, with where its account may appeal: the policy's own page, else ours."""
    if held.settings.get("appeal_url"):
        return held
    url = services.appeal_url(held.action_id)
    return replace(held, settings={**held.settings, "appeal_url": url}) if url else held


def judgement_age_s(services: Services, now: datetime) -> float:
    """Seconds since the last result was written, -1 where there is none."""
    return max(0.0, (now - services.result.finished).total_seconds()) if services.result else -1.0


def _latest(judgements: Mapping[str, Judgement]) -> datetime | None:
    return max((j.at for j in judgements.values()), default=None)


def _why(error: Exception) -> str:
    return error.message if isinstance(error, StillwatchError) else type(error).__name__
