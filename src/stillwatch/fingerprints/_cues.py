"""The cue table (``cues.toml``): words and phrases that speak for a capability or a way of eliciting training data.

A cue counts once a text, with its weight; the prompt counts in full, the system text by half. The strongest capability
wins if it beats ``other``. The strongest elicitation kind gives ``elicitation``, which is 0 without cues, about 0.6 at
one plain sign and near 1 at several. What cannot be told from one prompt is left to populations.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.errors import UsageError
from stillwatch.fingerprints._scan import BYTES, CODE, DIGITS, FENCE, LATEX, NUMBERED, SIGNS, TAGS, Cues, grams
from stillwatch.privacy import spans
from stillwatch.types import CAPABILITIES, ELICITATIONS

CLASSES = len(CAPABILITIES) + len(ELICITATIONS)
SYSTEM_WEIGHT = 0.5
STRENGTHS = {"strong": 3.0, "medium": 1.5, "weak": 0.7, "against": -2.0}
_BLOOM_WORDS = 1024

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CueBook:
    """The compiled table, the weight of each structure mark by class, and the bias of each class."""

    cues: Cues
    structure: Mapping[str, Floats]
    bias: Floats


@dataclass(frozen=True)
class Verdict:
    """Per row: index into CAPABILITIES, elicitation 0-1, index into ELICITATIONS."""

    capability: npt.NDArray[np.int8]
    elicitation: Floats
    kind: npt.NDArray[np.int8]


def class_index(section: str, name: str) -> int:
    """Column of a class among the scores: capabilities first, then elicitations."""
    names = CAPABILITIES if section == "capability" else ELICITATIONS
    if name not in names:
        raise UsageError(f"cues.toml: no {section} is called {name!r}")
    return names.index(name) + (0 if section == "capability" else len(CAPABILITIES))


@cache
def cue_book() -> CueBook:
    """The package's table, compiled once."""
    return compile_cues(tomllib.loads(files(__package__).joinpath("cues.toml").read_text("utf-8")))


def compile_cues(table: Mapping[str, Any]) -> CueBook:
    """Compiles a parsed table; a phrase that is listed more than once gets all its weights and meanings."""
    concepts = {name: k for k, name in enumerate(table.get("concepts", {}))}
    entries = [
        *_entries(table),
        *((word, concepts[n], None) for n, ws in table.get("concepts", {}).items() for word in ws),
    ]
    texts, targets, weights = zip(*entries, strict=True)
    hashes = grams(spans(pa.array(texts, pa.large_string())))
    if not hashes.all():
        raise UsageError(f"cues.toml: {texts[int(np.argmin(hashes))]!r} is empty or longer than four tokens")
    weighed: dict[int, list[tuple[int, float]]] = defaultdict(list)
    means: dict[int, list[int]] = defaultdict(list)
    for gram, target, weight in zip(hashes.tolist(), targets, weights, strict=True):
        if weight is None:
            means[gram].append(target)
        else:
            weighed[gram].append((target, weight))
    structure = {k: _weights(v) for k, v in table["structure"].items()}
    return CueBook(_compile(weighed, means, _rules(table, concepts), len(concepts)), structure, _weights(table["bias"]))


@dataclass(frozen=True)
class Rule:
    """Concepts that say something when they stand within ``within`` tokens of each other."""

    concepts: tuple[int, ...]
    within: int
    target: int
    weight: float


def _rules(table: Mapping[str, Any], concepts: Mapping[str, int]) -> list[Rule]:
    rules = []
    for name, given in table.get("rules", {}).items():
        for near, within, weight in given:
            unknown = [c for c in near if c not in concepts]
            if unknown or not 2 <= len(near) <= 3:
                raise UsageError(f"cues.toml: rule {near} of {name} needs two or three declared concepts")
            rules.append(Rule(tuple(concepts[c] for c in near), within, class_index("elicitation", name), weight))
    return rules


def _entries(table: Mapping[str, Any]) -> Iterator[tuple[str, int, float]]:
    for section in ("capability", "elicitation"):
        for name, strengths in table[section].items():
            for strength, phrases in strengths.items():
                for phrase in phrases:
                    yield phrase, class_index(section, name), STRENGTHS[strength]


def _weights(given: Mapping[str, Mapping[str, float]]) -> Floats:
    weights = np.zeros(CLASSES, np.float32)
    for section, names in given.items():
        for name, weight in names.items():
            weights[class_index(section, name)] = weight
    return weights


def _compile(
    weighed: Mapping[int, list[tuple[int, float]]], means: Mapping[int, list[int]], rules: list[Rule], concepts: int
) -> Cues:
    found = list(dict.fromkeys([*weighed, *means]))
    size = 1 << (4 * len(found)).bit_length()
    slots, cue = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    bloom = np.zeros(_BLOOM_WORDS, np.uint64)
    for number, gram in enumerate(found):
        bloom[gram >> 54] |= np.uint64(1 << ((gram >> 48) & 63))
        at = gram & (size - 1)
        while slots[at]:
            at = (at + 1) & (size - 1)
        slots[at], cue[at] = gram, number
    first, pairs = _rows([weighed.get(g, []) for g in found])
    target, weight = np.array([t for t, _ in pairs], np.int32), np.array([w for _, w in pairs], np.float32)
    meant, concept = _rows([means.get(g, []) for g in found])
    told, rule = _rows([[k for k, r in enumerate(rules) if c in r.concepts] for c in range(concepts)])
    table = np.full((len(rules), 5), -1, np.int32)
    for k, r in enumerate(rules):
        table[k, : len(r.concepts)] = r.concepts
        table[k, 3:] = r.within, r.target
    return Cues(
        slots, cue, bloom, first, target, weight, meant, np.array(concept, np.int32), told, np.array(rule, np.int32),
        table, np.array([r.weight for r in rules], np.float32),
    )  # fmt: skip


def _rows(lists: list[list[Any]]) -> tuple[npt.NDArray[np.int32], list[Any]]:
    """Lists one behind the other, and where each starts."""
    return np.cumsum([0, *(len(x) for x in lists)]).astype(np.int32), [item for x in lists for item in x]


def structure_marks(counts: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[np.bool_]]:
    """What the shape of a text shows, by the counts of ``_scan``."""
    size = np.maximum(counts[:, BYTES], 1)
    return {
        "fence": counts[:, FENCE] > 0,
        "code_dense": (counts[:, CODE] > 0.03 * size) & (counts[:, CODE] >= 6),
        "latex": counts[:, LATEX] >= 2,
        "sums": (counts[:, SIGNS] > 0.03 * size) & (counts[:, DIGITS] >= 2) & (counts[:, CODE] <= 0.06 * size),
        "numbers": (counts[:, DIGITS] > 0.02 * size) & (counts[:, DIGITS] >= 3) & (counts[:, CODE] <= 0.02 * size),
        "tagged": counts[:, TAGS] >= 4,
        "numbered": counts[:, NUMBERED] >= 6,
        "long": counts[:, BYTES] > 6000,
    }


def with_structure(scores: Floats, counts: npt.NDArray[np.int32], book: CueBook) -> Floats:
    """Cue scores plus the weights of the structure marks."""
    total = scores.copy()
    for name, mark in structure_marks(counts).items():
        if name in book.structure:
            total += np.multiply.outer(mark.astype(np.float32), book.structure[name])
    return total


def judge(scores: Floats, book: CueBook) -> Verdict:
    """Decides from the total scores of each row."""
    split = len(CAPABILITIES)
    capability = np.argmax(scores[:, :split] + book.bias[:split], axis=1).astype(np.int8)
    strengths = np.maximum(scores[:, split:] + book.bias[split:], 0)
    kind = np.argmax(strengths, axis=1).astype(np.int8)
    best = strengths.max(axis=1, initial=0)
    return Verdict(
        capability, (1 - np.exp(-((best / 3) ** 2))).astype(np.float32), np.where(best > 0, kind, 0).astype(np.int8)
    )
