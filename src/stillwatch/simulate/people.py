"""Accounts, and the persona every one of them gets from one common mixture.

Volume, hours, homes, clients, settings, mail, plan and verification of honest accounts and of operators' accounts come
from here. Populations and campaigns then change only what makes them what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillwatch.simulate.grammar import U64, mix
from stillwatch.simulate.networks import FIXED, LEASE, SESSION, Networks
from stillwatch.simulate.pools import (
    API,
    CONSOLE,
    COUNTRY_SHARES,
    F64,
    I64,
    JA4_PER_CLIENT,
    MAIL_FREE,
    MAIL_THROWAWAY,
    UTC_OFFSETS,
    channels_for,
    choose,
    clients_for,
    issuers,
)

OFFICE, EVENING, NIGHT, ROUND, WIDE = range(5)
"""Daily rhythms: office hours, evenings, a nightly slot, round the clock, most of the waking day."""
OWN_DOMAIN = 1000
FOREVER = 1e6


@dataclass(slots=True)
class People:
    """Columns of equal length, one entry an account. Times in days from the log's start; -1 stands for none."""

    key: U64
    population: I64
    campaign: I64
    org: I64
    created: F64
    start: F64
    stop: F64
    plan: I64
    programme: I64
    mail: I64
    card: I64
    issuer: I64
    billing: I64
    phone: I64
    phone_country: I64
    referrer: I64
    verification: I64
    country: I64
    interface: I64
    client: I64
    ja4: I64
    settings: I64
    channel: I64
    volume: F64
    rhythm: I64
    slot_hour: F64
    week_days: npt.NDArray[np.bool_]
    session: F64
    gap_s: F64
    adopts: F64
    adopts_share: F64
    model: I64
    egress: I64
    egress_key: U64
    egress_move: I64
    egress_share: F64

    def set(self, rows: I64, **columns: npt.ArrayLike) -> None:
        """Overwrites these columns of these rows."""
        for name, values in columns.items():
            getattr(self, name)[rows] = values

    def __len__(self) -> int:
        return len(self.key)


def draw_people(rng: np.random.Generator, net: Networks, size: int, days: float, release: float) -> People:
    """``size`` accounts from the common mixture, belonging to nothing yet."""
    country = choose(rng, COUNTRY_SHARES, size)
    interface = choose(rng, np.array([34.0, 44, 22]), size)
    client = clients_for(rng, interface)
    created = _sign_ups(rng, size, days)
    start, stop = _spans(rng, created, days)
    plan = choose(rng, np.array([40.0, 56, 4]), size)
    paid = rng.random(size) < np.where(plan == 0, 0.35, 0.97)
    # Cards and phones number upwards; whoever shares one gets another's number later.
    serial = np.arange(size) + int(rng.integers(1, 2**40))
    away = rng.random(size) < 0.12
    console = interface == CONSOLE
    return People(
        key=rng.integers(0, 2**63, size, dtype=np.uint64), population=np.zeros(size, np.int64),
        campaign=np.full(size, -1), org=np.full(size, -1), created=created, start=start, stop=stop, plan=plan,
        programme=np.where(rng.random(size) < 0.05, rng.integers(1, 4, size), 0), mail=_mail(rng, serial),
        card=np.where(paid, serial, -1), issuer=issuers(rng, size),
        billing=np.where(away, choose(rng, COUNTRY_SHARES, size), country),
        phone=np.where(rng.random(size) < 0.5, serial, -1),
        phone_country=np.where(rng.random(size) < 0.1, choose(rng, COUNTRY_SHARES, size), country),
        referrer=choose(rng, np.array([24.0, 32, 14, 8, 7, 9, 3, 3]), size),
        verification=choose(rng, np.array([8.0, 38, 24, 20, 6, 3, 1]), size), country=country, interface=interface,
        client=client, ja4=client * JA4_PER_CLIENT + choose(rng, np.array([55.0, 25, 15, 5]), size),
        settings=(160 * rng.random(size) ** 1.8).astype(np.int64), channel=channels_for(rng, interface),
        volume=rng.lognormal(0, 1.15, size), rhythm=_rhythms(rng, interface), slot_hour=rng.uniform(0, 24, size),
        week_days=rng.random(size) < 0.45,
        session=np.clip(rng.lognormal(np.where(console, 1.5, 2.0), 0.8), 1, 80),
        gap_s=np.where(rng.random(size) < np.where(console, 0.1, 0.5), rng.lognormal(2, 0.9, size),
                       rng.lognormal(4.3, 0.7, size)),
        adopts=_adoption(rng, size, release), adopts_share=np.clip(rng.beta(2, 1.2, size), 0.05, 1),
        model=choose(rng, np.array([55.0, 30, 15]), size), **_ways_out(rng, net, country, interface),
    )  # fmt: skip


def _sign_ups(rng: np.random.Generator, size: int, days: float) -> F64:
    """Days before or after the log's start: growth, churn and a few launch days that brought crowds."""
    kind = choose(rng, np.array([30.0, 10, 28, 32]), size)
    launches = rng.uniform(-25, days - 4, 5)
    recent = rng.uniform(-14, days - 1, size)
    crowd = launches[rng.integers(0, 5, size)] + rng.exponential(0.6, size)
    return np.where(
        kind == 0, recent, np.where(kind == 1, crowd, -rng.exponential(np.where(kind == 2, 45.0, 260.0), size))
    ).clip(-900, days - 0.6)


def _spans(rng: np.random.Generator, created: F64, days: float) -> tuple[F64, F64]:
    """First and last day of activity: trials of a day, busy weeks, steady users."""
    size = len(created)
    first = np.maximum(created, 0)
    late = (created < 0) & (rng.random(size) < 0.45)
    start = np.where(late, rng.uniform(0, days * 0.8, size), first)
    length = np.choose(
        choose(rng, np.array([14.0, 24, 24, 38]), size),
        [rng.uniform(0.15, 1, size), rng.uniform(1, 7, size), rng.uniform(7, 28, size), np.full(size, days)],
    )
    return start, np.minimum(start + length, days)


def _rhythms(rng: np.random.Generator, interface: I64) -> I64:
    size = len(interface)
    person = choose(rng, np.array([34.0, 30, 2, 6, 28]), size)
    program = choose(rng, np.array([26.0, 13, 9, 32, 20]), size)
    return np.where(interface == API, program, person)


def _adoption(rng: np.random.Generator, size: int, release: float) -> F64:
    """Day from which an account also uses the new model: one in seven within the first day."""
    delay = np.where(rng.random(size) < 0.16, rng.uniform(0, 1, size), rng.exponential(14, size) + 0.5)
    return np.where(rng.random(size) < 0.25, FOREVER, release + delay)


def _mail(rng: np.random.Generator, serial: I64) -> I64:
    kind = choose(rng, np.array([66.0, 13, 21]), len(serial))
    free = choose(rng, np.array([40.0, 25, 15, 12, 8]), len(serial))
    thrown = len(MAIL_FREE) + rng.integers(0, len(MAIL_THROWAWAY), len(serial))
    return np.where(kind == 0, free, np.where(kind == 1, thrown, OWN_DOMAIN + serial))


def _ways_out(rng: np.random.Generator, net: Networks, country: I64, interface: I64) -> dict[str, Any]:
    """Three egresses an account: home, carrier, and a cloud, VPN or rented proxy; most use one or two of them."""
    size = len(country)
    kind = choose(rng, np.array([26.0, 30, 8, 14, 5]), size)
    kind = np.where(interface == API, choose(rng, np.array([15.0, 12, 10, 50, 13]), size), kind)
    cloud, proxy = kind == 3, kind == 4
    third = np.where(cloud, rng.choice(net.cloud, size), rng.choice(net.vpn, size))
    third = np.where(proxy, rng.choice(net.proxy, size), third)
    moves = np.where(cloud, choose(rng, np.array([45.0, 25, 12, 18]), size), SESSION)
    moves = np.where(proxy, rng.integers(0, 4, size), moves)
    shares = np.array([[0.97, 0.02, 0.01], [0.6, 0.4, 0.0], [0.3, 0.2, 0.5], [0.1, 0.0, 0.9], [0.15, 0.05, 0.8]])[kind]
    egress = np.stack([net.isp[country, rng.integers(0, net.isp.shape[1], size)], net.carrier[country], third], axis=1)
    key = rng.integers(0, 2**63, size, dtype=np.uint64)
    lease = np.where(rng.random(size) < 0.3, FIXED, LEASE)
    return {
        "egress": egress, "egress_key": np.stack([key, mix(key), mix(mix(key))], axis=1),
        "egress_move": np.stack([lease, np.full(size, SESSION), moves], axis=1),
        "egress_share": shares * rng.uniform(0.6, 1, (size, 3)),
    }  # fmt: skip


def hours_of(rhythm: I64, slot_hour: F64, country: I64, u: F64, v: F64) -> F64:
    """UTC hour of day for each, from two uniform draws; rhythms are local except the round-the-clock one."""
    spread = np.sqrt(-2 * np.log(np.maximum(u, 1e-9))) * np.cos(2 * np.pi * v)
    local = np.choose(rhythm, [13 + 2.6 * spread, 20 + 2.6 * spread, slot_hour + 0.6 * u, 24 * u, 14.5 + 4.6 * spread])
    return (local - np.where(rhythm == NIGHT, 0, UTC_OFFSETS[country])) % 24
