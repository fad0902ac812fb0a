"""Small logs as the engine's own tables, for tests of the judgement: words stand for hashes, a planted town for a month."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from stillwatch import folds
from stillwatch.evidence import Holdings
from stillwatch.intake import release_times
from stillwatch.numbering import Numbering
from stillwatch.store import Engine, open_engine
from stillwatch.tables import FACTS, PROFILES
from stillwatch.weighing import TRAITS, Trees, Weights

START = datetime(2026, 3, 2, tzinfo=UTC)


def hashed(word: str) -> int:
    """The number that stands for a word in these tables: positive, never 0."""
    return int.from_bytes(blake2b(word.encode(), digest_size=7).digest(), "little") | 1


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    words = ("programme", "plan", "verification")
    return {k: hashed(v) if isinstance(v, str) and k not in words else v for k, v in row.items()}


@dataclass
class SmallLog:
    """A log in the making. What is not told of an account or an exchange is null."""

    accounts: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)

    def account(self, **traits: Any) -> int:
        """Opens an account, its own customer unless told; gives its number."""
        number = len(self.accounts)
        self.accounts.append({"account": number, "customer": number} | _plain(traits))
        return number

    def exchange(self, account: int, times: int = 1, **marks: Any) -> None:
        """Exchanges alike in all but time, a minute apart."""
        for _ in range(times):
            at = len(self.facts)
            row = {"account": account, "time": START + timedelta(minutes=at), "model": 0, "exchange": at + 1}
            self.facts.append(row | _plain(marks))

    @contextmanager
    def opened(self, seed: int | None = None) -> Iterator[Engine]:
        """An engine with this log folded and its base tables made; ``seed`` shuffles the rows."""
        tables = {"accounts": (self.accounts, PROFILES), "facts": (self.facts, FACTS)}
        with open_engine("duckdb", "500MB", 1) as engine:
            for name, (rows, table) in tables.items():
                order = range(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
                given = [dict.fromkeys(table.names) | rows[k] for k in order]
                engine.append(name, pa.Table.from_pylist(given, schema=table.schema))
            engine.append("models", release_times(None, Numbering()))
            folds.fold(engine)
            folds.prepare(engine)
            yield engine


def holdings_of(
    rows: Iterable[tuple[int, str, str]],
    customers: int,
    country: Sequence[int] = (),
    there: Iterable[int] | None = None,
) -> Holdings:
    """Holdings of observations ``(account, kind, word)`` among so many customers; ``country`` by account, 0 unknown.

    ``there`` are the accounts that have arrived, all where it is None.
    """
    found = sorted(set(rows))
    observations = pa.table({
        "account": pa.array([a for a, _, _ in found], pa.int32()),
        "kind": pa.array([k for _, k, _ in found], pa.string()),
        "value": pa.array([hashed(w) for _, _, w in found], pa.int64()),
    })  # fmt: skip
    homes = [(a, c) for a, c in enumerate(country) if c]
    with open_engine("duckdb", "300MB", 1) as engine:
        engine.append("observations", observations)
        engine.append("population", pa.table({"customers": [customers]}))
        engine.append("accounts", pa.table({"account": pa.array(there or range(customers), pa.int32())}))
        engine.append(
            "homes",
            pa.table({
                "account": pa.array([a for a, _ in homes], pa.int32()),
                "country": pa.array([c for _, c in homes], pa.int64()),
            }),
        )  # fmt: skip
        return Holdings.load(engine, customers)


def signals(*given: tuple[int, str, str]) -> pa.Table:
    """Signals ``(account, detector, family)`` as the detectors give them."""
    return pa.table({
        "account": pa.array([a for a, _, _ in given], pa.int32()),
        "bits": pa.array([3.0] * len(given), pa.float64()),
        "detector": pa.array([d for _, d, _ in given], pa.string()),
        "family": pa.array([f for _, _, f in given], pa.string()),
    })  # fmt: skip


def weights_of(start: float = 0.0, **bits: float) -> Weights:
    """A line alone: ``start``, and so many bits for each unit of these traits; of all others nothing."""
    none = np.zeros(len(TRAITS))
    leaf = np.zeros(1, np.int64)
    trees = Trees(leaf - 1, np.zeros(1), leaf, leaf, np.zeros(1), leaf, 0.0)
    each = np.array([bits.get(name, 0.0) for name in TRAITS])
    return Weights(tuple(TRAITS), each, none, none + 1, none, start, trees, slope=2.0)


PLAIN_WEIGHTS = weights_of(-6.0, read=4.0, share_card=8.0, share_net=1.0, share_wording=2.0, org=-8.0)
"""For tests of the judgement: weights that a person would give, so that none hangs on what was learnt last."""


@dataclass
class Town:
    """A log with planted clusters, by name, among strangers."""

    log: SmallLog
    clusters: dict[str, np.ndarray]


def town(seed: int = 3, strangers: int = 500) -> Town:
    """Strangers, and clusters that each are a campaign, or lack one thing to be one, or have an honest reason."""
    log, rng = SmallLog(), np.random.default_rng(seed)
    for k in range(strangers):
        who = log.account(
            card=f"own {k}", mail_domain=f"free{k % 3}", created_at=START - timedelta(days=int(rng.integers(400)))
        )
        for net in rng.integers(0, 250, 3):
            log.exchange(
                who, wording=f"common {k % 9}", net=f"home {net}", capability=10, elicitation=0.0, prompt=f"q{k}-{net}",
                output_tokens=200, country="far",
            )  # fmt: skip
    plans = {
        "campaign": Plan(40, cards=10, nets=20),
        "ring": Plan(10, cards=3, nets=3),
        "chatty": Plan(40, cards=10, nets=20, elicitation=0.0, capability=10),
        "text alone": Plan(40, cards=0, nets=0),
        "payer": Plan(30, cards=1, nets=8),
        "site": Plan(40, cards=12, nets=2),
        "company": Plan(30, cards=8, nets=8, domain="acme"),
        "course": Plan(30, cards=8, nets=8, traits={"programme": "education"}),
        "bound": Plan(30, cards=8, nets=8, traits={"verification": "contract"}),
        "declared": Plan(30, cards=8, nets=8, orgs=True),
    }
    return Town(log, {name: plan.settle(log, name, rng) for name, plan in plans.items()})


@dataclass
class Plan:
    """How a planted cluster is made: how many accounts over how many cards and networks, and what they ask; three wordings of its
    own are dealt out to them at random."""

    size: int
    cards: int
    nets: int
    elicitation: float = 0.9
    capability: int = 6
    domain: str = ""
    orgs: bool = False
    traits: dict[str, str] = field(default_factory=dict)

    def settle(self, log: SmallLog, name: str, rng: np.random.Generator) -> np.ndarray:
        """Adds the cluster to the log; gives its accounts."""
        return np.array([self._one(log, name, k, rng) for k in range(self.size)])

    def _one(self, log: SmallLog, name: str, k: int, rng: np.random.Generator) -> int:
        who = log.account(
            card=f"{name} card {k % self.cards}" if self.cards else f"{name} own {k}",
            org=f"{name} org {k}" if self.orgs else 0,
            mail_domain=self.domain or f"free{k % 3}",
            created_at=START - timedelta(days=int(rng.integers(400))),
            **self.traits,
        )
        for j in range(6):
            net = f"{name} net {(k + j) % self.nets}" if self.nets else f"home {rng.integers(250)}"
            log.exchange(
                who, wording=f"{name} wording {rng.integers(3)}", net=net, capability=self.capability,
                elicitation=self.elicitation, prompt=f"{name} {k} {j}", output_tokens=900, country="far",
            )  # fmt: skip
        return who


__all__ = [
    "PLAIN_WEIGHTS", "START", "SmallLog", "Town", "hashed", "holdings_of", "signals", "town", "weights_of",
]  # fmt: skip
