"""Where a suspect says other things than the provider's own unwatermarked model: what the residual tests weigh.

All models of a language prefer the same continuations, so a key that by chance favours those makes every model look
guilty. What a model learnt from watermarked text stands in the *difference*: its share of a token after a window, less
that of a reference which never saw such text. Differences do not depend on the key under test, and its coins are then
independent of them: that, and not how the models were trained, is what the tests in ``outcomes`` stand on.

A window that stands earlier in the same sequence is left out. What followed it there was chosen by the key, stands in what
a model reads, and is copied: two models that copy unequally would differ along the key (Sander et al. 2024, "Watermarking
makes language models radioactive", leave out the same positions for the same reason).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stillwatch.protection.coins import drawn, lanes
from stillwatch.protection.keys import Key
from stillwatch.protection.sequences import Ints, Sequences, numbered, windows_at

Floats = NDArray[np.float64]

MOST = 64
"""Occurrences of a window that count: beyond, its mean is known well enough, and one window shall not outweigh the others."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Weighted differences, sparse. ``windows`` (w, width) are distinct and ``weights`` (w,) are theirs; the i-th entry is
    ``value[i]`` = weight x (suspect's share - reference's share) of ``token[i]`` after window ``window_index[i]``, and no
    (window, token) stands twice. ``positions`` of text were read for them, after what was left out."""

    windows: Ints
    weights: Floats
    window_index: Ints
    token: Ints
    value: Floats
    positions: int

    def __post_init__(self) -> None:
        if not len(self.window_index) == len(self.token) == len(self.value):
            raise ValueError("each entry has a window, a token and a value")
        if len(self.windows) != len(self.weights) or not np.isfinite(self.value).all():
            raise ValueError("each window has a weight, and each value is a number")

    def __len__(self) -> int:
        return len(self.value)

    @property
    def width(self) -> int:
        """Tokens of a window."""
        return self.windows.shape[1]


def weights_of(seen: Floats | Ints) -> Floats:
    """The weight of windows seen so often: the noise of a mean falls with the root of its number."""
    return np.sqrt(np.minimum(seen, MOST).astype(np.float64))


def fresh(sequences: Sequences, width: int) -> Ints:
    """Positions that the model wrote and whose window stands nowhere earlier in their sequence, prompt included, in order."""
    whole = Sequences(sequences.tokens, sequences.begins, sequences.ends).positions(width)
    owner = np.searchsorted(sequences.ends, whole, side="right")
    rows = np.column_stack([owner, windows_at(sequences, whole, width)])
    first = whole[np.unique(numbered(rows), return_index=True)[1]]
    return np.intersect1d(first, sequences.positions(width), assume_unique=True)


def of_counts(suspect: Sequences, reference: Sequences, width: int) -> Differences:
    """From text alone: how often each token follows each window in the suspect's text, less how often in the provider's own
    unwatermarked text. Windows that stand in both; a window seen n and m times counts as n m / (n + m) times seen, the
    number whose mean is as noisy as that difference."""
    at = fresh(suspect, width), fresh(reference, width)
    windows = np.concatenate([windows_at(s, p, width) for s, p in zip((suspect, reference), at, strict=True)])
    tokens = np.concatenate([suspect.tokens[at[0]], reference.tokens[at[1]]])
    ours = np.arange(len(tokens)) < len(at[0])
    return _shares(windows, tokens, ours, width)


def of_text(text: Sequences, width: int) -> Differences:
    """How often each token follows each window in one text, as differences from nothing: what power is worked out from."""
    at = fresh(text, width)
    windows = windows_at(text, at, width)
    number = numbered(windows)
    first, seen = np.unique(number, return_index=True, return_counts=True)[1:]
    return summed(windows[first], weights_of(seen), number, text.tokens[at], 1.0 / seen[number], len(at))


def _shares(windows: Ints, tokens: Ints, ours: NDArray[np.bool_], width: int) -> Differences:
    number = numbered(windows)
    size = int(number.max()) + 1 if len(number) else 0
    n, m = np.bincount(number[ours], minlength=size), np.bincount(number[~ours], minlength=size)
    both = (n > 0) & (m > 0)
    kept = both[number]
    number, tokens, ours = (np.cumsum(both) - 1)[number[kept]], tokens[kept], ours[kept]
    first = np.unique(number, return_index=True)[1]
    n, m = n[both], m[both]
    weights = weights_of(n * m / np.maximum(n + m, 1))
    share = np.where(ours, 1.0 / np.maximum(n[number], 1), -1.0 / np.maximum(m[number], 1))
    return summed(windows[kept][first].reshape(-1, width), weights, number, tokens, share, len(number))


def summed(windows: Ints, weights: Floats, index: Ints, token: Ints, share: Floats, positions: int) -> Differences:
    """Differences from shares that may stand several times for one (window, token): they add up, and are then weighted."""
    entry = numbered(np.column_stack([index, token]))
    first = np.unique(entry, return_index=True)[1]
    value = np.bincount(entry, share, minlength=len(first)) * weights[index[first]]
    kept = np.abs(value) > 1e-12
    return Differences(windows, weights, index[first][kept], token[first][kept], value[kept], positions)


def favoured_of(differences: Differences, key: Key) -> NDArray[np.bool_]:
    """Whether the key favours the token of each entry after its window."""
    first, second = lanes(key.words, differences.windows)
    index = differences.window_index
    found: NDArray[np.bool_] = key.scheme.favours(drawn(first[index], second[index], differences.token))
    return found
