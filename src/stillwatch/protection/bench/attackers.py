"""Distillers that know of the defence: what each makes of outputs it was served, and what that costs.

Costs are stated in queries to the provider and in *own traces*: whole traces the distiller had to write, or pay for,
elsewhere. None of them sees what the provider hides, and none can buy more than its budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from stillwatch.protection.bench.defences import Defence, Outputs
from stillwatch.protection.bench.models import small
from stillwatch.protection.bench.tasks import ALPHABET, END, OPEN, PAD, THEN, Ints, Task, respelt
from stillwatch.protection.bench.training import generate, train

RULE = 0.95
"""A filter keeps what is no stranger than this share of its own traces."""


@dataclass(frozen=True, slots=True)
class Course:
    """How models of the bench learn: ``steps`` of ``batch`` outputs a round, up to ``rounds`` while something is gained;
    ``after``: rounds that follow once it is nearly always right, to be so when it is sampled from and not asked for its best;
    ``patience``: rounds without a gain, one after the other, that end it: what must be found out alone is learnt late."""

    steps: int
    rounds: int
    batch: int = 32
    rate: float = 4e-3
    width: int = 64
    after: int = 0
    patience: int = 3


@dataclass(frozen=True, slots=True)
class Market:
    """What a distiller can get. ``served``: outputs under the defence, ``plain``: as many, to other questions, of a campaign that
    nothing is done about; both in the order they are bought in. ``own``: its own traces. ``queries``: its budget."""

    task: Task
    served: Outputs
    plain: Outputs
    own: Outputs
    queries: int
    course: Course
    seed: int

    def bought(self, times: float = 1.0) -> Outputs:
        """Outputs under the defence for ``times`` the budget."""
        return afforded(self.task, self.served, self.queries, times)


@dataclass(frozen=True, slots=True)
class Haul:
    """What a student is trained on, and its cost. ``longer``: times the steps of the naive student's rounds."""

    outputs: Outputs
    queries: int
    own: int = 0
    longer: int = 1


@dataclass(frozen=True, slots=True)
class Attacker:
    """A way to train on outputs; ``answers`` says against which defences it is another one than the naive way."""

    name: str
    meaning: str
    take: Callable[[Market], Haul]
    answers: Callable[[Defence], bool]


def afforded(task: Task, outputs: Outputs, queries: int, times: float = 1.0) -> Outputs:
    """As many of the outputs, from the first, as ``times`` a budget of ``queries`` pays for: by the query, or by the token
    (questions and what is shown, and at least what a query is worth) where the task has a purse. ValueError where there are
    fewer outputs than that."""
    price = np.ones(len(outputs), np.int64)
    if task.purse is not None:
        price = np.maximum(task.purse, outputs.questions.shape[1] + (outputs.responses != PAD).sum(1) - 2)
    paid, budget = np.cumsum(price), round(times * queries * (task.purse or 1))
    count = int(np.searchsorted(paid, budget, side="right"))
    if count == len(outputs) and paid[-1] + price.min() <= budget:
        raise ValueError(f"{task.name}: there are only {count} outputs, and the budget pays for more")
    return outputs.take(slice(count))


def naive(market: Market) -> Haul:
    """Trains on what it is served."""
    outputs = market.bought()
    return Haul(outputs, len(outputs))


def more(market: Market) -> Haul:
    """Twice the budget."""
    outputs = market.bought(2)
    return Haul(outputs, len(outputs))


def longer(market: Market) -> Haul:
    """Twice the steps on the same outputs."""
    return replace(naive(market), longer=2)


def answers_only(market: Market) -> Haul:
    """Throws the traces away, and with them all that was done to them."""
    haul = naive(market)
    return replace(haul, outputs=_bare(haul.outputs))


def paraphrase(market: Market) -> Haul:
    """Writes each digit of a trace anew in one of its two spellings, by a fair coin: the only free choice in these texts, so what
    a watermark put there is gone. It cannot put shuffled steps in order."""
    haul = naive(market)
    rng = np.random.default_rng([market.seed, 0xFA])
    return replace(haul, outputs=replace(haul.outputs, steps=respelt(haul.outputs.steps, rng), shares=None))


def mixing(market: Market) -> Haul:
    """Half of the budget goes to a campaign that nothing is done about."""
    defended = afforded(market.task, market.served, market.queries, 0.5)
    plain = afforded(market.task, market.plain, market.queries, 0.5)
    return Haul(defended.joined(plain), len(defended) + len(plain))


def filtering(market: Market) -> Haul:
    """Drops traces that a small model of its own traces finds strange (by perplexity), and keeps their answers."""
    haul = naive(market)
    model, own = _model(market, market.own), market.own
    held = own.take(slice(len(own) // 2, None))
    strange = surprise(model, haul.outputs) > np.quantile(surprise(model, held), RULE)
    steps = np.where(strange[:, None, None], PAD, haul.outputs.steps)
    return replace(haul, outputs=replace(haul.outputs, steps=steps, shares=None), own=len(own))


def inversion(market: Market) -> Haul:
    """Trace inversion (2603.07267): a model trained on its own traces writes, from question, answer and what is shown of the
    trace, the whole one; the student learns from those and the distiller's own."""
    haul, own = naive(market), market.own
    # What is left out of a trace is left out of its own traces too, for the model to learn to put it back.
    shown = (haul.outputs.steps != PAD).any(axis=(0, 2))
    known = replace(own, steps=np.where(shown[None, :, None], own.steps, PAD))
    length = own.steps.shape[1] * own.steps.shape[2]
    told = np.column_stack([_ahead(known), own.steps.reshape(len(own), length)])
    model = _trained(market, told, told.shape[1] - length)
    asked = torch.as_tensor(_ahead(haul.outputs))
    rebuilt = generate(model, asked, length, temperature=1e-4, seed=market.seed).numpy()[:, asked.shape[1] :]
    again = replace(haul.outputs, steps=rebuilt.reshape(len(rebuilt), *own.steps.shape[1:]), shares=None)
    return Haul(again.joined(own), haul.queries, len(own))


def own_traces(market: Market) -> Haul:
    """No query at all: only its own traces. Who beats this with an attack has gained something from the provider."""
    return Haul(market.own, 0, len(market.own))


def surprise(model: PreTrainedModel, outputs: Outputs) -> NDArray[np.float64]:
    """Mean negative log-likelihood of each response, nats a token."""
    told = torch.as_tensor(np.column_stack([outputs.prompts, outputs.responses]))
    ahead = outputs.prompts.shape[1]
    with torch.no_grad():
        shares = torch.cat([model(rows).logits[:, ahead - 1 : -1].log_softmax(2) for rows in told.split(512)])
    each = -shares.gather(2, told[:, ahead:, None])[:, :, 0]
    counted = told[:, ahead:] != PAD
    return ((each * counted).sum(1) / counted.sum(1)).double().numpy()


def rounds_of(course: Course, rows: int) -> int:
    """Epochs of a round over so many outputs: about ``steps`` batches."""
    return max(1, round(course.steps / max(1, -(-rows // course.batch))))


def _hides(defence: Defence) -> bool:
    return defence.every != 1


ATTACKERS = {
    a.name: a
    for a in (
        Attacker("naive", "trains on what it is served", naive, lambda d: True),
        Attacker("answers only", "throws traces away", answers_only, lambda d: d.every > 0 and not d.top),
        Attacker("paraphrase", "spells every digit anew", paraphrase, lambda d: d.key is not None),
        Attacker(
            "mixing", "half from a campaign without the defence", mixing, lambda d: _hides(d) or d.rewrite is not None
        ),
        Attacker("filtering", "drops strange traces", filtering, lambda d: d.rewrite is not None),
        Attacker("inversion", "rebuilds traces", inversion, _hides),
        Attacker("own traces", "asks nothing", own_traces, lambda d: d.every == 0),
        Attacker("more", "twice the budget", more, _hides),
        Attacker("longer", "twice the steps", longer, _hides),
    )
}


def _bare(outputs: Outputs) -> Outputs:
    return replace(outputs, steps=np.full_like(outputs.steps, PAD), shares=None)


def _ahead(outputs: Outputs) -> Ints:
    """What a rebuilt trace is written behind, in rows of one length: the answer, what is shown, the question."""
    then, end, opened = (np.full((len(outputs), 1), token) for token in (THEN, END, OPEN))
    shown = outputs.steps.reshape(len(outputs), -1)
    return np.column_stack([shown, then, outputs.answers, end, outputs.questions, opened])


def _model(market: Market, own: Outputs) -> PreTrainedModel:
    """A model of the first half of its own outputs, held against the rest."""
    half = own.take(slice(len(own) // 2))
    told = np.column_stack([half.prompts, half.responses])
    return _trained(market, told, half.prompts.shape[1])


def _trained(market: Market, told: Ints, ahead: int) -> PreTrainedModel:
    course = market.course
    model = small(len(ALPHABET), width=course.width, context=told.shape[1] + 1, seed=market.seed)
    weigh = np.zeros(told.shape, np.float32)
    weigh[:, ahead:] = told[:, ahead:] != PAD
    train(
        model,
        torch.as_tensor(told),
        epochs=rounds_of(course, len(told)),
        batch=course.batch,
        rate=course.rate,
        seed=market.seed,
        weigh=torch.as_tensor(weigh),
    )
    return model
