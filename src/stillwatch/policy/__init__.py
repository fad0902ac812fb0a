"""Findings and what is in force to proposed actions: one TOML file, one pure function, and both in plain words.

``load`` reads and checks a policy, ``decide`` proposes, ``explain`` says what it does in sentences, ``preview`` whom it would
hit. Nothing here carries anything out: ``actions.py`` does. Randomness comes from a seed that is given, time too.
"""

from __future__ import annotations

from stillwatch.policy.deciding import decide
from stillwatch.policy.file import load, parse
from stillwatch.policy.nouns import (
    Bulk,
    Caps,
    Escalation,
    Holdout,
    Newest,
    Organisations,
    Policy,
    Rule,
    Suspect,
    Told,
    Traffic,
    When,
    told_of,
)
from stillwatch.policy.reading import accounts_of, end_of, findings_of, ties_of, traffic_of
from stillwatch.policy.telling import Preview, explain, preview, show

__all__ = [
    "Bulk",
    "Caps",
    "Escalation",
    "Holdout",
    "Newest",
    "Organisations",
    "Policy",
    "Preview",
    "Rule",
    "Suspect",
    "Told",
    "Traffic",
    "When",
    "accounts_of",
    "decide",
    "end_of",
    "explain",
    "findings_of",
    "load",
    "parse",
    "preview",
    "show",
    "ties_of",
    "told_of",
    "traffic_of",
]
