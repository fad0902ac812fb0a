"""From proposals to clusters: members join and leave, clusters part and merge, until they stand still."""

from __future__ import annotations

import numpy as np

from stillwatch.evidence import Holdings
from stillwatch.membership import Rules, Scored, vouched
from stillwatch.parting import split


def refine(holdings: Holdings, proposals: list[np.ndarray], rules: Rules) -> list[tuple[np.ndarray, Scored]]:
    """Grow and prune each proposal until it stands still; merge those that claim each other's members.

    Returns clusters, largest first, each account in at most one: the one it has most bits for.
    """
    clusters = [p for p in proposals if len(p) >= 3]
    known: dict[bytes, Scored] = {}

    def scores(cluster: np.ndarray) -> Scored:
        """Most clusters stand still from one round to the next; their scores are kept."""
        key = cluster.tobytes()
        if key not in known:
            known[key] = vouched(holdings, cluster)
        return known[key]

    for _ in range(rules.rounds):
        # An account that two clusters claim alike goes to the first.
        clusters.sort(key=lambda c: (-len(c), c.tobytes()))
        scored = [scores(c) for c in clusters]
        clusters = [part for c in claim(scored, rules, clusters) for part in split(holdings, c)]
        clusters = merge(clusters, [scores(c) for c in clusters], rules)
    final = [(c, scores(c)) for c in clusters]
    return sorted(final, key=lambda pair: (-len(pair[0]), pair[0][0]))


def claim(scored: list[Scored], rules: Rules, present: list[np.ndarray]) -> list[np.ndarray]:
    """Members by cluster, where an account that several claim goes to the one with most bits."""
    if not scored:
        return []
    claims = [s.members(rules, c) for s, c in zip(scored, present)]
    account = np.concatenate(claims)
    which = np.repeat(np.arange(len(claims)), [len(c) for c in claims])
    total = np.concatenate([s.total[np.searchsorted(s.accounts, c)] for s, c in zip(scored, claims)])
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
