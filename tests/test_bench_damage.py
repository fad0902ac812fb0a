"""What a defence costs: figures, their intervals, what is said of them, and a small run from teacher to page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("scipy")

from stillwatch.errors import InputRejected, UsageError  # noqa: E402
from stillwatch.protection.bench import damage  # noqa: E402
from stillwatch.protection.bench.attackers import Course, Haul  # noqa: E402
from stillwatch.protection.bench.damage_page import page, sayings  # noqa: E402
from stillwatch.protection.bench.defences import catalogue, defended, whole  # noqa: E402
from stillwatch.protection.bench.measured import (  # noqa: E402
    Cost,
    Lesson,
    Measured,
    Schooling,
    accuracy_of,
    de,
    ratio,
    worst,
)
from stillwatch.protection.bench.students import Examination, Gauge, School, _rested  # noqa: E402
from stillwatch.protection.bench.tasks import TASKS, drawn  # noqa: E402
from stillwatch.protection.bench.visible import area, told_apart  # noqa: E402
from stillwatch.protection.keys import Scheme, derive  # noqa: E402
from stillwatch.secret import Secret  # noqa: E402

pytestmark = pytest.mark.protect
KEY = derive(Secret("k" * 32), "campaign", "2026-11", Scheme())


def made(accuracies: dict[tuple[str, str, str], list[float]], settled: bool = True, moved: float = 0.0) -> Measured:
    """Figures of (task, defence, attacker) by seed."""
    tasks = dict.fromkeys(task for task, _, _ in accuracies)
    count = len(next(iter(accuracies.values())))
    return Measured(
        "made",
        tuple(Schooling(task, seed, 0.1, 1.0, True, 1000, 1.0) for seed in range(count) for task in tasks),
        tuple(
            Lesson(task, defence, attacker, seed, accuracy, settled, 100, 0, 100, 500, (1.0, 0.5))
            for (task, defence, attacker), values in accuracies.items()
            for seed, accuracy in enumerate(values)
        ),
        tuple(
            Cost(task, defence, seed, 1.0 - moved, 1.0, 5.0, 0.0, 0.0, 0.4, 0.4, 0, 0.5, 0.4, 0.6)
            for task, defence in dict.fromkeys((t, d) for t, d, _ in accuracies)
            for seed in range(count)
        ),
    )


BASE = {("sums", "full", "naive"): [1.0, 0.98, 0.99]}


def test_de_is_a_ratio_with_students_t_over_seeds():
    found = de(made(BASE | {("sums", "withheld", "naive"): [0.1, 0.12, 0.11]}), "sums", "withheld")
    ratios = np.asarray([0.1, 0.12 / 0.98, 0.11 / 0.99])
    half = 4.302652729911275 * ratios.std(ddof=1) / np.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx(
        (ratios.mean(), ratios.mean() - half, ratios.mean() + half)
    )


def test_one_seed_has_the_interval_of_its_examination():
    measured = made({("sums", "full", "naive"): [1.0], ("sums", "withheld", "naive"): [0.1]})
    found, alone = de(measured, "sums", "withheld"), accuracy_of(measured, "sums", "withheld")
    assert found.value == pytest.approx(0.1) and 0.07 < found.low < 0.1 < found.high < 0.13
    assert 0.08 < alone.low < 0.1 < alone.high < 0.121


def test_the_interval_of_a_ratio_covers_as_often_as_it_says():
    rng = np.random.default_rng(5)
    for one, other in ((0.3, 0.6), (0.5, 0.5), (0.9, 0.6)):
        draws = rng.binomial(200, [one, other], (1000, 2)) / 200
        inside = [low <= one / other <= high for low, high in (ratio(a, b, 200) for a, b in draws)]
        assert 0.92 < np.mean(inside) < 0.98
    assert ratio(0.3, 0.0, 200) == (0.0, float("inf"))


def test_nothing_is_said_of_a_defence_whose_baseline_did_not_learn():
    measured = made({("sums", "full", "naive"): [0.12] * 3, ("sums", "withheld", "naive"): [0.1] * 3})
    assert de(measured, "sums", "withheld") is None
    assert len(sayings(measured)) == 1 and "did not learn" in sayings(measured)[0]
    assert not damage.rows(measured)[1].holds


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [([0.1, 0.11, 0.1], "it costs the student"), ([0.99, 0.99, 0.98], "no difference to the student is shown"),
     ([0.2, 0.9, 0.6], "no difference to the student is shown")],
)  # fmt: skip
def test_what_is_said_follows_the_figures(accuracies, words):
    said = sayings(made(BASE | {("sums", "withheld", "naive"): accuracies}))
    assert len(said) == 1 and words in said[0] and "HELPS" not in said[0]


def test_the_page_says_so_where_withholding_helps():
    helped = made(
        {("rambling", "full", "naive"): [0.5, 0.52, 0.51], ("rambling", "withheld", "naive"): [1.0, 0.99, 1.0]}
    )
    assert "rambling, withheld: it HELPS the student (DE 1.9" in page(helped, ())
    never = made({("rambling", "full", "naive"): [0.0, 0.01, 0.0], ("rambling", "withheld", "naive"): [1.0, 0.99, 1.0]})
    assert "rambling, withheld: it HELPS the student, which is right 99.7%" in page(never, ())
    assert "HELPS" not in page(made(BASE | {("sums", "withheld", "naive"): [0.1, 0.1, 0.1]}), ())


def test_a_student_that_has_not_finished_is_marked():
    rows = BASE | {("sums", "withheld", "naive"): [0.1, 0.1, 0.11]}
    assert "had not finished learning" in sayings(made(rows, settled=False))[0]
    assert "had not finished learning" not in sayings(made(rows))[0]


def test_the_best_attacker_is_named_and_own_traces_do_not_count():
    rows = BASE | {
        ("sums", "withheld", "naive"): [0.1, 0.1, 0.1],
        ("sums", "withheld", "inversion"): [0.2, 0.95, 0.3],
        ("sums", "withheld", "own traces"): [0.99, 0.99, 0.99],
    }
    best = worst(made(rows), "sums", "withheld")
    assert (best.attacker, best.accuracy, best.seed) == ("inversion", 0.95, 1)
    assert "'inversion' gets round it" in sayings(made(rows))[0]


def test_experiment_10_holds_only_where_answers_stay_and_students_fall():
    hidden = {("sums", "withheld", "naive"): [0.1, 0.11, 0.1]}
    assert damage.rows(made(BASE | hidden))[0].holds
    assert not damage.rows(made(BASE | hidden, moved=0.01))[0].holds
    assert not damage.rows(made(BASE | {("sums", "withheld", "naive"): [0.1, 0.6, 0.1]}))[0].holds
    assert not damage.rows(made({("sums", "full", "naive"): [0.7] * 3} | hidden))[0].holds


def test_the_area_and_its_interval():
    rng = np.random.default_rng(2)
    same = [area(rng.normal(size=80), rng.normal(size=80)) for _ in range(400)]
    assert 0.92 < np.mean([s.low <= 0.5 <= s.high for s in same]) < 0.985
    apart = area(np.arange(10.0, 20), np.arange(10.0))
    assert apart.value == 1 == apart.high and 0.6 < apart.low < 1
    assert area(np.zeros(9), np.zeros(9)).value == 0.5


def test_hiding_is_seen_and_nothing_is_not():
    outputs = whole(drawn(TASKS["sums"], 4, 400))
    half, rest = outputs.take(slice(200)), outputs.take(slice(200, None))
    assert told_apart(defended(catalogue(KEY)["withheld"], half, 1), rest).low > 0.9
    nothing = told_apart(half, rest)
    assert nothing.low <= 0.5 <= nothing.high
    with pytest.raises(ValueError, match="at least four"):
        told_apart(half.take(slice(3)), rest)


def test_a_student_learns_what_it_is_shown_and_is_trained_once():
    problems = drawn(TASKS["rambling"], 6, 1900)
    exam = Examination(problems.take(slice(100)), problems.take(slice(100, 400)))
    shown = defended(catalogue(KEY)["withheld"], whole(problems.take(slice(400, None))), 1)
    school = School(exam, Course(300, 2), 1)
    student = school.student(Haul(shown, 1500))
    assert student.accuracy > 0.9 and student.settled and 50_000 < student.parameters < 300_000
    assert school.student(Haul(shown, 1500, own=5)) is student
    wrong = replace(shown, answers=np.roll(shown.answers, 1, axis=0))
    assert School(exam, Course(60, 1), 1).student(Haul(wrong, 1500)).accuracy < 0.1


def test_who_rests_is_given_time_and_who_gains_in_anything_does_not_rest():
    rest, fewer = Gauge(1.0, 0.5, 0.1), Gauge(1.0, 0.49, 0.1)
    assert fewer.gained(rest) and not rest.gained(rest)
    assert Gauge(1.0, 0.5, 0.13).gained(rest) and Gauge(0.98, 0.5, 0.1).gained(rest)
    assert [_rested(s) for s in ([rest], [rest] * 3, [rest, rest, fewer], [rest, fewer, fewer])] == [0, 2, 0, 1]


def test_soft_labels_are_learnt_as_what_was_drawn_is():
    problems = drawn(TASKS["tables"], 6, 60)
    outputs = whole(problems)
    hard = np.eye(35, dtype=np.float32)[outputs.responses]
    exam, course = Examination(problems.take(slice(20)), problems.take(slice(20))), Course(6, 1, 16, width=32)
    plain = School(exam, course, 1).student(Haul(outputs, 60))
    soft = School(exam, course, 1).student(Haul(replace(outputs, shares=hard), 60))
    assert soft.losses == pytest.approx(plain.losses, abs=1e-4)


def test_a_run_from_teacher_to_page(tmp_path, monkeypatch):
    tiny = replace(
        damage.SIZES["full"], queries=40, taught=80, held=40, own=16, teacher=Course(4, 1, 16, width=32),
        student=Course(2, 1, 16, width=32), tasks=("sums",),
    )  # fmt: skip
    monkeypatch.setitem(damage.SIZES, "tiny", tiny)
    said: list[str] = []
    measured = damage.run(tmp_path, [1], "tiny", said.append)
    told = json.loads((tmp_path / "damage.json").read_text())
    assert len(told["lessons"]) == len(measured.lessons) > 20 and len(told["costs"]) == 9
    assert all(c.accuracy == c.undefended for c in measured.costs if c.defence != "watermarked")
    assert {c.trace_seen for c in measured.costs if c.defence == "withheld"} == {0.0}
    written = (tmp_path / "damage.md").read_text()
    assert (
        written == page(measured, damage.rows(measured))
        and "| sums | logprobs-5 |" in written
        and len(said) == len(measured.lessons) + 1
    )
    assert damage.run(tmp_path, [1], "tiny", said.append) == measured and len(said) == len(measured.lessons) + 1
    with pytest.raises(UsageError, match="measured at size tiny"):
        damage.run(tmp_path, [1], "small")
    (tmp_path / "damage.json").write_text('{"size": "tiny", "version": 1}')
    with pytest.raises(InputRejected, match="no file of the bench"):
        damage.run(tmp_path, [1], "tiny")


def test_equal_seeds_measure_the_same_and_others_do_not():
    tiny = replace(
        damage.SIZES["small"], queries=30, taught=40, held=40, teacher=Course(4, 1, 16, width=32),
        student=Course(3, 1, 16, width=32),
    )  # fmt: skip
    one, same, other = (damage.measure(TASKS["tables"], tiny, seed) for seed in (1, 1, 2))
    assert one[1:] == same[1:] and one[1:] != other[1:]


@pytest.mark.parametrize(("seeds", "size"), [([1], "huge"), ([], "small"), ([1, 1], "small")])
def test_sizes_and_seeds_are_checked(tmp_path, seeds, size):
    with pytest.raises(UsageError):
        damage.run(tmp_path / "out", seeds, size)
