"""What all gateways share: who is calling, what holds for them, and how the answer goes back over the wire.

A gateway authenticates the caller and says who it is in headers that it sets itself, over whatever the client sent under those
names. We believe them: put nothing between that could add its own. All here work from memory alone: no disk, no database, no
waiting, and no body is read except by the ASGI layer.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from stillwatch.errors import UsageError
from stillwatch.responders import API_KEY, BEARER, Bucket, Buckets, Usage, answer_request, known
from stillwatch.serving.decisions import Decisions
from stillwatch.serving.dialects import Told, dialect_of, line, told
from stillwatch.types import InForce, Rung

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

CREDENTIALS = (BEARER, API_KEY)


@dataclass(frozen=True, slots=True)
class Wiring:
    """In which headers a gateway says who is calling (any case), and what customers are told.

    ``key_header`` holds a key's SHA-256 in hex; without it the secret in the first of ``secret_headers`` is hashed here. The
    gateway sets ``acr_header`` and ``auth_time_header`` (seconds since 1970) from a token that it has checked; ``credential``
    ``bearer`` says that clients can fetch a fresh one. ``appeals`` is a URL with ``{case}`` where the case goes. ``dialect`` is
    the one of paths that could be several's. ``body_bytes`` is the largest body the ASGI layer rewrites.
    """

    account_header: str = "x-stillwatch-account"
    key_header: str = "x-stillwatch-key"
    secret_headers: tuple[str, ...] = ("authorization", "x-api-key", "api-key")
    end_user_header: str = "x-stillwatch-end-user"
    model_header: str = "x-stillwatch-model"
    acr_header: str = "x-stillwatch-acr"
    auth_time_header: str = "x-stillwatch-auth-time"
    credential: str = API_KEY
    appeals: str = ""
    dialect: str = "openai_chat"
    body_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        known(self.dialect)
        if self.credential not in CREDENTIALS:
            raise UsageError(f"no such credential: {self.credential!r}", hint=f"one of {', '.join(CREDENTIALS)}")
        if self.body_bytes < 0:
            raise UsageError(f"body_bytes must be at least 0: {self.body_bytes}")
        for name in (
            "account_header",
            "key_header",
            "end_user_header",
            "model_header",
            "acr_header",
            "auth_time_header",
        ):
            object.__setattr__(self, name, getattr(self, name).lower())
        object.__setattr__(self, "secret_headers", tuple(h.lower() for h in self.secret_headers))

    def appeal(self, case: str) -> str:
        """Where to appeal against a case; empty if nowhere was set."""
        return line(self.appeals.replace("{case}", case))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as a gateway says. An empty name is one that it does not know.

    ``acr`` and ``authenticated_at`` are how strongly and when the caller signed in, from a token that the gateway has checked.
    """

    account: str = ""
    key: str = ""
    end_user: str = ""
    acr: str = ""
    authenticated_at: datetime | None = None


def caller(headers: Mapping[str, str], wiring: Wiring) -> Caller:
    """Who is calling, from headers (names in lower case)."""
    key = headers.get(wiring.key_header, "") or hashed(_secret(headers, wiring))
    return Caller(
        headers.get(wiring.account_header, ""),
        key,
        headers.get(wiring.end_user_header, ""),
        headers.get(wiring.acr_header, ""),
        _time(headers.get(wiring.auth_time_header, "")),
    )


def _time(seconds: str) -> datetime | None:
    is_one = seconds.isascii() and seconds.isdigit() and len(seconds) < 12
    return datetime.fromtimestamp(int(seconds), UTC) if is_one else None


def hashed(secret: str) -> str:
    """A key as tables name it: the SHA-256 of the secret in hex, as LiteLLM does; empty for none."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest() if secret else ""


def _secret(headers: Mapping[str, str], wiring: Wiring) -> str:
    for name in wiring.secret_headers:
        if value := headers.get(name, ""):
            scheme, _, rest = value.partition(" ")
            return rest.strip() if rest and scheme.lower() == "bearer" else value
    return ""


class Level:
    """A bucket that is always full, or always empty, and counts nothing: for asking without taking."""

    def __init__(self, *, is_empty: bool) -> None:
        self._is_empty = is_empty

    def take(self, account_id: str, per_minute: float, burst: float) -> tuple[float, float]:
        """As ``Bucket`` says."""
        return 0.0, 60 / per_minute if self._is_empty else 0.0


FULL, EMPTY = Level(is_empty=False), Level(is_empty=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds for a request, and what it is refused with; neither for one that passes."""

    held: InForce | None
    refused: Told | None


class Gate:
    """What gateways ask: the table, the buckets, the responders, and the wiring of one gateway."""

    def __init__(self, decisions: Decisions, wiring: Wiring | None = None, bucket: Bucket | None = None) -> None:
        self.decisions, self.wiring = decisions, wiring or Wiring()
        self.bucket = bucket if bucket is not None else Buckets()

    def judge(self, headers: Mapping[str, str], path: str) -> Verdict:
        """The verdict on a request by its headers (names in lower case) and path."""
        who = caller(headers, self.wiring)
        held = self.decisions.ask(who.account, who.key, who.end_user, now := datetime.now(UTC))
        if held is None:
            return Verdict(None, None)
        request_id = headers.get("x-request-id") or headers.get("request-id") or ""
        usage = self.usage(who, headers.get(self.wiring.model_header, ""))
        return self.verdict(held, dialect_of(path, headers, self.wiring.dialect), now, usage, request_id)

    def verdict(
        self, held: InForce, dialect: str, now: datetime, usage: Usage, request_id: str = "", *, counts: bool = True
    ) -> Verdict:
        """What the responders of what is in force say to a request; a refusal is counted, if it ``counts``."""
        if held.rung.height < Rung.THROTTLE.height:
            return Verdict(held, None)
        appeal = held.settings.get("appeal_url") or self.wiring.appeal(held.action_id)
        shown = replace(held, settings={**held.settings, "appeal_url": appeal})
        answer = self.or_none(held, answer_request, shown, dialect, now, usage)
        if answer is None:
            return Verdict(held, None)
        self.decisions.counts.refused[held.rung] += counts
        return Verdict(held, told(answer, held, dialect, appeal, request_id))

    def or_none(self, held: InForce, respond: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | None:
        """What a responder says; None if it fails, which is counted and told: its fault must not refuse anybody."""
        try:
            return respond(*given, **named)
        except Exception:
            self.decisions.counts.faults += 1
            log.exception("the responders of case %s (%s) failed: the request passes", held.action_id, held.rung.value)
            return None

    def usage(self, who: Caller, model: str = "") -> Usage:
        """What is known of a request beside its body; an empty ``model`` is an unknown one."""
        return Usage(self.bucket, model, self.wiring.credential, who.acr, who.authenticated_at)


def headers_of(scope: Scope) -> dict[str, str]:
    """A request's headers, names in lower case; of several with one name the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def respond(
    send: Send, status: int, headers: Mapping[str, str], body: bytes = b"", *, kind: str = "http.response"
) -> None:
    """Send a whole response."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": f"{kind}.start", "status": status, "headers": raw})
    await send({"type": f"{kind}.body", "body": body})


async def body_of(receive: Receive, most: int) -> bytes | None:
    """The whole body, or None as soon as it is longer than ``most`` bytes or the client has gone."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
