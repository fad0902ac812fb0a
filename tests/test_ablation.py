"""A family of evidence taken out: nobody sees anything of it, and everything else is as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fixtures_engine import town, weights_of
from stillwatch import folds, weighing
from stillwatch.config import Config
from stillwatch.evaluation.families import OF_NONE, READ, WHOLE, blank, deaf, emptied, judged_without, muted, traits_of
from stillwatch.evidence import Holdings
from stillwatch.ground import Ground
from stillwatch.kinds import KINDS
from stillwatch.pipeline import Log, scan
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.simulate import default_world, parse_campaign, simulate
from stillwatch.tables import FACTS, PROFILES
from stillwatch.traits import traits
from stillwatch.types import FAMILIES
from stillwatch.weighing import TRAITS

KEPT = {
    "facts": {"account", "time", "model", "exchange", "channel", "end_user", "conversation", "status"},
    "accounts": {"account", "customer"},
}
"""Columns that say who asked, when and of what model, or that nobody takes for evidence."""


def test_every_column_is_of_one_family_or_of_none() -> None:
    for name, table in (("facts", FACTS), ("accounts", PROFILES)):
        read = [c for tables in READ.values() for c in tables.get(name, ())]
        assert len(read) == len(set(read))
        assert set(read) | KEPT[name] == set(table.names) and not set(read) & KEPT[name]
    assert all(kind.column in READ[kind.family][kind.table] for kind in KINDS.values())


def test_every_trait_is_of_one_family_or_of_none() -> None:
    told = [t for family in FAMILIES for t in traits_of(family)]
    assert len(told) == len(set(told)) and set(told) | set(OF_NONE) >= set(TRAITS)
    assert set(READ) == set(FAMILIES)
    for name, family in (("share_card", "identity"), ("dispatch", "template"), ("hours", "tempo"), ("read", "content"),
                         ("bits_net", "network"), ("moved", "migration"), ("payers", "identity")):  # fmt: skip
        assert name in traits_of(family)


@pytest.mark.parametrize("family", [WHOLE, *FAMILIES])
def test_what_is_blank_is_held_by_nobody_and_the_rest_as_before(family: str) -> None:
    made = town(strangers=150)
    with made.log.opened() as engine:
        before = Holdings.load(engine, len(made.log.accounts))
        for table in ("facts", "accounts", "models"):
            engine.step(f"whole_{table}", f"SELECT * FROM {table}", {})
        schemas = {t: engine.rows(f"whole_{t}").schema for t in ("facts", "accounts", "models")}
        blank(engine, family)
        assert {t: engine.rows(t).schema for t in schemas} == schemas
        folds.fold(engine)
        folds.prepare(engine)
        after = Holdings.load(engine, len(made.log.accounts))
        found = traits(Ground.load(engine, after), made.clusters["campaign"])
    kinds = np.array([k.family for k in KINDS.values()])
    kept = kinds[before.kind] != family
    assert np.array_equal(before.value[kept], after.value) and np.array_equal(before.holders[kept], after.holders)
    assert all(np.isfinite(value) for value in found.values())


def test_weights_are_deaf_to_a_family() -> None:
    loud = weights_of(1.0, **dict.fromkeys(TRAITS, 1.0))
    loud = dataclasses.replace(loud, centre=np.full(len(TRAITS), 0.5))
    usual = dict.fromkeys(TRAITS, 0.5)
    for family in FAMILIES:
        silent = muted(loud, family)
        for name in TRAITS:
            changed = usual | {name: 1.5}
            assert (silent.total(changed) == silent.total(usual)) == (name in traits_of(family)), name
            assert loud.total(changed) != loud.total(usual)


def test_weights_hear_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights_of(1.0, share_card=1.0)
    monkeypatch.setattr(weighing, "weights", lambda: whole)
    with deaf("identity"):
        assert weighing.weights() is not whole
    with deaf(WHOLE):
        assert weighing.weights() is whole
    assert weighing.weights() is whole


def test_models_without_migration_are_none() -> None:
    assert emptied("models", ()).endswith("whole_models") and emptied("models", ("released_at",)).endswith("1 = 0")


def test_the_whole_is_what_a_scan_finds_and_order_does_not_matter(tmp_path: Path) -> None:
    plans = (parse_campaign("tagged_traces:60"),)
    simulate(default_world(2, accounts=900, exchanges=24_000, campaigns=plans), tmp_path)
    log = Log(tmp_path / "exchanges", tmp_path / "accounts.parquet", tmp_path / "models.csv")
    key = Privacy(b"a key for tests, and for nothing else, of 32 bytes")
    with Progress(quiet=True) as progress:
        scanned, _ = scan(log, Config(), key, progress)
    found = list(judged_without(log, ("identity", WHOLE, "migration"), Config(), key))
    assert [family for family, _ in found] == ["identity", WHOLE, "migration"]
    assert found[1][1].accounts.equals(scanned.accounts)
    assert not any("migration" in c.evidence or c.pivot for c in found[2][1].campaigns)
    assert not any("identity" in c.evidence for f in found[:1] for c in (*f[1].campaigns, *f[1].review) if c.evidence)
