"""The adversary: its bills, its frontier, its mutants, and a search that never measures a thing twice."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.config import Config
from stillwatch.errors import UsageError
from stillwatch.evaluation.adversary import Archive, Grounds, Search, Trial, Tried, code, frontier, search, try_out
from stillwatch.evaluation.costs import Prices, cards, cost
from stillwatch.evaluation.knobs import CAREFUL, NAIVE, Space, changes, cross, draw, fitted, mutate
from stillwatch.simulate import CampaignPlan

SPACE = Space()
GROUNDS = Grounds()
WORLD = GROUNDS.world([])


def usd(plan: CampaignPlan) -> float:
    return cost(plan, WORLD).usd


def trial(lost: float, seed: int = 0) -> Trial:
    return Trial(seed, 5000, lost, 0.0, 0.0, lost, 0)


class Fake:
    """A scan that finds whatever shares wording or cards; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[CampaignPlan] = []

    def __call__(self, plans: Sequence[CampaignPlan], seed: int) -> list[Trial]:
        self.asked += plans
        return [trial(0.5 * (p.wording == "fixed") + 0.5 * (p.accounts_per_card > 1), seed) for p in plans]


# Bills


def test_a_bill_adds_up_item_by_item() -> None:
    plan = CampaignPlan(
        "x", 100, {"coding": 1}, requests=100, camouflage=0.5, customers=0.2, addresses="sticky", accounts_per_card=10,
        signups="spread", wording="several", variants=8, pathways=2,
    )  # fmt: skip
    bill = cost(plan, GROUNDS.world([plan]))
    assert dict(bill.items) == pytest.approx({
        "accounts": 30, "aged accounts": 120, "unused deposits": 326, "cards": 48, "addresses": 300,
        "harvest": 4000 * 0.03, "camouflage": 4000 * 0.006, "customers": 2000 * 0.015 / 2, "wording": 4, "channels": 20,
    })  # fmt: skip
    assert bill.usd == pytest.approx(sum(bill.items.values()))


def test_prices_can_be_ones_own_and_must_make_sense() -> None:
    plan = SPACE.plan(NAIVE)
    dear = cost(plan, WORLD, Prices(query=0.06))
    assert dear.usd - usd(plan) == pytest.approx(5000 * 0.03 - cost(plan, WORLD).items["unused deposits"])
    with pytest.raises(UsageError, match="card is negative"):
        Prices(card=-1)
    with pytest.raises(UsageError, match="resale_share"):
        Prices(resale_share=1.1)


def test_a_card_each_or_shared_ones() -> None:
    plan = SPACE.plan(NAIVE | {"accounts": 100})
    of = lambda each: cards(SPACE.plan(NAIVE | {"accounts": 100, "accounts_per_card": each}))
    assert plan.accounts == 100
    assert [of(1), of(2), of(8)] == [100, 58, 26]


def test_addresses_are_paid_by_the_month_or_the_gigabyte() -> None:
    of = lambda kind, days=0: cost(SPACE.plan(NAIVE | {"addresses": kind, "days": days}), WORLD).items["addresses"]
    assert [of("sticky"), of("sticky", 7), of("pool"), of("datacentre")] == [120, 120, 4, 5]


# Plans


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(100, 50_000), st.integers(8, 1000))
def test_every_plan_has_the_harvest_and_can_be_simulated(seed: int, harvest: int, most_requests: int) -> None:
    space, rng = Space(harvest, most_requests), np.random.default_rng(seed)
    plans = [space.plan(NAIVE), space.plan(CAREFUL), draw(space, rng), draw(space, rng)]
    for _ in range(6):
        plans.append(mutate(plans[rng.integers(len(plans))], space, rng))
        left, right = (plans[i] for i in rng.integers(len(plans), size=2))
        plans.append(cross(left, right, space, rng))
    for plan in plans:
        assert plan.accounts * plan.requests * (1 - plan.ordinary) == pytest.approx(harvest)
        assert 4 <= plan.requests <= most_requests
        assert fitted(plan, space) == plan
        assert Grounds().world([plan]).requests_of(plan) == plan.requests
        assert usd(plan) > 0
        json.dumps(changes(plan, plans[0]))


def test_knobs_can_be_held_and_settings_ruled_out() -> None:
    space = SPACE.hold("wording=several").without("accounts_per_card=30")
    rng = np.random.default_rng(0)
    plan = space.plan(NAIVE)
    assert (plan.wording, plan.accounts_per_card) == ("several", 15)
    for _ in range(50):
        plan = mutate(plan, space, rng)
        assert plan.wording == "several"
        assert plan.accounts_per_card < 30
    for wrong in ("wording=loud", "colour=red"):
        with pytest.raises(UsageError, match="no knob stands"):
            SPACE.hold(wrong)
    with pytest.raises(UsageError, match="no knob 'wording' to turn"):
        space.without("wording=several")
    with pytest.raises(UsageError, match="no campaign"):
        Space(harvest=3)


def test_the_naive_plan_is_about_the_cheapest() -> None:
    rng = np.random.default_rng(1)
    assert min(usd(draw(SPACE, rng)) for _ in range(300)) > 0.98 * usd(SPACE.plan(NAIVE))


def test_a_mutant_differs_in_few_knobs() -> None:
    plan, rng = SPACE.plan(CAREFUL), np.random.default_rng(3)
    turned = [changes(mutate(plan, SPACE, rng), plan) for _ in range(100)]
    # Fitting may move accounts and camouflage, and variants come with a wording.
    assert max(map(len, turned)) <= 5
    assert {name for knobs in turned for name in knobs} == set(SPACE.knobs)


# Frontier


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 8)), max_size=40))
def test_nothing_undercuts_the_frontier_and_it_undercuts_all_else(points: list[tuple[int, int]]) -> None:
    tried = [Tried(SPACE.plan(NAIVE), float(usd), (trial(lost / 8),)) for usd, lost in points]
    front = frontier(tried)
    beats = lambda a, b: a.usd <= b.usd and a.lost <= b.lost and (a.usd, a.lost) != (b.usd, b.lost)
    assert not [b for b in front if any(beats(a, b) for a in tried)]
    assert all(any(a.usd <= b.usd and a.lost <= b.lost for a in front) for b in tried)
    assert [t.usd for t in front] == sorted({t.usd for t in front})


# Search


def run(evaluate: Fake, file: Path, how: Search, setting: str = "code 1") -> list[Tried]:
    *_, last = search(evaluate, SPACE, how, Archive(file, {"code": setting}), usd)
    return last


def test_a_search_finds_the_way_past_a_plain_scan(tmp_path: Path) -> None:
    fake = Fake()
    tried = run(fake, tmp_path / "trials.jsonl", Search(budget=90, seed=2, repeats=2))
    front = frontier(tried)
    assert tried[0].plan == SPACE.plan(NAIVE)
    assert tried[0].lost == 1
    assert front[-1].lost == 0
    assert front[-1].usd < usd(SPACE.plan(CAREFUL)) / 3
    assert front[-1].plan.accounts_per_card == 1
    assert all(len(t.trials) >= 2 for t in front)
    assert sum(len(t.trials) for t in tried) == len(fake.asked) == 90


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    file, how, first = tmp_path / "trials.jsonl", Search(budget=24, seed=5), Fake()
    whole = run(first, file, how)
    again = Fake()
    assert run(again, file, how) == whole
    assert not again.asked
    more = Fake()
    run(more, file, Search(budget=30, seed=5))
    assert len(more.asked) <= 12
    other = Fake()
    run(other, file, how, setting="code 2")
    assert len(other.asked) == 24


def test_a_search_that_was_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    how, file = Search(budget=24, seed=5), tmp_path / "cut.jsonl"
    whole = run(Fake(), tmp_path / "whole.jsonl", how)
    list(islice(search(Fake(), SPACE, how, Archive(file, {"code": "code 1"}), usd), 3))
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") == 9
    file.write_text(text[:-40], encoding="utf-8")
    rest = Fake()
    assert run(rest, file, how) == whole
    assert len(rest.asked) == 24 - 8


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    space = SPACE
    for name, values in SPACE.knobs.items():
        if name != "tempo":
            space = space.hold(f"{name}={values[-1]}")
    archive = Archive(tmp_path / "trials.jsonl", {})
    *_, last = search(Fake(), space, Search(budget=500, repeats=2), archive, usd)
    assert len({t.plan.tempo for t in last}) == len(last) <= 3


def test_the_code_has_a_name_of_its_own() -> None:
    assert code() == code()
    assert len(code()) == 16


# What it is for


def test_a_shared_wording_is_caught_in_a_small_world() -> None:
    grounds, space = Grounds(accounts=1500, exchanges=30_000), Space(harvest=1500)
    loud = space.plan(NAIVE | {"accounts": 60, "accounts_per_card": 8, "days": 0})
    bare = space.plan(CAREFUL | {"accounts": 40, "wording": "none"})
    first, second = try_out([loud, bare], 3, grounds, Config(threads=1))
    assert abs(first.harvest - 1500) < 300
    assert abs(second.harvest - 1500) < 300
    assert first.lost > 0.8
    assert first.recall > 0.8
    for t in (first, second):
        assert 0 <= t.lost + t.reviewed + t.let_go <= 1


@pytest.fixture
def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "bench_adversary", Path(__file__).parent.parent / "bench/adversary.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_whole_and_says_what_it_shows(driver: ModuleType, tmp_path: Path) -> None:
    tried = run(Fake(), tmp_path / "trials.jsonl", Search(budget=45))
    front = frontier(tried)
    drawn = driver.picture(front, tried, tried[0], 5000)
    root = ET.fromstring(drawn)
    tag = lambda name: root.findall(f".//{{http://www.w3.org/2000/svg}}{name}")
    assert "5,000 distillation exchanges" in (tag("title")[0].text or "")
    assert f"{len(tried)} plans" in (tag("desc")[0].text or "")
    classes: Callable[[str], int] = lambda css: sum(c.get("class") == css for c in tag("circle"))
    assert classes("point") == len(tried)
    assert classes("mark") == 2 * len(front)
    assert "prefers-color-scheme: dark" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")
