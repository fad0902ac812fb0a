"""The reader: what sums over known tokens say a prompt is for, and whether it reads like training data being made.

A small network trained on our own wording and on public prompts (``training/``; docs/model-card.md says on which, how well
it does on sources it never saw, and what it gets wrong). It sees the whole text, its head and tail, the head of the system
text, the strongest of a few linear maps over windows of 32 tokens, and marks of shape. Every class has a score of its own;
classes do not compete, but ``other`` stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from stillwatch.fingerprints._lexicon import UNIT, WIDTH, Sums, weights
from stillwatch.fingerprints._tokens import BYTES, CODE, DIGITS, FENCE, LATEX, NUMBERED, SIGNS, TAGS
from stillwatch.types import CAPABILITIES, ELICITATIONS

CLASSES = (*CAPABILITIES, *ELICITATIONS[1:])
"""Columns of all scores: the capabilities, then the ways of eliciting training data."""
OFFERED_TOOLS, SHOWN_IMAGES = 2.0, 0.9
"""What tools offered add to the log-odds of ``tool_use`` and take from those of ``other``, and the least score of ``vision``
where images were sent: the prompt alone does not tell."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """Per row: the likeliest of CAPABILITIES and a bit for each that holds; the strongest elicitation 0-1 (5 % of honest prompts
    of unseen sources reach 0.5, 0.5 % reach 0.8), its index into ELICITATIONS (0 where none is at least ``LEAST``) and a bit for
    each at 0.5 or more; the sign code of the meaning (like meanings differ in few bits; 0 for none)."""

    capability: npt.NDArray[np.int8]
    capabilities: npt.NDArray[np.int16]
    elicitation: Floats
    kind: npt.NDArray[np.int8]
    kinds: npt.NDArray[np.int16]
    meaning: npt.NDArray[np.int64]


LEAST = 0.1
"""Elicitation score below which no kind is named."""


def marks(counts: npt.NDArray[np.int32]) -> Floats:
    """What the shape of each text shows, 0 or 1: fences, dense code, LaTeX, sums, numbers, tags, numbered items, length."""
    size = np.maximum(counts[:, BYTES], 1)
    shown = [
        counts[:, FENCE] > 0,
        (counts[:, CODE] > 0.03 * size) & (counts[:, CODE] >= 6),
        counts[:, LATEX] >= 2,
        (counts[:, SIGNS] > 0.03 * size) & (counts[:, DIGITS] >= 2) & (counts[:, CODE] <= 0.06 * size),
        (counts[:, DIGITS] > 0.02 * size) & (counts[:, DIGITS] >= 3) & (counts[:, CODE] <= 0.02 * size),
        counts[:, TAGS] >= 4,
        counts[:, NUMBERED] >= 6,
        counts[:, BYTES] > 6000,
    ]
    return np.column_stack(shown).astype(np.float32)


def unit(sums: Floats) -> Floats:
    """Each row brought to the length UNIT; a row of nothing stays nothing."""
    norm = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    return sums * (UNIT / np.where(norm > 0, norm, np.inf)).astype(np.float32)[:, None]


def features(prompt: Sums, counts: npt.NDArray[np.int32], system: Sums) -> Floats:
    """What the network sees of each row."""
    whole = unit(prompt.whole + system.whole)
    peaks = np.maximum(prompt.peaks, system.peaks)
    return np.concatenate(
        [whole, unit(prompt.head), unit(prompt.tail), unit(system.head), peaks, marks(counts)], axis=1, dtype=np.float32
    )


def logits(seen: Floats, w: dict[str, Any]) -> Floats:
    """Raw log-odds of each class."""
    hidden = np.maximum(times(seen, w["hidden"]) + w["hidden_bias"], 0)
    result: Floats = times(hidden, w["out"]) + times(seen, w["skip"]) + w["bias"]
    return result


def times(rows: Floats, matrix: Floats) -> Floats:
    """``rows @ matrix``, each row by itself and in one order: a library's product may round a row as its neighbours have it, and
    what is read in an exchange must not hang on those it came with."""
    found = np.zeros((len(rows), matrix.shape[1]), np.float32)
    _add_products(np.ascontiguousarray(rows), np.ascontiguousarray(matrix), found)
    return found


@njit(cache=True, nogil=True)
def _add_products(rows: Floats, matrix: Floats, found: Floats) -> None:
    """Four terms at a time, so that sums are loaded and stored a quarter as often: as quick as a library's."""
    terms, width = matrix.shape
    fours = terms - terms % 4
    for i in range(rows.shape[0]):
        row, into = rows[i], found[i]
        for k in range(0, fours, 4):
            a, b, c, d = row[k], row[k + 1], row[k + 2], row[k + 3]
            for j in range(width):
                into[j] += a * matrix[k, j] + b * matrix[k + 1, j] + c * matrix[k + 2, j] + d * matrix[k + 3, j]
        for k in range(fours, terms):
            for j in range(width):
                into[j] += row[k] * matrix[k, j]


def sigmoid(odds: Floats) -> Floats:
    """Log-odds as probabilities."""
    return (1 / (1 + np.exp(-np.clip(odds, -30, 30)))).astype(np.float32, copy=False)


def scores(seen: Floats, offered: npt.NDArray[np.bool_], shown: npt.NDArray[np.bool_]) -> Floats:
    """Calibrated 0-1 score of each of CLASSES. ``offered`` tools and ``shown`` images count for their capability."""
    w = weights()
    raw = logits(seen, w) * w["slope"] + w["shift"]
    raw[:, CLASSES.index("tool_use")] += OFFERED_TOOLS * offered
    raw[:, CLASSES.index("other")] -= OFFERED_TOOLS * offered
    result = sigmoid(raw)
    vision = result[:, CLASSES.index("vision")]
    vision[shown] = np.maximum(vision[shown], SHOWN_IMAGES)
    return result


def judge(seen: Floats, given: Floats, read: npt.NDArray[np.bool_]) -> Verdict:
    """Decides from features and scores; a row of which nothing was ``read`` is ``other``, without elicitation."""
    split = len(CAPABILITIES)
    able = np.where(read[:, None], given[:, :split], np.eye(split, dtype=np.float32)[CAPABILITIES.index("other")])
    eliciting = np.where(read[:, None], given[:, split:], 0)
    best = np.argmax(able, axis=1)
    strongest = eliciting.max(axis=1, initial=0).astype(np.float32)
    kind = np.where(strongest >= LEAST, np.argmax(eliciting, axis=1) + 1, 0)
    return Verdict(
        best.astype(np.int8),
        _bits(holding(able)),
        strongest,
        kind.astype(np.int8),
        _bits(eliciting >= 0.5) << 1,
        meaning(seen),
    )


def holding(able: Floats) -> npt.NDArray[np.bool_]:
    """Which capabilities hold: those of at least 0.5 and the likeliest; ``other`` alone."""
    best, other = np.argmax(able, axis=1), CAPABILITIES.index("other")
    holds = able >= 0.5
    holds[np.arange(len(able)), best] = True
    holds[:, other] = best == other
    holds[best == other, :other] = False
    return holds


def meaning(seen: Floats) -> npt.NDArray[np.int64]:
    """A bit for each side of 64 planes through the centre of all meanings; 0 where no token is known."""
    whole = seen[:, :WIDTH]
    bits = np.packbits(whole > weights()["centre"], axis=1, bitorder="little")
    code: npt.NDArray[np.int64] = np.ascontiguousarray(bits).view("<i8")[:, 0]
    return np.where(whole.any(axis=1), np.where(code == 0, 1, code), 0)


def _bits(holds: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    return (holds @ (1 << np.arange(holds.shape[1]))).astype(np.int16)


def rows_of(sums: Sums, rows: npt.NDArray[np.int64]) -> Sums:
    """The sums of a few distinct texts, laid out by row."""
    return Sums(sums.whole[rows], sums.head[rows], sums.tail[rows], sums.peaks[rows], sums.known[rows])
