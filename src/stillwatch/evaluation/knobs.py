"""What a hidden operator can turn, at a harvest that is fixed: plans, and their mutants and crosses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, floor
from typing import Any

import numpy as np

from stillwatch.errors import UsageError
from stillwatch.simulate import CampaignPlan

KNOBS: Mapping[str, tuple[Any, ...]] = {
    "accounts": (8, 12, 20, 35, 60, 100, 170, 300, 500, 850, 1200), "accounts_per_card": (1, 2, 4, 8, 15, 30),
    "camouflage": (0.0, 0.1, 0.25, 0.5, 0.7, 0.8), "customers": (0.0, 0.2, 0.4, 0.6, 0.8),
    "addresses": ("datacentre", "pool", "sticky"), "signups": ("burst", "batches", "spread"),
    "wording": ("fixed", "several", "paraphrased", "none"), "variants": (2, 4, 8, 16, 40, 100, 250),
    "tempo": ("clock", "balanced", "human"), "generations": (1, 2, 3, 4), "pivot": (0.0, 0.1, 0.3, 0.5),
    "pathways": (1, 2, 4), "days": (0, 3, 7, 14),
}  # fmt: skip
"""What the adversary turns, and to what; numbers rise. ``requests`` follows from them and the harvest."""
NAIVE = {
    "accounts": 8, "accounts_per_card": 30, "camouflage": 0.0, "customers": 0.0, "addresses": "datacentre",
    "signups": "burst", "wording": "fixed", "tempo": "clock", "generations": 1, "pivot": 0.0, "pathways": 1, "days": 7,
}  # fmt: skip
"""The cheapest plan: as few accounts as carry the harvest, one card, one server, one wording, no cover."""
CAREFUL = {
    "accounts": 300, "accounts_per_card": 1, "camouflage": 0.5, "customers": 0.0, "addresses": "sticky",
    "signups": "spread", "wording": "paraphrased", "tempo": "human", "generations": 1, "pivot": 0.1, "pathways": 1,
    "days": 0,
}  # fmt: skip
"""Every precaution that is on sale."""
TARGETS = {"math_reasoning": 0.35, "cot_elicitation": 0.35, "grading": 0.15, "coding": 0.15}
LEAST_HARVEST = 100
LEAST_REQUESTS = 4
"""Exchanges of an account, on average, below which the simulator does not go."""
MOST_ORDINARY = 0.85
UNUSED_VARIANTS = 2


@dataclass(frozen=True, slots=True)
class Space:
    """All plans for one harvest: so many distillation exchanges, of these capabilities, by turning these knobs.

    ``most_requests`` bounds the mean exchanges of an account, cover included: new accounts have rate limits, and one that
    is far busier than all others is looked at by itself. It is what makes an operator spread; as it stands, five times
    the mean of the honest accounts of ``Grounds``.
    """

    harvest: int = 5000
    most_requests: int = 125
    targets: Mapping[str, float] = field(default_factory=lambda: dict(TARGETS))
    knobs: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: dict(KNOBS))

    def __post_init__(self) -> None:
        if self.harvest < LEAST_HARVEST:
            raise UsageError(f"a harvest of {self.harvest} is no campaign", hint=f"at least {LEAST_HARVEST} exchanges")
        if self.most_requests < 2 * LEAST_REQUESTS:
            raise UsageError(f"{self.most_requests} exchanges an account are too few", hint="at least 8")
        if wrong := [name for name, values in self.knobs.items() if name not in KNOBS or not values]:
            raise UsageError(f"no knob {wrong[0]!r} to turn", hint=", ".join(KNOBS))

    def hold(self, spec: str) -> Space:
        """The plans where one knob stands still: ``wording=several``. UsageError if it cannot stand there."""
        name, value = _setting(spec)
        return replace(self, knobs={**self.knobs, name: (value,)})

    def without(self, spec: str) -> Space:
        """The plans where one knob never stands there: ``accounts_per_card=30``. UsageError if nothing is left."""
        name, value = _setting(spec)
        return replace(self, knobs={**self.knobs, name: tuple(v for v in self.knobs.get(name, ()) if v != value)})

    def plan(self, settings: Mapping[str, Any]) -> CampaignPlan:
        """The plan with these knobs, each where it may stand and nearest to what was asked, at the harvest."""
        placed = {name: _nearest(settings.get(name), values) for name, values in self.knobs.items()}
        return fitted(CampaignPlan("adversary", targets=dict(self.targets), **{"accounts": 8, **placed}), self)


def _setting(spec: str) -> tuple[str, Any]:
    name, _, text = spec.partition("=")
    at = [value for value in KNOBS.get(name, ()) if str(value) == text]
    if not at:
        raise UsageError(f"no knob stands at {spec!r}", hint=f"{name}: {', '.join(map(str, KNOBS.get(name, KNOBS)))}")
    return name, at[0]


def _nearest(wanted: Any, values: tuple[Any, ...]) -> Any:
    """The value asked for, or the number nearest to it, or the first on offer."""
    if wanted in values or wanted is None or isinstance(wanted, str):
        return wanted if wanted in values else values[0]
    return min(values, key=lambda value: abs(value - wanted))


def fitted(plan: CampaignPlan, space: Space) -> CampaignPlan:
    """The plan at the harvest of the space, in one spelling: what has no effect stands at its default.

    Mean distillation exchanges are exactly the harvest. Camouflage is lowered to leave at least 15 % of them, accounts
    are moved to where each makes between 4 and ``most_requests``.
    """
    room = 1 - (1 - MOST_ORDINARY) / (1 - plan.customers)
    plan = replace(plan, camouflage=min(plan.camouflage, round(max(0.0, room), 4)))
    exchanges = space.harvest / (1 - plan.ordinary)
    accounts = min(max(plan.accounts, ceil(exchanges / space.most_requests), 2), floor(exchanges / LEAST_REQUESTS))
    on_offer = space.knobs.get("variants", KNOBS["variants"])
    variants = _nearest(plan.variants, on_offer) if plan.wording == "several" else UNUSED_VARIANTS
    return replace(plan, accounts=accounts, requests=exchanges / accounts, variants=variants)


def changes(plan: CampaignPlan, base: CampaignPlan) -> dict[str, Any]:
    """Knobs of the plan that stand elsewhere than in ``base``."""
    return {name: getattr(plan, name) for name in KNOBS if getattr(plan, name) != getattr(base, name)}


def draw(space: Space, rng: np.random.Generator) -> CampaignPlan:
    """Any plan: each knob anywhere."""
    return space.plan({name: values[rng.integers(len(values))] for name, values in space.knobs.items()})


def mutate(plan: CampaignPlan, space: Space, rng: np.random.Generator) -> CampaignPlan:
    """The plan with one to three knobs turned: a number by a step or two, a choice to another, either back to naive."""
    turned = {name: getattr(plan, name) for name in KNOBS}
    names = [name for name, values in space.knobs.items() if len(values) > 1]
    for name in rng.permutation(names)[: rng.choice([1, 1, 2, 3])].tolist():
        values = space.knobs[name]
        if rng.random() < 0.25 and NAIVE.get(name) in values:
            turned[name] = NAIVE[name]
        elif isinstance(values[0], str):
            turned[name] = values[rng.integers(len(values))]
            # Several wordings are as many as anything, not as few as one had without them.
            if turned["wording"] != plan.wording:
                turned["variants"] = int(rng.choice(space.knobs["variants"]))
        else:
            at = values.index(_nearest(turned[name], values))
            step = int(rng.choice([-2, -1, 1, 2]))
            turned[name] = values[min(max(at + step, 0), len(values) - 1)]
    return fitted(replace(plan, **turned), space)


def cross(left: CampaignPlan, right: CampaignPlan, space: Space, rng: np.random.Generator) -> CampaignPlan:
    """Each knob from one parent or the other."""
    dealt = {name: getattr((left, right)[rng.integers(2)], name) for name in KNOBS}
    return fitted(replace(left, **dealt), space)
