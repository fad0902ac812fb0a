"""Who was it: many campaigns, each with its key and served text of its own, and a suspect that learnt from one or two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from stillwatch.protection.bench.learning import Lab
from stillwatch.protection.bench.reading import Tell, judged, of_weights, told
from stillwatch.protection.bench.rows import Found, Over, Row, Table
from stillwatch.protection.differences import Differences
from stillwatch.protection.keys import Key, Scheme
from stillwatch.protection.outcomes import holm
from stillwatch.protection.registration import THRESHOLD


@dataclass(frozen=True, slots=True)
class Asked:
    """``keys`` in all, ``probe`` answers that each campaign was served, under which ``scheme``."""

    keys: int
    probe: int
    scheme: Scheme


ASKED = {"full": Asked(200, 192, Scheme()), "small": Asked(40, 128, Scheme(delta=4.0))}
"""The small one leans twice as hard: its students learn too little to be told from forty others by the usual mark."""
CASES = {"one": ("C-0",), "two": ("C-0", "C-1")}
"""The guilty campaigns; two share the answers in halves."""


def measure(lab: Lab, asked: Asked, tell: Tell) -> Found:
    """Adjusted log10 p of every campaign's key for a suspect of one campaign, and for one of two; and the verdicts."""
    keys = [lab.key(f"C-{i}", asked.scheme) for i in range(asked.keys)]
    suspects = {case: lab.student([(lab.key(c, asked.scheme), 1 / len(of)) for c in of]) for case, of in CASES.items()}
    found: dict[str, list[float]] = {case: [] for case in CASES}
    for number, key in enumerate(keys):
        tell(number / len(keys), f"key {number + 1} of {len(keys)}")
        for case, reading in _readings(lab, suspects, key, number, asked.probe):
            found[case].append(told(reading, key)["log10_p"])
    return {case: {"adjusted": holm(ps), **_verdict(lab, suspects[case], keys, asked)} for case, ps in found.items()}


def _readings(
    lab: Lab, suspects: dict[str, PreTrainedModel], key: Key, number: int, probe: int
) -> Iterator[tuple[str, Differences]]:
    left = len(lab.prompts) - lab.size.pool - probe
    first = lab.size.pool + number * probe % left
    served = lab.asked(lab.prompts[first : first + probe], key, "served", key.key_id)
    for case, suspect in suspects.items():
        yield case, of_weights(lab, suspect, served)


def _verdict(lab: Lab, suspect: PreTrainedModel, keys: Sequence[Key], asked: Asked) -> Found:
    """What would be said of it, from two halves of what the first campaign was served."""
    served = lab.answers(keys[0])[: 4 * asked.probe]
    found = judged([of_weights(lab, suspect, served[half::2]) for half in (0, 1)], keys)
    return {"verdict": str(found.verdict), "campaigns": list(found.campaigns), "said": found.sentence}


def rows(found: Sequence[Found], asked: Asked) -> list[Row]:
    """The guilty alone; and both of two."""
    return [_alone(found, asked, case, of) for case, of in CASES.items()]


def _alone(found: Sequence[Found], asked: Asked, case: str, of: tuple[str, ...]) -> Row:
    limit, n = math.log10(THRESHOLD), len(of)
    guilty = [p for f in found for p in f[case]["adjusted"][:n]]
    others = [p for f in found for p in f[case]["adjusted"][n:]]
    wanted = "learnt" if n == 1 else "several"
    said = [f[case]["verdict"] for f in found]
    named = all(f[case]["campaigns"] == list(of) for f in found)
    got = (
        f"guilty at most {max(guilty):.1f}, others at least {min(others):.1f}; verdicts {', '.join(sorted(set(said)))}"
    )
    holds = max(guilty) <= limit < min(others) and set(said) == {wanted} and named
    meaning = f"{asked.keys} keys, each on its own served text, {n} guilty: adjusted log10 p (Holm), and the verdict"
    asks = f"the guilty alone at or below -6, verdict {wanted} and names {' and '.join(of)}"
    return Row(f"S3{'ab'[n - 1]}", meaning, asks, got, holds)


def tables(found: Sequence[Found]) -> Iterator[Table]:
    """Guilty and other keys."""
    lines = []
    for case, of in CASES.items():
        for i, campaign in enumerate(of):
            lines.append((f"{len(of)} guilty", campaign, Over.of([f[case]["adjusted"][i] for f in found]).text()))
        least = Over.of([min(f[case]["adjusted"][len(of) :]) for f in found])
        lines.append((f"{len(of)} guilty", "least of all others", least.text(2)))
    yield Table("Identification", ("suspect", "key", "adjusted log10 p"), tuple(lines))
