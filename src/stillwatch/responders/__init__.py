"""What each rung does to a request or its answer: rewriting, so that nothing is left behind when it is undone.

A responder lives in one file of this folder (or in another package, by entry point) as ``RESPONDER``, named after its
rung. ``change`` rewrites the body of a request, ``answer`` refuses one; both are functions of what they are given, keep
nothing and never touch messages. A rung is undone by not asking its responder any more. The ladder adds up: requests are
rewritten by the responders of the account's rung and of all below it, and refused by that of the rung and by those below whose
settings are set too, which is so where their actions are in force as well (``change_request``, ``answer_request``).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from stillwatch.errors import UsageError
from stillwatch.plugins import discover
from stillwatch.types import InForce, Rung

DIALECTS = ("anthropic", "openai_chat", "openai_responses", "vllm")
"""Whose words a request and its answer are in."""

WORDS = ("appeal_url", "case_url")
"""Settings of every rung: where an account appeals, and reads about its case."""

BEARER, API_KEY = "bearer", "api_key"

TOLERANCE = 1e-9
"""Share of a request by which adding up many small refills may fall short of one."""

Request = Mapping[str, Any]


class Bucket(Protocol):
    """Keeps count of what accounts take; one for all accounts of a gateway."""

    def take(self, account_id: str, per_minute: float, burst: float) -> tuple[float, float]:
        """Take one request if there is one: (requests left, 0), or (0, seconds until there is one again)."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a gateway knows of one request beside its body.

    ``credential`` is ``bearer`` where the client can fetch a fresh token, ``api_key`` where it cannot. ``acr`` and
    ``authenticated_at`` are the token's claims ``acr`` and ``auth_time``. An empty ``model`` is an unknown one.
    """

    bucket: Bucket
    model: str = ""
    credential: str = API_KEY
    acr: str = ""
    authenticated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """A request as it is passed on, and a line for each thing that was changed; the same object where nothing was."""

    request: Request
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets instead of the model's answer: status, headers, and a body in its own dialect."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    def content(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Setting:
    """A number, text, choice or list of texts that a rule may set for a rung. ``default`` None: not set.

    ``kind`` is the type of its value; ``least`` and ``most`` bound a number; ``choices`` are the only texts it may be.
    """

    kind: type[Any]
    meaning: str
    default: Any = None
    least: float = 0
    most: float = math.inf
    choices: tuple[str, ...] = ()
    is_required: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        wanted: Any = (int, float) if self.kind is float else self.kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind is not bool):
            return f"must be {_KINDS[self.kind]}, not {value!r}"
        if self.kind is list and not (value and all(isinstance(v, str) and v for v in value)):
            return f"must be {_KINDS[list]}, not {value!r}"
        if isinstance(value, str) and not (value and value.isascii() and value.isprintable()):
            return f"must be one line of plain characters, as it may stand in a header, not {value!r}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, not {value!r}"
        if self.kind in (int, float) and not self.least <= value <= self.most:
            return f"must lie in {_span(self.least, self.most)}, not {value!r}"
        return None


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list of texts"}

Change = Callable[[Request, str, Mapping[str, Any]], Changed]
Reply = Callable[[InForce, str, datetime, Usage], Answer | None]


def unchanged(request: Request, dialect: str, settings: Mapping[str, Any]) -> Changed:
    """The request as it came."""
    return Changed(request)


def no_answer(in_force: InForce, dialect: str, now: datetime, usage: Usage) -> Answer | None:
    """The request is passed on."""
    return None


@dataclass(frozen=True, slots=True)
class Responder:
    """What a rung does.

    ``meaning`` is a sentence a person reads, ``told`` what the account is told is being done. ``change(request, dialect,
    settings)`` and ``answer(in_force, dialect, now, usage)`` know the ``settings`` named here and no others.
    """

    name: str
    meaning: str
    told: str
    change: Change = unchanged
    answer: Reply = no_answer
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in list(Rung):
            raise ValueError(f"responder {self.name!r}: its name must be a rung: {', '.join(Rung)}")

    @property
    def rung(self) -> Rung:
        return Rung(self.name)

    def filled(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings with the defaults of those that are not set."""
        usual = {n: s.default for n, s in self.settings.items() if s.default is not None and not s.is_required}
        return {**usual, **settings}

    def faults(self, settings: Mapping[str, Any]) -> list[str]:
        """What is wrong with settings given for this rung."""
        unknown = [f"{self.name} has no setting {n!r}" for n in settings if n not in {*self.settings, *WORDS}]
        wrong = [f"{n} {f}" for n, s in self.settings.items() if n in settings and (f := s.fault(settings[n]))]
        missing = [f"{self.name} needs {n!r}" for n, s in self.settings.items() if s.is_required and n not in settings]
        return [*unknown, *wrong, *missing]

    def setting(self, settings: Mapping[str, Any], name: str) -> Any:
        """The value set, or the default."""
        return settings.get(name, self.settings[name].default)


@cache
def ladder() -> tuple[Responder, ...]:
    """The responders of all rungs, mildest first; UsageError where one is missing."""
    found = discover("responders")
    if missing := [rung.value for rung in Rung if rung not in found]:
        raise UsageError(f"no responder for {', '.join(missing)}", hint="reinstall stillwatch")
    return tuple(found[rung] for rung in Rung)


def change_request(in_force: InForce | None, request: Request, dialect: str) -> Changed:
    """The request as it is passed on, rewritten by every responder up to the rung; UsageError for an unknown dialect."""
    known(dialect)
    notes: list[str] = []
    for responder in _up_to(in_force):
        changed = responder.change(request, dialect, in_force.settings if in_force else {})
        request = changed.request
        notes += changed.notes
    return Changed(request, tuple(notes))


def answer_request(in_force: InForce | None, dialect: str, now: datetime, usage: Usage) -> Answer | None:
    """The answer of the strictest responder that has one, or None where the request is passed on.

    Strictest first: a refused request takes nothing from the bucket. After ``expires_at`` nothing is refused.
    """
    known(dialect)
    if in_force is None or now >= in_force.expires_at:
        return None
    asked = (r for r in reversed(_up_to(in_force)) if r.rung is in_force.rung or r.settings.keys() & in_force.settings)
    answers = (r.answer(in_force, dialect, now, usage) for r in asked)
    return next((answer for answer in answers if answer is not None), None)


def known(dialect: str) -> str:
    """The dialect, if it is one; else UsageError."""
    if dialect not in DIALECTS:
        raise UsageError(f"no such dialect: {dialect!r}", hint=f"dialects are {', '.join(DIALECTS)}")
    return dialect


def refusal(status: int, kind: str, message: str, dialect: str, headers: Mapping[str, str] | None = None) -> Answer:
    """A refusal in the caller's dialect; ``kind`` is ``rate_limit``, ``authentication`` or ``permission``."""
    head = {"content-type": "application/json", **(headers or {})}
    if dialect == "anthropic":
        return Answer(status, head, {"type": "error", "error": {"type": f"{kind}_error", "message": message}})
    code: str | int = status if dialect == "vllm" else _CODES[kind]
    error = {"message": message, "type": _TYPES[kind], "param": None, "code": code}
    return Answer(status, head, {"error": error})


def appeal_url(in_force: InForce) -> str:
    """Where to appeal, with the case in place of ``{case}``; empty where the policy names no place."""
    return str(in_force.settings.get("appeal_url") or "").replace("{case}", in_force.action_id)


_CODES = {"rate_limit": "rate_limit_exceeded", "authentication": "step_up_required", "permission": "account_restricted"}
_TYPES = {"rate_limit": "requests", "authentication": "authentication_error", "permission": "permission_error"}


def _up_to(in_force: InForce | None) -> tuple[Responder, ...]:
    return ladder()[: in_force.rung.height + 1] if in_force else ()


def _span(least: float, most: float) -> str:
    return f"[{least:g}, {most:g}]" if math.isfinite(most) else f"[{least:g}, …)"


class Buckets:
    """Token buckets, one per account under a rate; at most ``most`` of them, the longest unused goes first.

    Time is a monotonic clock's. Should it leap forward, a bucket is full at best; should it go back, nothing is taken away.
    """

    def __init__(self, most: int = 100_000, clock: Callable[[], float] = time.monotonic) -> None:
        if most < 1:
            raise UsageError(f"there must be room for at least one bucket: {most}")
        self._most, self._clock = most, clock
        self._held: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, account_id: str, per_minute: float, burst: float) -> tuple[float, float]:
        """As ``Bucket`` says; ``burst`` is how many may pass at once after a pause."""
        at, room = self._clock(), max(1.0, burst)
        level, since = self._held.pop(account_id, (room, at))
        level = min(room, level + max(0.0, at - since) * per_minute / 60)
        passes = level >= 1 - TOLERANCE
        self._held[account_id] = (max(0.0, level - passes), at)
        if len(self._held) > self._most:
            del self._held[next(iter(self._held))]
        return (level - 1, 0.0) if passes else (0.0, (1 - level) * 60 / per_minute)
