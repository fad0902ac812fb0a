"""OpenAI Chat and Responses: request and response pairs, and batch files; the fields are in ``maps/``."""

from __future__ import annotations

from stillwatch.adapters.fieldmap import map_adapter

ADAPTER = map_adapter(
    "openai_chat",
    "openai_responses",
    "openai_batch",
    name="openai",
    meaning="OpenAI Chat and Responses: request and response pairs, and batch files",
)
