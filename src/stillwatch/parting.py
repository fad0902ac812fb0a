"""Taking clusters apart that only wording holds together: two operators, or an operator and a company, may use one prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillwatch.clusters import communities, dense
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.kinds import KINDS
from stillwatch.membership import TRACES, score

APART = 0.15
"""Two parts of a cluster are apart if their members share less than this part of what members of one part share."""
WHO = np.array([TRACES[KINDS[k].family] < 2 and KINDS[k].cap > 0 for k in KIND_NAMES])
"""Kinds that say who pays, when they came and where from, and not what is asked."""
ROOTS = WHO & (np.array(KIND_NAMES) != "signup_day")
"""Those of them in which an operator's accounts overlap: everybody has one day of sign-up, which would part any cluster."""
ASKED = np.array([KINDS[k].family == "template" and KINDS[k].cap > 0 for k in KIND_NAMES])


def split(holdings: Holdings, members: np.ndarray, smallest: int = 10) -> list[np.ndarray]:
    """Take apart a cluster that only wording holds together: two operators, or an operator and a company, may use one prompt.

    Communities over what is asked, then communities over who pays and where from, are candidates; in both cases parts
    stand apart only if each has payers, networks or sign-ups of its own and next to none in common with the others. Who is in
    no sizeable part goes where the most of its evidence points.
    """
    parts = [members]
    for kinds in (ASKED, ROOTS):
        parts = [p for part in parts for p in split_by(holdings, part, kinds, smallest)]
    return parts


def split_by(holdings: Holdings, members: np.ndarray, kinds: np.ndarray, smallest: int) -> list[np.ndarray]:
    """One round of ``split``: communities over ``kinds``, held apart by ``WHO``."""
    if len(members) < 2 * smallest:
        return [members]
    asked = shared_values(holdings, members, kinds)
    who = shared_values(holdings, members, ROOTS if kinds is ROOTS else WHO)
    if not len(asked.number) or not len(who.number):
        return [members]
    parts = communities(asked.position, asked.number, asked.weight[asked.number], len(members), len(asked.weight))
    blocks = apart([p for p in parts if len(p) >= smallest], who, len(members))
    sizeable = [b for b in blocks if len(b) >= max(smallest, 0.03 * len(members))]
    if kinds is ROOTS:
        sizeable = carved(sizeable, who, len(members))
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
    """The values of ``kinds`` that at least two of ``members`` hold, and few others."""
    position, value = holdings.values_of(members)
    keep = kinds[holdings.kind[value]]
    number, values = dense(value[keep])
    count = np.bincount(number, minlength=len(values))
    shared = ((count >= 2) & holdings.rare_beside(values, count))[number]
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


def carved(blocks: list[np.ndarray], who: Shared, size: int) -> list[np.ndarray]:
    """The pools among the parts, and all the others together: only a pool stands apart by its networks and payers."""
    sizeable = [b for b in blocks if len(b) >= min(60, 0.2 * size)]
    pools = [b for b in sizeable if pooled(b, who.position, who.number)]
    others = [b for b in sizeable if not any(b is p for p in pools)]
    return pools + ([np.concatenate(others)] if others and pools else [])


PARTNERS = 10
"""Members with whom one of a pool shares something, on average. Communities of a sparser graph are an accident of cutting."""


def pooled(block: np.ndarray, position: np.ndarray, number: np.ndarray) -> bool:
    """Is a part a pool: tied by at least four values, none of which most of it holds, and densely?

    A single card is no operator's pool, and neither are pairs of accounts that hang together in a chain.
    """
    held = number[np.isin(position, block)]
    _, counts = np.unique(held, return_counts=True)
    partners = (counts * (counts - 1)).sum() / len(block)
    return int((counts >= 2).sum()) >= 4 and counts.max() <= 0.6 * len(block) and bool(partners >= PARTNERS)


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
