"""What a watermark costs: time of the sampler, and how much less likely the teacher finds its own answers.

Time is processor time of sampling with and without, one after the other and many times over, so that what else the machine
does falls on all alike. Coins are drawn for each token of the vocabulary, whatever the model: so beside the ratio stands
that of a larger model, and the nanoseconds of a coin.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from stillwatch.protection.bench.learning import Lab, chance
from stillwatch.protection.bench.models import small
from stillwatch.protection.bench.reading import Tell
from stillwatch.protection.bench.rows import Found, Over, Row, Table
from stillwatch.protection.bench.training import generate, nll
from stillwatch.protection.keys import Key, Kind, Scheme

SCHEMES = {
    "none": None,
    "bernoulli, delta 1": Scheme(delta=1.0),
    "bernoulli, delta 2": Scheme(),
    "gumbel, width 2": Scheme(Kind.GUMBEL, 2),
    "gumbel, width 4": Scheme(Kind.GUMBEL, 4),
}
TIMED = ("none", "bernoulli, delta 2", "gumbel, width 4")


@dataclass(frozen=True, slots=True)
class Asked:
    """``rows`` sampled at once, ``repeats`` of each, for the lab's model and one of (layers, width)."""

    rows: int
    repeats: int
    larger: tuple[int, int]


ASKED = {"full": Asked(256, 9, (6, 384)), "small": Asked(64, 3, (4, 256))}


def measure(lab: Lab, asked: Asked, tell: Tell) -> Found:
    """Ratios of processor time, and the teacher's loss on what each sampler wrote."""
    quality = {}
    for i, (name, scheme) in enumerate(SCHEMES.items()):
        tell(0.1 * i, f"answers: {name}")
        answers = lab.answers(_key(lab, scheme))
        quality[name] = {
            "nll": round(nll(lab.teacher, answers, lab.size.prompt), 4),
            "distinct": _distinct(answers, lab),
        }
    tell(0.5, "time")
    layers, width = asked.larger
    s = lab.size
    larger = small(s.vocabulary, layers=layers, width=width, heads=8, context=s.length, seed=chance(lab.seed, "larger"))
    times = {"the teacher": _times(lab, lab.teacher, asked), f"{layers} layers of {width}": _times(lab, larger, asked)}
    return {"quality": quality, "times": times, "tokens": asked.rows * s.answer, "vocabulary": s.vocabulary}


def _key(lab: Lab, scheme: Scheme | None) -> Key | None:
    return None if scheme is None else lab.key("A", scheme)


def _distinct(answers: Tensor, lab: Lab) -> float:
    """Distinct runs of four tokens, of all runs of four: falls where a sampler repeats itself."""
    runs = answers[:, lab.size.prompt :].unfold(1, 4, 1).reshape(-1, 4).numpy()
    return round(len(np.unique(runs, axis=0)) / len(runs), 4)


def _times(lab: Lab, model: PreTrainedModel, asked: Asked) -> dict[str, list[float]]:
    """Processor seconds of each sampler, as often as asked, interleaved; a first round does not count."""
    prompts = lab.prompts[: asked.rows]
    found: dict[str, list[float]] = {name: [] for name in TIMED}
    for turn in range(asked.repeats + 1):
        for name in TIMED:
            began = time.process_time()
            generate(model, prompts, lab.size.answer, key=_key(lab, SCHEMES[name]), seed=turn)
            if turn:
                found[name].append(round(time.process_time() - began, 4))
    return found


def ratios(times: dict[str, list[float]], name: str) -> list[float]:
    """Tokens a second of a sampler over those without, turn by turn."""
    return [none / with_ for none, with_ in zip(times["none"], times[name], strict=True)]


def rows(found: Sequence[Found], asked: Asked) -> list[Row]:
    """Gumbel costs no likelihood to speak of, Bernoulli some."""
    none, lean, gumbel = (
        Over.of([f["quality"][name]["nll"] for f in found]).mean
        for name in ("none", "bernoulli, delta 2", "gumbel, width 4")
    )
    got = f"{none:.3f} without; {lean - none:+.3f} Bernoulli, {gumbel - none:+.3f} Gumbel"
    meaning = "the teacher's loss on its own answers, nats a token (delta 2; width 4)"
    return [
        Row(
            "S6",
            meaning,
            "Gumbel within 0.1 of none, Bernoulli within 0.5",
            got,
            abs(gumbel - none) < 0.1 and lean - none < 0.5,
        )
    ]


def tables(found: Sequence[Found]) -> Iterator[Table]:
    """Quality by scheme, and time by model."""
    lines = []
    for name in SCHEMES:
        more = [f["quality"][name]["nll"] - f["quality"]["none"]["nll"] for f in found]
        distinct = Over.of([f["quality"][name]["distinct"] for f in found])
        lines.append(
            (
                name,
                Over.of([f["quality"][name]["nll"] for f in found]).text(3),
                f"{np.mean(more):+.3f}",
                distinct.text(3),
            )
        )
    head = ("sampler", "loss under the teacher", "more than without", "distinct runs of four tokens")
    yield Table("Likelihood", head, tuple(lines))
    yield Table(
        "Time", ("model", "sampler", "tokens/s, of those without", "nanoseconds a coin"), tuple(_time_lines(found)),
        "Processor time on one core, medians over turns and seeds, least to largest in brackets. A coin is drawn for each token "
        "of the vocabulary and row, so the larger the model, the less it matters; engines draw them on the accelerator.",
    )  # fmt: skip


def _time_lines(found: Sequence[Found]) -> Iterator[tuple[str, ...]]:
    coins = found[0]["tokens"] * found[0]["vocabulary"]
    for model in found[0]["times"]:
        for name in TIMED[1:]:
            all_ = [r for f in found for r in ratios(f["times"][model], name)]
            more = [
                b - a for f in found for a, b in zip(f["times"][model]["none"], f["times"][model][name], strict=True)
            ]
            spread = f"{np.median(all_):.2f} ({min(all_):.2f} to {max(all_):.2f})"
            yield model, name, spread, f"{np.median(more) / coins * 1e9:.1f}"
