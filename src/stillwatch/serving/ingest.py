"""Traffic in: a body becomes rows on disk before it is answered 200, and is told apart from one that was not.

Reading, fingerprinting and the wait for the disk happen in the intake's threads. Overload is 503 with Retry-After and never 429,
which exporters of OpenTelemetry take for a refusal, and drop what they hold.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
from starlette.responses import Response

from stillwatch.errors import Transient
from stillwatch.serving.edge import Asked, answer_json
from stillwatch.serving.reception import Received, answer, formats, receive
from stillwatch.serving.services import Services
from stillwatch.spool import SPOOLED, Stored, fingerprinted

JSON, PROTOBUF = "application/json", "application/x-protobuf"


def taking(route: str) -> Callable[[Asked], Awaitable[Response]]:
    """The handler of a route of ``reception``."""

    async def handler(asked: Asked) -> Response:
        return await _take(asked, route)

    return handler


async def _take(asked: Asked, route: str) -> Response:
    services, headers = asked.services, asked.request.headers
    kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
    try:
        body = await asked.body()
        began = time.perf_counter()
        received, stored = await services.intake.run(take_in, services, body, kind, encoding, route)
    except Exception as e:
        status = getattr(e, "status", 503 if isinstance(e, Transient) else 500)
        if status == 503:
            services.refused_at = time.monotonic()
            services.alarm("intake_refusing", getattr(e, "message", ""))
        services.metrics.add("stillwatch_ingest_bodies_refused_total", source=route, status=str(status))
        raise
    _count(services, route, received, stored)
    services.metrics.took("stillwatch_ingest_seconds", time.perf_counter() - began, source=route)
    if route.startswith("otlp/"):
        told, media = answer(route, kind, received)
        return Response(told, media_type=media)
    return answer_json(told_of(received, stored))


def take_in(services: Services, body: bytes, kind: str, encoding: str, route: str) -> tuple[Received, Stored]:
    """Read a body and keep what it holds; when this returns, it is on disk. For a thread of the intake."""
    maps = formats(tuple(map(Path, services.settings.maps)))
    received = receive(body, kind, encoding, route, services.settings.bodies, formats=maps, privacy=services.privacy)
    tables = [fingerprinted(batch, services.privacy) for batch in received.batches]
    rows = pa.concat_tables([SPOOLED.empty_table(), *tables])
    accounts = received.accounts if received.accounts.num_rows else None
    stored = services.spool.put(rows, received.refused, route, accounts)
    services.belongings.learn(received.batches)
    services.belongings.learn_keys(received.keys)
    return received, stored


def told_of(received: Received, stored: Stored) -> dict[str, object]:
    """What a sender is told: where each of its records went."""
    return {
        "records": received.records,
        "kept": stored.new + received.accounts.num_rows,
        "duplicates": stored.duplicates + received.duplicates,
        "passed_over": received.passed_over,
        "refused": received.rejected,
        "reasons": [
            {"reason": d.reason, "count": d.count, "first": d.place, "hint": d.hint} for d in received.refused[:20]
        ],
        "unknown_fields": sorted(received.unknown)[:50],
    }


def _count(services: Services, route: str, received: Received, stored: Stored) -> None:
    add = partial(services.metrics.add, source=route)
    add("stillwatch_ingest_rows_total", stored.new)
    add("stillwatch_ingest_twice_total", stored.duplicates + received.duplicates)
    add("stillwatch_ingest_accounts_total", received.accounts.num_rows)
    add("stillwatch_ingest_refused_total", received.rejected)


async def drop_metrics(asked: Asked) -> Response:
    """OTLP metrics are accepted, so that one exporter's settings do for all, and dropped: nothing of them is judged."""
    await asked.body()
    asked.services.metrics.add("stillwatch_ingest_dropped_total", source="otlp/metrics")
    is_json = asked.request.headers.get("content-type", "").startswith(JSON)
    return Response(b"{}" if is_json else b"", media_type=JSON if is_json else PROTOBUF)
