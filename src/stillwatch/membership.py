"""Which accounts belong to a cluster for reasons of their own: a naive Bayes of its profile against everybody else.

For each value, how much more of the cluster's members hold it than of the other customers? An account's exchanges are
a mixture: a share ``BLEND`` drawn like the cluster's, the rest like anybody's, so that camouflage is no proof of
innocence and one matching value none of guilt. Every account is scored against the profile of the *others* (its own
holdings left out), the strongest kind counts within a family, families add. An account joins with at least
``Rules.bits`` in total and at least two families that speak for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.kinds import KINDS
from stillwatch.types import FAMILIES

BLEND = 0.3
CEILING, FLOOR = 12.0, -2.0
"""Bits one family can add to or take from an account; a share of camouflage must not outweigh a real trace."""

KIND_FAMILY = np.array([FAMILIES.index(KINDS[k].family) for k in KIND_NAMES])


@dataclass(frozen=True, slots=True)
class Rules:
    """When an account is a member: total bits, and families that must each give at least ``family_bits``."""

    bits: float = 6.0
    family_bits: float = 2.0
    families: int = 2
    rounds: int = 4


@dataclass(frozen=True, slots=True)
class Scored:
    """Candidates of one cluster: bits by family, (accounts, families), and their total with the prior."""

    accounts: np.ndarray
    bits: np.ndarray
    total: np.ndarray

    def members(self, rules: Rules) -> np.ndarray:
        """Accounts that pass ``rules``, sorted."""
        speaking = (self.bits >= rules.family_bits).sum(axis=1)
        return np.sort(self.accounts[(self.total >= rules.bits) & (speaking >= rules.families)])


def score(holdings: Holdings, members: np.ndarray) -> Scored:
    """Bits of every account that shares anything telling with ``members``, by family."""
    size = len(members)
    _, held = holdings.values_of(members)
    values, inside = np.unique(held, return_counts=True)
    outside = (holdings.holders[values] - inside + 0.5) / (holdings.n - size + 1)
    keep = (inside >= 2) & (inside / size > 1.5 * outside)
    values, inside, outside = values[keep], inside[keep], outside[keep]
    position, account = holdings.holders_of(values)
    own = np.isin(account, members, assume_unique=False)
    s, total = inside[position] - own, size - own
    ratio = (s + 2 * outside[position]) / (total + 2) / outside[position]
    # A value's own sharing is chance when few others hold it: shrink towards no evidence with fewer than two others.
    gain = np.where(s >= 1, np.log2(BLEND * ratio + 1 - BLEND), np.log2(1 - BLEND))
    candidates, row = np.unique(account, return_inverse=True)
    kind = holdings.kind[values[position]]
    shape = (len(candidates), len(KIND_NAMES))
    flat = row * shape[1] + kind
    bits = np.bincount(flat, gain, shape[0] * shape[1]).reshape(shape)
    matched = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    held_at, held_value = holdings.values_of(candidates)
    have = np.bincount(held_at * shape[1] + holdings.kind[held_value], minlength=shape[0] * shape[1]).reshape(shape)
    bits = np.clip(bits + (have - matched) * np.log2(1 - BLEND), FLOOR, CEILING)
    family = np.full((shape[0], len(FAMILIES)), -np.inf)
    for k, f in enumerate(KIND_FAMILY):
        family[:, f] = np.maximum(family[:, f], np.where(have[:, k] > 0, bits[:, k], -np.inf))
    family[np.isneginf(family)] = 0.0
    prior = np.log2(size / holdings.n)
    return Scored(candidates, family, family.sum(axis=1) + prior)


def refine(holdings: Holdings, proposals: list[np.ndarray], rules: Rules) -> list[tuple[np.ndarray, Scored]]:
    """Grow and prune each proposal until it stands still; merge those that claim each other's members.

    Returns clusters, largest first, each account in at most one: the one it has most bits for.
    """
    clusters = [p for p in proposals if len(p) >= 3]
    for _ in range(rules.rounds):
        scored = [score(holdings, c) for c in clusters]
        clusters = claim(scored, rules)
        clusters = merge(clusters, [score(holdings, c) for c in clusters], rules)
    final = [(c, score(holdings, c)) for c in clusters]
    return sorted(final, key=lambda pair: (-len(pair[0]), pair[0][0]))


def claim(scored: list[Scored], rules: Rules) -> list[np.ndarray]:
    """Members by cluster, where an account that several claim goes to the one with most bits."""
    if not scored:
        return []
    claims = [s.members(rules) for s in scored]
    owner: dict[int, tuple[float, int]] = {}
    account = np.concatenate(claims)
    which = np.repeat(np.arange(len(claims)), [len(c) for c in claims])
    total = np.concatenate([s.total[np.searchsorted(s.accounts, c)] for s, c in zip(scored, claims)])
    del owner
    order = np.lexsort((which, -total, account))
    first = np.ones(len(order), bool)
    first[1:] = account[order][1:] != account[order][:-1]
    best = order[first]
    parts = [np.sort(account[best[which[best] == k]]) for k in range(len(claims))]
    return [p for p in parts if len(p) >= 3]


def merge(clusters: list[np.ndarray], scored: list[Scored], rules: Rules) -> list[np.ndarray]:
    """Join clusters of which the larger would accept at least half of the smaller's members as its own."""
    owner = {int(a): k for k, c in enumerate(clusters) for a in c}
    parent = list(range(len(clusters)))

    def root(k: int) -> int:
        while parent[k] != k:
            k = parent[k]
        return k

    for k in sorted(range(len(clusters)), key=lambda k: -len(clusters[k])):
        accepted = scored[k].members(rules)
        others = np.array([owner.get(int(a), -1) for a in accepted])
        for other, taken in zip(*np.unique(others[(others >= 0) & (others != k)], return_counts=True)):
            if taken >= 0.5 * len(clusters[other]) and len(clusters[other]) <= len(clusters[k]):
                parent[root(int(other))] = root(k)
    joined: dict[int, list[np.ndarray]] = {}
    for k, c in enumerate(clusters):
        joined.setdefault(root(k), []).append(c)
    return [np.sort(np.concatenate(parts)) for parts in joined.values()]
