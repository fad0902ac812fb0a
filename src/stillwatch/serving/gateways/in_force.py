"""``GET /v1/in-force?account=..&key=..&end_user=..``: what holds for an account, for gateways that act by themselves.

The answer, JSON:

    rung, case, campaign, expires_at, expires_in_s   what is in force; null where nothing is
    part                                             what it is on: account, key or end_user; null where nothing is
    edits                                            what to change of a request in ``dialect``: gateways/edits.py
    watermark                                        id of the key that the answer is to carry, or null
    refusal                                          {status, headers, error} to refuse it with, or null
    requests_per_minute, at_the_limit                the pace of what passes, and what to refuse with beyond it; else absent

``dialect`` is one of the providers' or ``litellm``, ``model`` the one asked for. With ``take=1`` the question stands for one
request and takes it from the account's bucket; without, nothing is taken, and asking changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from stillwatch.responders import DIALECTS, Bucket, ladder
from stillwatch.serving.dialects import Told
from stillwatch.serving.gateways import EMPTY, FULL, App, Caller, Gate, Receive, Scope, Send, hashed, respond
from stillwatch.serving.gateways.edits import LITELLM, edits, marked_with
from stillwatch.serving.lines import REQUEST
from stillwatch.types import InForce, Rung

JSON = {"content-type": "application/json", "cache-control": "no-store"}
NOTHING: Mapping[str, Any] = {
    "rung": None, "part": None, "case": None, "campaign": None, "expires_at": None, "expires_in_s": None, "edits": [],
    "watermark": None, "refusal": None,
}  # fmt: skip
PARAMETERS = ("account", "key", "secret", "end_user", "model", "dialect", "take")


def in_force(gate: Gate) -> App:
    """The endpoint; GET only. 400 names an unknown parameter or dialect."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            return await respond(send, 405, {**JSON, "allow": "GET, HEAD"}, _error("this is no GET", "ask with GET"))
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if fault := _fault(asked):
            return await respond(send, 400, JSON, _error(*fault))
        await respond(send, 200, JSON, json.dumps(answer(gate, asked)).encode())

    return answered


def answer(gate: Gate, asked: Mapping[str, str]) -> Mapping[str, Any]:
    """What holds, by the parameters above; ``secret`` is a key that is hashed here."""
    now = datetime.now(UTC)
    who = Caller(
        asked.get("account", ""), asked.get("key") or hashed(asked.get("secret", "")), asked.get("end_user", "")
    )
    held = gate.decisions.ask(who.account, who.key, who.end_user, now)
    if held is None:
        return NOTHING
    dialect = asked.get("dialect") or gate.wiring.dialect
    said = edits(held, dialect)
    gate.decisions.counts.rewritten += bool(said) and asked.get("take") == "1"
    return {
        "rung": held.rung.value,
        "part": held.part.value,
        "case": held.action_id,
        "campaign": held.campaign_id,
        "expires_at": held.expires_at.astimezone(UTC).isoformat(),
        "expires_in_s": round((held.expires_at - now).total_seconds(), 3),
        "edits": said,
        "watermark": marked_with(held) or None,
        **_refusals(gate, held, who, asked, now),
    }


def _refusals(gate: Gate, held: InForce, who: Caller, asked: Mapping[str, str], now: datetime) -> dict[str, Any]:
    said = asked.get("dialect") or gate.wiring.dialect
    dialect = "openai_chat" if said == LITELLM else said

    def verdict(bucket: Bucket, *, counts: bool = False) -> dict[str, Any] | None:
        usage = replace(gate.usage(who, asked.get("model", "")), bucket=bucket)
        return _plain(gate.verdict(held, dialect, now, usage, counts=counts).refused)

    takes = asked.get("take") == "1"
    refusal = verdict(gate.bucket if takes else FULL, counts=takes)
    at_the_limit = verdict(EMPTY)
    if at_the_limit is None or verdict(FULL) is not None:
        return {"refusal": refusal}
    pace = ladder()[Rung.THROTTLE.height].setting(held.settings, "requests_per_minute")
    return {"refusal": refusal, "requests_per_minute": float(pace), "at_the_limit": at_the_limit}


def _plain(refused: Told | None) -> dict[str, Any] | None:
    if refused is None:
        return None
    headers = {name: value for name, value in refused.headers.items() if name != "content-type"}
    return {"status": refused.status, "headers": headers, "error": json.loads(refused.body)["error"]}


def _fault(asked: Mapping[str, str]) -> tuple[str, str] | None:
    """What is wrong with a question, and what to do; None where nothing is."""
    if unknown := sorted(set(asked) - set(PARAMETERS)):
        return f"unknown parameters: {', '.join(unknown)[:200]}", f"known: {', '.join(PARAMETERS)}"
    if asked.get("dialect", LITELLM) not in (*DIALECTS, LITELLM):
        return f"no such dialect: {asked['dialect'][:80]!r}", f"dialects are {', '.join((*DIALECTS, LITELLM))}"
    return None


def _error(message: str, hint: str) -> bytes:
    return json.dumps({"error": message, "hint": hint, "request_id": REQUEST.get()}).encode()
