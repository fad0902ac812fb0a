"""What is served in place of a whole output: less of the trace, less of the probabilities, a watermark, a rewritten trace.

A defence touches the trace and what goes with it, never the answer: where the teacher is right, so is what is served. The
teacher always works with its whole trace; what differs is what leaves. ``Rewriter`` is the plug-in point of reasoning
protection; the one here is an example and experimental: who reads the trace is told what the teacher did not do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from stillwatch.protection.bench.tasks import ALPHABET, END, OPEN, PAD, THEN, Ints, Problems
from stillwatch.protection.bench.training import generate
from stillwatch.protection.keys import Key

Floats = NDArray[np.float32]
Rewriter = Callable[[Ints, np.random.Generator], Ints]
"""Another trace for each: steps (n, s, w) to steps of the same shape, ``PAD`` where a step is left out."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs for n questions: ``questions`` (n, q), ``steps`` (n, s, w) and ``answers`` (n, a), filled up with ``PAD``.

    ``shares`` (n, length of ``responses``, vocabulary) are the probabilities shown for each token of the response, where any
    are: 0 for those not shown.
    """

    questions: Ints
    steps: Ints
    answers: Ints
    shares: Floats | None = None

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def prompts(self) -> Ints:
        """(n, q + 1): what the response is written behind."""
        return np.column_stack([self.questions, np.full(len(self), OPEN)])

    @property
    def responses(self) -> Ints:
        """(n, s * w + a + 2): trace, ``:``, answer, ``.``; what fills up comes last."""
        sign = np.full((len(self), 1), THEN), np.full((len(self), 1), END)
        return packed(np.column_stack([self.steps.reshape(len(self), -1), sign[0], self.answers, sign[1]]))

    @property
    def shown(self) -> int:
        """Tokens of traces and answers that were served."""
        return int((self.steps != PAD).sum() + (self.answers != PAD).sum())

    def take(self, rows: Ints | slice) -> Outputs:
        """These rows."""
        shares = None if self.shares is None else self.shares[rows]
        return Outputs(self.questions[rows], self.steps[rows], self.answers[rows], shares)

    def joined(self, other: Outputs) -> Outputs:
        """Both, of one task; without probabilities where only one has them."""
        shares = None if self.shares is None or other.shares is None else np.concatenate([self.shares, other.shares])
        questions, steps, answers = (
            np.concatenate(pair)
            for pair in (
                (self.questions, other.questions),
                (self.steps, other.steps),
                (self.answers, other.answers),
            )
        )
        return Outputs(questions, steps, answers, shares)


@dataclass(frozen=True, slots=True)
class Defence:
    """What is served. ``every``: each so many-th step of the trace is shown (1 all, 0 none); ``top``: of how many tokens the
    probability is shown, at each place (0: of none)."""

    name: str
    meaning: str
    every: int = 1
    top: int = 0
    key: Key | None = None
    rewrite: Rewriter | None = None


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that answers questions of one task; ``steps`` (s, w) and ``answer`` are the shape of a whole response."""

    model: PreTrainedModel
    steps: tuple[int, int]
    answer: int

    def asked(
        self,
        questions: Ints,
        seed: int,
        *,
        key: Key | None = None,
        temperature: float = 1.0,
        room: int | None = None,
    ) -> Outputs:
        """Its outputs of up to ``room`` tokens (None: those of a whole response). One of another shape is read as far as it
        goes: what stands behind ``:`` is its answer."""
        prompts = torch.as_tensor(np.column_stack([questions, np.full(len(questions), OPEN)]))
        written = generate(
            self.model, prompts, room or self.length, key=key, temperature=temperature, seed=seed
        ).numpy()
        return read(questions, written[:, prompts.shape[1] :], self.steps, self.answer)

    @property
    def length(self) -> int:
        """Tokens of a whole response."""
        return self.steps[0] * self.steps[1] + self.answer + 2

    @torch.no_grad()
    def shares(self, outputs: Outputs) -> Floats:
        """Its distribution (n, length, vocabulary) at each token of these responses."""
        told = torch.as_tensor(np.column_stack([outputs.prompts, outputs.responses]))
        ahead = outputs.prompts.shape[1] - 1
        parts = [self.model(rows).logits[:, ahead:-1].softmax(2) for rows in told.split(512)]
        return torch.cat(parts).numpy()


def read(questions: Ints, responses: Ints, steps: tuple[int, int], answer: int) -> Outputs:
    """Outputs from raw responses: up to ``:`` the trace, up to ``.`` the answer; neither is longer than its shape."""
    n, places = len(responses), np.arange(responses.shape[1])
    opened = _first(responses == THEN)
    ended = _first((responses == END) & (places > opened[:, None]))
    traces = np.where(places < opened[:, None], responses, PAD)[:, : steps[0] * steps[1]]
    inside = (places > opened[:, None]) & (places < ended[:, None])
    answers = packed(np.where(inside, responses, PAD))[:, :answer]
    # An answer that goes on beyond its shape is another answer, not this one.
    answers[(inside & (responses != PAD)).sum(1) > answer] = PAD
    return Outputs(questions, _filled(traces, steps[0] * steps[1]).reshape(n, *steps), _filled(answers, answer))


def whole(problems: Problems) -> Outputs:
    """The outputs of a teacher that is never wrong."""
    return Outputs(problems.questions, problems.steps, problems.answers)


def right(outputs: Outputs, problems: Problems) -> NDArray[np.bool_]:
    """Which answers are the problems' own, to the letter."""
    return (outputs.answers == problems.answers).all(1)


def served(defence: Defence, teacher: Teacher, questions: Ints, seed: int) -> Outputs:
    """What the teacher's customers get for these questions under a defence."""
    outputs = teacher.asked(questions, seed, key=defence.key)
    if defence.top:
        outputs = replace(outputs, shares=capped(teacher.shares(outputs), defence.top))
    return defended(defence, outputs, seed)


def defended(defence: Defence, outputs: Outputs, seed: int) -> Outputs:
    """Whole outputs with less of the trace, or another one. Answers are the same; ValueError where a rewriter changes a shape, or
    where steps are left out of outputs that show probabilities (those of what is hidden would tell it)."""
    steps = outputs.steps
    if defence.every != 1:
        kept = np.zeros(steps.shape[1], bool)
        if defence.every:
            kept[defence.every - 1 :: defence.every] = True
        steps = np.where(kept[None, :, None], steps, PAD)
    if defence.rewrite is not None:
        steps = defence.rewrite(steps, np.random.default_rng([seed, 0x7E]))
        if steps.shape != outputs.steps.shape:
            raise ValueError(f"{defence.name}: steps of shape {steps.shape} in place of {outputs.steps.shape}")
    if outputs.shares is not None and not np.array_equal(steps, outputs.steps):
        raise ValueError(f"{defence.name}: probabilities are shown for steps that are not")
    return replace(outputs, steps=steps)


def capped(shares: Floats, top: int) -> Floats:
    """The ``top`` largest probabilities at each place, and 0 for the rest."""
    if top >= shares.shape[-1]:
        return shares
    least = np.partition(shares, -top, axis=-1)[..., -top, None]
    return np.where(shares >= least, shares, 0).astype(np.float32)


def shuffled(steps: Ints, rng: np.random.Generator) -> Ints:
    """Experimental: the steps of each trace in another order, the last quarter of them cut. The answer is not its to touch."""
    order = np.argsort(rng.random(steps.shape[:2]), axis=1)
    mixed = np.take_along_axis(steps, order[:, :, None], axis=1)
    mixed[:, steps.shape[1] - steps.shape[1] // 4 :] = PAD
    return mixed


def catalogue(key: Key) -> dict[str, Defence]:
    """The defences that are measured, by name; ``key`` is the watermark's."""
    size = len(ALPHABET)
    listed = (
        Defence("full", "the whole trace, no probabilities"),
        Defence("summary", "every third step", every=3),
        Defence("withheld", "the answer alone", every=0),
        Defence("logprobs-all", "the whole trace, all probabilities", top=size),
        Defence("logprobs-20", "the whole trace, the 20 largest probabilities", top=20),
        Defence("logprobs-5", "the whole trace, the 5 largest probabilities", top=5),
        Defence("logprobs-1", "the whole trace, the largest probability", top=1),
        Defence("watermarked", "the whole trace, with a watermark", key=key),
        Defence("rewritten", "the trace shuffled and cut (experimental)", rewrite=shuffled),
    )
    return {d.name: d for d in listed}


def packed(tokens: Ints) -> Ints:
    """Each row with what fills up moved to its end, all else in order."""
    return np.take_along_axis(tokens, np.argsort(tokens == PAD, axis=1, kind="stable"), axis=1)


def _first(hits: NDArray[np.bool_]) -> Ints:
    """Where the first hit of each row is; the row's length where none is."""
    return np.where(hits.any(1), hits.argmax(1), hits.shape[1])


def _filled(tokens: Ints, length: int) -> Ints:
    return np.pad(tokens, ((0, 0), (0, length - tokens.shape[1])), constant_values=PAD)
