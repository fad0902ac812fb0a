"""The judge's own process: judge, say so in ``judging.json``, wait to be asked or for the interval, and again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import FrameType

from stillwatch.config import Config
from stillwatch.errors import StillwatchError, Transient
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.serving.home import Home
from stillwatch.serving.judging import Status, Terms, ask_file, status_file
from stillwatch.serving.spooled import Judged, judge_spool
from stillwatch.store.state import write_json

LOOK_S = 0.25
"""How often a judge that waits looks whether it is asked, in seconds."""
SOON_S = 15.0
"""When to try again what may succeed later, in seconds, if the interval is no shorter."""


@dataclass(slots=True)
class Stop:
    """Whether the process was told to end. What is told once more is obeyed at once."""

    asked: bool = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """A signal has come."""
        self.asked = True
        raise KeyboardInterrupt


def judge_once(home: Home, terms: Terms, config: Config, privacy: Privacy, progress: Progress) -> Judged:
    """Judge now and say so; whatever goes wrong is said too, and raised."""
    try:
        return _judge(home, terms, config, privacy, progress)
    finally:
        if (status := Status.read(home)).status == "waiting":
            _say(home, replace(status, status="stopped", pid=None))


def judge_for_ever(home: Home, terms: Terms, config: Config, privacy: Privacy, parent: int | None = None) -> None:
    """Judge until SIGTERM or Ctrl-C, or until the process is no longer ``parent``'s. What goes wrong is said and tried again."""
    with _told_to_stop() as stop:
        try:
            while not stop.asked and _is_of(parent):
                _wait(home, _turn(home, terms, config, privacy, stop), parent)
        except KeyboardInterrupt:
            pass
    _say(home, replace(Status.read(home), status="stopped", pid=None))


def _turn(home: Home, terms: Terms, config: Config, privacy: Privacy, stop: Stop) -> float:
    """One judgement; how long to wait for the next, in seconds."""
    interval_s = terms.interval.total_seconds()
    try:
        _judge(home, terms, config, privacy, Progress(quiet=True))
    except Transient:
        return min(SOON_S, interval_s)
    except Exception:  # the loop must survive: the error is told and counted
        # An engine that is interrupted inside a step reports a failed step.
        if stop.asked:
            raise KeyboardInterrupt from None
    return interval_s


def _judge(home: Home, terms: Terms, config: Config, privacy: Privacy, progress: Progress) -> Judged:
    # Before the spool is read: what is asked for later is judged later.
    ask_file(home).unlink(missing_ok=True)
    before = Status.read(home)
    begun = replace(before, status="judging", pid=os.getpid(), started=datetime.now(UTC), ended=None)
    _say(home, begun)
    try:
        judged = judge_spool(
            home, terms, config, privacy, progress, along=lambda told: _say(home, _on_the_way(begun, told))
        )
    except KeyboardInterrupt:
        _say(home, replace(begun, status="stopped", pid=None, ended=datetime.now(UTC)))
        raise
    except Exception as e:
        _say(home, _failed(begun, e))
        raise
    now = datetime.now(UTC)
    _say(home, Status(
        "waiting", os.getpid(), begun.started, now, now, judged.rows, judged.new, judged.late, judged.campaigns,
        judged.accounts, judged.newest, judged.too_late,
    ))  # fmt: skip
    return judged


def _on_the_way(begun: Status, told: Judged) -> Status:
    """That results were written, and the judgement goes on. What came in last waits still: ``newest`` is as it was."""
    now = datetime.now(UTC)
    return replace(begun, judged=now, rows=told.rows, campaigns=told.campaigns, accounts=told.accounts)


def _failed(begun: Status, e: Exception) -> Status:
    told, hint = f"{type(e).__name__}: {e}", "please report this fault of stillwatch"
    if isinstance(e, StillwatchError):
        told, hint = e.message, e.hint
    elif isinstance(e, OSError):
        hint = "is the disk full, or the home not ours to write to?"
    failures = begun.failures + 1
    return replace(begun, status="failed", ended=datetime.now(UTC), failures=failures, error=told, hint=hint or None)


def _wait(home: Home, wait_s: float, parent: int | None) -> None:
    """Wait so long, or until asked."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end and not ask_file(home).exists() and _is_of(parent):
        time.sleep(min(LOOK_S, max(0.0, end - time.monotonic())))


def _is_of(parent: int | None) -> bool:
    return parent is None or os.getppid() == parent


def _say(home: Home, status: Status) -> None:
    write_json(status_file(home), status.plain())


@contextmanager
def _told_to_stop() -> Iterator[Stop]:
    stop = Stop()
    before = {n: signal.signal(n, stop.note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
