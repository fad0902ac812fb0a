"""OpenTelemetry GenAI, old and new names, as OTLP JSON lines; the fields are in ``maps/``."""

from __future__ import annotations

from stillwatch.adapters.fieldmap import map_adapter

ADAPTER = map_adapter("otlp", name="otlp", meaning="OpenTelemetry GenAI, old and new names, as OTLP JSON lines")
