"""What the handlers work with: opened in one order, closed in the reverse one.

The state, and the actions in it, belong to one thread, the desk's; whoever wants something of them hands it a call. What answers
gateways is memory alone, and waits for nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from stillwatch.actions import Actions
from stillwatch.audit import Audit
from stillwatch.notes import load_signer
from stillwatch.privacy import KEY_VARIABLE, Privacy
from stillwatch.responders import Buckets
from stillwatch.secret import secret_from, write_new
from stillwatch.serving import custody, snapshot
from stillwatch.serving.access import Access
from stillwatch.serving.belonging import Belongings
from stillwatch.serving.decisions import Decisions
from stillwatch.serving.door import Door
from stillwatch.serving.gateways import Gate
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Judging
from stillwatch.serving.lines import say
from stillwatch.serving.marks import Marks
from stillwatch.serving.metrics import ALARMS, Metrics
from stillwatch.serving.newest import Result
from stillwatch.serving.pool import Pool
from stillwatch.serving.settings import Settings
from stillwatch.serving.standing_policy import StandingPolicy
from stillwatch.serving.watermarks import Watermarks
from stillwatch.spool import Spool
from stillwatch.store.places import Place
from stillwatch.store.state import State

P = ParamSpec("P")
T = TypeVar("T")

DESK_WAITING, READERS, READS_WAITING = 200, 2, 100
"""Calls that may wait for the desk; threads that read for people, and calls that may wait for those."""


@dataclass(slots=True)
class Desk:
    """The state and the actions in it, as the one thread that has them sees them."""

    state: State
    actions: Actions
    access: Access
    """Carries orders for tokens out; it lets nobody in."""


class Clerk:
    """The one thread that has the desk."""

    def __init__(self, home: Home, place: Place, audit: Audit, bulk_suspend: Callable[[], int]) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="desk")
        self._pool = Pool("desk", 1, DESK_WAITING, 1.0, executor=self._executor)
        self._desk = self._executor.submit(self._make, home, place, audit, bulk_suspend).result()

    def _make(self, home: Home, place: Place, audit: Audit, bulk_suspend: Callable[[], int]) -> Desk:
        state = State(place, holds=True)
        try:
            custody.claim(home, state, audit)
        except BaseException:
            state.close()
            raise
        return Desk(state, Actions(state, audit, bulk_suspend=bulk_suspend), Access(state, audit=audit))

    async def do(self, call: Callable[Concatenate[Desk, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``call`` returns or raises, given the desk; Transient where too many wait for it."""
        return await self._pool.run(call, self._desk, *args, **kwargs)

    def do_now(self, call: Callable[Concatenate[Desk, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As ``do``, for who is not in an event loop."""
        return self._executor.submit(call, self._desk, *args, **kwargs).result()

    def close(self) -> None:
        """Finish what waits, and close the state."""
        self.do_now(lambda desk: desk.state.close())
        self._executor.shutdown(wait=True)


@dataclass(slots=True)
class Services:
    """Everything a handler may need. ``result`` is the last judgement that was read, None before the first."""

    home: Home
    settings: Settings
    privacy: Privacy
    metrics: Metrics
    audit: Audit
    door: Door
    clerk: Clerk
    spool: Spool
    decisions: Decisions
    gate: Gate
    policy: StandingPolicy
    intake: Pool
    readers: Pool
    marks: Marks
    belongings: Belongings
    watermarks: Watermarks
    judging: Judging | None = None
    result: Result | None = None
    is_ready: bool = False
    """Whether the loop has been round once: what is in force is then known as it is now, and not as a file last had it."""
    draining: bool = False
    refused_at: float = -math.inf
    """When a sender was last told to come again later, by the monotonic clock."""
    locked_out_at: float = -math.inf
    """When a gateway last asked without a token that holds, likewise."""
    alarms: dict[str, str] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have the loop look now."""
    appeal_paces: Buckets = field(default_factory=lambda: Buckets(most=10_000))
    """How often the pages of cases are looked at, and appeals are filed."""

    @property
    def seed(self) -> bytes:
        """What the policy's chances are drawn from: the same after a restart, and nobody else's to tell."""
        return derived(self.privacy, "policy")

    def alarm(self, name: str, why: str) -> None:
        """Raise an alarm, or with no ``why`` let it go."""
        if name not in ALARMS:
            raise KeyError(name)
        if why:
            self.alarms[name] = why
        else:
            self.alarms.pop(name, None)
        self.metrics.put("stillwatch_alarm", bool(why), alarm=name)

    def appeal_proof(self, case: str) -> str:
        """What shows that an appeal against a case comes from whom the case was told to.

        It is called no token: gateways blot out what follows ``token=`` in a message, and the link would lead nowhere.
        """
        return hmac.digest(derived(self.privacy, "appeal"), case.encode(), hashlib.sha256).hex()[:32]

    def appeal_url(self, case: str) -> str:
        """Where the account of a case appeals with us, empty where we cannot be reached by customers."""
        base = self.settings.public_url.rstrip("/")
        return f"{base}/appeals?case={case}&proof={self.appeal_proof(case)}" if base else ""


def privacy_of(home: Home, key: Path | None) -> tuple[Privacy, Path | None]:
    """The secret for keyed hashes, and its file, None where it is in the environment: ``key``, else the variable, else the
    home's own, made at the first start."""
    if key is None and os.environ.get(KEY_VARIABLE, "").strip():
        return Privacy.load(None), None
    file = key or home.privacy_key
    if key is None and not file.exists():
        write_new(file, secrets.token_urlsafe(32), KEY_VARIABLE)
    secret_from(file)
    return Privacy.load(file), file


def derived(privacy: Privacy, purpose: str) -> bytes:
    """A secret of 16 bytes for one purpose of the server."""
    return privacy.keys(f"serving {purpose}").tobytes()


@contextmanager
def opened(
    home: Home, settings: Settings, *, policy: Path | None = None, key: Path | None = None, judge: bool = True
) -> Iterator[Services]:
    """All services over a home, which is made if need be and held until the end; what was in force is known before all else.

    UsageError or Terminal where something of the home cannot be used, Transient where another server has it.
    """
    with ExitStack() as closing:
        closing.enter_context(home.made().held())
        privacy, key_file = privacy_of(home, key)
        marks, metrics = Marks(derived(privacy, "who")), Metrics()
        belongings = Belongings(home.folder / "belongings.jsonl", marks)
        decisions = Decisions(marks=marks, owner=belongings.owner, alarm=lambda text: say(logging.WARNING, text))
        known = snapshot.load(home.in_force, derived(privacy, "in force"))
        decisions.replace(known.table, stale=bool(known.faults))
        audit = closing.enter_context(Audit(home.audit, load_signer(home.audit_key)))
        standing = StandingPolicy(policy or home.policy, is_named=policy is not None)
        place = custody.place_in(home, settings)
        clerk = Clerk(home, place, audit, lambda: standing.now().bulk.suspend)
        closing.callback(clerk.close)
        door = Door(place, audit)
        closing.callback(door.close)
        spool = closing.enter_context(Spool(home.spool, settings.spool))
        intake = Pool("intake", settings.intake_threads, settings.intake_waiting, settings.retry_after_s)
        readers = Pool("reader", READERS, READS_WAITING, settings.retry_after_s)
        closing.callback(readers.close)
        closing.callback(intake.close)
        services = Services(
            home, settings, privacy, metrics, audit, door, clerk, spool, decisions,
            Gate(decisions, settings.gateway), standing, intake, readers, marks, belongings,
            Watermarks(home.watermarks),
        )  # fmt: skip
        metrics.put("stillwatch_started_seconds", time.time())
        for name in ALARMS:
            services.alarm(name, "")
        services.alarm("snapshot_failing", "; ".join(known.faults))
        if judge:
            services.judging = Judging(home, replace(settings.judge, key=key_file))
            closing.callback(services.judging.stop, within_s=settings.stop_within_s)
            services.judging.start()
        yield services
