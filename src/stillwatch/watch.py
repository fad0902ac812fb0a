"""What a replay remembers from step to step, and when it judges everything again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stillwatch import wordings
from stillwatch.ledger import Absent, Ledger
from stillwatch.recognition import Book


@dataclass(slots=True)
class Schedule:
    """When to judge everything again. Costs are microseconds of a usual core, counted by rows and not by the clock, so that a
    replay gives the same answer on any machine. ``at`` is the end (us) of the step in which everything was judged last.

    Where judgements may take a ``share`` of a core's time beside that, one is due too whenever so much time has passed, as
    events tell it, that this one takes no more; it is not charged to what all may cost.
    """

    rows: int = 0
    unexplained: int = 0
    spent: float = 0.0
    at: int = 0

    FIXED, PER_ROW = 1.5e6, 13.0
    """What a judgement costs: always, and for each row."""
    ALLOWED, ALLOWED_PER_ROW = 12e6, 42.0
    """What all judgements together may cost: at once, and for each row that has arrived."""
    GROWTH, LEAST = 0.25, 25
    """By how much, and by how many rows at least, the log or what is unexplained in it must have grown."""

    def due(self, arrived: int, unexplained: int, end: int = 0, share: float = 0.0) -> bool:
        """Whether to judge at the ``end`` (us) of a step; ``unexplained`` rows read like training data and are of no known
        campaign."""
        grown = arrived - self.rows >= max(self.LEAST, self.GROWTH * self.rows)
        alarming = unexplained - self.unexplained >= max(self.LEAST, self.GROWTH * self.unexplained)
        affordable = self.spent + self.cost(arrived) <= self.ALLOWED + self.ALLOWED_PER_ROW * arrived
        return ((grown or alarming) and affordable) or self.rested(arrived, end, share)

    def rested(self, arrived: int, end: int, share: float) -> bool:
        """Whether a judgement now would take no more than ``share`` of the time since the last one."""
        return arrived > self.rows and share > 0 and (end - self.at) * share >= self.cost(arrived)

    def cost(self, arrived: int) -> float:
        """Of a judgement of so many rows."""
        return self.FIXED + self.PER_ROW * arrived

    def done(self, arrived: int, unexplained: int, end: int = 0, share: float = 0.0) -> None:
        """Note that everything was judged; ``unexplained`` as it is after that."""
        self.spent += 0.0 if self.rested(arrived, end, share) else self.cost(arrived)
        self.rows, self.unexplained, self.at = arrived, unexplained, end


@dataclass(slots=True)
class Watch:
    """What a replay remembers from step to step."""

    ledger: Ledger
    schedule: Schedule = field(default_factory=Schedule)
    book: Book = field(default_factory=lambda: Book.of(()))
    wrappers: wordings.Wrappers = field(default_factory=wordings.no_wrappers)
    systems: tuple[np.ndarray, np.ndarray] = field(
        default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64))
    )
    shared: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Sorted keys of the values that at least two customers held at the last judgement."""
    tried: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """Rows (customer, key) that were looked at since then: a customer is looked at again once it holds something new."""
    until: int = 0
    """Arrivals seen."""
    end: int = 0
    """End of the last step, us since 1970."""
    unexplained: int = 0
    late: int = 0
    """Arrivals that came when the step they happened in was over."""
    floor: int = 0
    """All that happened before this (us) is forgotten, and not taken in any more."""
    absent: Absent = field(default_factory=Absent)
    carried_until: int = 0
    """Until a step ends at this time (us), who is carried in the ledger is not cleared: as much must have come in by then as it
    was concluded from."""
