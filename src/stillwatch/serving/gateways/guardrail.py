"""LiteLLM's generic guardrail: ``POST /beta/litellm_basic_guardrail_api``, with nothing of ours inside the proxy.

What LiteLLM sends (1.109; fields that are read are marked, all others are let be, and none is kept):

    input_type*       "request" or "response"; only a request is judged
    request_data*     user_api_key_hash*, user_api_key_user_id*, user_api_key_team_id*, user_api_key_end_user_id*,
                      user_api_key_org_id*, user_api_key_alias*, user_api_key_user_email, user_api_key_team_alias
    model*            the model asked for
    litellm_call_id, litellm_trace_id, structured_messages, images, tools, texts, tool_calls, request_headers,
    litellm_version, additional_provider_specific_params

What it is answered: ``action`` ``NONE`` or ``BLOCKED`` with a ``blocked_reason`` that names case and appeal.
``GUARDRAIL_INTERVENED`` is never said: it edits texts and tools, which no rung touches, and carries no parameters; what
``protect`` rewrites needs ``litellm_hook.py``. In the proxy's config:

    guardrails:
      - guardrail_name: stillwatch
        litellm_params: {guardrail: generic_guardrail_api, mode: pre_call, default_on: true,
                         api_base: "http://127.0.0.1:8620", unreachable_fallback: fail_open}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stillwatch.errors import UsageError
from stillwatch.serving.gateways import App, Caller, Gate, Receive, Scope, Send, body_of, respond
from stillwatch.serving.lines import REQUEST

PATH = "/beta/litellm_basic_guardrail_api"
MOST_BYTES = 64 << 20
"""Largest question that is read; one that is larger is answered 413, and LiteLLM does as its ``unreachable_fallback`` says."""

JSON = {"content-type": "application/json"}
ACCOUNT_FIELDS = ("user_api_key_user_id", "user_api_key_team_id", "user_api_key_org_id", "user_api_key_alias")


@dataclass(frozen=True, slots=True)
class GuardrailWiring:
    """Which fields of ``request_data`` name the account: the first that is set counts."""

    account_fields: tuple[str, ...] = ("user_api_key_user_id", "user_api_key_team_id")

    def __post_init__(self) -> None:
        if not self.account_fields or (unknown := sorted(set(self.account_fields) - set(ACCOUNT_FIELDS))):
            raise UsageError(
                f"no such fields of an account: {', '.join(unknown) if self.account_fields else 'none given'}",
                hint=f"some of {', '.join(ACCOUNT_FIELDS)}",
            )


def guardrail(gate: Gate, wiring: GuardrailWiring | None = None) -> App:
    """The endpoint; POST only. 400 for what is no question of LiteLLM's."""
    fields = (wiring or GuardrailWiring()).account_fields

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await respond(send, 405, {**JSON, "allow": "POST"}, _fault("ask with POST"))
        body = await body_of(receive, MOST_BYTES)
        if body is None:
            return await respond(send, 413, JSON, _fault("the question is too large, or was cut off"))
        try:
            asked = _question(body)
        except (ValueError, RecursionError) as e:
            return await respond(send, 400, JSON, _fault(f"no question of a guardrail: {e}"))
        await respond(send, 200, JSON, json.dumps(_action(gate, asked, fields)).encode())

    return answered


def _fault(error: str) -> bytes:
    hint = "POST what LiteLLM's generic_guardrail_api sends"
    return json.dumps({"error": error, "hint": hint, "request_id": REQUEST.get()}).encode()


def _question(body: bytes) -> Mapping[str, Any]:
    asked = json.loads(body)
    if not isinstance(asked, dict) or not isinstance(asked.get("request_data"), dict):
        raise ValueError("an object with request_data is expected")
    if asked.get("input_type") not in ("request", "response"):
        raise ValueError("input_type must be request or response")
    return asked


def _action(gate: Gate, asked: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    if asked["input_type"] == "response":
        return {"action": "NONE"}
    who = caller(asked["request_data"], fields)
    held = gate.decisions.ask(who.account, who.key, who.end_user, now := datetime.now(UTC))
    if held is None:
        return {"action": "NONE"}
    refused = gate.verdict(held, gate.wiring.dialect, now, gate.usage(who, _text(asked, "model"))).refused
    return {"action": "BLOCKED", "blocked_reason": refused.message} if refused else {"action": "NONE"}


def caller(request_data: Mapping[str, Any], fields: tuple[str, ...]) -> Caller:
    """Who is calling. LiteLLM names keys by their SHA-256, as our tables do."""
    account = next((value for name in fields if (value := _text(request_data, name))), "")
    return Caller(account, _text(request_data, "user_api_key_hash"), _text(request_data, "user_api_key_end_user_id"))


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
