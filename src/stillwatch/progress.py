"""How far a run has come, on stderr, and what each stage cost.

On a terminal one live line shows stage, rows, rows a second and time left; elsewhere a plain line comes about every ten
seconds, so that a log of a nightly run stays short. Nothing here ever writes to stdout.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Live
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a stage took: by the clock, and of processor time over all threads and finished child processes."""

    wall_s: float
    cpu_s: float

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


def peak_memory_bytes() -> int:
    """The most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def rows_text(rows: float) -> str:
    """A number of rows, short enough for one line: ``950``, ``12.3 k``, ``4.07 M``."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rows >= unit:
            return f"{rows / unit:.3g}{name}" if rows < 999.5 * unit else f"{rows / unit:.0f}{name}"
    return f"{rows:.0f}"


def seconds_text(seconds: float) -> str:
    """A time to wait, as ``48 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Shows where a run stands and records wall and processor seconds of each stage in ``timings``.

    Stages do not nest: starting one ends the one before. A stage entered twice adds up. With ``quiet`` only the
    timings are kept. ``total`` is an estimate of the rows to come; without it no time left is shown.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timings: dict[str, Timing] = {}
        self.rows = 0
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._every_s = every_s
        self._clock = clock
        self._name = ""
        self._total: int | None = None
        self._started = (0.0, 0.0)
        self._spoke_at = clock()
        self._live: Live | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        if not self._quiet and self._stream.isatty():
            self._live = _live(self._stream)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if self._live:
            self._live.stop()
            self._live = None

    def stage(self, name: str, total: int | None = None) -> Stage:
        """Start a stage; use the answer in a ``with`` to end it early, or let the next stage end it."""
        self.end()
        self._name, self._total, self.rows = name, total, 0
        self._started = (self._clock(), cpu_s())
        if self._live:
            self._task = self._live.add_task(name, total=total)
        return Stage(self)

    def advance(self, rows: int = 1) -> None:
        """So many more rows are done in this stage."""
        self.rows += rows
        if self._live and self._task is not None:
            self._live.update(self._task, completed=self.rows)
        elif self._clock() - self._spoke_at >= self._every_s:
            self._say(self.line())

    def note(self, text: str) -> None:
        """Something worth a line of its own, shown at once."""
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            self._say(text)

    def line(self) -> str:
        """The present stage in one line of text."""
        elapsed = self._clock() - self._started[0]
        of = f" of {rows_text(self._total)}" if self._total else ""
        parts = [f"{self._name}: {rows_text(self.rows)}{of} rows"] if self.rows else [self._name]
        if self.rows and elapsed > 0:
            rate = self.rows / elapsed
            parts.append(f"{rows_text(rate)} rows/s")
            if self._total and self._total > self.rows:
                parts.append(f"{seconds_text((self._total - self.rows) / rate)} left")
        return ", ".join(parts)

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, file=self._stream, flush=True)
        self._spoke_at = self._clock()

    def end(self) -> None:
        """End the present stage, if there is one."""
        if not self._name:
            return
        spent = Timing(self._clock() - self._started[0], cpu_s() - self._started[1])
        self.timings[self._name] = self.timings.get(self._name, Timing(0.0, 0.0)) + spent
        if self._live and self._task is not None:
            self._live.remove_task(self._task)
        elif self._clock() - self._spoke_at >= self._every_s:
            self._say(self.line())
        self._name, self._task = "", None


class Stage:
    """A stage under way; leaving its ``with`` block ends it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> Progress:
        return self._progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.end()


class Rows(ProgressColumn):
    """Rows done, rows a second and time left, whatever of them is known."""

    def render(self, task: Task) -> Text:
        of = f" of {rows_text(task.total)}" if task.total else ""
        words = [f"{rows_text(task.completed)}{of} rows"] if task.completed else []
        words += [f"{rows_text(task.speed)} rows/s"] if task.speed and task.completed else []
        left = task.time_remaining
        words += [f"{seconds_text(left)} left"] if left and task.total else [seconds_text(task.elapsed or 0.0)]
        return Text(", ".join(words))


def _live(stream: TextIO) -> Live:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), Rows())
    return Live(*columns, console=Console(file=stream), transient=True, speed_estimate_period=30.0)
