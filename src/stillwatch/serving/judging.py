"""The server's side of judging: a process of its own that judges the spool, kept running, asked and looked after.

They share nothing but files in the home: ``judging.json`` says how the judging stands, and a file ``judge_now``, once there,
is taken away by the judge, which then judges without waiting for its hour. A judge that dies is started again, later each time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stillwatch.errors import UsageError
from stillwatch.serving.home import Home
from stillwatch.windows import length_text

FINAL_SCANS = ("always", "when_due")
LINES_KEPT = 20
"""Of the last things a judge said."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a spool is judged: in steps of ``every``, anew each ``interval``.

    A step is over when something that happened ``grace`` later has come in, or nothing has for so long. ``final_scan`` is
    ``when_due`` where everything is judged anew only when the schedule of a replay says so, which may spend ``share`` of a
    core's time on it (known campaigns are recognised all the time), ``always`` where each judgement ends as a replay does.
    Rows that the state has taken in stay in the spool for ``retention`` after they happened, and in the state for ``horizon``
    before its last step. The paths are those of a scan's options.
    """

    every: timedelta = timedelta(hours=1)
    interval: timedelta = timedelta(minutes=5)
    grace: timedelta = timedelta(minutes=10)
    retention: timedelta = timedelta(days=2)
    horizon: timedelta = timedelta(days=90)
    final_scan: str = "when_due"
    share: float = 0.02
    accounts: Path | None = None
    models: Path | None = None
    config: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.final_scan not in FINAL_SCANS:
            raise UsageError(f"final scan {self.final_scan!r} is none", hint=f"one of {', '.join(FINAL_SCANS)}")
        if self.horizon <= self.every:
            hint = "as long as campaigns last: 90d"
            raise UsageError(f"horizon {length_text(self.horizon)} is no longer than a step", hint=hint)
        if not 0 <= self.share <= 1:
            raise UsageError(f"share {self.share} is none", hint="a part of one core's time, from 0 to 1: 0.02")

    def options(self) -> list[str]:
        """These terms as options of ``stillwatch judge``."""
        lengths = {n: length_text(getattr(self, n)) for n in ("every", "interval", "grace", "retention", "horizon")}
        paths = {n: str(p) for n in ("accounts", "models", "config", "key") if (p := getattr(self, n)) is not None}
        told = lengths | {"final-scan": self.final_scan, "share": f"{self.share:g}"} | paths
        return [f"--{name}={value}" for name, value in told.items()]


@dataclass(frozen=True, slots=True)
class Status:
    """How the judging stands.

    ``status`` is ``judging``, ``waiting``, ``failed`` (to be tried again), ``stopped``, or ``none`` where nothing was begun yet;
    the times are those of the newest judgement, ``judged`` when one last ended well. ``rows`` are exchanges judged in all,
    ``new`` those that the one before had not, ``late`` those that came when their step was over. ``newest`` is the number of the
    last batch of the spool that was looked at, ``too_late`` the exchanges that came when their time was beyond the horizon.
    ``failures`` in a row.
    """

    status: str = "none"
    pid: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    judged: datetime | None = None
    rows: int = 0
    new: int = 0
    late: int = 0
    campaigns: int = 0
    accounts: int = 0
    newest: int = 0
    too_late: int = 0
    failures: int = 0
    error: str | None = None
    hint: str | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON; times in ISO 8601."""
        told = {name: getattr(self, name) for name in Status.__dataclass_fields__}
        return {n: v.isoformat() if isinstance(v, datetime) else v for n, v in told.items()}

    @classmethod
    def read(cls, home: Home) -> Status:
        """As the judge last wrote it; ``failed`` where that cannot be read."""
        try:
            told = json.loads(status_file(home).read_text(encoding="utf-8"))
            times = {n: datetime.fromisoformat(told[n]) for n in ("started", "ended", "judged") if told[n]}
            return cls(**{**told, **times})
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            return cls(
                "failed", error=f"{status_file(home)}: cannot be read: {e}", hint="the next judgement replaces it"
            )


def status_file(home: Home) -> Path:
    """Where a judge says how the judging stands."""
    return home.folder / "judging.json"


def ask_file(home: Home) -> Path:
    """What a judge is asked by to judge now."""
    return home.folder / "judge_now"


@dataclass(frozen=True, slots=True)
class Overseen:
    """How the judge's process stands: whether one runs, how often one died, with which code the last, and its last words."""

    alive: bool
    pid: int | None
    deaths: int
    code: int | None
    words: str


class Judging:
    """Keeps a judge running beside the server. ``start`` and ``stop`` are to be called from one thread, the others from any."""

    def __init__(self, home: Home, terms: Terms, *, soonest_s: float = 1.0, latest_s: float = 300.0) -> None:
        self._home, self._terms = home, terms
        self._soonest_s, self._latest_s = soonest_s, latest_s
        self._stopping = threading.Event()
        self._changed = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._deaths = 0
        self._code: int | None = None
        self._said: deque[str] = deque(maxlen=LINES_KEPT)

    def start(self) -> None:
        """Start a judge, and another one whenever it dies: after a second, then twice as long each time, up to five minutes."""
        if self._thread is not None:
            raise RuntimeError("the judging has been started")
        self._stopping.clear()
        self._thread = threading.Thread(target=self._oversee, name="judging", daemon=True)
        self._thread.start()

    def stop(self, *, graceful: bool = True, within_s: float = 20.0) -> None:
        """End the judge: at the end of its step where that takes no longer than ``within_s``, else as it is. No state is lost."""
        self._stopping.set()
        with self._changed:
            process = self._process
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM if graceful else signal.SIGKILL)
        if self._thread is None:
            return
        self._thread.join(within_s)
        if self._thread.is_alive() and process is not None:
            process.kill()
            self._thread.join()
        self._thread = None

    def ask(self) -> None:
        """Have everything judged now, or as soon as the judgement under way has ended."""
        ask_file(self._home).touch()

    def status(self) -> Status:
        """How the judging stands, as the judge says."""
        return Status.read(self._home)

    def overseen(self) -> Overseen:
        """How the judge's process stands."""
        with self._changed:
            process = self._process
            alive = process is not None and process.poll() is None
            pid = process.pid if process is not None and alive else None
            return Overseen(alive, pid, self._deaths, self._code, "".join(self._said))

    def _oversee(self) -> None:
        wait_s = self._soonest_s
        while not self._stopping.is_set():
            began = time.monotonic()
            self._run()
            if self._stopping.is_set():
                return
            # One that ran for long did not die of what it found at its start.
            wait_s = self._soonest_s if time.monotonic() - began > self._latest_s else wait_s
            self._stopping.wait(wait_s)
            wait_s = min(2 * wait_s, self._latest_s)

    def _run(self) -> None:
        """Start a judge and listen to it until it ends."""
        command = [sys.executable, "-m", "stillwatch", "judge", str(self._home.folder), "--forever"]
        command += [f"--parent={os.getpid()}", *self._terms.options()]
        with self._changed:
            if self._stopping.is_set():
                return
            try:
                # In a session of its own: a Ctrl-C is for the server, which then ends its judge.
                self._process = process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                    encoding="utf-8", errors="backslashreplace", start_new_session=True,
                )  # fmt: skip
            except OSError as e:
                self._deaths += 1
                self._said.append(f"the judge could not be started: {e}\n")
                return
        assert process.stderr is not None
        with process.stderr as said:
            self._said.extend(said)
        code = process.wait()
        with self._changed:
            self._code = code
            self._deaths += not self._stopping.is_set()
