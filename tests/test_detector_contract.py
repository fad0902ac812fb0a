"""Every detector found keeps the contract, on every engine; and the contract can be broken."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import pytest

from stillwatch import folds, ground
from stillwatch.detectors import Detector, Example, pairs, run_detector
from stillwatch.detectors._rows import inputs
from stillwatch.errors import EngineError
from stillwatch.kinds import KINDS
from stillwatch.plugins import discover
from stillwatch.store import Engine, open_engine
from stillwatch.testing import check_detector, difference, evidence, found_in

DETECTORS: dict[str, Detector] = discover("detectors")

CARDS = [("a", "card", "x"), ("b", "card", "x"), ("c", "card", "y"), ("d", "net", "x")]

SAMPLE = Detector(
    name="sample",
    family="identity",
    technique="AML.T0021",
    meaning="accounts paid for with one card",
    shape="ties",
    needs=("accounts.payment_hash",),
    params={"max_holders": 50},
    steps={
        "sample_rarity": """
            SELECT kind, value, count(*) AS holders,
                   log2((SELECT count(DISTINCT account) FROM observations) * 1.0 / count(*)) AS bits
            FROM observations WHERE kind = 'card' AND value IS NOT NULL
            GROUP BY kind, value HAVING count(*) BETWEEN 2 AND $max_holders""",
        "sample": """
            SELECT o.account AS account, o.kind AS kind, o.value AS value, r.bits AS bits, r.holders AS holders
            FROM observations o JOIN sample_rarity r ON r.kind = o.kind AND r.value = o.value""",
    },
    examples=[
        Example("one card", CARDS, pairs("ab")),
        Example("cards of their own", [("a", "card", "x"), ("b", "card", "y")]),
    ],
)
"""A detector of the tests' own, so that the machinery is exercised whatever the project's detectors are."""

BUSY = dataclasses.replace(
    SAMPLE,
    name="busy",
    shape="signals",
    params={"least": 3},
    steps={
        "busy": """
            SELECT account, CAST(sum(count) AS DOUBLE) AS bits,
                   concat(CAST(sum(count) AS VARCHAR), ' exchanges') AS exhibit
            FROM observations GROUP BY account HAVING sum(count) >= $least"""
    },
    examples=[
        Example("one is busy", [("a", "net", "n", 5), ("b", "net", "n")], {"a"}),
        Example("none is", [("a", "net", "n", 2)]),
    ],
)

TOGETHER = dataclasses.replace(
    SAMPLE,
    name="together",
    shape="links",
    params={},
    steps={
        "together": """
            SELECT l.account AS left_account, r.account AS right_account, 1.0 AS bits, 'one card' AS exhibit
            FROM observations l JOIN observations r ON r.kind = l.kind AND r.value = l.value AND l.account < r.account
            WHERE l.kind = 'card' AND (SELECT count(DISTINCT account) FROM observations) < 60"""
    },
)

ALL = {**DETECTORS, "sample": SAMPLE, "busy": BUSY, "together": TOGETHER}


def opened(name: str) -> AbstractContextManager[Engine]:
    return open_engine(name, memory="1GB", threads=1 if name == "duckdb" else 2)


def embedded() -> AbstractContextManager[Engine]:
    return opened("duckdb")


@pytest.mark.parametrize("name", ALL)
def test_detector_keeps_the_contract(name: str) -> None:
    check_detector(ALL[name], embedded)


@pytest.mark.spark
@pytest.mark.parametrize("name", ALL)
def test_examples_hold_on_the_distributed_engine(name: str) -> None:
    detector = ALL[name]
    for example in detector.examples:
        found = evidence(detector, example, lambda: opened("spark"))
        assert found_in(detector, example, found) == example.expect, example.title


def broken(steps: str = "", **changes: Any) -> Detector:
    """The sample with another last step, or other fields."""
    if steps:
        changes["steps"] = {**SAMPLE.steps, "sample": steps}
    return dataclasses.replace(SAMPLE, **changes)


LAST = SAMPLE.steps["sample"]


@pytest.mark.parametrize(
    ("detector", "fault"),
    [
        (broken(examples=[Example("one card", CARDS, pairs("abc")), SAMPLE.examples[1]]), r"missed \[\('a', 'c'\)"),
        (broken(examples=[SAMPLE.examples[0], Example("honest", CARDS)]), r"found besides \[\('a', 'b'\)\]"),
        (broken(LAST.replace("r.bits AS", "nullif(r.bits, r.bits) AS")), "null, negative or not finite"),
        (broken(LAST.replace("r.bits AS", "0 - r.bits AS")), "null, negative or not finite"),
        (broken(LAST.replace("r.bits AS", "CAST('inf' AS DOUBLE) AS")), "null, negative or not finite"),
        (broken(LAST.replace("o.value AS", "nullif(o.value, o.value) AS")), "value is null"),
        (broken(LAST.replace("r.holders AS", "1 AS")), "fewer holders than ties"),
        (broken(LAST + " CROSS JOIN (SELECT 1 AS twice UNION SELECT 2 AS twice) t"), "a tie is there twice"),
        (broken(LAST.replace("AS kind", "AS sort")), "yields account, sort"),
        (broken(LAST.replace("r.bits", "r.bits + 20"), params={"max_holders": 100}), "bits for what everybody shares"),
        (broken("SELECT 1 AS account, 'card' AS kind, 1 AS value, 1.0 AS bits, 9 AS holders WHERE $max_holders > 1",
                examples=[SAMPLE.examples[1], Example("a false one", CARDS, pairs("ab"))]), "found besides|missed"),
        (dataclasses.replace(BUSY, steps={"busy": BUSY.steps["busy"].replace("' exchanges'", "''").replace(
            "CAST(sum(count) AS VARCHAR)", "''")}), "an exhibit is empty"),
        (dataclasses.replace(TOGETHER, steps={"together": TOGETHER.steps["together"].replace("<", ">")}), "missed"),
        (dataclasses.replace(TOGETHER, steps={"together": TOGETHER.steps["together"].replace("< 60", "< 61").replace(
            "1.0 AS", "3.0 AS")}), "3.0 bits for what everybody shares"),
    ],
)  # fmt: skip
def test_a_broken_detector_is_caught(detector: Detector, fault: str) -> None:
    with pytest.raises((AssertionError, EngineError), match=fault):
        check_detector(detector, embedded)


def test_a_detector_that_needs_an_order_of_rows_is_caught() -> None:
    many = [(a, "card", "x") for a in "abcdefgh"]
    first = """
        SELECT account, kind, value, 1.0 AS bits, 2 AS holders FROM (
            SELECT account, kind, value, row_number() OVER () AS place FROM observations) numbered
        WHERE place <= 2 AND place < $max_holders"""
    ordered = broken(first, examples=[Example("the first two", many, pairs("ab")), Example("none", [])])
    with pytest.raises(AssertionError, match="order of rows"):
        check_detector(ordered, embedded, shuffles=3)


def test_overrides_reach_the_steps_and_unknown_ones_are_refused() -> None:
    with embedded() as engine:
        for name, table in inputs(SAMPLE.examples[0]).items():
            engine.append(name, table)
        assert run_detector(engine, SAMPLE).num_rows == 2
        assert run_detector(engine, SAMPLE, {"max_holders": 1}).num_rows == 0
        with pytest.raises(EngineError, match="max_holder"):
            run_detector(engine, SAMPLE, {"max_holder": 1})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "Sample"}, "lower-case"),
        ({"family": "geography"}, "family 'geography'"),
        ({"technique": "T1078"}, "no ATLAS id"),
        ({"shape": "groups"}, "shape 'groups'"),
        ({"meaning": " "}, "meaning is empty"),
        ({"needs": ("accounts.iban",)}, "accounts.iban"),
        ({"steps": {}}, "no steps"),
        ({"steps": {"other": LAST}}, "must be called 'sample'"),
        ({"steps": {"sample": "WITH x AS (SELECT 1) SELECT $max_holders FROM x"}}, "WITH"),
        ({"steps": {"sample": "SELECT $max_holders; DROP TABLE facts"}}, "more than one statement"),
        ({"steps": {"sample": "DELETE FROM facts WHERE account > $max_holders"}}, "start with SELECT"),
        ({"steps": {"sample": "SELECT {kind}, $max_holders"}}, "braces"),
        ({"params": {}}, r"\$max_holders is not in params"),
        ({"params": {"max_holders": 1, "idle": 2}}, r"no step reads \$idle"),
        ({"examples": SAMPLE.examples[:1]}, "honest customers"),
        ({"examples": SAMPLE.examples[1:]}, "no example finds"),
    ],
)
def test_a_detector_that_cannot_be_is_refused(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        dataclasses.replace(SAMPLE, **change)


@pytest.mark.parametrize(
    ("rows", "tables", "fault"),
    [
        ([("a", "card")], {}, "3 to 6 fields"),
        ([], {"homes": []}, "no such table: homes"),
        ([("a", "card", None)], {}, "lacks 'value'"),
        ([], {"facts": [{"account": "a", "colour": 1}]}, "colour"),
    ],
)
def test_an_example_that_cannot_be_is_refused(rows: list[Any], tables: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        inputs(Example("wrong", rows, tables=tables))


def test_words_in_quotes_and_comments_are_no_sql() -> None:
    quiet = LAST + " WHERE o.kind <> 'with; $nothing {}' -- WITH; $this"
    assert dataclasses.replace(SAMPLE, steps={**SAMPLE.steps, "sample": quiet}).params == {"max_holders": 50}


def small_log(seed: int) -> Example:
    """A ring of eight with cards in pairs, one wording and the same hours, among forty others; gaps everywhere."""
    rng = np.random.default_rng(seed)
    ring, crowd = [f"r{k}" for k in range(8)], [f"o{k:02}" for k in range(40)]
    facts = [
        {"account": a, "time": 60 * h + 3 * k, "wording": "w", "prompt": f"p{(k // 2 + h) % 12}", "net": f"n{k % 2}",
         "elicitation": 0.9, "tls": "all", "client": None, "country": f"c{k % 2}", "system": f"s{k % 2}", "model": 1,
         "capability": k % 3, "slot": h // 6, "input_tokens": 40 + h}
        for k, a in enumerate(ring) for h in range(3, 90, 6)
    ]  # fmt: skip
    for k, a in enumerate(crowd):
        facts += [
            {"account": a, "time": int(t), "wording": f"v{rng.integers(6)}", "prompt": f"q{rng.integers(400)}",
             "net": rng.choice([None, f"m{k // 3}"]), "elicitation": rng.choice([None, 0.0, 0.1]), "tls": "all",
             "client": rng.choice([None, "kit"]), "country": rng.choice([None, "c1", "c2"]), "model": int(t > 4000),
             "capability": rng.choice([None, 2, 10]), "slot": int(t) // 360, "input_tokens": rng.choice([None, 7])}
            for t in rng.integers(0, 5400, 12)
        ]  # fmt: skip
    accounts = [{"account": a, "card": f"x{k // 2}", "mail_domain": "d", "created_at": k} for k, a in enumerate(ring)]
    accounts += [
        {"account": a, "card": rng.choice([None, f"y{k // 2}"]), "mail_domain": rng.choice([None, "d", "e"]),
         "created_at": rng.choice([None, 300 * k]), "customer": crowd[k - k % 2 if k < 10 else k]}
        for k, a in enumerate(crowd)
    ]  # fmt: skip
    models = [{"model": 0, "released_at": None}, {"model": 1, "released_at": 180}]
    return Example("small log", [], tables={"facts": facts, "accounts": accounts, "models": models})


@pytest.fixture(scope="module", params=[1, 2])
def engines(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Engine]]:
    """Both engines on one log, folded and prepared."""
    tables = inputs(small_log(request.param))
    del tables["observations"]
    with ExitStack() as stack:
        both = stack.enter_context(opened("duckdb")), stack.enter_context(opened("spark"))
        for engine in both:
            for name, table in tables.items():
                engine.append(name, table)
            folds.fold(engine)
            folds.prepare(engine)
        yield both


@pytest.mark.spark
def test_engines_agree_on_what_detectors_stand_on(engines: tuple[Engine, Engine]) -> None:
    for table in ("observations", *folds.BASE_STEPS):
        left, right = (engine.rows(table) for engine in engines)
        assert not difference(left, right), table
    assert engines[0].rows("SELECT count(*) AS n FROM observations").to_pylist()[0]["n"] > len(KINDS)


@pytest.mark.spark
@pytest.mark.parametrize("name", ALL)
def test_engines_agree_on_the_evidence(engines: tuple[Engine, Engine], name: str) -> None:
    left, right = (run_detector(engine, ALL[name]) for engine in engines)
    assert not difference(left, right)


@pytest.mark.spark
def test_engines_agree_on_what_traits_stand_on(engines: tuple[Engine, Engine]) -> None:
    for engine in engines:
        for name, sql in ground.STEPS.items():
            engine.step(name, sql, {})
    for table in ground.STEPS:
        left, right = (engine.rows(table) for engine in engines)
        assert left.num_rows, table
        assert not difference(left, right), table


def test_the_small_log_makes_detectors_speak() -> None:
    """Two engines that both find nothing agree on nothing."""
    tables = inputs(small_log(1))
    del tables["observations"]
    with embedded() as engine:
        for name, table in tables.items():
            engine.append(name, table)
        folds.fold(engine)
        folds.prepare(engine)
        silent = [name for name, detector in ALL.items() if not run_detector(engine, detector).num_rows]
    assert len(silent) <= len(ALL) / 2, silent
