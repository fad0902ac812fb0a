"""Where a command makes, replaces and revokes tokens: by itself where no server runs, else by orders to the one that does.

Who holds the audit does it, and writes it there first. A command that cannot hold the audit, or in a database the state, orders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from stillwatch.audit import Audit, AuditUnwritable
from stillwatch.entries import LOG
from stillwatch.errors import Transient, UsageError
from stillwatch.notes import KEY_VARIABLE, load_signer
from stillwatch.serving import custody, orders
from stillwatch.serving.access import Access, Issued, Role, Token, draft
from stillwatch.serving.home import Home
from stillwatch.serving.orders import Order
from stillwatch.serving.settings import load
from stillwatch.store.places import Held, Place
from stillwatch.store.state import State

WITHIN_S = 15.0
"""How long a server may take to carry an order out, beside two rounds of its loop, in seconds."""


@dataclass(frozen=True, slots=True)
class Office:
    """Makes tokens in the name of ``by``. ``audited`` is whether ``access`` may, else the running server is ordered to."""

    state: State
    access: Access
    by: str
    audited: bool
    within_s: float

    def issue(self, name: str, role: Role, lifetime: timedelta) -> Issued:
        """A new token. Errors as of ``Access.issue``; Transient where the server did not answer: then none was made."""
        if self.audited:
            return self.access.issue(name, role, self.by, lifetime)
        made = draft(role)
        self._order(Order("issue", self.by, made, name, role.value, lasts=lifetime))
        return Issued(self.access.one(made.token_id), made.secret)

    def rotate(self, token_id: str, grace: timedelta) -> Issued:
        """A token that replaces another one."""
        if self.audited:
            return self.access.rotate(token_id, self.by, grace)
        made = draft(self.access.one(token_id).role)
        self._order(Order("rotate", self.by, made, old_id=token_id, lasts=grace))
        return Issued(self.access.one(made.token_id), made.secret)

    def revoke(self, token_id: str) -> Token:
        """The token, which holds no more."""
        if self.audited:
            return self.access.revoke(token_id, self.by)
        self.access.one(token_id)
        self._order(Order("revoke", self.by, old_id=token_id))
        return self.access.one(token_id)

    def _order(self, order: Order) -> None:
        orders.ordered(self.state, order, self.within_s)


@contextmanager
def open_office(home: Home, config: Path | None, by: str) -> Iterator[Office]:
    """The office of a home. UsageError where its settings or keys cannot be used."""
    settings = load(config or (home.settings if home.settings.exists() else None))
    place = custody.place_in(home, settings)
    with ExitStack() as closing:
        audit = _audit(home, closing)
        held = _held(home, place, audit, closing) if audit else None
        state = held or closing.enter_context(State(place))
        access = Access(state, audit=audit if held else None)
        yield Office(state, access, by, held is not None, WITHIN_S + 2 * settings.loop_every_s)


def _audit(home: Home, closing: ExitStack) -> Audit | None:
    """The home's audit, begun if there is none; None where another process, a server most likely, has it."""
    if (home.audit / LOG).exists() and not (home.audit_key.exists() or os.environ.get(KEY_VARIABLE)):
        raise UsageError(f"{home.audit_key}: the key that signs the audit is not there", hint="put it back")
    try:
        return closing.enter_context(Audit(home.audit, load_signer(home.audit_key)))
    except AuditUnwritable:
        raise
    except Transient:
        return None


def _held(home: Home, place: Place, audit: Audit, closing: ExitStack) -> State | None:
    """The state, held against servers; None where one elsewhere has it."""
    try:
        state = closing.enter_context(State(place, holds=True))
    except Held:
        return None
    custody.claim(home, state, audit)
    return state
