"""Orders for tokens: made by the server that holds the audit, or not at all."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.serving import orders
from stillwatch.serving.access import Access, Caller, Role, draft
from stillwatch.serving.office import Office
from stillwatch.serving.orders import Order, carry_out
from stillwatch.store.places import Place
from stillwatch.store.state import State
from test_access import bearer
from test_actions import Paper


@pytest.fixture
def paper() -> Paper:
    return Paper()


def served(place: Place, paper: Paper, faults: list[BaseException], stop: threading.Event) -> None:
    """A server's desk: carries orders out until told to stop."""
    try:
        with State(place) as state:
            access = Access(state, audit=paper)
            while not stop.wait(0.01):
                carry_out(access, state, datetime.now(UTC))
    except BaseException as e:
        faults.append(e)


def test_a_running_server_makes_what_is_ordered_and_audits_it_first(place: Place, paper: Paper) -> None:
    State(place).close()
    faults, stop = list[BaseException](), threading.Event()
    desk = threading.Thread(target=served, args=(place, paper, faults, stop))
    desk.start()
    try:
        with State(place) as state:
            access = Access(state)
            office = Office(state, access, "cli:ann", False, 10.0)
            old = office.issue("litellm", Role.GATEWAY, timedelta(days=30))
            assert access.who(bearer(old)) == Caller("litellm", Role.GATEWAY, old.token.token_id)
            fresh = office.rotate(old.token.token_id, timedelta(hours=1))
            assert (fresh.token.name, fresh.token.replaces) == ("litellm", old.token.token_id)
            assert access.who(bearer(fresh)) is not None
            assert office.revoke(fresh.token.token_id).revoked_by == "cli:ann"
            for wrong in (
                lambda: office.issue("a\tb", Role.ADMIN, timedelta(days=1)),
                lambda: office.issue("ann", Role.ADMIN, timedelta(days=-1)),
                lambda: office.rotate(fresh.token.token_id, timedelta(0)),
                lambda: office.revoke("f" * 12),
            ):
                with pytest.raises(UsageError):
                    wrong()
            assert len(access.tokens()) == 2
            stored = repr(state.execute("SELECT * FROM token_orders"))
            assert not any(i.secret.reveal().split("_")[3] in stored for i in (old, fresh))
    finally:
        stop.set()
        desk.join()
    assert faults == []
    assert paper.events() == ["token.issue", "token.rotate", "token.revoke"]
    assert {who for _, who, _, _, _ in paper.entries} == {"cli:ann"}


def order(name: str = "ann", **more: Any) -> Order:
    made = draft(Role.VIEWER)
    return Order("issue", "cli:ann", made, name, "viewer", lasts=timedelta(days=1), **more)


def test_an_order_waits_while_the_audit_cannot_be_written(place: Place, paper: Paper) -> None:
    with State(place) as state:
        access, now = Access(state, audit=paper), datetime.now(UTC)
        number = orders._place(state, order())
        paper.is_full = True
        with pytest.raises(Transient, match="audit is full"):
            carry_out(access, state, now)
        assert access.tokens() == []
        assert orders._answer(state, number) == ("", "")
        paper.is_full = False
        assert carry_out(access, state, now) == 1
        assert orders._answer(state, number) == ("done", "")
        assert carry_out(access, state, now) == 0
        assert len(access.tokens()) == 1


def test_an_order_that_is_old_or_makes_no_sense_is_turned_down_and_the_rest_goes_on(place: Place, paper: Paper) -> None:
    with State(place) as state:
        access, now = Access(state, audit=paper), datetime.now(UTC)
        with pytest.raises(Terminal, match=r"(?i)check"):
            orders._place(state, replace(order(), what="crown"))
        orders._place(state, replace(order(), role="emperor"))
        orders._place(state, order("bo"))
        assert carry_out(access, state, now) == 2
        assert [t.name for t in access.tokens()] == ["bo"]
        late = orders._place(state, order("late"))
        assert carry_out(access, state, now + timedelta(hours=1)) == 1
        assert orders._answer(state, late)[0] == "refused"
        assert [t.name for t in access.tokens()] == ["bo"]
        with pytest.raises(Terminal, match="answered once"):
            state.execute("UPDATE token_orders SET outcome = 'done'")
