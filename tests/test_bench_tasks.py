"""Generated tasks, what defences leave of outputs, and what attackers make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("scipy")

from stillwatch.protection.bench.attackers import (  # noqa: E402
    ATTACKERS,
    Course,
    Market,
    afforded,
    answers_only,
    filtering,
    inversion,
    mixing,
    more,
    own_traces,
    paraphrase,
)
from stillwatch.protection.bench.defences import (  # noqa: E402
    Defence,
    Outputs,
    Teacher,
    capped,
    catalogue,
    defended,
    packed,
    read,
    right,
    served,
    whole,
)
from stillwatch.protection.bench.models import small  # noqa: E402
from stillwatch.protection.bench.students import completed, lesson  # noqa: E402
from stillwatch.protection.bench.tasks import (  # noqa: E402
    ALPHABET,
    END,
    FIGURE,
    LETTER,
    PAD,
    TASKS,
    THEN,
    chance,
    decoded,
    drawn,
    encoded,
    respelt,
)
from stillwatch.protection.keys import Scheme, derive  # noqa: E402
from stillwatch.secret import Secret  # noqa: E402

pytestmark = pytest.mark.protect
EACH = pytest.mark.parametrize("task", TASKS.values(), ids=str)
KEY = derive(Secret("k" * 32), "campaign", "2026-11", Scheme())
COURSE = Course(20, 1, 16, width=32)


def plainly(text: str) -> str:
    """The text with figures in place of letters."""
    return "".join(str("abcdefghij".index(c)) if c in "abcdefghij" else c for c in text)


def solved(name: str, question: str) -> tuple[list[str | None], str]:
    """Steps (None: anything goes) and answer, worked out again from the question as text."""
    if name == "sums":
        sums = [str(sum(map(int, question[: i + 1])) % 10) for i in range(len(question))]
        return list(sums), sums[-1]
    if name == "comparisons":
        one, other = question.split("?")
        sign = lambda a, b: "<" if a < b else ">" if a > b else "="
        return [a + sign(a, b) for a, b in zip(one, other, strict=True)], sign(one, other)
    if name == "programs":
        meaning = {"+": lambda a, b: (a + b) % 10, "-": lambda a, b: (a - b) % 10, "n": min, "x": max}
        held, steps = int(question[0]), []
        for i in range(1, len(question), 2):
            held = meaning[question[i]](held, int(question[i + 1]))
            steps.append(str(held))
        return list(steps), steps[-1]
    if name == "tables":
        rows = [question[i : i + 2] for i in range(2, len(question), 2)]
        marks = ["=" if row[0] == question[0] else "-" for row in rows]
        return [mark + row[1] for mark, row in zip(marks, rows, strict=True)], str(marks.count("="))
    return [None] * 3, question[::-1]


@EACH
def test_each_answer_and_step_is_right(task):
    problems = drawn(task, 7, 60)
    for question, steps, answer in zip(problems.questions, problems.steps, problems.answers, strict=True):
        wanted, wanted_answer = solved(task.name, decoded(question))
        assert decoded(answer) == wanted_answer
        assert all(w in (None, plainly(decoded(s))) for w, s in zip(wanted, steps, strict=True))


@EACH
def test_problems_are_the_seeds_own_and_apart(task):
    one, same, other = drawn(task, 1, 200), drawn(task, 1, 200), drawn(task, 2, 200)
    assert np.array_equal(one.questions, same.questions) and np.array_equal(one.steps, same.steps)
    assert not np.array_equal(one.questions, other.questions)
    assert len(np.unique(one.questions, axis=0)) == 200
    apart = drawn(task, 1, 200, one.questions)
    assert not {q.tobytes() for q in one.questions} & {q.tobytes() for q in apart.questions}


def test_no_task_gives_more_questions_than_it_has():
    few = replace(TASKS["sums"], make=lambda rng, count: TASKS["sums"].make(np.random.default_rng(3), 5))
    with pytest.raises(ValueError, match="sums: there are not 6 distinct"):
        drawn(few, 0, 6)


def test_chance_is_the_best_constant_answer():
    assert chance(drawn(TASKS["sums"], 1, 4000)) == pytest.approx(0.1, abs=0.02)
    # Signs of the leading digit: 90 % differ if it is drawn freely, so the two are even and "=" is rare but for the copied ones.
    shares = chance(drawn(TASKS["comparisons"], 1, 4000))
    assert 0.33 < shares < 0.5


def test_spelling_is_a_fair_coin_and_says_nothing():
    tokens = np.asarray([encoded("0123456789+=k")] * 400)
    spelt = respelt(tokens, np.random.default_rng(1))
    assert {plainly(decoded(row)) for row in spelt} == {"0123456789+=k"}
    letters = ((spelt >= LETTER) & (spelt < LETTER + 10))[:, :10].mean()
    assert 0.46 < letters < 0.54
    assert np.array_equal(respelt(spelt, np.random.default_rng(2)) >= FIGURE, spelt >= FIGURE)


def test_responses_are_read_back_as_they_were_written():
    for task in TASKS.values():
        outputs = whole(drawn(task, 3, 20))
        again = read(outputs.questions, outputs.responses, outputs.steps.shape[1:], outputs.answers.shape[1])
        assert np.array_equal(again.steps, outputs.steps) and np.array_equal(again.answers, outputs.answers)


@pytest.mark.parametrize(
    ("text", "trace", "answer"),
    [("1a3:7.", "1a3", "7"), (":7.___", "", "7"), ("1a3b5c", "1a3b", ""), ("1:77._", "1", ""), ("1.:7._", "1.", "7"),
     ("12:7__", "12", "7"), ("1:.___", "1", "")],
)  # fmt: skip
def test_malformed_responses_are_read_as_far_as_they_go(text, trace, answer):
    responses = np.asarray([encoded(text)])
    outputs = read(np.zeros((1, 1), np.int64), responses, (2, 2), 1)
    assert (decoded(outputs.steps.ravel()), decoded(outputs.answers[0])) == (trace, answer)


@EACH
def test_no_defence_touches_an_answer(task):
    problems = drawn(task, 5, 50)
    outputs = whole(problems)
    for defence in catalogue(KEY).values():
        left = defended(defence, outputs, seed=1)
        assert np.array_equal(left.answers, outputs.answers) and right(left, problems).all()
        assert left.steps.shape == outputs.steps.shape


def test_where_the_teacher_is_right_what_is_served_is_right():
    task = TASKS["sums"]
    problems = drawn(task, 5, 40)
    teacher = Teacher(small(len(ALPHABET), width=32, context=32, seed=1), problems.steps.shape[1:], 1)
    said = teacher.asked(problems.questions, 3)
    for defence in catalogue(KEY).values():
        outputs = served(defence, teacher, problems.questions, 3)
        own = said if defence.key is None else teacher.asked(problems.questions, 3, key=KEY)
        assert np.array_equal(outputs.answers, own.answers)


def test_what_each_defence_leaves():
    outputs, known = whole(drawn(TASKS["sums"], 5, 50)), catalogue(KEY)
    assert np.array_equal(defended(known["full"], outputs, 1).steps, outputs.steps)
    assert (defended(known["withheld"], outputs, 1).steps == PAD).all()
    summary = defended(known["summary"], outputs, 1)
    assert np.array_equal(summary.steps[:, 2], outputs.steps[:, 2]) and (summary.steps[:, [0, 1, 3, 4]] == PAD).all()
    assert decoded(summary.responses[0]) == decoded(outputs.steps[0, 2]) + ":" + decoded(outputs.answers[0]) + "."
    rewritten = defended(known["rewritten"], outputs, 1).steps
    assert (rewritten[:, -1] == PAD).all() and (rewritten[:, :4] != PAD).all()
    assert (rewritten[:, :4] != outputs.steps[:, :4]).any()


def test_a_rewriter_keeps_the_shape():
    broken = Defence("broken", "", rewrite=lambda steps, rng: steps[:, :1])
    with pytest.raises(ValueError, match="broken: steps of shape"):
        defended(broken, whole(drawn(TASKS["sums"], 5, 5)), 1)


def test_what_is_hidden_has_no_probabilities():
    outputs = whole(drawn(TASKS["sums"], 5, 5))
    told = replace(outputs, shares=np.ones((*outputs.responses.shape, len(ALPHABET)), np.float32))
    with pytest.raises(ValueError, match="probabilities are shown for steps that are not"):
        defended(Defence("hides", "", every=0), told, 1)


def test_capped_probabilities_and_what_is_made_of_them():
    shares = np.asarray([[[0.5, 0.3, 0.15, 0.05]]], np.float32)
    assert np.array_equal(capped(shares, 2), np.asarray([[[0.5, 0.3, 0, 0]]], np.float32))
    assert capped(shares, 4) is shares
    # The token that was drawn is shown: what is missing is spread over the others; else it is the drawn one's.
    assert completed(capped(shares, 2), np.asarray([[0]]))[0, 0] == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert completed(capped(shares, 2), np.asarray([[3]]))[0, 0] == pytest.approx([0.5, 0.3, 0, 0.2])
    assert completed(shares, np.asarray([[3]]))[0, 0] == pytest.approx(shares[0, 0])


def test_a_lesson_counts_responses_alone():
    outputs = defended(catalogue(KEY)["summary"], whole(drawn(TASKS["sums"], 5, 5)), 1)
    told, weigh, soft = lesson(outputs)
    assert told.shape == (5, 5 + 1 + 4) and soft is None
    assert weigh.tolist() == [[0.0] * 6 + [1.0] * 4] * 5
    assert told[0, -1] == END and told[0, -3] == THEN


def test_packed_keeps_the_order():
    assert packed(np.asarray([[0, 5, 0, 6], [7, 0, 0, 8]])).tolist() == [[5, 6, 0, 0], [7, 8, 0, 0]]


def market(defence: str = "withheld", name: str = "sums") -> Market:
    task = TASKS[name]
    problems = drawn(task, 11, 260)
    asked, others, own = (whole(problems.take(slice(a, b))) for a, b in ((0, 160), (160, 240), (240, 260)))
    return Market(task, defended(catalogue(KEY)[defence], asked, 1), others, own, 80, COURSE, 1)


def questions(outputs: Outputs) -> list[bytes]:
    return [row.tobytes() for row in outputs.questions]


def test_attackers_say_what_they_cost():
    there = market()
    assert (answers_only(there).queries, more(there).queries, own_traces(there).queries) == (80, 160, 0)
    mixed = mixing(there)
    assert mixed.queries == 80 and (mixed.outputs.steps[:40] == PAD).all() and (mixed.outputs.steps[40:] != PAD).all()
    assert inversion(there).own == own_traces(there).own == 20
    assert all(a.answers(catalogue(KEY)["full"]) for a in ATTACKERS.values() if a.name in ("naive", "answers only"))


def test_an_inversion_rebuilds_what_is_hidden_and_nothing_else():
    there = market("summary")
    haul = inversion(there)
    assert len(haul.outputs) == 100 and np.array_equal(haul.outputs.answers[:80], there.served.answers[:80])
    assert questions(haul.outputs)[80:] == questions(there.own)
    assert (haul.outputs.steps[:80] != there.served.steps[:80]).any()


def test_a_paraphrase_spells_anew_and_keeps_the_meaning():
    there = market("watermarked")
    after = paraphrase(there).outputs
    before = there.bought()
    assert (after.steps != before.steps).any() and np.array_equal(after.answers, before.answers)
    assert all(
        plainly(decoded(a.ravel())) == plainly(decoded(b.ravel()))
        for a, b in zip(after.steps, before.steps, strict=True)
    )


def test_a_filter_keeps_every_answer():
    there = market("rewritten")
    after = filtering(there).outputs
    bare = (after.steps == PAD).all(axis=(1, 2))
    assert np.array_equal(after.answers, there.bought().answers)
    assert np.array_equal(after.steps[~bare], there.bought().steps[~bare])


def test_tokens_are_what_is_paid_for_where_there_is_a_purse():
    task, outputs = TASKS["rambling"], whole(drawn(TASKS["rambling"], 1, 100))
    bare = defended(catalogue(KEY)["withheld"], outputs, 1)
    # 5 of the question, 12 of the trace, 5 of the answer; a query of the budget is worth 2.
    assert len(afforded(task, outputs, 50)) == 100 // 22
    assert len(afforded(task, bare, 50)) == 10
    assert len(afforded(task, bare, 500)) == 100
    nothing = replace(bare, answers=np.full_like(bare.answers, PAD))
    assert len(afforded(task, nothing, 50)) == 20
    with pytest.raises(ValueError, match="only 100 outputs"):
        afforded(task, bare, 505)
    with pytest.raises(ValueError, match="only 100 outputs"):
        afforded(TASKS["sums"], bare, 101)
