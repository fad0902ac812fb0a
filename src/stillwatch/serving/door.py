"""Who is let in: answered from memory where that is possible, and asked of the state by a thread of its own where it is not.

A state that is slow, hangs or is away holds up whoever shows a token for the first time, and nobody else. A token in use is read
anew in the background before what is known of it is too old to be believed. A gateway's that cannot be read any more holds on for
a while: a broken disk is no reason to leave customers without an answer, and what is told is only what is in force.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from stillwatch.actions import Audit
from stillwatch.serving.access import FRESH_S, Access, Caller, is_token
from stillwatch.spool import Overload
from stillwatch.store.places import Place
from stillwatch.store.state import State

P = ParamSpec("P")
T = TypeVar("T")

RENEW_S = 2.0
"""A token that is used is read anew when its last reading is so old, in seconds: well before it is not believed any more."""
REMEMBERED_S = 900.0
"""How long a gateway is let in by what was last known of its token, while the state cannot be read, in seconds."""
PATIENCE_S = 0.05
"""How long a gateway's question waits for the state, in seconds, where its token was used before but not lately."""
AGAIN_S = 1.0
"""After a reading that failed, how long no other is tried for a token that is remembered, in seconds."""
ANSWER_S = 2.0
"""How long the state may take to answer who a token is, in seconds."""
WAITING = 1000
"""Most tokens that wait to be read."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A reading under way, and when it was asked for, by the monotonic clock."""

    answer: Future[Caller | None]
    at: float


class Door:
    """The tokens of the state at ``place``, read by a thread of its own. ``who`` may be asked from any event loop."""

    def __init__(self, place: Place, audit: Audit) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="door")
        self._asked: dict[str, _Asked] = {}
        self._failed_at = -math.inf
        try:
            self._state, self._access = self._thread.submit(_opened, place, audit).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def who(self, authorization: str, *, is_gateway: bool = False) -> Caller | None:
        """As ``Access.who``. For a gateway its error, and its delay, only where the token is not remembered; Overload where
        too many wait for the state."""
        if not is_token(authorization):
            return None
        known = self._access.remembered(authorization, REMEMBERED_S if is_gateway else FRESH_S)
        if known is None:
            return await asyncio.shield(asyncio.wrap_future(self._ask(authorization).answer))
        if known.age_s <= RENEW_S or not (asked := self._renew(authorization)):
            return known.caller
        if known.age_s > FRESH_S:
            await _within(asked, PATIENCE_S)
            if asked.answer.done() and not asked.answer.exception():
                return asked.answer.result()
        return known.caller

    def do_now(self, call: Callable[Concatenate[Access, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``call`` returns or raises, made by the thread that has the tokens; for who is not in an event loop."""
        return self._thread.submit(call, self._access, *args, **kwargs).result()

    def close(self) -> None:
        """Write down when tokens were last used, and close the state; the error of the former."""
        try:
            self.do_now(Access.write_uses)
        finally:
            self._thread.submit(self._state.close).result()
            self._thread.shutdown()

    def _renew(self, authorization: str) -> _Asked | None:
        """A reading of a token that is remembered; None where another one has just failed, or too many wait."""
        if time.monotonic() - self._failed_at < AGAIN_S:
            return None
        try:
            return self._ask(authorization)
        except Overload:
            return None

    def _ask(self, authorization: str) -> _Asked:
        """The reading of a token that is under way, else a new one."""
        asked = self._asked.get(authorization)
        if asked is not None and not asked.answer.done():
            return asked
        if len(self._asked) >= WAITING:
            raise Overload("too many tokens wait to be read", wait_s=ANSWER_S, hint="come again later")
        asked = _Asked(self._thread.submit(self._access.who, authorization, RENEW_S), time.monotonic())
        self._asked[authorization] = asked
        asked.answer.add_done_callback(lambda answer: self._ended(authorization, answer))
        return asked

    def _ended(self, authorization: str, answer: Future[Caller | None]) -> None:
        self._asked.pop(authorization, None)
        if not answer.cancelled() and answer.exception() is not None:
            self._failed_at = time.monotonic()


def _opened(place: Place, audit: Audit) -> tuple[State, Access]:
    state = State(place, ANSWER_S)
    return state, Access(state, audit=audit)


async def _within(asked: _Asked, seconds: float) -> None:
    """Wait until a reading has ended, or was asked for so many seconds ago: for one that hangs, all wait but once."""
    left = asked.at + seconds - time.monotonic()
    if left > 0:
        answer = asyncio.wrap_future(asked.answer)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([asyncio.shield(answer)], timeout=left)
