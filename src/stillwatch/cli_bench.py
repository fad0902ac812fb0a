"""The verbs that measure what stillwatch's own protection is worth, on models trained on the spot."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cyclopts import App

from stillwatch.cli_options import Flag, JsonFlag
from stillwatch.errors import UsageError

app = App(name="bench", help="Measure on this machine what a protection is worth.")

AMISS = 1
"""Exit code where something that was asked does not hold."""

PartName = Literal["experiments", "innocents", "identification", "tokenizer", "removal", "cost", "accuracy", "damage"]
SizeName = Literal["small", "full"]


@app.command
def protect(
    *,
    out: Path,
    part: PartName | None = None,
    seeds: int | None = None,
    size: SizeName = "full",
    json_: JsonFlag = False,
    quiet: Flag = False,
) -> int:
    """Teacher, protected outputs, student, proof: what a watermark finds, whom it leaves alone, and what it costs.

    Examples:

        stillwatch bench protect --out bench --size small
        stillwatch bench protect --out bench
        stillwatch bench protect --out bench --part innocents --seeds 5

    Trains small models on docstrings of this Python; needs no network. Writes
    a JSON file a part, and bench.md with power.svg, to OUT. What stands there
    is not measured again: a run that was stopped goes on where it was.

    Exit codes: 0 all that was asked holds; 1 something does not; 2 usage, or
    the extra is missing; 3 a file in OUT is damaged; 5 too little to train on.

    Parameters
    ----------
    out
        Folder for the results, and for models that several parts need (OUT/kept).
    part
        This part alone.
    seeds
        How many times, each with other texts, models and keys; 5, and of size small 1.
    size
        full takes about an hour of processor time a seed; small, which CI runs, some minutes in all.
    json_
        Print what was asked and what it got as JSON.
    quiet
        No progress on stderr.
    """
    _check_extra()
    from stillwatch.progress import Progress
    from stillwatch.protection.bench import page, parts

    names = [part] if part else list(parts.NAMES)
    with Progress(quiet=quiet) as progress:
        found = parts.run(out, names, parts.SEEDS[size] if seeds is None else seeds, size, progress.note)
    path = page.write(out, size)
    if json_:
        print(json.dumps({name: [asdict(row) for row in rows] for name, rows in found.items()}, indent=1))
    else:
        for row in (row for rows in found.values() for row in rows):
            print(f"{'holds' if row.holds else 'FAILS'}  {row.number}  {row.meaning}: {row.got}  (asked: {row.asked})")
        print(path)
    return 0 if all(row.holds for rows in found.values() for row in rows) else AMISS


def _check_extra() -> None:
    for name in ("scipy", "torch", "transformers"):
        if find_spec(name) is None:
            raise UsageError(f"the bench needs {name}", hint="pip install 'stillwatch[protect]'")
