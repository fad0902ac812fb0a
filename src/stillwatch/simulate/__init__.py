"""Labelled logs in the canonical form: honest populations and planted campaigns, seeded and by the million.

``simulate(default_world(seed=1), Path("out"))`` writes a usual month. Nothing but what people ask and what they share
tells an operator's account from another; ``docs`` of each module say what they share.
"""

from stillwatch.simulate.log import Planted, Summary, simulate
from stillwatch.simulate.plans import (
    POPULATIONS,
    PRESETS,
    CampaignPlan,
    Preset,
    World,
    default_world,
    parse_campaign,
    presets,
)

__all__ = [
    "POPULATIONS",
    "PRESETS",
    "CampaignPlan",
    "Planted",
    "Preset",
    "Summary",
    "World",
    "default_world",
    "parse_campaign",
    "presets",
    "simulate",
]
