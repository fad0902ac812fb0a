"""Makes the reader's weights and measures them on what they never saw.

    python -m training fit PROMPTS    all of it -> src/stillwatch/fingerprints/reader.npz
    python -m training card PROMPTS   figures -> docs/model-card.md

PROMPTS is the folder of public prompts (one Parquet file a source). Figures are kept in build/training; two processes, about
40 minutes of processor time. Seeds are fixed; the same inputs and package versions give the same
weights, to rounding.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training import card, teacher
from training.corpus import WORK, Prompt, corpus, fillers, heldout
from training.measure import SPLIT, calibrated, level
from training.network import Settings, exported, targets, train
from training.sources import Row, draw
from training.trial import raw, seen

WEIGHTS = Path("src/stillwatch/fingerprints/reader.npz")
WORTH_A_LOOK, MARKED = (0.5, 0.05), (0.8, 0.005)
"""Elicitation scores and the share of honest prompts of unseen sources that reach them: the first is what populations are
compared by, against a base rate; the second what one prompt may be marked by."""

PARTS = 6
"""Sources are left out in so many parts: a row is judged by weights that saw neither its source nor the others of its part."""

_shared: dict[str, Any] = {}


def main(arguments: Sequence[str]) -> None:
    """Runs one of the commands above."""
    if arguments[:1] == ["card"] and len(arguments) == 2:
        card.write(WORK, Path(arguments[1]))
    elif arguments[:1] == ["fit"] and len(arguments) == 2:
        fit(Path(arguments[1]))
    else:
        sys.exit(__doc__)


def fit(folder: Path) -> None:
    """Everything, in order; what is in WORK already is not made again."""
    WORK.mkdir(parents=True, exist_ok=True)
    rows, own, found = draw(folder), corpus(), fillers()
    prepare(own)
    _shared.update(rows=rows, own=own, found=found, **dict(np.load(WORK / "teacher.npz")))
    _shared["passages"] = json.loads((WORK / "passages.json").read_text())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for part in pool.imap_unordered(leave_out, range(-1, PARTS)):
            print(f"trained without {', '.join(sources_of(part, rows)) or 'nothing'}", flush=True)
    finish(rows)


def sources_of(part: int, rows: Sequence[Row]) -> list[str]:
    """The sources of one part: each source that may be trained on is in exactly one; part -1 has none."""
    names = sorted({r.prompt.group for r in rows if r.trainable})
    return names[part::PARTS] if part >= 0 else []


def prepare(own: Sequence[Prompt]) -> None:
    """The vocabulary with the teacher's vectors, and the teacher's view of passages of ours."""
    if (WORK / "teacher.npz").exists():
        return
    tokens, vectors = teacher.vocabulary(own, fillers())
    passages = teacher.passages(own, fillers(), 0)
    (WORK / "passages.json").write_text(json.dumps(passages, ensure_ascii=False))
    np.savez(WORK / "teacher.npz", tokens=tokens, vectors=vectors, views=teacher.encode(passages))


def leave_out(part: int) -> int:
    """Trains without the sources of one part, and keeps the weights."""
    import torch  # noqa: PLC0415

    target = WORK / f"without-{part}.npz"
    if target.exists():
        return part
    torch.set_num_threads(1)
    rows: list[Row] = _shared["rows"]
    away = set(sources_of(part, rows))
    prompts = [*_shared["own"], *(as_sent(r) for r in rows if r.trainable and r.prompt.group not in away)]
    net, vectors = train(prompts, _shared["found"], _shared["tokens"], _shared["vectors"],
                         (_shared["passages"], _shared["views"]), Settings())  # fmt: skip
    np.savez(target, **exported(net, _shared["tokens"], vectors))
    return part


def as_sent(row: Row) -> Prompt:
    """A row as traffic has it: its wrapper as system text, where it is one without holes."""
    apart = bool(row.template and row.content) and "{" not in row.template[:400]
    return replace(row.prompt, text=row.content, system=row.template) if apart else row.prompt


def unseen(rows: Sequence[Row]) -> np.ndarray:
    """Raw log-odds of each row, from weights that never saw its source."""
    found = np.zeros((len(rows), len(targets([rows[0].prompt])[0])), np.float32)
    home = {name: part for part in range(PARTS) for name in sources_of(part, rows)}
    for part in range(-1, PARTS):
        mine = [i for i, r in enumerate(rows) if home.get(r.prompt.group, -1) == part]
        found[mine] = raw(dict(np.load(WORK / f"without-{part}.npz")), [rows[i].prompt for i in mine])
    return found


def finish(rows: Sequence[Row]) -> None:
    """Calibrates on sources that were left out, writes the package's weights and the figures."""
    given, truth = unseen(rows), targets([r.prompt for r in rows])
    slope, shift = calibrated(given[:, :SPLIT], truth[:, :SPLIT], [r.prompt.group for r in rows])
    weights = dict(np.load(WORK / "without--1.npz"))
    steep, moved = through(given, rows)
    weights["slope"] = np.append(slope, np.full(given.shape[1] - SPLIT, steep)).astype(np.float32)
    weights["shift"] = np.append(shift, np.full(given.shape[1] - SPLIT, moved)).astype(np.float32)
    views = seen(weights, [p.text for p in corpus()])[:, :64]
    weights["centre"] = views[np.any(views != 0, axis=1)].mean(axis=0)
    np.savez_compressed(WEIGHTS, **weights)
    held = {name: raw(weights, heldout(name)) for name in ("capability", "elicitation")}
    np.savez(WORK / "figures.npz", unseen=given, **held)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size / 1e6:.1f} MB", flush=True)


def through(given: np.ndarray, rows: Sequence[Row]) -> tuple[float, float]:
    """Slope and shift of elicitation log-odds that pass through both of the points above."""
    plain = [r.plain for r in rows]
    most, sources = given[plain, SPLIT:].max(axis=1), [r.prompt.group for r in rows if r.plain]
    low, high = (level(most, sources, share) for _, share in (WORTH_A_LOOK, MARKED))
    slope = np.log(MARKED[0] / (1 - MARKED[0])) / max(high - low, 0.1)
    return float(slope), float(-slope * low)


if __name__ == "__main__":
    main(sys.argv[1:])
