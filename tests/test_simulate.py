"""The simulator keeps its promises: the canonical form, seeded, and what was planned is there."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stillwatch.errors import UsageError
from stillwatch.simulate import (
    POPULATIONS,
    PRESETS,
    CampaignPlan,
    Summary,
    World,
    default_world,
    parse_campaign,
    presets,
    simulate,
)
from stillwatch.simulate.grammar import Seeds, compile_rules, mix, read_rules
from stillwatch.simulate.prompts import frame, own_rules
from stillwatch.tables import ACCOUNTS, EXCHANGES, TRUTH

SMALL = World(
    seed=5, accounts=2600, exchanges=60_000,
    campaigns=(
        presets("tagged_traces", 60, 0.7), presets("hydra_proxy", 40), presets("agentic_pivot", 80, 0.2),
        presets("four_requests", 150),
    ),
)  # fmt: skip
LISTS = ("benchmark_runners", "public_kit_users")


class Log:
    """A finished log, its tables joined by exchange."""

    def __init__(self, out: Path, summary: Summary) -> None:
        self.out, self.summary = out, summary
        self.parts = sorted((out / "exchanges").glob("*.parquet"))
        self.exchanges = pa.concat_tables([pq.read_table(p) for p in self.parts])
        self.accounts = pq.read_table(out / "accounts.parquet")
        self.truth = pq.read_table(out / "truth.parquet")
        kinds = pq.read_table(out / "truth_exchanges.parquet")
        self.joined = self.exchanges.select(["exchange_id", "account_id", "time", "model", "prompt", "ip"])
        self.joined = self.joined.append_column("distillation", kinds["distillation"])
        self.joined = self.joined.join(self.truth, "account_id")
        self.kinds = kinds

    def models(self) -> dict[str, str]:
        rows = csv.DictReader((self.out / "models.csv").read_text().splitlines())
        return {row["model"]: row["released_at"] for row in rows}

    def of(self, population: str) -> pa.Table:
        return self.joined.filter(pc.equal(self.joined["population"], population))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    out = tmp_path_factory.mktemp("log")
    return Log(out, simulate(SMALL, out))


def test_schemas_are_exactly_the_canonical_ones(log: Log) -> None:
    assert all(pq.read_schema(p).equals(EXCHANGES.schema) for p in log.parts)
    assert log.accounts.schema.equals(ACCOUNTS.schema)
    assert log.truth.schema.equals(TRUTH.schema)
    models = log.models()
    assert set(models) == set(pc.unique(log.exchanges["model"]).to_pylist())
    assert all(released_at.endswith("+00:00") for released_at in models.values())


def test_ids_are_unique_and_truth_covers_everything(log: Log) -> None:
    assert pc.count_distinct(log.exchanges["exchange_id"]).as_py() == len(log.exchanges)
    assert log.kinds["exchange_id"].equals(log.exchanges["exchange_id"])
    seen = set(log.exchanges["account_id"].to_pylist())
    assert seen == set(log.truth["account_id"].to_pylist()) == set(log.accounts["account_id"].to_pylist())
    assert len(log.accounts) == SMALL.accounts
    assert abs(len(log.exchanges) / SMALL.exchanges - 1) < 0.05


def test_exchanges_are_in_order_within_the_log_and_after_sign_up(log: Log) -> None:
    times = log.exchanges["time"].cast(pa.int64()).to_numpy()
    start = int(SMALL.start.timestamp() * 1e6)
    assert (np.diff(times) >= 0).all()
    assert start <= times[0] and times[-1] < start + SMALL.days * 86_400_000_000
    joined = log.exchanges.select(["account_id", "time"]).join(
        log.accounts.select(["account_id", "created_at"]), "account_id"
    )
    assert pc.all(pc.greater_equal(joined["time"], joined["created_at"])).as_py()


def test_every_population_and_campaign_is_there(log: Log) -> None:
    honest = log.truth.filter(pc.is_null(log.truth["campaign_id"]))
    assert set(honest["population"].to_pylist()) == set(POPULATIONS)
    assert Counter(honest["population"].to_pylist()) == log.summary.populations
    planted = Counter(c for c in log.truth["campaign_id"].to_pylist() if c)
    assert planted == {c.campaign_id: c.accounts for c in log.summary.campaigns}
    assert json.loads((log.out / "world.json").read_text())["campaigns"][0]["shape"] == "tagged_traces"


def test_only_campaigns_hold_distillation_queries_and_camouflage_is_as_planned(log: Log) -> None:
    assert not pc.any(log.joined.filter(pc.is_null(log.joined["campaign_id"]))["distillation"]).as_py()
    for plan in SMALL.campaigns:
        share = pc.mean(log.of(plan.shape)["distillation"].cast(pa.int8())).as_py()
        assert share == pytest.approx(1 - plan.ordinary, abs=0.06), plan.shape
    capability = log.kinds.filter(log.kinds["distillation"])["capability"]
    assert capability.null_count == 0
    assert log.kinds.filter(pc.invert(log.kinds["distillation"]))["capability"].null_count > 0


def test_four_requests_are_about_four(log: Log) -> None:
    counts = Counter(log.of("four_requests")["account_id"].to_pylist())
    assert 3.2 < np.mean(list(counts.values())) < 4.8


def test_banned_heads_are_replaced(log: Log) -> None:
    """Three generations: most heads of the first are gone before most of the last appear."""
    rows = log.of("tagged_traces")
    spans = rows.group_by("account_id").aggregate([("time", "min"), ("time", "max")])
    first, last = (spans[c].cast(pa.int64()).to_numpy() for c in ("time_min", "time_max"))
    assert np.quantile(last, 0.15) < np.quantile(first, 0.85)


def test_a_pivot_moves_queries_within_a_day(log: Log) -> None:
    release = np.datetime64(log.models()["cedar-3"].removesuffix("+00:00"), "us").astype(np.int64)

    def share(rows: pa.Table) -> float:
        times = rows["time"].cast(pa.int64()).to_numpy()
        day = rows.filter(pa.array((times >= release) & (times < release + 86_400_000_000)))
        return float(pc.mean(pc.equal(day["model"], "cedar-3").cast(pa.int8())).as_py())

    assert not pc.any(pc.equal(log.joined.filter(pc.less(
        log.joined["time"].cast(pa.int64()), int(release)))["model"], "cedar-3")).as_py()  # fmt: skip
    honest = log.joined.filter(pc.is_null(log.joined["campaign_id"]))
    assert share(log.of("agentic_pivot")) > 1.8 * share(honest)


def test_honest_people_seldom_repeat_each_other(log: Log) -> None:
    """Word for word, across accounts, beside lists that are public."""
    honest = log.joined.filter(pc.is_null(log.joined["campaign_id"]))
    private = honest.filter(pc.invert(pc.is_in(honest["population"], pa.array(LISTS))))
    askers = private.group_by("prompt").aggregate([("account_id", "count_distinct"), ("account_id", "count")])
    shared = askers.filter(pc.greater(askers["account_id_count_distinct"], 1))
    assert pc.sum(shared["account_id_count"]).as_py() < 0.03 * len(private)
    runners = log.of("benchmark_runners").group_by("prompt").aggregate([("account_id", "count_distinct")])
    assert pc.max(runners["account_id_count_distinct"]).as_py() > 1


def test_a_fixed_wording_is_shared_and_a_paraphrased_one_is_not(tmp_path: Path) -> None:
    def most_common_opening(wording: str) -> float:
        plan = replace(presets("tagged_traces", 40, 0.0), wording=wording, follow_ups=0.0)
        out = tmp_path / wording
        found = Log(out, simulate(World(3, 400, 8000, campaigns=(plan,)), out)).of("tagged_traces")
        words = Counter(" ".join(p.split()[:8]) for p in found["prompt"].to_pylist())
        return sum(n for _, n in words.most_common(2)) / len(found)

    assert most_common_opening("fixed") > 3 * most_common_opening("paraphrased")


def test_cards_are_shared_by_honest_accounts_too(log: Log) -> None:
    cards = log.accounts.join(log.truth, "account_id").filter(pc.is_valid(log.accounts["payment_hash"]))
    holders = Counter(cards["payment_hash"].to_pylist())
    honest = [c for c, k in zip(cards["payment_hash"].to_pylist(), cards["campaign_id"].to_pylist()) if k is None]
    assert 0.15 < np.mean([holders[c] > 1 for c in honest]) < 0.6


def test_equal_settings_give_an_equal_log_and_another_seed_another(tmp_path: Path) -> None:
    world = World(9, 300, 3000, campaigns=(presets("small_ring"),))
    tables = []
    for name, settings in (("a", world), ("b", world), ("c", replace(world, seed=10))):
        simulate(settings, tmp_path / name)
        tables.append([pq.read_table(tmp_path / name / t) for t in ("exchanges", "accounts.parquet", "truth.parquet")])
    assert all(x.equals(y) for x, y in zip(tables[0], tables[1]))
    assert not tables[0][1].equals(tables[2][1])
    assert not set(tables[0][0]["prompt"].to_pylist()) & {
        p for p in tables[2][0]["prompt"].to_pylist() if len(p) > 60
    }  # fmt: skip


def test_a_new_log_replaces_the_old_one_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    simulate(World(1, 300, 3000), tmp_path)
    simulate(World(2, 300, 2000), tmp_path, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == len(pq.read_table(tmp_path / "exchanges"))
    assert not (tmp_path / ".partial").exists()


def _prompts_folder(folder: Path) -> Path:
    folder.mkdir()
    rows = [
        {"source": "org/set", "kind": kind, "task": task, "template": template,
         "prompt": f"Quixotic {task} text {i}. The second <sentence> has {i} words \\ and an end."}
        for kind, task, template in (
            ("benign", "chat", ""), ("benign", "coding", ""), ("benign", "eval_harness", ""),
            ("distill", "math_reasoning", "Zephyrous wrapper: {question} END"), ("distill", "chat", ""),
        )
        for i in range(40)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    return folder


def test_real_prompts_are_woven_in(tmp_path: Path) -> None:
    plan = CampaignPlan("ring", 20, {"math_reasoning": 1.0}, wording="fixed", camouflage=0.0, follow_ups=0)
    worlds = [World(s, 400, 6000, campaigns=(plan,), prompts=_prompts_folder(tmp_path / f"p{s}")) for s in (1, 2, 3)]
    prompts = []
    for world in worlds:
        simulate(world, tmp_path / f"o{world.seed}")
        prompts += pq.read_table(tmp_path / f"o{world.seed}" / "exchanges")["prompt"].to_pylist()
    assert sum("Quixotic chat" in p for p in prompts) > 100
    assert any("<sentence> has" in p and "\\ and" in p for p in prompts)
    assert any("Zephyrous wrapper: Quixotic math_reasoning" in p and p.rstrip().endswith("END") for p in prompts)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no prompts in"):
        simulate(World(1, 300, 2000, prompts=tmp_path), tmp_path / "out")
    with pytest.raises(UsageError, match="cannot read traces"):
        simulate(World(1, 300, 2000, traces=tmp_path), tmp_path / "out")


def test_a_template_is_filled_or_left_alone() -> None:
    assert frame("Q: {question}\nA:", "why") == ("Q: ", "\nA:")
    assert frame("Q: {question}\nA:", "Q: why\nA:") == ("", "")
    assert frame("Do this.", "why") == ("Do this.\n\n", "")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nonsense", "no campaign shape 'nonsense'"), ("small_ring:many", "accounts is 'many'"),
        ("small_ring:14:2", "between 0 and 0.9"), ("small_ring:1", "at least 2 accounts"),
        ("small_ring:14:0.5:9", "too many parts"), ("small_ring,colour=red", "no knob 'colour'"),
        ("small_ring,wording=loud", "wording is 'loud'"),
    ],
)  # fmt: skip
def test_bad_campaigns_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_campaign(spec)


def test_campaign_specs() -> None:
    plan = parse_campaign("tagged_traces:400:0.7,wording=paraphrased,generations=2")
    assert (plan.accounts, plan.camouflage, plan.wording, plan.generations) == (400, 0.7, "paraphrased", 2)
    assert all(parse_campaign(shape) == preset.plan and preset.meaning for shape, preset in PRESETS.items())


def test_worlds_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="leave too few"):
        World(accounts=210, campaigns=(presets("small_ring"),))
    with pytest.raises(UsageError, match="fewer than 4"):
        World(accounts=1000, exchanges=2000)
    with pytest.raises(UsageError, match="unknown population"):
        World(populations={"martians": 1})
    assert default_world(1, 20_000, campaigns=()).campaigns == ()
    sizes = [c.accounts for c in default_world(1, 60_000).campaigns]
    assert min(sizes) == 14 and max(sizes) == 4000


def test_grammar_scopes() -> None:
    grammar = compile_rules(
        read_rules("[a]\n<w@o> <w@c> <w@v> <#1-1000000>\n[w]\n" + "\n".join(f"w{i}" for i in range(500)))
    )
    row = np.arange(6, dtype=np.uint64)
    seeds = Seeds(mix(row), mix(row // 3), mix(row * 0), mix(row % 2))
    texts = [t.split() for t in grammar.render(np.array([0, 0, 0, 0, 0, -1], np.int32), seeds).to_pylist()[:5]]
    owner, talk, variant, number = zip(*texts)
    assert len(set(owner)) == 1 and len(set(number)) == 5
    assert talk[0] == talk[1] == talk[2] != talk[3]
    assert variant[0] == variant[2] != variant[1]


def test_broken_grammars_say_where() -> None:
    with pytest.raises(UsageError, match="x:1: an alternative before"):
        read_rules("oops", "x")
    with pytest.raises(UsageError, match=r"\[a\] names a section that is not there: <nope>"):
        compile_rules({"a": ["<nope>"]})
    with pytest.raises(UsageError, match="has no section"):
        compile_rules(own_rules()).symbol("nope")
