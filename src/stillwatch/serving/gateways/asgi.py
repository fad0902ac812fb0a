"""For gateways written in Python: an ASGI layer that refuses, and rewrites requests; answers pass through it as they come.

What is posted to a model is read, up to ``Wiring.body_bytes``, for two ends: fields by which a client could choose or undo a
watermark are taken out of every request, and what an account under action asks for is rewritten. Of everybody else's requests
those pass byte by byte in which no such field can stand.
A larger body, a compressed one and one that is no JSON object pass as they are, and are counted: what they ask for is then not
rewritten, while what is refused by account is refused all the same. Of a batch (Anthropic's) each request is rewritten. What was
read is passed on as it was understood, even where nothing had to be changed: a field given twice must not mean one thing to us
and another to the model's server.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from stillwatch.responders import change_request
from stillwatch.serving.decisions import Counts
from stillwatch.serving.dialects import Told, dialect_of, is_request
from stillwatch.serving.gateways import (
    FULL,
    App,
    Caller,
    Gate,
    Message,
    Receive,
    Scope,
    Send,
    Wiring,
    caller,
    headers_of,
    respond,
)
from stillwatch.serving.gateways.edits import REWRITE, WATERMARK, marked_with, marking
from stillwatch.serving.gateways.litellm_hook import CHOICES, apply, without_choices
from stillwatch.types import InForce, Rung

Identify = Callable[[Scope], Caller]
Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]

BATCHES = "/messages/batches"

SIGNS = (*{choice[-1].encode() for choice in CHOICES}, b"\\u", b"\0")
"""What stands in the bytes of every JSON body that has one of the ``CHOICES``: its name, an escape that may spell it, or the
zeros of UTF-16 and UTF-32."""

log = logging.getLogger(__name__)


def stillwatch(app: App, gate: Gate, identify: Identify | None = None) -> App:
    """``app`` behind what is in force. ``identify`` says who calls; without it headers do, as ``gate.wiring`` has them."""

    async def layered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await app(scope, receive, send)
        headers = headers_of(scope)
        who = identify(scope) if identify else caller(headers, gate.wiring)
        held = gate.decisions.ask(who.account, who.key, who.end_user, datetime.now(UTC))
        scope = _marked(scope, marked_with(held))
        if held is None or held.rung is Rung.OBSERVE:
            return await _pass(app, gate.decisions.counts, gate.wiring.body_bytes, scope, receive, send)
        action = _Action(gate, held, who, headers, dialect_of(scope["path"], headers, gate.wiring.dialect))
        await (_open if scope["type"] == "websocket" else _post)(app, action, scope, receive, send)

    return layered


@dataclass(frozen=True, slots=True)
class _Action:
    """What is in force for the caller of one request."""

    gate: Gate
    held: InForce
    who: Caller
    headers: Mapping[str, str]
    dialect: str

    def refused(self, asked: tuple[str, ...] = ("",)) -> Told | None:
        """The refusal, if one of the models asked for is refused; a batch takes once from the bucket."""
        gate, now, request_id = self.gate, datetime.now(UTC), self.headers.get("x-request-id", "")
        usages = [replace(gate.usage(self.who, model), bucket=FULL) for model in asked[1:]]
        for usage in [*usages, gate.usage(self.who, asked[0])]:
            if refused := gate.verdict(self.held, self.dialect, now, usage, request_id).refused:
                return refused
        return None

    def changed(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request as it is passed on; the same one if nothing is changed."""
        request = without_choices(request)
        changed = self.gate.or_none(self.held, change_request, self.held, request, self.dialect)
        request = changed.request if changed else request
        # In vLLM's own dialect the responder has done it: once more is the same.
        named = marking(self.held, self.dialect, self.gate.wiring.dialect)
        return apply(named, request) if named else request


def _marked(scope: Scope, key: str) -> Scope:
    """The request with the id of its watermark's key in our header, and without any that a client sent."""
    kept = [(n, v) for n, v in scope["headers"] if n != WATERMARK.encode()]
    if len(kept) == len(scope["headers"]) and not key:
        return scope
    return {**scope, "headers": [*kept, (WATERMARK.encode(), key.encode("latin-1"))] if key else kept}


async def _pass(app: App, counts: Counts, most: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on a request of which nothing is known but that no client may choose a watermark."""
    if scope["type"] != "http" or scope["method"] != "POST" or not is_read(scope["path"]):
        return await app(scope, receive, send)
    read = await _gather(receive, headers_of(scope), most, counts)
    await _pass_read(app, counts, read, scope, receive, send)


async def _pass_read(app: App, counts: Counts, read: Read, scope: Scope, receive: Receive, send: Send) -> None:
    if read.raw is None or not any(sign in read.raw for sign in SIGNS):
        return await app(scope, read.again(receive), send)
    body = _object(read.raw)
    if body is None:
        counts.unreadable += 1
        return await app(scope, read.again(receive), send)
    changed = each_request(body, scope["path"], without_choices)
    counts.rewritten += changed is not body
    await app(*with_body(scope, changed, receive), send)


async def _post(app: App, action: _Action, scope: Scope, receive: Receive, send: Send) -> None:
    counts, most = action.gate.decisions.counts, action.gate.wiring.body_bytes
    is_posted = scope["method"] == "POST" and is_read(scope["path"]) and action.held.rung is not Rung.SUSPEND
    read = await read_request(receive, action.headers, most, counts) if is_posted else Read()
    if refused := action.refused(models(read.body)):
        return await respond(send, refused.status, refused.headers, refused.body)
    if read.body is None:
        return await app(scope, read.again(receive), send)
    changed = each_request(read.body, scope["path"], action.changed)
    counts.rewritten += changed is not read.body
    await app(*with_body(scope, changed, receive), send)


async def _open(app: App, action: _Action, scope: Scope, receive: Receive, send: Send) -> None:
    """A connection that is asked for: refused before it is accepted, or left alone."""
    refused = action.refused()
    if refused is None:
        return await app(scope, receive, send)
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        return await send({"type": "websocket.close", "code": 1008})
    await respond(send, refused.status, refused.headers, refused.body, kind="websocket.http.response")


def rewriting(app: App, wiring: Wiring | None = None, counts: Counts | None = None) -> App:
    """``app`` behind a gateway that has asked by ext_authz: the edits in its ``x-stillwatch-rewrite`` are done, nothing is asked,
    and what chooses a watermark is taken out of every request.

    The header is taken away. It must come from the gateway alone, which replaces any that a client sent.
    """
    most, counts = (wiring or Wiring()).body_bytes, counts or Counts()

    async def layered(scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope) if scope["type"] == "http" else {}
        if not (said := headers.get(REWRITE, "")):
            return await _pass(app, counts, most, scope, receive, send)
        scope = {**scope, "headers": [(n, v) for n, v in scope["headers"] if n != REWRITE.encode()]}
        is_posted = scope["method"] == "POST" and is_read(scope["path"])
        read = await read_request(receive, headers, most, counts) if is_posted else Read()
        changed = _edited(read.body, scope["path"], said)
        if changed is None:
            return await _pass_read(app, counts, read, scope, receive, send)
        counts.rewritten += changed != read.body
        await app(*with_body(scope, changed, receive), send)

    return layered


def _edited(body: Mapping[str, Any] | None, path: str, said: str) -> Mapping[str, Any] | None:
    if body is None:
        return None
    try:
        edits = json.loads(said)
        return each_request(body, path, lambda request: apply(edits, without_choices(request)))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as e:
        log.warning("%s holds no edits (%s): the request passes as it is", REWRITE, type(e).__name__)
        return None


def is_read(path: str) -> bool:
    """Whether what is posted to this path goes to a model, by itself or in a batch."""
    return is_request(path) or path.rstrip("/").endswith(BATCHES)


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a request: the messages, and the body if it is whole and an object."""

    messages: tuple[Message, ...] = ()
    body: Mapping[str, Any] | None = None
    raw: bytes | None = None
    """The bytes of the body, None where it was not read to its end."""

    def again(self, receive: Receive) -> Receive:
        """The messages read, once more, then those still to come."""
        waiting = list(reversed(self.messages))

        async def received() -> Message:
            return waiting.pop() if waiting else await receive()

        return received


async def read_request(receive: Receive, headers: Mapping[str, str], most: int, counts: Counts) -> Read:
    """What was read of a request of up to ``most`` bytes; what cannot be is counted."""
    read = await _gather(receive, headers, most, counts)
    if read.raw is None:
        return read
    body = _object(read.raw)
    counts.unreadable += body is None
    return replace(read, body=body)


async def _gather(receive: Receive, headers: Mapping[str, str], most: int, counts: Counts) -> Read:
    if headers.get("content-encoding", "identity") != "identity":
        counts.unreadable += 1
        return Read()
    messages: list[Message] = []
    # uvicorn has checked that it is a number.
    is_too_large = int(headers.get("content-length", "0")) > most
    size, more = 0, True
    while more and not is_too_large:
        messages.append(message := await receive())
        size += len(message.get("body", b""))
        is_too_large = size > most
        more = message["type"] == "http.request" and message.get("more_body", False)
    if is_too_large:
        counts.too_large += 1
        return Read(tuple(messages))
    return Read(tuple(messages), raw=b"".join(m.get("body", b"") for m in messages))


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def models(body: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The models a body asks for, each once; one empty name where none can be seen."""
    asked = [body or {}]
    if body and isinstance(body.get("requests"), list):
        asked = [r["params"] for r in body["requests"] if isinstance(r, dict) and isinstance(r.get("params"), dict)]
    named = dict.fromkeys(m for request in asked if isinstance(m := request.get("model"), str))
    return tuple(named) or ("",)


def each_request(body: Mapping[str, Any], path: str, change: Change) -> Mapping[str, Any]:
    """The body with its request changed, or each request of a batch; the very same body if nothing was."""
    if not path.rstrip("/").endswith(BATCHES):
        return change(body)
    if not isinstance(body.get("requests"), list):
        return body
    requests = [_in_batch(request, change) for request in body["requests"]]
    is_same = all(new is old for new, old in zip(requests, body["requests"]))
    return body if is_same else {**body, "requests": requests}


def _in_batch(request: Any, change: Change) -> Any:
    if not isinstance(request, dict) or not isinstance(request.get("params"), dict):
        return request
    changed = change(request["params"])
    return request if changed is request["params"] else {**request, "params": changed}


def with_body(scope: Scope, body: Mapping[str, Any], receive: Receive) -> tuple[Scope, Receive]:
    """The request with another body, and its length mended; what comes after the body comes from the client."""
    raw = _encoded(body)
    kept = [(n, v) for n, v in scope["headers"] if n not in (b"content-length", b"transfer-encoding")]
    scope = {**scope, "headers": [*kept, (b"content-length", str(len(raw)).encode())]}
    return scope, Read(({"type": "http.request", "body": raw, "more_body": False},)).again(receive)


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can say and UTF-8 cannot
        return json.dumps(body, separators=(",", ":")).encode()
