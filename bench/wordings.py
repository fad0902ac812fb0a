"""How well wording families hold real wrappers together and strangers apart.

    python bench/wordings.py --prompts ../shared/data/prompts [--each 200]

PROMPTS is a folder of Parquet files, one a source, with the columns template and prompt. Each row is one exchange of its
wrapper; every twenty rows are one account's. Measured: the share of a wrapper's rows in its largest family; the same with a
fifth of the wrapper's words replaced by other words of the log; pairs of rows of different sources and wrappers that share
a family without eight words in a row in common, in a million pairs; and the largest families of rows without a wrapper.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillwatch.fingerprints.prompt import read
from stillwatch.privacy import Privacy
from stillwatch.tables import SKETCH_WIDTH
from stillwatch.wordings import resolve

PRIVACY = Privacy(b"a key for benchmarks only")
LEAST_ROWS, LEAST_WORDS = 20, 12
CHANGED, RUN = 0.2, 8


def load(folder: Path, each: int) -> list[dict[str, Any]]:
    """Up to ``each`` rows of every wrapper of every source, and as many without a wrapper."""
    rng, found = np.random.default_rng(0), []
    for path in sorted(folder.glob("*.parquet")):
        groups: dict[str, list[str]] = defaultdict(list)
        for row in pq.read_table(path, columns=["template", "prompt"]).to_pylist():
            groups[row["template"]].append(row["prompt"])
        for template, slots in groups.items():
            for slot in rng.permutation(np.array(slots, dtype=object))[:each]:
                found.append({"source": path.stem, "template": template, "slot": slot})
    return found


def reworded(template: str, words: list[str], rng: np.random.Generator) -> str:
    """The wrapper with a fifth of its words replaced."""
    parts = template.split(" ")
    for i in np.flatnonzero(rng.random(len(parts)) < CHANGED):
        parts[i] = words[int(rng.integers(len(words)))]
    return " ".join(parts)


def families(texts: list[str]) -> np.ndarray:
    """The family of each text; twenty neighbours are one account."""
    sketches = [
        read(pa.array(texts[i : i + 5000], pa.large_string()), PRIVACY, SKETCH_WIDTH).sketch
        for i in range(0, len(texts), 5000)
    ]
    return resolve(sketches, (np.arange(len(texts)) // 20).astype(np.int32)).family


def whole(family: np.ndarray, rows: list[dict[str, Any]], wrappers: set[tuple[str, str]]) -> list[float]:
    """Share of each wrapper's rows in its largest family."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for f, row in zip(family.tolist(), rows, strict=True):
        members[row["source"], row["template"]].append(f)
    return [
        Counter(f for f in members[w] if f).most_common(1)[0][1] / len(members[w]) if any(members[w]) else 0.0
        for w in wrappers
    ]


def strangers(family: np.ndarray, rows: list[dict[str, Any]], texts: list[str]) -> tuple[int, int, int]:
    """Pairs of rows of different sources and wrappers in one family, those of them that have ``RUN`` words in a row in
    common all the same (one wrapper or one question published twice), and all such pairs."""
    joined, related = 0, 0
    for f in np.unique(family[family != 0]):
        inside = np.flatnonzero(family == f).tolist()
        if len({rows[i]["source"] for i in inside}) == 1:
            continue
        runs = {i: _runs(texts[i]) for i in inside}
        for n, i in enumerate(inside):
            for k in inside[:n]:
                a, b = rows[i], rows[k]
                if a["source"] != b["source"] and (a["template"] != b["template"] or not a["template"]):
                    joined += 1
                    related += bool(runs[i] & runs[k])
    return joined, related, _apart(Counter((r["source"], r["template"]) for r in rows))


def _runs(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


def _apart(of: Counter[tuple[str, str]]) -> int:
    """Pairs among these rows that share neither source nor (unless it is empty) wrapper."""
    sources, wrappers = Counter[str](), Counter[str]()
    total = sum(of.values())
    both = 0
    for (source, wrapper), n in of.items():
        sources[source] += n
        if wrapper:
            wrappers[wrapper] += n
            both += n * (n - 1) // 2
    pairs = lambda counts: sum(n * (n - 1) // 2 for n in counts.values())
    return total * (total - 1) // 2 - pairs(sources) - pairs(wrappers) + both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--each", type=int, default=200)
    args = parser.parse_args()
    rows, rng = load(args.prompts, args.each), np.random.default_rng(1)
    texts = [f"{r['template']}\n{r['slot']}".strip() for r in rows]
    counts = Counter((r["source"], r["template"]) for r in rows)
    wrappers = {w for w, n in counts.items() if n >= LEAST_ROWS and len(w[1].split()) >= LEAST_WORDS}
    family = families(texts)
    shares = whole(family, rows, wrappers)
    print(f"{len(rows):,} rows, {len(wrappers)} wrappers of {LEAST_ROWS} rows and {LEAST_WORDS} words or more")
    print(f"same wrapper, other slot: {np.mean(shares):.4f} of rows in one family (worst wrapper {min(shares):.2f})")
    words = [w for t in texts[::7] for w in t.split(" ") if w.isalpha()]
    changed = [f"{reworded(r['template'], words, rng)}\n{r['slot']}".strip() for r in rows]
    moved = whole(families(changed), rows, wrappers)
    print(f"a fifth of its words replaced: {np.mean(moved):.4f} (worst {min(moved):.2f})")
    joined, related, pairs = strangers(family, rows, texts)
    print(f"pairs of other sources joined: {joined:,} of {pairs:,}; {related:,} have {RUN} words in a row in common;")
    print(f"  strangers: {joined - related:,} pairs, {1e6 * (joined - related) / pairs:.2f} in a million")
    print("largest families of rows without a wrapper:")
    for f, size in Counter(f for f, r in zip(family.tolist(), rows) if f and not r["template"]).most_common(8):
        inside = np.flatnonzero(family == f)
        print(f"  {size:5} rows: {Counter(rows[i]['source'] for i in inside).most_common(3)}")


if __name__ == "__main__":
    main()
