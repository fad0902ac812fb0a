"""What a defence costs a distiller, and what it costs whoever is honest: teacher, defended outputs, student, over tasks.

The two figures are DistillGuard's (2603.07835). *DE*: a student's accuracy on defended outputs over that of the naive student of
undefended ones; below 1 the distiller loses, above 1 the defence has helped it. *DC*: the share of the answers' accuracy that
is lost to all who are served. Beside them stand what else an honest reader loses (trace, its truth, likelihood), whether
the defence can be seen, and what chance alone would give.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillwatch.errors import InputRejected, UsageError
from stillwatch.protection.bench.attackers import ATTACKERS, Attacker, Course, Haul, Market, surprise
from stillwatch.protection.bench.damage_page import page
from stillwatch.protection.bench.defences import Defence, Outputs, Teacher, catalogue, defended, right, served, whole
from stillwatch.protection.bench.measured import LEARNT, Cost, Lesson, Measured, Schooling, learnt
from stillwatch.protection.bench.rows import Over, Row
from stillwatch.protection.bench.students import Examination, School, taught
from stillwatch.protection.bench.tasks import PAD, TASKS, Problems, Task, chance, drawn
from stillwatch.protection.bench.visible import told_apart
from stillwatch.protection.keys import Key, Scheme, derive
from stillwatch.secret import Secret

Progress = Callable[[str], None]
NEEDS_STEPS = "sums"
LEAST_FULL, MOST_HIDDEN = 0.8, 0.5
"""What experiment 10 asks: stated before the runs."""
FILE = "damage.json"
VERSION = 1
"""Of what the figures mean: one that was measured by another is not mixed with these."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. ``queries`` of a distiller, ``taught`` problems of the teacher, ``held`` of the examination, ``own``
    traces of a distiller; names of tasks, defences and attackers; courses of teachers and students."""

    queries: int
    taught: int
    held: int
    own: int
    teacher: Course
    student: Course
    tasks: tuple[str, ...]
    defences: tuple[str, ...]
    attackers: tuple[str, ...]


_ALL = (
    "full", "summary", "withheld", "logprobs-all", "logprobs-20", "logprobs-5", "logprobs-1", "watermarked", "rewritten",
)  # fmt: skip
SIZES = {
    "small": Size(
        queries=1500, taught=2500, held=400, own=100,
        teacher=Course(350, 6, after=1), student=Course(300, 6),
        tasks=("sums", "rambling"), defences=("full", "withheld"), attackers=("naive",),
    ),
    "full": Size(
        queries=1500, taught=3000, held=1000, own=200,
        teacher=Course(400, 6, after=1), student=Course(300, 6),
        tasks=tuple(TASKS), defences=_ALL, attackers=tuple(ATTACKERS),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Provider:
    """A teacher of one task, what it says when nothing is done, to two lots of questions, and what the answers are."""

    task: Task
    teacher: Teacher
    asked: Problems
    others: Problems
    plain: Outputs
    elsewhere: Outputs


def run(out: Path, seeds: Sequence[int], size: str = "full", progress: Progress = lambda line: None) -> Measured:
    """Measure these seeds, and write ``damage.json`` and ``damage.md`` into the folder ``out`` (made where it is not) after each
    task. What stands there is not measured again.

    UsageError for an unknown size, no seed, one that is given twice, or a folder of another size; InputRejected where what
    stands there is damaged.
    """
    if size not in SIZES:
        raise UsageError(f"no size {size!r}", hint=f"one of {', '.join(SIZES)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError("seeds are one or more, each once", hint="for example 1, 2 and 3")
    out.mkdir(parents=True, exist_ok=True)
    measured = kept(out, size)
    for seed, name in missing(measured, seeds):
        measured = measured.joined(*measure(TASKS[name], SIZES[size], seed, progress))
        _write(out / FILE, json.dumps({"version": VERSION, **asdict(measured)}, indent=1))
    measured = measured.of(seeds)
    _write(out / "damage.md", page(measured, rows(measured)))
    return measured


def kept(out: Path, size: str) -> Measured:
    """What a folder holds; nothing where there is no file."""
    path = out / FILE
    if not path.exists():
        return Measured(size)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        same = (told["size"], told["version"]) == (size, VERSION)
        held = _rows(told) if same else {}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputRejected(
            f"{path}: this is no file of the bench: {e}", hint="take it away, or give another folder"
        ) from e
    if not same:
        raise UsageError(
            f"{path}: measured at size {told['size']}, version {told['version']}; asked for {size}, version {VERSION}",
            hint="give another folder",
        )
    return Measured(size, **held)


def _rows(told: dict[str, Any]) -> dict[str, Any]:
    lessons = tuple(Lesson(**row | {"losses": tuple(row["losses"])}) for row in told["lessons"])
    return {
        "schooling": tuple(Schooling(**row) for row in told["schooling"]),
        "lessons": lessons,
        "costs": tuple(Cost(**row) for row in told["costs"]),
    }


def missing(measured: Measured, seeds: Sequence[int]) -> list[tuple[int, str]]:
    """The (seed, task) that are not measured yet, in order."""
    there = {(s.seed, s.task) for s in measured.schooling}
    return [(seed, name) for seed in seeds for name in SIZES[measured.size].tasks if (seed, name) not in there]


def measure(
    task: Task, size: Size, seed: int, progress: Progress = lambda line: None
) -> tuple[Schooling, list[Lesson], list[Cost]]:
    """One task under one seed: its teacher, and a student for each defence and attacker."""
    began = time.process_time()
    examination, lot = _questions(task, size, seed)
    teacher, settled = taught(lot["taught"], examination.watched, size.teacher, seed)
    provider = _provider(task, teacher, lot, seed)
    accuracy = float(right(provider.plain, provider.asked).mean())
    progress(f"seed {seed}, {task.name}: the teacher is right {accuracy:.1%}")
    school = School(examination, size.student, seed)
    own = whole(lot["own"])
    lessons, costs = [], []
    for defence in _defences(size, seed):
        outputs = _served(provider, defence, seed)
        costs.append(cost(provider, defence, outputs, seed))
        market = Market(task, outputs, provider.elsewhere, own, size.queries, size.student, seed)
        for attacker, haul in _hauls(market, defence, size):
            student = school.student(haul)
            lessons.append(
                Lesson(
                    task.name, defence.name, attacker.name, seed, student.accuracy, student.settled, haul.queries,
                    haul.own, len(haul.outputs), haul.outputs.shown, student.losses,
                )
            )  # fmt: skip
            progress(f"seed {seed}, {task.name}, {defence.name}, {attacker.name}: {student.accuracy:.3f}")
    cpu_s = round(time.process_time() - began, 1)
    held = examination.held
    return Schooling(task.name, seed, chance(held), accuracy, settled, len(held), cpu_s), lessons, costs


def cost(provider: Provider, defence: Defence, outputs: Outputs, seed: int) -> Cost:
    """What the defence costs those who are served, and whether it can be seen."""
    plain = provider.plain
    trace = (plain.steps != PAD).sum()
    shown = outputs.steps != PAD
    own = _own_words(provider, defence, seed).steps
    count = min(len(outputs), len(provider.elsewhere))
    seen = told_apart(outputs.take(slice(count)), provider.elsewhere.take(slice(count)))
    answered = float(right(outputs, provider.asked).mean())
    return Cost(
        task=provider.task.name,
        defence=defence.name,
        seed=seed,
        accuracy=answered,
        undefended=float(right(plain, provider.asked).mean()),
        tokens=outputs.shown / len(outputs),
        trace_seen=float(shown.sum() / trace),
        trace_true=float((shown & (outputs.steps == own)).sum() / max(1, shown.sum())),
        nll=_nll(provider, _own_words(provider, defence, seed)),
        nll_undefended=_nll(provider, plain),
        probabilities=defence.top,
        auc=seen.value,
        auc_low=seen.low,
        auc_high=seen.high,
    )


def _questions(task: Task, size: Size, seed: int) -> tuple[Examination, dict[str, Problems]]:
    """The examination, and apart from it and from each other: what the teacher learns, what a distiller wrote itself, what is
    asked, and what is asked in the name of another campaign."""
    wanted = {
        "held": size.held, "watched": 200, "taught": size.taught, "own": size.own,
        "asked": 2 * size.queries, "others": size.queries,
    }  # fmt: skip
    problems = drawn(task, seed, sum(wanted.values()))
    ends = np.cumsum(list(wanted.values())).tolist()
    lot = {
        name: problems.take(slice(end - count, end))
        for (name, count), end in zip(wanted.items(), ends, strict=True)
    }  # fmt: skip
    return Examination(lot["watched"], lot["held"]), lot


def _provider(task: Task, teacher: Teacher, lot: dict[str, Problems], seed: int) -> Provider:
    plain = teacher.asked(lot["asked"].questions, seed)
    elsewhere = teacher.asked(lot["others"].questions, seed + 1)
    return Provider(task, teacher, lot["asked"], lot["others"], plain, elsewhere)


def _defences(size: Size, seed: int) -> Iterator[Defence]:
    known = catalogue(_key(seed))
    return (known[name] for name in size.defences)


def _key(seed: int) -> Key:
    """A key for the bench alone: its master secret is no secret."""
    return derive(Secret(f"the bench's, and nobody's secret: {seed:08d}"), "bench", "bench", Scheme())


def _own_words(provider: Provider, defence: Defence, seed: int) -> Outputs:
    """The teacher's whole outputs behind what is served."""
    if defence.key is None:
        return provider.plain
    return provider.teacher.asked(provider.asked.questions, seed, key=defence.key)


def _served(provider: Provider, defence: Defence, seed: int) -> Outputs:
    if defence.key is None and not defence.top:
        return defended(defence, provider.plain, seed)
    return served(defence, provider.teacher, provider.asked.questions, seed)


def _nll(provider: Provider, outputs: Outputs) -> float:
    """Nats a token of what the teacher wrote, under the teacher without a watermark."""
    counted = (outputs.responses != PAD).sum(1)
    return float((surprise(provider.teacher.model, outputs) * counted).sum() / counted.sum())


def _hauls(market: Market, defence: Defence, size: Size) -> Iterator[tuple[Attacker, Haul]]:
    for name in size.attackers:
        attacker = ATTACKERS[name]
        if attacker.answers(defence):
            yield attacker, attacker.take(market)


def rows(measured: Measured) -> list[Row]:
    """Experiment 10, hiding the trace of a task that needs its steps: answers stay as they were, and the student is right less
    often; and whether every task's baseline learnt, without which nothing is said of a defence."""
    return [_hiding(measured), _baselines(measured)]


def _hiding(measured: Measured) -> Row:
    base = measured.students(NEEDS_STEPS, "full")
    bare = measured.students(NEEDS_STEPS, "withheld")
    costs = [c for c in measured.costs if (c.task, c.defence) == (NEEDS_STEPS, "withheld")]
    moved = max(abs(c.accuracy - c.undefended) for c in costs)
    least, most = min(s.accuracy for s in base), max(s.accuracy for s in bare)
    ratios = [
        one.accuracy / other.accuracy if other.accuracy else math.inf for one, other in zip(bare, base, strict=True)
    ]
    return Row(
        "10",
        f"hiding the trace ({NEEDS_STEPS}): answers served stay right, a student of them is right less often",
        f"served accuracy the same, full student >= {LEAST_FULL}, DE <= {MOST_HIDDEN} in every seed",
        f"served accuracy moved {moved:.3f}; students {least:.3f} at least with the trace, {most:.3f} at most without "
        f"(chance {measured.chance(NEEDS_STEPS):.2f}); DE {Over.of(ratios).text(2)}, worst {max(ratios):.2f}",
        moved == 0 and least >= LEAST_FULL and max(ratios) <= MOST_HIDDEN,
    )


def _baselines(measured: Measured) -> Row:
    failed = [task for task in measured.tasks if not learnt(measured, task)]
    right = ", ".join(
        f"{task} {min(s.accuracy for s in measured.students(task, 'full')):.2f}" for task in measured.tasks
    )
    return Row(
        "10b",
        "students of undefended outputs learn: without that nothing is said of a defence",
        f"chance and {LEARNT} more, every task and seed",
        right + (f"; not learnt: {', '.join(failed)}" if failed else ""),
        not failed,
    )


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
