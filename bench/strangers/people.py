"""Accounts: ordinary customers, drawn a block at a time; every other group starts as ordinary people and is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from strangers.corpus import Corpus, Traces
from strangers.network import COUNTRIES, Network, mixed, shares

DAY = 86_400.0
MAILS = ("gmail.com", "outlook.com", "qq.com", "yahoo.com", "proton.me", "icloud.com", "163.com", "hotmail.com", "mail.ru",
         "gmx.de", "naver.com", "tmpbox.example", "quickmail.example", "dropinbox.example")  # fmt: skip
REFERRERS = ("search", "direct", "docs", "github", "friend", "newsletter", "video", "partner", "forum", "ad")
VERIFIED = ("none", "email", "phone", "card", "domain", "id", "contract")
CHANNELS = ("api", "console", "cloud:aws", "cloud:gcp", "cloud:azure", "reseller:openrouter", "reseller:hub")

Block = dict[str, np.ndarray]


@dataclass
class World:
    """All that is drawn once, and the blocks of accounts drawn so far."""

    rng: np.random.Generator
    corpus: Corpus
    traces: Traces
    net: Network
    accounts: int
    exchanges: int
    days: float
    models: list[str]
    releases: list[float]
    streams: list[Any] = field(default_factory=list)
    plans: list[tuple[np.ndarray, np.ndarray, bool]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    campaigns: list[dict[str, Any]] = field(default_factory=list)
    knobs: dict[str, Any] = field(default_factory=dict)
    next_id: int = 1

    def ids(self, n: int) -> np.ndarray:
        """Numbers no one has had before."""
        self.next_id += n
        return np.arange(self.next_id - n, self.next_id)

    def stream(self, stream: Any) -> int:
        """Add a stream of requests."""
        self.streams.append(stream)
        return len(self.streams) - 1

    def plan(self, streams: list[int], weights: list[float], by_row: bool = False) -> int:
        """Add a mixture of streams, chosen by the session or by the row."""
        weight = np.array(weights, dtype=float)
        self.plans.append((np.array(streams), np.cumsum(weight / weight.sum()), by_row))
        return len(self.plans) - 1


def setting(rng: np.random.Generator) -> dict[str, Any]:
    """Knobs of ordinary life in this world."""
    return {
        "countries": shares(rng, len(COUNTRIES), rng.uniform(0.6, 1.3)),
        "mails": rng.permutation(shares(rng, len(MAILS), rng.uniform(0.7, 1.5))),
        "issuers": [f"bin{b}" for b in rng.integers(400_000, 560_000, int(rng.integers(40, 160)))],
        "virtual": [f"bin{b}" for b in rng.integers(400_000, 560_000, int(rng.integers(3, 9)))],
        "virtual_share": rng.uniform(0.08, 0.35),
        "own_domain": rng.uniform(0.12, 0.35),
        "spread": rng.uniform(1.2, 1.9),
        "servers": rng.uniform(0.12, 0.35),
        "bots": rng.uniform(0.06, 0.22),
        "young": rng.uniform(0.25, 0.6),
        "plans": rng.dirichlet((3, 6, 1)),
        "verified": rng.dirichlet((1, 3, 3, 4, 0.8, 0.6, 0.3)),
        "channels": rng.dirichlet((14, 3, 1.5, 1, 0.8, 1, 0.5)),
        "adopt": rng.uniform(0.25, 0.7),
        "base": rng.dirichlet(np.full(3, 2.0)),
        "wordy": rng.uniform(0.05, 0.3),
    }


def created(w: World, n: int) -> np.ndarray:
    """Days before (negative) or after the start at which ordinary accounts were made."""
    old = -np.minimum(w.rng.lognormal(5, 1.1, n), 1_400)
    new = w.rng.uniform(-25, w.days * 0.95, n)
    return np.where(w.rng.random(n) < w.knobs["young"], new, old)


def tokens(prefix: str, numbers: np.ndarray) -> np.ndarray:
    """Opaque values, the same for the same numbers."""
    return np.array(
        [f"{prefix}{v:013x}" for v in (mixed(numbers, len(prefix) * 77 + 5) >> np.uint64(12)).tolist()], dtype=object
    )


def identity(w: World, n: int) -> Block:
    """What ordinary customers told at sign-up."""
    rng, k = w.rng, w.knobs
    country = rng.choice(len(COUNTRIES), n, p=k["countries"])
    names = np.array(COUNTRIES, dtype=object)
    plan = rng.choice(np.array(["free", "payg", "enterprise"], dtype=object), n, p=k["plans"])
    mail = rng.choice(np.array(MAILS, dtype=object), n, p=k["mails"])
    own = rng.random(n) < k["own_domain"]
    mail[own] = [f"{t}.example" for t in tokens("d", w.ids(int(own.sum())))]
    card = tokens("c", w.ids(n))
    issuers = np.array(k["issuers"], dtype=object)
    issuer = issuers[np.minimum(rng.zipf(1.4, n) * 7 + country * 3, 10**6) % len(issuers)]
    virtual = rng.random(n) < k["virtual_share"]
    issuer[virtual] = rng.choice(np.array(k["virtual"], dtype=object), int(virtual.sum()))
    bare = (plan == "free") & (rng.random(n) < 0.7)
    card[bare], issuer[bare] = None, None
    phone = tokens("p", w.ids(n))
    phone[rng.random(n) < 0.35] = None
    programme = rng.choice(
        np.array(["none", "education", "research", "startup"], dtype=object), n, p=(0.9, 0.04, 0.02, 0.04)
    )
    abroad = rng.random(n) < 0.06
    phone_country = names[np.where(abroad, rng.integers(0, len(names), n), country)]
    phone_country[phone == None] = None  # noqa: E711
    made = created(w, n)
    return {
        "home": country, "created": made, "org_id": np.full(n, None, dtype=object), "programme": programme, "plan": plan,
        "email_domain": mail, "payment_hash": card, "payment_issuer": issuer, "billing_country": names[country],
        "phone_country": phone_country, "phone_hash": phone,
        "referrer": rng.choice(np.array(REFERRERS, dtype=object), n, p=shares(rng, len(REFERRERS), 0.8)),
        "verification": rng.choice(np.array(VERIFIED, dtype=object), n, p=k["verified"]),
    }  # fmt: skip


def habits(w: World, n: int) -> Block:
    """How ordinary customers call: volume, hours, sessions, addresses, client, parameters."""
    rng, k, net = w.rng, w.knobs, w.net
    kind = np.where(rng.random(n) < k["bots"], rng.integers(1, 4, n), 0)
    shared = rng.random(n)
    pool = np.full(n, -1)
    pool = np.where(shared < k["servers"], rng.choice(net.shared, n), pool)
    client = rng.choice(len(net.clients), n, p=net.popularity)
    releases = np.array([r for r in w.releases if r > 0])
    slow = rng.exponential(rng.uniform(5, 18), n) * DAY
    switch = np.where(rng.random(n) < k["adopt"], rng.choice(releases, n) + slow, np.inf)
    return {
        "volume": 1 + rng.lognormal(0, k["spread"], n), "start": np.zeros(n), "end": np.full(n, w.days * DAY),
        "kind": kind, "trace": rng.integers(0, len(w.traces.arrivals), n), "peak": rng.normal(14.5, 3.4, n),
        "width": rng.uniform(1.5, 5.5, n), "weekend": rng.beta(1.2, 1.2, n), "fresh": rng.beta(1.1, 2.2, n) * 0.9 + 0.06,
        "pace": rng.lognormal(0.9, 0.9, n), "keys": w.ids(n), "leases": 1 + rng.geometric(rng.uniform(0.3, 0.6), n),
        "provider": np.full(n, -1), "pool": pool, "pool_share": np.where(pool >= 0, rng.beta(2, 0.6, n), 0.0),
        "mobile": np.where(rng.random(n) < 0.4, rng.beta(0.8, 3, n), 0.0), "rotating": rng.random(n) < 0.15,
        "spots": 1 + rng.geometric(rng.uniform(0.15, 0.5), n), "client": client,
        "client2": np.where(rng.random(n) < 0.35, rng.choice(len(net.clients), n, p=net.popularity), client),
        "channel": rng.choice(len(CHANNELS), n, p=k["channels"]), "base": rng.choice(3, n, p=k["base"]),
        "base2": rng.choice(3, n, p=k["base"]), "loyal": rng.beta(5, 1, n), "switch": switch, "moved": rng.beta(4, 1, n),
        "max_tokens": rng.choice((0, 256, 1024, 2048, 4096, 8192, 16000), n, p=(0.35, 0.05, 0.12, 0.1, 0.2, 0.1, 0.08)),
        "temperature": np.where(rng.random(n) < 0.5, np.nan, np.round(rng.choice((0, 0.2, 0.7, 1.0), n), 1)),
        "copies": np.where(rng.random(n) < 0.03, rng.integers(2, 9, n), 1), "logprobs": rng.random(n) < 0.03,
        "thinking": np.where(rng.random(n) < 0.35, rng.beta(2, 1, n), 0.0), "stream": np.where(rng.random(n) < 0.5, 0.9, 0.1),
        "batch": np.where(rng.random(n) < 0.05, rng.beta(2, 1, n), 0.0), "style": rng.integers(0, 3, n),
        "length": rng.lognormal(0, 0.5, n), "users": np.where(rng.random(n) < 0.12, rng.geometric(0.05, n), 0),
        "taste": rng.integers(0, 1 << 30, n), "plan_no": np.zeros(n, dtype=int), "talk": rng.beta(1.5, 2.5, n),
        "crowd": rng.random(n) < 0.06, "hop": rng.random(n) < 0.06, "exact": np.zeros(n, dtype=bool),
        "overhead": np.where(rng.random(n) < 0.5, rng.lognormal(6.5, 1.5, n), 0.0),
    }  # fmt: skip


def people(w: World, n: int, population: str, **changes: Any) -> Block:
    """Ordinary people of this population, with the changes asked; not yet added to the world."""
    block = {**identity(w, n), **habits(w, n)}
    block["start"] = np.maximum(block["start"], block["created"] * DAY + w.rng.exponential(0.4 * DAY, n))
    left = w.rng.random(n) < 0.3
    span = np.maximum(w.days * DAY - block["start"], 3_600)
    block["end"] = np.where(left, block["start"] + w.rng.beta(1, 1.2, n) * span, block["start"] + span)
    block["population"] = np.full(n, population, dtype=object)
    block["campaign_id"] = np.full(n, None, dtype=object)
    block["generation"] = np.full(n, -1)
    block["replaced"] = np.zeros(n, dtype=bool)
    for name, value in changes.items():
        block[name] = np.broadcast_to(np.asarray(value, dtype=block[name].dtype), (n,)).copy()
    return block


def window(w: World, block: Block, start: float, end: float) -> None:
    """Keep a block's traffic between two moments (days), with ragged edges."""
    n, rng = len(block["start"]), w.rng
    length = max(end - start, 0.2)
    block["start"] = np.maximum((start + rng.beta(0.7, 3, n) * 0.3 * length) * DAY, 0)
    block["end"] = (end - rng.beta(0.7, 3, n) * 0.3 * length) * DAY
    block["created"] = np.minimum(block["created"], block["start"] / DAY - rng.exponential(0.3, n))


def burst(w: World, block: Block, day: float, spread: float) -> None:
    """Make the accounts within some days of one another, and let them call from then on."""
    block["created"] = day + w.rng.normal(0, spread, len(block["created"]))
    block["start"] = np.maximum(block["start"], np.maximum(block["created"], 0) * DAY + 600)
    block["end"] = np.maximum(block["end"], block["start"] + 3_600)


def cards(w: World, block: Block, per_card: float, issuer: str | None = None) -> None:
    """Let accounts share cards, about so many on each."""
    n = len(block["payment_hash"])
    number = max(1, round(n / per_card))
    which = w.rng.integers(0, number, n)
    block["payment_hash"] = tokens("c", w.ids(number))[which]
    each = w.rng.choice(np.array(w.knobs["issuers"], dtype=object), number)
    block["payment_issuer"] = np.full(n, issuer, dtype=object) if issuer else each[which]


def use_pool(w: World, block: Block, pool: int, share: float) -> None:
    """Send about this share of each account's sessions through a pool."""
    n = len(block["pool"])
    block["pool"] = np.full(n, pool)
    block["pool_share"] = np.clip(w.rng.normal(share, 0.1, n), 0, 1)
