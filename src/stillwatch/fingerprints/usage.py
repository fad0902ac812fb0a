"""How much was asked for and used: tokens, answers, turns, and the marks of appetite (log-probabilities, reasoning)."""

from __future__ import annotations

import pyarrow as pa

from stillwatch.fingerprints import Fingerprint, Values, column
from stillwatch.privacy import Privacy
from stillwatch.tables import FACTS

COLUMNS = (
    "turn", "images", "input_tokens", "output_tokens", "reasoning_tokens", "max_tokens", "n", "temperature", "logprobs",
    "thinking", "batch", "status",
)  # fmt: skip


def observe(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    """The columns as they are; null where the source does not say."""
    return {name: column(batch, name, FACTS.schema.field(name).type) for name in COLUMNS}


FINGERPRINT = Fingerprint(
    name="usage",
    meaning="how much was asked for and used",
    needs=(),
    kinds={},
    columns=COLUMNS,
    observe=observe,
)
