"""Which API a request speaks, and how a refusal is finished in it, so that a client's own library understands.

Anthropic:  {"type": "error", "error": {"type", "message"}, "request_id"}
OpenAI:     {"error": {"message", "type", "code", "param"}}, which vLLM's server speaks too

Responders say what is refused and why. Here every refusal is given its case and where to appeal, in the message for people and in
headers for programs, whichever rung it is of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillwatch.responders import Answer
from stillwatch.types import InForce

REQUESTS = {
    "/messages": "anthropic",
    "/complete": "anthropic",
    "/chat/completions": "openai_chat",
    "/completions": "openai_chat",
    "/responses": "openai_responses",
}
"""How paths end to which one request to a model is posted, by dialect; what stands before is the operator's."""

WITHIN = {"/messages/": "anthropic", "/responses/": "openai_responses"}
"""What stands in other paths of a dialect: batches, counting of tokens, answers kept."""


def dialect_of(path: str, headers: Mapping[str, str], usual: str = "openai_chat") -> str:
    """The dialect of a request: by its path, else by its headers (names in lower case), else ``usual``.

    Nothing in a request tells vLLM's from OpenAI's, and no header is asked: a client could choose which fields are rewritten.
    """
    path = path.partition("?")[0].rstrip("/")
    spoken = _posted(path) or next((d for part, d in WITHIN.items() if part in path), "")
    if not spoken and "anthropic-version" in headers:
        return "anthropic"
    # On OpenAI's paths the operator knows whether it is vLLM that speaks.
    return usual if not spoken or (spoken == "openai_chat" and usual == "vllm") else spoken


def is_request(path: str) -> bool:
    """Whether what is posted to ``path`` is one request to a model, whose fields can be rewritten."""
    return bool(_posted(path.partition("?")[0].rstrip("/")))


def _posted(path: str) -> str:
    return next((dialect for ending, dialect in REQUESTS.items() if path.endswith(ending)), "")


@dataclass(frozen=True, slots=True)
class Told:
    """A refusal as it goes over the wire; names of headers are in lower case, values one line of visible ASCII."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    message: str


def told(answer: Answer, held: InForce, dialect: str, appeal: str = "", request_id: str = "") -> Told:
    """A responder's answer with the case, where to appeal and, for Anthropic, the request's id where it is known."""
    error = dict(answer.body["error"])
    error["message"] = message = _whole(str(error["message"]), held.action_id, appeal)
    body: dict[str, Any] = {**answer.body, "error": error}
    if dialect == "anthropic" and request_id:
        body["request_id"] = request_id
    headers = {**answer.headers, **case_headers(held)}
    if appeal:
        headers.setdefault("link", f'<{line(appeal)}>; rel="help"')
    # ASCII, so that the body may stand in a header for gateways that can take it from nowhere else.
    return Told(answer.status, {k: line(v) for k, v in headers.items()}, json.dumps(body).encode(), message)


def _whole(message: str, case: str, appeal: str) -> str:
    if case not in message:
        message += f" Case: {case}."
    return f"{message} To appeal: {appeal}" if appeal and appeal not in message else message


def case_headers(held: InForce | None) -> dict[str, str]:
    """The rung and the case; ``none`` for who passes, so that nobody's own header is taken for ours."""
    if held is None:
        return {"x-stillwatch-rung": "none", "x-stillwatch-case": ""}
    return {"x-stillwatch-rung": held.rung.value, "x-stillwatch-case": line(held.action_id)}


def line(text: str) -> str:
    """Text as it may stand in a header: one line of visible ASCII, whatever was in it."""
    return text if text.isascii() and text.isprintable() else "".join(c for c in text if " " <= c <= "~")
