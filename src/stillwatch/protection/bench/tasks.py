"""Generated tasks with exact answers, each with a trace of its steps: what a teacher serves and a student is to learn.

All tasks share one vocabulary of single characters. A response is ``|``, the trace, ``:``, the answer, ``.``. Every digit of a
trace has two spellings, ``3`` or ``d``, and which one is written says nothing: it is the only free choice in these texts,
what a watermark can lean on and what a paraphrase draws anew. Answers are always written in figures.

The tasks are chosen so that different conclusions are possible: one that needs its steps, one whose steps are a by-product,
one like code, one of looking things up, and one whose trace is long and worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

ALPHABET = "_|:.0123456789abcdefghij<=>+-nx?klm"
"""The vocabulary, by token id. ``_`` fills up rows; ``a`` to ``j`` are the other spelling of the digits."""

PAD, OPEN, THEN, END = range(4)
FIGURE, LETTER = ALPHABET.index("0"), ALPHABET.index("a")
_OPERATIONS = "+-nx"


def encoded(text: str) -> list[int]:
    """Token ids of a text; ValueError for a character outside the alphabet."""
    return [ALPHABET.index(c) for c in text]


def decoded(tokens: Ints) -> str:
    """The text of token ids, without what fills up."""
    return "".join(ALPHABET[t] for t in tokens if t != PAD)


@dataclass(frozen=True, slots=True)
class Problems:
    """Problems of one task: ``questions`` (n, q), ``steps`` (n, s, w) of a whole trace, ``answers`` (n, a); token ids."""

    questions: Ints
    steps: Ints
    answers: Ints

    def __len__(self) -> int:
        return len(self.questions)

    def take(self, rows: Ints | slice) -> Problems:
        """These rows."""
        return Problems(self.questions[rows], self.steps[rows], self.answers[rows])


@dataclass(frozen=True, slots=True)
class Task:
    """A task. ``purse``: where tokens are paid for, how many of them a query of the budget is worth; None where queries are."""

    name: str
    meaning: str
    make: Callable[[np.random.Generator, int], Problems]
    purse: int | None = None


def drawn(task: Task, seed: int, count: int, apart: Ints | None = None) -> Problems:
    """``count`` problems with distinct questions, none of which is a row of ``apart``; the same for the same seed.

    ValueError where the task has not so many.
    """
    rng = np.random.default_rng([seed, *task.name.encode()])
    known = set() if apart is None else {row.tobytes() for row in np.ascontiguousarray(apart)}
    parts, found = [], 0
    for _ in range(100):
        made = task.make(rng, 2 * count)
        new = [i for i, row in enumerate(made.questions) if not _seen(row.tobytes(), known)][: count - found]
        parts.append(made.take(np.asarray(new, np.int64)))
        found += len(new)
        if found == count:
            return Problems(*(np.concatenate([getattr(p, name) for p in parts]) for name in Problems.__slots__))
    raise ValueError(f"{task.name}: there are not {count} distinct questions")


def _seen(row: bytes, known: set[bytes]) -> bool:
    if row in known:
        return True
    known.add(row)
    return False


def chance(problems: Problems) -> float:
    """The share that the best constant answer would get right."""
    return float(np.unique(problems.answers, axis=0, return_counts=True)[1].max() / len(problems))


def respelt(tokens: Ints, rng: np.random.Generator) -> Ints:
    """The same with every digit in one of its two spellings, by a fair coin each."""
    plain = np.where((tokens >= LETTER) & (tokens < LETTER + 10), tokens - LETTER + FIGURE, tokens)
    other = rng.random(tokens.shape) < 0.5
    return np.where((plain >= FIGURE) & (plain < FIGURE + 10) & other, plain - FIGURE + LETTER, plain)


def _sums(rng: np.random.Generator, count: int) -> Problems:
    digits = rng.integers(0, 10, (count, 5))
    running = np.cumsum(digits, axis=1) % 10
    return _problems(rng, digits + FIGURE, running[:, :, None] + FIGURE, running[:, -1:] + FIGURE)


def _comparisons(rng: np.random.Generator, count: int) -> Problems:
    one, other = rng.integers(0, 10, (2, count, 3))
    same = rng.integers(0, 4, count)[:, None] > np.arange(3)
    other = np.where(same, one, other)
    signs = np.sign(one - other)
    first = np.where(signs[:, 0] != 0, signs[:, 0], np.where(signs[:, 1] != 0, signs[:, 1], signs[:, 2]))
    equal = ALPHABET.index("=")
    questions = np.column_stack([one + FIGURE, np.full(count, ALPHABET.index("?")), other + FIGURE])
    return _problems(rng, questions, np.stack([one + FIGURE, equal + signs], axis=2), equal + first[:, None])


def _programs(rng: np.random.Generator, count: int) -> Problems:
    operands = rng.integers(0, 10, (count, 4))
    operations = rng.integers(0, 4, (count, 3))
    values = [operands[:, 0]]
    for i in range(3):
        one, other = values[-1], operands[:, i + 1]
        all_four = np.stack([(one + other) % 10, (one - other) % 10, np.minimum(one, other), np.maximum(one, other)])
        values.append(all_four[operations[:, i], np.arange(count)])
    signs = np.asarray(encoded(_OPERATIONS))[operations]
    questions = np.column_stack(
        [operands[:, :1] + FIGURE, np.stack([signs, operands[:, 1:] + FIGURE], 2).reshape(count, 6)]
    )
    return _problems(rng, questions, np.stack(values[1:], 1)[:, :, None] + FIGURE, values[-1][:, None] + FIGURE)


def _tables(rng: np.random.Generator, count: int) -> Problems:
    keys, values = rng.integers(0, 2, (count, 5)), rng.integers(0, 10, (count, 5))
    asked = rng.integers(0, 2, (count, 1))
    first, same = ALPHABET.index("k"), keys == asked
    rows = np.stack([keys + first, values + FIGURE], axis=2)
    questions = np.column_stack([asked + first, np.full(count, ALPHABET.index("?")), rows.reshape(count, 10)])
    marks = np.where(same, ALPHABET.index("="), ALPHABET.index("-"))
    return _problems(rng, questions, np.stack([marks, rows[:, :, 1]], axis=2), same.sum(1)[:, None] + FIGURE)


def _rambling(rng: np.random.Generator, count: int) -> Problems:
    digits = rng.integers(0, 10, (count, 5))
    noise = rng.integers(0, 10, (count, 3, 4))
    return _problems(rng, digits + FIGURE, noise + FIGURE, digits[:, ::-1] + FIGURE)


def _problems(rng: np.random.Generator, questions: Ints, steps: Ints, answers: Ints) -> Problems:
    return Problems(*(a.astype(np.int64) for a in (questions, respelt(steps, rng), answers)))


TASKS = {
    task.name: task
    for task in (
        Task("sums", "the last figure of a sum of five digits; the trace is the running sums", _sums),
        Task(
            "comparisons",
            "which of two numbers of three digits is greater; the trace goes digit by digit",
            _comparisons,
        ),
        Task(
            "programs",
            "what three instructions (+, -, min, max) leave in a register; the trace is what it holds",
            _programs,
        ),
        Task("tables", "how many of five rows of a table have a key; the trace goes row by row", _tables),
        Task(
            "rambling",
            "five digits backwards; the trace is 12 digits that say nothing, and tokens are dear",
            _rambling,
            2,
        ),
    )
}
