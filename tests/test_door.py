"""Tokens are answered from memory; a state that hangs holds up whoever shows one for the first time, and nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixtures_gateways import wait_for
from fixtures_state import Server
from stillwatch.errors import StillwatchError, Transient
from stillwatch.serving import door as module
from stillwatch.serving.access import Access, Caller, Issued, Role
from stillwatch.serving.door import Door
from stillwatch.spool import Overload
from stillwatch.store.places import Place
from stillwatch.store.state import State
from test_access import bearer, other_secret
from test_actions import Paper


@pytest.fixture
def door(place: Place) -> Iterator[Door]:
    made = Door(place, Paper())
    yield made
    made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes tenths of them."""
    for name, seconds in {"RENEW_S": 0.05, "FRESH_S": 0.2, "AGAIN_S": 0.05}.items():
        monkeypatch.setattr(module, name, seconds)


def issue(door: Door, role: Role = Role.GATEWAY) -> Issued:
    return door.do_now(Access.issue, "one", role, "root")


def ask(door: Door, issued: Issued, *, is_gateway: bool = True) -> Caller | None:
    return asyncio.run(door.who(bearer(issued), is_gateway=is_gateway))


def took_s(door: Door, issued: Issued) -> float:
    """How long a gateway waits, in seconds, to be let in."""
    began = time.perf_counter()
    assert ask(door, issued) is not None
    return time.perf_counter() - began


class Hanging:
    """What reads tokens, until it is let go. ``reads`` counts."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.go, self.reads, self._plain = threading.Event(), 0, State.execute
        self.go.set()
        patch.setattr(State, "execute", lambda *given: self._execute(*given))  # noqa: PLW0108  # a method of the state

    def _execute(self, state: State, sql: str, *values: object) -> list[dict[str, object]]:
        if sql.startswith("SELECT * FROM tokens WHERE"):
            self.reads += 1
            assert self.go.wait(30)
        return self._plain(state, sql, *values)


@pytest.fixture
def hanging(door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    made = Hanging(monkeypatch)
    yield made
    made.go.set()


def test_a_token_is_known_and_nobody_else_is(door: Door) -> None:
    issued = issue(door, Role.ANALYST)
    caller = Caller("one", Role.ANALYST, issued.token.token_id)
    assert ask(door, issued) == ask(door, issued, is_gateway=False) == caller
    for wrong in ("", "Basic x", "Bearer x", other_secret(issued), bearer(issued).replace("analyst", "admin")):
        assert asyncio.run(door.who(wrong)) is None
    door.do_now(Access.revoke, issued.token.token_id, "root")
    assert ask(door, issued) is None


def test_what_is_no_token_costs_no_reading_and_many_who_ask_at_once_cost_one(door: Door, hanging: Hanging) -> None:
    issued = issue(door)
    hanging.reads = 0

    async def all_at_once() -> None:
        hanging.go.clear()
        waiting = [asyncio.create_task(door.who(bearer(issued))) for _ in range(200)]
        assert await door.who("Bearer sw_gateway_0_x") is None
        await asyncio.sleep(0.05)
        # One who gives up takes nobody along.
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        hanging.go.set()
        assert all(caller is not None for caller in await asyncio.gather(*waiting[1:]))

    asyncio.run(all_at_once())
    assert hanging.reads == 1
    assert took_s(door, issued) < 1 and hanging.reads == 1


@pytest.mark.usefixtures("quick")
def test_in_use_a_token_is_read_in_the_background_and_its_end_is_seen(
    door: Door, place: Place, hanging: Hanging
) -> None:
    issued = issue(door)
    assert ask(door, issued) is not None
    hanging.reads, began = 0, time.monotonic()
    while hanging.reads < 3 and time.monotonic() < began + 20:
        assert ask(door, issued) is not None
        time.sleep(0.01)
    assert 3 <= hanging.reads <= (time.monotonic() - began) / module.RENEW_S + 1
    with State(place) as state:
        Access(state, audit=Paper()).revoke(issued.token.token_id, "root")
    revoked_at = time.monotonic()
    wait_for(lambda: ask(door, issued) is None)
    assert time.monotonic() - revoked_at < 5.0


@pytest.mark.usefixtures("quick")
def test_a_gateway_waits_for_a_state_that_hangs_once_and_no_longer_than_a_moment(door: Door, hanging: Hanging) -> None:
    issued, unseen = issue(door), issue(door)
    assert ask(door, issued) is not None
    time.sleep(0.25)
    hanging.go.clear()
    assert module.PATIENCE_S - 0.01 < took_s(door, issued) < 5
    assert min(took_s(door, issued) for _ in range(100)) < module.PATIENCE_S, "all but the first have not waited"

    async def for_the_first_time() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(door.who(bearer(unseen), is_gateway=True), 0.2)
        # For people what is too old is no answer.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(door.who(bearer(issued)), 0.2)

    asyncio.run(for_the_first_time())
    hanging.go.set()
    assert ask(door, unseen) is not None


@pytest.mark.usefixtures("quick")
def test_a_gateway_is_remembered_while_the_state_is_away_and_not_for_ever(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued, unseen = issue(door), issue(door)
    assert ask(door, issued) is not None
    time.sleep(0.25)
    tries = []

    def away(*_: object) -> None:
        tries.append(time.monotonic())
        raise Transient("the disk is away")

    monkeypatch.setattr(State, "execute", away)
    for _ in range(20):
        assert ask(door, issued) is not None
    assert len(tries) < 10, "what has just failed is not tried again and again"
    for who, is_gateway in ((unseen, True), (issued, False)):
        with pytest.raises(Transient, match="disk is away"):
            ask(door, who, is_gateway=is_gateway)
    monkeypatch.setattr(module, "REMEMBERED_S", 0.1)
    with pytest.raises(Transient, match="disk is away"):
        ask(door, issued)
    monkeypatch.undo()
    assert ask(door, issued) is not None


def test_more_than_can_wait_are_told_to_come_again(
    door: Door, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 3)
    many = [issue(door) for _ in range(4)]

    async def too_many() -> None:
        hanging.go.clear()
        waiting = [asyncio.create_task(door.who(bearer(i))) for i in many[:3]]
        await asyncio.sleep(0)
        with pytest.raises(Overload):
            await door.who(bearer(many[3]))
        hanging.go.set()
        assert all(await asyncio.gather(*waiting))

    asyncio.run(too_many())


def test_a_state_that_cannot_be_opened_is_told(place: Place, postgres: Server) -> None:
    postgres_is_away = not hasattr(place, "parent")
    if not postgres_is_away:
        place.mkdir()
    else:
        postgres.stop()
    try:
        with pytest.raises(StillwatchError):
            Door(place, Paper())
    finally:
        if postgres_is_away:
            postgres.start()


@contextmanager
def standing_still(postgres: Server) -> Iterator[None]:
    """Stop what has taken our connections, and what would take new ones."""
    found = postgres.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'stillwatch'")
    pids = [pid for (pid,) in found] + [int((postgres.folder / "data" / "postmaster.pid").read_text().split()[0])]
    assert len(pids) > 1
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("quick")
def test_a_database_that_stands_still_holds_no_gateway_up(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one, whose process is stopped: it neither answers nor refuses."""
    monkeypatch.setattr(module, "ANSWER_S", 1.0)
    monkeypatch.setattr("stillwatch.store.postgres.SLACK_S", 0.5)
    monkeypatch.setattr("stillwatch.store.postgres.RETRY_S", 0.2)
    address = postgres.address()
    door = Door(address, Paper())
    try:
        issued, unseen = issue(door), issue(door)
        assert ask(door, issued) is not None
        time.sleep(0.25)
        with standing_still(postgres):
            longest = max(took_s(door, issued) for _ in range(50))
            assert longest < 1.4, "nobody has waited until it was given up"
            with pytest.raises(Transient, match=r"no answer within|timeout expired"):
                ask(door, unseen)
        wait_for(lambda: ask_or_none(door, unseen) is not None)
    finally:
        door.close()


def ask_or_none(door: Door, issued: Issued) -> Caller | None:
    try:
        return ask(door, issued)
    except Transient:
        return None
