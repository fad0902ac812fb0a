"""A world under construction, and the things that are done to some of its accounts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillwatch.simulate.networks import SESSION, Networks
from stillwatch.simulate.people import OWN_DOMAIN, People
from stillwatch.simulate.pools import I64, channels_for, clients_for
from stillwatch.simulate.work import Catalogue, Everyday, Streams

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
