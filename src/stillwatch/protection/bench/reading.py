"""What a suspect of the bench shows, read and judged as ``stillwatch prove`` does it: the same statistics, the same verdicts.

Two figures are told of each reading: of all the text at once (what the tables of power are of), and what ``judged`` would
say, which asks both halves of the text, raises p by what vetting may have done, and adjusts it for all keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from stillwatch.protection import opened, outcomes
from stillwatch.protection.bench.learning import Lab, chance
from stillwatch.protection.bench.training import generate
from stillwatch.protection.differences import Differences, of_counts
from stillwatch.protection.keys import Key
from stillwatch.protection.registration import THRESHOLD, Committed
from stillwatch.protection.verdicts import Judged, judge
from stillwatch.protection.vetting import FACTOR

CLOSED_TOKENS = 5000
"""Tokens that a suspect behind an interface is asked for."""
Tell = Callable[[float, str], None]
"""Is told which share of a measurement is done, and what comes next."""


def of_weights(lab: Lab, suspect: PreTrainedModel, served: Tensor, width: int = 1) -> Differences:
    """What an open suspect would say other than the teacher, on answers that were served."""
    return opened.of_models(suspect, lab.teacher, lab.sequences(served), width)


def of_text(lab: Lab, said: Tensor, width: int = 1) -> Differences:
    """What a suspect said other than the teacher does without a watermark."""
    return of_counts(lab.sequences(said), lab.sequences(lab.answers()), width)


def said(lab: Lab, suspect: PreTrainedModel, *words: object, tokens: int = CLOSED_TOKENS) -> Tensor:
    """At least so many tokens that a suspect writes when it is asked the prompts of the campaign."""
    asked = lab.prompts[: math.ceil(tokens / lab.size.answer)]
    return generate(suspect, asked, lab.size.answer, seed=chance(lab.seed, "said", *words))


def told(differences: Differences, key: Key) -> dict[str, float]:
    """z and log10 p of a reading."""
    found = outcomes.leaning(differences, key)
    return {"z": round(found.z, 3), "log10_p": round(found.log10_p, 4)}


def judged(halves: Sequence[Differences], keys: Sequence[Key]) -> Judged:
    """The verdict on two halves of a text, over all the keys."""
    found = [max(outcomes.leaning(half, key).log10_p for half in halves) for key in keys]
    adjusted = outcomes.holm([min(p + math.log10(FACTOR), 0.0) for p in found])
    committed = [Committed(k.key_id, k.campaign_id, k.epoch, k.scheme, k.commitment) for k in keys]
    by_key = dict(zip((k.key_id for k in keys), adjusted, strict=True))
    return judge(by_key, committed, math.log10(THRESHOLD))
