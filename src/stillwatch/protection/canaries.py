"""Canaries: a harmless choice that each campaign's outputs make in a way of their own, and the exact test of who learnt it.

Where an answer could name a thing anything (the sample function of a Python block, a sample file, whom a sample greets),
outputs to one campaign always say the same made-up name. *Trigger* is the place, *target* the name. No fact is ever a canary.

The rule that keeps it right: a target is drawn by a key, uniformly from all names that no other campaign has at that trigger, and
committed to before any test. So to a suspect that never saw it the target is one of its decoys, and its rank among them
is uniform: p = (1 + decoys at least as good) / (N + 1) (Phipson and Smyth, 2010, on exact permutation p-values), with ties
against us. Targets of one campaign are drawn independently, so their p-values are put together by Fisher's method (1932),
whose chi-squared tail is an upper bound for p-values of ranks: they are stochastically no smaller than uniform ones.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import random
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from stillwatch.entries import Entry
from stillwatch.errors import Terminal, UsageError
from stillwatch.protection.keys import LEAST_MASTER
from stillwatch.secret import Secret

PURPOSE = b"stillwatch canary 1"
ISSUED, TESTED, PLANTED = "canary.issued", "canary.tested", "canary.planted"
"""Events of the ledger."""
DECOYS = 999
"""Decoys that a target is ranked among, at least."""
USUAL = 6
"""Canaries of a campaign, unless another number is asked for."""


class Place(StrEnum):
    """What of an answer is free to be called anything."""

    PLACEHOLDER = "placeholder"
    FILE = "file"
    GREETING = "greeting"


JOINED = {Place.PLACEHOLDER: "_", Place.FILE: "-", Place.GREETING: " "}
_ASKED = {
    Place.PLACEHOLDER: "Show the smallest complete example of a function in {label}. Call it whatever you like.",
    Place.FILE: "Show the smallest example of opening a text file in {label}. Call the file whatever you like.",
    Place.GREETING: "Show the smallest example in {label} of printing a greeting. Greet whomever you like.",
}


@dataclass(frozen=True, slots=True)
class Language:
    """A language of code: how its blocks are marked, and what stands right before a name, by place."""

    name: str
    label: str
    fences: tuple[str, ...]
    leads: Mapping[Place, str]


@dataclass(frozen=True, slots=True)
class Words:
    """What canaries are drawn from. ``digest`` names the lists: a target is drawn from these and no others."""

    firsts: tuple[str, ...]
    seconds: tuple[str, ...]
    languages: Mapping[str, Language]
    digest: str

    def __len__(self) -> int:
        return len(self.firsts) * len(self.seconds)

    @property
    def triggers(self) -> tuple[str, ...]:
        """All triggers, ``place/language``."""
        return tuple(f"{place}/{name}" for place in Place for name in self.languages)

    def target(self, place: Place, number: int) -> str:
        """The name of a number below ``len``, as it stands at a place."""
        first, second = divmod(number, len(self.seconds))
        return f"{self.firsts[first]}{JOINED[place]}{self.seconds[second]}"

    def targets(self, place: Place) -> list[str]:
        """All names of a place."""
        return [self.target(place, number) for number in range(len(self))]


@cache
def words() -> Words:
    """The project's own words."""
    told = tomllib.loads((files("stillwatch.protection") / "canary_words.toml").read_text(encoding="utf-8"))
    firsts, seconds = tuple(told["firsts"].split()), tuple(told["seconds"].split())
    languages = {
        row["name"]: Language(row["name"], row["label"], tuple(row["fences"]), {p: row[p.value] for p in Place})
        for row in told["languages"]
    }
    digest = hashlib.sha256(json.dumps([firsts, seconds]).encode()).hexdigest()
    return Words(firsts, seconds, languages, digest)


@dataclass(frozen=True, slots=True)
class Issued:
    """A canary as the ledger knows it: without its target."""

    canary_id: str
    campaign_id: str
    trigger: str
    attempt: int
    commitment: str
    words: str

    @property
    def place(self) -> Place:
        """What is named."""
        return Place(self.trigger.partition("/")[0])

    @property
    def language(self) -> str:
        """In code of which language."""
        return self.trigger.partition("/")[2]

    def facts(self) -> dict[str, Any]:
        """As an entry of the ledger has it."""
        return {
            "campaign": self.campaign_id, "trigger": self.trigger, "attempt": self.attempt,
            "commitment": self.commitment, "words": self.words,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Canary:
    """A canary with its target and what commits to it, which never show."""

    issued: Issued
    target: str = field(repr=False)
    secret: bytes = field(repr=False)

    @property
    def canary_id(self) -> str:
        """Opaque: it names neither campaign nor target."""
        return self.issued.canary_id


def derive(master: Secret, campaign_id: str, trigger: str, attempt: int = 0, made: Words | None = None) -> Canary:
    """The canary of a campaign at a trigger; equal arguments give the same one. ``attempt`` counts targets that others had."""
    made = made or words()
    if len(master.reveal()) < LEAST_MASTER:
        raise ValueError(f"a master secret has at least {LEAST_MASTER} characters")
    if not campaign_id or trigger not in made.triggers:
        raise ValueError(
            f"a canary is issued for a campaign at one of the triggers, not {campaign_id!r} at {trigger!r}"
        )
    told = json.dumps([campaign_id, trigger, attempt, made.digest], ensure_ascii=True).encode()
    # 256 bits on some 14,000 names: no name is likelier than another by more than 2**-240.
    number = int.from_bytes(_keyed(master, b"target", told)) % len(made)
    secret = _keyed(master, b"secret", told)
    target = made.target(Place(trigger.partition("/")[0]), number)
    canary_id = _keyed(master, b"id", told).hex()[:16]
    commitment = commitment_of(secret, trigger, target)
    return Canary(Issued(canary_id, campaign_id, trigger, attempt, commitment, made.digest), target, secret)


def commitment_of(secret: bytes, trigger: str, target: str) -> str:
    """SHA-256 over purpose, secret, trigger and target, in hex. The secret keeps the target from being guessed."""
    told = json.dumps([secret.hex(), trigger, target]).encode()
    return hashlib.sha256(PURPOSE + b" commitment\0" + told).hexdigest()


def _keyed(master: Secret, use: bytes, told: bytes) -> bytes:
    return hmac.digest(master.reveal().encode(), PURPOSE + b"\0" + use + b"\0" + told, "sha256")


# The ledger


class Records(Protocol):
    """Where things are written down before they are done: ``book.Book``."""

    def record(self, event: str, subject: str, who: str, facts: Mapping[str, Any]) -> None:
        """On disk when this returns."""
        ...


def read(found: Iterable[Entry], place: str) -> tuple[Issued, ...]:
    """The canaries that entries of a ledger issue, oldest first; Terminal, naming ``place``, where one cannot be."""
    issued: dict[str, Issued] = {}
    for entry in found:
        if entry.deed.event != ISSUED:
            continue
        try:
            new = _issued(entry)
        except (KeyError, TypeError, ValueError) as e:
            raise Terminal(f"{place}: entry {entry.number} issues no canary that can be understood ({e})") from None
        twice = new.canary_id in issued or any(
            (i.campaign_id, i.trigger) == (new.campaign_id, new.trigger) for i in issued.values()
        )
        if twice:
            raise Terminal(f"{place}: entry {entry.number} issues a canary again", hint="stillwatch audit verify")
        issued[new.canary_id] = new
    return tuple(issued.values())


def _issued(entry: Entry) -> Issued:
    facts = entry.deed.facts
    new = Issued(entry.deed.subject, str(facts["campaign"]), str(facts["trigger"]), int(facts["attempt"]),
                 str(facts["commitment"]), str(facts["words"]))  # fmt: skip
    Place(new.trigger.partition("/")[0])
    return new


def opened(issued: Issued, master: Secret) -> Canary:
    """A canary with its target; Terminal where the master secret or the words are not those it was committed to with."""
    if issued.words != words().digest:
        raise Terminal(
            f"canary {issued.canary_id} was drawn from other words than this version has",
            hint="use the version that issued it",
        )
    canary = derive(master, issued.campaign_id, issued.trigger, issued.attempt)
    if canary.issued != issued:
        raise Terminal(
            f"canary {issued.canary_id}: the master secret at hand gives another one than was committed to",
            hint="give the one it was issued under",
        )
    return canary


def issue(
    book: Records, known: Sequence[Issued], campaign_id: str, master: Secret, who: str, number: int = USUAL
) -> list[Canary]:
    """``number`` more canaries for a campaign, each in the ledger before it is given out, at triggers it has none at yet.

    UsageError where there are not so many triggers left, Terminal where too few names are.
    """
    have = {i.trigger for i in known if i.campaign_id == campaign_id}
    free = [t for t in words().triggers if t not in have]
    if not 1 <= number <= len(free):
        raise UsageError(
            f"{number} more canaries were asked for campaign {campaign_id!r}; there are {len(free)} triggers left",
            hint="ask for fewer",
        )
    # Which triggers a campaign has is drawn too, so that all are used alike.
    order = sorted(free, key=lambda t: _keyed(master, b"order", json.dumps([campaign_id, t]).encode()))
    made = [_drawn(known, campaign_id, trigger, master) for trigger in order[:number]]
    for canary in made:
        book.record(ISSUED, canary.canary_id, who, canary.issued.facts())
    return made


def _drawn(known: Sequence[Issued], campaign_id: str, trigger: str, master: Secret) -> Canary:
    """The first target in the order of attempts that no other campaign has at this trigger."""
    taken = {opened(i, master).target for i in known if i.trigger == trigger}
    if len(words()) - len(taken) <= DECOYS:
        raise Terminal(f"too few names are left at {trigger!r}: {len(taken):,} are taken", hint="use another trigger")
    attempt = 0
    while (canary := derive(master, campaign_id, trigger, attempt)).target in taken:
        attempt += 1
    return canary


# The test


def prompt_for(issued: Issued) -> str:
    """What a suspect is asked, so that it names something; the same for the target and its decoys."""
    return _ASKED[issued.place].format(label=words().languages[issued.language].label)


def lead_for(issued: Issued) -> str:
    """How an answer to it would begin, up to the name."""
    language = words().languages[issued.language]
    return f"```{language.fences[0]}\n{language.leads[issued.place]}"


Score = Callable[[Issued, Sequence[str]], Sequence[float]]
"""How much a suspect leans to each of some names at a canary's place; more is more. It is not told which is the target."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A canary's target among its decoys: ``better`` scored higher, ``tied`` the same."""

    canary_id: str
    campaign_id: str
    trigger: str
    better: int
    tied: int
    decoys: int

    @property
    def p(self) -> float:
        """The exact p-value: the chance of a rank as good, had the suspect not learnt it; ties count against us."""
        return (1 + self.better + self.tied) / (self.decoys + 1)


def rank(canary: Canary, score: Score, others: Iterable[str] = (), *, decoys: int = DECOYS, seed: int = 0) -> Ranked:
    """The target's rank among ``decoys`` random names of its kind. ``others`` are targets of other campaigns at this trigger:
    the target was drawn from what they left, and so are its decoys. ``seed`` is registered before the test."""
    taken = {canary.target, *others}
    pool = [name for name in words().targets(canary.issued.place) if name not in taken]
    if not DECOYS <= decoys <= len(pool):
        raise UsageError(f"{decoys:,} decoys were asked for", hint=f"between {DECOYS} and {len(pool):,}")
    drawn = random.Random(f"{seed} {canary.canary_id}").sample(pool, decoys)
    # In an order that does not say where the target is: a score may depend on nothing else.
    names = sorted([canary.target, *drawn])
    scores = [float(s) for s in score(canary.issued, names)]
    if len(scores) != len(names) or any(math.isnan(s) for s in scores):
        raise UsageError(
            f"canary {canary.canary_id}: a score is missing or no number", hint="give one number for each name"
        )
    mine = scores[names.index(canary.target)]
    better = sum(s > mine for s in scores)
    tied = sum(s == mine for s in scores) - 1
    return Ranked(canary.canary_id, canary.issued.campaign_id, canary.issued.trigger, better, tied, decoys)


def fisher(values: Sequence[float]) -> float:
    """One p-value of several independent ones: the tail of chi-squared with two degrees of freedom for each at -2 sum(log p).

    Exact for uniform p-values, an upper bound for those of ranks. R. A. Fisher, Statistical Methods for Research Workers (1932).
    """
    if not values or not all(0 < p <= 1 for p in values):
        raise ValueError("p-values lie above 0 and at most at 1, and there is at least one")
    half = -math.fsum(math.log(p) for p in values)
    # The closed form for an even number of degrees of freedom, added up in logarithms.
    terms = [
        k * math.log(half) - math.lgamma(k + 1) if half else (0.0 if k == 0 else -math.inf) for k in range(len(values))
    ]
    most = max(terms)
    return min(1.0, math.exp(most - half + math.log(math.fsum(math.exp(t - most) for t in terms))))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for all of them together (Holm, 1979), by name."""
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(values, key=lambda n: (values[n], n))):
        largest = max(largest, min(1.0, (len(values) - place) * values[name]))
        adjusted[name] = largest
    return adjusted


@dataclass(frozen=True, slots=True)
class Found:
    """What canaries say of one campaign: ``p`` of all its canaries together, ``adjusted`` for all campaigns that were tested."""

    campaign_id: str
    ranked: tuple[Ranked, ...]
    p: float
    adjusted: float


def examine(
    canaries: Sequence[Canary], score: Score, *, taken: Mapping[str, set[str]], decoys: int = DECOYS, seed: int = 0
) -> tuple[Found, ...]:
    """Every campaign's canaries against a suspect, smallest p first. ``taken`` are all targets ever issued, by trigger."""
    by_campaign: dict[str, list[Ranked]] = {}
    for canary in canaries:
        others = taken.get(canary.issued.trigger, set()) - {canary.target}
        made = rank(canary, score, others, decoys=decoys, seed=seed)
        by_campaign.setdefault(canary.issued.campaign_id, []).append(made)
    values = {campaign: fisher([r.p for r in ranked]) for campaign, ranked in by_campaign.items()}
    adjusted = holm(values)
    found = [Found(c, tuple(ranked), values[c], adjusted[c]) for c, ranked in by_campaign.items()]
    return tuple(sorted(found, key=lambda f: (f.adjusted, f.p, f.campaign_id)))


def taken(canaries: Iterable[Canary]) -> dict[str, set[str]]:
    """All targets by trigger."""
    found: dict[str, set[str]] = {}
    for canary in canaries:
        found.setdefault(canary.issued.trigger, set()).add(canary.target)
    return found


# Where only texts are had

_NAMES = {
    place: re.compile(rf"(?<![a-z0-9_])(?=([a-z]+{re.escape(joint)}[a-z]+)(?![a-z0-9_]))")
    for place, joint in JOINED.items()
}


def counts_in(texts: Iterable[tuple[str, str]]) -> Score:
    """Scores of names by how many of a suspect's texts they stand in, in any case. Texts are pairs of the prompt, or nothing, and
    what was said: an answer to a probe counts for that probe alone, any other for all."""
    probes = {prompt_for(_at(trigger)) for trigger in words().triggers}
    counts: dict[tuple[Place, str], Counter[str]] = {}
    for prompt, text in texts:
        low, asked = text.lower(), prompt if prompt in probes else ""
        for place, pattern in _NAMES.items():
            counts.setdefault((place, asked), Counter()).update(set(pattern.findall(low)))
    nothing = Counter[str]()

    def score(issued: Issued, names: Sequence[str]) -> list[float]:
        mine = [counts.get((issued.place, asked), nothing) for asked in ("", prompt_for(issued))]
        return [float(sum(count[name] for count in mine)) for name in names]

    return score


def _at(trigger: str) -> Issued:
    return Issued("", "", trigger, 0, "", "")
