"""Which accounts belong to a cluster for reasons of their own: a naive Bayes of its profile against everybody else.

For each value, how much more of the cluster's members hold it than of the other customers? An account's exchanges are
a mixture: a share ``BLEND`` drawn like the cluster's, the rest like anybody's, so that camouflage is no proof of
innocence and one matching value none of guilt. Every account is scored against the profile of the *others* (its own
holdings left out), the strongest kind counts within a family, families add. An account joins with at least
``Rules.bits`` in total and at least two families that
speak for it and do not read the same trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillwatch.clusters import communities, dense
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.kinds import KINDS
from stillwatch.types import FAMILIES

BLEND = 0.3
CEILING, FLOOR = 12.0, -2.0
"""Bits one family can add to or take from an account; a share of camouflage must not outweigh a real trace."""

VOUCH = 0.0
"""Bits, prior included, that the other families must give a member before its own holdings count for a family."""

TRACES = {"identity": 0, "network": 1, "template": 2, "content": 2, "tempo": 3, "migration": 4}
"""Which trace a family reads: wording and content are both read off the prompts, so they speak with one voice."""

DESCRIBED = 1.9
"""Bits a kind that only describes (a client, a setting, hours of the day) can give: never enough to speak for an account."""

KIND_MANY = np.array([KINDS[k].table == "facts" for k in KIND_NAMES])
KIND_TELLS = np.array([KINDS[k].cap > 0 for k in KIND_NAMES])
KIND_CEILING = np.array([CEILING if KINDS[k].cap else DESCRIBED for k in KIND_NAMES])
KIND_FAMILY = np.array([FAMILIES.index(KINDS[k].family) for k in KIND_NAMES])


@dataclass(frozen=True, slots=True)
class Rules:
    """When an account is a member: ``bits`` in total to join and ``stay`` to remain, since a cluster that is pruned says
    less about those who are left; and ``families`` traces that must each give at least ``family_bits``."""

    bits: float = 6.0
    stay: float = 2.0
    family_bits: float = 2.0
    families: int = 2
    rounds: int = 4


@dataclass(frozen=True, slots=True)
class Scored:
    """Candidates of one cluster: bits by family, (accounts, families), and their total with the prior."""

    accounts: np.ndarray
    bits: np.ndarray
    total: np.ndarray

    def members(self, rules: Rules, present: np.ndarray | None = None) -> np.ndarray:
        """Accounts that pass ``rules``, sorted; those ``present`` already need less to stay."""
        speaking = np.zeros(len(self.accounts), np.int64)
        for trace in sorted(set(TRACES.values())):
            mine = [f for f, name in enumerate(FAMILIES) if TRACES[name] == trace]
            speaking += (self.bits[:, mine] >= rules.family_bits).any(axis=1)
        need = np.full(len(self.accounts), rules.bits)
        if present is not None:
            need[np.isin(self.accounts, present)] = rules.stay
        return np.sort(self.accounts[(self.total >= need) & (speaking >= rules.families)])


def score(holdings: Holdings, members: np.ndarray, support: np.ndarray | None = None) -> Scored:
    """Bits of every account that shares anything telling with ``members``, by family.

    ``support`` (members, families) says whose holdings count for a family: those that the *other* families speak for, so
    that a few wrong members cannot vouch for each other with a card of their own. Without it all count.
    """
    size = len(members)
    support = np.ones((size, len(FAMILIES)), bool) if support is None else support
    supported = support.sum(axis=0)
    position, held = holdings.values_of(members)
    values, number = np.unique(held, return_inverse=True)
    family = KIND_FAMILY[holdings.kind[values]]
    counts = support[position, family[number]]
    inside = np.bincount(number, counts, len(values))
    sizes = supported[family]
    outside = (holdings.holders[values] - np.bincount(number, minlength=len(values)) + 0.5) / (holdings.n - size + 1)
    keep = (inside >= 1) & (inside + 1 > 1.5 * outside * sizes)
    values, inside, outside, sizes = values[keep], inside[keep], outside[keep], sizes[keep]
    position, account = holdings.holders_of(values)
    inside_of = np.zeros(len(holdings.account_at), bool)
    inside_of[members] = True
    reached = inside_of.copy()
    telling = KIND_TELLS[holdings.kind[values]]
    reached[account[telling[position]]] = True
    position, account = position[reached[account]], account[reached[account]]
    own = np.zeros((len(holdings.account_at), len(FAMILIES)), bool)
    own[members] = support
    mine = own[account, KIND_FAMILY[holdings.kind[values[position]]]]
    s, total = inside[position] - mine, sizes[position] - mine
    # Somebody in a big cluster will share a home network with anybody: what chance gives, and two deviations, is taken off.
    due = total * outside[position]
    s = np.maximum(0.0, s - due - 2 * np.sqrt(due))
    ratio = (s + 2 * outside[position]) / (total + 2) / outside[position]
    ratio /= busier(holdings, members)[holdings.kind[values[position]]]
    gain = np.where(s > 0, np.log2(BLEND * ratio + 1 - BLEND), np.log2(1 - BLEND))
    candidates = np.flatnonzero(reached)
    row = (np.cumsum(reached) - 1)[account]
    kind = holdings.kind[values[position]]
    shape = (len(candidates), len(KIND_NAMES))
    flat = row * shape[1] + kind
    bits = np.bincount(flat, gain, shape[0] * shape[1]).reshape(shape)
    matched = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    held_at, held_value = holdings.values_of(candidates)
    have = np.bincount(held_at * shape[1] + holdings.kind[held_value], minlength=shape[0] * shape[1]).reshape(shape)
    bits = np.clip(bits + (have - matched) * np.log2(1 - BLEND), FLOOR, KIND_CEILING)
    found = np.full((shape[0], len(FAMILIES)), -np.inf)
    for k, f in enumerate(KIND_FAMILY):
        found[:, f] = np.maximum(found[:, f], np.where(have[:, k] > 0, bits[:, k], -np.inf))
    found[np.isneginf(found)] = 0.0
    prior = np.log2(size / holdings.n)
    return Scored(candidates, found, found.sum(axis=1) + prior)


def busier(holdings: Holdings, members: np.ndarray) -> np.ndarray:
    """By kind, how many more values a member holds than another customer does, at least 1; 1 where an account has but one.

    Busy accounts hold more of everything that is common. Their holdings are compared, not their accounts.
    """
    all_ = np.bincount(holdings.kind[holdings.by_account], minlength=len(KIND_NAMES))
    _, held = holdings.values_of(members)
    mine = np.bincount(holdings.kind[held], minlength=len(KIND_NAMES))
    rate = (mine / len(members)) / np.maximum(1e-9, (all_ - mine) / max(1, holdings.n - len(members)))
    return np.where(KIND_MANY, np.clip(rate, 1.0, 100.0), 1.0)


def vouched(holdings: Holdings, members: np.ndarray) -> Scored:
    """Scores where each family counts only the members that the other families speak for."""
    first = score(holdings, members)
    row = np.searchsorted(first.accounts, members)
    bits, total = first.bits[row], first.total[row]
    traces = np.array([TRACES[f] for f in FAMILIES])
    mine = np.stack([np.maximum(bits[:, traces == t], 0).sum(axis=1) for t in traces], axis=1)
    return score(holdings, members, total[:, None] - mine >= VOUCH)


def refine(holdings: Holdings, proposals: list[np.ndarray], rules: Rules) -> list[tuple[np.ndarray, Scored]]:
    """Grow and prune each proposal until it stands still; merge those that claim each other's members.

    Returns clusters, largest first, each account in at most one: the one it has most bits for.
    """
    clusters = [p for p in proposals if len(p) >= 3]
    for _ in range(rules.rounds):
        scored = [vouched(holdings, c) for c in clusters]
        clusters = [part for c in claim(scored, rules, clusters) for part in split(holdings, c)]
        clusters = merge(clusters, [vouched(holdings, c) for c in clusters], rules)
    final = [(c, vouched(holdings, c)) for c in clusters]
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


APART = 0.15
"""Two parts of a cluster are apart if their members share less than this part of what members of one part share."""
WHO = np.array([TRACES[KINDS[k].family] < 2 and KINDS[k].cap > 0 for k in KIND_NAMES])
"""Kinds that say who pays, when they came and where from, and not what is asked."""
ASKED = np.array([KINDS[k].family == "template" and KINDS[k].cap > 0 for k in KIND_NAMES])


def split(holdings: Holdings, members: np.ndarray, smallest: int = 10) -> list[np.ndarray]:
    """Take apart a cluster that only wording holds together: two operators, or an operator and a company, may use one prompt.

    Communities over what is asked, then communities over who pays and where from, are candidates; in both cases parts
    stand apart only if each has payers, networks or sign-ups of its own and next to none in common with the others. Who is in
    no sizeable part goes where the most of its evidence points.
    """
    parts = [members]
    for kinds in (ASKED, WHO):
        parts = [p for part in parts for p in split_by(holdings, part, kinds, smallest)]
    return parts


def split_by(holdings: Holdings, members: np.ndarray, kinds: np.ndarray, smallest: int) -> list[np.ndarray]:
    """One round of ``split``: communities over ``kinds``, held apart by ``WHO``."""
    if len(members) < 2 * smallest:
        return [members]
    asked = shared_values(holdings, members, kinds)
    who = shared_values(holdings, members, WHO)
    if not len(asked.number) or not len(who.number):
        return [members]
    parts = communities(asked.position, asked.number, asked.weight[asked.number], len(members), len(asked.weight))
    blocks = apart([p for p in parts if len(p) >= smallest], who, len(members))
    sizeable = [b for b in blocks if len(b) >= max(smallest, 0.03 * len(members))]
    if kinds is WHO:
        sizeable = [b for b in sizeable if len(b) >= min(60, 0.2 * len(members)) and pooled(b, who.position, who.number)]
    if len(sizeable) < 2:
        return [members]
    return assigned(holdings, members, [np.sort(members[b]) for b in sizeable])


@dataclass(frozen=True, slots=True)
class Shared:
    """Values that at least two members hold: pairs (position among the members, value number), bits of each value."""

    position: np.ndarray
    number: np.ndarray
    weight: np.ndarray


def shared_values(holdings: Holdings, members: np.ndarray, kinds: np.ndarray) -> Shared:
    """The rare values of ``kinds`` that at least two of ``members`` hold."""
    position, value = holdings.values_of(members)
    keep = kinds[holdings.kind[value]] & (holdings.holders[value] <= holdings.cap()[value])
    number, values = dense(value[keep])
    count = np.bincount(number, minlength=len(values))
    shared = count[number] >= 2
    number, kept = dense(number[shared])
    return Shared(position[keep][shared], number, np.log2(holdings.n / holdings.holders[values[kept]]))


def apart(parts: list[np.ndarray], who: Shared, size: int, least: int = 6) -> list[np.ndarray]:
    """Join parts whose members share with each other nearly what they share among themselves, the closest first.

    A part with fewer than ``least`` coincidences of its own cannot be told apart and is left out.
    """
    label = np.full(size, -1)
    for k, part in enumerate(parts):
        label[part] = k
    inside = label[who.position] >= 0
    held = np.zeros((len(parts), len(who.weight)))
    np.add.at(held, (label[who.position[inside]], who.number[inside]), 1)
    told = np.maximum(held - 1, 0).sum(axis=1) >= least
    blocks, held = [p for p, t in zip(parts, told) if t], held[told]
    while len(blocks) > 1:
        closeness = likeness(held, who.weight, np.array([len(b) for b in blocks], float))
        i, j = np.unravel_index(int(np.argmax(closeness)), closeness.shape)
        if closeness[i, j] < APART:
            break
        i, j = min(i, j), max(i, j)
        blocks[i] = np.concatenate([blocks[i], blocks[j]])
        held[i] += held[j]
        del blocks[j]
        held = np.delete(held, j, axis=0)
    return blocks


def likeness(held: np.ndarray, weight: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What a pair across two parts shares, over what a pair within the less tied of them shares; -1 on the diagonal."""
    cross = (held * weight) @ held.T / np.outer(sizes, sizes)
    own = (held * (held - 1) * weight).sum(axis=1) / np.maximum(1, sizes * (sizes - 1))
    ratio = cross / np.maximum(1e-12, np.minimum.outer(own, own))
    np.fill_diagonal(ratio, -1)
    return ratio


def pooled(block: np.ndarray, position: np.ndarray, number: np.ndarray) -> bool:
    """Is a part tied by at least four values, none of which most of it holds? A single card is no operator's pool."""
    values, counts = np.unique(number[np.isin(position, block)], return_counts=True)
    return int((counts >= 2).sum()) >= 4 and counts.max() <= 0.6 * len(block) and len(values) > 0


def assigned(holdings: Holdings, members: np.ndarray, cores: list[np.ndarray]) -> list[np.ndarray]:
    """``members`` dealt out to the cores they belong to, those in none to the core they have most bits for."""
    total = np.full((len(cores), len(members)), -np.inf)
    for k, core in enumerate(cores):
        scored = score(holdings, core)
        at = np.minimum(np.searchsorted(scored.accounts, members), len(scored.accounts) - 1)
        total[k] = np.where(scored.accounts[at] == members, scored.total[at], -np.inf)
        total[k, np.isin(members, core)] = np.inf
    best = np.argmax(total, axis=0)
    return [members[best == k] for k in range(len(cores))]
