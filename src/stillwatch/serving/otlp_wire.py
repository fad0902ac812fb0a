"""OTLP/HTTP: export requests as records, one for each span or log record, and the answer to a sender.

Protobuf becomes what the JSON of it would have been, so that one field map reads both. Plain values stand without their
type there: the map takes them as they are.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from stillwatch.adapters.intake.records import Record
from stillwatch.adapters.intake.unfold import field_of
from stillwatch.serving.bodies import PROTOBUF, Limits, malformed, too_large


@dataclass(frozen=True, slots=True)
class Signal:
    """What is exported: names of the three nested lists, protobuf's messages for request and answer, its leaf read."""

    outer: str
    middle: str
    inner: str
    request: Callable[[], Any]
    response: Callable[[], Any]
    rejected: str
    leaf: Callable[[Any], Record]


def leaves_of_wire(body: bytes, signal: Signal, limits: Limits) -> list[Any]:
    """A request in protobuf as one request for each leaf; 400 where it is none."""
    request = signal.request()
    try:
        request.ParseFromString(body)
    except DecodeError as e:
        raise malformed("the body is no OTLP request in protobuf", hint="is it cut off, or of another signal?") from e
    outer, middle, inner = (_snake(name) for name in (signal.outer, signal.middle, signal.inner))
    groups = [(group, scope) for group in getattr(request, outer) for scope in getattr(group, middle)]
    _check(sum(len(getattr(scope, inner)) for _, scope in groups), signal, limits)
    shared = {id(group): {"attributes": _pairs(group.resource.attributes)} for group, _ in groups}
    return [
        _alone(signal, shared[id(group)], signal.leaf(leaf))
        for group, scope in groups
        for leaf in getattr(scope, inner)
    ]


def leaves_of_json(document: Any, signal: Signal, limits: Limits) -> list[Any]:
    """A request in JSON as one request for each leaf; what is no object where one belongs stands as it is."""
    if not isinstance(document, dict) or (document and field_of(document, signal.outer) is None):
        raise malformed(f"the body is no OTLP request with {signal.outer}", hint="traces and logs have a route each")
    leaves = list(_walk(document, (signal.outer, signal.middle, signal.inner), None))
    _check(len(leaves), signal, limits)
    return [_alone(signal, resource, leaf) if isinstance(leaf, dict) else leaf for resource, leaf in leaves]


def _walk(node: Any, names: Sequence[str], resource: Any) -> Iterator[tuple[Any, Any]]:
    """(resource, leaf) below a node, in order; in place of leaves that cannot be reached, what stands in the way."""
    if not names or not isinstance(node, dict):
        yield resource, node if not names else None
        return
    children = field_of(node, names[0])
    if children is not None and not isinstance(children, list):
        yield resource, None
        return
    for child in children or ():
        shared = child.get("resource") if len(names) == 3 and isinstance(child, dict) else resource
        yield from _walk(child, names[1:], shared)


def _check(count: int, signal: Signal, limits: Limits) -> None:
    if count > limits.records:
        raise too_large(f"the body holds {count:,} {signal.inner}, over {limits.records:,}")


def _alone(signal: Signal, resource: Any, leaf: Record) -> Record:
    return {signal.outer: [{"resource": resource, signal.middle: [{signal.inner: [leaf]}]}]}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _pairs(attributes: Any) -> list[Record]:
    return [{"key": pair.key, "value": _value(pair.value)} for pair in attributes]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return {"arrayValue": {"values": [_value(v) for v in value.array_value.values]}}
    if kind == "kvlist_value":
        return {"kvlistValue": {"values": _pairs(value.kvlist_value.values)}}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)


def _span(span: Any) -> Record:
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "name": span.name,
        "startTimeUnixNano": span.start_time_unix_nano,
        "endTimeUnixNano": span.end_time_unix_nano,
        "attributes": _pairs(span.attributes),
        "events": [{"name": e.name, "attributes": _pairs(e.attributes)} for e in span.events],
    }


def _log(log: Any) -> Record:
    return {
        "traceId": log.trace_id.hex(),
        "spanId": log.span_id.hex(),
        "eventName": log.event_name,
        "timeUnixNano": log.time_unix_nano,
        "observedTimeUnixNano": log.observed_time_unix_nano,
        "attributes": _pairs(log.attributes),
        "body": _value(log.body),
    }


TRACES = Signal(
    "resourceSpans", "scopeSpans", "spans", traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse,
    "rejected_spans", _span,
)  # fmt: skip
LOGS = Signal(
    "resourceLogs", "scopeLogs", "logRecords", logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse,
    "rejected_log_records", _log,
)  # fmt: skip


def answer(signal: Signal, kind: str, rejected: int, message: str = "") -> tuple[bytes, str]:
    """The body of a 200 and its media type: how many leaves were refused, and why; nothing where all were taken."""
    if kind == PROTOBUF:
        response = signal.response()
        if rejected or message:
            setattr(response.partial_success, signal.rejected, rejected)
            response.partial_success.error_message = message
        return response.SerializeToString(), "application/x-protobuf"
    first, *rest = signal.rejected.split("_")
    name = first + "".join(part.title() for part in rest)
    # 64-bit numbers are text in JSON of protobuf.
    partial = {"partialSuccess": {name: str(rejected), "errorMessage": message}} if rejected or message else {}
    return json.dumps(partial).encode(), "application/json"
