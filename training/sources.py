"""Real prompts of many public sources, and their labels by GUIDE.md: up to ``PER_SOURCE`` of each.

The prompts lie outside this repository (``PROMPTS``, one Parquet file a source; `make models PROMPTS=folder`). Labels are
here: ``labels/rows.csv`` for rows that were read one by one, ``labels/templates.csv`` for those whose fixed wrapper decides;
a wrapper is named by the start of its SHA-256, so that no text is copied. ``*`` stands for all others.
"""

from __future__ import annotations

import csv
import hashlib
import math
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from training.corpus import HERE, Prompt

PER_SOURCE = 100
PER_WRAPPER = 12
"""How much all rows of one wrapper count together, in lines of our own."""

UNTRAINED = {
    "evaluation set": (
        "benign_bbh", "benign_gsm8k_test", "benign_humaneval", "benign_llmbar_judging", "benign_mtbench_vicuna", "benign_bfcl",
        "benign_webvoyager", "benign_insight_bench", "benign_sql_eval", "benign_polyglot_exercism", "benign_llava_eval",
        "benign_alma_wmt", "benign_hh_rlhf", "distill_xstest", "distill_prometheus", "distill_pandalm",
    ),
    "share-alike text": (
        "benign_mathdial", "benign_xquad_rag", "benign_dstc8_service", "benign_deepeval_metrics", "benign_fabric_patterns",
        "distill_raft",
    ),
}  # fmt: skip
"""Sources that are never trained on, by the reason; rows of the others whose licence says share-alike neither."""


@dataclass(frozen=True, slots=True)
class Row:
    """A drawn row: the prompt with its labels, its wrapper and whether the source is honest traffic or a pipeline's."""

    prompt: Prompt
    wrapper: str
    content: str
    template: str
    benign: bool
    trainable: bool

    @property
    def plain(self) -> bool:
        """Honest traffic that shows no family of elicitation: what must not be marked."""
        return self.benign and not self.prompt.elicitation


def draw(folder: Path) -> list[Row]:
    """The labelled sample, the same every time, in the order of files and rows."""
    wrappers, single = _labels()
    untrained = {name for names in UNTRAINED.values() for name in names}
    found = []
    for path in sorted(folder.glob("*.parquet")):
        rows = pq.read_table(path).to_pylist()
        for number in sorted(_chosen(path.stem, rows)):
            row = rows[number]
            wrapper = _name(row["template"])
            label = single.get((path.stem, number)) or _wrapped(wrappers, path.stem, wrapper, row["task"])
            own = path.stem not in untrained and "SA" not in row["licence"]
            found.append(_row(row, label, path.stem, wrapper, own))
    return weighted(found)


def _row(row: dict[str, Any], label: tuple[str, str], source: str, wrapper: str, trainable: bool) -> Row:
    capability, elicitation = (tuple(part.split("+")) if part else () for part in label)
    text = f"{row['template']}\n{row['prompt']}".strip()
    prompt = Prompt(text, "", row["language"], capability, elicitation, source)
    return Row(prompt, wrapper, row["prompt"], row["template"], row["kind"] == "benign", trainable)


def weighted(rows: list[Row]) -> list[Row]:
    """The rows, those of one wrapper counting as ``PER_WRAPPER`` together at most."""
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        sizes[row.prompt.group, row.wrapper] += 1
    weights = [min(1.0, PER_WRAPPER / sizes[r.prompt.group, r.wrapper]) for r in rows]
    return [replace(r, prompt=replace(r.prompt, weight=w)) for r, w in zip(rows, weights, strict=True)]


def _chosen(source: str, rows: list[dict[str, Any]]) -> set[int]:
    """Rows spread over wrappers and tasks, each by the root of its size, at least one each."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[_name(row["template"]), row["task"]].append(number)
    rng = random.Random(source)
    for members in groups.values():
        rng.shuffle(members)
    ordered = sorted(groups.values(), key=len, reverse=True)
    total = sum(math.sqrt(len(g)) for g in groups.values())
    few = len(groups) > PER_SOURCE
    taken = [n for g in ordered for n in g[: 1 if few else max(1, round(PER_SOURCE * math.sqrt(len(g)) / total))]]
    rng.shuffle(taken)
    rest = [n for g in ordered for n in g if n not in set(taken[:PER_SOURCE])]
    return set((taken[:PER_SOURCE] + rest)[:PER_SOURCE])


def _name(template: str) -> str:
    return hashlib.sha256(template.encode()).hexdigest()[:10]


def _labels() -> tuple[dict[tuple[str, str, str], tuple[str, str]], dict[tuple[str, int], tuple[str, str]]]:
    with (HERE / "labels" / "templates.csv").open() as file:
        wrappers = {
            (r["file"], r["template"], r["task"]): (r["capability"], r["elicitation"]) for r in csv.DictReader(file)
        }
    with (HERE / "labels" / "rows.csv").open() as file:
        single = {(r["file"], int(r["row"])): (r["capability"], r["elicitation"]) for r in csv.DictReader(file)}
    return wrappers, single


def _wrapped(
    known: dict[tuple[str, str, str], tuple[str, str]], source: str, wrapper: str, task: str
) -> tuple[str, str]:
    for key in ((source, wrapper, task), (source, wrapper, "*"), (source, "*", task), (source, "*", "*")):
        if key in known:
            return known[key]
    raise SystemExit(f"training/labels: no label for {source}, wrapper {wrapper}, task {task}")
