"""Our own wording: prompts with slots, labelled by GUIDE.md, and what fills the slots."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WORK = Path("build/training")
"""Where training keeps what it has made, below the folder it is run in."""
SLOT = re.compile(r"\{\{(\w+)\}\}")
BORROWED = 0.15
"""How often a slot of another language is filled with English all the same, as in real traffic."""

Fillers = Mapping[str, Mapping[str, list[str]]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One labelled prompt. ``group`` is what is held out together (a source, a file), ``weight`` what it counts."""

    text: str
    system: str
    language: str
    capability: tuple[str, ...]
    elicitation: tuple[str, ...]
    group: str
    set: str = ""
    weight: float = 1.0


def fillers() -> Fillers:
    """Texts for slots by kind and language."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in _lines(HERE / "corpus" / "fillers.jsonl"):
        found.setdefault(line["kind"], {}).setdefault(line["lang"], []).append(line["text"])
    return found


def corpus() -> list[Prompt]:
    """Every line of ``corpus/``, with its slots."""
    paths = sorted(p for p in (HERE / "corpus").glob("*.jsonl") if p.stem != "fillers")
    return [prompt(line, path.stem) for path in paths for line in _lines(path)]


def heldout(name: str) -> list[Prompt]:
    """Lines of ``heldout/NAME.jsonl``: written without sight of the corpus, never trained on."""
    return [prompt(line, line["group"]) for line in _lines(HERE / "heldout" / f"{name}.jsonl")]


def prompt(line: Mapping[str, str], group: str) -> Prompt:
    """A line of a file as a prompt."""
    return Prompt(line["text"], line.get("system") or "", line["lang"], tuple(line["capability"]),
                  tuple(line["elicitation"]), group, line.get("set", ""))  # fmt: skip


def filled(text: str, language: str, found: Fillers, rng: random.Random) -> str:
    """The text with each slot filled at random, in its language where there is a filler in it."""

    def choose(match: re.Match[str]) -> str:
        pool = found.get(match[1], {})
        own = pool.get(language) or pool.get("en") or [match[1]]
        return rng.choice(pool["en"] if language != "en" and pool.get("en") and rng.random() < BORROWED else own)

    return SLOT.sub(choose, text)


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as e:
                raise SystemExit(f"{path}:{number}: {e}") from e
