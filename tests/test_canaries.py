"""Canaries are drawn by a key, committed to first, ranked exactly, and put only where any name would do."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwatch.entries import Deed, Entry, entries
from stillwatch.errors import Terminal, UsageError
from stillwatch.notes import Signer
from stillwatch.protection import canaries
from stillwatch.protection.book import Book
from stillwatch.protection.canaries import (
    Canary,
    Issued,
    Place,
    counts_in,
    derive,
    examine,
    fisher,
    holm,
    issue,
    lead_for,
    opened,
    prompt_for,
    rank,
    read,
    taken,
    words,
)
from stillwatch.protection.planting import NAMES, Planted, Tally, planted, planted_in
from stillwatch.protection.traces.splicing import Place as Spot
from stillwatch.protection.traces.splicing import spliced
from stillwatch.secret import Secret
from stillwatch.verification import verify

MASTER = Secret("m" * 48)
OTHER = Secret("o" * 48)


class Notebook:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, event: str, subject: str, who: str, facts: Mapping[str, Any]) -> None:
        deed = Deed(event, who, "admin", subject, facts)
        self.entries.append(Entry(len(self.entries), datetime.now(UTC), deed, "", ""))

    @property
    def known(self) -> tuple[Issued, ...]:
        return read(self.entries, "notebook")


def made(campaigns: int = 3, number: int = 6) -> tuple[Notebook, list[Canary]]:
    book = Notebook()
    found = [c for k in range(campaigns) for c in issue(book, book.known, f"C-{k}", MASTER, "ann", number)]
    return book, found


# Words, drawing, the ledger


def test_there_are_names_enough_and_each_reads_back() -> None:
    told = words()
    assert (
        len(told) >= 10_000 and len(set(told.firsts)) == len(told.firsts) and not set(told.firsts) & set(told.seconds)
    )
    for place in Place:
        names = told.targets(place)
        assert len(set(names)) == len(told)
        text = "; ".join(names[:50])
        score = counts_in([("", text)])
        assert score(Issued("i", "c", f"{place}/python", 0, "", ""), names[:60]) == [1] * 50 + [0] * 10


def test_the_words_have_not_changed_since_canaries_were_drawn_from_them() -> None:
    # Of a change old commitments would not open: make a new file instead.
    assert words().digest == "830d777166e83a1b3a8caa3c067cda163454c413bac6d6436385cf35df5bd8ea"


def test_drawing_is_by_the_key_alone_and_no_two_are_alike() -> None:
    one = derive(MASTER, "C-1", "file/go")
    assert derive(MASTER, "C-1", "file/go") == one
    others = [derive(MASTER, "C-2", "file/go"), derive(MASTER, "C-1", "file/c"), derive(OTHER, "C-1", "file/go"),
              derive(MASTER, "C-1", "file/go", 1)]  # fmt: skip
    assert len({one.canary_id, *(o.canary_id for o in others)}) == 5
    assert len({one.issued.commitment, *(o.issued.commitment for o in others)}) == 5
    assert one.target not in repr(one) and one.secret.hex() not in repr(one)
    for wrong in (("", "file/go"), ("C-1", "file/cobol"), ("C-1", "nothing")):
        with pytest.raises(ValueError, match="issued for a campaign"):
            derive(MASTER, *wrong)
    with pytest.raises(ValueError, match="master secret"):
        derive(Secret("short"), "C-1", "file/go")


def test_targets_are_uniform_over_the_words() -> None:
    drawn = Counter(derive(MASTER, f"C-{k}", "file/go").target.partition("-")[0] for k in range(5500))
    expected = 5500 / len(words().firsts)
    chi = sum((drawn[first] - expected) ** 2 / expected for first in words().firsts)
    freedom = len(words().firsts) - 1
    assert abs(chi - freedom) < 4 * math.sqrt(2 * freedom)


def test_every_canary_is_in_the_ledger_without_its_target() -> None:
    book, found = made()
    assert [i.canary_id for i in book.known] == [c.canary_id for c in found]
    assert len(found) == 18 and len({(c.issued.trigger, c.target) for c in found}) == 18
    told = json.dumps([e.deed.facts for e in book.entries])
    assert not any(c.target in told for c in found)
    assert [opened(i, MASTER) for i in book.known] == found
    with pytest.raises(Terminal, match="another one"):
        opened(book.known[0], OTHER)
    with pytest.raises(Terminal, match="other words"):
        opened(replace(book.known[0], words="0" * 64), MASTER)


def test_a_name_that_another_campaign_has_at_a_trigger_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "DECOYS", 2)
    few = replace(words(), firsts=("amber", "ashen"), seconds=("acorn", "almond", "anchor"))
    monkeypatch.setattr(canaries, "words", lambda: few)
    book = Notebook()
    trigger = "file/go"
    have: list[str] = []
    for k in range(4):
        canary = canaries._drawn(book.known, f"C-{k}", trigger, MASTER)
        book.record(canaries.ISSUED, canary.canary_id, "ann", canary.issued.facts())
        assert canary.target not in have
        have.append(canary.target)
    with pytest.raises(Terminal, match="too few names"):
        canaries._drawn(book.known, "C-9", trigger, MASTER)


def test_a_campaign_gets_no_trigger_twice_and_no_more_than_there_are() -> None:
    book = Notebook()
    every = len(words().triggers)
    first = issue(book, book.known, "C-1", MASTER, "ann", 6)
    rest = issue(book, book.known, "C-1", MASTER, "ann", every - 6)
    assert {c.issued.trigger for c in first + rest} == set(words().triggers)
    with pytest.raises(UsageError, match="0 triggers left"):
        issue(book, book.known, "C-1", MASTER, "ann", 1)
    with pytest.raises(UsageError):
        issue(book, book.known, "C-2", MASTER, "ann", 0)


def test_a_ledger_that_says_what_cannot_be_is_told_with_its_place() -> None:
    book, _ = made(1)
    entry = book.entries[0]
    with pytest.raises(Terminal, match="notebook: entry 0 issues a canary again"):
        read([entry, entry], "notebook")
    broken = replace(entry, deed=Deed(canaries.ISSUED, "ann", "admin", "x", {"campaign": "C"}))
    with pytest.raises(Terminal, match="can be understood"):
        read([broken], "notebook")


def test_the_real_ledger_takes_them(tmp_path: Path) -> None:
    signer = Signer.make("stillwatch-test")
    with Book(tmp_path, signer) as book:
        found = issue(book, (), "C-1", MASTER, "ann")
        tally = Tally()
        tally.add("C-1", Planted(Counter({found[0].canary_id: 3})))
        for deed in tally.deeds():
            book.record(deed.event, deed.subject, deed.who, deed.facts)
    assert read(entries(tmp_path), "log") == tuple(c.issued for c in found)
    assert verify(tmp_path, signer.verifier).is_sound


# The test: ranks, and what they come to


def leaning(*targets: str) -> canaries.Score:
    """A suspect that learnt these names, and otherwise has likes of its own."""

    def score(issued: Issued, names: Sequence[str]) -> list[float]:
        likes = random.Random(issued.trigger)
        return [likes.random() + 2 * (n in targets) for n in names]

    return score


def test_a_suspect_that_learnt_a_campaigns_canaries_is_found_and_only_that_campaign() -> None:
    _, found = made(4)
    guilty = [c.target for c in found if c.issued.campaign_id == "C-2"]
    first, *others = examine(found, leaning(*guilty), taken=taken(found))
    assert first.campaign_id == "C-2" and first.adjusted < 1e-9
    assert all(r.p == 1 / 1000 for r in first.ranked)
    assert all(o.adjusted > 0.01 for o in others)


def test_ties_count_against_us() -> None:
    _, found = made(1)
    none = rank(found[0], lambda issued, names: [0.0] * len(names))
    assert (none.better, none.tied, none.p) == (0, 999, 1.0)
    assert rank(found[0], counts_in([])).p == 1.0
    assert rank(found[0], counts_in([("", f"I made {found[0].target}.")])).p == 1 / 1000


def test_an_answer_to_a_probe_counts_for_that_probe_alone() -> None:
    one, two = derive(MASTER, "C-1", "file/go"), derive(MASTER, "C-1", "file/c")
    score = counts_in([(prompt_for(one.issued), one.target), ("of my own", two.target), ("", two.target)])
    assert score(one.issued, [one.target, two.target]) == [1, 2]
    assert score(two.issued, [one.target, two.target]) == [0, 2]


def test_a_score_that_is_no_number_is_refused() -> None:
    _, found = made(1)
    for bad in ([math.nan] * 1000, [1.0] * 999):
        with pytest.raises(UsageError, match="missing or no number"):
            rank(found[0], lambda issued, names, bad=bad: bad)
    for decoys in (998, len(words())):
        with pytest.raises(UsageError, match="decoys"):
            rank(found[0], counts_in([]), decoys=decoys)


def test_a_score_cannot_tell_the_target_by_where_it_stands_and_decoys_are_nobodys() -> None:
    _, found = made(30, 1)
    trigger = found[0].issued.trigger
    others = {derive(MASTER, f"X-{k}", trigger).target for k in range(500)} - {found[0].target}
    seen: list[Sequence[str]] = []

    def score(issued: Issued, names: Sequence[str]) -> list[float]:
        seen.append(names)
        return [0.0] * len(names)

    rank(found[0], score, others, seed=1)
    rank(found[0], score, others, seed=1)
    rank(found[0], score, others, seed=2)
    assert list(seen[0]) == sorted(seen[0]) == list(seen[1]) != list(seen[2])
    assert found[0].target in seen[0] and not others & set(seen[0]) and len(set(seen[0])) == 1000


def uniform_or_larger(values: Sequence[float]) -> None:
    """No p-value too small too often: at each level the share below it is within four standard errors of it, or under."""
    for level in (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        share = sum(v <= level for v in values) / len(values)
        assert share <= level + 4 * math.sqrt(level * (1 - level) / len(values)), level


def kolmogorov(values: Sequence[float]) -> float:
    """The largest distance from uniform, in units of 1 / sqrt(n)."""
    ordered, n = sorted(values), len(values)
    return math.sqrt(n) * max(max((i + 1) / n - v, v - i / n) for i, v in enumerate(ordered))


@pytest.mark.parametrize("is_tied", [False, True])
def test_p_values_of_innocent_suspects_are_uniform_and_of_tied_ones_no_smaller(
    is_tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canaries, "DECOYS", 99)
    few = replace(words(), firsts=words().firsts[:12], seconds=words().seconds[:12])
    monkeypatch.setattr(canaries, "words", lambda: few)
    score = leaning_of_few(is_tied)
    singles, together = [], []
    for k in range(1500):
        mine = [derive(MASTER, f"C-{k}", t, made=few) for t in ("file/go", "greeting/c", "placeholder/rust")]
        ranked = [rank(c, score, decoys=99, seed=k) for c in mine]
        singles += [r.p for r in ranked]
        together.append(fisher([r.p for r in ranked]))
    uniform_or_larger(singles)
    uniform_or_larger(together)
    if not is_tied:
        assert kolmogorov(together) < 1.95  # the 0.001 point of Kolmogorov's distribution
        assert sum(p <= 0.05 for p in singles) / len(singles) > 0.03


def leaning_of_few(is_tied: bool) -> canaries.Score:
    """An innocent suspect with strong likes; tied, it tells only three kinds of name apart."""

    def like(name: str) -> float:
        liked = random.Random(name).random() ** 8
        return float(round(2 * liked)) if is_tied else liked

    likes = {name: like(name) for place in Place for name in canaries.words().targets(place)}
    return lambda issued, names: [likes[n] for n in names]


def test_decoys_without_the_others_targets_keep_p_exact_for_who_learnt_from_another_campaign() -> None:
    # A suspect of campaign C-0 leans to names that are decoys of nobody.
    _, found = made(25)
    guilty = [c.target for c in found if c.issued.campaign_id == "C-0"]
    rows = examine(found, leaning(*guilty), taken=taken(found))
    assert [f.campaign_id for f in rows if f.adjusted < 0.001] == ["C-0"]


def test_fisher_is_the_chi_squared_tail() -> None:
    assert fisher([0.3]) == pytest.approx(0.3)
    # P(chi2 with 4 degrees > -2 log(0.01 * 0.02)) = x (1 - log x) for x = 0.0002
    assert fisher([0.01, 0.02]) == pytest.approx(0.0002 * (1 - math.log(0.0002)))
    assert fisher([1.0, 1.0]) == 1.0
    assert fisher([1 / 1000] * 6) == pytest.approx(1.0e-12, rel=1) and fisher([1e-3] * 30) > 0
    for wrong in ([], [0.0], [1.1]):
        with pytest.raises(ValueError, match="p-values"):
            fisher(wrong)


def test_holm_is_holms() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_a_probe_says_nothing_of_the_target() -> None:
    for trigger in words().triggers:
        canary = derive(MASTER, "C-1", trigger)
        asked = prompt_for(canary.issued) + lead_for(canary.issued)
        assert words().languages[canary.issued.language].label in asked
        first, second = canary.target.replace("_", "-").replace(" ", "-").split("-")
        assert first not in asked.lower().split() and second not in asked.lower().split()


# Planting


def at(trigger: str) -> Canary:
    return derive(MASTER, "C-1", trigger)


FOO = at("placeholder/python")
ANSWER = """A function is made with `def`, here `foo`:

```python
def foo(x):
    return x + 1

print(foo(2))  # foo gives 3
```

```
>>> foo(2)
3
```
"""


def test_a_sample_name_is_renamed_wherever_it_stands() -> None:
    text, done = planted(ANSWER, "How do I make a function?", [FOO])
    assert text == ANSWER.replace("foo", FOO.target)
    assert done.positions == {FOO.canary_id: 5} and not done.left


@pytest.mark.parametrize(
    ("text", "asked", "reason"),
    [
        (ANSWER, "Why does Foo fail?", "asked"),
        (ANSWER, f"and now {FOO.target}", "taken"),
        (ANSWER + "\nSo foo adds one.\n", "", "elsewhere"),
        (ANSWER.replace("```python", "```go"), "", "elsewhere"),
        (ANSWER + "\n```js\nfoo()\n```\n", "", "elsewhere"),
        (ANSWER.replace("x + 1", "x.foo"), "", "used"),
        (ANSWER.replace("x + 1", "os.environ['foo']"), "", "used"),
        (ANSWER.replace("print(foo(2))", "import foo.bar"), "", "used"),
        (ANSWER.replace("x + 1", "'a/foo'"), "", "used"),
        ("```python\nfoo(1)\n```", "", "not_made"),
        ("```python\nrun(foo=1)\n```", "", "not_made"),
        ("```python\nif foo == 1: pass\n```", "", "not_made"),
    ],
)
def test_it_is_left_alone_where_it_may_mean_something(text: str, asked: str, reason: str) -> None:
    told, done = planted(text, asked, [FOO])
    assert told == text and not done.positions
    assert done.left == {reason: 1}


@pytest.mark.parametrize("text", ["", "no code", "foobar foo_x Foo", "```python\nfood = my_foo\n```", "foo"])
def test_without_a_free_name_the_text_is_the_same(text: str) -> None:
    assert planted(text, "", [FOO, at("file/go"), at("greeting/java")])[0] == text


def test_files_and_greetings() -> None:
    file, greeting = at("file/python"), at("greeting/python")
    text = '```python\nwith open("example.txt") as f:\n    print("Hello, World!")\n```\n'
    text += "It prints\n\n```text\nHello, World!\n```\n"
    told, done = planted(text, "how do I read a file?", [file, greeting])
    assert f'open("{file.target}.txt")' in told
    assert told.count(f"Hello, {greeting.target}!") == 2 and done.positions.total() == 3
    assert planted(text, "a Hello World program with example.txt", [file, greeting])[0] == text
    bare = "```python\n# example.txt is made first\nopen('example.txt')\n```"
    assert planted(bare, "", [file])[1].left == {"used": 1}


def test_every_place_can_be_planted_in_every_language() -> None:
    for trigger in words().triggers:
        canary = at(trigger)
        lead = lead_for(canary.issued)
        name = NAMES[canary.issued.place][0]
        told, done = planted(f"{lead}{name.removeprefix('Hello, ')}\n```\n", "", [canary])
        assert done.positions == {canary.canary_id: 1}, trigger
        assert told.startswith(lead + canary.target)


PARTS = ["foo", "def foo", "`foo`", "```python\n", "```\n", "~~~\n", "\n", " ", "x", ".", '"', "example.txt"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PARTS)), st.text(max_size=5))
def test_whatever_the_text_only_whole_names_change_and_all_or_none(parts: list[str], asked: str) -> None:
    text = "".join(parts)
    told, done = planted(text, asked, [FOO])
    if not done.positions:
        assert told == text
    else:
        assert told.replace(FOO.target, "foo") == text
        assert not re.search(r"\bfoo\b", told)


ASKED = {"messages": [{"role": "user", "content": "How do I make a function?"}]}


def bodies(text: str) -> dict[str, dict[str, Any]]:
    told = {"type": "output_text", "text": text, "annotations": []}
    return {
        "openai_chat": {"choices": [{"message": {"content": text, "tool_calls": None}, "logprobs": None}]},
        "anthropic": {"content": [{"type": "thinking", "thinking": "foo"}, {"type": "text", "text": text}]},
        "openai_responses": {"output": [{"type": "message", "content": [told]}]},
    }


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic", "openai_responses"])
def test_in_answers_of_apis_the_text_alone_changes(dialect: str) -> None:
    body = bodies(ANSWER)[dialect]
    spot = Spot.of(json.dumps(body))
    edits, done = planted_in(spot, ASKED, dialect, [FOO])
    assert done.positions.total() == 5
    assert json.loads(spliced(spot.text, edits)) == bodies(ANSWER.replace("foo", FOO.target))[dialect]


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic", "openai_responses"])
@pytest.mark.parametrize("what", ["tool", "format", "logprobs", "cited", "named"])
def test_calls_of_tools_structured_and_cited_answers_are_never_touched(dialect: str, what: str) -> None:
    body, request = bodies(ANSWER)[dialect], dict(ASKED)
    message = {"openai_chat": lambda: body["choices"][0]["message"], "anthropic": lambda: body["content"][1],
               "openai_responses": lambda: body["output"][0]["content"][0]}[dialect]()  # fmt: skip
    if what == "tool":
        call = {"type": "tool_use" if dialect == "anthropic" else "function_call", "arguments": ANSWER, "input": ANSWER}
        {"openai_chat": lambda: message.update(tool_calls=[call]), "anthropic": lambda: body["content"].append(call),
         "openai_responses": lambda: body["output"].append(call)}[dialect]()  # fmt: skip
    elif what == "format":
        request |= {"response_format": {"type": "json_object"}, "text": {"format": {"type": "json_schema"}}}
    elif what == "logprobs":
        request |= {"logprobs": True, "top_logprobs": 3}
    elif what == "cited":
        message |= {"annotations": [{"start_index": 3}], "citations": [{"start_char_index": 3}]}
    else:
        request = {**request, "tools": [{"function": {"name": "foo"}}]}
    edits, done = planted_in(Spot.of(json.dumps(body)), request, dialect, [FOO])
    assert not edits and not done.positions


def test_what_was_planted_is_counted_for_the_audit_and_names_no_target() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add("C-1", planted(ANSWER, "", [FOO])[1])
    tally.add("C-1", planted(ANSWER, "foo", [FOO])[1])
    tally.add("C-2", planted("no code", "", [FOO])[1])
    (deed,) = tally.deeds()
    assert (deed.event, deed.subject) == ("canary.planted", "C-1")
    assert deed.facts == {"answers": 3, "positions": {FOO.canary_id: 15}, "left": {"asked": 1}}
    assert FOO.target not in json.dumps(deed.facts) and tally.deeds() == []
