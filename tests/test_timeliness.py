"""How early a replay told, on worlds small enough to reckon by hand: hour 0 is the first exchange, one falls in each hour."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from stillwatch.errors import UsageError
from stillwatch.evaluation import Evaluation, evaluate, show
from stillwatch.evaluation.measures import Rate
from stillwatch.evaluation.timeliness import Estimate, Timeliness

UTC_US = pa.timestamp("us", tz="UTC")
START = datetime(2026, 9, 7, tzinfo=UTC)


def hour(number: float | None) -> datetime | None:
    return None if number is None else START + timedelta(hours=number)


@dataclass(frozen=True)
class A:
    """An account with one exchange at each hour in ``taken`` (distillation) and in ``other``."""

    name: str
    planted: str | None = None
    population: str = "ring"
    taken: Sequence[float] = ()
    other: Sequence[float] = ()
    flagged: float | None = None
    cleared: float | None = None
    reported: str | None = None
    generation: int | None = None


def world_in(folder: Path, accounts: Sequence[A], *, generations: bool = True, marked: bool = True) -> Path:
    """Write a log and its truth."""
    (folder / "exchanges").mkdir(parents=True)
    truth = {
        "account_id": pa.array([a.name for a in accounts]),
        "campaign_id": pa.array([a.planted for a in accounts], pa.string()),
        "population": pa.array([a.population for a in accounts]),
        "generation": pa.array([a.generation for a in accounts], pa.int16()),
    }
    if not generations:
        del truth["generation"]
    pq.write_table(pa.table(truth), folder / "truth.parquet")
    rows = [
        (a.name, at, is_taken) for a in accounts for is_taken in (True, False) for at in (a.other, a.taken)[is_taken]
    ]
    ids = [f"e{i}" for i, _ in enumerate(rows)]
    times = pa.array([hour(at) for _, at, _ in rows], UTC_US)
    log = pa.table({"exchange_id": ids, "time": times, "account_id": pa.array([n for n, _, _ in rows], pa.string())})
    half = len(log) // 2
    for part, table in enumerate((log[:half], log[half:])):
        pq.write_table(table, folder / "exchanges" / f"{part}.parquet")
    marks = {"exchange_id": ids, "distillation": pa.array([t for *_, t in rows], pa.bool_())}
    if marked:
        capability = pa.array(["coding" if t else None for *_, t in rows], pa.string())
        pq.write_table(pa.table({**marks, "capability": capability}), folder / "truth_exchanges.parquet")
    return folder


def replay_in(
    folder: Path,
    accounts: Sequence[A],
    detected: Mapping[str, float],
    named: Mapping[str, float] | None = None,
    *,
    scan: bool = False,
) -> Path:
    """Write the result of a replay that told campaigns at these hours, or of a scan."""
    folder.mkdir()
    columns = {
        "account_id": pa.array([a.name for a in accounts]),
        "campaign_id": pa.array([a.reported for a in accounts], pa.string()),
        "risk": pa.array([0.9 if a.reported else 0.1 for a in accounts]),
        "first_flagged_at": pa.array([None if scan else hour(a.flagged) for a in accounts], UTC_US),
    }
    if not scan:
        columns["cleared_at"] = pa.array([hour(a.cleared) for a in accounts], UTC_US)
    pq.write_table(pa.table(columns), folder / "accounts.parquet")
    (folder / "campaigns.json").write_text(json.dumps([told(c, "detected_at", at) for c, at in detected.items()]))
    if named is not None:
        (folder / "history.json").write_text(json.dumps([told(c, "named_at", at) for c, at in named.items()]))
    return folder


def told(campaign: str, field: str, at: float) -> dict[str, str]:
    return {"campaign_id": campaign, field: (START + timedelta(hours=at)).isoformat().replace("+00:00", "Z")}


def timeliness(
    tmp_path: Path, accounts: Sequence[A], detected: Mapping[str, float], named: Mapping[str, float] | None = None
) -> Timeliness:
    found = evaluate(world_in(tmp_path / "world", accounts), replay_in(tmp_path / "out", accounts, detected, named))
    assert found.timeliness is not None
    return found.timeliness


HALFWAY = A("a", "one", taken=range(10), flagged=5, reported="x", generation=0)
NEVER = A("b", "one", taken=range(10), other=range(5), generation=0)
HONEST = A("h", population="office", other=range(10))


def test_an_account_flagged_halfway_was_served_half(tmp_path: Path) -> None:
    found = timeliness(tmp_path, [HALFWAY, HONEST], {"x": 6})
    (one,) = found.campaigns
    assert (one.harvest, one.served, one.served_share, one.flagged) == (10, 5, 0.5, Rate(1, 1))
    assert (one.before_named, one.before_named_share, one.hours_to_named) == (6, 0.6, 6.0)
    assert found.pooled.served == Estimate(0.5)
    assert found.pooled.named == Rate(1, 1)
    assert found.large.served == Estimate(None)


def test_an_exchange_at_the_very_time_of_the_flag_is_not_served(tmp_path: Path) -> None:
    (one,) = timeliness(tmp_path, [A("a", "one", taken=[0, 1, 2], flagged=1, reported="x"), HONEST], {"x": 1}).campaigns
    assert (one.served, one.before_named) == (1, 1)


def test_an_account_never_flagged_was_served_everything(tmp_path: Path) -> None:
    (one,) = timeliness(tmp_path, [HALFWAY, NEVER, HONEST], {"x": 6}).campaigns
    assert (one.harvest, one.served, one.served_share, one.flagged) == (20, 15, 0.75, Rate(1, 2))
    assert (one.before_named, one.hours_to_named) == (12, 6.0)


def test_a_campaign_never_named_counts_as_taken_whole(tmp_path: Path) -> None:
    found = timeliness(tmp_path, [NEVER, HONEST], {})
    (one,) = found.campaigns
    assert (one.before_named_share, one.hours_to_named) == (1.0, None)
    assert (found.pooled.named, found.pooled.before_named_median.value) == (Rate(0, 1), 1.0)
    assert found.pooled.hours_to_named_median is None


def test_the_earliest_reported_campaign_that_is_mostly_it_counts(tmp_path: Path) -> None:
    others = [A(f"h{i}", population="office", other=[0], flagged=1, reported="mixed") for i in range(2)]
    planted = [
        A("a0", "one", taken=range(10), flagged=2, reported="mixed"),
        A("a1", "one", taken=range(10), flagged=4, reported="late"),
        A("a2", "one", taken=range(10), flagged=4, reported="early"),
    ]
    found = timeliness(tmp_path, [*planted, *others], {"mixed": 1, "late": 8, "early": 7}, {"early": 5, "gone": 0})
    assert found.campaigns[0].hours_to_named == 5.0
    assert found.campaigns[0].before_named == 15


def test_an_old_name_counts_from_its_first_account_of_the_campaign(tmp_path: Path) -> None:
    (one,) = timeliness(tmp_path, [HALFWAY, HONEST], {"x": 1}).campaigns
    assert one.hours_to_named == 5.0


def test_hours_run_from_the_first_distillation_exchange(tmp_path: Path) -> None:
    account = A("a", "one", taken=[4, 5, 9], other=range(4), flagged=6, reported="x")
    (one,) = timeliness(tmp_path, [account, HONEST], {"x": 6}).campaigns
    assert (one.hours_to_named, one.before_named) == (2.0, 2)


def test_new_heads_are_counted_by_all_they_did_before_the_flag(tmp_path: Path) -> None:
    heads = [
        A(f"n{i}", "one", taken=[20], other=[21 + k for k in range(9)], flagged=20 + i, reported="x", generation=1)
        for i in range(9)
    ]
    unflagged = A("n9", "one", other=range(30, 130), generation=2)
    idle = A("n10", "one", generation=2)
    found = timeliness(tmp_path, [HALFWAY, *heads, unflagged, idle, HONEST], {"x": 6})
    told = found.campaigns[0].heads
    assert told is not None
    # before the flag: 0, 1, …, 8 exchanges, and all 100 of the one never flagged; the idle one made none
    assert (told.never_flagged, told.exchanges_median) == (Rate(1, 10), 4.5)
    assert told.exchanges_90 == pytest.approx(8 + 0.1 * 92)
    # the unflagged one took nothing, so that nobody can say whether it began before or after its campaign was named
    assert (told.known, told.known_median) == (9, 4.0)
    assert found.pooled.heads == told


def test_heads_that_began_before_their_campaign_was_named_are_told_apart(tmp_path: Path) -> None:
    early = A("n0", "one", taken=[1, 2, 3, 4], flagged=6, reported="x", generation=1)
    late = A("n1", "one", taken=[20, 21, 22], flagged=22, reported="x", generation=1)
    told = timeliness(tmp_path, [HALFWAY, early, late, HONEST], {"x": 6}).campaigns[0].heads
    assert told is not None
    assert (told.exchanges_median, told.known, told.known_median) == (3.0, 1, 2.0)


def test_without_replacements_there_are_no_heads_to_tell_of(tmp_path: Path) -> None:
    heads = timeliness(tmp_path, [HALFWAY, HONEST], {"x": 6}).pooled.heads
    assert heads is not None
    assert (heads.never_flagged, heads.exchanges_median, heads.exchanges_90) == (Rate(0, 0), None, None)


def test_a_truth_without_generations_says_nothing_of_heads(tmp_path: Path) -> None:
    accounts = [HALFWAY, HONEST]
    world = world_in(tmp_path / "world", accounts, generations=False)
    found = evaluate(world, replay_in(tmp_path / "out", accounts, {"x": 6})).timeliness
    assert found is not None
    assert (found.pooled.heads, found.campaigns[0].heads) == (None, None)
    assert found.campaigns[0].served == 5


def test_honest_accounts_flagged_and_cleared_are_told_by_population(tmp_path: Path) -> None:
    flagged = [
        A("h1", population="office", other=[0], flagged=1, cleared=3),
        A("h2", population="office", other=[0], flagged=2, cleared=8),
        A("h3", population="class", other=[0], flagged=2, reported="x"),
        A("h4", population="home", other=[0]),
    ]
    found = timeliness(tmp_path, [HALFWAY, HONEST, *flagged], {"x": 6})
    assert (found.honest.ever, found.honest.at_the_end, found.honest.cleared) == (Rate(3, 5), 1, 2)
    assert found.honest.hours_until_cleared == 4.0
    office, classes = found.populations
    assert (office.population, office.ever, office.cleared, office.hours_until_cleared) == (
        "office",
        Rate(2, 3),
        2,
        4.0,
    )
    assert (classes.population, classes.at_the_end, classes.hours_until_cleared) == ("class", 1, None)


def test_a_planted_account_let_go_counts_as_flagged_and_is_told(tmp_path: Path) -> None:
    account = A("a", "one", taken=range(10), flagged=5, cleared=7)
    (one,) = timeliness(tmp_path, [account, HONEST], {}).campaigns
    assert (one.served, one.flagged, one.cleared, one.hours_to_named) == (5, Rate(1, 1), 1, None)


def test_pools_are_of_shapes_of_large_campaigns_and_of_all(tmp_path: Path) -> None:
    large = [A(f"a{i}", "one", "pool", taken=[0, 1, 2, 3], flagged=1, reported="x") for i in range(50)]
    small = [A(f"b{i}", f"two{i}", taken=range(10), flagged=4 + i, reported=f"y{i}") for i in range(3)]
    found = timeliness(tmp_path, [*large, *small, HONEST], {"x": 1, "y0": 4, "y1": 5, "y2": 6})
    assert (found.large.accounts, found.large.served.value) == (50, 0.25)
    assert found.pooled.served.value == pytest.approx((50 + 4 + 5 + 6) / (200 + 30))
    assert found.pooled.before_named_median.value == pytest.approx(0.45)
    assert found.pooled.hours_to_named_median == 4.5
    assert [(p.name, p.named) for p in found.shapes] == [("pool", Rate(1, 1)), ("ring", Rate(3, 3))]
    assert found.shapes[1].served.value == 0.5
    assert found.pooled.served.low is None


def test_five_campaigns_have_an_interval(tmp_path: Path) -> None:
    accounts = [A(f"a{i}", f"p{i}", taken=range(10), flagged=i, reported=f"x{i}") for i in range(5)]
    served = timeliness(tmp_path, [*accounts, HONEST], {f"x{i}": i for i in range(5)}).pooled.served
    assert served.value == pytest.approx(0.2)
    assert served.low is not None
    assert served.high is not None
    assert 0 <= served.low < 0.2 < served.high <= 0.4


def test_a_campaign_without_a_harvest_is_in_no_pool(tmp_path: Path) -> None:
    found = timeliness(tmp_path, [HALFWAY, A("c", "idle", other=[1]), HONEST], {"x": 6})
    idle = next(c for c in found.campaigns if c.campaign_id == "idle")
    assert (idle.served_share, idle.before_named_share, idle.hours_to_named) == (None, None, None)
    assert found.pooled.named == Rate(1, 1)


def test_without_the_log_only_the_honest_are_told(tmp_path: Path) -> None:
    accounts = [HALFWAY, A("h1", population="office", other=[0], flagged=1, cleared=3)]
    world = world_in(tmp_path / "world", accounts, marked=False)
    found = evaluate(world, replay_in(tmp_path / "out", accounts, {"x": 6}))
    assert found.timeliness is not None
    assert (found.timeliness.campaigns, found.timeliness.honest.ever) == ((), Rate(1, 1))
    assert "1 of 1" in shown(found)


def test_a_scan_has_no_timeliness(tmp_path: Path) -> None:
    accounts = [HALFWAY, HONEST]
    found = evaluate(world_in(tmp_path / "world", accounts), replay_in(tmp_path / "out", accounts, {"x": 6}, scan=True))
    assert found.timeliness is None
    assert found.to_dict()["timeliness"] is None
    assert "How early" not in shown(found)


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    result = replay_in(tmp_path / "out", [HALFWAY], {"x": 6})
    (result / "campaigns.json").write_text('[{"campaign_id": "x", "detected_at": "soon"}]')
    with pytest.raises(UsageError, match="x: told at 'soon'"):
        evaluate(world_in(tmp_path / "world", [HALFWAY]), result)


def test_everything_goes_into_json_and_onto_the_screen(tmp_path: Path) -> None:
    head = A("n", "one", taken=[20], other=[21, 22], flagged=22, reported="x", generation=1)
    cleared = A("h1", population="[office]", other=[0], flagged=1, cleared=3)
    accounts = [HALFWAY, NEVER, head, HONEST, cleared]
    found = evaluate(world_in(tmp_path / "world", accounts), replay_in(tmp_path / "out", accounts, {"x": 6}))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))["timeliness"]
    assert plain["campaigns"][0]["served_share"] == pytest.approx(16 / 21)
    assert plain["pooled"]["heads"]["never_flagged"]["hits"] == 0
    assert plain["honest"]["ever"] == {"hits": 1, "total": 2} | {
        k: plain["honest"]["ever"][k] for k in ("value", "low", "high")
    }
    text = shown(found)
    for words in (
        "How early the replay told",
        "76.2%",
        "2 / 2",
        "New heads: 1",
        "at most 2 exchanges before",
        "1 [office]",
        "2.0 h",
    ):
        assert words in text


def shown(found: Evaluation) -> str:
    console = Console(width=140, file=StringIO())
    show(found, None, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
