"""Evaluation on truths and results small enough to reckon by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stillwatch.errors import UsageError
from stillwatch.evaluation import Prices, evaluate, show
from stillwatch.evaluation.measures import Rate, agreement, overlap
from stillwatch.evaluation.risks import judge_risk, standing
from stillwatch.tables import TRUTH

OUTCOME = pa.schema([("account_id", pa.string()), ("campaign_id", pa.string()), ("risk", pa.float64())])


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


def truth_in(folder: Path, campaigns: Mapping[str, Iterable[str]], honest: Mapping[str, Iterable[str]]) -> Path:
    """Write a truth: accounts by campaign (shape "ring") and by honest population."""
    rows = [(a, c, "ring") for c, accounts in campaigns.items() for a in accounts]
    rows += [(a, None, p) for p, accounts in honest.items() for a in accounts]
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pylist([dict(zip(TRUTH.names, row)) for row in rows], schema=TRUTH.schema)
    pq.write_table(table, folder / "truth.parquet")
    return folder


def result_in(
    folder: Path,
    accused: Mapping[str, Iterable[str]],
    others: Iterable[str] = (),
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write a result: accounts by reported campaign at risk 0.99, the others seen at risk 0.01."""
    rows = [{"account_id": a, "campaign_id": c, "risk": 0.99} for c, accounts in accused.items() for a in accounts]
    rows += [{"account_id": a, "campaign_id": None, "risk": 0.01} for a in others]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=OUTCOME), folder / "accounts.parquet")
    listed = [{"campaign_id": c, "accounts": 0, "exchanges": 10, **(more or {}).get(c, {})} for c in accused]
    (folder / "campaigns.json").write_text(json.dumps(listed))
    return folder


A, B, HONEST = numbered("a", 20), numbered("b", 20), numbered("h", 10)


@pytest.fixture
def two_campaigns(tmp_path: Path) -> Path:
    return truth_in(tmp_path / "world", {"one": A, "two": B}, {"class": HONEST[:6], "office": HONEST[6:]})


def test_a_perfect_scan_scores_one(two_campaigns: Path, tmp_path: Path) -> None:
    found = evaluate(two_campaigns, result_in(tmp_path / "out", {"x": A, "y": B}, HONEST))
    assert (found.precision, found.recall, found.found) == (Rate(40, 40), Rate(40, 40), Rate(2, 2))
    assert found.headline == 1.0
    assert [c.pieces for c in found.campaigns] == [("x",), ("y",)]
    assert [r.dominated_by for r in found.reported] == ["one", "two"]
    assert found.risk.auc == 1.0
    assert found.cost.total == 0


def test_one_giant_group_does_not_win(two_campaigns: Path, tmp_path: Path) -> None:
    found = evaluate(two_campaigns, result_in(tmp_path / "out", {"x": A + B + HONEST}))
    assert found.recall == Rate(40, 40)
    assert found.precision == Rate(40, 50)
    assert found.agreement.purity == pytest.approx(20 / 50)
    assert found.agreement.bcubed_precision == pytest.approx((20 * 20 + 20 * 20) / 50 / 50)
    assert found.agreement.bcubed_recall == 1.0
    assert found.agreement.pairwise_f1 == pytest.approx(2 * 380 / (1225 + 380))
    assert found.headline == pytest.approx(0.4)
    assert [c.purity for c in found.campaigns] == [Rate(20, 50), Rate(20, 50)]
    (giant,) = found.reported
    assert (giant.dominated_by, giant.is_false, dict(giant.honest)) == ("one", False, {"class": 6, "office": 4})


def test_splinters_do_not_win(two_campaigns: Path, tmp_path: Path) -> None:
    found = evaluate(two_campaigns, result_in(tmp_path / "out", {f"x-{a}": [a] for a in A + B}, HONEST))
    assert (found.precision, found.recall) == (Rate(40, 40), Rate(40, 40))
    assert found.agreement.purity == 1.0
    assert found.agreement.bcubed_recall == pytest.approx(1 / 20)
    assert found.agreement.pairwise_f1 == 0.0
    assert found.headline == 0.0
    assert found.found == Rate(0, 2)
    assert [(len(c.pieces), c.largest_piece) for c in found.campaigns] == [(0, Rate(1, 20))] * 2


def test_an_empty_result_misses_everything(two_campaigns: Path, tmp_path: Path) -> None:
    found = evaluate(two_campaigns, result_in(tmp_path / "out", {}))
    assert (found.precision, found.recall) == (Rate(0, 0), Rate(0, 40))
    assert found.precision.value is None
    assert found.headline == 0.0
    assert (found.unmatched.not_in_result, found.unmatched.planted_not_in_result) == (50, 40)
    assert all(p.highest_risk is None for p in found.populations)
    assert found.risk.auc is None


def test_look_alikes_only_let_alone_is_perfect(tmp_path: Path) -> None:
    world = truth_in(tmp_path / "world", {}, {"class": HONEST})
    found = evaluate(world, result_in(tmp_path / "out", {}, HONEST))
    assert (found.headline, found.recall, found.mean_recall) == (1.0, Rate(0, 0), None)


def test_look_alikes_only_and_somebody_accused_is_the_worst(tmp_path: Path) -> None:
    world = truth_in(tmp_path / "world", {}, {"class": HONEST})
    found = evaluate(world, result_in(tmp_path / "out", {"x": HONEST[:4]}, HONEST[4:]))
    assert (found.headline, found.precision) == (0.0, Rate(0, 4))
    assert [(r.is_false, r.dominated_by, r.purity) for r in found.reported] == [(True, None, Rate(0, 4))]
    assert found.populations[0].accused == Rate(4, 10)


def test_a_piece_holds_three_accounts_and_five_percent(tmp_path: Path) -> None:
    large, small = numbered("l", 100), numbered("s", 10)
    world = truth_in(tmp_path / "world", {"large": large, "small": small}, {"class": HONEST})
    accused = {"p": large[:60], "q": large[60:90], "r": large[90:95], "too-few": large[95:99], "t": small[:3]}
    found = evaluate(world, result_in(tmp_path / "out", accused | {"u": small[3:5]}, HONEST))
    assert [c.pieces for c in found.campaigns] == [("p", "q", "r"), ("t",)]
    assert [c.recall for c in found.campaigns] == [Rate(99, 100), Rate(5, 10)]
    assert [c.largest_piece for c in found.campaigns] == [Rate(60, 100), Rate(3, 10)]
    assert found.mean_recall == pytest.approx((0.99 + 0.5) / 2)


def test_a_reported_campaign_is_false_when_most_of_it_is_honest(two_campaigns: Path, tmp_path: Path) -> None:
    accused = {"half": A[:3] + HONEST[:3], "most": A[3:5] + HONEST[3:6]}
    found = evaluate(two_campaigns, result_in(tmp_path / "out", accused))
    assert [(r.campaign_id, r.is_false, r.dominated_by) for r in found.reported] == [
        ("half", False, "one"),
        ("most", True, None),
    ]


def test_each_look_alike_has_its_rate_and_its_highest_risk(two_campaigns: Path, tmp_path: Path) -> None:
    found = evaluate(two_campaigns, result_in(tmp_path / "out", {"x": [*A, "h0"]}, HONEST[1:]))
    assert [(p.name, p.accused, p.highest_risk, p.riskiest_account) for p in found.populations] == [
        ("class", Rate(1, 6), 0.99, "h0"),
        ("office", Rate(0, 4), 0.01, "h6"),
    ]


def test_what_only_one_side_knows_is_reported_not_judged(two_campaigns: Path, tmp_path: Path) -> None:
    result = result_in(tmp_path / "out", {"x": [*A[:10], "stranger", "a0"], "empty": []}, ["visitor"])
    found = evaluate(two_campaigns, result)
    odd = found.unmatched
    assert (odd.not_in_truth, odd.accused_not_in_truth, odd.not_in_result) == (2, 1, 40)
    assert (odd.repeated_rows, odd.campaigns_without_accounts) == (1, ("empty",))
    assert (found.accounts, found.precision, found.recall) == (50, Rate(10, 10), Rate(10, 40))
    assert (found.reported[0].purity, found.reported[0].unknown) == (Rate(10, 10), 1)


def test_a_campaign_no_list_names_is_reported(two_campaigns: Path, tmp_path: Path) -> None:
    result = result_in(tmp_path / "out", {"x": A}, HONEST)
    (result / "campaigns.json").write_text("[]")
    assert evaluate(two_campaigns, result).unmatched.campaigns_not_listed == ("x",)


def asked_in(world: Path, rows: Iterable[tuple[str, bool, str | None]]) -> None:
    """Write one exchange for each (account, distillation, capability)."""
    ids = [f"e{i}" for i, _ in enumerate(rows)]
    accounts, marks, capabilities = zip(*rows)
    (world / "exchanges").mkdir()
    pq.write_table(pa.table({"exchange_id": ids, "account_id": accounts}), world / "exchanges" / "part.parquet")
    table = pa.table({"exchange_id": ids, "distillation": marks, "capability": pa.array(capabilities, pa.string())})
    pq.write_table(table, world / "truth_exchanges.parquet")


def test_missed_queries_and_wrong_accusations_cost(two_campaigns: Path, tmp_path: Path) -> None:
    asked_in(two_campaigns, [("a0", True, "coding")] * 3 + [("b0", True, "grading")] * 5 + [("b0", False, None)] * 7)
    result = result_in(tmp_path / "out", {"x": [*A, "h0"]}, B + HONEST[1:])
    cost = evaluate(two_campaigns, result, Prices(wrongly_accused=100, exchange_given_away=2)).cost
    assert (cost.wrongly_accused, cost.exchanges_given_away, cost.total) == (1, 5, 110)


def test_without_the_log_the_exchanges_given_away_are_unknown(two_campaigns: Path, tmp_path: Path) -> None:
    cost = evaluate(two_campaigns, result_in(tmp_path / "out", {"x": ["h0"]}, A + B)).cost
    assert (cost.exchanges_given_away, cost.total) == (None, 1000)


def test_capabilities_are_held_against_the_truth(two_campaigns: Path, tmp_path: Path) -> None:
    asked_in(two_campaigns, [("a0", True, "coding")] * 3 + [("a1", True, "grading")] + [("a1", False, None)] * 9)
    said = {"x": {"capabilities": {"coding": 0.5, "vision": 0.5}, "exchanges": 100}}
    one, two = evaluate(two_campaigns, result_in(tmp_path / "out", {"x": A}, B, said)).campaigns
    assert dict(one.capabilities) == {"coding": 0.75, "grading": 0.25}
    assert one.capabilities_off == pytest.approx((0.25 + 0.25 + 0.5) / 2)
    assert (dict(two.capabilities), two.capabilities_off) == ({}, None)


def test_truth_may_be_the_file_itself(two_campaigns: Path, tmp_path: Path) -> None:
    result = result_in(tmp_path / "out", {"x": A}, HONEST)
    assert evaluate(two_campaigns / "truth.parquet", result) == evaluate(two_campaigns, result)


def test_a_truth_that_is_not_there_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"truth\.parquet: cannot be read[\s\S]*hint: TRUTH is truth\.parquet"):
        evaluate(tmp_path, result_in(tmp_path / "out", {}))


def test_a_result_that_is_not_there_says_what_to_give(two_campaigns: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"campaigns\.json: cannot be read[\s\S]*hint: RESULT is the folder"):
        evaluate(two_campaigns, tmp_path / "nowhere")


def test_campaigns_json_must_be_a_list_of_campaigns(two_campaigns: Path, tmp_path: Path) -> None:
    result = result_in(tmp_path / "out", {})
    (result / "campaigns.json").write_text('{"campaigns": []}')
    with pytest.raises(UsageError, match="not a list of campaigns"):
        evaluate(two_campaigns, result)


def test_a_result_without_risk_is_named(two_campaigns: Path, tmp_path: Path) -> None:
    result = result_in(tmp_path / "out", {"x": A})
    pq.write_table(pa.table({"account_id": A}), result / "accounts.parquet")
    with pytest.raises(UsageError, match=r"accounts\.parquet: no column campaign_id, risk"):
        evaluate(two_campaigns, result)


def test_a_result_of_another_log_is_refused(two_campaigns: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no account in common"):
        evaluate(two_campaigns, result_in(tmp_path / "out", {"x": ["p", "q", "r"]}))


def test_everything_goes_into_json_and_onto_the_screen(two_campaigns: Path, tmp_path: Path) -> None:
    result = result_in(tmp_path / "out", {"x": [*A, "h0"], "[bold]": HONEST[1:5], "gone": []}, ["visitor"])
    found = evaluate(two_campaigns, result)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["headline"] == found.headline
    assert plain["recall"]["hits"] == 20
    console = Console(width=140, file=StringIO())
    show(found, None, console)
    shown = console.file.getvalue()
    for words in (
        "0.800 (0.609",
        "[bold]",
        "false",
        "4 class",
        "Listed in campaigns.json",
        "gone",
        "5 wrongly accused",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 1000, 0.0002, 0.0056), (0, 0, 0, 1)],
)
def test_wilson_intervals(hits: int, total: int, low: float, high: float) -> None:
    assert (round(Rate(hits, total).low, 4), round(Rate(hits, total).high, 4)) == (low, high)


def test_a_rate_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        Rate(3, 2)


LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(LABELS)
def test_agreement_is_what_the_definitions_say(labels: list[tuple[int, int]]) -> None:
    planted, reported = np.array([t for t, _ in labels]), np.array([r for _, r in labels])
    fast = agreement(overlap(planted, reported, (4, 4)))
    together = lambda at, side: [other for other in range(len(labels)) if side[other] == side[at]]
    both = lambda at: set(together(at, planted)) & set(together(at, reported)) if planted[at] and reported[at] else ()
    accused, guilty = np.flatnonzero(reported), np.flatnonzero(planted)
    precision = [len(both(i)) / len(together(i, reported)) for i in accused]
    recall = [len(both(i)) / len(together(i, planted)) for i in guilty]
    assert fast.bcubed_precision == (pytest.approx(np.mean(precision)) if len(accused) else None)
    assert fast.bcubed_recall == (pytest.approx(np.mean(recall)) if len(guilty) else None)
    said = {p for p in combinations(range(len(labels)), 2) if reported[p[0]] == reported[p[1]] != 0}
    true = {p for p in combinations(range(len(labels)), 2) if planted[p[0]] == planted[p[1]] != 0}
    expected = 2 * len(said & true) / (len(said) + len(true)) if said or true else None
    assert fast.pairwise_f1 == (None if expected is None else pytest.approx(expected))
    assert 0 <= fast.headline <= 1


@given(LABELS, st.randoms())
def test_agreement_does_not_depend_on_order_or_names(labels: list[tuple[int, int]], random: Any) -> None:
    names = random.sample(range(1, 5), 4)
    other = [(t, names[r - 1] if r else 0) for t, r in labels]
    random.shuffle(other)
    counts = [overlap(*map(np.array, zip(*rows)), (4, 4)) for rows in (labels, other)]
    assert agreement(counts[0]).headline == pytest.approx(agreement(counts[1]).headline)


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_standing_counts_ties_by_half(values: list[int], among: list[int]) -> None:
    slow = [sum((a < v) + (a == v) / 2 for a in among) / len(among) for v in values]
    assert standing(np.array(values, float), np.array(among, float)) == pytest.approx(slow)


def test_risk_is_held_against_what_came_true() -> None:
    risk = np.array([0.0, 0.0, 0.2, 0.95, 0.95, 1.0, np.nan])
    planted = np.array([False, False, False, False, True, True, True])
    quality = judge_risk(risk, planted, np.ones(7, bool))
    assert quality.auc == pytest.approx((3.5 + 4) / 2 / 4)
    assert [(b.low, b.accounts, b.observed) for b in quality.bands] == [
        (0, 2, 0),
        (0.1, 1, 0),
        (0.9, 2, 0.5),
        (0.99, 1, 1),
    ]
