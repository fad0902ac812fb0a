"""Anthropic Messages: request and response pairs, and batch files; the fields are in ``maps/``."""

from __future__ import annotations

from stillwatch.adapters.fieldmap import map_adapter

ADAPTER = map_adapter(
    "anthropic",
    "anthropic_batch",
    name="anthropic",
    meaning="Anthropic Messages: request and response pairs, and batch files",
)
