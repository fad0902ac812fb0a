"""Known campaigns in what has just arrived: who else holds the values that mark one, scored as its members were.

Between two judgements nothing new is discovered. But an account that takes up a known campaign's wordings from its networks
is told within the step it first does so: a replacement for a banned head gives away as little as its owner's log delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillwatch.cases import PART, Case
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.membership import (
    COMMON,
    KIND_TELLS,
    Rules,
    Scored,
    by_family,
    by_kind,
    held_against,
    marking,
    once,
)
from stillwatch.types import FAMILIES

_MIX = np.array([(0x9E3779B97F4A7C15 * (2 * k + 1)) & 0x7FFFFFFFFFFFFFFF for k in range(len(KIND_NAMES))], np.int64)


def keys_of(kind: np.ndarray | int, value: np.ndarray) -> np.ndarray:
    """One int64 for each (kind, value)."""
    return np.bitwise_xor(value, _MIX[kind])


@dataclass(frozen=True, slots=True)
class Profile:
    """What marks one campaign. ``keys`` are sorted, with the bits (``gain``) and number of the kind of each;
    ``lacking`` is what an account loses by kind that shows none of it; ``prior`` are the bits an account starts with.
    ``markers`` are its wordings and system texts, sorted; ``share`` is the least share of an account's exchanges that
    must be built from them, or read like training data being made, for it to take part."""

    keys: np.ndarray
    gain: np.ndarray
    kind: np.ndarray
    prior: float
    lacking: np.ndarray
    markers: np.ndarray
    share: float

    @classmethod
    def of(cls, holdings: Holdings, case: Case) -> Profile:
        """The profile of a judged case."""
        tally, _, _, lacking = held_against(holdings, case.members, COMMON)
        kind = holdings.kind[tally.values]
        keys = keys_of(kind, holdings.value[tally.values])
        order = np.argsort(keys)
        rows = case.tables["case_members"]
        taken = rows["taken"].to_numpy() / rows["exchanges"].to_numpy()
        return cls(
            keys[order], tally.gain()[order], kind[order], float(np.log2(case.size / holdings.n)),
            lacking, np.sort(case.tables["case_markers"]["wording"].to_numpy()), float(PART * np.median(taken)),
        )  # fmt: skip

    def score(self, accounts: np.ndarray, row: np.ndarray, kind: np.ndarray, keys: np.ndarray) -> Scored:
        """Bits of ``accounts`` that hold ``keys``, each of a ``kind``; ``row`` is the position of the account that holds it.

        Who has shown nothing of a kind yet lacks nothing of it.
        """
        if not len(self.keys):
            return Scored(accounts, np.zeros((len(accounts), len(FAMILIES))), np.full(len(accounts), -np.inf))
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        same = self.keys[at] == keys
        kinds = by_kind(len(accounts), row[same], kind[same], self.gain[at[same]], row, kind)
        bits = by_family(kinds)
        lacks = ~marking(kinds) & np.isfinite(kinds)
        return Scored(accounts, bits, once(bits) + self.prior + lacks @ self.lacking)


@dataclass(frozen=True, slots=True)
class Book:
    """The profiles of all known campaigns, and the keys by which a row is worth a second look."""

    profiles: tuple[Profile, ...]
    campaign: np.ndarray
    telling: np.ndarray

    @classmethod
    def of(cls, profiles: Sequence[tuple[int, Profile]]) -> Book:
        """From pairs (number of the campaign, profile)."""
        telling = [p.keys[KIND_TELLS[p.kind] & (p.gain > 0)] for _, p in profiles]
        known = np.unique(np.concatenate(telling)) if telling else np.zeros(0, np.int64)
        return cls(tuple(p for _, p in profiles), np.array([k for k, _ in profiles], np.int64), known)

    def tells(self, keys: np.ndarray) -> np.ndarray:
        """Which of ``keys`` mark any known campaign."""
        if not len(self.telling):
            return np.zeros(len(keys), bool)
        at = np.minimum(np.searchsorted(self.telling, keys), len(self.telling) - 1)
        return np.asarray(self.telling[at] == keys)


@dataclass(frozen=True, slots=True)
class Seen:
    """What some accounts have been seen with so far.

    Values: ``row`` (position in ``accounts``), ``kind``, ``keys``; exchanges: ``asker`` (position), ``wording``,
    ``system``, ``elicited``.
    """

    accounts: np.ndarray
    row: np.ndarray
    kind: np.ndarray
    keys: np.ndarray
    asker: np.ndarray
    wording: np.ndarray
    system: np.ndarray
    elicited: np.ndarray


def recognise(book: Book, seen: Seen, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Accounts that belong to a known campaign, and its number: the one they have most bits for."""
    best = np.full(len(seen.accounts), -np.inf)
    which = np.full(len(seen.accounts), -1)
    exchanges = np.maximum(1, np.bincount(seen.asker, minlength=len(seen.accounts)))
    for number, profile in zip(book.campaign, book.profiles):
        scored = profile.score(seen.accounts, seen.row, seen.kind, seen.keys)
        taken = np.bincount(
            seen.asker[seen.elicited | np.isin(seen.wording, profile.markers) | np.isin(seen.system, profile.markers)],
            minlength=len(seen.accounts),
        )
        joins = scored.joining(rules, np.zeros(0, np.int64))
        passes = np.isin(seen.accounts, joins) & (taken > 0) & (taken >= profile.share * exchanges)
        better = passes & (scored.total > best)
        best[better], which[better] = scored.total[better], number
    found = which >= 0
    return seen.accounts[found], which[found]
