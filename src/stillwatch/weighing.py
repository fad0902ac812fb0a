"""The traits of a group to the odds that it is one hidden operator: a small model whose weights were learnt from
simulated worlds.

``weights.json`` is written by ``bench/weights.py``; it names the worlds, and gives the spread of each weight over
them. Every trait may only speak in the direction that its question has (``TRAITS``): a fit that would count declared
organisations as suspicious, because some simulator did, cannot. What a trait gives is told in bits, by axis.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from stillwatch.types import Axis

_CO, _EX, _CE = Axis.COORDINATION, Axis.EXTRACTION, Axis.CONCEALMENT

TRAITS: Mapping[str, tuple[int, Axis, str]] = {
    "size": (1, _CO, "how many they are"),
    "exclusive": (1, _CO, "share of those wordings' uses that is theirs"),
    "owned": (1, _CO, "how far those wordings are theirs and nobody else's"),
    "practising": (1, _CO, "share of the accounts that use the wordings marking them"),
    "practice_even": (-1, _CO, "how unevenly the accounts share in it"),
    "read": (1, _EX, "how much more than others it reads like training data being made"),
    "marked": (1, _EX, "how many more exchanges read so plainly"),
    "aimed": (1, _EX, "how many more aim at a capability worth copying"),
    "single": (1, _EX, "how many more are single turns"),
    "appetite": (1, _EX, "how much more is asked for with each: reasoning, several answers, room"),
    "repeats": (-1, _EX, "how often an account comes back to one wording"),
    "dispatch": (-1, _EX, "how far who asks what is from being dealt out at random"),
    "variety": (1, _EX, "how many of those wordings each account uses, beside what dealing out would give"),
    "uneven_length": (-1, _EX, "how differently long what they ask in them is"),
    "uneven_chars": (-1, _EX, "how differently long the prompts themselves are"),
    "uneven_aimed": (-1, _EX, "how different their aims in them are"),
    "uneven_read": (-1, _EX, "how differently what they ask in them reads"),
    "uneven_meaning": (-1, _EX, "how different what they ask about is"),
    "again": (-1, _EX, "how often an account asks the same thing word for word"),
    "whole_read": (1, _EX, "how much more than others all they ask reads like training data being made"),
    "whole_marked": (1, _EX, "how many more of all exchanges read so plainly"),
    "whole_aimed": (1, _EX, "how many more of all aim at a capability worth copying"),
    "whole_single": (1, _EX, "how many more of all are single turns"),
    "narrow": (1, _EX, "how far from others' their mix of capabilities is"),
    "whole_length": (-1, _EX, "how differently long what they ask at all is"),
    "whole_chars": (-1, _EX, "how differently long all their prompts are"),
    "whole_reading": (-1, _EX, "how differently all they ask reads"),
    "whole_meaning": (-1, _EX, "how different all they ask about is"),
    "whole_again": (-1, _EX, "how often an account asks anything again word for word"),
    "day": (-1, _CO, "how far they keep to hours of the day"),
    "weekend": (1, _CO, "how many more exchanges fall on a weekend"),
    "share_two": (1, _CO, "share that share values of two traces with others"),
    "linked_paid": (1, _CO, "share that hangs together through cards and phones"),
    "linked_networked": (1, _CO, "share that hangs together through networks"),
    "share_card": (1, _CO, "share of the accounts that share a card with another"),
    "share_phone": (1, _CO, "share that share a phone"),
    "share_net": (1, _CO, "share that share a network"),
    "share_signup_net": (1, _CO, "share that signed up from a shared network"),
    "share_prompt": (1, _CO, "share that ask what others of them ask, word for word"),
    "share_wording": (1, _CO, "share that share a rare wording"),
    "share_system": (1, _CO, "share that share a rare system text"),
    "bits_card": (1, _CO, "rarity of the cards they share"),
    "bits_net": (1, _CO, "rarity of the networks they share"),
    "bits_signup_net": (1, _CO, "rarity of the networks they signed up from"),
    "bits_prompt": (1, _CO, "rarity of the prompts they share"),
    "bits_wording": (1, _CO, "rarity of the wordings they share"),
    "bits_system": (1, _CO, "rarity of the system texts they share"),
    "alike_client": (1, _CO, "how far one client sets them apart"),
    "alike_tls": (1, _CO, "how far one TLS print does"),
    "alike_tools": (1, _CO, "how far one set of tools does"),
    "alike_settings": (1, _CO, "how far one choice of request settings does"),
    "alike_signup_day": (1, _CO, "how far one day of sign-up does"),
    "alike_signup_tls": (1, _CO, "how far one TLS print at sign-up does"),
    "alike_issuer": (1, _CE, "how far one issuer of cards does"),
    "payers": (1, _CE, "payment instruments for each paying account"),
    "one_payer": (-1, _CE, "share paid for by one instrument"),
    "one_domain": (-1, _CE, "how far they are one mail domain"),
    "one_site": (-1, _CE, "share of their traffic from one network"),
    "org": (-1, _CE, "share that declare an organisation"),
    "vouched": (-1, _CE, "share verified by contract, identity or domain"),
    "taught": (-1, _CE, "share in a programme for education, research or start-ups"),
    "crossing": (1, _CE, "how many more bill in one country and phone from another"),
    "volume_even": (-1, _CO, "how unevenly much they do"),
    "began": (-1, _CO, "how long it took until most had begun"),
    "hours": (1, _CO, "how much more than others they work in the same hours"),
    "moved": (1, _CO, "how many more moved to a new model within a day"),
}
"""By name: the direction in which it may speak, the axis it belongs to, and what it asks."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Boosted trees as arrays: node n asks whether trait ``asks[n]`` is at most ``bound[n]``, and goes to ``left`` or
    ``right``; leaves (``asks`` -1) are worth ``value`` bits. ``roots`` begins each tree."""

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
            below = values[self.asks[at]] <= self.bound[at]
            at = np.where(inner, np.where(below, self.left[at], self.right[at]), at)
        return float(self.start + self.value[at].sum())


@dataclass(frozen=True, slots=True)
class Weights:
    """A line and trees over the same traits, whose bits are averaged: a line carries over to what it never saw, trees
    see what only counts together.

    ``bits`` is what a standard deviation of each trait is worth on the line, at ``centre`` and ``scale``, and
    ``start`` what it begins with; ``spread`` is the standard deviation of each over the worlds it was learnt from.
    ``slope`` and ``shift`` make the average mean what it says of proposals about worlds of writers left out of the learning.
    ``standing`` (slope, bits a doubling of the accounts, shift) does so for groups that stand at the end: of those, the larger
    they are the seldomer they are honest.
    """

    names: tuple[str, ...]
    bits: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    start: float
    trees: Trees
    slope: float = 1.0
    shift: float = 0.0
    standing: tuple[float, float, float] = (1.0, 0.0, 0.0)

    def each(self, traits: Mapping[str, float]) -> np.ndarray:
        """What each trait gives on the line, bits; a trait counts to three standard deviations."""
        return self.bits * np.clip((self.row(traits) - self.centre) / self.scale, -3, 3)

    def row(self, traits: Mapping[str, float]) -> np.ndarray:
        """The traits in the order of ``names``."""
        return np.array([traits[n] for n in self.names])

    def total(self, traits: Mapping[str, float]) -> float:
        """Log2 of the odds that a group with these traits is one hidden operator."""
        line = self.start + self.each(traits).sum()
        return float(self.slope * (line + self.trees.total(self.row(traits))) / 2 + self.shift)

    def odds(self, traits: Mapping[str, float]) -> float:
        """Bits that a group that stands is one hidden operator's."""
        slope, doubling, shift = self.standing
        return slope * self.total(traits) + doubling * traits["size"] + shift

    def by_axis(self, traits: Mapping[str, float]) -> dict[Axis, float]:
        """What the traits of each axis give together on the line, bits."""
        each = self.each(traits)
        return {axis: float(sum(b for n, b in zip(self.names, each) if TRAITS[n][1] is axis)) for axis in Axis}


@cache
def weights() -> Weights:
    """The weights that come with the package, or those in the file that the variable STILLWATCH_WEIGHTS names: for
    measuring others."""
    other = os.environ.get("STILLWATCH_WEIGHTS")
    source = Path(other) if other else files("stillwatch").joinpath("weights.json")
    made = json.loads(source.read_text(encoding="utf-8"))
    columns = {k: np.array([t[k] for t in made["traits"]]) for k in ("bits", "centre", "scale", "spread")}
    nodes = {k: np.array(v) for k, v in made["trees"].items() if k != "start"}
    return Weights(
        tuple(t["name"] for t in made["traits"]), **columns, start=made["start"],
        trees=Trees(**nodes, start=made["trees"]["start"]), slope=made["slope"], shift=made["shift"],
        standing=tuple(made["standing"]),
    )  # fmt: skip


def probability(bits: float) -> float:
    """Of odds given as their log2."""
    return float(1 / (1 + 2.0 ** -np.clip(bits, -60, 60)))
