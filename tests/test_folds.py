"""Folding and coherence: the SQL against a slow, obvious count; any order of rows; nothing at all; organisations."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from fixtures_engine import SmallLog, hashed
from stillwatch.kinds import KINDS
from stillwatch.store import Engine

TESTED = {k.name: k for k in KINDS.values() if k.tested}
Value = tuple[str, int]


def scattered(seed: int) -> SmallLog:
    """A small random log with everything in it: organisations, nulls, several countries, a planted campaign."""
    log, rng = SmallLog(), np.random.default_rng(seed)
    for k in range(90):
        customer = int(k // 3 * 3) if rng.random() < 0.2 else k
        planted = k < 12
        log.account(
            customer=customer,
            card=f"c{rng.integers(4) if planted else rng.integers(10, 60)}" if rng.random() < 0.8 else None,
            phone=f"p{rng.integers(40)}" if rng.random() < 0.5 else 0,
            signup_net=f"s{rng.integers(30)}",
            signup_day=int(rng.integers(20500, 20520)),
        )
        for _ in range(int(rng.integers(0, 6))):
            log.exchange(
                k,
                net=f"n{rng.integers(3) if planted else rng.integers(10, 50)}" if rng.random() < 0.9 else None,
                country=f"country {k % 2 + rng.integers(2)}" if rng.random() < 0.9 else 0,
                wording="w" if planted else f"w{rng.integers(8)}",
                system=f"y{rng.integers(6)}" if rng.random() < 0.5 else 0,
                address=f"a{rng.integers(60)}",
                prompt=f"q{rng.integers(70)}",
            )
    return log


def held(log: SmallLog) -> dict[Value, set[int]]:
    """Customers by the value they were seen with, where at least two were."""
    customer = {a["account"]: a["customer"] for a in log.accounts}
    found: dict[Value, set[int]] = defaultdict(set)
    for kind in KINDS.values():
        for row in log.accounts if kind.table == "accounts" else log.facts:
            if row.get(kind.column):
                found[kind.name, row[kind.column]].add(customer[row["account"]])
    return {value: who for value, who in found.items() if len(who) >= 2}


def countries(log: SmallLog) -> dict[int, int]:
    """The country most exchanges of a customer come from, the smaller of equals."""
    customer = {a["account"]: a["customer"] for a in log.accounts}
    seen: dict[int, Counter[int]] = defaultdict(Counter)
    for row in log.facts:
        if row.get("country"):
            seen[customer[row["account"]]][row["country"]] += 1
    return {who: min(c, key=lambda v: (-c[v], v)) for who, c in seen.items()}


def concentration(holders: set[int], home: dict[int, int]) -> float:
    everywhere = Counter(home.values())
    mine = Counter(home[who] for who in holders if who in home)
    return sum((n / mine.total()) ** 2 / (everywhere[c] / len(home)) for c, n in mine.items()) if mine else 1.0


def slow(log: SmallLog) -> dict[tuple[str, int, str], tuple[float, float, float]]:
    """Tied, expected and bits of every (kind, value, other), by the words of the module's docstring."""
    n = len({a["customer"] for a in log.accounts})
    rare = {v: who for v, who in held(log).items() if v[0] in TESTED and len(who) <= max(50, TESTED[v[0]].cap * n)}
    home = countries(log)
    found = {}
    for (kind, value), holders in rare.items():
        if TESTED[kind].tested != "anchor" or len(holders) < 3:
            continue
        for other in TESTED.values():
            if other.family != TESTED[kind].family:
                row = compared(holders, [who for v, who in rare.items() if v[0] == other.name], other.name, n, home)
                if row:
                    found[kind, value, other.name] = row
    return found


def compared(
    holders: set[int], others: list[set[int]], other: str, n: int, home: dict[int, int]
) -> tuple[float, float, float] | None:
    """One hypothesis against one other kind; None where nothing is shared twice or as often as chance."""
    size, kind = len(holders), TESTED[other]
    shared = [len(holders & who) for who in others]
    busier = 1.0
    held_inside = sum(shared)
    if kind.table == "facts" and held_inside:
        outside = max(1, sum(len(who) for who in others) - held_inside)
        ratio = held_inside / size * (n - size + 1) / outside
        busier = 1.25 ** math.floor(max(0.0, math.log(ratio)) / math.log(1.25) + 0.5)
    if kind.family == "template":
        return marked(size, [(s, len(who)) for s, who in zip(shared, others)], busier, n)
    tied = sum(max(0, s - 1) for s in shared)
    means = [busier * size * ((len(who) - s) / (n - size + 1) if s else len(who) / n) for s, who in zip(shared, others)]
    expected: float = sum(m - 1 + math.exp(-m) for m in means)
    if kind.family == "network":
        expected *= max(1.0, concentration(holders, home))
    expected = max(1e-3, expected)
    if not tied:
        return None
    surplus = tied * math.log2(tied / expected) - (tied - expected) / math.log(2)
    return tied, expected, surplus if tied > expected else 0.0


def marked(size: int, others: list[tuple[int, int]], busier: float, n: int) -> tuple[float, float, float] | None:
    looked = [(s, min(0.999999, busier * (h - s + 0.5) / (n - size + 1))) for s, h in others if s >= 2]
    rows = []
    for s, rate in looked:
        if s > size * rate:
            rest = (size - s) * math.log2((1 - s / size) / (1 - rate)) if s < size else 0.0
            rows.append((s * math.log2(s / (size * rate)) + rest - math.log2(len(looked) + 1), s, rate))
    if not rows:
        return None
    bits, s, rate = max(rows, key=lambda r: (round(r[0], 9), r[1], -r[2]))
    return float(s), size * rate, max(0.0, bits)


def coherence(engine: Engine) -> dict[tuple[str, int, str], tuple[float, float, float]]:
    rows = engine.rows("coherence").to_pylist()
    found = {(r["kind"], r["value"], r["other"]): (r["tied"], r["expected"], r["bits"]) for r in rows}
    assert len(found) == len(rows), "one row for each value and other kind"
    return found


@pytest.mark.parametrize("seed", range(2))
def test_coherence_is_what_a_slow_count_gives(seed: int) -> None:
    log = scattered(seed)
    expected = slow(log)
    with log.opened() as engine:
        found = coherence(engine)
    assert found.keys() == expected.keys()
    assert len({TESTED[o].family for _, _, o in found}) == 3, "pools and marks are both compared"
    assert max(bits for _, _, bits in found.values()) > 5, "the planted campaign shows"
    for key, row in expected.items():
        assert found[key] == pytest.approx(row, rel=1e-6, abs=1e-6), key


@pytest.mark.parametrize("seed", [1])
def test_observations_count_exchanges_by_customer(seed: int) -> None:
    log = scattered(seed)
    customer = {a["account"]: a["customer"] for a in log.accounts}
    expected: Counter[tuple[int, str, int]] = Counter()
    shared = held(log)
    for kind in KINDS.values():
        for row in log.accounts if kind.table == "accounts" else log.facts:
            value = row.get(kind.column)
            if value and (kind.name, value) in shared:
                expected[customer[row["account"]], kind.name, value] += 1
    with log.opened() as engine:
        rows = engine.rows("observations").to_pylist()
        holders = engine.rows("holders").to_pylist()
        population = engine.rows("population").to_pylist()
    assert {(r["account"], r["kind"], r["value"]): r["count"] for r in rows} == dict(expected)
    assert {(r["kind"], r["value"]): r["holders"] for r in holders} == {v: len(who) for v, who in shared.items()}
    assert population == [{"customers": len(set(customer.values()))}]
    assert all(r["first"] <= r["last"] for r in rows if r["first"])


def snapshot(engine: Engine, names: Iterable[str]) -> dict[str, list[Any]]:
    def row(r: dict[str, Any]) -> list[tuple[str, str]]:
        return [(k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in r.items()]

    return {name: sorted(row(r) for r in engine.rows(name).to_pylist()) for name in names}


def test_any_order_of_rows_gives_the_same_tables() -> None:
    log, names = scattered(7), ("observations", "holders", "homes", "countries", "rare", "coherence")
    with log.opened() as engine:
        expected = snapshot(engine, names)
    assert all(expected.values())
    with log.opened(seed=11) as engine:
        assert snapshot(engine, names) == expected


def test_accounts_of_one_organisation_are_one_customer_and_never_tie() -> None:
    log = SmallLog()
    for k in range(6):
        log.account(customer=0, card="company card", phone=f"p{k}")
        log.exchange(k, net="office", wording="company wrapper")
    stranger = log.account(card="other")
    log.exchange(stranger, net="office")
    with log.opened() as engine:
        rows = engine.rows("SELECT account, kind, value, count FROM observations").to_pylist()
        assert engine.rows("coherence").num_rows == 0
    net = {"kind": "net", "value": hashed("office")}
    assert {"account": 0, "count": 6} | net in rows, "six exchanges, one customer"
    assert {(r["account"], r["kind"]) for r in rows} == {(0, "net"), (6, "net")}, "nothing of the company's own"


def campaign_among(strangers: int, accounts: int, nets: int) -> SmallLog:
    """A wording whose users are spread over a few networks that strangers use now and then."""
    log, rng = SmallLog(), np.random.default_rng(5)
    for k in range(strangers + accounts):
        log.account()
        own = k < accounts
        for net in {k % nets, (k + 1) % nets} if own else rng.integers(0, 40, 2).tolist():
            log.exchange(k, net=f"n{net}", wording="theirs" if own else None)
    return log


def test_a_campaign_does_not_hide_in_the_base_rate_it_makes_itself() -> None:
    """Most of a town on eight cards that a stranger has too now and then: the base rate is the strangers'."""
    log = SmallLog()
    for k in range(100):
        theirs = k < 40
        log.account(card=f"c{k % 8}" if theirs or k < 48 else f"own {k}")
        log.exchange(k, wording="theirs" if theirs else None)
    with log.opened() as engine:
        tied, expected, bits = coherence(engine)["wording", hashed("theirs"), "card"]
    mean = 40 / 61  # one stranger in 60 has each card
    assert (tied, expected) == (40 - 8, pytest.approx(8 * (mean - 1 + math.exp(-mean))))
    assert bits > 50


def test_holders_that_share_nothing_are_not_coherent() -> None:
    log, rng = SmallLog(), np.random.default_rng(9)
    for k in range(300):
        log.account(card=f"c{rng.integers(200)}")
        log.exchange(k, net=f"n{rng.integers(150)}", wording="public kit" if k < 40 else None)
    with log.opened() as engine:
        found = coherence(engine)
    assert all(bits < 8 for (kind, _, _), (_, _, bits) in found.items() if kind == "wording")


def test_neighbours_share_networks_so_one_country_raises_the_expectation() -> None:
    def expected(country: str) -> float:
        log = campaign_among(strangers=100, accounts=20, nets=20)
        for row in log.facts:
            row["country"] = hashed(country if row["account"] < 20 else "far")
        with log.opened() as engine:
            return coherence(engine)["wording", hashed("theirs"), "net"][1]

    assert expected("near") == pytest.approx(6 * expected("far"))


@pytest.mark.parametrize("rows", [0, 5])
def test_an_empty_log_and_one_of_nulls_make_empty_tables(rows: int) -> None:
    log = SmallLog()
    for _ in range(rows):
        log.exchange(log.account())
    with log.opened() as engine:
        assert engine.rows("observations").num_rows == 0
        assert engine.rows("coherence").num_rows == 0
        assert engine.rows("population").to_pylist() == [{"customers": rows}]
        assert engine.rows("homes").num_rows == 0


def test_a_value_that_everybody_shares_says_nothing() -> None:
    log = SmallLog()
    for _ in range(120):
        log.exchange(log.account(card="test card"), net="proxy", wording="kit")
    with log.opened() as engine:
        assert engine.rows("rare").num_rows == 0
        assert not coherence(engine)
