"""Addresses: providers' blocks of 256, and the ways an account reaches the internet.

An egress is a list of blocks and the hosts in each that traffic leaves from. A home, a carrier's NAT, a school, a VPN,
a cloud and an operator's pool of proxies are all egresses; they differ in how many blocks and hosts they have, and in
how often an account moves within them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stillwatch.simulate.grammar import U64, mix
from stillwatch.simulate.pools import COUNTRIES, COUNTRY_SHARES, I64, choose

FIXED, LEASE, DAYS, SESSION = 0, 1, 2, 3
"""How an account moves: never; to another host every few days; to another block every few days; every session."""
ISPS, CLOUDS, VPNS, RELAYS, PROXIES = 3, 5, 5, 2, 3


@dataclass(slots=True)
class Networks:
    """Grows while a world is built; ``address`` then turns egress, key and time into addresses."""

    rng: np.random.Generator
    bases: list[I64] = field(default_factory=list)
    asns: list[I64] = field(default_factory=list)
    countries: list[I64] = field(default_factory=list)
    egresses: list[tuple[int, int, int]] = field(default_factory=list)
    members: list[I64] = field(default_factory=list)
    blocks: int = 0
    size: int = 0
    taken: set[int] = field(default_factory=set)
    isp: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    carrier: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    cloud: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    vpn: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    proxy: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    relay: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def new_blocks(self, asn: npt.ArrayLike, country: npt.ArrayLike, count: int) -> I64:
        """Numbers of ``count`` fresh blocks, each of its own /24."""
        fresh: list[int] = []
        while len(fresh) < count:
            for base in self.rng.integers(11 << 16, 223 << 16, count - len(fresh)).tolist():
                if base not in self.taken and base >> 16 not in (127, 169, 172, 192, 198, 203):
                    self.taken.add(base)
                    fresh.append(base)
        self.bases.append(np.array(fresh, np.int64))
        self.asns.append(np.broadcast_to(np.asarray(asn, np.int64), count))
        self.countries.append(np.broadcast_to(np.asarray(country, np.int64), count))
        self.blocks += count
        return np.arange(self.blocks - count, self.blocks)

    def egress(self, blocks: I64, hosts: int) -> int:
        self.egresses.append((self.size, len(blocks), hosts))
        self.members.append(blocks)
        self.size += len(blocks)
        return len(self.egresses) - 1

    def site(self, country: int) -> int:
        """One building's uplink: one block, a few hosts."""
        block = self.new_blocks(7000 + 40 * country + int(self.rng.integers(0, ISPS)), country, 1)
        return self.egress(block, int(self.rng.integers(1, 5)))

    def residential_pool(self, count: int, lands: I64) -> int:
        """An operator's proxies in a few countries: half of the blocks also hold people's homes."""
        isps = self.rng.integers(0, ISPS, len(lands))
        shared = self.rng.permutation(np.concatenate([self.blocks_of(int(e)) for e in self.isp[lands, isps]]))
        shared = shared[: (count + 1) // 2]
        pick = self.rng.integers(0, len(lands), count - len(shared))
        country, asn = lands[pick], 7000 + 40 * lands[pick] + isps[pick]
        return self.egress(np.concatenate([shared, self.new_blocks(asn, country, len(country))]), 220)

    def datacentre_pool(self, count: int) -> int:
        """Rented servers: blocks of one cloud that other customers use too."""
        blocks = self.blocks_of(int(self.rng.choice(self.cloud)))
        return self.egress(self.rng.permutation(blocks)[:count], 250)

    def blocks_of(self, egress: int) -> I64:
        return self.members[egress]

    def freeze(self) -> Addresses:
        table = np.array(self.egresses, np.int64)
        return Addresses(
            table[:, 0], table[:, 1], table[:, 2], np.concatenate(self.members), np.concatenate(self.bases),
            np.concatenate(self.asns), np.concatenate(self.countries),
        )  # fmt: skip


def build_networks(rng: np.random.Generator, accounts: int) -> Networks:
    """Homes, carriers, clouds, VPNs and relays for this many accounts: about six homes a block."""
    net = Networks(rng)
    homes = np.maximum(3, accounts * COUNTRY_SHARES / COUNTRY_SHARES.sum() / 6 / ISPS).astype(int)
    rows = range(len(COUNTRIES))
    net.isp = np.array([
        [net.egress(net.new_blocks(7000 + 40 * c + i, c, homes[c]), 230) for i in range(ISPS)] for c in rows
    ])  # fmt: skip
    net.carrier = np.array([net.egress(net.new_blocks(20_000 + c, c, 3), 24) for c in rows])
    wide = max(12, accounts // 120)
    net.cloud = np.array([net.egress(net.new_blocks(30_000 + i, rng.integers(0, 3), wide), 250) for i in range(CLOUDS)])
    spots = choose(rng, COUNTRY_SHARES, VPNS * 8).reshape(VPNS, 8)
    carriers = 40_000 + rng.integers(0, 12, (VPNS, 8))
    net.vpn = np.array([net.egress(net.new_blocks(carriers[i], spots[i], 8), 20) for i in range(VPNS)])
    # Commercial residential proxies, which all sorts of people rent: homes of strangers in a few countries.
    homes_of = [net.isp[choose(rng, COUNTRY_SHARES, 3), rng.integers(0, ISPS, 3)] for _ in range(PROXIES)]
    net.proxy = np.array([
        net.egress(rng.permutation(np.concatenate([net.blocks_of(int(e)) for e in isps]))[: max(12, wide)], 220)
        for isps in homes_of
    ])  # fmt: skip
    net.relay = np.array([net.egress(net.new_blocks(50_000 + i, 0, 3), 6) for i in range(RELAYS)])
    return net


@dataclass(frozen=True, slots=True)
class Addresses:
    """Every egress of a finished world; ``block`` rows are found through ``start`` and ``count``."""

    start: I64
    count: I64
    hosts: I64
    members: I64
    base: I64
    asn: I64
    country: I64

    def at(self, egress: I64, key: U64, move: I64, day: I64, session: I64) -> tuple[I64, I64]:
        """Address (32 bits as int64) and block of each row."""
        when = np.where(move == SESSION, session + 1_000_003, np.where(move == FIXED, 0, day // 4 + 1))
        own = np.where(move >= DAYS, mix(key + when.astype(np.uint64) * np.uint64(0x9E3779B1)), mix(key))
        block = self.members[self.start[egress] + (own % self.count[egress].astype(np.uint64)).astype(np.int64)]
        lease = mix(own ^ (when.astype(np.uint64) << np.uint64(20)))
        host = 2 + ((lease >> np.uint64(9)) % self.hosts[egress].astype(np.uint64)).astype(np.int64)
        return self.base[block] * 256 + host, block
