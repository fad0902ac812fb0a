"""What the reader is trained on: every line whole, labels of the guide, nothing held out among it."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

import pytest
from training.corpus import SLOT, Prompt, corpus, filled, fillers, heldout

from stillwatch.types import CAPABILITIES, ELICITATIONS

ROOT = Path(__file__).parent.parent / "training"
OWN, HELD = corpus(), [*heldout("elicitation"), *heldout("capability")]


def faults(prompts: list[Prompt]) -> list[str]:
    bad = []
    for p in prompts:
        if not p.capability or set(p.capability) - set(CAPABILITIES) or set(p.elicitation) - set(ELICITATIONS[1:]):
            bad.append(f"{p.group}: labels {p.capability} {p.elicitation} of {p.text[:60]!r}")
        if "other" in p.capability and len(p.capability) > 1:
            bad.append(f"{p.group}: other does not stand alone: {p.text[:60]!r}")
    return bad


def test_every_line_has_labels_of_the_guide() -> None:
    assert len(OWN) > 15_000
    assert faults(OWN) == []
    assert faults(HELD) == []


def test_no_prompt_held_out_is_trained_on() -> None:
    plain = lambda p: re.sub(r"\W+", " ", f"{p.system} {p.text}".lower()).strip()
    both = {plain(p) for p in OWN} & {plain(p) for p in HELD}
    assert [text for text in both if len(text.split()) > 2] == []  # a mere greeting may be anybody's


def test_every_slot_has_something_to_fill_it() -> None:
    found = fillers()
    kinds = {kind for p in OWN for kind in SLOT.findall(p.text + p.system)}
    assert kinds - set(found) == set()
    assert all(texts.get("en") for texts in found.values())
    assert not SLOT.search(filled("{{question}} {{code}} {{topic}}", "zh", found, random.Random(0)))


@pytest.mark.parametrize("name", ["rows", "templates"])
def test_labels_of_real_prompts_are_of_the_guide(name: str) -> None:
    with (ROOT / "labels" / f"{name}.csv").open() as file:
        for row in csv.DictReader(file):
            assert set(row["capability"].split("+")) <= set(CAPABILITIES), row
            assert set(filter(None, row["elicitation"].split("+"))) <= set(ELICITATIONS[1:]), row


def test_the_guide_names_every_class() -> None:
    guide = (ROOT / "GUIDE.md").read_text()
    assert [c for c in (*CAPABILITIES, *ELICITATIONS[1:]) if f"| {c} |" not in guide] == []
