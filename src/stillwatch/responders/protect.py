"""Answer, but keep back what only training needs: token probabilities, several answers at once, the text of reasoning.

Request fields are rewritten, so nothing has to be cut out of a stream. What the model says is not altered: messages,
tools, sampling and effort stay as they are. Undone by passing the request on as it came.

Where the rule says ``watermark``, answers carry the watermark of the account's campaign: the request is given the opaque id of
its key (``watermark_key``, which the server puts beside the settings, never a policy). Only vLLM's dialect has a field for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stillwatch.responders import Changed, Request, Responder, Setting

LEAST_ANSWER = 1024
"""Tokens left for the answer beside a thinking budget, and the smallest budget that is accepted."""

SIGNALS = {
    "openai_chat": ("logprobs", "top_logprobs"),
    "vllm": (
        "logprobs",
        "top_logprobs",
        "prompt_logprobs",
        "best_of",
        "return_token_ids",
        "return_tokens_as_token_ids",
    ),
    "openai_responses": ("top_logprobs",),
}
"""Fields that give away the model's probabilities, by dialect."""

LENGTHS = {
    "anthropic": ("max_tokens",),
    "openai_chat": ("max_completion_tokens", "max_tokens"),
    "vllm": ("max_completion_tokens", "max_tokens"),
    "openai_responses": ("max_output_tokens",),
}
"""Names of the longest answer asked for, by dialect; the first is set where none is."""


WATERMARK, WATERMARK_KEY = "watermark", "watermark_key"
"""Settings: whether answers carry a watermark, and the id of the key, which the server adds where there is one."""
XARGS, XARG = "vllm_xargs", "stillwatch_key"
"""The field of vLLM's requests for what plug-ins of the engine are told, and our name in it."""


def watermark_key(settings: Mapping[str, Any]) -> str:
    """The id of the key that answers are to carry; empty for none."""
    key = settings.get(WATERMARK_KEY)
    return key if settings.get(WATERMARK) is True and isinstance(key, str) else ""


def change(request: Request, dialect: str, settings: Mapping[str, Any]) -> Changed:
    """The request without what only training needs; fields of another dialect are left alone."""
    body, notes = dict(request), list[str]()
    for name in SIGNALS.get(dialect, ()):
        _drop(body, name, notes)
    _REASONING[dialect](body, RESPONDER.setting(settings, "reasoning"), notes)
    if (most := RESPONDER.setting(settings, "max_tokens")) is not None:
        _shorten(body, dialect, most, notes)
    if dialect == "vllm" and (key := watermark_key(settings)):
        _mark(body, key, notes)
    return Changed(body, tuple(notes)) if notes else Changed(request)


def _anthropic(body: dict[str, Any], display: str, notes: list[str]) -> None:
    thinking = body.get("thinking")
    if not isinstance(thinking, Mapping) or thinking.get("type") in (None, "disabled"):
        return
    # What a caller has asked to be left out stays out.
    if thinking.get("display") not in ("omitted", display):
        _set(body, "thinking", {**thinking, "display": display}, f"thinking.display set to {display}", notes)


def _one_answer(body: dict[str, Any], display: str, notes: list[str]) -> None:
    if body.get("n") not in (None, 1):
        _set(body, "n", 1, "n set to 1", notes)


def _vllm(body: dict[str, Any], display: str, notes: list[str]) -> None:
    _one_answer(body, display, notes)
    if body.get("include_reasoning") is not False:
        _set(body, "include_reasoning", False, "include_reasoning set to false", notes)


def _responses(body: dict[str, Any], display: str, notes: list[str]) -> None:
    reasoning = body.get("reasoning")
    if isinstance(reasoning, Mapping) and (told := [k for k in ("summary", "generate_summary") if k in reasoning]):
        kept = {k: v for k, v in reasoning.items() if k not in told}
        _set(body, "reasoning", kept, "reasoning.summary dropped", notes)
    wanted = body.get("include")
    if isinstance(wanted, list) and (dropped := [i for i in wanted if _is_kept_back(i, body)]):
        kept_entries = [i for i in wanted if i not in dropped]
        _set(body, "include", kept_entries, f"include without {', '.join(dropped)}", notes)


def _is_kept_back(entry: Any, body: Mapping[str, Any]) -> bool:
    if entry == "message.output_text.logprobs":
        return True
    # A caller that has nothing stored needs the sealed reasoning for its next turn; it cannot read it.
    return entry == "reasoning.encrypted_content" and body.get("store") is not False


_REASONING: dict[str, Callable[[dict[str, Any], str, list[str]], None]] = {
    "anthropic": _anthropic,
    "openai_chat": _one_answer,
    "openai_responses": _responses,
    "vllm": _vllm,
}


def _shorten(body: dict[str, Any], dialect: str, most: int, notes: list[str]) -> None:
    names = [n for n in LENGTHS[dialect] if body.get(n) is not None]
    for name in names or LENGTHS[dialect][:1]:
        if not isinstance(body.get(name, most + 1), int) or body.get(name, most + 1) > most:
            _set(body, name, most, f"{name} set to {most}", notes)
    thinking = body.get("thinking") if dialect == "anthropic" else None
    if isinstance(thinking, Mapping) and isinstance(budget := thinking.get("budget_tokens"), int):
        fits = max(body["max_tokens"] - LEAST_ANSWER, LEAST_ANSWER)
        if budget >= body["max_tokens"]:
            _set(body, "thinking", {**thinking, "budget_tokens": fits}, f"thinking.budget_tokens set to {fits}", notes)


def _mark(body: dict[str, Any], key: str, notes: list[str]) -> None:
    given = body.get(XARGS)
    # What is neither absent nor a mapping the engine refuses by itself.
    if given is None or isinstance(given, Mapping):
        _set(body, XARGS, {**(given or {}), XARG: key}, f"{XARGS}.{XARG} set", notes)


def _drop(body: dict[str, Any], name: str, notes: list[str]) -> None:
    if name in body:
        del body[name]
        notes.append(f"{name} dropped")


def _set(body: dict[str, Any], name: str, value: Any, note: str, notes: list[str]) -> None:
    body[name] = value
    notes.append(note)


RESPONDER = Responder(
    name="protect",
    meaning="answers come without token probabilities, in one version, and with reasoning hidden",
    told="Answers come without token probabilities, one at a time, and without the text of the reasoning.",
    change=change,
    settings={
        "reasoning": Setting(
            str, "what is shown of reasoning where it can be chosen", "omitted", choices=("omitted", "summarized")
        ),
        WATERMARK: Setting(bool, "whether answers carry the watermark of the account's campaign", False),
        "max_tokens": Setting(
            int, "longest answer, in tokens; not limited where it is not set", least=2 * LEAST_ANSWER
        ),
    },
)
