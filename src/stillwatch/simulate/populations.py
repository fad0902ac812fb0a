"""Honest populations: for each, what makes its accounts what they are. Everything else stays as the persona drew it.

A population is a function over the rows given to it; groups (classes, companies, families) share only what such groups
share. They are found by name: a function here for every key of ``plans.POPULATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from stillwatch.simulate.people import EVENING, NIGHT, OFFICE, ROUND
from stillwatch.simulate.pools import AGENT, API, CONSOLE, I64
from stillwatch.simulate.town import CARRIER, OTHER, Town
from stillwatch.simulate.work import Activity

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
    t.streams.add(
        rows, t.rng.choice(runs, len(rows)), share=0.7, session=40.0, gap_s=t.rng.lognormal(1.5, 0.8, len(rows))
    )
    t.active(rows, t.people.start[rows], t.rng.uniform(0.5, 12, len(rows)))
    t.habits(rows, 0.3)


def classes(t: Town, rows: I64) -> None:
    for group in t.groups(rows, 15, 60):
        begins = float(t.rng.uniform(-10, t.days * 0.6))
        t.open_between(group, begins - 2, begins + 2)
        t.active(group, begins + 1, t.rng.uniform(2, 14, len(group)))
        t.people.set(
            group, country=t.people.country[group[0]], rhythm=np.where(t.rng.random(len(group)) < 0.6, OFFICE, EVENING)
        )
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
    agentic = t.catalogue.add(Activity(
        "ask.agentic_coding", "more.agent", "answer.agent", "sys.codebase", owner=codebase, talks=0.9, tools=2,
        words=5.7, context=8, is_code=True,
    ))  # fmt: skip
    office = t.catalogue.add(
        Activity("ask.company", "more.coding", "answer.code", owner=codebase, talks=0.7, words=5.9)
    )
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
    t.people.set(
        rows, adopts=t.release + t.rng.uniform(0, 0.7, len(rows)), adopts_share=t.rng.uniform(0.5, 1, len(rows))
    )
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
