"""Hypotheses to groups that do not overlap: each weighed as it is proposed, without its doubtful members, and grown;
the best version stands.

Whoever is left out of a better group is not lost: the rest of an overlapping hypothesis is weighed again on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillwatch.evidence import Holdings
from stillwatch.ground import Ground
from stillwatch.membership import COMMON, Rules, Scored, belonging
from stillwatch.parting import split
from stillwatch.traits import markers, traits
from stillwatch.weighing import Weights, probability

SAME = 0.3
"""Bits that the union of two overlapping groups may lack and still be taken for the one they are parts of."""
OWNED = 0.6
"""Share of a wording's users who are in one group, for it to be theirs and nobody else's."""
PARTED = 4.0
"""Bits that a part may be weaker than a group by which it is parted from others: it is smaller, and says less."""
RAW, PROMISING = -2.5, -1.0
"""Bits from which on a hypothesis is worth a closer look, half of it may be somebody else; and from which on a group stands."""
PRICE = 12.0
"""How many accounts rightly accused one wrongly accused undoes, where one of two versions of a group is chosen."""
SURE, MOST = 2.0, 0.5
"""Bits of odds from which on a group is an operator's, and takes whoever likely belongs to it; and the share of another group's
members who do, from which on the two are one."""
LARGE_PART, ALSO = 0.05, 1.0
"""Share of a group from which on those who would be left out are asked what they are by themselves, and the bits from which on
they stay: twice as likely an operator's as not."""
SMALLEST = 5
OVERLAP = 0.3
"""Share of the smaller of two groups from which on they are one question."""


Found = tuple[np.ndarray, Scored]
"""Members of a cluster, and the scores of its candidates."""


@dataclass(frozen=True, slots=True)
class Group:
    """Accounts that may have one operator, sorted, with the traits they have as a group and what these weigh (bits)."""

    members: np.ndarray
    traits: dict[str, float]
    bits: float


def groups(ground: Ground, hypotheses: list[np.ndarray], weights: Weights, rules: Rules) -> list[Group]:
    """The groups that stand, weightiest first, no account in two."""
    found = [weighed(ground, h, weights) for h in hypotheses]
    promising = [improved(ground, g, weights, rules) for g in found if g.bits >= RAW]
    standing: list[Group] = []
    for candidate in sorted((g for g in promising if g.bits >= PROMISING), key=_order):
        standing = settle(ground, standing, candidate, weights, rules)
    pure = [purged(ground, g, weights, rules) for g in standing]
    whole = completed(ground, sorted(pure, key=_order), weights, rules)
    return sorted((part for g in whole for part in operators(ground, g, weights)), key=_order)


def completed(ground: Ground, standing: list[Group], weights: Weights, rules: Rules) -> list[Group]:
    """The groups, strongest first, those that are one operator's by ``SURE`` bits with everybody else who likely belongs to them:
    groups of which ``MOST`` do as a whole, and accounts that no other sure group has.

    A group is told from others by who is plainly in it. Once it is, the odds are of the account alone. Only groups are completed
    whose wordings are theirs, and those who join must leave the group as sure as it was: users of a public tool that an
    operator uses too do neither.
    """
    found: list[Group] = []
    waiting = list(standing)
    while waiting:
        group = waiting.pop(0)
        sure = weights.odds(group.traits) >= SURE and group.traits["exclusive"] >= OWNED
        for _ in range(rules.rounds if sure else 0):
            whole, left = filled(ground, group, found, waiting, weights, rules)
            if whole is group or weights.odds(whole.traits) < weights.odds(group.traits):
                break
            group, waiting = whole, left
        found.append(group)
    return apart(ground, found, weights)


def filled(
    ground: Ground, group: Group, before: list[Group], waiting: list[Group], weights: Weights, rules: Rules
) -> tuple[Group, list[Group]]:
    """A sure group with whoever likely belongs to it, itself where nobody does; and of the groups ``waiting`` those it has not
    taken in."""
    likely = belonging(ground.holdings, group.members, COMMON).likely(rules, group.members)
    taken = [np.isin(g.members, likely).mean() >= MOST for g in waiting]
    left = [g for g, t in zip(waiting, taken) if not t]
    others = [g.members for g in (*before, *left) if weights.odds(g.traits) >= SURE]
    joining = np.concatenate([likely, *(g.members for g, t in zip(waiting, taken) if t)])
    joining = np.setdiff1d(joining, np.concatenate([group.members, *others]))
    if not len(joining):
        return group, waiting
    return weighed(ground, np.union1d(group.members, joining), weights), left


def operators(ground: Ground, group: Group, weights: Weights) -> list[Group]:
    """The group, or where payers and networks part it, what it parts into: two operators may use one list and one wording.

    Wordings that hardly anybody else uses have one owner, however many payers.
    """
    if group.traits["exclusive"] >= OWNED:
        return [group]
    parts = [weighed(ground, p, weights) for p in split(ground.holdings, group.members) if len(p) >= SMALLEST]
    return parts if len(parts) > 1 and min(p.bits for p in parts) >= group.bits - PARTED else [group]


def rejoined(ground: Ground, clusters: list[Found], weights: Weights) -> list[Found]:
    """Clusters with those made one that use the same wordings, if hardly anybody beside them does."""
    standing: list[Group] = []
    for members, _ in sorted(clusters, key=lambda c: -len(c[0])):
        group = weighed(ground, members, weights)
        for k, other in enumerate(standing):
            if not akin(ground, group, other):
                continue
            union = weighed(ground, np.union1d(group.members, other.members), weights)
            if union.bits >= max(group.bits, other.bits) - SAME:
                standing[k] = union
                break
        else:
            standing.append(group)
    scored = {members.tobytes(): scores for members, scores in clusters}
    return [(g.members, scored.get(g.members.tobytes()) or belonging(ground.holdings, g.members)) for g in standing]


def akin(ground: Ground, one: Group, other: Group) -> bool:
    """Whether two groups mark themselves by the same wordings, and these are theirs."""
    mine, theirs = markers(ground, one.members), markers(ground, other.members)
    common = np.intersect1d(mine, theirs)
    if 2 * len(common) < min(len(mine), len(theirs)) or not len(common):
        return False
    users = np.concatenate([ground.account[ground.at[m] : ground.at[m + 1]] for m in common])
    return bool(np.isin(users, np.union1d(one.members, other.members)).mean() >= OWNED)


def purged(ground: Ground, group: Group, weights: Weights, rules: Rules) -> Group:
    """A group less whoever is not of one piece with it, and less strangers who use one of its wordings; as it was, where that
    would take it apart: then it is weighed as a mixture."""
    kept = next(iter(grown(ground.holdings, group.members, rules)), group.members)
    whole = parted(ground, group, kept, weights)
    told = plainly(ground.holdings, whole.members, rules)
    less = parted(ground, whole, told, weights)
    return less if weights.odds(less.traits) > weights.odds(whole.traits) else whole


def parted(ground: Ground, group: Group, kept: np.ndarray, weights: Weights) -> Group:
    """The members ``kept`` alone, where they are most of the group and the others not ``also`` an operator's; else the group."""
    enough = max(SMALLEST, MOST * len(group.members)) <= len(kept) < len(group.members)
    return weighed(ground, kept, weights) if enough and not also(ground, group, kept, weights) else group


def also(ground: Ground, group: Group, kept: np.ndarray, weights: Weights) -> bool:
    """Whether the members beside ``kept`` are a good part of the group, and by themselves plainly an operator's."""
    others = np.setdiff1d(group.members, kept)
    return len(others) >= LARGE_PART * len(group.members) and weighed(ground, others, weights).bits >= ALSO


def plainly(holdings: Holdings, members: np.ndarray, rules: Rules) -> np.ndarray:
    """The members that show two traces, and of the others those who would join these.

    Where an operator's accounts share cards or networks beside a wording, strangers who use one of its wordings have that
    wording alone. Among the members they vouch for each other, and it looks like the group's own; held against those with two
    traces it is what it is.
    """
    scored = belonging(holdings, members, COMMON)
    two = members[scored.speaking(rules)[np.searchsorted(scored.accounts, members)] >= rules.families]
    if len(two) < SMALLEST:
        return two
    return np.union1d(two, np.intersect1d(members, belonging(holdings, two, COMMON).joining(rules, two)))


def weighed(ground: Ground, members: np.ndarray, weights: Weights) -> Group:
    """These accounts as a group."""
    found = traits(ground, members)
    return Group(members, found, weights.total(found))


def settle(ground: Ground, standing: list[Group], candidate: Group, weights: Weights, rules: Rules) -> list[Group]:
    """``standing`` with the candidate in it: joined to a group it overlaps, as a group of its own, or not at all."""
    for k, group in enumerate(standing):
        shared = len(np.intersect1d(group.members, candidate.members, assume_unique=True))
        if shared == len(candidate.members):
            return standing
        if shared >= OVERLAP * min(len(group.members), len(candidate.members)):
            union = weighed(ground, np.union1d(group.members, candidate.members), weights)
            if worth(union) > worth(group) or union.bits >= max(group.bits, candidate.bits) - SAME:
                return apart(ground, [*(g for n, g in enumerate(standing) if n != k), union], weights)
    claimed = np.concatenate([np.zeros(0, np.int64), *(g.members for g in standing)])
    rest = np.setdiff1d(candidate.members, claimed)
    if len(rest) < max(SMALLEST, 0.3 * len(candidate.members)):
        return standing
    best = candidate if len(rest) == len(candidate.members) else weighed(ground, rest, weights)
    return apart(ground, [*standing, best], weights) if best.bits >= PROMISING else standing


def worth(group: Group) -> float:
    """What accusing the group is expected to be worth, in accounts rightly accused: one wrongly accused undoes
    ``PRICE`` of them."""
    p = probability(group.bits)
    return len(group.members) * (p - PRICE * (1 - p))


def improved(ground: Ground, group: Group, weights: Weights, rules: Rules) -> Group:
    """The best of a group less its doubtful members, that grown, and all of it where those are ``also`` an operator's."""
    found = [m for m in grown(ground.holdings, group.members, rules) if len(m) >= SMALLEST]
    versions = [weighed(ground, m, weights) for m in found]
    if found and also(ground, group, found[0], weights):
        versions.append(group)
    return min(versions, key=_order, default=Group(group.members, group.traits, -np.inf))


def grown(holdings: Holdings, members: np.ndarray, rules: Rules) -> list[np.ndarray]:
    """The members that are in it for reasons of their own; and those with everybody else who is.

    First a core is told from what may be mixed in, then everybody is held against that: strangers no longer dull what
    marks the others.
    """
    core = belonging(holdings, members, COMMON).core(rules, members)
    if len(core) < SMALLEST:
        return []
    scored = belonging(holdings, np.sort(core), COMMON)
    present = members[np.isin(members, scored.accounts)]
    kept = scored.staying(rules, present, core)
    return [kept, np.union1d(kept, scored.joining(rules, present))]


def apart(ground: Ground, standing: list[Group], weights: Weights) -> list[Group]:
    """Groups without overlap: what two claim stays with the weightier."""
    taken = np.zeros(0, np.int64)
    found = []
    for group in sorted(standing, key=_order):
        mine = np.setdiff1d(group.members, taken)
        if len(mine) < SMALLEST:
            continue
        rest = group if len(mine) == len(group.members) else weighed(ground, mine, weights)
        if rest.bits >= PROMISING:
            found.append(rest)
            taken = np.union1d(taken, rest.members)
    return found


def without(hypotheses: list[np.ndarray], proven: list[Found]) -> list[np.ndarray]:
    """The hypotheses about accounts that are in no proven cluster."""
    if not proven:
        return hypotheses
    taken = np.concatenate([members for members, _ in proven])
    rest = (np.setdiff1d(h, taken) for h in hypotheses)
    return list({r.tobytes(): r for r in rest if len(r) >= SMALLEST}.values())


def disjoint(holdings: Holdings, proven: list[Found], standing: list[Group], others: list[Found]) -> list[Found]:
    """What is proven, the groups, and of clusters found another way those that neither has taken: mostly honest ones,
    to be let go with a reason. Largest first, no account in two: it stays with the first that has it."""
    found: list[Found] = []
    taken = np.zeros(0, np.int64)
    groups: list[tuple[np.ndarray, Scored | None]] = [(g.members, None) for g in standing]
    for members, scored in [*proven, *groups, *others]:
        rest = np.setdiff1d(members, taken)
        if len(rest) >= max(3, 0.7 * len(members)):
            found.append((rest, scored if scored is not None else belonging(holdings, rest)))
            taken = np.union1d(taken, rest)
    return sorted(found, key=lambda pair: (-len(pair[0]), int(pair[0][0])))


def _order(group: Group) -> tuple[float, float, int, int]:
    return (-max(0.0, worth(group)), -group.bits, -len(group.members), int(group.members[0]))
