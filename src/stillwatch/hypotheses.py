"""Values first: which rare values are held by the same accounts, and so might be one operator's?

A rare value is a hypothesis; two that far more accounts hold together than chance gives belong to one. Values hang together in
communities (Leiden, Traag et al. 2019) whatever else their holders do, so ordinary traffic that an operator mixes in, or a
proxy's customers bring, adds no tie: it touches values that everybody holds. n holders cost n rows, and an account with v rare
values v^2 / 2 pairs, of its ``RAREST`` alone. A community proposes its holders; so do the parts into which these fall.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import igraph
import numpy as np

from stillwatch.clusters import communities, dense
from stillwatch.evidence import KIND_NAMES, Holdings, ranges
from stillwatch.kinds import KINDS

RAREST = 80
"""Rare values of one account that are paired, the rarest first."""
RESOLUTIONS = (1.0, 20.0)
"""From coarse to fine: an operator may use what others use too, and then only a fine look sets its values apart."""
MIN_BITS, MIN_LIFT, MIN_OVERLAP = 10.0, 4.0, 0.15
"""What two values need to belong together: bits and lift over chance, and so much of the rarer one's holders."""
NEARLY, LEAST_LIFT = 0.75, 1.25
"""Where such a lift is out of reach, since more than a quarter of all hold one of the two: so much of the rarer one's
holders, and such a lift."""
SMALLEST = 6
LEAST_HOLDERS = np.array([2 if KINDS[k].family == "identity" else 4 for k in KIND_NAMES])


def hypotheses(holdings: Holdings, seed: int = 7) -> list[np.ndarray]:
    """Groups of accounts that may have one operator, each sorted; they overlap, and most are something else."""
    values = rare_values(holdings)
    left, right, weight = belongings(holdings, values)
    if not len(left):
        return []
    found: dict[bytes, np.ndarray] = {}
    graph = igraph.Graph(n=len(values), edges=np.column_stack([left, right]), edge_attrs={"weight": weight})
    for resolution in RESOLUTIONS:
        random.seed(seed)
        igraph.set_random_number_generator(random)
        label = np.asarray(
            graph.community_leiden(
                objective_function="modularity", weights="weight", resolution=resolution, n_iterations=4
            ).membership
        )
        for group in proposed(holdings, values, label):
            found.setdefault(group.tobytes(), group)
    return sorted(found.values(), key=lambda g: (-len(g), g[0]))


def rare_values(holdings: Holdings) -> np.ndarray:
    """The values that are paired: few hold them, and more than one."""
    cap = holdings.cap()
    return np.flatnonzero((cap > 0) & (holdings.holders <= cap) & (holdings.holders >= LEAST_HOLDERS[holdings.kind]))


def belongings(holdings: Holdings, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of positions in ``values`` that belong together, with a weight in (0, 1].

    How many accounts would hold both by chance is worked out from how common they are and how busy the holders of either are.
    """
    position, account = holdings.holders_of(values)
    degree = np.bincount(account, minlength=len(holdings.account_at) - 1)
    held = holdings.holders[values]
    keys = np.concatenate([np.zeros(0, np.int64), *pairs(position, account, degree, held)])
    if not len(keys):
        return keys, keys, keys.astype(float)
    keys, shared = np.unique(keys, return_counts=True)
    keys, shared = keys[shared >= 2], shared[shared >= 2]
    left, right = keys // len(values), keys % len(values)
    busy = np.bincount(position, degree[account], len(values)) / held / degree[degree > 0].mean()
    many = np.array([KINDS[k].table == "facts" for k in KIND_NAMES])[holdings.kind[values]]
    busier = np.maximum(np.where(many[left], busy[right], 1.0), np.where(many[right], busy[left], 1.0))
    due = held[left] * held[right] / holdings.n * np.maximum(1.0, busier)
    bits = np.where(shared > due, shared * np.log2(shared / due) - (shared - due) / np.log(2), 0.0)
    overlap = shared / np.minimum(held[left], held[right])
    common = MIN_LIFT * np.maximum(held[left], held[right]) > holdings.n
    lifted = (shared >= MIN_LIFT * due) | (common & (overlap >= NEARLY) & (shared >= LEAST_LIFT * due))
    keep = lifted & (bits >= MIN_BITS) & (overlap >= MIN_OVERLAP)
    weight = overlap * np.minimum(bits, 30.0) / 30.0
    return left[keep], right[keep], weight[keep]


def pairs(position: np.ndarray, account: np.ndarray, degree: np.ndarray, held: np.ndarray) -> Iterator[np.ndarray]:
    """Keys ``left * values + right`` of all pairs of values that an account holds, accounts of one degree at a time."""
    order = np.lexsort((held[position], account))
    position, account = position[order], account[order]
    first = np.cumsum(degree) - degree
    for size in np.unique(np.minimum(degree, RAREST)):
        if size < 2:
            continue
        accounts = np.flatnonzero(degree == size if size < RAREST else degree >= RAREST)
        held_by = np.sort(position[first[accounts][:, None] + np.arange(size)], axis=1)
        i, j = np.triu_indices(size, 1)
        for block in np.array_split(held_by, max(1, len(held_by) * len(i) // 10_000_000)):
            yield (block[:, i].astype(np.int64) * len(held) + block[:, j]).ravel()


def proposed(holdings: Holdings, values: np.ndarray, label: np.ndarray) -> Iterator[np.ndarray]:
    """For each community of at least two values the accounts that hold two of them, and the parts they fall into."""
    order = np.argsort(label, kind="stable")
    for community in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        if len(community) < 2:
            continue
        position, account = ranges(holdings.value_at, holdings.by_value, values[community])
        accounts, row, count = np.unique(account, return_inverse=True, return_counts=True)
        group = accounts[count >= 2]
        if len(group) < SMALLEST:
            continue
        yield group
        if len(group) >= 20:
            inside = count[row] >= 2
            yield from parts(holdings, values[community], group, position[inside], account[inside])


def parts(
    holdings: Holdings, values: np.ndarray, group: np.ndarray, position: np.ndarray, account: np.ndarray
) -> Iterator[np.ndarray]:
    """Communities of the accounts of one group over its values."""
    number, kept = dense(position)
    weight = np.minimum(12.0, np.log2(holdings.n / holdings.holders[values[kept]]))
    row = np.searchsorted(group, account)
    for part in communities(row, number, weight[number], len(group), len(kept)):
        if SMALLEST <= len(part) < len(group):
            yield np.sort(group[part])
