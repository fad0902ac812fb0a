"""What is in force for an account as edits of a request's fields, in JSON: for gateways that rewrite by themselves.

Edits say what the responders' ``change`` does; that both do the same is tested on made-up requests. What an edit means stands
in ``litellm_hook.py``, which does them with the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stillwatch.responders import ladder
from stillwatch.responders.protect import LEAST_ANSWER, LENGTHS, SIGNALS, XARG, XARGS, watermark_key
from stillwatch.types import InForce, Rung

REWRITE = "x-stillwatch-rewrite"
"""Header with the edits, as JSON on one line, for a layer behind the gateway; empty for none."""

WATERMARK = "x-stillwatch-watermark"
"""Header with the id of the key that the answer is to carry, in every dialect; empty for none."""

LITELLM = "litellm"
"""A dialect of edits only: OpenAI's chat as LiteLLM has it, with Anthropic's ``thinking`` in it."""

Edit = dict[str, Any]


def edits(held: InForce | None, dialect: str, engine: str = "") -> list[Edit]:
    """The edits to do, in order; none below ``protect``. ``engine`` is ``vllm`` where it is known to be what answers."""
    if held is None or held.rung.height < Rung.PROTECT.height:
        return []
    protect = ladder()[Rung.PROTECT.height]
    reasoning = protect.setting(held.settings, "reasoning")
    most = protect.setting(held.settings, "max_tokens")
    spoken = "openai_chat" if dialect == LITELLM else dialect
    done: list[Edit] = [{"do": "drop", "at": [name]} for name in SIGNALS.get(spoken, ())]
    done += _REASONING[spoken](reasoning)
    if dialect == LITELLM:
        done += _thinking(reasoning)
    done += [] if most is None else _lengths(spoken, most)
    return done + marking(held, dialect, engine)


def marked_with(held: InForce | None) -> str:
    """The id of the key that answers to the account are to carry; empty for none."""
    return watermark_key(held.settings) if held is not None and held.rung.height >= Rung.PROTECT.height else ""


def marking(held: InForce | None, dialect: str, engine: str = "") -> list[Edit]:
    """The edits that name the watermark's key to vLLM: in its dialect, and in OpenAI's responses where vLLM answers them. What it
    answers in Anthropic's words has no field for it."""
    key = marked_with(held)
    if not key or not (dialect == "vllm" or (dialect, engine) == ("openai_responses", "vllm")):
        return []
    none_given = [{"at": [XARGS], "is": [None]}]
    return [{"do": "set", "at": [XARGS], "to": {}, "if": none_given}, {"do": "set", "at": [XARGS, XARG], "to": key}]


def rewrite_header(held: InForce, dialect: str, engine: str = "") -> str:
    """The edits as one line of JSON, empty for none."""
    done = edits(held, dialect, engine)
    return json.dumps(done, separators=(",", ":")) if done else ""


def _thinking(reasoning: str) -> list[Edit]:
    conditions = [
        {"at": ["thinking", "type"], "is_not": [None, "disabled"]},
        {"at": ["thinking", "display"], "is_not": ["omitted", reasoning]},
    ]
    return [{"do": "set", "at": ["thinking", "display"], "to": reasoning, "if": conditions}]


def _one_answer(reasoning: str) -> list[Edit]:
    return [{"do": "set", "at": ["n"], "to": 1, "if": [{"at": ["n"], "is_not": [None, 1]}]}]


def _vllm(reasoning: str) -> list[Edit]:
    return [*_one_answer(reasoning), {"do": "set", "at": ["include_reasoning"], "to": False}]


def _responses(reasoning: str) -> list[Edit]:
    kept_back = {"do": "without", "at": ["include"], "values": ["message.output_text.logprobs"]}
    sealed = {"do": "without", "at": ["include"], "values": ["reasoning.encrypted_content"]}
    return [
        {"do": "drop", "at": ["reasoning", "summary"]},
        {"do": "drop", "at": ["reasoning", "generate_summary"]},
        kept_back,
        {**sealed, "if": [{"at": ["store"], "is_not": [False]}]},
    ]


_REASONING = {
    "anthropic": _thinking,
    "openai_chat": _one_answer,
    "openai_responses": _responses,
    "vllm": _vllm,
}


def _lengths(dialect: str, most: int) -> list[Edit]:
    names = LENGTHS[dialect]
    none_set: list[Mapping[str, Any]] = [{"at": [name], "is": [None]} for name in names]
    done: list[Edit] = [{"do": "at_most", "at": [name], "to": most} for name in names]
    done.append({"do": "set", "at": [names[0]], "to": most, "if": none_set})
    if dialect == "anthropic":
        fits = {"of": ["max_tokens"], "by": LEAST_ANSWER, "least": LEAST_ANSWER}
        done.append({"do": "below", "at": ["thinking", "budget_tokens"], **fits})
    return done
