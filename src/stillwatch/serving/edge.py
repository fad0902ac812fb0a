"""Between HTTP and the handlers: who may, what a fault is answered with, ids, counts, and requests under way.

An answer in error is ``{"error", "hint", "request_id"}``. What the caller may do is asked before a byte of the body is read.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillwatch.errors import StillwatchError, Terminal, Transient, UsageError
from stillwatch.serving.access import Caller, Right, meaning
from stillwatch.serving.gateways import App, Gate
from stillwatch.serving.lines import REQUEST, say
from stillwatch.serving.metrics import Metrics
from stillwatch.serving.services import Services
from stillwatch.spool import Overload

GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A request id that a gateway may give with X-Request-Id; any other is replaced by one of ours."""

SAFE_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Refused(UsageError):
    """A request that is answered with ``status`` and changes nothing."""

    def __init__(self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status, self.headers = status, dict(headers or {})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose caller may make it. ``caller`` is None on an open route."""

    request: Request
    services: Services
    caller: Caller | None

    @property
    def who(self) -> str:
        """The caller's name, for the audit."""
        return self.caller.name if self.caller else "anybody"

    @property
    def role(self) -> str:
        return str(self.caller.role) if self.caller else "none"

    def named(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body; Refused (413) as soon as it is longer than ``limit`` bytes, without reading on."""
        most = self.services.settings.bodies.body_bytes if limit is None else limit
        told = self.request.headers.get("content-length", "")
        if told.isdigit() and int(told) > most:
            raise _too_large(most)
        parts, size = [], 0
        async for part in self.request.stream():
            parts.append(part)
            size += len(part)
            if size > most:
                raise _too_large(most)
        return b"".join(parts)

    async def json(self, *known: str, limit: int = 1 << 20) -> dict[str, Any]:
        """The body as a JSON object with no key but ``known``; an empty body is an empty object. Refused (400) otherwise."""
        kind = self.request.headers.get("content-type", "application/json").partition(";")[0].strip()
        body = await self.body(limit)
        if body and kind != "application/json":
            raise Refused(415, f"a body of {kind[:80]!r} is not understood here", hint="send application/json")
        try:
            value = json.loads(body) if body else {}
        except (ValueError, RecursionError) as e:
            raise Refused(400, "the body is no JSON", hint="send one JSON object") from e
        if not isinstance(value, dict):
            raise Refused(400, "the body is no JSON object", hint=f"send an object with {', '.join(known)}")
        if unknown := sorted(set(value) - set(known)):
            raise Refused(400, f"unknown fields: {', '.join(unknown)[:200]}", hint=f"known: {', '.join(known)}")
        return value

    def flag(self, name: str) -> bool:
        """A query parameter that is on or off."""
        value = self.request.query_params.get(name, "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise Refused(400, f"{name} must be true or false")
        return value in ("true", "1")

    def number(self, name: str, usual: int, most: int) -> int:
        """A query parameter from 0 to ``most``."""
        value = self.request.query_params.get(name, str(usual))
        if not value.isascii() or not value.isdigit() or len(value) > 9 or int(value) > most:
            raise Refused(400, f"{name} must be a number from 0 to {most}")
        return int(value)


Handler = Callable[[Asked], Awaitable[Response]]

OUR_HEADER = "x-stillwatch-token"
"""Where a gateway that passes its client's Authorization on to us puts its own token."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A question of a gateway, answered by an application made of the gate, straight over the wire."""

    make: Callable[[Gate], App]


@dataclass(frozen=True, slots=True)
class Route:
    """A line of the table of routes. ``right`` None is open to everybody, for the reason in ``open_because``.

    ``method`` ``*`` is every method. ``fields`` are those of a JSON body with a line on each, ``query`` likewise. With
    ``token_header`` our token comes in X-Stillwatch-Token, for Authorization is the client's own; and whoever has none that
    holds is answered 503, for there a 401 or 403 would be a refusal of the gateway's customer (see ``locked_out``).
    """

    method: str
    path: str
    right: Right | None
    handler: Handler | Asking
    summary: str
    open_because: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    token_header: bool = False

    def __post_init__(self) -> None:
        if (self.right is None) != bool(self.open_because):
            raise ValueError(f"{self.method} {self.path}: needs a right, or a reason to be open, and not both")


def text_of(given: Mapping[str, Any], name: str, most: int) -> str:
    """A field that must be a text of at most ``most`` characters, without the space around it. Refused (400) otherwise."""
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Refused(400, f"no {name}", hint=f'"{name}": "..."')
    if len(value) > most:
        raise Refused(400, f"{name} is longer than {most} characters")
    return value.strip()


def _too_large(most: int) -> Refused:
    return Refused(
        413, f"the body is larger than {most} bytes", hint="send smaller batches, or raise [bodies] body_bytes"
    )


def answer_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON, ASCII only so that nothing in it can be taken for markup of another encoding."""
    text = json.dumps(value, allow_nan=False, default=_plain, separators=(",", ":"))
    return Response(text + "\n", status, headers, "application/json")


def _plain(value: object) -> object:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def fault_answer(error: Exception, services: Services) -> Response:
    """What an error is answered with. One that we did not foresee says nothing of itself; the log has it."""
    status, headers = _status(error, services)
    if not isinstance(error, StillwatchError):
        body = {"error": "a fault of the server", "hint": "the log has it under this request_id"}
    else:
        body = {"error": error.message, "hint": error.hint}
    return answer_json({**body, "request_id": REQUEST.get()}, status, headers)


def _status(error: Exception, services: Services) -> tuple[int, dict[str, str]]:
    told = getattr(error, "status", None)
    if isinstance(told, int):
        return told, dict(getattr(error, "headers", {}))
    match error:
        case Overload():
            return 503, {"retry-after": str(math.ceil(error.wait_s))}
        case Transient():
            return 503, {"retry-after": str(services.settings.retry_after_s)}
        case UsageError():
            return 400, {}
        case Terminal():
            return 500, {}
    return 500, {}


def endpoint(route: Route, services: Services) -> Any:
    """The route as the framework calls it: the right first, then the handler, and every error as an answer."""
    return _Endpoint(route, services)


class _Endpoint:
    """An application of one route."""

    def __init__(self, route: Route, services: Services) -> None:
        self._route, self._services = route, services
        self._app = route.handler.make(services.gate) if isinstance(route.handler, Asking) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["stillwatch.route"] = self._route.path
        request, begun = Request(scope, receive), False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            answer = await self._answer(request, noted)
        except ClientDisconnect:
            return
        except Exception as e:  # the edge: any error becomes an answer, and is counted by its status
            _tell(e, self._route)
            if begun:
                raise
            answer = fault_answer(e, self._services)
        if answer is not None:
            await answer(scope, receive, noted)

    async def _answer(self, request: Request, send: Send) -> Response | None:
        """The answer, None where it was sent already."""
        caller = await admitted(self._route, self._services, request)
        if self._app is not None:
            await self._app(request.scope, request.receive, send)
            return None
        assert not isinstance(self._route.handler, Asking)
        return await self._route.handler(Asked(request, self._services, caller))


async def admitted(route: Route, services: Services, request: Request) -> Caller | None:
    """Who asks. Refused with 401 where nobody we know does, with 403 where the right is lacking."""
    if route.right is None:
        return None
    caller = await _caller(route, services, request)
    if caller is None:
        services.metrics.add("stillwatch_denied_total", why="no_token")
        if route.token_header:
            raise locked_out(services, "no valid token", f"send {OUR_HEADER}: TOKEN; stillwatch token new makes one")
        hint = "send Authorization: Bearer TOKEN; stillwatch token new makes one"
        raise Refused(401, "no valid token", hint=hint, headers={"www-authenticate": 'Bearer realm="stillwatch"'})
    if not caller.may(route.right):
        services.metrics.add("stillwatch_denied_total", why="no_right")
        if route.token_header:
            raise locked_out(services, f"this token may not: {meaning(route.right)}", "give it one of the role gateway")
        raise Refused(403, f"this token may not: {meaning(route.right)}", hint="another role may; see stillwatch token")
    return caller


def locked_out(services: Services, why: str, hint: str) -> Refused:
    """What a gateway without a token that holds is answered where the status of our answer becomes its customer's.

    It is the operator's fault and no customer's, so it is an error and no denial: Envoy takes a 5xx of an ext_authz server
    for one and does as ``failure_mode_allow`` has it, nginx's auth_request takes anything but 2xx, 401 and 403 for one. It
    does not go unnoticed that customers may pass meanwhile: an alarm stands as long as anybody asks so.
    """
    if "gateway_locked_out" not in services.alarms:
        say(logging.WARNING, "a gateway is locked out: it does as it does when nobody answers", why=why)
    services.locked_out_at = time.monotonic()
    services.alarm("gateway_locked_out", f"a gateway asked in vain: {why}")
    return Refused(503, why, hint=hint)


async def _caller(route: Route, services: Services, request: Request) -> Caller | None:
    given = request.headers.get(OUR_HEADER, "")
    authorization = (
        f"Bearer {given}" if given else "" if route.token_header else request.headers.get("authorization", "")
    )
    if not authorization:
        return None
    return await services.door.who(authorization, is_gateway=route.right is Right.ASK_GATEWAY)


def _tell(error: Exception, route: Route) -> None:
    # What is answered with 4xx is the sender's fault, and nobody here need look.
    if isinstance(error, UsageError) or 400 <= getattr(error, "status", 500) < 500:
        say(logging.DEBUG, "refused", error=error, route=route.path)
    elif isinstance(error, Transient):
        say(logging.WARNING, "not now", error=error, route=route.path)
    else:
        say(logging.ERROR, "failed", error=error, route=route.path)


@dataclass(slots=True)
class UnderWay:
    """Requests being answered, so that a stop can wait for them."""

    count: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    def begin(self) -> None:
        self.count += 1
        self.idle.clear()

    def end(self) -> None:
        self.count -= 1
        if not self.count:
            self.idle.set()


class Edge:
    """Around the whole application: an id for each request, its time and status counted, safe headers on each answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics, under_way: UnderWay) -> None:
        self._app, self._metrics, self._under_way = app, metrics, under_way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _id_of(scope)
        token, began, status = REQUEST.set(request_id), time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", [])
                message["headers"] = [*given, *_missing(given), (b"x-request-id", request_id.encode())]
            await send(message)

        self._under_way.begin()
        try:
            await self._app(scope, receive, sent)
        finally:
            self._under_way.end()
            REQUEST.reset(token)
            self._count(scope.get("stillwatch.route", "none"), status, time.perf_counter() - began)

    def _count(self, route: str, status: int, seconds: float) -> None:
        self._metrics.add("stillwatch_requests_total", route=route, status=str(status))
        self._metrics.took("stillwatch_request_seconds", seconds, route=route)


def _missing(given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name.lower() for name, _ in given}
    return [header for header in SAFE_HEADERS if header[0] not in names]


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            return text if GIVEN_ID.fullmatch(text) else uuid4().hex
    return uuid4().hex
