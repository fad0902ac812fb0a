"""Teachers and students of generated tasks: trained until nothing more is gained, and marked to the letter.

A student that has not finished learning says nothing of a defence. So training goes in rounds: it ends where the student is
right nearly always, or where a whole further round changed neither loss nor accuracy; one that was stopped by the last
round while it still gained is not ``settled``, and is reported as such.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedModel

from stillwatch.protection.bench.attackers import Course, Haul, rounds_of
from stillwatch.protection.bench.defences import Floats, Outputs, Teacher, right, whole
from stillwatch.protection.bench.models import small
from stillwatch.protection.bench.tasks import ALPHABET, PAD, Ints, Problems
from stillwatch.protection.bench.training import train

GREEDY = 1e-4
"""The temperature students answer at: the most probable token."""
MASTERED = 0.995
GAINED_LOSS, GAINED_ACCURACY = 0.01, 0.02
"""A round that lowers the loss by a smaller share, and moves accuracy by less, has gained nothing."""


@dataclass(frozen=True, slots=True)
class Student:
    """What became of a student: ``accuracy`` on problems nobody trained on, the loss at the end of each round (nats a token),
    whether it had finished learning, and its size."""

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
    """A teacher that learnt the task from right traces, and whether it had finished."""
    model, _, settled = trained(whole(problems), course, watched, seed)
    return Teacher(model, (problems.steps.shape[1], problems.steps.shape[2]), problems.answers.shape[1]), settled


def trained(
    outputs: Outputs, course: Course, watched: Problems, seed: int
) -> tuple[PreTrainedModel, tuple[float, ...], bool]:
    """A model of these outputs, its loss after each round, and whether it had finished learning."""
    if not len(outputs):
        raise ValueError("there is no output to learn from")
    told, weigh, shares = lesson(outputs)
    model = small(len(ALPHABET), width=course.width, context=_context(outputs), seed=seed)
    losses: list[float] = []
    before = 0.0
    for turn in range(course.rounds):
        epochs = rounds_of(course, len(told))
        lost = train(
            model,
            told,
            epochs=epochs,
            batch=course.batch,
            rate=course.rate,
            seed=seed + turn,
            weigh=weigh,
            shares=shares,
        )
        losses.append(lost[-1])
        now = marked(model, outputs, watched)
        if now >= MASTERED or (turn and _idle(losses[-2], losses[-1], before, now)):
            return model, tuple(losses), True
        before = now
    return model, tuple(losses), False


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
    student = Teacher(model, outputs.steps.shape[1:], problems.answers.shape[1])  # type: ignore[arg-type]
    room = int((outputs.responses != PAD).sum(1).max())
    answered = student.asked(problems.questions, 0, temperature=GREEDY, room=room)
    return float(right(answered, problems).mean())


def _idle(loss: float, new_loss: float, accuracy: float, new_accuracy: float) -> bool:
    return loss - new_loss < GAINED_LOSS * loss and abs(new_accuracy - accuracy) < GAINED_ACCURACY


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
