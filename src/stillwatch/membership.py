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

from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.kinds import KINDS
from stillwatch.types import FAMILIES

BLEND = 0.3
CEILING, FLOOR = 12.0, -2.0
"""Bits one family can add to or take from an account; a share of camouflage must not outweigh a real trace."""

FAMILY_BITS = 2.0
"""Bits from which on a family, or a kind, speaks for an account."""

VOUCH = 0.0
"""Bits, prior included, that the other families must give a member before its own holdings count for a family."""

TRACES = {"identity": 0, "network": 1, "template": 2, "content": 2, "tempo": 3, "migration": 4}
"""Which trace a family reads: wording and content are both read off the prompts, so they speak with one voice."""

DESCRIBED = 1.9
"""Bits a kind that only describes (a client, a setting, hours of the day) can give: never enough to speak for an account."""

KIND_MANY = np.array([KINDS[k].table == "facts" for k in KIND_NAMES])
KIND_TELLS = np.array([KINDS[k].cap > 0 for k in KIND_NAMES])
KIND_CEILING = np.array([CEILING if KINDS[k].cap else DESCRIBED for k in KIND_NAMES])
KIND_CLIQUES = np.array([{"identity": 0.0, "template": 1.0}.get(KINDS[k].family, 5.0) for k in KIND_NAMES])
"""How common, beside a wording, a value must be to a group to tell who belongs: a class or an office in it shares its
networks and its questions, but no two strangers share a card."""
FAMILY_TRACE = np.array([TRACES[f] for f in FAMILIES])
KIND_FAMILY = np.array([FAMILIES.index(KINDS[k].family) for k in KIND_NAMES])


@dataclass(frozen=True, slots=True)
class Rules:
    """When an account is a member: ``bits`` in total to join and ``stay`` to remain, since a cluster that is pruned says
    less about those who are left; and ``families`` traces that must each give at least ``family_bits``."""

    bits: float = 6.0
    stay: float = 2.0
    family_bits: float = FAMILY_BITS
    families: int = 2
    rounds: int = 4
    alone: float = 7.0
    likely: float = 1.0
    doubtful: tuple[float, float] = (-4.0, 4.0)
    slack: float = 2.0


@dataclass(frozen=True, slots=True)
class Scored:
    """Candidates of one cluster: bits by family, (accounts, families), and their total with the prior."""

    accounts: np.ndarray
    bits: np.ndarray
    total: np.ndarray

    def members(self, rules: Rules, present: np.ndarray | None = None) -> np.ndarray:
        """Accounts that pass ``rules``, sorted; those ``present`` already need less to stay."""
        need = np.full(len(self.accounts), rules.bits)
        if present is not None:
            need[np.isin(self.accounts, present)] = rules.stay
        return np.sort(self.accounts[(self.total >= need) & (self.speaking(rules) >= rules.families)])

    def core(self, rules: Rules, present: np.ndarray) -> np.ndarray:
        """The upper part of ``present`` where their totals fall into two, within ``rules.doubtful``: a mixture less
        what is mixed in."""
        total = self.total[np.searchsorted(self.accounts, present)]
        return present[total >= np.clip(divide(total), *rules.doubtful)]

    def staying(self, rules: Rules, present: np.ndarray, core: np.ndarray) -> np.ndarray:
        """Those of ``present`` that score about as the ``core`` does: within four quartile ranges and ``rules.slack``
        bits below its middle.

        All show at least one trace.
        """
        row = np.searchsorted(self.accounts, present)
        lower, middle = np.quantile(self.total[np.searchsorted(self.accounts, core)], (0.25, 0.5))
        least = np.clip(middle - 4 * (middle - lower) - rules.slack, *rules.doubtful)
        return present[(self.total[row] >= least) & (self.speaking(rules)[row] >= 1)]

    def joining(self, rules: Rules, present: np.ndarray) -> np.ndarray:
        """Accounts beside ``present`` that belong to it by ``rules``: two traces, or wordings that hardly anybody else has."""
        worded = self.bits[:, [FAMILIES.index("template"), FAMILIES.index("content")]].max(axis=1)
        shown = (self.speaking(rules) >= rules.families) | (worded >= rules.alone)
        return np.setdiff1d(self.accounts[(self.total >= rules.bits) & shown], present)

    def likely(self, rules: Rules, present: np.ndarray) -> np.ndarray:
        """Accounts beside ``present`` that belong to it by ``rules.likely`` bits and show at least one trace."""
        shown = self.speaking(rules) >= 1
        return np.setdiff1d(self.accounts[(self.total >= rules.likely) & shown], present)

    def speaking(self, rules: Rules) -> np.ndarray:
        """How many traces give each account at least ``rules.family_bits``."""
        found = np.zeros(len(self.accounts), np.int64)
        for trace in sorted(set(TRACES.values())):
            mine = [f for f, name in enumerate(FAMILIES) if TRACES[name] == trace]
            found += (self.bits[:, mine] >= rules.family_bits).any(axis=1)
        return found


def score(holdings: Holdings, members: np.ndarray, support: np.ndarray | None = None) -> Scored:
    """Bits of every account that shares anything telling with ``members``, by family.

    ``support`` (members, families) says whose holdings count for a family: those that the *other* families speak for, so
    that a few wrong members cannot vouch for each other with a card of their own. Without it all count.
    """
    support = np.ones((len(members), len(FAMILIES)), bool) if support is None else support
    candidates, kinds = match(holdings, members, Tally.of(holdings, members, support), support)
    found = by_family(kinds)
    return Scored(candidates, found, found.sum(axis=1) + np.log2(len(members) / holdings.n))


def match(holdings: Holdings, members: np.ndarray, tally: Tally, support: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members and whoever shares anything telling with them, sorted, and the bits of each by kind."""
    kinds = holdings.kind[tally.values]
    position, account = holdings.holders_of(tally.values)
    reached = np.zeros(len(holdings.account_at), bool)
    reached[members] = True
    reached[account[KIND_TELLS[kinds][position]]] = True
    position, account = position[reached[account]], account[reached[account]]
    own = np.zeros((len(holdings.account_at), len(FAMILIES)), bool)
    own[members] = support
    gain = tally.gain(position, own[account, KIND_FAMILY[kinds[position]]])
    candidates = np.flatnonzero(reached)
    row = (np.cumsum(reached) - 1)[account]
    held_at, held_value = holdings.values_of(candidates)
    return candidates, by_kind(len(candidates), row, kinds[position], gain, held_at, holdings.kind[held_value])


@dataclass(frozen=True, slots=True)
class Tally:
    """The values that mark a cluster: how many of its ``sizes`` supported members hold each (``inside``), which share of the
    other customers does (``outside``), and how much busier than they the members are with its kind (``busier``)."""

    values: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    sizes: np.ndarray
    busier: np.ndarray

    @classmethod
    def of(cls, holdings: Holdings, members: np.ndarray, support: np.ndarray, common: float = 0.0) -> Tally:
        """Counts the values of ``members``; those that others hold as often, or less than a part ``common`` of them,
        are left out."""
        position, held = holdings.values_of(members)
        values, number = np.unique(held, return_inverse=True)
        family = KIND_FAMILY[holdings.kind[values]]
        inside = np.bincount(number, support[position, family[number]], len(values))
        sizes = support.sum(axis=0)[family]
        others = holdings.holders[values] - np.bincount(number, minlength=len(values))
        outside = (others + 0.5) / (holdings.n - len(members) + 1)
        part = common * len(members) * KIND_CLIQUES[holdings.kind[values]]
        least = np.where(part > 0, np.maximum(3.0, part), 1.0)
        keep = (inside >= least) & (inside + 1 > 1.5 * outside * sizes)
        values = values[keep]
        return cls(values, inside[keep], outside[keep], sizes[keep], busier(holdings, members)[holdings.kind[values]])

    def gain(self, at: np.ndarray | slice = slice(None), mine: np.ndarray | int = 0) -> np.ndarray:
        """Bits that holding each of the values ``at`` gives an account, its own holding (``mine``) left out of the tally.

        Somebody in a big cluster will share a home network with anybody: what chance gives, and two deviations, is taken off.
        """
        outside = self.outside[at]
        s, total = self.inside[at] - mine, self.sizes[at] - mine
        due = total * outside
        s = np.maximum(0.0, s - due - 2 * np.sqrt(due))
        ratio = (s + 2 * outside) / (total + 2) / outside / self.busier[at]
        return np.where(s > 0, np.log2(BLEND * ratio + 1 - BLEND), np.log2(1 - BLEND))


def by_kind(
    accounts: int, row: np.ndarray, kind: np.ndarray, gain: np.ndarray, held_at: np.ndarray, held_kind: np.ndarray
) -> np.ndarray:
    """Bits (accounts, kinds): gains of the values matched, less what values held and not matched take away; -inf
    where none is held.

    ``row`` and ``held_at`` are positions of accounts.
    """
    shape = (accounts, len(KIND_NAMES))
    flat = row * shape[1] + kind
    bits = np.bincount(flat, gain, shape[0] * shape[1]).reshape(shape)
    matched = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    have = np.bincount(held_at * shape[1] + held_kind, minlength=shape[0] * shape[1]).reshape(shape)
    bits = np.clip(bits + (have - matched) * np.log2(1 - BLEND), FLOOR, KIND_CEILING)
    return np.where(have > 0, bits, -np.inf)


def by_family(kinds: np.ndarray) -> np.ndarray:
    """Bits (accounts, families) from bits (accounts, kinds): the strongest kind counts within a family, 0 where none is held."""
    found = np.full((len(kinds), len(FAMILIES)), -np.inf)
    for k, f in enumerate(KIND_FAMILY):
        found[:, f] = np.maximum(found[:, f], kinds[:, k])
    found[np.isneginf(found)] = 0.0
    return found


def divide(values: np.ndarray) -> float:
    """The bound that parts values into two groups best (Otsu 1979); the lowest value where there is nothing to part."""
    ordered = np.sort(values)
    if len(ordered) < 4 or ordered[0] == ordered[-1]:
        return float(ordered[0])
    low = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    gap = sums / low - (ordered.sum() - sums) / (len(ordered) - low)
    return float(ordered[int(np.argmax(low * (len(ordered) - low) * gap**2)) + 1])


COMMON = 0.01
"""Share of a group's members that a wording must be common to, to show who belongs; five times that for networks."""
USUAL, UNUSUAL = 0.5, 0.15
"""A kind of which at least so many members hold a value that marks them is missed where an account holds none; and the share of
members who by chance hold none, however usual it is."""


def belonging(holdings: Holdings, members: np.ndarray, common: float = 0.0) -> Scored:
    """As ``score``, of a group that was weighed as a whole: an account also loses for what nearly all members have
    and it has not, and families that read one trace do not add up.

    Of what is asked and from where, values that less than a part ``common`` of the members hold say nothing: strangers who use
    one public kit beside an operator who does too would otherwise vouch for each other.
    """
    _, candidates, kinds, lacking = held_against(holdings, members, common)
    found = by_family(kinds)
    total = once(found) + np.log2(len(members) / holdings.n) + (~marking(kinds)) @ lacking
    return Scored(candidates, found, total)


def held_against(
    holdings: Holdings, members: np.ndarray, common: float
) -> tuple[Tally, np.ndarray, np.ndarray, np.ndarray]:
    """What marks a group all of whose members count, the candidates, their bits by kind, and what lacking each kind costs."""
    everybody = np.ones((len(members), len(FAMILIES)), bool)
    tally = Tally.of(holdings, members, everybody, common)
    candidates, kinds = match(holdings, members, tally, everybody)
    return tally, candidates, kinds, missed(kinds[np.searchsorted(candidates, members)])


def marking(kinds: np.ndarray) -> np.ndarray:
    """(accounts, kinds): whether an account holds a value of the kind that marks the group."""
    return np.asarray(kinds >= np.minimum(FAMILY_BITS, 0.9 * KIND_CEILING))


def missed(kinds: np.ndarray) -> np.ndarray:
    """By kind, the bits (at most 0) that an account loses which shows none of it, where nearly all of these members do."""
    usual = marking(kinds).mean(axis=0)
    return np.where(usual >= USUAL, np.log2(np.minimum(1.0, 1 - usual + UNUSUAL)), 0.0)


def once(bits: np.ndarray) -> np.ndarray:
    """Total of bits (accounts, families), of families that read one trace the one that says most."""
    loudest = [bits[:, t == FAMILY_TRACE] for t in np.unique(FAMILY_TRACE)]
    told = [np.take_along_axis(b, np.abs(b).argmax(axis=1)[:, None], axis=1)[:, 0] for b in loudest]
    return np.asarray(np.sum(told, axis=0))


def busier(holdings: Holdings, members: np.ndarray) -> np.ndarray:
    """By kind, how many more values a member holds than another customer does, at least 1; 1 where an account has but one.

    Busy accounts hold more of everything that is common. Their holdings are compared, not their accounts.
    """
    all_ = np.bincount(holdings.kind, holdings.holders, len(KIND_NAMES))
    _, held = holdings.values_of(members)
    mine = np.bincount(holdings.kind[held], minlength=len(KIND_NAMES))
    rate = (mine / len(members)) / np.maximum(1e-9, (all_ - mine) / max(1, holdings.n - len(members)))
    return np.where(KIND_MANY, np.clip(rate, 1.0, 100.0), 1.0)


def vouched(holdings: Holdings, members: np.ndarray) -> Scored:
    """Scores where each family counts only the members that the other families speak for."""
    return score(holdings, members, support(holdings, members))


def support(holdings: Holdings, members: np.ndarray) -> np.ndarray:
    """(members, families): whether the families that read another trace speak for the member."""
    first = score(holdings, members)
    row = np.searchsorted(first.accounts, members)
    bits, total = first.bits[row], first.total[row]
    mine = np.stack([np.maximum(bits[:, t == FAMILY_TRACE], 0).sum(axis=1) for t in FAMILY_TRACE], axis=1)
    return np.asarray(total[:, None] - mine >= VOUCH)
