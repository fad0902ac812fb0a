"""Whether answers are as often right under a watermark: teachers of generated tasks with exact answers, by sampler.

A watermark leans every token, those of the answer too. Likelihood (``cost``) says how far; this says what whoever is served
loses by it. The same questions and the same draws are put to a teacher under each sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stillwatch.protection.bench.attackers import Course
from stillwatch.protection.bench.cost import SCHEMES
from stillwatch.protection.bench.defences import right
from stillwatch.protection.bench.learning import Lab
from stillwatch.protection.bench.reading import Tell
from stillwatch.protection.bench.rows import Found, Over, Row, Table
from stillwatch.protection.bench.students import taught
from stillwatch.protection.bench.tasks import TASKS, drawn

MOST_LOST = 0.02
"""Share of answers that a sampler may turn from right to wrong, on balance, in any task: stated before the runs."""
WATCHED = 200
"""Problems by which it is seen when a teacher has finished."""


@dataclass(frozen=True, slots=True)
class Asked:
    """``tasks``, with so many problems that the teacher is ``taught`` and that are ``put`` to it afterwards; its ``course``."""

    tasks: tuple[str, ...]
    taught: int
    put: int
    course: Course


ASKED = {
    "full": Asked(("sums", "programs", "tables"), 3000, 3000, Course(400, 6, after=1)),
    "small": Asked(("sums",), 2500, 500, Course(350, 6, after=1)),
}


def measure(lab: Lab, asked: Asked, tell: Tell) -> Found:
    """Share of right answers, by task and sampler."""
    found: dict[str, dict[str, float]] = {}
    for i, name in enumerate(asked.tasks):
        tell(i / len(asked.tasks), f"teacher of {name}")
        problems = drawn(TASKS[name], lab.seed, WATCHED + asked.taught + asked.put)
        watched, learnt, put = (
            problems.take(slice(a, b))
            for a, b in ((0, WATCHED), (WATCHED, WATCHED + asked.taught), (WATCHED + asked.taught, len(problems)))
        )
        teacher, _ = taught(learnt, watched, asked.course, lab.seed)
        found[name] = {}
        for sampler, scheme in SCHEMES.items():
            key = None if scheme is None else lab.key("A", scheme)
            outputs = teacher.asked(put.questions, lab.seed, key=key)
            found[name][sampler] = round(float(right(outputs, put).mean()), 4)
    return {"right": found, "put": asked.put}


def rows(found: Sequence[Found], asked: Asked) -> list[Row]:
    """No sampler costs right answers to speak of, in the worst seed and task."""
    lost = {
        sampler: max(f["right"][task]["none"] - f["right"][task][sampler] for f in found for task in asked.tasks)
        for sampler in SCHEMES
        if sampler != "none"
    }
    got = ", ".join(f"{sampler}: {most:+.1%}" for sampler, most in lost.items())
    return [
        Row(
            "S6b", "right answers lost under a watermark, worst task and seed", f"at most {MOST_LOST:.0%} with any sampler",
            got, max(lost.values()) <= MOST_LOST,
        )
    ]  # fmt: skip


def tables(found: Sequence[Found]) -> Iterator[Table]:
    """Right answers by task and sampler, and what each loses."""
    lines = []
    for task in found[0]["right"]:
        for sampler in SCHEMES:
            share = Over.of([f["right"][task][sampler] for f in found])
            less = np.mean([f["right"][task]["none"] - f["right"][task][sampler] for f in found])
            lines.append((task, sampler, share.text(4), f"{less:+.4f}"))
    head = ("task", "sampler", "right answers", "lost")
    yield Table("Right answers", head, tuple(lines), f"{found[0]['put']} questions a task and seed, at temperature 1.")
