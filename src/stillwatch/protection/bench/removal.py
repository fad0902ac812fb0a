"""What takes the mark out again: paraphrase, a model between, later training, dilution; and what that costs who distils.

- *Rewritten*: the attacker's own base model, which never saw the provider, goes through each answer from left to right and
  replaces tokens by its own, each given what stands before it. A model of this size cannot restate a text; it does what a
  paraphraser does to the mark, which is to break pairs of neighbouring tokens, and harms the content more than a real one.
- *Second-hand*: a new student of what a first student says; the provider's words are never trained on.
- *Later training*: the student is trained further on human texts.
- *Diluted*: nine of ten answers, or 99 of 100, come without the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stillwatch.protection.bench.corpus import rows as rows_of
from stillwatch.protection.bench.learning import Lab, chance
from stillwatch.protection.bench.reading import Tell, judged, of_text, of_weights, said, told
from stillwatch.protection.bench.rows import Found, Over, Row, Table
from stillwatch.protection.bench.training import generate, nll, rewritten
from stillwatch.protection.keys import Key
from stillwatch.protection.verdicts import Verdict

KEYS = 10
"""Hypotheses of a verdict: the guilty key, and others."""


@dataclass(frozen=True, slots=True)
class Asked:
    """``probe`` answers; whether the student to which nothing was done must be found out; ``attacks`` by name, all
    of them where none is named."""

    probe: int
    fires: bool
    attacks: tuple[str, ...] = ()


NOTHING, NEVER = "nothing", "never learnt from the provider"
ASKED = {
    "full": Asked(1024, True),
    "small": Asked(512, True, (NOTHING, "70 % of tokens rewritten", "second-hand", "diluted, 90 % unmarked", NEVER)),
}


def measure(lab: Lab, asked: Asked, tell: Tell) -> Found:
    """Power, verdict and quality of the suspect after each attack."""
    key = lab.key("A")
    keys = [key, *(lab.key(f"decoy {i}") for i in range(KEYS - 1))]
    served = lab.answers(key)[: asked.probe]
    plain = lab.answers()
    attacks = {}
    names = asked.attacks or tuple(ATTACKS)
    for i, name in enumerate(names):
        tell(i / len(names), name)
        suspect = ATTACKS[name](lab, key)
        verdict = judged([of_weights(lab, suspect, served[half::2]) for half in (0, 1)], keys)
        attacks[name] = {
            "open": told(of_weights(lab, suspect, served), key),
            "closed": told(of_text(lab, said(lab, suspect, name)), key),
            "verdict": str(verdict.verdict),
            "accused": list(verdict.campaigns),
            "nll": round(nll(suspect, plain, lab.size.prompt), 4),
        }
    return {"attacks": attacks}


def _rewritten(share: float) -> Callable[[Lab, Key], PreTrainedModel]:
    def make(lab: Lab, key: Key) -> PreTrainedModel:
        answers = lab.answers(key)
        draw = torch.Generator().manual_seed(chance(lab.seed, "replaced", share))
        replaced = torch.rand(answers.shape, generator=draw) < share
        replaced[:, : lab.size.prompt] = False
        said = rewritten(lab.base, answers, replaced, seed=chance(lab.seed, "rewritten", share))
        return lab.taught(lab.base, said, "rewritten", share)

    return make


def _second_hand(lab: Lab, key: Key) -> PreTrainedModel:
    prompts: Tensor = lab.prompts[: lab.size.pool]
    first = lab.student([(key, 1.0)])
    said = generate(first, prompts, lab.size.answer, seed=chance(lab.seed, "second-hand"))
    return lab.taught(lab.base, said, "second-hand")


def _later(times: int) -> Callable[[Lab, Key], PreTrainedModel]:
    def make(lab: Lab, key: Key) -> PreTrainedModel:
        texts = rows_of(lab.parts[3], lab.vocabulary, lab.size.length)
        return lab.later(lab.student([(key, 1.0)]), texts, times, "later", times)

    return make


ATTACKS: dict[str, Callable[[Lab, Key], PreTrainedModel]] = {
    NOTHING: lambda lab, key: lab.student([(key, 1.0)]),
    "30 % of tokens rewritten": _rewritten(0.3),
    "70 % of tokens rewritten": _rewritten(0.7),
    "second-hand": _second_hand,
    "trained once more, on human texts": _later(1),
    "trained four times more, on human texts": _later(4),
    "diluted, 90 % unmarked": lambda lab, key: lab.student([(key, 0.1)]),
    "diluted, 99 % unmarked": lambda lab, key: lab.student([(key, 0.01)]),
    NEVER: lambda lab, key: lab.base,
}


def rows(found: Sequence[Found], asked: Asked) -> list[Row]:
    """The verdicts are of two kinds, and of nobody else."""
    verdicts = [a["verdict"] for f in found for a in f["attacks"].values()]
    accused = {c for f in found for a in f["attacks"].values() for c in a["accused"]}
    untouched = [f["attacks"][NOTHING]["verdict"] for f in found]
    never = [f["attacks"][NEVER]["verdict"] for f in found]
    allowed = set(verdicts) <= {Verdict.LEARNT, Verdict.INCONCLUSIVE} and accused <= {"A"}
    fires = not asked.fires or set(untouched) == {Verdict.LEARNT}
    got = ", ".join(f"{v}: {verdicts.count(v)}" for v in sorted(set(verdicts)))
    holds = allowed and fires and set(never) == {Verdict.INCONCLUSIVE}
    asks = "learnt where nothing was done; else learnt from A, or inconclusive; never clean, nobody else accused"
    return [Row("S5", f"verdicts after each attack, {KEYS} keys, two halves", asks, got, holds)]


def tables(found: Sequence[Found]) -> Iterator[Table]:
    """Power, verdicts and quality by attack."""
    lines = []
    for name in found[0]["attacks"]:
        at = [f["attacks"][name] for f in found]
        fired = sum(a["verdict"] == Verdict.LEARNT for a in at)
        weights, text = (Over.of([a[how]["log10_p"] for a in at]).text() for how in ("open", "closed"))
        lines.append((name, weights, text, f"{fired} of {len(at)}", Over.of([a["nll"] for a in at]).text(2)))
    head = (
        "attack",
        "open weights: log10 p",
        "5,000 tokens: log10 p",
        "verdict learnt",
        "loss on the teacher's answers",
    )
    note = (
        "The others are inconclusive. The loss, nats a token, is what the distiller wants small: what raises it costs."
    )
    yield Table("Removal", head, tuple(lines), note)
