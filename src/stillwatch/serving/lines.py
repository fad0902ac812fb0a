"""What the server says on stderr: one JSON object a line, with the request it belongs to.

A line holds what happened and where: routes as patterns, counts, ids. Never a body, a header's value, a query or a token:
there is no call that would take one.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from stillwatch.errors import StillwatchError

LOG = logging.getLogger("stillwatch.serving")

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="")
"""The id of the request being answered."""

TOKEN = re.compile(r"(?i)\b(bearer|basic)\s+\S+|\bsw[a-z]?_[A-Za-z0-9_-]{8,}")


class JsonLine(logging.Formatter):
    """A record as one line of JSON; what looks like a token is blotted out wherever it stands."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "what": record.getMessage()}
        if request := REQUEST.get():
            line["request_id"] = request
        line |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[1] is not None:
            line |= fault(record.exc_info[1])
        return TOKEN.sub("[blotted]", json.dumps(line, ensure_ascii=True, default=str))


def fault(error: BaseException) -> dict[str, Any]:
    """The kind of an error and where it was raised; its own message only where we wrote it, for others may quote a body."""
    frames = traceback.extract_tb(error.__traceback__)
    said = {"why": error.message, "hint": error.hint} if isinstance(error, StillwatchError) else {}
    place = [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames[-6:]]
    return {"error": type(error).__name__, **said, "raised_at": place}


def say(level: int, what: str, *, error: BaseException | None = None, **facts: object) -> None:
    """Log a line; ``facts`` are its fields."""
    LOG.log(level, what, extra={"facts": facts}, exc_info=error)


def open_log(level: str, stream: TextIO | None = None) -> None:
    """Send all that is logged in this process to ``stream`` (stderr), as JSON lines from ``level`` up."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
