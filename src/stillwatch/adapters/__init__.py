"""Logs of any format in, canonical record batches out: hop 1.

``read_exchanges`` opens a log, ``read_accounts`` and ``read_models`` the two small tables, ``coverage_card`` says what
a log holds. A log format is a file of this folder with a constant ``ADAPTER``, mostly one that names a field map of
``maps/``; ``intake/`` is what adapters share. Exchanges come by the million: batches, never one object a row, for the
canonical form.
"""

from __future__ import annotations

from stillwatch.adapters.fieldmap import map_adapter
from stillwatch.adapters.intake.adapter import Adapter
from stillwatch.adapters.intake.coverage import ColumnCoverage, CoverageCard, coverage_card
from stillwatch.adapters.intake.lists import read_accounts, read_models
from stillwatch.adapters.intake.report import Limits, Report
from stillwatch.adapters.intake.seen import Seen
from stillwatch.adapters.intake.source import Source
from stillwatch.adapters.reading import read_exchanges

__all__ = [
    "Adapter",
    "ColumnCoverage",
    "CoverageCard",
    "Limits",
    "Report",
    "Seen",
    "Source",
    "coverage_card",
    "map_adapter",
    "read_accounts",
    "read_exchanges",
    "read_models",
]
