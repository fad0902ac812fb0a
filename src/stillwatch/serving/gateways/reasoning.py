"""For gateways written in Python: an ASGI layer that keeps reasoning back, and opens it again where it is needed.

Beside ``asgi.stillwatch``, which rewrites requests so that a model's server leaves reasoning out by itself, where it can. This
layer is for servers that cannot, and for turns with tools, which need their reasoning again: it comes back as a sealed reference
(``protection.reasoning``), whole answers and streams alike. What is shown is ``Veil.usual``, and to accounts at ``protect`` or
above what that rung's setting ``reasoning`` says: ``omitted`` is withheld, ``summarized`` a summary. References are opened for
everybody.

What cannot be looked through (compressed, over ``most`` bytes, broken) is not passed on to whom reasoning is kept from:
the answer is 502. Results of OpenAI's batch files pass as they are: they are files, not answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from stillwatch.protection.canaries import Canary
from stillwatch.protection.planting import Tally, planted_in
from stillwatch.protection.reasoning import Binding, Malformed, References, Refused
from stillwatch.protection.traces import HEADER, Counts, Curtain, Rewriting, Showing, Shown, streams
from stillwatch.protection.traces.opening import Opening
from stillwatch.protection.traces.splicing import Place, spliced
from stillwatch.responders import ladder
from stillwatch.serving.dialects import dialect_of, line
from stillwatch.serving.gateways import App, Caller, Gate, Message, Receive, Scope, Send, caller, headers_of, respond
from stillwatch.serving.gateways.asgi import Identify, Read, each_request, is_read, read_request, with_body
from stillwatch.types import InForce, Rung

SHOWN = {"omitted": Shown.WITHHELD, "summarized": Shown.SUMMARY}
"""What is shown, by the setting of the rung ``protect``."""
KEPT_ANSWERS = ("/responses/", "/chat/completions/", "/messages/batches/")
"""What stands in paths under which answers can be fetched again."""
REFUSED = "reasoning_reference_invalid"

Request = Mapping[str, Any]
Session = Callable[[Scope, Request], str]


@dataclass(frozen=True, slots=True)
class Veil:
    """What a gateway does about reasoning.

    ``session`` names a request's session, by what the gateway knows; without it a session is a conversation, by how it begins.
    A reference that is refused is answered 400, or where it ``drops`` left out with its reasoning. ``most`` is the largest answer
    that is looked through, in bytes, ``longest`` the longest reasoning held while it comes in, in characters.

    ``canaries`` gives those of a campaign under action, which are then put into its whole answers (never into streams) and
    counted in ``tally`` for the audit; without it none are.
    """

    references: References
    usual: Showing = field(default_factory=lambda: Showing(Shown.FULL))
    rewriting: Rewriting = field(default_factory=Rewriting)
    session: Session | None = None
    drops: bool = False
    most: int = 64 << 20
    longest: int = 1 << 20
    counts: Counts = field(default_factory=Counts)
    canaries: Callable[[str], Sequence[Canary]] | None = None
    tally: Tally = field(default_factory=Tally)

    def showing(self, held: InForce | None) -> Showing:
        """What is shown to whom this is in force for."""
        if held is None or held.rung.height < Rung.PROTECT.height:
            return self.usual
        said = ladder()[Rung.PROTECT.height].setting(held.settings, "reasoning")
        return Showing(SHOWN[said], line(f"an action is in force, case {held.action_id}"))


def conversation(dialect: str, body: Request) -> str:
    """A name for a conversation: by its id where it has one, else by its system prompt and all up to its first user's turn.

    Every later turn of a client that hands all of it back has the same name; one that leaves the beginning out has not.
    """
    given = body.get("conversation")
    if given := given.get("id") if isinstance(given, dict) else given:
        return f"conversation {given}"
    turns = body.get("input" if dialect == "openai_responses" else "messages")
    begun = [_words(body.get(name)) for name in ("system", "instructions")]
    for turn in [turns] if isinstance(turns, str) else turns if isinstance(turns, list) else []:
        begun.append(_words(turn.get("content")) if isinstance(turn, dict) else _words(turn))
        if not isinstance(turn, dict) or turn.get("role") == "user":
            break
    return hashlib.sha256(json.dumps(begun).encode()).hexdigest()


def _words(content: Any) -> str:
    """The text of a turn, whether it is one string or parts; marks for caches, which move from turn to turn, are not in it."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))


def veiled(app: App, gate: Gate, veil: Veil, identify: Identify | None = None) -> App:
    """``app`` behind the veil. ``identify`` says who calls; without it headers do, as ``gate.wiring`` has them."""

    async def layered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await app(scope, receive, send)
        headers = headers_of(scope)
        who = identify(scope) if identify else caller(headers, gate.wiring)
        held = gate.decisions.ask(who.account, who.key, who.end_user, datetime.now(UTC))
        showing = veil.showing(held)
        if scope["type"] == "websocket":
            return await _open(app, showing, scope, receive, send)
        path, is_posted = scope["path"], scope["method"] == "POST" and is_read(scope["path"])
        if not is_posted and not any(part in path for part in KEPT_ANSWERS):
            return await app(scope, receive, send)
        most, counts = gate.wiring.body_bytes, gate.decisions.counts
        read = await read_request(receive, headers, most, counts) if is_posted else Read()
        turn = _Turn(veil, showing, who, dialect_of(path, headers, gate.wiring.dialect), scope, held)
        try:
            scope, receive = turn.asked(read, receive)
        except Refused as e:
            status, body = turn.refusal(e)
            return await respond(send, status, {"content-type": "application/json"}, body)
        if showing.shown is not Shown.FULL:
            scope, send = _plain(scope), _Answer(turn, turn.curtain(read.body), send, read.body)
        await app(scope, receive, send)

    return layered


async def _open(app: App, showing: Showing, scope: Scope, receive: Receive, send: Send) -> None:
    """A connection whose messages are not looked through is not accepted where reasoning is kept back."""
    if showing.shown is Shown.FULL:
        return await app(scope, receive, send)
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": showing.reason[:120]})


@dataclass(frozen=True, slots=True)
class _Turn:
    """One request and its answer."""

    veil: Veil
    showing: Showing
    who: Caller
    dialect: str
    scope: Scope
    held: InForce | None

    def asked(self, read: Read, receive: Receive) -> tuple[Scope, Receive]:
        """The request with its references opened; as it came where there are none, or nothing could be read."""
        if read.body is None:
            return self.scope, read.again(receive)
        opened = each_request(read.body, self.scope["path"], self._opened)
        if opened is read.body:
            return self.scope, read.again(receive)
        return with_body(self.scope, opened, receive)

    def _opened(self, request: Request) -> Request:
        binding = self.binding(request)
        open_ = partial(self.veil.references.open, binding=binding) if binding else _unbound
        return Opening(open_, self.veil.drops).request(request, self.dialect)

    def binding(self, request: Request | None) -> Binding | None:
        """Where references of this turn hold; None where something to bind them to is missing."""
        model, tenant = (request or {}).get("model"), self.who.account or self.who.key
        if request is None or not tenant or not isinstance(model, str) or not model:
            return None
        named = self.veil.session
        session = named(self.scope, request) if named else conversation(self.dialect, request)
        return Binding(tenant, session, model) if session else None

    def curtain(self, request: Request | None) -> Curtain:
        """What stands before the answer's reasoning."""
        veil, binding = self.veil, self.binding(request)
        seal = partial(veil.references.seal, binding=binding) if binding else None
        return Curtain(self.showing, seal, veil.rewriting, veil.longest, veil.counts)

    def planted(self, raw: bytes, request: Request | None) -> bytes:
        """A whole answer with the canaries of the campaign that it goes to; as it is where there are none, or it was a batch."""
        veil, held = self.veil, self.held
        is_under_action = held is not None and held.rung.height >= Rung.PROTECT.height
        if veil.canaries is None or held is None or not is_under_action or request is None or "requests" in request:
            return raw
        place = Place.of(raw.decode("utf-8"))
        edits, done = planted_in(place, request, self.dialect, veil.canaries(held.campaign_id))
        veil.tally.add(held.campaign_id, done)
        return spliced(place.text, edits).encode("utf-8") if edits else raw

    def refusal(self, fault: Refused) -> tuple[int, bytes]:
        """Status and body that tell a client its reference is refused; the same for reasons that are none of its business."""
        return self.error(400, "invalid_request_error", f"{fault.told} Leave it out of the request.", REFUSED)

    def error(self, status: int, kind: str, message: str, code: str) -> tuple[int, bytes]:
        """Status and body of an error in the client's dialect."""
        if self.dialect == "anthropic":
            return status, json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        error = {"message": message, "type": kind, "code": code, "param": None}
        return status, json.dumps({"error": error}).encode()


def _unbound(reference: str) -> bytes:
    raise Malformed


def _plain(scope: Scope) -> Scope:
    """The request for an answer that can be looked through: not compressed, and sent as messages."""
    headers = [(n, v) for n, v in scope["headers"] if n != b"accept-encoding"]
    extensions = {
        k: v for k, v in (scope.get("extensions") or {}).items() if not k.endswith(("pathsend", "zerocopysend"))
    }
    return {**scope, "headers": [*headers, (b"accept-encoding", b"identity")], "extensions": extensions}


class _Answer:
    """Sends an answer on, behind its curtain."""

    def __init__(self, turn: _Turn, curtain: Curtain, send: Send, request: Request | None) -> None:
        self._turn, self._curtain, self._send, self._request = turn, curtain, send, request
        self._start: Message = {}
        self._kind = ""
        self._events: streams.Events | None = None
        self._whole = bytearray()
        self._is_done = False

    async def __call__(self, message: Message) -> None:
        """What the application sends."""
        if self._is_done:
            return
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body" and self._kind != "other":
            await self._more(message.get("body", b""), message.get("more_body", False))
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        told = {n.lower(): v.decode("latin-1").lower() for n, v in message.get("headers", [])}
        dropped = (b"content-length", HEADER.encode())
        kept = [(n, v) for n, v in message.get("headers", []) if n.lower() not in dropped]
        self._start = {**message, "headers": [*kept, (HEADER.encode(), self._curtain.showing.header().encode())]}
        self._kind = _kind(told.get(b"content-type", ""))
        if self._kind == "other":
            self._start = {**message, "headers": [*message.get("headers", []), self._start["headers"][-1]]}
            await self._send(self._start)
        elif told.get(b"content-encoding", "identity") != "identity":
            await self._fail("it came compressed")
        elif self._kind == "events":
            self._events = streams.Events(self._turn.dialect, self._curtain, self._turn.veil.most)
            await self._send(self._start)

    async def _more(self, piece: bytes, is_more: bool) -> None:
        if self._events is not None:
            body = await self._run(self._fed, self._events, piece, is_more)
            if body or not is_more:
                await self._send({"type": "http.response.body", "body": body, "more_body": is_more})
            return
        self._whole += piece
        if len(self._whole) > self._turn.veil.most:
            await self._fail("it is too long")
        elif not is_more:
            await self._end()

    @staticmethod
    def _fed(events: streams.Events, piece: bytes, is_more: bool) -> bytes:
        body = events.feed(piece)
        return body if is_more else body + events.end()

    async def _end(self) -> None:
        raw, turn = bytes(self._whole), self._turn
        look = streams.lines if self._kind == "lines" else streams.body
        try:
            body = await self._run(look, raw, turn.dialect, self._curtain) if raw.strip() else raw
        except streams.Unreadable:
            if self._kind in ("json", "lines"):
                return await self._fail("it is no JSON")
            body = raw
        else:
            body = turn.planted(body, self._request) if self._kind == "json" and body.strip() else body
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "headers": [*self._start["headers"], length]})
        await self._send({"type": "http.response.body", "body": body})

    async def _run(self, look: Callable[..., bytes], *given: Any) -> bytes:
        """The work itself; beside the loop where a rewriter may take its time."""
        return look(*given) if self._curtain.rewriting.is_quick else await asyncio.to_thread(look, *given)

    async def _fail(self, why: str) -> None:
        """Nothing is passed on that could not be looked through."""
        self._is_done = True
        self._whole.clear()
        self._curtain.counts.unreadable += 1
        message = f"This answer could not be passed on without its reasoning: {why}."
        status, body = self._turn.error(502, "api_error", message, "reasoning_unreadable")
        headers = {"content-type": "application/json", HEADER: self._curtain.showing.header()}
        await respond(self._send, status, headers, body)


def _kind(content_type: str) -> str:
    """How an answer is looked through, by what it says it is; ``other`` is not: sound and pictures have no reasoning in them."""
    if "event-stream" in content_type:
        return "events"
    if any(word in content_type for word in ("jsonl", "ndjson", "json-lines", "jsonlines")):
        return "lines"
    if "json" in content_type:
        return "json"
    return "text" if not content_type or content_type.startswith("text/") else "other"
