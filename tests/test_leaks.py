"""The leak probe on small logs with known giveaways, and on logs without any."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from stillwatch.errors import UsageError
from stillwatch.evaluation import LeakReport, probe, show
from stillwatch.evaluation.columns import account_columns
from stillwatch.evaluation.leaks import Leak
from stillwatch.evaluation.reading import Labels
from stillwatch.evaluation.trees import _halves, _surest
from stillwatch.tables import ACCOUNTS, EXCHANGES, TRUTH, Table

ACCOUNTS_IN_LOG, EACH = 240, 6
START_US = 1_790_000_000_000_000


def filled(table: Table, rows: int, held: Mapping[str, Any]) -> pa.Table:
    """A canonical table with these columns, null elsewhere."""
    columns = [pa.array(held[c.name], c.type) if c.name in held else pa.nulls(rows, c.type) for c in table.columns]
    return pa.Table.from_arrays(columns, schema=pa.schema([(c.name, c.type) for c in table.columns]))


class World:
    """A log of 240 accounts, every fourth of one of some campaigns, in which nothing tells them apart at first."""

    def __init__(self, folder: Path, campaigns: int = 4) -> None:
        rng = np.random.default_rng(5)
        self.folder, n = folder, ACCOUNTS_IN_LOG * EACH
        self.account = np.tile(np.arange(ACCOUNTS_IN_LOG), EACH)
        number = np.arange(ACCOUNTS_IN_LOG)
        campaign = np.where(number % 4 == 0, number // 4 % max(1, campaigns) + 1, 0) if campaigns else number * 0
        campaign = rng.permutation(campaign)
        self.planted = campaign > 0
        self.campaign = [f"c{c}" if c else None for c in campaign]
        self.ids = np.array([f"acc_{i:08x}" for i in rng.integers(0, 2**32, ACCOUNTS_IN_LOG)])
        self.exchanges: dict[str, Any] = {
            "exchange_id": [f"{i:x}" for i in rng.integers(0, 2**60, n)],
            "time": START_US + np.sort(rng.integers(0, 20 * 86_400 * 10**6, n)),
            "account_id": self.ids[self.account],
            "model": np.array(["m", "k"])[rng.integers(0, 2, n)],
            "ip": [f"10.0.{i // 250}.{i % 250}" for i in rng.integers(0, 5000, n)],
            "output_tokens": rng.integers(1, 1000, n),
        }
        self.accounts: dict[str, Any] = {
            "account_id": self.ids,
            "created_at": START_US - rng.integers(0, 9 * 10**13, ACCOUNTS_IN_LOG),
            "payment_hash": [f"{i:x}" for i in rng.integers(0, 200, ACCOUNTS_IN_LOG)],
        }

    def of_campaign(self) -> np.ndarray:
        """Whether each exchange is of a campaign's account."""
        return self.planted[self.account]

    def write(self) -> Path:
        (self.folder / "exchanges").mkdir(parents=True)
        pq.write_table(filled(EXCHANGES, len(self.account), self.exchanges), self.folder / "exchanges" / "part.parquet")
        pq.write_table(filled(ACCOUNTS, ACCOUNTS_IN_LOG, self.accounts), self.folder / "accounts.parquet")
        truth = {"account_id": self.ids, "campaign_id": self.campaign, "population": ["p"] * ACCOUNTS_IN_LOG}
        pq.write_table(filled(TRUTH, ACCOUNTS_IN_LOG, truth), self.folder / "truth.parquet")
        return self.folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def by_name(report: LeakReport) -> dict[str, Leak]:
    return {leak.column: leak for leak in report.leaks}


def test_a_log_without_giveaways_has_none(world: World) -> None:
    report = probe(world.write())
    assert (report.accounts, report.planted, report.campaigns, report.giveaways) == (240, 60, 4, ())
    assert len(report.leaks) > 40
    assert report.trees is not None
    assert 0.3 < report.trees.auc < 0.7


def test_a_column_that_separates_alone_is_named(world: World) -> None:
    world.exchanges["output_tokens"] = world.exchanges["output_tokens"] + 900 * world.of_campaign()
    report = probe(world.write())
    assert "output tokens mean" in {leak.column for leak in report.giveaways}
    leak = by_name(report)["output tokens mean"]
    assert (leak.family, leak.more_in_campaigns) == ("tokens", True)
    assert 0.95 < leak.low <= leak.auc <= leak.high <= 1.0
    assert report.trees is not None
    assert report.trees.auc > 0.95
    assert report.trees.best_f1.recall.value > 0.9
    assert report.trees.sure is not None
    assert report.trees.sure.precision.value >= 0.99
    assert {rate.total for rate in report.trees.best_f1.recall_by_campaign.values()} == {15}


def test_less_gives_away_as_well_as_more(world: World) -> None:
    world.exchanges["output_tokens"] = world.exchanges["output_tokens"] - 900 * world.of_campaign()
    leak = by_name(probe(world.write()))["output tokens mean"]
    assert (leak.more_in_campaigns, leak.is_giveaway) == (False, True)
    assert leak.low <= leak.auc <= leak.high


def test_each_sort_of_giveaway_is_found(world: World) -> None:
    guilty, planted = world.of_campaign(), world.planted
    world.ids = np.sort(world.ids)[np.argsort(np.argsort(planted))]
    world.accounts |= {
        "account_id": world.ids,
        "plan": np.where(planted, "free", "payg"),
        "payment_hash": np.where(planted, "x", world.ids),
        "org_id": [None if p else "o" for p in planted],
    }
    world.exchanges |= {
        "account_id": world.ids[world.account],
        "time": world.exchanges["time"] // 10**6 * 10**6 + guilty,
        "user_agent": np.where(guilty, "bot", "app"),
        "ip": [f"fe80:0:{g:d}::{i}" for i, g in enumerate(guilty)],
        "stop_reason": np.where(guilty, "length", "stop"),
        "end_user": [None if g else "u" for g in guilty],
        "tools": [["a"] if g else [] for g in guilty],
        "logprobs": guilty,
    }
    folder = world.write()
    columns = account_columns(folder / "exchanges", folder / "accounts.parquet", pa.array(world.ids))
    held = dict(zip(columns.names, np.nan_to_num(columns.values).T))
    for name in (
        "rank of account id", "plan = free", "card holders", "has organisation", "whole second share", "client = bot",
        "network holders", "stop reason = length", "end user null", "tools mean", "logprobs share",
    ):  # fmt: skip
        more = np.mean(held[name][planted][:, None] > held[name][~planted])
        assert abs(more - 0.5) == 0.5, name
    assert columns.families[columns.names.index("tools mean")] == "settings"


def test_prompts_and_answers_are_never_looked_at(world: World) -> None:
    other = World(world.folder.parent / "other")
    for name in ("prompt", "response", "system"):
        other.exchanges[name] = np.where(other.of_campaign(), "guilty " * 50, "hi")
    blind, seeing = (
        account_columns(w.write() / "exchanges", w.folder / "accounts.parquet", pa.array(w.ids)) for w in (world, other)
    )
    assert blind.names == seeing.names
    assert np.array_equal(blind.values, seeing.values, equal_nan=True)


def test_a_seed_gives_the_same_report_again(world: World) -> None:
    folder = world.write()
    assert probe(folder, 3) == probe(folder, 3)


def test_without_campaigns_there_is_nothing_to_give_away(tmp_path: Path) -> None:
    report = probe(World(tmp_path / "world", campaigns=0).write())
    assert (report.leaks, report.trees, report.notes) == (
        (),
        None,
        ("No campaign is planted: there is nothing to give away.",),
    )


def test_with_one_campaign_only_columns_are_tried(tmp_path: Path) -> None:
    world = World(tmp_path / "world", campaigns=1)
    world.exchanges["output_tokens"] = world.exchanges["output_tokens"] + 900 * world.of_campaign()
    report = probe(world.write())
    leak = by_name(report)["output tokens mean"]
    assert leak.low <= leak.auc <= leak.high
    assert report.trees is None
    assert "campaigns they have not seen" in report.notes[0]


def test_without_honest_accounts_nothing_can_be_told_apart(world: World) -> None:
    world.campaign = ["c1", "c2"] * (ACCOUNTS_IN_LOG // 2)
    report = probe(world.write())
    assert (report.leaks, report.trees) == ((), None)
    assert "no honest account" in report.notes[0]


def test_logs_without_accounts_or_network_are_probed_too(world: World) -> None:
    folder = world.write()
    (folder / "accounts.parquet").unlink()
    file = folder / "exchanges" / "part.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["ip", "asn", "country", "ja4", "prompt"]), file)
    report = probe(folder)
    assert report.leaks
    assert not {leak.family for leak in report.leaks} & {"network", "identity", "sharing"}


def test_parts_of_a_world_can_be_given_apart(tmp_path: Path) -> None:
    folder = World(tmp_path / "world", campaigns=1).write()
    log, accounts = folder / "exchanges" / "part.parquet", folder / "accounts.parquet"
    assert probe(tmp_path, log=log, accounts=accounts, truth=folder) == probe(folder)


def test_a_log_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no Parquet file there"):
        probe(world.write(), log=world.folder / "nowhere")


def test_a_log_that_is_no_log_is_named(world: World) -> None:
    folder = world.write()
    with pytest.raises(UsageError, match=r"truth\.parquet: no column exchange_id, time, model"):
        probe(folder, log=folder / "truth.parquet")


def test_a_broken_log_is_named(world: World) -> None:
    folder = world.write()
    (folder / "exchanges" / "part.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match=r"part\.parquet: cannot be read"):
        probe(folder)


def test_without_scikit_learn_it_says_how_to_get_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UsageError, match=r"hint: pip install 'stillwatch\[evaluate\]'"):
        probe(world.write())


def test_halves_split_no_campaign_and_hold_some_of_each() -> None:
    sizes = (4000, 14, 300, 120, 90, 60, 55, 50)
    codes = np.repeat(np.arange(len(sizes) + 1), (5000, *sizes))
    half = _halves(Labels(codes, tuple(map(str, sizes))), np.random.default_rng(0))
    sides = [set(half[codes == c]) for c in range(1, len(sizes) + 1)]
    assert all(len(side) == 1 for side in sides)
    assert sum(side == {0} for side in sides) == 4
    assert abs((half[codes == 0] == 0).sum() - 2500) == 0


def test_the_surest_threshold_is_the_one_that_finds_most() -> None:
    precision, recall = np.array([1.0, 0.5, 0.995, 0.98]), np.array([0.1, 0.1, 0.6, 0.9])
    assert _surest(precision, recall) == 2
    assert _surest(np.array([0.9]), np.array([1.0])) is None


def test_everything_goes_into_json_and_onto_the_screen(world: World) -> None:
    world.exchanges["user_agent"] = np.where(world.of_campaign(), "[red]bot", "app")
    report = probe(world.write())
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert "client = [red]bot" in plain["giveaways"]
    console = Console(width=140, file=StringIO())
    show(None, report, console)
    shown = console.file.getvalue()
    for words in ("client = [red]bot", "Give the campaigns away alone", "best F1", "lean most on"):
        assert words in shown
