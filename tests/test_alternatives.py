"""Work of their own: what lets colleagues go, and does not let workers go."""

from __future__ import annotations

import pytest

from stillwatch.alternatives import ASKED, OWN_PART, OWN_SHARE, OWN_WORDS, OWN_WORK, one_workplace
from stillwatch.traits import UNTOLD

COLLEAGUES = {"repeats": 2.7, "dispatch": 1.1, "variety": 0.7, "marked": 0.4}
"""They come back to some of the wordings each, and ask for nothing unlike others' work."""
PLAINLY = {"repeats": 3.4, "dispatch": 2.5, "variety": 0.4, "marked": 2.0}
"""Who uses which wording is far from dealt out, whatever they ask."""


@pytest.mark.parametrize(("traits", "extraction"), [
    (COLLEAGUES, 0.0), (PLAINLY, 0.0), (PLAINLY, 9.0),
], ids=["colleagues", "plainly", "plainly, whatever they ask"])  # fmt: skip
def test_people_with_work_of_their_own_are_explained(traits: dict[str, float], extraction: float) -> None:
    assert one_workplace(traits, extraction).explains


@pytest.mark.parametrize("traits", [COLLEAGUES, PLAINLY], ids=["colleagues", "plainly"])
@pytest.mark.parametrize(("change", "why"), [
    ({"repeats": OWN_WORK - 0.1}, "workers with four requests each have shown no work to come back to"),
    ({"variety": max(OWN_PART, OWN_SHARE) + 0.05}, "who uses every wording has none of their own"),
    ({"dispatch": 0.1}, "who uses which is dealt out"),
    ({"dispatch": UNTOLD}, "there is nothing to deal out"),
], ids=lambda v: v if isinstance(v, str) else "")  # fmt: skip
def test_workers_are_not(traits: dict[str, float], change: dict[str, float], why: str) -> None:
    assert not one_workplace(traits | change, 0.0).explains, why


def test_what_asks_for_training_data_is_explained_only_where_it_is_plain() -> None:
    assert not one_workplace(COLLEAGUES, ASKED).explains
    assert not one_workplace(COLLEAGUES | {"marked": OWN_WORDS}, 0.0).explains


def test_the_numbers_that_explain_are_told() -> None:
    told = one_workplace(COLLEAGUES, 0.0).text
    assert "6.5 times" in told and "2.1 times as uneven" in told and "70% of the wordings" in told
