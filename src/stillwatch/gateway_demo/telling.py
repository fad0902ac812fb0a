"""What is said while the demonstration runs: numbered steps in plain words, and what a client got, as it got it."""

from __future__ import annotations

import json
import textwrap
import time
from dataclasses import dataclass, field

from stillwatch.gateway_demo.asking import Answer

WIDTH = 110
SHOWN_HEADERS = ("retry-after", "x-stillwatch-rung", "x-stillwatch-case")


@dataclass(slots=True)
class Teller:
    """Says the steps, on stdout, each with the seconds since the beginning."""

    number: int = 0
    began: float = field(default_factory=time.monotonic)

    def step(self, title: str) -> None:
        """What is done next."""
        self.number += 1
        self._say(f"{self.number:>2}  {title}", "    ", f"\n[{time.monotonic() - self.began:4.0f} s] ")

    def line(self, text: str) -> None:
        """What came of it."""
        self._say(text, " " * 13, " " * 13)

    def got(self, who: str, answer: Answer) -> None:
        """What a client got: its status, what tells it when to come again, and the error in its own dialect."""
        told = [f"HTTP {answer.status}", *(f"{n}: {answer.headers[n]}" for n in SHOWN_HEADERS if answer.headers.get(n))]
        self.line(f"{who} gets  {'   '.join(told)}")
        if answer.status != 200:
            self.line(json.dumps(answer.json(), ensure_ascii=False))

    def _say(self, text: str, further: str, first: str) -> None:
        indent = further if first.startswith(" ") else " " * 13
        print(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False,
                            break_on_hyphens=False, drop_whitespace=True), flush=True)  # fmt: skip
