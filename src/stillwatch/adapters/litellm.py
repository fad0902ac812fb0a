"""LiteLLM: payloads pushed by its generic_api callback, and dumps of its spend log; the fields are in ``maps/``."""

from __future__ import annotations

from stillwatch.adapters.fieldmap import map_adapter

ADAPTER = map_adapter(
    "litellm",
    "litellm_spendlogs",
    name="litellm",
    meaning="LiteLLM: payloads pushed by its generic_api callback, and dumps of its spend log",
)
