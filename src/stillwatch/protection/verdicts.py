"""What may be said once every registered hypothesis was tested: exposure to one campaign's outputs, or nothing.

The rules: no verdict says that a suspect is clean, whatever it shows; what is licensed is said and accuses nobody; and where
the keys of more than one campaign fire, none is accused, since that has other explanations than learning from one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stillwatch.protection.registration import Committed


class Verdict(StrEnum):
    """What a test says of a suspect."""

    LEARNT = "learnt"
    SEVERAL = "several"
    LICENSED = "licensed"
    INCONCLUSIVE = "inconclusive"


ALTERNATIVES = (
    "Resale: the campaign's operator sold or passed on what it collected, and somebody else trained on it.",
    "Re-posting: the outputs stand in public, in a data set or on the web, and were collected from there.",
    "A data vendor: the training text was bought, and the buyer did not know where it came from.",
    "Permitted use: the training was licensed, or was a customer's own fine-tuning, and is missing from the allow-list.",
    "A model between: the suspect was trained on the outputs of another model that had learnt from the campaign's outputs.",
)
"""What a firing key may also mean; it stands in every report. A test shows exposure to outputs, and not who collected them."""

SEVERAL_MEAN = (
    "The suspect's training text holds outputs of several campaigns: one operator behind them, or several sources.",
    "There is a public corpus of such outputs, and the suspect was trained on that.",
    "Somebody imitates the marks: who has enough text of a campaign can make text that carries its mark.",
)
LIMITS = (
    "The p is the chance that a random key, committed to beforehand, would lean so far where it had no part in training. It is "
    "not the chance that the suspect is innocent.",
    "A p far below the threshold says that, and no more: it is printed as < 1e-50 at most.",
    "A test that finds nothing is inconclusive: paraphrase, later training, dilution and text of little entropy hide a mark.",
    "The reference must never have been trained on text that carries the tested keys, or it hides them.",
    "Where served text was itself watermarked, windows that stand earlier in their sequence were left out, so that the mean of "
    "the statistic is exact; its variance is then exact up to what windows do to each other through the text.",
)


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one suspect. ``campaigns`` are those whose keys fire and that no licence covers; ``keys`` all that fire."""

    verdict: Verdict
    campaigns: tuple[str, ...]
    keys: tuple[str, ...]
    sentence: str
    next_steps: tuple[str, ...] = ()


def judge(adjusted: Mapping[str, float], keys: Sequence[Committed], log10_threshold: float) -> Judged:
    """The verdict from the least Holm-adjusted log10 p of each key, by key id. Keys of one campaign speak for it together."""
    firing = [k for k in keys if adjusted[k.key_id] <= log10_threshold]
    accusing = tuple(dict.fromkeys(k.campaign_id for k in firing if not k.licensed))
    ids = tuple(k.key_id for k in firing)
    permitted = "".join(
        f" The key {k.key_id} fires too, and its use is licensed ({k.licensed})." for k in firing if k.licensed
    )
    if len(accusing) == 1:
        return Judged(Verdict.LEARNT, accusing, ids, f"Learnt from campaign {accusing[0]}'s outputs.{permitted}")
    if accusing:
        said = f"More than one key fires: of the campaigns {', '.join(accusing)}. None is accused alone.{permitted}"
        steps = ("Test canaries of each of these campaigns.", "Ask for open weights, if only text was at hand.")
        return Judged(Verdict.SEVERAL, accusing, ids, said, steps)
    if firing:
        return Judged(
            Verdict.LICENSED, (), ids, f"Only what is licensed fires.{permitted} Of the others: inconclusive."
        )
    steps = ("Ask for open weights or more text; test canaries.", "Serve more of the campaign's outputs under its key.")
    return Judged(Verdict.INCONCLUSIVE, (), (), "Inconclusive: no key fires. That does not clear the suspect.", steps)
