"""Half-open UTC windows ``[start, end)``: a moment lies in exactly one of two that touch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stillwatch.errors import UsageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """The time from ``start``, included, to ``end``, excluded; both aware, kept as UTC. It may be empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            moment: datetime = getattr(self, name)
            if moment.tzinfo is None:
                raise ValueError(f"window {name} has no time zone: {moment}")
            object.__setattr__(self, name, moment.astimezone(UTC))
        if self.start > self.end:
            raise ValueError(f"window ends before it starts: {self.start} > {self.end}")

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.end - self.start

    def contains(self, moment: datetime) -> bool:
        """Whether ``moment`` lies in it."""
        return self.start <= moment < self.end

    def split(self, step: timedelta) -> Iterator[Window]:
        """Windows that cover it without gap or overlap, cut where ``step`` divides the time since 1970 UTC.

        The first and the last may be shorter, so a log that begins at an odd moment is still cut at full hours.
        """
        if step <= timedelta(0):
            raise ValueError(f"a window cannot be split by {step}")
        start = self.start
        while start < self.end:
            end = min(_EPOCH + ((start - _EPOCH) // step + 1) * step, self.end)
            yield Window(start, end)
            start = end


def parse_length(text: str) -> timedelta:
    """A length of time written as a number and ``s``, ``m``, ``h`` or ``d``, such as ``1h``; UsageError for any other."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text.lower())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else 0
    if not 1 <= seconds <= 366 * 86_400:
        raise UsageError(f"{text!r} is no length of a step", hint="a number and s, m, h or d, from 1s to 366d: 1h")
    return timedelta(seconds=seconds)


def length_text(length: timedelta) -> str:
    """A length as ``parse_length`` reads it, in the largest unit that gives a whole number, such as ``1h``."""
    for unit, seconds in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if not length % timedelta(seconds=seconds):
            return f"{length // timedelta(seconds=seconds)}{unit}"
    return f"{length.total_seconds():f}s"


def parse_moment(text: str) -> datetime:
    """A moment in ISO 8601, in UTC where it names no zone; UsageError for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as e:
        raise UsageError(f"{text!r} is no time", hint="such as 2026-11-26 or 2026-11-26T18:00, in UTC") from e
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def lateness(event: datetime, arrival: datetime) -> timedelta:
    """How long after it happened an event arrived; zero where clocks disagree and it seems to arrive early."""
    return max(arrival - event, timedelta(0))
