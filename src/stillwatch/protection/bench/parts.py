"""The bench as parts that are measured seed by seed, each into a file of its own, and taken up again where they were left.

The rule: OUT/PART.json holds every seed that was measured, and nothing else is read to make the page. A seed that stands there
is not measured again; a folder of another size is refused. Models and answers are kept in OUT/kept, and may be thrown away.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from stillwatch.errors import InputRejected, UsageError
from stillwatch.progress import seconds_text
from stillwatch.protection.bench import (
    accuracy,
    cost,
    damage,
    experiments,
    identification,
    innocents,
    removal,
    translated,
)
from stillwatch.protection.bench.learning import FULL, SMALL, TINY, VERSION, Lab
from stillwatch.protection.bench.rows import Found, Row, Table

LABS = {"full": FULL, "small": SMALL}
SEEDS = {"full": 5, "small": 1}
DAMAGE = "damage"
QUIET_S = 10.0
"""Between two lines of progress, at least."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part: ``module`` measures one seed and says what it means over seeds; ``minutes`` of processor time a seed takes, about,
    by size; ``tiny``: its models are the smallest, since there are so many."""

    meaning: str
    module: Any
    minutes: dict[str, float]
    tiny: bool = False


PARTS = {
    "experiments": Part("what is found, and who is left alone", experiments, {"full": 12, "small": 1.6}),
    "innocents": Part("innocent suspects by the hundred", innocents, {"full": 6, "small": 0.7}, tiny=True),
    "identification": Part("many keys, one or two guilty", identification, {"full": 9, "small": 0.6}),
    "tokenizer": Part("a suspect of another family", translated, {"full": 7, "small": 0.6}),
    "removal": Part("what takes the mark out again", removal, {"full": 9, "small": 0.8}),
    "cost": Part("time and likelihood", cost, {"full": 4, "small": 0.5}),
    "accuracy": Part("right answers under a watermark", accuracy, {"full": 3, "small": 0.4}),
}
NAMES = (*PARTS, DAMAGE)
DAMAGE_MINUTES = {"full": 25.0, "small": 2.0}


@dataclass(slots=True)
class Course:
    """How far a run has come: shares of its parts, weighed by what they take, and a line now and then."""

    total: float
    say: Callable[[str], None]
    done: float = 0.0
    began: float = field(default_factory=time.monotonic)
    spoke: float = 0.0

    def tell(self, part: str, seed: int, minutes: float, share: float, what: str) -> None:
        """``share`` of this part's seed is done, and ``what`` comes now."""
        now = time.monotonic()
        if share and now - self.spoke < QUIET_S:
            return
        self.spoke = now
        over = (self.done + share * minutes) / self.total if self.total else 1.0
        left = f", about {seconds_text((now - self.began) * (1 - over) / over)} left" if over > 0 else ""
        self.say(f"{part}, seed {seed}: {what} ({over:.0%} of all{left})")


def run(out: Path, parts: Sequence[str], seeds: int, size: str, say: Callable[[str], None]) -> dict[str, list[Row]]:
    """Measure what is not there yet, and give each part's rows over the seeds. UsageError for an unknown part or size, no
    seed, or a folder of another size; InputRejected where a file in it is damaged."""
    _check(parts, seeds, size)
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(name, seed) for name in parts if name != DAMAGE for seed in range(1, seeds + 1)]
    kept = {name: read(out, name, size) for name in parts if name != DAMAGE}
    missing = [(name, seed) for name, seed in wanted if str(seed) not in kept[name]]
    left = len(damage.missing(damage.kept(out, size), range(1, seeds + 1))) if DAMAGE in parts else 0
    minutes = sum(PARTS[name].minutes[size] for name, _ in missing)
    minutes += left / len(damage.SIZES[size].tasks) * DAMAGE_MINUTES[size]
    course = Course(minutes, say)
    for name, seed in missing:
        kept[name][str(seed)] = _measured(out, name, seed, size, course)
        _write(out, name, size, kept[name])
        course.done += PARTS[name].minutes[size]
    found = {name: rows_of(name, size, _found(kept[name], seeds)) for name in kept}
    if DAMAGE in parts:
        found[DAMAGE] = damage.rows(damage.run(out, range(1, seeds + 1), size, say))
    return found


def read(out: Path, part: str, size: str) -> dict[str, Any]:
    """What a folder holds of a part, by seed; nothing where there is no file."""
    path = out / f"{part}.json"
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        same, seeds = (told["size"], told["version"]) == (size, VERSION), dict(told["seeds"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputRejected(
            f"{path}: this is no file of the bench: {e}", hint="take it away, or give another --out"
        ) from e
    if not same:
        raise UsageError(
            f"{path}: measured at size {told['size']}, version {told['version']}; asked for {size}, version {VERSION}",
            hint="give another --out",
        )
    return seeds


def rows_of(part: str, size: str, found: Sequence[Found]) -> list[Row]:
    """A part's rows over seeds."""
    module = PARTS[part].module
    made: list[Row] = module.rows(found, module.ASKED[size])
    return made


def tables_of(part: str, found: Sequence[Found]) -> list[Table]:
    """A part's tables over seeds."""
    return list(PARTS[part].module.tables(found))


def found_in(out: Path, part: str, size: str) -> tuple[list[Found], float]:
    """What every seed in the folder gave, in order, and the processor seconds of one, on average."""
    seeds = read(out, part, size)
    found = _found(seeds, max(map(int, seeds), default=0))
    return found, sum(s["cpu_s"] for s in seeds.values()) / max(len(seeds), 1)


def _check(parts: Sequence[str], seeds: int, size: str) -> None:
    unknown = [p for p in parts if p not in NAMES]
    if unknown:
        raise UsageError(f"the bench has no part {unknown[0]!r}", hint=f"one of {', '.join(NAMES)}")
    if size not in LABS:
        raise UsageError(f"no size {size!r}", hint=f"one of {', '.join(LABS)}")
    if seeds < 1:
        raise UsageError("nothing is measured without a seed", hint="--seeds 1")


def _measured(out: Path, name: str, seed: int, size: str, course: Course) -> dict[str, Any]:
    part = PARTS[name]
    lab = Lab(TINY if part.tiny else LABS[size], seed, out / "kept")
    began = time.process_time()

    def tell(share: float, what: str) -> None:
        course.tell(name, seed, part.minutes[size], share, what)

    tell(0.0, part.meaning)
    found = part.module.measure(lab, part.module.ASKED[size], tell)
    cpu_s = round(time.process_time() - began, 1)
    return {"cpu_s": cpu_s, "corpus": lab.texts.digest, "asked": asdict(part.module.ASKED[size]), "found": found}


def _found(seeds: dict[str, Any], most: int) -> list[Found]:
    return [seeds[str(s)]["found"] for s in range(1, most + 1) if str(s) in seeds]


def _write(out: Path, part: str, size: str, seeds: dict[str, Any]) -> None:
    told = {
        "part": part, "size": size, "version": VERSION, "torch": torch.__version__, "python": platform.python_version(),
        "rows": [asdict(row) for row in rows_of(part, size, _found(seeds, max(map(int, seeds))))],
        "seeds": seeds,
    }  # fmt: skip
    new = out / f".{part}.json.{os.getpid()}"
    new.write_text(json.dumps(told, indent=1), encoding="utf-8")
    os.replace(new, out / f"{part}.json")


def present(out: Path, size: str) -> Iterator[str]:
    """The parts that a folder holds results of, in order."""
    yield from (name for name in PARTS if read(out, name, size))
