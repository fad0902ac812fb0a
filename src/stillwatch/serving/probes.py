"""What machines ask of the server itself: whether it lives, whether it takes traffic, and its figures."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime

from starlette.responses import PlainTextResponse, Response

from stillwatch import __version__
from stillwatch.serving.decisions import Counts
from stillwatch.serving.edge import Asked, answer_json
from stillwatch.serving.metrics import CONTENT_TYPE
from stillwatch.serving.rounds import judgement_age_s
from stillwatch.serving.services import Services
from stillwatch.spool import Figures

PLAIN_COUNTS = ("asked", "stale", "rewritten", "too_large", "unreadable", "faults")


async def healthz(asked: Asked) -> Response:
    """The process answers."""
    return answer_json({"alive": True})


async def readyz(asked: Asked) -> Response:
    """Whether to send requests here."""
    services = asked.services
    if services.draining:
        return answer_json({"ready": False, "why": "the server is being stopped"}, 503)
    if not services.is_ready:
        why = "what is in force has not been looked up since the start: the loop's first round has not ended"
        return answer_json({"ready": False, "why": why}, 503)
    return answer_json({"ready": True})


async def figures(asked: Asked) -> Response:
    """Every figure, those that are looked up now too."""
    services = asked.services
    spool = await services.readers.run(services.spool.figures)
    _of_spool(services, spool)
    _of_decisions(services, services.decisions.counts)
    put = services.metrics.put
    put("stillwatch_ingest_waiting", services.intake.waiting)
    put("stillwatch_judgement_age_seconds", judgement_age_s(services, datetime.now(UTC)))
    put("stillwatch_disk_free_bytes", shutil.disk_usage(services.home.folder).free)
    put("stillwatch_audit_entries", services.audit.size)
    put("stillwatch_info", 1, version=__version__)
    return PlainTextResponse(services.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _of_spool(services: Services, spool: Figures) -> None:
    plain = dataclasses.asdict(spool)
    numbers = {n: float(v) for n, v in plain.items() if isinstance(v, int)}
    times = {f"{n}_seconds": v.timestamp() for n, v in plain.items() if isinstance(v, datetime)}
    services.metrics.only("stillwatch_spool", "figure", numbers | times)


def _of_decisions(services: Services, counts: Counts) -> None:
    put = services.metrics.put
    for name in PLAIN_COUNTS:
        put("stillwatch_decisions_total", getattr(counts, name), what=name)
    for what in ("in_force", "shadow", "refused"):
        for rung, count in getattr(counts, what).items():
            put("stillwatch_decisions_by_rung_total", count, what=what, rung=str(rung))
    put("stillwatch_decisions_stale", services.decisions.is_stale())
