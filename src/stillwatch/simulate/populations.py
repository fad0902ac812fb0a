"""Honest populations: for each, what makes its accounts what they are. Everything else stays as the persona drew it.

A population is a function over the rows given to it; groups (classes, companies, families) share only what such groups
share. They are found by name: a function here for every key of ``plans.POPULATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stillwatch.simulate.networks import SESSION, Networks
from stillwatch.simulate.people import EVENING, NIGHT, OFFICE, OWN_DOMAIN, ROUND, People, join_people
from stillwatch.simulate.pools import AGENT, API, CONSOLE, F64, I64, channels_for, clients_for
from stillwatch.simulate.work import Activity, Catalogue, Everyday, Streams

HOME, CARRIER, OTHER = 0, 1, 2


@dataclass(slots=True)
class Town:
    """What populations and campaigns are added to."""

    rng: np.random.Generator
    days: float
    release: float
    people: People
    net: Networks
    catalogue: Catalogue
    streams: Streams
    everyday: Everyday
    weekday: int = 0
    sections: frozenset[str] = frozenset()
    orgs: int = 0

    def seed(self) -> int:
        return int(self.rng.integers(1, 2**62))

    def interface(self, rows: I64, kind: int, share: float = 1.0) -> None:
        """This share of the rows reaches the models this way, with a client that fits."""
        rows = rows[self.rng.random(len(rows)) < share]
        wanted = np.full(len(rows), kind)
        self.people.set(rows, interface=wanted, client=clients_for(self.rng, wanted))
        self.people.set(rows, channel=channels_for(self.rng, wanted), ja4=self.people.client[rows] * 4)
        self.people.ja4[rows] += self.rng.integers(0, 8, len(rows)) % 5 % 4

    def habits(self, rows: I64, share: float = 1.0) -> None:
        """Two everyday activities each, the first three times as often."""
        p = self.people
        for weight in (0.75 * share, 0.25 * share):
            work = self.everyday.pick(self.rng, p.interface[rows], p.country[rows], p.client[rows])
            self.streams.add(rows, work, share=weight)

    def groups(self, rows: I64, low: int, high: int) -> list[I64]:
        """The rows cut into groups of ``low`` to ``high``; a small rest joins the last."""
        cuts: list[int] = []
        at = 0
        while len(rows) - at > high:
            at += int(self.rng.integers(low, high + 1))
            cuts.append(at)
        return [g for g in np.split(rows, cuts) if len(g)]

    def go_out(self, rows: I64, slot: int, egress: npt.ArrayLike, share: float, move: int = SESSION) -> None:
        """These rows leave through ``egress`` for this share of their sessions."""
        p = self.people
        p.egress[rows, slot] = egress
        p.egress_move[rows, slot] = move
        shares = p.egress_share[rows]
        shares[:, slot] = 0
        shares *= (1 - share) / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
        shares[:, slot] = share
        p.egress_share[rows] = shares

    def same_source(self, rows: I64, share: float) -> None:
        """This share of the rows came through the same referrer."""
        alike = rows[self.rng.random(len(rows)) < share]
        if len(alike):
            self.people.set(alike, referrer=self.people.referrer[alike[0]])

    def declare(self, rows: I64) -> None:
        """One organisation that says so."""
        self.people.set(rows, org=self.orgs)
        self.orgs += 1

    def same_domain(self, rows: I64, share: float) -> None:
        own = rows[self.rng.random(len(rows)) < share]
        if len(own):
            self.people.set(own, mail=OWN_DOMAIN + 2**41 + self.orgs * 4096 + int(self.rng.integers(0, 4096)))

    def same_card(self, rows: I64, share: float) -> None:
        """This share of the rows pays with the first one's card."""
        p = self.people
        users = rows[self.rng.random(len(rows)) < share]
        if len(users):
            card = p.card[users[0]] if p.card[users[0]] >= 0 else int(self.rng.integers(2**42, 2**43))
            p.set(users, card=card, issuer=p.issuer[users[0]], billing=p.billing[users[0]])
            upgraded = users[self.rng.random(len(users)) < 0.4]
            p.set(upgraded, plan=np.maximum(p.plan[upgraded], 1))

    def open_between(self, rows: I64, first: float, last: float) -> None:
        """Sign-ups between two days; activity starts no earlier."""
        created = self.rng.uniform(first, last, len(rows)).clip(-900, self.days - 0.6)
        length = self.people.stop[rows] - self.people.start[rows]
        start = np.maximum(self.people.start[rows], created).clip(0, self.days - 0.5)
        self.people.set(rows, created=created, start=start, stop=np.minimum(start + np.maximum(length, 0.4), self.days))

    def active(self, rows: I64, first: npt.ArrayLike, length: npt.ArrayLike) -> None:
        start = np.clip(np.maximum(first, self.people.created[rows]), 0, self.days - 0.3)
        self.people.set(rows, start=start, stop=np.minimum(start + length, self.days))


Population = Callable[[Town, I64], None]


def private_chat(t: Town, rows: I64) -> None:
    t.interface(rows, CONSOLE, 0.6)
    t.habits(rows)


def agent_users(t: Town, rows: I64) -> None:
    t.interface(rows, AGENT)
    t.habits(rows)


def products(t: Town, rows: I64) -> None:
    t.interface(rows, API)
    t.people.volume[rows] *= 2.5
    t.people.rhythm[rows] = np.where(t.rng.random(len(rows)) < 0.6, ROUND, t.people.rhythm[rows])
    for row in rows.tolist():
        talks, words, tools = float(t.rng.beta(0.6, 1.4)), float(t.rng.normal(5.3, 0.6)), int(t.rng.integers(0, 9))
        t.streams.add(np.array([row]), t.catalogue.add(Activity(
            "ask.product", "more.product", "answer.product", "sys.product", owner=t.seed(), talks=talks, words=words,
            tools=tools if tools > 3 else 0, variants=int(t.rng.integers(1, 4)), context=float(t.rng.normal(5, 1)),
        )), end_users=float(t.rng.lognormal(3.5, 1.2)) if t.rng.random() < 0.6 else 0)  # fmt: skip
    t.habits(rows, 0.05)


def nightly_batches(t: Town, rows: I64) -> None:
    t.interface(rows, API)
    t.people.volume[rows] *= 2
    t.people.set(rows, rhythm=NIGHT)
    for row in rows.tolist():
        work = Activity("ask.batch", "more.product", "answer.label", owner=t.seed(), talks=0, context=4.5,
                        words=float(t.rng.normal(5, 0.8)), batch=float(t.rng.random() < 0.6), systems=0)  # fmt: skip
        t.streams.add(np.array([row]), t.catalogue.add(work), session=60.0, gap_s=float(t.rng.lognormal(0.5, 0.8)))
    t.habits(rows, 0.1)


def benchmark_runners(t: Town, rows: I64) -> None:
    t.interface(rows, API, 0.9)
    runs = [
        t.catalogue.add(Activity("ask.bench", answer="answer.long", owner=t.seed(), talks=0, in_order=True,
                                 listed=int(t.rng.integers(200, 1500)), words=float(t.rng.normal(5.8, 0.7)), systems=0))
        for _ in range(8)
    ]  # fmt: skip
    t.streams.add(rows, t.rng.choice(runs, len(rows)), share=0.7, session=40.0, gap_s=t.rng.lognormal(1.5, 0.8, len(rows)))
    t.active(rows, t.people.start[rows], t.rng.uniform(0.5, 12, len(rows)))
    t.habits(rows, 0.3)


def classes(t: Town, rows: I64) -> None:
    for group in t.groups(rows, 15, 60):
        begins = float(t.rng.uniform(-10, t.days * 0.6))
        t.open_between(group, begins - 2, begins + 2)
        t.active(group, begins + 1, t.rng.uniform(2, 14, len(group)))
        t.people.set(group, country=t.people.country[group[0]], rhythm=np.where(t.rng.random(len(group)) < 0.6, OFFICE, EVENING))
        t.go_out(group, OTHER, t.net.site(int(t.people.country[group[0]])), 0.6)
        t.people.set(group, programme=np.where(t.rng.random(len(group)) < 0.75, 1, 0))
        t.same_domain(group, 0.7)
        t.same_source(group, 0.6)
        if t.rng.random() < 0.25:
            t.same_card(group, 0.9)
        if t.rng.random() < 0.65:
            t.declare(group)
        work = Activity("ask.class", "more.education", "answer.long", owner=t.seed(), talks=0.7, words=5.9)
        t.streams.add(group, t.catalogue.add(work), share=0.8)
        t.habits(group, 0.2)


def hackathons(t: Town, rows: I64) -> None:
    for group in t.groups(rows, 20, 80):
        begins = float(t.rng.uniform(0.5, t.days - 2.5))
        new = group[t.rng.random(len(group)) < 0.7]
        t.open_between(new, begins - 1, begins + 0.3)
        t.active(group, begins, t.rng.uniform(0.8, 2, len(group)))
        t.go_out(group, OTHER, t.net.site(int(t.people.country[group[0]])), 0.75)
        t.people.set(group, country=t.people.country[group[0]], programme=3 * (t.rng.random(len(group)) < 0.3))
        t.same_source(group, 0.6)
        for team in t.groups(group, 2, 6):
            work = replace(t.catalogue.rows[int(t.everyday.activities[API][int(t.rng.integers(0, 8))])],
                           system="sys.hack", systems=0.9, owner=t.seed())  # fmt: skip
            t.streams.add(team, t.catalogue.add(work), share=0.5)
        t.habits(group, 0.5)


def _staff(t: Town, group: I64, codebase: int) -> None:
    """Colleagues on one codebase, with a system text of its own."""
    agentic = t.catalogue.add(Activity("ask.agentic_coding", "more.agent", "answer.agent", "sys.codebase", owner=codebase,
                                       talks=0.9, tools=2, words=5.7, context=8, is_code=True))  # fmt: skip
    office = t.catalogue.add(Activity("ask.company", "more.coding", "answer.code", owner=codebase, talks=0.7, words=5.9))
    t.streams.add(group, agentic, share=0.45)
    t.streams.add(group, office, share=0.35)
    t.habits(group, 0.2)


def company_seats(t: Town, rows: I64) -> None:
    for group in t.groups(rows, 5, 120):
        t.declare(group)
        t.same_domain(group, 0.95)
        t.same_card(group, 0.95)
        t.people.set(group, plan=np.where(t.rng.random(len(group)) < 0.5, 2, 1), country=t.people.country[group[0]])
        t.people.rhythm[group] = np.where(t.rng.random(len(group)) < 0.7, OFFICE, t.people.rhythm[group])
        t.go_out(group, OTHER, t.net.site(int(t.people.country[group[0]])), 0.6)
        _staff(t, group, t.seed())


def undeclared_companies(t: Town, rows: I64) -> None:
    """Many cards, many addresses, one codebase or one set of internal templates, and no word of belonging together."""
    for group in t.groups(rows, 5, 60):
        if t.rng.random() < 0.5:
            t.same_domain(group, 0.6)
        t.same_source(group, 0.4)
        for pair in t.groups(group, 1, 4):
            t.same_card(pair, 0.8)
        t.open_between(group, float(t.rng.uniform(-200, -5)), float(t.rng.uniform(-4, t.days / 2)))
        if t.rng.random() < 0.6:
            _staff(t, group, t.seed())
            continue
        t.interface(group, API)
        t.people.rhythm[group] = np.where(t.rng.random(len(group)) < 0.5, ROUND, t.people.rhythm[group])
        t.go_out(group, OTHER, t.rng.choice(t.net.cloud), 0.8, int(t.rng.integers(0, 4)))
        owner = t.seed()
        for work, share in (("ask.internal", 0.6), ("ask.product", 0.3)):
            t.streams.add(group, t.catalogue.add(Activity(
                work, "more.product", "answer.product", "sys.product", owner=owner, variants=4, systems=0.7, talks=0.1,
                words=float(t.rng.normal(5.6, 0.6)))), share=share)  # fmt: skip
        t.habits(group, 0.1)


def _vendors(t: Town, rows: I64, section: str, busy: float) -> None:
    for group in t.groups(rows, 1, 5):
        if t.rng.random() < 0.7:
            t.declare(group)
            t.people.set(group, verification=np.where(t.rng.random(len(group)) < 0.6, 6, 4))
        else:
            group = group[:1]
            t.people.set(group, verification=4 + 2 * int(t.rng.random() < 0.5))
        t.same_domain(group, 0.9)
        t.same_card(group, 0.9)
        t.interface(group, API)
        t.people.volume[group] *= busy
        t.people.set(group, plan=np.where(t.rng.random(len(group)) < 0.6, 2, 1))
        work = Activity(section, section, "answer.long", owner=t.seed(), variants=int(t.rng.integers(1, 7)),
                        talks=0.05, listed=0, words=float(t.rng.normal(6, 0.6)))  # fmt: skip
        t.streams.add(group, t.catalogue.add(work), share=0.9)
    t.habits(rows, 0.1)


def synthetic_data_makers(t: Town, rows: I64) -> None:
    _vendors(t, rows, "ask.synth", 6)


def evaluation_vendors(t: Town, rows: I64) -> None:
    _vendors(t, rows, "ask.evaluation", 4)


def routers(t: Town, rows: I64) -> None:
    for group in t.groups(rows, 1, 3):
        t.declare(group)
        t.same_domain(group, 1)
        t.same_card(group, 1)
        t.interface(group, API)
        t.people.volume[group] *= 12
        t.people.set(group, rhythm=ROUND, plan=2)
        t.open_between(group, -500, -5)
        t.active(group, 0, t.days)
        t.go_out(group, OTHER, t.rng.choice(t.net.cloud), 0.95, int(t.rng.integers(0, 4)))
        users = float(t.rng.uniform(60, 3000)) if t.rng.random() < 0.8 else 0
        t.streams.add(group, t.everyday.activities[API][0], mixed=1, end_users=users, session=6.0)


def vpn_users(t: Town, rows: I64) -> None:
    t.go_out(rows, OTHER, t.rng.choice(t.net.vpn, len(rows)), 0.9)
    t.habits(rows)


def carrier_nat_users(t: Town, rows: I64) -> None:
    t.go_out(rows, CARRIER, t.net.carrier[t.people.country[rows]], 0.92)
    t.habits(rows)


def first_day_migrators(t: Town, rows: I64) -> None:
    t.people.set(rows, adopts=t.release + t.rng.uniform(0, 0.7, len(rows)), adopts_share=t.rng.uniform(0.5, 1, len(rows)))
    late = t.people.created[rows] > t.release
    t.open_between(rows[late], -60, t.release)
    t.active(rows, np.minimum(t.people.start[rows], t.release - 1), t.days)
    t.habits(rows)


def public_kit_users(t: Town, rows: I64) -> None:
    t.interface(rows, API, 0.85)
    for kit in np.array_split(t.rng.permutation(rows), 2):
        work = Activity("ask.kit", answer="answer.long", owner=t.seed(), listed=int(t.rng.integers(300, 900)), talks=0,
                        words=6.2, systems=0)  # fmt: skip
        t.streams.add(kit, t.catalogue.add(work), share=t.rng.uniform(0.3, 0.9, len(kit)), session=20.0)
    t.habits(rows, 0.35)


def families(t: Town, rows: I64) -> None:
    p = t.people
    for group in t.groups(rows, 2, 5):
        first = group[0]
        p.set(group, country=p.country[first], phone_country=p.phone_country[first])
        p.egress[group], p.egress_key[group, 0] = p.egress[first], p.egress_key[first, 0]
        t.same_card(group, 1)
    t.interface(rows, CONSOLE, 0.6)
    t.habits(rows)


def privacy_relay_users(t: Town, rows: I64) -> None:
    t.go_out(rows, OTHER, t.rng.choice(t.net.relay, len(rows)), 0.93)
    t.habits(rows)


def settle(t: Town, shares: dict[str, float], rows: I64) -> None:
    """Gives every honest row its population, then lets strangers share resold cards and numbers."""
    total = sum(shares.values())
    sizes = {name: max(6 if share else 0, round(len(rows) * share / total)) for name, share in shares.items()}
    first = max(sizes, key=lambda name: sizes[name])
    sizes[first] += len(rows) - sum(sizes.values())
    cuts = np.cumsum(list(sizes.values()))[:-1]
    for number, (name, part) in enumerate(zip(sizes, np.split(t.rng.permutation(rows), cuts))):
        t.people.population[part] = number
        globals_of: Population = _BY_NAME[name]
        globals_of(t, part)
    _resold(t, rows)


def _resold(t: Town, rows: I64) -> None:
    """Virtual cards and phone numbers that pass through many strangers' hands: a tenth of the honest accounts."""
    p = t.people
    lone = rows[(p.org[rows] < 0) & (p.card[rows] >= 0)]
    for group in t.groups(t.rng.permutation(lone)[: len(rows) // 10], 2, 24):
        p.set(group, card=p.card[group[0]], issuer=5 + int(t.rng.integers(0, 2)))
    for group in t.groups(t.rng.permutation(rows[p.phone[rows] >= 0])[: len(rows) // 20], 2, 6):
        p.set(group, phone=p.phone[group[0]])


_BY_NAME: dict[str, Population] = {
    f.__name__: f
    for f in (
        private_chat, agent_users, products, nightly_batches, benchmark_runners, classes, hackathons, company_seats,
        undeclared_companies, synthetic_data_makers, evaluation_vendors, routers, vpn_users, carrier_nat_users,
        first_day_migrators, public_kit_users, families, privacy_relay_users,
    )
}  # fmt: skip

__all__ = ["F64", "Town", "join_people", "settle"]
