"""The contract's files: exact shapes, whole or absent."""

import json
import os
import resource
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fixtures_findings as made
from stillwatch import results
from stillwatch.findings import ACCOUNTS_SCHEMA, CLEARED_AT, Findings, accounts_table
from stillwatch.types import CAPABILITIES, Axis

CONTRACT = {
    "campaign_id": str, "accounts": int, "exchanges": int, "first_seen": str, "last_seen": str,
    "detected_at": (str, type(None)), "confidence": float, "q_value": float, "capabilities": dict, "evidence": dict,
    "models": list, "pivot": (dict, type(None)), "summary": str,
}  # fmt: skip


@pytest.fixture(scope="module")
def few() -> Findings:
    return made.few()


@pytest.fixture(scope="module")
def out(few: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("result") / "new" / "folder"
    results.write(few, made.run(), folder)
    return folder


def load(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def test_exactly_the_files_of_the_contract(out: Path) -> None:
    assert sorted(p.name for p in out.iterdir()) == [
        "accounts.parquet",
        "campaigns.json",
        "report.html",
        "review.json",
        "run.json",
    ]


def test_accounts_have_the_contracts_columns_and_one_row_each(out: Path, few: Findings) -> None:
    table = pq.read_table(out / "accounts.parquet")
    assert table.schema.equals(ACCOUNTS_SCHEMA)
    assert [str(t) for t in table.schema.types[:4]] == ["string", "string", "double", "timestamp[us, tz=UTC]"]
    assert str(table.schema.types[4]) == "list<element: struct<family: string, bits: double, text: string>>"
    rows = {r["account_id"]: r for r in table.to_pylist()}
    assert len(rows) == table.num_rows
    for campaign in few.campaigns:
        for m in campaign.members:
            row = rows[m.account_id]
            assert row["campaign_id"] == campaign.campaign_id
            assert row["risk"] == m.risk
            assert [r["family"] for r in row["reasons"]] == [r.family for r in m.reasons]
    held = rows[few.review[0].members[0].account_id]
    assert held["campaign_id"] is None and held["risk"] > 0.5 and held["reasons"]
    honest = rows["acct_honest_00007"]
    assert (honest["campaign_id"], honest["risk"], honest["first_flagged_at"], honest["reasons"]) == (
        None,
        0.0,
        None,
        [],
    )
    let_go = rows[few.let_go[0].members[0].account_id]
    assert (let_go["campaign_id"], let_go["risk"], let_go["reasons"]) == (None, 0.0, [])


def test_campaigns_and_review_have_the_contracts_shape(out: Path, few: Findings) -> None:
    for name, expected in (("campaigns.json", few.campaigns), ("review.json", few.review)):
        listed = load(out / name)
        assert [c["campaign_id"] for c in listed] == [c.campaign_id for c in expected]
        for shown, campaign in zip(listed, expected):
            assert list(shown) == list(CONTRACT)
            assert all(isinstance(shown[key], kind) for key, kind in CONTRACT.items())
            assert shown["accounts"] == len(campaign.members)
            assert set(shown["capabilities"]) <= set(CAPABILITIES)
            assert sum(shown["capabilities"].values()) == pytest.approx(1, abs=0.001)
            assert list(shown["evidence"].values()) == sorted(shown["evidence"].values(), reverse=True)
    pivots = [c["pivot"] for c in load(out / "campaigns.json")]
    assert pivots == [None, {"model": "aster-5", "share_24h": 0.513, "benign_share_24h": 0.064}, None]
    assert load(out / "campaigns.json")[0]["first_seen"] == "2026-03-02T03:00:00Z"


def test_run_tells_how_it_was_made(out: Path) -> None:
    told = load(out / "run.json")
    assert told["version"] == "0.1.0"
    assert told["settings"]["engine"] == "duckdb"
    assert told["rows"] == {
        "exchanges_read": 1_204_643, "exchanges_kept": 1_204_331, "exchanges_rejected": 312, "accounts": 12_431,
        "models": 3,
    }  # fmt: skip
    assert told["rejected"] == {
        "time is no time: 'soon'": 212, "no account_id": 97, "exchange_id seen before, with other content": 3,
    }  # fmt: skip
    assert told["rejects"][0]["place"] == "log/day-03.ndjson:1841"
    assert told["timings"]["detect"] == {"wall_s": 15.8, "cpu_s": 27.0}
    assert told["peak_memory_bytes"] == 1_310_000_000
    assert told["blind"] == made.BLIND
    assert told["found"] == {"campaigns": 3, "accounts_in_campaigns": 1915, "review": 2, "let_go": 4}


def test_a_clean_log_gives_empty_lists(tmp_path: Path) -> None:
    results.write(made.none(), made.run(rejects=(), blind={}), tmp_path)
    assert load(tmp_path / "campaigns.json") == [] == load(tmp_path / "review.json")
    assert pq.read_table(tmp_path / "accounts.parquet")["campaign_id"].null_count == 200 + 240 + 38


def test_the_same_findings_give_the_same_files(out: Path, few: Findings, tmp_path: Path) -> None:
    results.write(few, made.run(), tmp_path)
    assert all((tmp_path / p.name).read_bytes() == p.read_bytes() for p in out.iterdir())


def test_settings_of_any_kind_can_be_written(tmp_path: Path) -> None:
    settings = {
        "log": Path("a/b"),
        "kinds": {"y", "x"},
        "since": datetime(2026, 1, 1, tzinfo=UTC),
        "deep": {"pair": (1, 2)},
    }
    results.write(made.none(), made.run(settings=settings), tmp_path)
    assert load(tmp_path / "run.json")["settings"] == {
        "log": "a/b", "kinds": ["x", "y"], "since": "2026-01-01T00:00:00Z", "deep": {"pair": [1, 2]},
    }  # fmt: skip


def test_a_failure_leaves_nothing_half_written(few: Findings, tmp_path: Path) -> None:
    broken = replace(few.campaigns[0], capabilities={"telepathy": 1.0})
    with pytest.raises(ValueError, match="telepathy"):
        results.write(replace(few, campaigns=(broken, *few.campaigns[1:])), made.run(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_earlier_result_whole(few: Findings, tmp_path: Path) -> None:
    results.write(made.none(), made.run(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    unjson = made.run(settings={"x": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        results.write(few, unjson, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_earlier_result_whole(few: Findings, tmp_path: Path) -> None:
    results.write(made.none(), made.run(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            results.write(few, made.run(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_ctrl_c_leaves_nothing(few: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.write(few, made.run(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_moved_in_part_are_not_taken_for_a_whole_result(
    few: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.write(made.none(), made.run(), tmp_path)
    move = os.replace

    def fail_at_the_report(source: Path, target: Path) -> None:
        if Path(target).name == "report.html":
            raise OSError("disk gone")
        move(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_report)
    with pytest.raises(OSError, match="disk gone"):
        results.write(few, made.run(), tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_files_can_be_read_by_others_as_the_umask_allows(out: Path) -> None:
    assert {stat.S_IMODE(p.stat().st_mode) & 0o400 for p in out.iterdir()} == {0o400}


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, 0.0), (1.0, 1.0), (0.99999, 0.9999), (0.00001, 0.0001), (0.98765, 0.9877)]
)
def test_probabilities_are_never_rounded_to_certainty(value: float, shown: float) -> None:
    assert results.probability(value) == shown


def test_small_q_values_survive(few: Findings) -> None:
    assert results.campaign_json(replace(few.campaigns[0], q_value=3.21987e-19))["q_value"] == 3.22e-19


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        results.iso(datetime(2026, 1, 1))


def test_fractions_of_a_second_and_other_zones_become_utc() -> None:
    assert results.iso(datetime.fromisoformat("2026-03-01T01:30:00.25+02:00")) == "2026-02-28T23:30:00.250000Z"


class TestFindings:
    def test_refuse_an_account_twice(self) -> None:
        table = accounts_table(pa.array(["a", "a"]), [])
        with pytest.raises(ValueError, match="more than one row"):
            Findings((), (), (), table)

    def test_refuse_other_columns(self) -> None:
        with pytest.raises(ValueError, match="contract's columns"):
            Findings((), (), (), pa.table({"account_id": ["a"]}))

    def test_refuse_a_member_that_was_never_seen(self, few: Findings) -> None:
        table = accounts_table(pa.array([few.campaigns[0].members[0].account_id]), few.campaigns)
        with pytest.raises(ValueError, match="1 accounts carry a campaign_id"):
            Findings(few.campaigns, (), (), table)

    def test_take_the_extra_column_of_a_replay(self, few: Findings) -> None:
        table = few.accounts.append_column(CLEARED_AT, pa.nulls(few.accounts.num_rows, CLEARED_AT.type))
        assert Findings(few.campaigns, (), (), table).accounts.num_rows == few.accounts.num_rows


def test_accounts_table_keeps_order_and_takes_chunks() -> None:
    campaign = made.campaign(made.SHAPES[2])
    member = campaign.members[3].account_id
    at = datetime(2026, 3, 5, tzinfo=UTC)
    seen = pa.chunked_array([["z", member], ["b"]])
    table = accounts_table(seen, [campaign], flagged_at={member: at}, base_risk=0.01)
    assert table["account_id"].to_pylist() == ["z", member, "b"]
    assert table["campaign_id"].to_pylist() == [None, campaign.campaign_id, None]
    assert table["first_flagged_at"].to_pylist() == [None, at, None]
    assert table["risk"].to_pylist() == [0.01, campaign.members[3].risk, 0.01]


def test_accounts_table_of_no_account_is_empty() -> None:
    assert accounts_table(pa.array([], pa.string()), []).schema.equals(ACCOUNTS_SCHEMA)


def test_axes_of_the_fixture_are_those_of_the_types(few: Findings) -> None:
    assert set(few.campaigns[0].bits) == set(Axis)
