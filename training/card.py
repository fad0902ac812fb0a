"""The figures of docs/model-card.md, from what ``fit`` and ``floors`` left: everything between the two marks of that page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillwatch.fingerprints._reader import CLASSES, sigmoid
from stillwatch.types import CAPABILITIES
from training.corpus import Prompt, heldout
from training.measure import FAMILIES, SPLIT, by_group, calibrated, calibration_error, f1, interval, level
from training.network import targets
from training.sources import Row, draw

PAGE = Path("docs/model-card.md")
START, END = "<!-- figures: python -m training card -->", "<!-- end of figures -->"
RATES = (0.005, 0.01, 0.02)


def write(work: Path, folder: Path) -> None:
    """Writes the figures into the page; prints the ten worst errors, which are read and discussed there by hand."""
    rows = draw(folder)
    figures = np.load(work / "figures.npz")
    floors = dict(np.load(work / "floors.npz")) if (work / "floors.npz").exists() else {}
    lines = list(_figures(rows, figures, floors))
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    PAGE.write_text(f"{before}{START}\n\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}", encoding="utf-8")
    for line in _worst(rows, figures["unseen"]):
        print(line)


def crossed(raw: np.ndarray, truth: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Probabilities of capabilities, each source calibrated on the others."""
    found = np.zeros((len(raw), SPLIT), np.float32)
    for name in np.unique(sources):
        others = sources != name
        slope, shift = calibrated(raw[others, :SPLIT], truth[others, :SPLIT], sources[others].tolist())
        found[~others] = sigmoid(raw[~others, :SPLIT] * slope + shift)
    return found


def _figures(rows: Sequence[Row], figures: Any, floors: dict[str, np.ndarray]) -> Iterator[str]:
    truth, sources = targets([r.prompt for r in rows]), np.array([r.prompt.group for r in rows])
    p = crossed(figures["unseen"], truth, sources)
    able = truth[:, :SPLIT]
    yield f"Capability, {len(rows):,} rows of {len(set(sources))} sources, each from weights that never saw its source:"
    yield from ("", "| | macro-F1 (95 %, over sources) | calibration error |", "|---|---|---|")
    yield _capable("the reader", able, p, sources)
    for name, said in (
        ("words", "words, TF-IDF and logistic regression"),
        ("minilm", "MiniLM and logistic regression"),
    ):
        if name in floors:
            yield _capable(said, able, floors[name], sources)
    asked = heldout("capability")
    slope, shift = calibrated(figures["unseen"][:, :SPLIT], able, sources.tolist())
    held = sigmoid(figures["capability"][:, :SPLIT] * slope + shift)
    groups, blind = np.array([a.group for a in asked]), targets(asked)[:, :SPLIT]
    yield _capable(f"the reader on {len(asked)} prompts written without sight of the corpus", blind, held, groups)
    yield from ("", "| capability | F1 unseen sources | F1 prompts written blind | rows |", "|---|---|---|---|")
    one, two = f1(able, p), f1(blind, held)
    for k, name in enumerate(CAPABILITIES):
        low, high = interval(lambda i, k=k: f1(able[i], p[i])[k], sources)
        yield f"| {name} | {one[k]:.2f} ({low:.2f}–{high:.2f}) | {two[k]:.2f} | {int(able[:, k].sum())} |"
    yield from _by("source", able, p, sources.tolist())
    yield from _by("language", able, p, [r.prompt.language for r in rows])
    yield from _by("language, prompts written blind", blind, held, [a.language for a in asked])
    yield from _elicitation(rows, figures["unseen"], truth, figures["elicitation"], heldout("elicitation"))


def _capable(name: str, truth: np.ndarray, p: np.ndarray, groups: np.ndarray) -> str:
    low, high = interval(lambda i: f1(truth[i], p[i]).mean(), groups)
    return f"| {name} | {f1(truth, p).mean():.3f} ({low:.2f}–{high:.2f}) | {calibration_error(truth, p):.3f} |"


def _by(what: str, truth: np.ndarray, p: np.ndarray, groups: list[str]) -> Iterator[str]:
    right = truth[np.arange(len(p)), p.argmax(axis=1)]
    shares = by_group(right, groups)
    yield from ("", f"Likeliest capability right, by {what}:", "")
    yield ", ".join(f"{g} {v:.2f}" for g, v in sorted(shares.items())) + "."


def _elicitation(
    rows: Sequence[Row], raw: np.ndarray, truth: np.ndarray, given: np.ndarray, held: Sequence[Prompt]
) -> Iterator[str]:
    sources, sets = np.array([r.prompt.group for r in rows]), np.array([h.set for h in held])
    honest = np.array([r.plain for r in rows])
    most, blind, labels = raw[:, SPLIT:].max(axis=1), given[:, SPLIT:], targets(held)[:, SPLIT:]
    yield from (
        "",
        "Elicitation: recall where so many honest prompts of unseen sources are marked (every source counts the same; the",
    )
    yield "level is set on the other sources), and honest prompts written blind, half of them near misses, that are marked there:"
    yield from (
        "",
        "| honest marked | wrappers of unseen sources | templates written blind | their paraphrases | honest, written blind |",
    )
    yield "|---|---|---|---|---|"
    for rate in RATES:
        line = level(most[honest], sources[honest], rate)
        found = _crossed_rate(most[honest], sources[honest], rate)
        wrappers = by_group(_caught(raw, truth, line), _names(rows, truth))
        wrappers.pop("", None)
        shares = [f"{_recall(blind[sets == s], labels[sets == s], line):.2f}" for s in ("template", "paraphrase")]
        yield (
            f"| {rate:.1%} (crossed: {found:.2%}) | {np.mean(list(wrappers.values())):.2f} of {len(wrappers)} | {shares[0]} | "
            f"{shares[1]} | {(blind[sets == 'benign'].max(axis=1) >= line).mean():.2%} of {(sets == 'benign').sum()} |"
        )
    line = level(most[honest], sources[honest], RATES[0])
    look = level(most[honest], sources[honest], RATES[-1])
    yield from (
        "",
        "| family | templates and paraphrases written blind, marked at 0.5 % | at 2 % | prompts |",
        "|---|---|---|---|",
    )
    for k, name in enumerate(FAMILIES):
        own = (labels[:, k] > 0) & (sets != "benign")
        yield f"| {name} | {(blind[own, k] >= line).mean():.2f} | {(blind[own, k] >= look).mean():.2f} | {int(own.sum())} |"
    languages = [h.language for h, s in zip(held, sets, strict=True) if s != "benign"]
    caught = [(blind[sets != "benign"].max(axis=1) >= at).astype(float) for at in (line, look)]
    by = [by_group(c, languages) for c in caught]
    yield from ("", "The same by language, any family, at 0.5 % and at 2 %:", "")
    yield ", ".join(f"{g} {by[0][g]:.2f}/{by[1][g]:.2f}" for g in sorted(by[0])) + "."
    seen = np.array([r.benign and not r.plain for r in rows])
    yield ""
    yield f"Rows of honest sources that do show a family (judges of models): {int(seen.sum())}; marked at 0.5 %: "
    yield f"{(most[seen] >= line).mean():.2f} of them. What they show is seen; whose it is, populations tell."


def _crossed_rate(most: np.ndarray, sources: np.ndarray, rate: float) -> float:
    """Share marked, each source at the level set on the others."""
    shares = [
        (most[sources == s] >= level(most[sources != s], sources[sources != s], rate)).mean()
        for s in np.unique(sources)
    ]
    return float(np.mean(shares))


def _names(rows: Sequence[Row], truth: np.ndarray) -> list[str]:
    return [f"{r.prompt.group}/{r.wrapper}" if t.any() else "" for r, t in zip(rows, truth[:, SPLIT:], strict=True)]


def _caught(raw: np.ndarray, truth: np.ndarray, line: float) -> np.ndarray:
    return ((raw[:, SPLIT:] >= line) & (truth[:, SPLIT:] > 0)).any(axis=1).astype(float)


def _recall(scores: np.ndarray, labels: np.ndarray, line: float) -> float:
    """Mean over families of the share that the family's own score finds."""
    return float(np.mean([(scores[labels[:, k] > 0, k] >= line).mean() for k in range(labels.shape[1])]))


def _worst(rows: Sequence[Row], raw: np.ndarray) -> Iterator[str]:
    truth, sources = targets([r.prompt for r in rows]), np.array([r.prompt.group for r in rows])
    p = crossed(raw, truth, sources)
    wrong = np.where(truth[np.arange(len(p)), p.argmax(axis=1)] > 0, 0, p.max(axis=1))
    yield "surest wrong capabilities:"
    for i in np.argsort(-wrong)[:10]:
        yield f"  {sources[i]} {p[i].max():.2f} {CLASSES[p[i].argmax()]} for {rows[i].prompt.capability}: {_start(rows[i])}"
    honest = np.array([r.plain for r in rows])
    most = np.where(honest, raw[:, SPLIT:].max(axis=1), -99)
    yield "honest prompts marked highest:"
    for i in np.argsort(-most)[:10]:
        yield f"  {sources[i]} {most[i]:.1f} {FAMILIES[raw[i, SPLIT:].argmax()]}: {_start(rows[i])}"


def _start(row: Row) -> str:
    return repr(row.prompt.text[:100])
