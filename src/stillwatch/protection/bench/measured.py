"""What the bench of damage measured, as rows; and what is said of them over seeds, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from scipy import stats

from stillwatch.intervals import wilson

LEARNT = 0.2
"""By how much more than chance the baseline must be right for a ratio to it to say anything."""


@dataclass(frozen=True, slots=True)
class Schooling:
    """A teacher: how often its undefended answers are right, whether it had finished learning; what chance gives, on how many
    problems students are marked, and the processor seconds of all that was measured of it."""

    task: str
    seed: int
    chance: float
    accuracy: float
    settled: bool
    held: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Lesson:
    """A student: what it was served, what it did about it, how often it is right; ``queries``, ``own`` traces and ``tokens``
    shown are what that cost, ``rows`` what it was trained on."""

    task: str
    defence: str
    attacker: str
    seed: int
    accuracy: float
    settled: bool
    queries: int
    own: int
    rows: int
    tokens: int
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a defence costs who is honest. ``accuracy`` of what is served beside ``undefended``; ``tokens`` shown an output;
    the share of the trace's tokens that is seen, and of those the share that stands where the teacher wrote it; nats a token
    of the teacher's words under itself; of how many tokens the probability is shown; the AUC of telling it from plain text."""

    task: str
    defence: str
    seed: int
    accuracy: float
    undefended: float
    tokens: float
    trace_seen: float
    trace_true: float
    nll: float
    nll_undefended: float
    probabilities: int
    auc: float
    auc_low: float
    auc_high: float

    @property
    def dc(self) -> float:
        """The share of right answers that is lost."""
        return 1 - self.accuracy / self.undefended if self.undefended else 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """All rows, of one size."""

    size: str
    schooling: tuple[Schooling, ...] = ()
    lessons: tuple[Lesson, ...] = ()
    costs: tuple[Cost, ...] = ()

    def joined(self, schooling: Schooling, lessons: Iterable[Lesson], costs: Iterable[Cost]) -> Measured:
        """With the rows of one more task and seed."""
        return replace(
            self,
            schooling=(*self.schooling, schooling),
            lessons=(*self.lessons, *lessons),
            costs=(*self.costs, *costs),
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(dict.fromkeys(s.seed for s in self.schooling))

    def of(self, seeds: Iterable[int]) -> Measured:
        """The rows of these seeds alone."""
        wanted = set(seeds)
        kept = {n: tuple(r for r in getattr(self, n) if r.seed in wanted) for n in ("schooling", "lessons", "costs")}
        return Measured(self.size, **kept)

    def cpu_s(self, seed: int) -> float:
        """Processor seconds of a seed."""
        return sum(s.cpu_s for s in self.schooling if s.seed == seed)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in order."""
        return tuple(dict.fromkeys(s.task for s in self.schooling))

    def defences(self, task: str) -> tuple[str, ...]:
        """The defences a task was measured under, in order."""
        return tuple(dict.fromkeys(lesson.defence for lesson in self.lessons if lesson.task == task))

    def attackers(self, task: str, defence: str) -> tuple[str, ...]:
        """Those that were tried against a defence."""
        return tuple(dict.fromkeys(x.attacker for x in self.lessons if (x.task, x.defence) == (task, defence)))

    def students(self, task: str, defence: str, attacker: str = "naive") -> tuple[Lesson, ...]:
        """The students of one cell, by seed."""
        return tuple(x for x in self.lessons if (x.task, x.defence, x.attacker) == (task, defence, attacker))

    def chance(self, task: str) -> float:
        """What the best constant answer gets right, mean over seeds."""
        return float(np.mean([s.chance for s in self.schooling if s.task == task]))

    def held(self, task: str) -> int:
        """Problems a student is marked on."""
        return next(s.held for s in self.schooling if s.task == task)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its 95 % interval, which may be wider than what is possible."""

    value: float
    low: float
    high: float


def accuracy_of(measured: Measured, task: str, defence: str, attacker: str = "naive") -> Estimate:
    """A student's accuracy: Student's t over seeds; with one seed Wilson's interval over the problems it was marked on."""
    shares = [s.accuracy for s in measured.students(task, defence, attacker)]
    return _over_seeds(shares, lambda share: wilson(share, measured.held(task)))


def de(measured: Measured, task: str, defence: str, attacker: str = "naive") -> Estimate | None:
    """DE: defended over baseline accuracy, seed by seed, Student's t over seeds. With one seed the interval is that of a ratio of
    two shares of as many problems (Donner and Zou 2012, MOVER-R on Wilson's intervals), which does not cover another seed's
    training. None where the baseline has not learnt the task: then the ratio says nothing."""
    base = {s.seed: s.accuracy for s in measured.students(task, "full")}
    if not learnt(measured, task):
        return None
    students = measured.students(task, defence, attacker)
    ratios = [s.accuracy / base[s.seed] for s in students]
    held = measured.held(task)
    return _over_seeds(ratios, lambda _: ratio(students[0].accuracy, base[students[0].seed], held))


def learnt(measured: Measured, task: str) -> bool:
    """Whether the naive student of undefended outputs learnt the task, in every seed."""
    students = measured.students(task, "full")
    return bool(students) and min(s.accuracy for s in students) >= measured.chance(task) + LEARNT


def worst(measured: Measured, task: str, defence: str) -> Lesson:
    """The best student anybody got under a defence, in any seed: own traces alone, which ask nothing, are not counted."""
    students = [x for x in measured.lessons if (x.task, x.defence) == (task, defence) and x.attacker != "own traces"]
    return max(students, key=lambda x: x.accuracy)


def ratio(one: float, other: float, count: int) -> tuple[float, float]:
    """The interval of ``one`` over ``other``, both shares of ``count``; the upper end is infinite where ``other`` may be 0."""
    (l1, u1), (l2, u2) = wilson(one, count), wilson(other, count)
    both = one * other
    lower = sqrt(max(0.0, both**2 - l1 * u2 * (2 * one - l1) * (2 * other - u2)))
    upper = sqrt(max(0.0, both**2 - u1 * l2 * (2 * one - u1) * (2 * other - l2)))
    low, high = u2 * (2 * other - u2), l2 * (2 * other - l2)
    if l2 <= 0 or low <= 0 or high <= 0:
        return 0.0, float("inf")
    return max(0.0, (both - lower) / low), (both + upper) / high


def _over_seeds(values: list[float], alone: Callable[[float], tuple[float, float]]) -> Estimate:
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean, *alone(mean))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)
