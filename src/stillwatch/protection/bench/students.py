"""Teachers and students of generated tasks: trained until nothing more is gained, and marked to the letter.

A student that has not finished learning says nothing of a defence. So training goes in rounds: it ends where the student is
right nearly always, or where several further rounds changed nothing: not accuracy, not the loss on outputs kept apart, and not
that of their answers alone (in a long trace of noise it is lost in the whole). One that was stopped by the last round
while it still gained is not ``settled``, and is reported as such. What may learn suddenly after a long rest, nobody sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from transformers import PreTrainedModel

from stillwatch.protection.bench.attackers import Course, Haul, rounds_of
from stillwatch.protection.bench.defences import Floats, Outputs, Teacher, right, whole
from stillwatch.protection.bench.models import small
from stillwatch.protection.bench.tasks import ALPHABET, PAD, THEN, Ints, Problems
from stillwatch.protection.bench.training import train

GREEDY = 1e-4
"""The temperature students answer at: the most probable token."""
MASTERED = 0.995
GAINED_LOSS, GAINED_ACCURACY = 0.01, 0.02
"""A round that lowers losses by a smaller share, and moves accuracy by less, has gained nothing."""
APART, MOST_APART = 0.1, 150
"""The share of its outputs, and how many at most, that a student does not learn from: by them it is seen whether it gains."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """Where a model stands after a round: losses of whole responses and of their answers, nats a token, and accuracy."""

    loss: float
    answers: float
    accuracy: float

    def gained(self, before: Gauge) -> bool:
        """Whether it stands better than ``before`` in any of them (accuracy: elsewhere)."""
        return (
            before.loss - self.loss >= GAINED_LOSS * before.loss
            or before.answers - self.answers >= GAINED_LOSS * before.answers
            or abs(self.accuracy - before.accuracy) >= GAINED_ACCURACY
        )


@dataclass(frozen=True, slots=True)
class Student:
    """What became of a student: ``accuracy`` on problems nobody trained on, the loss on outputs kept apart after each round (nats
    a token), whether it had finished learning, and its size."""

    accuracy: float
    losses: tuple[float, ...]
    settled: bool
    parameters: int


@dataclass(frozen=True, slots=True)
class Examination:
    """Problems that nobody trains on: ``watched`` decide when training ends, ``held`` what is reported."""

    watched: Problems
    held: Problems


class School:
    """Students of one examination and seed; equal hauls are trained on once. Rule: a student depends on what it is trained on,
    course and seed, and on nothing that was trained before it."""

    def __init__(self, examination: Examination, course: Course, seed: int) -> None:
        self.examination, self.course, self.seed = examination, course, seed
        self.known: dict[bytes, Student] = {}

    def student(self, haul: Haul) -> Student:
        """The student of a haul. ValueError where it is empty."""
        name = _digest(haul)
        if name not in self.known:
            self.known[name] = self._student(haul)
        return self.known[name]

    def _student(self, haul: Haul) -> Student:
        course = replace(self.course, steps=self.course.steps * haul.longer)
        model, losses, settled = trained(haul.outputs, course, self.examination.watched, self.seed)
        accuracy = marked(model, haul.outputs, self.examination.held)
        return Student(accuracy, losses, settled, sum(p.numel() for p in model.parameters()))


def taught(problems: Problems, watched: Problems, course: Course, seed: int) -> tuple[Teacher, bool]:
    """A teacher that learnt the task from right traces, and whether it had finished. What stands behind ``:`` counts for it as
    much as the whole trace: a provider makes sure of its answers."""
    model, _, settled = trained(whole(problems), course, watched, seed, evenly=True)
    return Teacher(model, (problems.steps.shape[1], problems.steps.shape[2]), problems.answers.shape[1]), settled


def trained(
    outputs: Outputs, course: Course, watched: Problems, seed: int, *, evenly: bool = False
) -> tuple[PreTrainedModel, tuple[float, ...], bool]:
    """A model of these outputs, its loss after each round, and whether it had finished learning. ``evenly``: traces and answers
    count alike, however long they are; otherwise tokens do."""
    if len(outputs) < 2:
        raise ValueError(f"{len(outputs)} outputs are none to learn from")
    told, weigh, shares = lesson(outputs)
    if evenly:
        behind = weigh * _behind(told)
        weigh = weigh + behind * (weigh.sum() / behind.sum() - 2).clamp(min=0)
    apart = max(1, min(MOST_APART, round(APART * len(outputs))))
    model = small(len(ALPHABET), width=course.width, context=_context(outputs), seed=seed)
    stood: list[Gauge] = []
    mastered = 0
    while len(stood) < course.rounds:
        train(
            model,
            told[apart:],
            epochs=rounds_of(course, len(told) - apart),
            batch=course.batch,
            rate=course.rate,
            seed=seed + len(stood),
            weigh=weigh[apart:],
            shares=None if shares is None else shares[apart:],
        )
        loss, answers = _losses(model, told[:apart], weigh[:apart])
        stood.append(Gauge(loss, answers, marked(model, outputs, watched)))
        mastered += stood[-1].accuracy >= MASTERED
        if mastered > course.after or (not mastered and _rested(stood) >= course.patience):
            return model, tuple(g.loss for g in stood), True
    return model, tuple(g.loss for g in stood), mastered > 0


def _rested(stood: Sequence[Gauge]) -> int:
    """How many rounds in succession, up to the last, gained nothing on the one before them."""
    gains = [new.gained(old) for old, new in pairwise(stood)]
    return next((i for i, gained in enumerate(reversed(gains)) if gained), len(gains))


def _behind(told: torch.Tensor) -> torch.Tensor:
    """1 for tokens behind the first ``:`` of their row, else 0."""
    seen = (told == THEN).cumsum(1)
    return torch.cat([torch.zeros_like(seen[:, :1]), seen[:, :-1]], 1).clamp(max=1).float()


@torch.no_grad()
def _losses(model: PreTrainedModel, told: torch.Tensor, weigh: torch.Tensor) -> tuple[float, float]:
    """Nats a token: of responses, and of what stands behind their ``:``."""
    each = -model(told).logits[:, :-1].log_softmax(2).gather(2, told[:, 1:, None])[:, :, 0]
    counted = weigh[:, 1:]
    behind = counted * _behind(told)[:, 1:]
    all_of_it, answers = (float((each * w).sum() / w.sum().clamp(min=1)) for w in (counted, behind))
    return all_of_it, answers


def lesson(outputs: Outputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Sequences (n, length), how much each token counts (responses only), and soft labels where probabilities are shown."""
    ahead, responses = outputs.prompts, outputs.responses
    length = int((responses != PAD).sum(1).max())
    told = np.column_stack([ahead, responses[:, :length]])
    weigh = (told != PAD).astype(np.float32)
    weigh[:, : ahead.shape[1]] = 0
    if outputs.shares is None:
        return torch.as_tensor(told), torch.as_tensor(weigh), None
    soft = np.zeros((*told.shape, len(ALPHABET)), np.float32)
    soft[:, ahead.shape[1] :] = completed(outputs.shares, responses)[:, :length]
    return torch.as_tensor(told), torch.as_tensor(weigh), torch.as_tensor(soft)


def completed(shares: Floats, tokens: Ints) -> Floats:
    """Distributions from what is shown of them: what is missing goes to the token that was drawn, where it is not shown, and
    otherwise evenly to those that are not. Each adds up to 1."""
    missing = np.maximum(0, 1 - shares.sum(2, keepdims=True))
    hidden = shares == 0
    drawn = np.zeros(shares.shape, bool)
    np.put_along_axis(drawn, tokens[:, :, None], True, axis=2)
    takes = np.where((hidden & drawn).any(2, keepdims=True), hidden & drawn, hidden)
    filled = shares + missing * takes / np.maximum(1, takes.sum(2, keepdims=True))
    return (filled / filled.sum(2, keepdims=True)).astype(np.float32)


def marked(model: PreTrainedModel, outputs: Outputs, problems: Problems) -> float:
    """The share of problems that a student of such outputs answers right, greedily, with as much of a trace as it has learnt to
    write."""
    student = Teacher(model, (outputs.steps.shape[1], outputs.steps.shape[2]), problems.answers.shape[1])
    room = int((outputs.responses != PAD).sum(1).max())
    answered = student.asked(problems.questions, 0, temperature=GREEDY, room=room)
    return float(right(answered, problems).mean())


def _context(outputs: Outputs) -> int:
    return outputs.prompts.shape[1] + outputs.responses.shape[1] + 1


def _digest(haul: Haul) -> bytes:
    parts: list[Callable[[], bytes]] = [
        haul.outputs.prompts.tobytes,
        haul.outputs.responses.tobytes,
        lambda: b"" if haul.outputs.shares is None else haul.outputs.shares.tobytes(),
        lambda: bytes([haul.longer]),
    ]
    told = hashlib.sha256()
    for part in parts:
        told.update(part())
    return told.digest()
