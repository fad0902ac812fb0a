"""Suspects by the hundred that learnt from the provider and never from the tested key: none may be accused.

Each is a small model of its own: one of some base models, fine-tuned on its own half of unwatermarked answers, or of answers
under the key of a campaign that is not the tested one. Each is tested twice, on weights and on text:

- by a key of its own, on a probe that carries that key and that the suspect never saw (the hard null: the probe knows the
  key). These keys are independent, so these p must be uniform.
- by the key of campaign A, the same for all, as a provider would who tests everybody. These p hang together, since one key
  meets one language; of them is asked only that none accuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from stillwatch.protection.bench.corpus import rows as rows_of
from stillwatch.protection.bench.learning import Lab, chance
from stillwatch.protection.bench.reading import Tell, of_text, of_weights, said, told
from stillwatch.protection.bench.rows import Found, Row, Table, below, uniform
from stillwatch.protection.bench.training import train
from stillwatch.protection.registration import THRESHOLD

BASES, CAMPAIGNS = 4, 8
PROBE = 64
TEXT_TOKENS = 2800
TESTS = ("own weights", "own text", "A weights", "A text")


@dataclass(frozen=True, slots=True)
class Asked:
    """How many suspects a seed has."""

    suspects: int


ASKED = {"full": Asked(200), "small": Asked(20)}


def measure(lab: Lab, asked: Asked, tell: Tell) -> Found:
    """log10 p of every suspect of one seed, by test, without any correction."""
    bases = [_base(lab, i) for i in range(BASES)]
    found: dict[str, list[float]] = {test: [] for test in TESTS}
    for number in range(asked.suspects):
        tell(number / asked.suspects, f"innocent suspect {number + 1} of {asked.suspects}")
        suspect = _suspect(lab, bases[number % BASES], number)
        for test, p in zip(TESTS, _tested(lab, suspect, number), strict=True):
            found[test].append(p)
    return {"log10_p": found}


def _base(lab: Lab, number: int) -> PreTrainedModel:
    """Every other base is of another family's texts."""
    model = lab.untrained("innocent base", number)
    texts = rows_of(lab.parts[3 if number % 2 else 1], lab.vocabulary, lab.size.length)
    train(model, texts, epochs=lab.size.base_epochs, seed=chance(lab.seed, "innocent base", number))
    return model


def _suspect(lab: Lab, base: PreTrainedModel, number: int) -> PreTrainedModel:
    key = lab.key(f"other {number // 2 % CAMPAIGNS}") if number % 2 else None
    draw = torch.Generator().manual_seed(chance(lab.seed, "innocent", number))
    bought = torch.randperm(lab.size.pool, generator=draw)[: lab.size.pool // 2]
    return lab.taught(base, lab.answers(key)[bought], "innocent", number)


def _tested(lab: Lab, suspect: PreTrainedModel, number: int) -> Iterator[float]:
    own, a = lab.key(f"fresh {number}"), lab.key("A")
    left = len(lab.prompts) - lab.size.pool - PROBE
    first = lab.size.pool + number * PROBE % left
    probe = lab.asked(lab.prompts[first : first + PROBE], own, "innocent probe", number)
    text = of_text(lab, said(lab, suspect, "innocent", number, tokens=TEXT_TOKENS))
    yield told(of_weights(lab, suspect, probe), own)["log10_p"]
    yield told(text, own)["log10_p"]
    yield told(of_weights(lab, suspect, lab.answers(a)[:PROBE]), a)["log10_p"]
    yield told(text, a)["log10_p"]


def rows(found: Sequence[Found], asked: Asked) -> list[Row]:
    """None accused, and uniform."""
    by_test = _by_test(found)
    n, least = len(by_test["own text"]), min(min(ps) for ps in by_test.values())
    accused = sum(p <= math.log10(THRESHOLD) for ps in by_test.values() for p in ps)
    tried = [uniform(by_test[test]) for test in TESTS[:2]]
    return [
        Row("S2a", f"{n} innocent suspects, {len(TESTS)} tests each, at p = {THRESHOLD:g} with no correction: accused",
            "none", f"{accused}; least log10 p {least:.2f}", not accused),
        Row("S2b", "p of a key of the suspect's own, whose mark the probe carries: uniform (KS), weights and text",
            "p > 0.001 for both", " and ".join(f"{ks:.2g}" for ks in tried), min(tried) > 0.001),
    ]  # fmt: skip


def _by_test(found: Sequence[Found]) -> dict[str, list[float]]:
    return {test: [p for f in found for p in f["log10_p"][test]] for test in TESTS}


def tables(found: Sequence[Found]) -> Iterator[Table]:
    """How often p fell below some limits."""
    lines = tuple(
        (test, f"{len(ps)}", *(f"{below(ps, limit):.3f}" for limit in (0.1, 0.01, 0.001)), f"{min(ps):.2f}")
        for test, ps in _by_test(found).items()
    )
    note = "A's key is the same for all suspects, so the last two lines hang together and need not be uniform."
    yield Table(
        "Innocent suspects", ("key, read", "suspects", "p < 0.1", "p < 0.01", "p < 0.001", "least log10 p"), lines, note
    )
