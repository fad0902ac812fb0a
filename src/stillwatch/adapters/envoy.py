"""Envoy AI Gateway: JSON access log; the fields are in ``maps/``."""

from __future__ import annotations

from stillwatch.adapters.fieldmap import map_adapter

ADAPTER = map_adapter("envoy", name="envoy", meaning="Envoy AI Gateway: JSON access log")
