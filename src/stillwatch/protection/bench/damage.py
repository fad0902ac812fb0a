"""What a defence costs a distiller, and what it costs whoever is honest: teacher, defended outputs, student, over tasks.

The two figures are DistillGuard's (2603.07835). *DE*: a student's accuracy on defended outputs over that of the naive student of
undefended ones; below 1 the distiller loses, above 1 the defence has helped it. *DC*: the share of the answers' accuracy that
is lost to all who are served. Beside them stand what else an honest reader loses (trace, its truth, likelihood), whether
the defence can be seen, and what chance alone would give.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from stillwatch.errors import UsageError
from stillwatch.protection.bench.attackers import ATTACKERS, Attacker, Course, Haul, Market, surprise
from stillwatch.protection.bench.damage_page import page
from stillwatch.protection.bench.defences import Defence, Outputs, Teacher, catalogue, defended, right, served, whole
from stillwatch.protection.bench.measured import Cost, Lesson, Measured, Schooling
from stillwatch.protection.bench.students import Examination, School, taught
from stillwatch.protection.bench.tasks import PAD, TASKS, Problems, Task, chance, drawn
from stillwatch.protection.bench.visible import told_apart
from stillwatch.protection.keys import Key, Scheme, derive
from stillwatch.secret import Secret

Progress = Callable[[str], None]


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
        teacher=Course(350, 4), student=Course(300, 4),
        tasks=("sums", "rambling"), defences=("full", "withheld"), attackers=("naive",),
    ),
    "full": Size(
        queries=1500, taught=3000, held=1000, own=200,
        teacher=Course(400, 6), student=Course(300, 4),
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
    """Measure, and write ``damage.json`` and ``damage.md`` into the folder ``out`` (made where it is not) after each task.

    UsageError for an unknown size, no seed, or one that is given twice.
    """
    if size not in SIZES:
        raise UsageError(f"no size {size!r}", hint=f"one of {', '.join(SIZES)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError("seeds are one or more, each once", hint="for example --seeds 1-5")
    out.mkdir(parents=True, exist_ok=True)
    measured = Measured(size, (), (), (), ())
    for seed in seeds:
        began = time.process_time()
        for name in SIZES[size].tasks:
            schooling, lessons, costs = measure(TASKS[name], SIZES[size], seed, progress)
            spent = (*measured.cpu_s[: seeds.index(seed)], time.process_time() - began)
            measured = replace(measured.joined(schooling, lessons, costs), cpu_s=spent)
            (out / "damage.json").write_text(json.dumps(asdict(measured), indent=1), encoding="utf-8")
            (out / "damage.md").write_text(page(measured), encoding="utf-8")
    return measured


def measure(
    task: Task, size: Size, seed: int, progress: Progress = lambda line: None
) -> tuple[Schooling, list[Lesson], list[Cost]]:
    """One task under one seed: its teacher, and a student for each defence and attacker."""
    examination, lot = _questions(task, size, seed)
    teacher, settled = taught(lot["taught"], examination.watched, size.teacher, seed)
    provider = _provider(task, teacher, lot, seed)
    accuracy = float(right(provider.plain, provider.asked).mean())
    schooling = Schooling(task.name, seed, chance(examination.held), accuracy, settled, len(examination.held))
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
    return schooling, lessons, costs


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
