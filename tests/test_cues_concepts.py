"""Concepts that stand near each other: wordings nobody has seen are read by what they say; ordinary chat is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.errors import UsageError
from stillwatch.fingerprints import observe
from stillwatch.fingerprints._cues import CLASSES, class_index, compile_cues
from stillwatch.fingerprints._scan import scan
from stillwatch.privacy import Privacy, spans
from stillwatch.tables import EXCHANGES
from stillwatch.types import ELICITATIONS

PRIVACY = Privacy(b"a key for the tests of concepts")
KEYS = np.concatenate([PRIVACY.keys("text"), PRIVACY.keys("shingle")])
CONCEPTS = {"show": ["show", "zeige"], "reason": ["reasoning", "推理", "train of thought"], "answer": ["answer"],
            "both": ["reasoning", "medal"], "prize": ["medal"]}  # fmt: skip


def table(*rules: Sequence[Any], concepts: dict[str, list[str]] | None = None, name: str = "pretext") -> dict[str, Any]:
    """A cue table of nothing but rules."""
    empty: dict[str, Any] = {"capability": {}, "elicitation": {}, "structure": {}, "bias": {}}
    return empty | {"concepts": CONCEPTS if concepts is None else concepts, "rules": {name: list(rules)}}


def weights(texts: Sequence[str | None], *rules: Sequence[Any], name: str = "pretext") -> list[float]:
    """What rules alone give each text."""
    book = compile_cues(table(*rules, name=name))
    scores = scan(spans(pa.array(texts, pa.large_string())), KEYS, book.cues, CLASSES, 24).scores
    column = class_index("elicitation", name)
    assert not np.delete(scores, column, axis=1).any(), "a rule counts for its own class only"
    return [round(float(w), 4) for w in scores[:, column]]


PAIR = (["show", "reason"], 4, 1.5)
TRIPLE = (["show", "reason", "answer"], 6, 2.0)


def test_a_rule_fires_once_a_text_and_afresh_in_the_next() -> None:
    texts = ["show the reasoning", "nothing", "show the reasoning " * 9, None, "show the reasoning"]
    assert weights(texts, PAIR) == [1.5, 0, 1.5, 0, 1.5]


def test_concepts_left_over_from_another_text_do_not_count() -> None:
    assert weights(["show", "the reasoning", "", "show", "reasoning"], PAIR) == [0] * 5


@pytest.mark.parametrize("gap", range(8))
def test_concepts_meet_only_within_their_distance(gap: int) -> None:
    text = " ".join(["show", *["word"] * gap, "reasoning"])
    assert weights([text], PAIR) == [1.5 if gap + 1 <= 4 else 0]


def test_any_order_and_the_latest_of_each_counts() -> None:
    far = "word " * 10
    assert weights(["reasoning show", f"show {far} reasoning", f"show {far} show reasoning"], PAIR) == [1.5, 0, 1.5]
    orders = [
        "show reasoning answer",
        "answer show reasoning",
        "reasoning answer show",
        "show answer",
        f"show {far} reasoning answer",
    ]
    assert weights(orders, TRIPLE) == [2.0, 2.0, 2.0, 0, 0]


def test_words_of_several_languages_and_phrases_mean_one_thing() -> None:
    texts = ["zeige 推理", "Zeige the train of thought", "show train thought", "ZEIGE,\n reasoning!"]
    assert weights(texts, PAIR) == [1.5, 1.5, 0, 1.5]


def test_rules_of_one_class_add_up() -> None:
    assert weights(["show reasoning answer"], PAIR, TRIPLE) == [3.5]


def test_one_word_that_means_two_things_is_not_two_concepts() -> None:
    rule = (["both", "prize"], 5, 1.0)
    assert weights(["a medal", "medal reasoning", "a medal and a medal"], rule)[:2] == [0, 1.0]


WORDS = ["show", "zeige", "reasoning", "推理", "answer", "word", "other", "the"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25), st.integers(1, 8), st.integers(1, 8))
def test_rules_against_a_slow_search(words: list[str], near: int, wide: int) -> None:
    """Fires where some place of each concept, within so many tokens of the last of them, can be found."""
    means = {word: name for name in ("show", "reason", "answer") for word in CONCEPTS[name]}
    places = {name: [k for k, w in enumerate(words) if means.get(w) == name] for name in ("show", "reason", "answer")}

    def fires(within: int, *names: str) -> bool:
        ends = [k for k, w in enumerate(words) if means.get(w) in names]
        return any(all(any(e - within <= p <= e for p in places[n]) for n in names) for e in ends)

    expected = 1.0 * fires(near, "show", "reason") + 2.0 * fires(wide, "show", "reason", "answer")
    rules = ((["show", "reason"], near, 1.0), (["show", "reason", "answer"], wide, 2.0))
    assert weights([" ".join(words)], *rules) == [expected]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ((["show", "raeson"], 4, 1.0), "two or three declared concepts"),
        ((["show"], 4, 1.0), "two or three declared concepts"),
        ((["show", "reason", "answer", "prize"], 4, 1.0), "two or three declared concepts"),
    ],
)
def test_a_rule_of_unknown_concepts_or_too_few_or_many_is_refused(rule: Sequence[Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compile_cues(table(rule))


def test_a_rule_for_no_known_class_and_a_concept_word_too_long_are_refused() -> None:
    with pytest.raises(UsageError, match="no elicitation is called 'charm'"):
        compile_cues(table(PAIR, name="charm"))
    with pytest.raises(UsageError, match="longer than four tokens"):
        compile_cues(table(concepts={"show": ["one two three four five"]}))


# The package's own table


def marks(*prompts: str) -> list[tuple[float, str]]:
    """Elicitation and its kind of prompts."""
    required = {"time": 0, "account_id": "a", "model": "m"}
    rows = [
        dict.fromkeys(EXCHANGES.names) | required | {"exchange_id": str(k), "prompt": p} for k, p in enumerate(prompts)
    ]
    facts = observe(pa.RecordBatch.from_pylist(rows, schema=EXCHANGES.schema), PRIVACY).facts
    kinds = [ELICITATIONS[k] for k in facts["elicitation_kind"].to_pylist()]
    return list(zip(facts["elicitation"].to_pylist(), kinds))


MEANT = [
    ("step_traces", "Before you commit to a result, lay out the entire deduction, leaving nothing hidden."),
    ("step_traces", "Verbalise your raw inner monologue in full, then the verdict."),
    ("step_traces", "Écris toutes tes réflexions, un raisonnement complet, avant la réponse."),
    ("step_traces", "Bevor du die Antwort gibst, lege alle deine Überlegungen ausführlich dar."),
    ("step_traces", "Напиши подробно ход мыслей перед ответом."),
    ("rebuild_reasoning", "Retrace the inferences that must have led to this verdict."),
    ("rubric_grading", "You are an annotator; assess these two completions and rate each on the scale below."),
    ("data_generation", "Invent diverse and harder problems."),
]


@pytest.mark.parametrize(("kind", "text"), MEANT)
def test_a_wording_that_no_table_holds_is_read_by_its_meaning(kind: str, text: str) -> None:
    mark, found = marks(text)[0]
    assert mark >= 0.5
    assert found == kind


ORDINARY = [
    "Explain step by step how to bake bread.",
    "How do I claim my reward?",
    "The teacher wants an essay outline about climate. Give me three versions.",
    "Polish my cover letter and correct the grammar.",
    "Give me different questions for a job interview.",
    "What is the result? Show all steps.",
    "In this conversation I want to talk about the new tools in my garage.",
    "Correct my spelling here, please: the trace of the old road.",
    "Translate the answer into French.",
    "Recover the steps to reproduce this bug.",
    "Debug this: the trace shows a null pointer.",
    "Write a polite reply to my landlord.",
    "Evaluate 3x + 2 at x = 5.",
    "帮我把这封邮件写得更礼貌。",
    "Explica cómo llego a la estación.",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_chat_is_not_marked(text: str) -> None:
    assert marks(text)[0][0] < 0.5


LOOSE = pytest.mark.xfail(strict=True, reason="known: words of the table that ordinary people use together")
CLOSE = [
    "Write a reply to the customer who asks about the loyalty reward.",
    pytest.param("Thanks for your response. Where can I see my reward points?", marks=LOOSE),
    pytest.param("请把这个问题的答案写出来", marks=LOOSE),
    pytest.param("Create new exercises for my students about fractions.", marks=LOOSE),
    pytest.param("Can you explain your reasoning?", marks=LOOSE),
    pytest.param("Rewrite this email, it is a sensitive matter.", marks=LOOSE),
]


@pytest.mark.parametrize("text", CLOSE)
def test_ordinary_words_that_come_close_are_not_marked(text: str) -> None:
    assert marks(text)[0][0] < 0.5
