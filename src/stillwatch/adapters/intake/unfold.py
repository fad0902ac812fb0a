"""Records that hold many exchanges, unfolded: one flat record for each (``unfold = "..."`` in a field map)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from stillwatch.adapters.intake.dig import unjson
from stillwatch.adapters.intake.records import Record
from stillwatch.adapters.intake.report import Report

Unfold = Callable[[Record, Report, str], Iterator[Record]]

INFERENCES = {"chat", "generate_content", "text_completion", "completion", "responses"}
INFERENCE_EVENT = "gen_ai.client.inference.operation.details"
_INDEXED = re.compile(
    r"^(gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages|llm\.tools|llm\.request\.functions)"
    r"\.(\d{1,6})\.(.+)$"
)
_WHOLE = re.compile(r"-?[0-9]{1,20}\Z")
_ODD_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What JSON of protobuf writes for numbers that JSON lacks."""
NO_INFERENCE = "spans or log records that are no inference, passed over"


def one(record: Record, report: Report, place: str) -> Iterator[Record]:
    """The record itself."""
    yield record


def otlp(record: Record, report: Report, place: str) -> Iterator[Record]:
    """The inferences in one OTLP export request: attributes of resource and span or log record, merged, under their
    names.

    Beside them stand ``span.*`` or ``log.*`` (ids, name, times). Spans and log records that are no inferences are
    noted.
    """
    for resource, span in _leaves(record, "resourceSpans", "scopeSpans", "spans"):
        yield from _inference(_of_span(resource, span), report, place)
    for resource, log in _leaves(record, "resourceLogs", "scopeLogs", "logRecords"):
        yield from _inference(_of_log(resource, log), report, place)


def _inference(flat: Record, report: Report, place: str) -> Iterator[Record]:
    if is_inference(flat):
        yield flat
    else:
        report.note(NO_INFERENCE, 1, place)


def is_inference(flat: Record) -> bool:
    """Whether it is a request to a model, in the names of GenAI old and new, OpenLLMetry or OpenInference."""
    kind = flat.get("openinference.span.kind")
    if kind is not None:
        return kind == "LLM"
    operation = flat.get("gen_ai.operation.name", flat.get("llm.request.type"))
    if operation is not None:
        return operation in INFERENCES
    return flat.get("event.name") == INFERENCE_EVENT or "gen_ai.request.model" in flat or "llm.request.model" in flat


def _leaves(record: Record, outer: str, middle: str, inner: str) -> Iterator[tuple[Record, Record]]:
    for group in _items(record, outer):
        resource = group.get("resource")
        shared = attributes(resource.get("attributes")) if isinstance(resource, dict) else {}
        for scope in _items(group, middle):
            for leaf in _items(scope, inner):
                yield shared, leaf


def field_of(node: Record, name: str) -> Any:
    """A field in either spelling JSON of protobuf allows."""
    return node.get(name, node.get(_snake(name)))


def _items(node: Record, name: str) -> Iterator[Record]:
    value = field_of(node, name)
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item


def attributes(pairs: Any) -> Record:
    """OTLP's list of keys and typed values as a plain record; numbered ones (``gen_ai.prompt.0.content``) as lists."""
    flat: Record = {}
    for pair in pairs if isinstance(pairs, list) else ():
        if isinstance(pair, dict) and isinstance(pair.get("key"), str):
            flat[pair["key"]] = value_of(pair.get("value"))
    return _gathered(flat)


def value_of(value: Any) -> Any:
    """One typed value of OTLP as Python has it; 64-bit integers are written as text there."""
    if not isinstance(value, dict) or not value:
        return value if not isinstance(value, dict) else None
    kind, inner = next(iter(value.items()))
    kind = kind.replace("_", "").lower()
    if kind in ("arrayvalue", "kvlistvalue"):
        values = inner.get("values") if isinstance(inner, dict) else None
        values = values if isinstance(values, list) else []
        return [value_of(v) for v in values] if kind == "arrayvalue" else attributes(values)
    if kind == "intvalue":
        return int(inner) if _WHOLE.match(str(inner)) else None
    return _ODD_NUMBERS.get(inner, inner) if kind == "doublevalue" and isinstance(inner, str) else inner


def _gathered(flat: Record) -> Record:
    lists: dict[str, dict[int, Record]] = {}
    for key in list(flat):
        match = _INDEXED.match(key)
        if match:
            # OpenInference puts the noun in between: llm.input_messages.0.message.content
            name = match[3].removeprefix("message.").removeprefix("tool.")
            lists.setdefault(match[1], {}).setdefault(int(match[2]), {})[name] = flat.pop(key)
    for name, items in lists.items():
        flat[name] = [_item(items[i]) for i in sorted(items)]
    return flat


def _item(item: Record) -> Record:
    schema = unjson(item.get("json_schema"))
    return schema if isinstance(schema, dict) else item


def _of_span(resource: Record, span: Record) -> Record:
    flat = resource | attributes(span.get("attributes"))
    for event in _items(span, "events"):
        flat = _of_event(flat, event)
    return flat | _prefixed("span", span, ("traceId", "spanId", "name", "startTimeUnixNano", "endTimeUnixNano"))


def _of_log(resource: Record, log: Record) -> Record:
    flat = resource | attributes(log.get("attributes"))
    body = value_of(log.get("body"))
    # Before events had attributes of their own, the body held the record.
    flat |= {k: v for k, v in body.items() if k not in flat} if isinstance(body, dict) else {}
    name = log.get("eventName", log.get("event_name"))
    flat |= {"event.name": name} if name else {}
    return flat | _prefixed("log", log, ("traceId", "spanId", "timeUnixNano", "observedTimeUnixNano"))


def _prefixed(prefix: str, node: Record, names: Iterable[str]) -> Record:
    found = {f"{prefix}.{name}": field_of(node, name) for name in names}
    return {name: value for name, value in found.items() if value not in (None, "", "0", 0)}


@cache
def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda m: f"_{m[1].lower()}", name)


def _of_event(flat: Record, event: Record) -> Record:
    """A span with what one of its events adds: older conventions put the messages there."""
    name, said = str(event.get("name", "")), attributes(event.get("attributes"))
    role = re.fullmatch(r"gen_ai\.(system|user|assistant|tool)\.message", name)
    if role:
        earlier = flat.get("gen_ai.input.messages")
        message = {"role": role[1], "content": said.get("content", said.get("gen_ai.event.content"))}
        return flat | {"gen_ai.input.messages": [*(earlier if isinstance(earlier, list) else []), message]}
    if name == "gen_ai.choice" and "gen_ai.output.messages" not in flat:
        return flat | {"gen_ai.output.messages": [said]}
    return said | flat if name.startswith("gen_ai.") else flat


UNFOLDS: dict[str, Unfold] = {"one": one, "otlp": otlp}
