"""The bench of damage as a page for people: tables, and above them sentences that are made from the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from stillwatch.protection.bench.measured import (
    Cost,
    Estimate,
    Lesson,
    Measured,
    accuracy_of,
    de,
    learnt,
    worst,
)
from stillwatch.protection.bench.rows import Row

RECOVERED = 0.9
"""An attacker that gets this share of the baseline has got round the defence."""


def page(measured: Measured, rows: Sequence[Row]) -> str:
    """All that was measured, in Markdown; ``rows`` are what was asked of it."""
    parts = (
        ["# What a defence costs the distiller, and who is honest", "", *_opening(measured)],
        ["## What was asked", "", *_table(_ASKED, ((r.number, r.meaning, r.asked, r.got, _holds(r)) for r in rows))],
        ["## What the figures say", "", *(f"- {line}" for line in sayings(measured))],
        ["## Students (DE)", "", *_table(_STUDENTS, _student_rows(measured))],
        ["## Adaptive distillers", "", *_table(_ATTACKERS, _attacker_rows(measured))],
        ["## Who is honest (DC), and what can be seen", "", *_table(_COSTS, _cost_rows(measured))],
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def sayings(measured: Measured) -> list[str]:
    """What may be said of each task, from its figures: whether hiding the trace costs the student or helps it, what the other
    defences do, and who gets round them."""
    return [line for task in measured.tasks for line in _of_task(measured, task)]


def _of_task(measured: Measured, task: str) -> Iterator[str]:
    if not learnt(measured, task):
        yield from _unlearnt(measured, task)
        return
    for defence in measured.defences(task):
        if defence != "full":
            yield f"{task}, {defence}: {verdict(measured, task, defence)}."


def _unlearnt(measured: Measured, task: str) -> Iterator[str]:
    base = accuracy_of(measured, task, "full")
    yield (
        f"{task}: the student of full outputs is right {base.value:.1%} (chance {measured.chance(task):.1%}): it did not "
        "learn, so no defence is said to cost it anything."
    )
    for defence in measured.defences(task):
        found = accuracy_of(measured, task, defence)
        if found.low > base.high:
            yield f"{task}, {defence}: it HELPS the student, which is right {found.value:.1%} of the time with it."


def verdict(measured: Measured, task: str, defence: str) -> str:
    """One clause on a defence, by the interval of its DE and by its best attacker."""
    found = de(measured, task, defence)
    if found is None:
        return "its baseline did not learn"
    said = f"{_effect(found)} (DE {_interval(found)}, {measured.chance(task) / _base(measured, task):.2f} at chance)"
    if not _settled(measured.students(task, defence)):
        said += "; that student had not finished learning, so it may yet gain"
    best = worst(measured, task, defence)
    if best.attacker != "naive" and found.high < 1:
        share = best.accuracy / _base(measured, task)
        outcome = "gets round it" if share >= RECOVERED else "gets furthest against it"
        said += f"; '{best.attacker}' {outcome} ({share:.2f} of the baseline)"
    return said


def _effect(found: Estimate) -> str:
    if found.high < 1:
        return "it costs the student"
    if found.low > 1:
        return "it HELPS the student"
    return "no difference to the student is shown"


def _base(measured: Measured, task: str) -> float:
    return accuracy_of(measured, task, "full").value


def _settled(students: Sequence[Lesson]) -> bool:
    return all(s.settled for s in students)


def _opening(measured: Measured) -> list[str]:
    seeds = measured.seeds
    kind = (
        "intervals are Student's t over seeds (95 %)"
        if len(seeds) > 1
        else "one seed: intervals are over the problems of the examination (Wilson; MOVER-R for DE) and do not cover another seed"
    )
    unsettled = sum(not lesson.settled for lesson in measured.lessons)
    return [
        f"Size `{measured.size}`, seeds {', '.join(map(str, seeds))}; {kind}. {len(measured.lessons)} students, of which "
        f"{unsettled} had not finished learning when time was up (marked *). Processor time "
        + ", ".join(f"{measured.cpu_s(seed):.0f} s" for seed in seeds)
        + ".",
        "",
        "DE is the accuracy of a student of defended outputs over that of the naive student of full ones: below 1 the distiller "
        "loses, above 1 the defence helps it. DC is the share of right answers lost to whoever is served.",
        "",
        *_table(
            ("task", "chance", "teacher right"),
            (
                (task, _percent(measured.chance(task)), _percent(float(np.mean(_right(measured, task)))))
                for task in measured.tasks
            ),
        ),
    ]


def _holds(row: Row) -> str:
    return "yes" if row.holds else "**no**"


def _right(measured: Measured, task: str) -> list[float]:
    return [s.accuracy for s in measured.schooling if s.task == task]


_ASKED = ("", "what", "asked", "got", "holds")
_STUDENTS = ("task", "served", "naive student right", "DE", "DE at chance", "best attacker, worst seed")
_ATTACKERS = (
    "task",
    "served",
    "attacker",
    "right",
    "DE",
    "queries",
    "own traces",
    "outputs learnt from",
    "tokens shown",
)
_COSTS = (
    "task", "served", "answers right", "DC", "tokens", "of the trace seen", "of that in its place", "NLL (undefended)",
    "probabilities", "AUC of telling it",
)  # fmt: skip


def _student_rows(measured: Measured) -> Iterator[tuple[str, ...]]:
    for task, defence in _cells(measured):
        best = worst(measured, task, defence)
        yield (
            task,
            defence,
            _percents(accuracy_of(measured, task, defence)) + _star(measured.students(task, defence)),
            _interval(de(measured, task, defence)),
            f"{measured.chance(task) / _base(measured, task):.2f}" if learnt(measured, task) else "",
            f"{best.attacker}: {_percent(best.accuracy)}",
        )


def _attacker_rows(measured: Measured) -> Iterator[tuple[str, ...]]:
    for task, defence in _cells(measured):
        for attacker in measured.attackers(task, defence):
            students = measured.students(task, defence, attacker)
            if attacker != "naive":
                yield (
                    task,
                    defence,
                    attacker,
                    _percents(accuracy_of(measured, task, defence, attacker)) + _star(students),
                    _interval(de(measured, task, defence, attacker)),
                    *(
                        str(round(np.mean([getattr(s, n) for s in students])))
                        for n in ("queries", "own", "rows", "tokens")
                    ),
                )


def _cost_rows(measured: Measured) -> Iterator[tuple[str, ...]]:
    for task, defence in _cells(measured):
        rows = [c for c in measured.costs if (c.task, c.defence) == (task, defence)]
        yield (
            task,
            defence,
            _percent(_mean(rows, "accuracy")),
            f"{_mean(rows, 'dc'):.3f}",
            f"{_mean(rows, 'tokens'):.1f}",
            _percent(_mean(rows, "trace_seen")),
            _percent(_mean(rows, "trace_true")) if _mean(rows, "trace_seen") else "",
            f"{_mean(rows, 'nll'):.3f} ({_mean(rows, 'nll_undefended'):.3f})",
            str(rows[0].probabilities),
            f"{_mean(rows, 'auc'):.2f} [{min(c.auc_low for c in rows):.2f}, {max(c.auc_high for c in rows):.2f}]",
        )


def _cells(measured: Measured) -> Iterator[tuple[str, str]]:
    return ((task, defence) for task in measured.tasks for defence in measured.defences(task))


def _mean(rows: Sequence[Cost], name: str) -> float:
    return float(np.mean([getattr(row, name) for row in rows]))


def _star(students: Sequence[Lesson]) -> str:
    return "" if _settled(students) else " *"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _percents(found: Estimate) -> str:
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _interval(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _table(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)]
