"""Decoys: all that any two accounts have in common in two parts is gone, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwatch.cli import main
from stillwatch.config import Config
from stillwatch.evaluation.decoys import ACCOUNTS, FACTS, Decoys, dealt, decoys, shuffled, strata
from stillwatch.intake import Log
from stillwatch.privacy import Privacy
from stillwatch.simulate import default_world, simulate
from stillwatch.tables import FACTS as FACTS_TABLE
from stillwatch.tables import PROFILES

HOUR = 3_600_000_000


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 99))
def test_each_row_is_dealt_once_within_its_stratum(number: list[int], seed: int) -> None:
    at = np.array(number, np.int64)
    take = dealt(at, np.random.default_rng(seed))
    assert sorted(take.tolist()) == list(range(len(number)))
    assert (at[take] == at).all()


def test_strata_are_of_equal_values_unknown_ones_too_and_of_days() -> None:
    rows = pa.table({
        "plan": ["free", None, "free", "payg", None, "free"],
        "time": pa.array([0, 0, 23 * HOUR, 0, 0, 25 * HOUR], pa.timestamp("us", tz="UTC")),
    })  # fmt: skip
    by_plan, by_both = strata(rows, ("plan",)), strata(rows, ("plan", "day"))
    assert by_plan[0] == by_plan[2] == by_plan[5] and by_plan[1] == by_plan[4] and len(set(by_plan.tolist())) == 3
    assert by_both[0] == by_both[2] != by_both[5] and by_both[1] == by_both[4]
    assert strata(rows, ()).tolist() == [0] * 6


def test_what_belongs_together_stays_together_and_every_value_is_as_common_as_before() -> None:
    rng = np.random.default_rng(3)
    number = np.arange(400)
    rows = pa.table({
        "account": number, "card": number // 4, "issuer": number // 40, "phone": number // 4,
        "plan": pa.array(rng.choice(["free", "payg"], 400)),
    })  # fmt: skip
    parts = {("card", "issuer"): ("plan",), ("phone",): ("plan",)}
    after = shuffled(rows, parts, rng)
    assert after["account"].equals(rows["account"]) and after["plan"].equals(rows["plan"])

    def pairs(table: pa.Table, *names: str) -> Counter[tuple[object, ...]]:
        return Counter(zip(*(table[n].to_pylist() for n in names)))

    assert pairs(after, "card", "issuer", "plan") == pairs(rows, "card", "issuer", "plan")
    agree = (after["card"].to_numpy() == after["phone"].to_numpy()).mean()
    assert agree < 0.1, "a card and a phone that went together were dealt apart"


def test_all_that_is_evidence_is_dealt_out() -> None:
    for table, parts, stays in (
        (FACTS_TABLE, FACTS, {"account", "time", "slot", "model", "exchange", "channel", "end_user", "conversation", "status",
                              "country"}),
        (PROFILES, ACCOUNTS, {"account", "customer", "created_at", "org", "signup_day", "programme", "plan", "verification"}),
    ):  # fmt: skip
        moved = [c for columns in parts for c in columns]
        assert len(moved) == len(set(moved))
        assert set(moved) | stays == set(table.names) and not set(moved) & stays


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    simulate(default_world(seed=3, accounts=600, exchanges=12_000), folder)
    return folder


def test_the_same_log_without_its_links_has_no_campaign(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(world / "exchanges", world / "accounts.parquet", world / "models.csv")
    told: list[int] = []
    found = decoys(log, 2, Config(), Privacy(bytes(32)), judged=told.append)
    assert told == [1, 2]
    assert (found.logs, found.campaigns, found.accounts, found.highest_risk) == (2, 0, 0, 0.0)
    code = main(["decoys", str(world / "exchanges"), "--accounts", str(world / "accounts.parquet"), "--logs", "1", "--json",
                 "--quiet"])  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert code == 0 and said["logs"] == 1 and said["campaigns"] == 0 and said["expected_false"] == 0


def test_what_chance_makes_is_told_by_log() -> None:
    assert Decoys(4, 2, 60, 9, 0.9).expected_false == 0.5
