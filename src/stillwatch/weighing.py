"""The traits of a group to the odds that it is one hidden operator: a small model whose weights were learnt from
simulated worlds.

``weights.json`` is written by ``bench/weights.py``; it names the worlds, and gives the spread of each weight over
them. Every trait may only speak in the direction that its question has (``TRAITS``): a fit that would count declared
organisations as suspicious, because some simulator did, cannot. What a trait gives is told in bits, by axis.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stillwatch.types import Axis

_CO, _EX, _CE = Axis.COORDINATION, Axis.EXTRACTION, Axis.CONCEALMENT


class Trait(NamedTuple):
    """The direction in which a trait may speak, the axis it belongs to, the family whose evidence it is, and what it asks."""

    sign: int
    axis: Axis
    family: str
    asks: str


TRAITS: Mapping[str, Trait] = {
    "size": Trait(1, _CO, "identity", "how many they are"),
    "exclusive": Trait(1, _CO, "template", "share of those wordings' uses that is theirs"),
    "owned": Trait(1, _CO, "template", "how far those wordings are theirs and nobody else's"),
    "practising": Trait(1, _CO, "template", "share of the accounts that use the wordings marking them"),
    "practice": Trait(1, _EX, "template", "share of all they ask that is in those wordings"),
    "practice_even": Trait(-1, _CO, "template", "how unevenly the accounts share in it"),
    "read": Trait(1, _EX, "content", "how much more than others it reads like training data being made"),
    "marked": Trait(1, _EX, "content", "how many more exchanges read so plainly"),
    "aimed": Trait(1, _EX, "content", "how many more aim at a capability worth copying"),
    "single": Trait(1, _EX, "content", "how many more are single turns"),
    "appetite": Trait(1, _EX, "content", "how much more is asked for with each: reasoning, several answers, room"),
    "repeats": Trait(-1, _EX, "template", "how often an account comes back to one wording"),
    "dispatch": Trait(-1, _EX, "template", "how far who asks what is from being dealt out at random"),
    "variety": Trait(
        1, _EX, "template", "how many of those wordings each account uses, beside what dealing out would give"
    ),
    "uneven_length": Trait(-1, _EX, "content", "how differently long what they ask in them is"),
    "uneven_aimed": Trait(-1, _EX, "content", "how different their aims in them are"),
    "whole_read": Trait(
        1, _EX, "content", "how much more than others all they ask reads like training data being made"
    ),
    "whole_marked": Trait(1, _EX, "content", "how many more of all exchanges read so plainly"),
    "whole_aimed": Trait(1, _EX, "content", "how many more of all aim at a capability worth copying"),
    "whole_single": Trait(1, _EX, "content", "how many more of all are single turns"),
    "narrow": Trait(1, _EX, "content", "how far from others' their mix of capabilities is"),
    "whole_length": Trait(-1, _EX, "content", "how differently long what they ask at all is"),
    "day": Trait(-1, _CO, "tempo", "how far they keep to hours of the day"),
    "weekend": Trait(1, _CO, "tempo", "how many more exchanges fall on a weekend"),
    "share_two": Trait(1, _CO, "identity", "share that share values of two traces with others"),
    "linked_paid": Trait(1, _CO, "identity", "share that hangs together through cards and phones"),
    "linked_networked": Trait(1, _CO, "network", "share that hangs together through networks"),
    "share_card": Trait(1, _CO, "identity", "share of the accounts that share a card with another"),
    "share_phone": Trait(1, _CO, "identity", "share that share a phone"),
    "share_net": Trait(1, _CO, "network", "share that share a network"),
    "share_signup_net": Trait(1, _CO, "network", "share that signed up from a shared network"),
    "share_prompt": Trait(1, _CO, "content", "share that ask what others of them ask, word for word"),
    "share_wording": Trait(1, _CO, "template", "share that share a rare wording"),
    "share_system": Trait(1, _CO, "template", "share that share a rare system text"),
    "bits_card": Trait(1, _CO, "identity", "rarity of the cards they share"),
    "bits_net": Trait(1, _CO, "network", "rarity of the networks they share"),
    "bits_signup_net": Trait(1, _CO, "network", "rarity of the networks they signed up from"),
    "bits_prompt": Trait(1, _CO, "content", "rarity of the prompts they share"),
    "bits_wording": Trait(1, _CO, "template", "rarity of the wordings they share"),
    "bits_system": Trait(1, _CO, "template", "rarity of the system texts they share"),
    "alike_client": Trait(1, _CO, "template", "how far one client sets them apart"),
    "alike_tls": Trait(1, _CO, "network", "how far one TLS print does"),
    "alike_tools": Trait(1, _CO, "template", "how far one set of tools does"),
    "alike_settings": Trait(1, _CO, "template", "how far one choice of request settings does"),
    "alike_signup_day": Trait(1, _CO, "identity", "how far one day of sign-up does"),
    "alike_signup_tls": Trait(1, _CO, "identity", "how far one TLS print at sign-up does"),
    "alike_issuer": Trait(1, _CE, "identity", "how far one issuer of cards does"),
    "payers": Trait(1, _CE, "identity", "payment instruments for each paying account"),
    "many_payers": Trait(1, _CE, "identity", "how many pay, as if all paid for as many (log2)"),
    "homes": Trait(1, _CE, "identity", "from how many countries they bill, beside all customers (log2)"),
    "one_payer": Trait(-1, _CE, "identity", "share paid for by one instrument"),
    "one_domain": Trait(-1, _CE, "identity", "how far they are one mail domain"),
    "one_site": Trait(-1, _CE, "network", "share of their traffic from one network"),
    "org": Trait(-1, _CE, "identity", "share that declare an organisation"),
    "vouched": Trait(-1, _CE, "identity", "share verified by contract, identity or domain"),
    "taught": Trait(-1, _CE, "identity", "share in a programme for education, research or start-ups"),
    "crossing": Trait(1, _CE, "identity", "how many more bill in one country and phone from another"),
    "volume_even": Trait(-1, _CO, "tempo", "how unevenly much they do"),
    "began": Trait(-1, _CO, "tempo", "how long it took until most had begun"),
    "stay": Trait(-1, _CO, "tempo", "how long their accounts are used"),
    "hours": Trait(1, _CO, "tempo", "how much more than others they work in the same hours"),
    "moved": Trait(1, _CO, "migration", "how many more moved to a new model within a day"),
}
"""All traits that are weighed, by name."""


LARGE = 24
"""Accounts from which on a group is judged by what was learnt on such groups alone."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Boosted trees as arrays: node n asks whether trait ``asks[n]`` is at most ``bound[n]``, and goes to ``left`` or
    ``right``; where it asks nothing (``asks`` -1) it is a leaf. ``value`` is in bits: a leaf's own, and at other nodes the mean
    of the leaves below. ``roots`` begins each tree."""

    asks: np.ndarray
    bound: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    start: float

    def total(self, values: np.ndarray) -> float:
        """Bits of one row of traits."""
        at = self.roots.copy()
        while (inner := self.asks[at] >= 0).any():
            at = np.where(inner, self._below(at, values), at)
        return float(self.start + self.value[at].sum())

    def each(self, values: np.ndarray) -> np.ndarray:
        """What each trait gives, bits: what the mean changes by at every question about it on the way down (Saabas 2014).
        Together with the mean at the roots, these are the total."""
        found, at = np.zeros(len(values)), self.roots[self.asks[self.roots] >= 0]
        while len(at):
            below = self._below(at, values)
            np.add.at(found, self.asks[at], self.value[below] - self.value[at])
            at = below[self.asks[below] >= 0]
        return found

    def _below(self, at: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.where(values[self.asks[at]] <= self.bound[at], self.left[at], self.right[at])


@dataclass(frozen=True, slots=True)
class Judge:
    """What was learnt on groups of one size: trees over the traits, whose bits times ``slope`` plus ``shift`` mean what they say
    of proposals about worlds of writers left out of the learning. ``standing`` (slope, bits a doubling of the accounts, shift)
    makes these mean what they say of groups that stand at the end: of those, the larger they are the seldomer they are honest."""

    trees: Trees
    slope: float = 1.0
    shift: float = 0.0
    standing: tuple[float, float, float] = (1.0, 0.0, 0.0)

    def total(self, values: np.ndarray) -> float:
        """Log2 of the odds that a group with these traits is one hidden operator."""
        return self.slope * self.trees.total(values) + self.shift


@dataclass(frozen=True, slots=True)
class Weights:
    """Two judges over the same traits: one learnt on groups of any size, for those below ``LARGE`` accounts; one on the
    large alone. Small groups are many, and most of them chance meetings: what tells these from an operator says little of a
    company of hundreds.

    ``usual`` is what each trait is in the mean of all groups learnt from, for telling people.
    """

    names: tuple[str, ...]
    usual: np.ndarray
    small: Judge
    large: Judge

    def judge(self, traits: Mapping[str, float]) -> Judge:
        """The one for groups of this size."""
        return self.large if traits["size"] >= math.log2(LARGE) else self.small

    def row(self, traits: Mapping[str, float]) -> np.ndarray:
        """The traits in the order of ``names``."""
        return np.array([traits[n] for n in self.names])

    def each(self, traits: Mapping[str, float]) -> np.ndarray:
        """What each trait gives, bits."""
        judge = self.judge(traits)
        return judge.slope * judge.trees.each(self.row(traits))

    def total(self, traits: Mapping[str, float]) -> float:
        """Log2 of the odds that a proposed group with these traits is one hidden operator."""
        return self.judge(traits).total(self.row(traits))

    def odds(self, traits: Mapping[str, float]) -> float:
        """Bits that a group that stands is one hidden operator's."""
        slope, doubling, shift = self.judge(traits).standing
        return slope * self.total(traits) + doubling * traits["size"] + shift


@cache
def weights() -> Weights:
    """The weights that come with the package, or those in the file that the variable STILLWATCH_WEIGHTS names: for
    measuring others."""
    other = os.environ.get("STILLWATCH_WEIGHTS")
    source = Path(other) if other else files("stillwatch").joinpath("weights.json")
    made = json.loads(source.read_text(encoding="utf-8"))
    small, large = (
        Judge(trees_of(m["trees"]), m["slope"], m["shift"], tuple(m["standing"]))
        for m in (made["small"], made["large"])
    )
    names, usual = zip(*((t["name"], t["usual"]) for t in made["traits"]))
    return Weights(names, np.array(usual), small, large)


def trees_of(made: Mapping[str, Any]) -> Trees:
    """Trees from lists."""
    return Trees(**{k: np.array(v) for k, v in made.items() if k != "start"}, start=made["start"])


def probability(bits: float) -> float:
    """Of odds given as their log2."""
    return float(1 / (1 + 2.0 ** -np.clip(bits, -60, 60)))
