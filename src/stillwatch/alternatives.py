"""What honest thing would explain a cluster: each explanation with the numbers that reject it or make it stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from stillwatch.cases import Case
from stillwatch.evidence import KIND_NAMES, Holdings
from stillwatch.traits import UNTOLD
from stillwatch.types import Alternative

PLAIN = 5.0
"""Bits of extraction from which on an honest place of work does not explain what is asked there."""
SITE_NETS = 4
SITE_PEOPLE = 8
"""A site (an office, a campus, a venue) is at most so many networks, and at least so many people for each."""


def consider(case: Case, extraction: float, holdings: Holdings, traits: Mapping[str, float]) -> tuple[Alternative, ...]:
    """Every alternative, those that explain first; ``extraction`` is the case's bits on that axis, ``traits`` what it is like."""
    found = [alternative for look in ALTERNATIVES if (alternative := look(case, extraction, holdings)) is not None]
    found.append(one_workplace(traits, extraction))
    return tuple(sorted(found, key=lambda a: not a.explains))


def one_payer(case: Case, _extraction: float, _: Holdings) -> Alternative | None:
    """One card pays for most of them: an accountable customer."""
    cards = case.tables["case_accounts"]["card"].to_numpy(zero_copy_only=False)
    cards = cards[cards != 0]
    if len(cards) < 3:
        return None
    share = float(np.unique(cards, return_counts=True)[1].max() / case.size)
    return Alternative(
        "one payer", share >= 0.7, f"the commonest payment instrument pays for {share:.0%} of the accounts"
    )


def one_site(case: Case, extraction: float, _: Holdings) -> Alternative | None:
    """A few networks carry most of everybody's traffic: a class, a venue, an office.

    One network that carries half of it always is a site. Several are one only if there are far more people than networks, and
    if what they ask is not plainly training data: rented addresses of a small ring look like this too.
    """
    share = np.sort(case.tables["case_sites"]["share"].to_numpy())[::-1] / case.size
    if not len(share):
        return None
    nets = min(SITE_NETS, max(1, case.size // SITE_PEOPLE))
    top = float(share[:nets].sum())
    explains = bool(share[0] >= 0.5 or (top >= 0.5 and extraction < PLAIN))
    return Alternative("one site", explains, f"{nets} networks carry {top:.0%} of the accounts' traffic")


def one_domain(case: Case, _extraction: float, _: Holdings) -> Alternative | None:
    """Most have mail addresses of one domain that hardly anybody else has: a company that did not say so."""
    domains = case.tables["case_accounts"]["mail_domain"].to_numpy(zero_copy_only=False)
    known, counts = np.unique(domains[domains != 0], return_counts=True)
    if not len(known):
        return None
    top = int(np.argmax(counts))
    everybody = case.tables["case_domains"]
    at = int(np.flatnonzero(everybody["mail_domain"].to_numpy() == known[top])[0])
    holders, share = everybody["holders"][at].as_py(), counts[top] / case.size
    own = counts[top] / holders
    explains = bool(share >= 0.5 and own >= 0.5)
    text = f"{share:.0%} have one mail domain, and {own:.0%} of that domain's accounts are among them"
    return Alternative("one company", explains, text)


def one_programme(case: Case, _extraction: float, _: Holdings) -> Alternative | None:
    """Most are verified by contract or belong to one programme."""
    rows = case.tables["case_accounts"]
    contract = sum(1 for v in rows["verification"].to_pylist() if v in ("contract",)) / case.size
    taught = sum(1 for v in rows["programme"].to_pylist() if v in ("education",)) / case.size
    if max(contract, taught) == 0:
        return None
    text = f"{contract:.0%} are verified by contract, {taught:.0%} are in the education programme"
    return Alternative("verified or taught", max(contract, taught) >= 0.5, text)


def public_tool(case: Case, _extraction: float, holdings: Holdings) -> Alternative | None:
    """What they have in common in wording is used by many others too."""
    _, value = holdings.values_of(case.members)
    worded = np.isin(holdings.kind[value], [KIND_NAMES.index("wording"), KIND_NAMES.index("system")])
    values, inside = np.unique(value[worded], return_counts=True)
    keep = inside >= max(3, 0.1 * case.size)
    if not keep.any():
        return None
    own = float(np.average(inside[keep] / holdings.holders[values[keep]], weights=inside[keep]))
    text = f"of those who use the wordings they share, {own:.0%} are among them"
    return Alternative("a public tool", False, text)


ASKED = 3.0
"""Bits of extraction from which on what is asked is not like others' work."""
OWN_WORK = 2.5
"""Where people of one place have work of their own: log2 of how often an account comes back to a wording, at least. Who asked
four times has shown no work to come back to."""
OWN_WAYS, OWN_PART, OWN_WORDS = 0.7, 0.85, 1.0
"""Log2 of how far who uses which wording is from dealt out, at least; an account's share of the wordings that dealing out
would give it, at most; and bits by which what they ask may read like training data being made, at most."""
OWN_QUEUES, OWN_SHARE = 1.5, 0.8
"""The same two where nobody deals out, plainly: workers of one queue show neither, whatever they ask."""


def one_workplace(traits: Mapping[str, float], extraction: float) -> Alternative:
    """They come back to wordings each of their own, and do not ask for training data: colleagues, whoever pays for them."""
    told = traits["dispatch"] < UNTOLD and traits["variety"] > 0 and traits["repeats"] >= OWN_WORK
    theirs = traits["dispatch"] >= OWN_QUEUES and traits["variety"] <= OWN_SHARE
    usual = traits["dispatch"] >= OWN_WAYS and traits["variety"] <= OWN_PART
    explains = told and (theirs or (usual and traits["marked"] < OWN_WORDS and extraction < ASKED))
    text = (
        f"an account comes back to a wording {2 ** traits['repeats']:.1f} times, who uses which is "
        f"{2 ** traits['dispatch']:.1f} times as uneven as if dealt out (it uses {traits['variety']:.0%} of the wordings that "
        f"would give it), and {2 ** traits['marked']:.1f} times as much "
        "as of others' reads like training data being made"
    )
    return Alternative("work of their own", explains, text)


ALTERNATIVES: tuple[Callable[[Case, float, Holdings], Alternative | None], ...] = (
    one_payer, one_site, one_domain, one_programme, public_tool,
)  # fmt: skip
