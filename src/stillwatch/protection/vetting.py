"""Whether a key favours, by bad luck, what everybody writes; such a key is not issued.

Innocent models of one language share most of their pairs. A key that happens to favour those leans the same way on every
innocent suspect, so its errors are not independent from one suspect to the next. Vetting counts the distinct pairs of the
provider's own unwatermarked text: under a random key the favoured ones are binomial, and a key beyond ``LIMIT`` standard
deviations is turned down for the next one.

What it does to the null: a key that was let through is no longer drawn from all keys, but from about 68 % of them. The
probability of any event is therefore at most ``FACTOR`` times what it was (P(A|B) <= P(A)/P(B)), whatever the test. For a
sum of coins near its normal limit it is not raised at all: given that one normal variable lies within a symmetric interval,
another is never more likely to lie outside of one (Šidák, 1967; Royen, 2014), and by symmetry neither is one tail. Small
p-values, and large ones, become rarer then: they are no longer exactly uniform, but on the safe side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stillwatch.errors import Reject, Terminal, UsageError
from stillwatch.protection.coins import drawn, lanes
from stillwatch.protection.keys import Key
from stillwatch.protection.sequences import Ints, Pairs, Sequences, pairs_of
from stillwatch.protection.suspects import Text, texts

LIMIT = 1.0
"""Standard deviations beyond which a key is turned down."""
FACTOR = 1 / math.erf(LIMIT / math.sqrt(2))
"""How much more probable, at most, anything is under vetted keys than under all: 1.46 (by the normal limit of the count)."""
LEAST_PAIRS = 1000
"""Distinct pairs below which a text says too little of what everybody writes."""
MOST_ATTEMPTS = 64
"""Keys turned down one after the other that chance does not explain: 0.32 ** 64."""


@dataclass(frozen=True, slots=True)
class Vetted:
    """How a key does on a text: ``favoured`` of ``pairs`` distinct ones, ``z`` standard deviations from its share.

    ``turned_down`` are the z of the attempts before; ``text`` is a digest of the pairs, by which the text is known again.
    """

    pairs: int
    favoured: int
    z: float
    text: str
    turned_down: tuple[float, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the key may be issued."""
        return abs(self.z) <= LIMIT


@dataclass(frozen=True, slots=True)
class _Distinct:
    """Distinct pairs, each window once: ``of`` (n,) says which of ``windows`` each of ``tokens`` stands after."""

    windows: Ints
    of: Ints
    tokens: Ints
    digest: str

    @classmethod
    def of_pairs(cls, pairs: Pairs) -> _Distinct:
        told = hashlib.sha256(pairs.windows.astype("<i8").tobytes() + pairs.tokens.astype("<i8").tobytes())
        windows, of = np.unique(pairs.windows, axis=0, return_inverse=True)
        return cls(windows, of.reshape(-1), pairs.tokens, told.hexdigest())


@dataclass(frozen=True, slots=True)
class Vetting:
    """Vets keys on ``text``, tokens that the provider's model wrote without any watermark, or people did.

    UsageError, when first used for a width of windows, where the text has fewer than ``least`` distinct pairs.
    """

    text: Sequences
    least: int = LEAST_PAIRS
    _pairs: dict[int, _Distinct] = field(default_factory=dict, init=False, repr=False)

    def of(self, key: Key) -> Vetted:
        """How this key does, whether it is let through or not."""
        found = self._distinct(key.scheme.width)
        n, share = len(found.tokens), key.scheme.share
        first, second = lanes(key.words, found.windows)
        favoured = int(key.scheme.favours(drawn(first[found.of], second[found.of], found.tokens)).sum())
        return Vetted(n, favoured, (favoured - n * share) / math.sqrt(n * share * (1 - share)), found.digest)

    def first(self, derived: Callable[[int], Key]) -> tuple[Key, Vetted]:
        """The first of the keys ``derived(0)``, ``derived(1)`` and so on that is let through.

        Terminal where so many are turned down that it cannot be chance: then the text is one that the keys were used on.
        """
        turned_down: list[float] = []
        for key in map(derived, range(MOST_ATTEMPTS)):
            found = self.of(key)
            if found.holds:
                return key, Vetted(found.pairs, found.favoured, found.z, found.text, tuple(turned_down))
            turned_down.append(found.z)
        raise Terminal(
            f"{MOST_ATTEMPTS} keys one after the other favour, or avoid, the text they are vetted on",
            hint="that is not chance: give text that was written without a watermark",
        )

    def _distinct(self, width: int) -> _Distinct:
        if width not in self._pairs:
            found = _Distinct.of_pairs(pairs_of(self.text, width))
            if len(found.tokens) < self.least:
                raise UsageError(
                    f"the text has {len(found.tokens):,} distinct pairs of a window of {width} and its next token",
                    hint=f"give at least {self.least:,}: some hundred answers that were written without a watermark",
                )
            self._pairs[width] = found
        return self._pairs[width]


Tokenize = Callable[[str], Sequence[int]]


def unwatermarked(file: Path, tokenize: Tokenize | None = None) -> tuple[Sequences, tuple[Reject, ...]]:
    """The provider's own text in a file (``suspects.texts`` says of what kinds), and the rows that were left out.

    Rows without token ids are given theirs by ``tokenize``, the served model's own. UsageError where there is none.
    """
    found = texts(file)
    rows = [
        (list(t.prompt_tokens), list(t.tokens)) if t.tokens is not None else _of_words(t, tokenize, file)
        for t in found.rows
    ]
    heads = [len(prompt) for prompt, _ in rows]
    return Sequences.of([prompt + written for prompt, written in rows], prompts=heads), found.rejects


def _of_words(text: Text, tokenize: Tokenize | None, file: Path) -> tuple[list[int], list[int]]:
    if tokenize is None:
        raise UsageError(f"{file}: it holds texts, not token ids", hint="give the served model's --tokenizer FOLDER")
    return list(tokenize(text.prompt)) if text.prompt else [], list(tokenize(text.text))
