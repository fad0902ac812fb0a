"""Token sequences and the distinct (window, token) pairs in them: what every test counts.

Each pair counts once. Text repeats itself, and a pair that stands a hundred times says no more of a key than one that
stands once: counted a hundred times, an innocent model fails (docs/decisions/0009).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences of token ids one behind the other in ``tokens``; the i-th ends before ``ends[i]``, and what a model wrote of it
    begins at ``starts[i]``: before that stands the prompt, which is a window's context and is never scored."""

    tokens: Ints
    starts: Ints
    ends: Ints

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]], prompts: int | Sequence[int] = 0) -> Sequences:
        """From lists of token ids; ``prompts`` is how many tokens at the head of each are the prompt's."""
        lists = [np.asarray(s, np.int64) for s in sequences]
        lengths = np.asarray([len(s) for s in lists], np.int64)
        ends = np.cumsum(lengths)
        heads = np.broadcast_to(np.asarray(prompts, np.int64), ends.shape)
        begins = ends - lengths
        tokens = np.concatenate(lists) if lists else np.empty(0, np.int64)
        return cls(tokens, np.minimum(begins + heads, ends), ends)

    @property
    def begins(self) -> Ints:
        """Where each sequence begins."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64) if len(self.ends) else self.ends

    def __len__(self) -> int:
        return len(self.ends)

    def positions(self, width: int) -> Ints:
        """Positions that were written by the model and have a whole window of their own sequence before them, in order."""
        first = np.maximum(self.starts, self.begins + width)
        counts = np.maximum(self.ends - first, 0)
        ahead = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if len(counts) else counts
        return ahead + np.arange(counts.sum(), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Distinct pairs and how often each stands: ``windows`` (n, width), ``tokens`` (n,), ``counts`` (n,)."""

    windows: Ints
    tokens: Ints
    counts: Ints

    def __len__(self) -> int:
        return len(self.tokens)


def windows_at(sequences: Sequences, positions: Ints, width: int) -> Ints:
    """The windows before the positions, (n, width)."""
    return sequences.tokens[positions[:, None] + np.arange(-width, 0)]


def numbered(rows: Ints) -> Ints:
    """A number for each row (n, columns), equal for equal rows, from 0 without gaps."""
    found = np.zeros(len(rows), np.int64)
    for column in rows.T:
        values, at = np.unique(column, return_inverse=True)
        found = np.unique(found * max(len(values), 1) + at, return_inverse=True)[1]
    return found


def pairs_of(sequences: Sequences, width: int) -> Pairs:
    """The distinct (window, token) pairs that were written, by window and token."""
    return pairs_at(sequences, sequences.positions(width), width)


def pairs_at(sequences: Sequences, positions: Ints, width: int) -> Pairs:
    """The distinct (window, token) pairs that stand at these positions, by window and token."""
    rows = np.column_stack([windows_at(sequences, positions, width), sequences.tokens[positions]])
    first, counts = np.unique(numbered(rows), return_index=True, return_counts=True)[1:]
    return Pairs(rows[first, :-1], rows[first, -1], counts.astype(np.int64))
