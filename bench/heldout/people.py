"""Networks, client software and accounts: who could send a request, before anyone does.

Accounts are kept as columns. `Ledger.add` appends a group; every value is a scalar or an array of the
group's length. Times are seconds from the start of the log.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from .wording import coin, listed

COUNTRIES = listed("US GB DE FR IN BR JP SG NL CA KR AU PL ES ID VN CN HK TR NG")
COUNTRY_WEIGHTS = np.array([26, 7, 7, 5, 10, 5, 5, 3, 3, 4, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2], float)
ZONES = np.array([-6, 0, 1, 1, 5, -3, 9, 8, 1, -5, 9, 10, 1, 1, 7, 7, 8, 8, 3, 1])
SLOTS = 6  # addresses and styles an account can hold
DAY = 86_400.0
PUBLIC_MAIL = listed("gmail.com outlook.com yahoo.com icloud.com proton.me qq.com 163.com gmx.de mail.ru hotmail.com")
THROWAWAY = listed("mailnesia.com tempr.email inboxkit.net dropmail.me")
ISSUERS = [
    f"{a}-{b}" for a in listed("alto bravo cedar delta ember fjord") for b in listed("debit credit prepaid virtual")
]
REFERRERS = ["search", "docs", "github", "newsletter", "friend", "video", "conference", None, None, None]
CHANNELS = ["api", "console", "cloud:stratus", "cloud:meridian", "cloud:basin"]
VERIFICATIONS = ["none", "email", "phone", "card", "domain", "id"]

CLIENTS: dict[str, tuple[str, ...]] = {
    "browser": (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/{v}.0.0.0 Safari/537.36",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/{v}.1 Safari/605.1.15",
        "Mozilla/5.0 (X11; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_{v} like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    ),
    "sdk": ("OpenAI/Python 1.{v}.0", "Anthropic/Python 0.{v}.0", "OpenAI/JS 4.{v}.1", "Anthropic/JS 0.{v}.2"),
    "agent": ("aider/0.{v}.1", "cline/3.{v}.0", "opencode/0.{v}.4", "browser-use/0.{v}.0", "continue/1.{v}.0"),
    "framework": ("langchain/0.{v}.2", "litellm/1.{v}.3", "llama-index/0.{v}.9", "dspy/2.{v}.1"),
    "script": (
        "python-requests/2.{v}.0",
        "python-httpx/0.{v}.0",
        "aiohttp/3.{v}.1",
        "Go-http-client/2.0",
        "axios/1.{v}.4",
    ),
}


class Net:
    """Address blocks of /20 with an owner: home, mobile, hosting, vpn or office."""

    KINDS = ("home", "mobile", "hosting", "vpn", "office")

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw which blocks exist, where they are and whose they are."""
        self.rng = rng
        per_country = {"home": 14, "mobile": 2, "hosting": 3, "vpn": 2, "office": 5}
        kinds = [k for k in self.KINDS for _ in range(per_country[k] * len(COUNTRIES))]
        n = len(kinds)
        self.kind = np.array(kinds)
        self.country = np.tile(np.arange(len(COUNTRIES)), n // len(COUNTRIES))
        self.base = rng.choice(np.arange(1 << 12, 13 << 12), n, replace=False).astype(np.int64)
        owners = {k: rng.integers(3_000, 400_000, (len(COUNTRIES), 4)) for k in self.KINDS}
        self.asn = np.array(
            [owners[k][c, rng.integers(0, 4)] for k, c in zip(self.kind, self.country, strict=True)], np.int32
        )
        self.six = (rng.random(n) < 0.15) & np.isin(self.kind, ["home", "mobile"])
        self.row = np.full(1 << 16, -1, np.int64)
        self.row[self.base] = np.arange(n)

    def addresses(self, kind: str, country: np.ndarray) -> np.ndarray:
        """One fresh address of the kind per entry, within the entry's country."""
        out = np.zeros(len(country), np.int64)
        for c in np.unique(country):
            blocks = np.flatnonzero((self.kind == kind) & (self.country == c))
            at = np.flatnonzero(country == c)
            out[at] = self.base[self.rng.choice(blocks, len(at))]
        return out * 4096 + self.rng.integers(2, 4090, len(country))

    def text(self, address: np.ndarray) -> np.ndarray:
        """Addresses as written in a log."""
        rows = self.row[address >> 12]
        out = np.empty(len(address), object)
        for k, (a, six) in enumerate(zip(address.tolist(), self.six[rows].tolist(), strict=True)):
            if six:
                out[k] = f"2a0{a >> 24:x}:{(a >> 8) & 0xFFFF:x}:{(a * 7) & 0xFFF:x}:{a & 0xFFF:x}::{(a & 0xFF) + 1:x}"
            else:
                out[k] = f"{11 + (a >> 24)}.{(a >> 16) & 255}.{(a >> 8) & 255}.{a & 255}"
        return out


class Tokens:
    """Unique random hex words."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw from the world's generator."""
        self.rng = rng

    def __call__(self, n: int, size: int = 12, prefix: str = "") -> np.ndarray:
        """`n` words of `size` hex digits."""
        raw = self.rng.bytes(n * size // 2).hex()
        return np.array([prefix + raw[k * size : (k + 1) * size] for k in range(n)], object)


@dataclass(slots=True)
class World:
    """What all groups draw from."""

    rng: np.random.Generator
    net: Net
    token: Tokens
    days: int
    release_s: float
    old_models: int
    vpn_exits: np.ndarray
    rushes: np.ndarray  # moments of the news, offers and launches that bring sign-ups

    @property
    def end_s(self) -> float:
        """End of the log."""
        return self.days * DAY

    def client(self, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """User agent and TLS fingerprint for each client kind; popular versions are shared by many."""
        rng = self.rng
        agents, prints = np.empty(len(kinds), object), np.empty(len(kinds), object)
        for k, kind in enumerate(kinds):
            family = CLIENTS[kind]
            which = int(rng.integers(0, len(family)))
            version = 24 + int(rng.geometric(0.35))
            agents[k] = family[which].replace("{v}", str(version))
            build = int(rng.geometric(0.6))
            mix = (hash_words(kind, which) * 31 + version // 4 * 7 + build) & 0xFFFFFFFF
            high, low = mix * 2654435761 & 0xFFFFFFFFFFFF, mix * 40503 & 0xFFFFFFFFFFFF
            prints[k] = f"t13d{1500 + which * 3 + build:04d}h2_{high:012x}_{low:012x}"
        return agents, prints


def hash_words(word: str, k: int) -> int:
    """A small stable hash."""
    return sum(ord(c) * (31 + k) ** (i % 4) for i, c in enumerate(word)) + k


class Ledger:
    """Account columns, group after group."""

    def __init__(self) -> None:
        """Start empty."""
        self.groups: list[dict[str, np.ndarray]] = []
        self.size = 0

    def add(self, n: int, columns: dict[str, object]) -> np.ndarray:
        """Append a group and return its account numbers."""
        full = {}
        for name, value in columns.items():
            if isinstance(value, np.ndarray) and value.shape[:1] == (n,):
                full[name] = value
            else:
                kind = object if value is None or isinstance(value, str) else None
                full[name] = np.full(n, value, dtype=kind)
        self.groups.append(full)
        self.size += n
        return np.arange(self.size - n, self.size)

    def columns(self) -> dict[str, np.ndarray]:
        """All groups joined."""
        names = self.groups[0]
        return {k: np.concatenate([g[k] for g in self.groups]) for k in names}


def style_slots(lists: list[list[int]]) -> np.ndarray:
    """Style numbers as rows of SLOTS, repeated to fill; no row may be empty."""
    return np.array([(row * SLOTS)[:SLOTS] for row in lists], np.int32)


def own_addresses(world: World, country: np.ndarray, kind: str = "home") -> np.ndarray:
    """Mostly one sticky address, for some people two or three over the weeks, for a few also a phone."""
    n = len(country)
    first = world.net.addresses(kind, country)
    out = np.repeat(first[:, None], SLOTS, axis=1)
    for slot, share in ((4, 0.35), (5, 0.2), (3, 0.1)):
        at = np.flatnonzero(world.rng.random(n) < share)
        out[at, slot] = world.net.addresses("mobile" if slot == 5 else kind, country[at])
    return out


def pick_addresses(world: World, pool: np.ndarray, n: int, width: int = SLOTS) -> np.ndarray:
    """Each of n accounts uses `width` addresses of a shared pool."""
    chosen = pool[world.rng.integers(0, len(pool), (n, width))]
    return np.tile(chosen, (1, -(-SLOTS // width)))[:, :SLOTS]


def domains(world: World, n: int) -> np.ndarray:
    """Fresh company domains."""
    r = random.Random(int(world.rng.integers(1 << 40)))
    return np.array([f"{coin(r)}.{r.choice(('com', 'io', 'ai', 'net', 'co'))}" for _ in range(n)], object)


def created(world: World, n: int) -> np.ndarray:
    """Sign-up times: some years back, many recent, a third while the log runs, many of these in rushes."""
    rng = world.rng
    old = -rng.gamma(0.9, 110, n) * DAY
    new = rng.random(n) * world.end_s * 0.9
    rush = rng.choice(world.rushes, n) + rng.gamma(1.0, 0.5, n) * DAY
    born = np.where(rng.random(n) < 0.36, new, old)
    return np.where(rng.random(n) < 0.3, np.minimum(rush, world.end_s * 0.95), born)


def stay(world: World, born: np.ndarray, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last moment an account may be active; light users come for a short while."""
    rng, n = world.rng, len(born)
    first = np.maximum(born + rng.exponential(0.15 * DAY, n), 0)
    late = np.maximum(first, rng.random(n) * world.end_s * 0.8)
    start = np.where(rng.random(n) < np.where(born > 0, 0.8, 0.5), first, late)
    span = rng.gamma(1.2, 1, n) * world.days * np.clip(volume / 14, 0.06, 1.6) * DAY
    end = np.minimum(start + np.maximum(span, 0.2 * DAY), world.end_s)
    return np.minimum(start, world.end_s - 0.3 * DAY), np.maximum(
        end, np.minimum(start, world.end_s - 0.3 * DAY) + 3600
    )


def individuals(world: World, n: int, volume: np.ndarray, client: dict[str, float]) -> dict[str, np.ndarray]:
    """Accounts of n unconnected people: every column of the ledger, to be overridden by group traits."""
    rng, pick = world.rng, world.rng.choice
    country = pick(len(COUNTRIES), n, p=COUNTRY_WEIGHTS / COUNTRY_WEIGHTS.sum())
    kinds = pick(list(client), n, p=np.array(list(client.values())) / sum(client.values()))
    agent, print_ = world.client(kinds)
    born = created(world, n)
    start, end = stay(world, born, volume)
    ips = own_addresses(world, country)
    channel = pick(np.array(CHANNELS, object), n, p=[0.72, 0.1, 0.08, 0.06, 0.04])
    channel[kinds == "browser"] = "console"
    return {
        **papers(world, n, country, ips[:, 0]),
        **habits(world, n),
        **{k: np.full(n, None, object) for k in ("campaign", "kit")},
        "created": born,
        "country": country,
        "volume": volume,
        "fixed": np.zeros(n, bool),
        "profile": pick(5, n, p=[0.4, 0.28, 0.14, 0.08, 0.1]),
        "session": 1 + rng.gamma(1.1, 3.0, n),
        "gap": np.exp(rng.normal(4.0, 1.3, n)),
        "start": start,
        "end": end,
        "channel": channel,
        "agent": agent,
        "ja4": print_,
        "ips": ips,
        "styles": np.zeros((n, SLOTS), np.int32),
        "population": np.full(n, "", object),
        "generation": np.full(n, -1, np.int16),
        "replaced": np.zeros(n, bool),
        "distill": np.zeros(n),
        "end_users": np.zeros(n, np.int32),
    }


def papers(world: World, n: int, country: np.ndarray, address: np.ndarray) -> dict[str, np.ndarray]:
    """What an account gave when it signed up."""
    rng, pick = world.rng, world.rng.choice
    code = np.array(COUNTRIES, object)
    elsewhere = pick(len(COUNTRIES), n, p=COUNTRY_WEIGHTS / COUNTRY_WEIGHTS.sum())
    plan = pick(np.array(["free", "payg", "enterprise"], object), n, p=[0.3, 0.63, 0.07])
    programme = np.array([None, "education", "research", "startup"], object)
    issuer = pick(np.array(ISSUERS, object), n)
    return {
        "org_id": np.full(n, None, object),
        "programme": pick(programme, n, p=[0.9, 0.04, 0.02, 0.04]),
        "plan": plan,
        "email_domain": np.where(rng.random(n) < 0.7, pick(np.array(PUBLIC_MAIL, object), n), domains(world, n)),
        "payment_hash": np.where(plan == "free", None, world.token(n, 16)),
        "payment_issuer": np.where(plan == "free", None, issuer),
        "billing_country": code[np.where(rng.random(n) < 0.1, elsewhere, country)],
        "phone_country": code[np.where(rng.random(n) < 0.07, elsewhere, country)],
        "phone_hash": np.where(rng.random(n) < 0.6, world.token(n, 16), None),
        "signup_ip": np.where(rng.random(n) < 0.8, address, world.net.addresses("home", country)),
        "signup_ja4": world.client(np.full(n, "browser"))[1],
        "referrer": pick(np.array(REFERRERS, object), n),
        "verification": pick(np.array(VERIFICATIONS, object), n, p=[0.08, 0.34, 0.24, 0.24, 0.06, 0.04]),
    }


def habits(world: World, n: int) -> dict[str, np.ndarray]:
    """Request parameters, models and lengths that an account keeps to."""
    rng, pick = world.rng, world.rng.choice
    switch = world.release_s + rng.gamma(0.8, 6.0, n) * DAY
    return {
        "temperature": pick(
            [np.nan, 0.0, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0], n, p=[0.38, 0.12, 0.08, 0.06, 0.04, 0.18, 0.05, 0.09]
        ),
        "max_tokens": pick(
            [0, 256, 512, 1024, 2048, 4096, 8192, 16000], n, p=[0.3, 0.04, 0.07, 0.17, 0.12, 0.17, 0.09, 0.04]
        ),
        "n": pick([0, 1, 2, 4], n, p=[0.7, 0.27, 0.02, 0.01]).astype(np.int16),
        "logprobs": rng.random(n) < 0.03,
        "thinking": rng.random(n) < 0.22,
        "stream": rng.random(n) < 0.5,
        "batch": rng.random(n) < 0.07,
        "old_model": rng.integers(0, world.old_models, n),
        "second_model": rng.integers(0, world.old_models, n),
        "switch": np.where(rng.random(n) < 0.55, switch, np.inf),
        "length": rng.normal(0, 0.6, n),
    }
