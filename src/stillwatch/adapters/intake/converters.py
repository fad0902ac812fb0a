"""The small named functions a field map can put between a field and a column (``as = "..."``).

Each takes the value found, of any shape, and returns what belongs in the column, None where the value has nothing of
it. Messages are read in every provider's shape: ``content`` or ``parts``, text or lists of typed parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from stillwatch.adapters.intake.cast import tool_name
from stillwatch.adapters.intake.dig import unjson

TEXT_PARTS = {"text", "input_text", "output_text", None}
IMAGE_PARTS = {"image", "image_url", "input_image", "image_file"}
FILE_PARTS = {"blob", "uri", "file"}
SYSTEM_ROLES = {"system", "developer"}
OFF = {"", "none", "disabled", "off", "false", "0"}


def text(value: Any) -> str | None:
    """All text of a content: itself, or that of its typed parts, a line each; not reasoning, not tool results."""
    if isinstance(value, str):
        # Attributes hold parts as JSON text; other JSON is what somebody wrote.
        inner = unjson(value)
        found = _joined(inner) if isinstance(inner, list) and _are_objects(inner) else None
        return value if found is None else found
    return _joined(value if isinstance(value, list) else [value])


def _joined(parts: list[Any]) -> str | None:
    found = [t for part in parts if (t := _part_text(part)) is not None]
    return "\n".join(found) if found else None


def _are_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(v, dict) for v in values)


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS:
        return None
    inner = part.get("text", part.get("content"))
    return inner if isinstance(inner, str) else None


def first_text(value: Any) -> str | None:
    """The first text of a list of texts, parts or messages."""
    value = unjson(value)
    if not isinstance(value, list):
        return text(value)
    return next((t for v in value if (t := _content_text(v) if isinstance(v, dict) else text(v)) is not None), None)


def messages(value: Any) -> list[dict[str, Any]]:
    """Messages in order; a bare text is one of the user, unless it is the JSON of messages."""
    if isinstance(value, str):
        inner = unjson(value)
        return messages(inner) if _are_messages(inner) else [{"role": "user", "content": value}]
    if isinstance(value, dict):
        value = value.get("messages", [value])
    return [m for m in value if isinstance(m, dict)] if isinstance(value, list) else []


def _are_messages(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or "role" in value or _are_messages(value.get("messages"))
    return isinstance(value, list) and _are_objects(value) and any("role" in v for v in value)


def _content_text(message: dict[str, Any]) -> str | None:
    content = message.get("content", message.get("parts"))
    if isinstance(content, str):
        return content
    return text(content) if content is not None else _part_text(message)


def last_user_text(value: Any) -> str | None:
    """Text of the last message of the user that has any: in a tool loop, the question the loop works on."""
    turns = (_content_text(m) for m in reversed(messages(value)) if m.get("role") in ("user", "human"))
    return next((t for t in turns if t is not None), None)


def system_text(value: Any) -> str | None:
    """Text of the system and developer messages, a line each."""
    found = [t for m in messages(value) if m.get("role") in SYSTEM_ROLES and (t := _content_text(m)) is not None]
    return "\n".join(found) if found else None


def messages_before(value: Any) -> int | None:
    """Messages before the last one, system text not counted."""
    count = sum(m.get("role") not in SYSTEM_ROLES for m in messages(value))
    return count - 1 if count else None


ANSWERS = ("choices", "output", "content", "parts", "message")


def answer_text(value: Any) -> str | None:
    """Text of an answer: a message, chat choices, a Responses output, messages, or the JSON of these."""
    if isinstance(value, str):
        inner = unjson(value)
        told = inner[0] if isinstance(inner, list) and _are_objects(inner) else inner
        is_answer = isinstance(told, dict) and bool(told.keys() & {"choices", "output", "role", "parts", "message"})
        return answer_text(inner) if is_answer else value
    if isinstance(value, dict):
        value = next((value[k] for k in ANSWERS if k in value), value)
        if isinstance(value, str):
            return value
    if not isinstance(value, list):
        return _content_text(value) if isinstance(value, dict) else None
    found = [t for part in value if (t := _answer_part(part)) is not None]
    return "\n".join(found) if found else None


def _answer_part(part: Any) -> str | None:
    if not isinstance(part, dict):
        return _part_text(part)
    if part.get("type") == "reasoning":
        return None
    message = unjson(part.get("message"))
    return _content_text(message if isinstance(message, dict) else part)


def tool_names(value: Any) -> list[str] | None:
    """Names of the tools offered; the type where a tool has no name."""
    value = unjson(value)
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return None
    return [name for name in (tool_name(unjson(v)) for v in value) if name]


def count_images(value: Any) -> int | None:
    """Images in all messages; None where there are no messages."""
    turns = messages(value)
    return sum(_is_image(part) for m in turns for part in _parts(m)) if turns else None


def _parts(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    content = message.get("content", message.get("parts"))
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            yield part
            # The result of a tool may itself be made of parts.
            yield from (p for p in _parts(part) if part.get("type") == "tool_result")


def _is_image(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    of_image = part.get("modality") == "image" or str(part.get("mime_type", "")).startswith("image/")
    return kind in IMAGE_PARTS or (kind in FILE_PARTS and of_image)


def is_asked(value: Any) -> bool | None:
    """Whether an option was asked for: a flag, a number above 0, a level other than none, or an object not disabled."""
    value = unjson(value)
    if isinstance(value, dict):
        return is_asked(
            next((value[k] for k in ("type", "effort", "enabled", "summary") if value.get(k) is not None), True)
        )
    if isinstance(value, str):
        return value.strip().lower() not in OFF
    return None if value is None else bool(value)


def asks_logprobs(value: Any) -> bool | None:
    """Whether token probabilities were asked for: ``logprobs``, ``top_logprobs``, or a Responses ``include`` naming
    them.
    """
    value = unjson(value)
    if isinstance(value, list):
        return any("logprobs" in str(v) for v in value)
    return is_asked(value)


def first(value: Any) -> Any:
    """The first element of a list, also of one written as JSON; anything else itself."""
    value = unjson(value)
    if isinstance(value, list):
        return value[0] if value else None
    return value


def first_address(value: Any) -> str | None:
    """The first network address of a list between commas, without port and brackets."""
    value = first(value)
    if not isinstance(value, str):
        return None
    address = value.split(",")[0].strip().removeprefix("[")
    if "]" in address:
        return address.split("]")[0]
    return address.rsplit(":", 1)[0] if address.count(":") == 1 else address


def http_status(value: Any) -> int | None:
    """An HTTP status from a number, its text, or the words success, ok and completed."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value) if 100 <= value <= 599 else None
    low = str(value).strip().lower()
    if low in ("success", "ok", "completed", "succeeded"):
        return 200
    return int(low) if re.fullmatch(r"[1-5]\d\d", low) else None


def epoch_auto(value: Any) -> Any:
    """A time as it stands: epochs in any unit and ISO texts are told apart later, value by value."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def as_text(value: Any) -> str | None:
    """A plain value as text; lists and objects have none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def plain(value: Any) -> Any:
    """A single value as it stands."""
    return None if isinstance(value, dict | list) else value


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    f.__name__: f
    for f in (
        text, first_text, last_user_text, system_text, messages_before, answer_text, tool_names, count_images, is_asked,
        asks_logprobs, first, first_address, http_status, epoch_auto, as_text, plain,
    )
}  # fmt: skip
