"""Addresses and clients: providers of access, pools that many use, and the programs that call the API."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COUNTRIES = ("US", "IN", "GB", "DE", "BR", "JP", "FR", "CA", "SG", "KR", "NL", "AU", "VN", "ID", "PL", "ES", "IT", "MX",
             "TR", "NG", "PH", "UA", "HK", "TW", "AE", "ZA", "SE", "AR")  # fmt: skip
HOURS_EAST = (-6, 5.5, 0, 1, -3, 9, 1, -5, 8, 9, 1, 10, 7, 7, 1, 1, 1, -6, 3, 1, 8, 2, 8, 8, 4, 2, 1, -3)
LIBRARIES = ("openai-python", "anthropic-sdk-python", "openai-node", "anthropic-sdk-typescript", "langchain", "litellm",
             "python-requests", "httpx", "go-http-client", "okhttp", "axios", "claude-cli", "aider", "curl", "aiohttp",
             "Mozilla/5.0 (Windows NT 10.0) Chrome", "Mozilla/5.0 (Macintosh) Safari", "Mozilla/5.0 (X11) Firefox")  # fmt: skip


def mixed(*keys: np.ndarray | int) -> np.ndarray:
    """A well-mixed 64-bit number for every combination of keys."""
    state = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for key in keys:
            state = (state ^ np.asarray(key).astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
            state = state ^ (state >> np.uint64(29))
            state = state * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(32))
    return state


@dataclass
class Network:
    """Access providers (home, mobile, datacentre) and pools of addresses."""

    country: np.ndarray
    asn: np.ndarray
    first16: np.ndarray
    blocks: np.ndarray
    homes: np.ndarray
    centres: np.ndarray
    carriers: list[int]
    shared: list[int]
    residential: int
    pools: list[tuple[np.ndarray, np.ndarray]]
    clients: list[tuple[str, str]]
    popularity: np.ndarray

    def pool(self, rng: np.random.Generator, providers: np.ndarray, size: int, narrow: bool) -> int:
        """Add a pool of addresses at these providers and return its number; narrow ones sit in a few /24."""
        provider = rng.choice(providers, size)
        key = rng.integers(0, 1 << 40, max(1, size // rng.integers(8, 60)))[rng.integers(0, max(1, size // 60), size)]
        key = key if narrow else rng.integers(0, 1 << 40, size)
        block = self.first16[provider] + (key % self.blocks[provider])
        low = mixed(key, 3) % np.uint64(256)
        last = rng.integers(1, 255, size)
        self.pools.append(((block << 16) | (low.astype(np.int64) << 8) | last, provider))
        return len(self.pools) - 1

    def home_in(self, rng: np.random.Generator, country: np.ndarray) -> np.ndarray:
        """A home provider for each country asked."""
        out = np.zeros(len(country), dtype=np.int64)
        for one in np.unique(country):
            mine = self.homes[self.country[self.homes] == one]
            weight = 1 / np.arange(1, len(mine) + 1)
            out[country == one] = rng.choice(mine, int((country == one).sum()), p=weight / weight.sum())
        return out

    def own(self, provider: np.ndarray, key: np.ndarray) -> np.ndarray:
        """The address that a key (a household, a lease) has at its provider."""
        m = mixed(key, provider)
        block = self.first16[provider] + (m % self.blocks[provider].astype(np.uint64)).astype(np.int64)
        return (block << 16) | ((m >> np.uint64(20)) % np.uint64(65_000)).astype(np.int64) + 256


def draw(rng: np.random.Generator) -> Network:
    """The net of one world."""
    homes_each = rng.integers(2, 6, len(COUNTRIES))
    centres, carriers = int(rng.integers(9, 22)), 2 * len(COUNTRIES)
    country = np.concatenate([
        np.repeat(np.arange(len(COUNTRIES)), homes_each),
        rng.choice(len(COUNTRIES), centres, p=shares(rng, len(COUNTRIES), 1.0)),
        np.tile(np.arange(len(COUNTRIES)), 2),
    ])  # fmt: skip
    n, home = len(country), int(homes_each.sum())
    blocks = np.concatenate([rng.integers(6, 90, home), rng.integers(2, 30, centres), rng.integers(1, 5, carriers)])
    first16 = 11 * 256 + np.concatenate([[0], np.cumsum(blocks[:-1] + rng.integers(0, 40, n - 1))])
    count = int(rng.integers(25, 60))
    clients = []
    for i in range(count):
        name = LIBRARIES[int(rng.integers(len(LIBRARIES)))]
        version = f"{rng.integers(0, 4)}.{rng.integers(0, 60)}.{rng.integers(0, 9)}"
        clients.append((f"{name}/{version}", f"t13d{rng.integers(1000, 1900)}h2_{int(mixed(i, 7)) >> 16:012x}"[:36]))
    net = Network(country, rng.choice(60_000, n, replace=False) + 1_000, first16, blocks, np.arange(home),
                  np.arange(home, home + centres), [], [], 0, [], clients, shares(rng, count, rng.uniform(0.7, 1.4)))  # fmt: skip
    net.carriers = [net.pool(rng, np.array([p]), int(rng.integers(15, 160)), True) for p in range(home + centres, n)]
    net.shared = [net.pool(rng, net.centres[rng.integers(0, centres, 2)], int(rng.integers(10, 150)), True)
                  for _ in range(int(rng.integers(8, 25)))]  # fmt: skip
    net.residential = net.pool(rng, net.homes, int(rng.integers(20_000, 90_000)), False)
    return net


def shares(rng: np.random.Generator, n: int, slope: float) -> np.ndarray:
    """Zipf shares in a drawn order of small shifts."""
    weight = np.arange(1, n + 1) ** -slope * rng.lognormal(0, 0.4, n)
    return weight / weight.sum()
