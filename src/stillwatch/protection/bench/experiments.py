"""The acceptance experiments: what the tests find, and whom they leave alone.

Of each seed: one provider, campaigns A and B with their keys, students of answers that carry A's watermark in a share, a clean
one, one of B's. The probe is text that was served to A. Every threshold is of the worst seed, not of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.logits_process import WatermarkLogitsProcessor

from stillwatch.protection import opened, outcomes
from stillwatch.protection.bench.learning import Lab
from stillwatch.protection.bench.reading import Tell, of_text, of_weights, said, told
from stillwatch.protection.bench.rows import Found, Over, Row, Table, below, uniform
from stillwatch.protection.coins import Words, coins, threshold
from stillwatch.protection.keys import Key
from stillwatch.protection.registration import THRESHOLD
from stillwatch.protection.sequences import windows_at

SHARES = (1.0, 0.5, 0.1, 0.05, 0.01)
RELATED = 64
"""Keys of neighbouring campaigns that are held against each other."""
PAIRS = 4096
"""Distinct pairs on which they are: at most a sixtieth of the square of a vocabulary."""
TOKENS = 199


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is measured, and what is asked of it: ``probe`` answers that were served; ``decoys``: keys that had no part;
    ``hard`` keys with a probe of ``hard_probe`` answers each; ``closed`` tokens that a suspect writes; the largest log10 p of
    experiments 1 to 3; ``shares`` of watermarked answers that students learn from."""

    probe: int
    decoys: int
    hard: int
    hard_probe: int
    closed: int
    all_open: float
    tenth_open: float
    all_closed: float
    shares: tuple[float, ...] = SHARES


ASKED = {
    "full": Asked(1024, 500, 40, 192, 5_000, -50.0, -4.0, -20.0),
    "small": Asked(384, 500, 40, 48, 40_000, -12.0, -0.5, -1.5, (1.0, 0.5, 0.1)),
}
"""Stated before the runs; but that the small one reads 40,000 tokens of text was settled after 5,000 had shown nothing (z 3.3 and
-0.9 in two pilots). It has a fraction of the training: it shows that everything works, not how well."""


def measure(lab: Lab, asked: Asked, tell: Tell) -> Found:
    """All of it for one seed."""
    a, b = lab.key("A"), lab.key("B")
    served = lab.answers(a)[: asked.probe]
    students = {}
    for i, share in enumerate(asked.shares):
        tell(0.1 + 0.08 * i, f"student of {share:.0%}")
        students[share] = lab.student([(a, share)])
    tell(0.5, "clean student and B's")
    clean, other = lab.student(), lab.student([(b, 1.0)])
    tell(0.6, "reading")
    power = [_power(lab, share, model, served, asked) for share, model in students.items()]
    reading = of_weights(lab, clean, served)
    tell(0.7, f"{asked.decoys} keys on the clean student")
    null = [told(reading, lab.key(f"decoy {i}"))["log10_p"] for i in range(asked.decoys)]
    tell(0.75, f"{asked.hard} keys with probes of their own")
    return {
        "power": power,
        "innocent": {
            "clean open": told(reading, a),
            "clean closed": told(of_text(lab, said(lab, clean, "clean", tokens=asked.closed)), a),
            "other open": told(of_weights(lab, other, served), a),
            "other closed": told(of_text(lab, said(lab, other, "other", tokens=asked.closed)), a),
        },
        "null": null,
        "hard": [_hard(lab, clean, asked, i) for i in range(asked.hard)],
        "identified": {
            "A": _identified(lab, students[1.0], served, a),
            "B": _identified(lab, other, lab.answers(b)[: asked.probe], b),
        },
        "related": related(lab),
    }


def _power(lab: Lab, share: float, student: PreTrainedModel, served: Tensor, asked: Asked) -> Found:
    key, text = lab.key("A"), said(lab, student, share, tokens=asked.closed)
    return {
        "share": share,
        "tokens": round(share * lab.size.pool) * lab.size.answer,
        "open": told(of_weights(lab, student, served), key),
        "closed": told(of_text(lab, text), key),
    }


def _hard(lab: Lab, clean: PreTrainedModel, asked: Asked, number: int) -> Found:
    """A fresh key, text that was watermarked with it, and a model that saw none of it: the residual, and counting naively."""
    key = lab.key(f"hard {number}")
    left = len(lab.prompts) - lab.size.pool - asked.hard_probe
    first = lab.size.pool + number * asked.hard_probe % left
    probe = lab.asked(lab.prompts[first : first + asked.hard_probe], key, "hard", number)
    served = lab.sequences(probe)
    at = served.positions(1)
    chosen = opened.choices(clean, served, at)
    naive = outcomes.naive_argmax_pairs(windows_at(served, at, 1), chosen, key)
    return {"residual": told(of_weights(lab, clean, probe), key)["log10_p"], "naive": naive.log10_p}


def _identified(lab: Lab, suspect: PreTrainedModel, served: Tensor, guilty: Key, keys: int = 200) -> Found:
    """The guilty key among others, all on one reading: adjusted log10 p of the guilty one, and the least of all others."""
    reading = of_weights(lab, suspect, served)
    others = [lab.key(f"decoy {i}") for i in range(keys - 1)]
    found = outcomes.holm([told(reading, key)["log10_p"] for key in (guilty, *others)])
    return {"guilty": found[0], "others": min(found[1:])}


def related(lab: Lab) -> Found:
    """Do related keys favour the same? Ours, of neighbouring campaigns: the largest deviation of what two of them favour both
    from chance, as the adjusted p of all pairs of them. The scheme that transformers ships: of keys k and 2k and tokens 2t
    and t, how many lists are the same, and of ours with all words of the secret doubled."""
    keys = [lab.key(f"C-{i}") for i in range(RELATED)]
    windows, tokens = (pairs[:PAIRS] for pairs in np.divmod(np.arange(PAIRS, dtype=np.int64) * 61, lab.size.vocabulary))
    windows = windows[:, None]
    cut, share = threshold(keys[0].scheme.share), keys[0].scheme.share
    lists = np.array([coins(k.words, windows, tokens) < cut for k in keys])
    both = (lists.astype(np.int64) @ lists.T.astype(np.int64))[np.triu_indices(RELATED, 1)]
    n, q = len(tokens), share * share
    tails = 2 * np.minimum(binom.cdf(both, n, q), binom.sf(both - 1, n, q))
    doubled = Words(tuple((2 * w + (1 << 63)) % (1 << 64) - (1 << 63) for w in keys[0].words.values))  # type: ignore[arg-type]
    return {
        "pairs": len(both),
        "adjusted_p": float(min(1.0, tails.min() * len(both))),
        "ours_same": sum(
            _same_of_ours(keys[0].words, doubled, t, lab.size.vocabulary, cut) for t in range(1, TOKENS + 1)
        ),
        "theirs_same": _same_of_theirs(lab.size.vocabulary),
        "tokens": TOKENS,
    }


def _same_of_ours(words: Words, doubled: Words, token: int, vocabulary: int, cut: int) -> int:
    every = np.arange(vocabulary, dtype=np.int64)
    lists = [
        coins(w, np.full((vocabulary, 1), t, np.int64), every) < cut for w, t in ((words, 2 * token), (doubled, token))
    ]
    return int((lists[0] == lists[1]).all())


def _same_of_theirs(vocabulary: int, key: int = 15485863) -> int:
    """Of tokens 2t under key k and t under key 2k: at how many the lists of transformers' own watermark are the same."""
    one, two = (
        WatermarkLogitsProcessor(vocabulary, "cpu", greenlist_ratio=0.25, bias=2.0, hashing_key=k, context_width=1)
        for k in (key, 2 * key)
    )
    nothing = torch.zeros(1, vocabulary)
    return sum(
        torch.equal(one(torch.tensor([[2 * t]]), nothing), two(torch.tensor([[t]]), nothing))
        for t in range(1, TOKENS + 1)
    )


def rows(found: Sequence[Found], asked: Asked) -> list[Row]:
    """Experiments 1 to 9 over seeds."""
    return [
        _at_most("1", "student of 100 %, own key, open weights: log10 p", _log10(found, "open", 1.0), asked.all_open),
        _at_most("2", "student of 10 %, own key, open weights: log10 p", _log10(found, "open", 0.1), asked.tenth_open),
        _at_most(
            "3",
            f"student of 100 %, {asked.closed:,} tokens of its text: log10 p",
            _log10(found, "closed", 1.0),
            asked.all_closed,
        ),
        _monotone(found, asked),
        _innocent(found),
        _uniform(found),
        _hard_null(found),
        _identification(found),
        _independent(found),
    ]


def _log10(found: Sequence[Found], how: str, share: float) -> list[float]:
    return [p[how]["log10_p"] for f in found for p in f["power"] if p["share"] == share]


def _at_most(number: str, meaning: str, values: Sequence[float], most: float) -> Row:
    over = Over.of(values)
    return Row(
        number, meaning, f"<= {most:g} in every seed", f"{over.text()}, worst {over.largest:.1f}", over.largest <= most
    )


def _monotone(found: Sequence[Found], asked: Asked) -> Row:
    means = [float(np.mean(_log10(found, "open", share))) for share in asked.shares]
    ordered = all(a < b for a, b in pairwise(means))
    least = asked.shares[-1]
    fired = sum(p <= math.log10(THRESHOLD) for p in _log10(found, "open", least)) if least <= 0.01 else 0
    got = " < ".join(f"{m:.1f}" for m in means) + (
        f"; {least:.0%} fires in {fired} of {len(found)}" if least <= 0.01 else ""
    )
    shares = " > ".join(f"{s:.0%}" for s in asked.shares)
    meaning = f"more watermarked answers, smaller p: {shares} (mean log10 p); 1 % is inconclusive, never clean"
    return Row("4", meaning, "in order, 1 % does not fire", got, ordered and not fired)


def _innocent(found: Sequence[Found]) -> Row:
    ps = [v["log10_p"] for f in found for v in f["innocent"].values()]
    missed = f"; by chance alone {1 - 0.99 ** len(ps):.0%} of such runs fail"
    meaning = f"clean student and B's student, key A, open and text: the least of {len(ps)} p"
    return Row("5", meaning, "p > 0.01 in every seed" + missed, f"{10 ** min(ps):.3g}", min(ps) > -2)


def _uniform(found: Sequence[Found]) -> Row:
    ps = [p for f in found for p in f["null"]]
    ks, small = uniform(ps), below(ps, 0.01)
    got = f"KS p = {ks:.2g}; {small:.3f} below 0.01"
    return Row(
        "6", f"{len(ps)} random keys on clean students", "KS p > 0.001, below 0.025", got, ks > 0.001 and small < 0.025
    )


def _hard_null(found: Sequence[Found]) -> Row:
    residual = [h["residual"] for f in found for h in f["hard"]]
    naive = [h["naive"] for f in found for h in f["hard"]]
    small, wrong = below(residual, 0.01), below(naive, 0.01)
    got = f"{small:.3f}, KS p = {uniform(residual):.2g}; naive {wrong:.3f}, worst log10 p {min(naive):.1f}"
    meaning = f"{len(residual)} fresh keys, each with a probe watermarked by it, clean students: share of p < 0.01"
    return Row("7", meaning, "below 0.08, and counting naively fails this", got, small < 0.08 <= wrong)


def _identification(found: Sequence[Found]) -> Row:
    guilty = [v["guilty"] for f in found for v in f["identified"].values()]
    others = [v["others"] for f in found for v in f["identified"].values()]
    limit = math.log10(THRESHOLD)
    got = f"guilty at most {max(guilty):.1f}, any other at least {min(others):.1f}"
    meaning = "200 keys on the students of A and of B: adjusted log10 p (Holm)"
    return Row("8", meaning, "the guilty key alone at or below -6", got, max(guilty) <= limit < min(others))


def _independent(found: Sequence[Found]) -> Row:
    r = [f["related"] for f in found]
    least, ours = min(x["adjusted_p"] for x in r), max(x["ours_same"] for x in r)
    got = f"adjusted p {least:.2g}; doubled secret: {ours} lists the same; transformers' own: {r[0]['theirs_same']} of {TOKENS}"
    holds = least > 0.001 and ours == 0
    return Row("9", "related keys share no list beyond chance", "adjusted p > 0.001, no list the same", got, holds)


def tables(found: Sequence[Found]) -> Iterator[Table]:
    """Power against share."""
    shares = [(p["share"], p["tokens"]) for p in found[0]["power"]]
    lines = tuple(
        (f"{share:.0%}", f"{tokens:,}", *(_cell(found, how, share) for how in ("open", "closed")))
        for share, tokens in shares
    )
    note = "Mean log10 p and 95 % interval (Student's t) over seeds from three on, else least to largest. In brackets the mean z."
    yield Table("Power", ("share", "watermarked tokens", "open weights", "its text"), lines, note)


def _cell(found: Sequence[Found], how: str, share: float) -> str:
    z = Over.of([p[how]["z"] for f in found for p in f["power"] if p["share"] == share])
    return f"{Over.of(_log10(found, how, share)).text()} [z {z.mean:.1f}]"
