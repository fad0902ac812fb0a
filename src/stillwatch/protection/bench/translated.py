"""A suspect of another family: another tokenizer, other texts, another width. What is lost of the power is said.

Its vocabulary is of another size and learnt from other texts; its base model is wider, and trained on those texts alone. The
answers reach it as text, which it cuts in its own way. It is read in the provider's tokens (``opened.of_translated``), at
places where both begin a token, over the tokens that are the same text in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from stillwatch.protection import opened
from stillwatch.protection.bench.corpus import rows as rows_of
from stillwatch.protection.bench.learning import Lab, Mix, chance
from stillwatch.protection.bench.models import small, vocabulary_of
from stillwatch.protection.bench.reading import Tell, of_weights, told
from stillwatch.protection.bench.rows import Found, Over, Row, Table, below, uniform
from stillwatch.protection.bench.training import train
from stillwatch.protection.opened import Opened

DECOYS = 200
WIDER = 4 / 3
LONGER = 2
"""Its context, of the provider's: its tokens are shorter."""


@dataclass(frozen=True, slots=True)
class Asked:
    """``probe`` answers, and the suspect's ``vocabulary``; the largest log10 p at 100 %; ``shares``, of which the last is 0."""

    probe: int
    vocabulary: int
    all_open: float
    shares: tuple[float, ...] = (1.0, 0.5, 0.1, 0.0)


ASKED = {"full": Asked(1024, 640, -6.0), "small": Asked(256, 384, -0.5, (1.0, 0.0))}


def measure(lab: Lab, asked: Asked, tell: Tell) -> Found:
    """Power by share in the suspect's own tokens, beside that of the lab's own student, and the null on the clean one."""
    vocabulary, key = vocabulary_of(lab.parts[3], asked.vocabulary), lab.key("A")
    served = lab.answers(key)[: asked.probe]
    teacher = Opened(lab.teacher, lab.vocabulary)
    power, null = [], []
    for i, share in enumerate(asked.shares):
        tell(i / len(asked.shares), f"suspect of another tokenizer, {share:.0%}")
        suspect = _suspect(lab, [(key, share)] if share else [], vocabulary)
        found, aligned = opened.of_translated(suspect, teacher, lab.sequences(served), key.scheme.width)
        own = told(of_weights(lab, lab.student([(key, share)] if share else []), served), key)
        read, positions = aligned.read, aligned.positions
        power.append({"share": share, "other": told(found, key), "own": own, "read": read, "positions": positions})
        shared = {"shared": aligned.shared, "vocabulary": aligned.vocabulary}
        if not share:
            null = [told(found, lab.key(f"decoy {i}"))["log10_p"] for i in range(DECOYS)]
    return {"power": power, "null": null, **shared}


def _suspect(lab: Lab, mix: Mix, vocabulary: PreTrainedTokenizerFast) -> Opened:
    """Another family's base model, fine-tuned on the text of answers, one behind the other."""
    size = lab.size
    width = round(size.width * WIDER / size.heads) * size.heads
    model = small(
        len(vocabulary), layers=size.layers, width=width, heads=size.heads, context=LONGER * size.length,
        seed=chance(lab.seed, "another family"),
    )  # fmt: skip
    texts = rows_of(lab.parts[3], vocabulary, LONGER * size.length)
    train(model, texts, epochs=size.base_epochs, seed=chance(lab.seed, "another family's texts"))
    answers = rows_of(lab.vocabulary.batch_decode(lab.data_set(mix)), vocabulary, LONGER * size.length)
    train(model, answers, epochs=size.student_epochs, batch=32, seed=chance(lab.seed, "another family's answers"))
    return Opened(model, vocabulary)


def rows(found: Sequence[Found], asked: Asked) -> list[Row]:
    """What is left at 100 %, and the innocent one."""
    whole, most = (
        Over.of([p["other"]["log10_p"] for f in found for p in f["power"] if p["share"] == 1.0]),
        asked.all_open,
    )
    clean = [p["other"]["log10_p"] for f in found for p in f["power"] if p["share"] == 0.0]
    null = [p for f in found for p in f["null"]]
    ks, low = uniform(null), below(null, 0.01)
    return [
        Row("S4a", "another tokenizer and family, 100 %, own key, open weights: log10 p",
            f"<= {most:g} in every seed", f"{whole.text()}, worst {whole.largest:.1f}", whole.largest <= most),
        Row("S4b", f"the same, clean: A's key, and {len(null)} random ones", "p > 0.01; KS p > 0.001, below 0.025",
            f"{10 ** min(clean):.3g}; KS p = {ks:.2g}, {low:.3f} below 0.01", min(clean) > -2 and ks > 0.001 and low < 0.025),
    ]  # fmt: skip


def tables(found: Sequence[Found]) -> Iterator[Table]:
    """Power beside that of a student with the provider's tokenizer."""
    lines = []
    for i, share in enumerate(p["share"] for p in found[0]["power"]):
        at = [f["power"][i] for f in found]
        read = Over.of([p["read"] / p["positions"] for p in at])
        other, own = (Over.of([p[how]["log10_p"] for p in at]) for how in ("other", "own"))
        lines.append((f"{share:.0%}", f"{read.mean:.0%}", other.text(), own.text()))
    shared, of = found[0]["shared"], found[0]["vocabulary"]
    note = f"Tokens that are the same text in both: {shared} of {of}. Read: places where both begin one."
    yield Table(
        "Another tokenizer", ("share", "read", "another family", "the provider's tokenizer"), tuple(lines), note
    )
