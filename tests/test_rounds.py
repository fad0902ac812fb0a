"""The table that gateways are answered from is worked out anew when something happened, or a time has come, and only then."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stillwatch.serving import rounds
from stillwatch.serving.decisions import Table
from stillwatch.serving.home import Home
from stillwatch.serving.rounds import Loop, held_table
from stillwatch.serving.services import Desk, Services, opened
from stillwatch.serving.settings import Settings
from stillwatch.types import Action, Rung, Standing

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with opened(Home(tmp_path / "home"), Settings(), judge=False) as services:
        yield services


def action(n: int, standing: Standing, starts: datetime, lasts: timedelta, rung: Rung = Rung.THROTTLE) -> Action:
    return Action(
        action_id=f"A-{n}", key=f"k{n}", account_id=f"a{n % 7}", campaign_id="c", rung=rung, rule=f"r{n}", reason="test",
        standing=standing, proposed_at=starts, starts_at=starts, expires_at=starts + lasts,
        settings={"requests_per_minute": 6} if rung is Rung.THROTTLE else {}, needed=0,
    )  # fmt: skip


def whole(desk: Desk, services: Services, now: datetime) -> Table:
    """The table as it is worked out from nothing."""
    return replace(held_table(desk, services, now), shadows=desk.actions.shadows(now))


@pytest.mark.parametrize("seed", range(4))
def test_the_table_is_always_what_working_it_out_gives(services: Services, seed: int) -> None:
    """Any deeds, in any order, at a clock that goes on, jumps and goes back."""
    chance, loop = random.Random(seed), Loop(services)

    def at_desk(desk: Desk) -> None:
        now = START
        for n in range(60):
            now += HOUR * chance.choice((0, 0, 0.5, 1, 3, -2))
            deed = chance.random()
            if deed < 0.4:
                standing = chance.choice((Standing.DUE, Standing.SHADOW))
                starts = now + HOUR * chance.choice((-1, 0, 2))
                rung = chance.choice((Rung.OBSERVE, Rung.PROTECT, Rung.THROTTLE))
                desk.actions.propose([action(n, standing, starts, HOUR * chance.choice((1, 4, 20)), rung)])
            elif deed < 0.5 and (living := desk.actions.standing()):
                desk.actions.undo([chance.choice(living).action_id], "ann", "a mistake")
            elif deed < 0.8:
                desk.actions.start_due(now)
                if chance.random() < 0.5:
                    desk.actions.expire(now)
            assert loop._table(desk, now) == whole(desk, services, now), n
            assert desk.actions.counts() == {
                s: len(found) for s in Standing if (found := desk.actions.standing(s)) and s in rounds.LIVING
            }

    services.clerk.do_now(at_desk)


def test_where_nothing_happened_nothing_is_worked_out(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[datetime] = []
    monkeypatch.setattr(rounds, "held_table", lambda desk, s, now: worked.append(now) or held_table(desk, s, now))
    loop = Loop(services)

    def at_desk(desk: Desk) -> None:
        desk.actions.propose([action(1, Standing.DUE, START, 10 * HOUR), action(2, Standing.SHADOW, START, 5 * HOUR)])
        desk.actions.start_due(START)
        tables = [loop._table(desk, START + HOUR * h) for h in (0, 1, 2, 4.9, 5, 6, 9.9, 10, 11)]
        assert tables[0] is tables[3], "the same table, so that nobody makes it ready again"
        assert tables[0].shadows and not tables[4].shadows
        assert tables[6].accounts and not tables[7].accounts

    services.clerk.do_now(at_desk)
    assert worked == [START, START + 5 * HOUR, START + 10 * HOUR]
