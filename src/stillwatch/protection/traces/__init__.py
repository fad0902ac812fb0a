"""What a caller is shown of reasoning: all, a summary, or nothing; with the reason in sight, and never at an answer's cost.

The rule that keeps it right: text of reasoning goes through ``Curtain.told`` or does not go, and what cannot be done in time,
in bounds or without a fault ends in withholding. What is kept back is sealed (``reasoning.References``) into what the client
hands back anyway, and ``opening`` puts the trace in its place again, so that turns with tools go on as before.

``chat``, ``responses`` and ``messages`` know where the three kinds of API keep reasoning; ``streams`` reads and writes events.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from stillwatch.errors import UsageError
from stillwatch.plugins import discover
from stillwatch.protection.traces.splicing import Edit, Place

UNKEPT = "swr1.none"
"""In place of a reference where nothing was kept: too long, or nothing to bind it to."""
FIELD = "stillwatch_reasoning"
"""Member of an answer that says what is shown of its reasoning and why."""
HEADER = "x-stillwatch-reasoning"

log = logging.getLogger(__name__)


class Shown(StrEnum):
    """How much of reasoning is shown. FULL touches nothing."""

    FULL = "full"
    SUMMARY = "summary"
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class Showing:
    """How much is shown and the reason that the caller is told: one line of visible ASCII."""

    shown: Shown
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.reason.isascii() or not (self.reason.isprintable()):
            raise ValueError(f"a reason is one line of visible ASCII, not {self.reason!r}")

    def header(self) -> str:
        """As it is told in ``HEADER``, in the form of RFC 9651: ``withheld; reason="..."``."""
        escaped = self.reason.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.shown.value}; reason="{escaped}"' if self.reason else self.shown.value

    def field(self) -> dict[str, str]:
        """As it is told in ``FIELD``."""
        return {"shown": self.shown.value, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Makes of a reasoning's text the one that is shown in its stead; a plug-in, as ``REWRITER``. It is given the text and
    nothing else, and cannot reach an answer. ``rewrite`` may be called from several threads at once."""

    name: str
    meaning: str
    rewrite: Callable[[str], str]


def rewriter(name: str) -> Rewriter:
    """The rewriter of this name: ``outline``, which is built in, or one that a package brings; UsageError for any other."""
    found = {"outline": OUTLINE, **discover("rewriters")}
    if name not in found:
        raise UsageError(f"no such rewriter of reasoning: {name!r}", hint=f"there are {', '.join(sorted(found))}")
    return found[name]


# Each reads a line once: a trace may be long, and somebody may have asked for one that is slow to read.
_HEADING = re.compile(r"^ {0,3}(?:#{1,6}[ \t]+([^\n]+)|\*\*([^*\n]+)\*\*:?[ \t]*)$", re.MULTILINE)
_STEP = re.compile(r"^[ \t]*(?:(?:\d{1,3}[.)]|[-*+])[ \t]|step[ \t]+\d+\b)[ \t]*\S", re.MULTILINE | re.IGNORECASE)
_MOST_HEADINGS = 200


def outlined(text: str) -> str:
    """How long the reasoning is, in how many steps, and its own headings, up to 200 characters: nothing of what it says.

    No summary: that takes a model, which a provider plugs in.
    """
    steps = len(_STEP.findall(text)) or len([p for p in re.split(r"\n\s*\n", text) if p.strip()])
    headings = "; ".join(" ".join((a.rstrip("# ") or b).split()) for a, b in _HEADING.findall(text))[:_MOST_HEADINGS]
    words = len(text.split())
    said = f"{steps} step{'s' if steps != 1 else ''}, {words} word{'s' if words != 1 else ''}."
    return f"{said} Headings: {headings}" if headings else said


OUTLINE = Rewriter("outline", "its length, its number of steps and its headings; nothing of what it says", outlined)


@dataclass(slots=True)
class Counts:
    """What became of traces; faults are told apart because each wants something else done."""

    shown: int = 0
    withheld: int = 0
    failed: int = 0
    """Rewriters that raised, or gave no text."""
    slow: int = 0
    """Rewriters that were not done in time, or not begun because too many others were not."""
    unkept: int = 0
    """Traces that no reference was given for."""
    unreadable: int = 0
    """Events and answers that were no JSON, or too long, and were not passed on."""


class Rewriting:
    """Runs a rewriter in ``seconds`` at most, with at most ``most`` of its calls under way; a call that hangs stays behind."""

    def __init__(self, made: Rewriter = OUTLINE, seconds: float = 2.0, most: int = 16) -> None:
        self.rewriter, self._seconds, self._free = made, seconds, threading.BoundedSemaphore(most)

    @property
    def is_quick(self) -> bool:
        """Whether it is the built-in one, which never waits."""
        return self.rewriter is OUTLINE

    def __call__(self, text: str, counts: Counts) -> str | None:
        """The text that is shown, or None: then nothing is."""
        if self.is_quick:
            return self.rewriter.rewrite(text)
        if not self._free.acquire(blocking=False):
            counts.slow += 1
            return None
        return self._awaited(text, counts)

    def _awaited(self, text: str, counts: Counts) -> str | None:
        said: list[Any] = []

        def run() -> None:
            try:
                said.append(self.rewriter.rewrite(text))
            except Exception as e:
                # Its message could hold the text.
                log.warning("the rewriter %s failed (%s): reasoning is withheld", self.rewriter.name, type(e).__name__)
                said.append(None)
            finally:
                self._free.release()

        worker = threading.Thread(target=run, name="stillwatch-rewriter", daemon=True)
        worker.start()
        worker.join(self._seconds)
        if worker.is_alive() or not said:
            counts.slow += 1
            return None
        if not isinstance(said[0], str):
            counts.failed += 1
            return None
        return said[0]


Seal = Callable[[bytes], str]


@dataclass(slots=True)
class Curtain:
    """Between the reasoning of one answer and who is answered. ``seal`` is None where there is nothing to bind a reference to;
    ``most`` is how many characters of reasoning are held at a time while a stream comes in."""

    showing: Showing
    seal: Seal | None = None
    rewriting: Rewriting = field(default_factory=Rewriting)
    most: int = 1 << 20
    counts: Counts = field(default_factory=Counts)

    @property
    def passes_summaries(self) -> bool:
        """Whether a model's own summary is shown as it comes: where one is to be shown and no other rewriter has been set."""
        return self.showing.shown is Shown.SUMMARY and self.rewriting.is_quick

    def told(self, text: str) -> str:
        """What is shown in place of reasoning; empty for nothing."""
        summary = self.rewriting(text, self.counts) if self.showing.shown is Shown.SUMMARY and text else None
        self.counts.shown += summary is not None
        self.counts.withheld += summary is None
        return summary or ""

    def kept(self, trace: Any) -> str:
        """The reference to a trace (whatever JSON can say), or ``UNKEPT``."""
        try:
            if self.seal is not None:
                return self.seal(json.dumps(trace, separators=(",", ":")).encode())
        except Exception as e:
            log.warning("a trace could not be sealed (%s): no reference is given", type(e).__name__)
        self.counts.unkept += 1
        return UNKEPT

    def noted(self, place: Place) -> list[Edit]:
        """The answer, or event, with the field that says what is shown and why."""
        return place.having(FIELD, self.showing.field())


class Stream(Protocol):
    """What a dialect does to the events of one answer."""

    def event(self, place: Place) -> Step:
        """What goes on in place of an event."""
        ...

    def end(self) -> list[Mapping[str, Any]]:
        """Events still owed when the stream ends."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """In place of one event: others ``before`` it, and itself with ``edits`` done, or not at all."""

    before: list[Mapping[str, Any]] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    passes: bool = True
