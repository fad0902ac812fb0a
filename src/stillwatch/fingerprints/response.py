"""What came back and how much was wanted: the answer's length, reasoning in plain sight, and the appetite of the request.

Appetite counts what a request for training data tends to ask for and a conversation does not: reasoning, several answers,
log-probabilities, room for long output, one turn without a conversation. Each is common by itself; the count is for comparing
populations. Whether a conversation goes on is not known of one exchange: ``turn`` and ``conversation`` tell it of many.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.fingerprints import Fingerprint, Values, column
from stillwatch.privacy import Privacy

LONG_OUTPUT, ROOM = 1500, 8192
"""Tokens of a long answer, and of a limit that asks for one."""
OPENING = 300
_TRACE = (
    r"(?i)<(think|thinking|reasoning|thought|scratchpad|analysis)>"
    r"|\b(step|шаг|paso|étape|schritt|passo) 1\b|步骤|第一步|ステップ"
)


def observe(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    """Length and visible reasoning of the answer, null where there is none; appetite, 0 to 5."""
    response = column(batch, "response")
    opening = pc.utf8_slice_codeunits(response, 0, OPENING)
    return {
        "response_chars": pc.utf8_length(response).cast(pa.int32()),
        "response_trace": pc.match_substring_regex(opening, _TRACE),
        "appetite": appetite(batch),
    }


def appetite(batch: pa.RecordBatch) -> pa.Array:
    """How many marks of appetite a request shows; what the source does not say shows none."""
    marks = (
        pc.fill_null(column(batch, "thinking", pa.bool_()), False),
        pc.greater(pc.fill_null(column(batch, "n", pa.int16()), 1), 1),
        pc.fill_null(column(batch, "logprobs", pa.bool_()), False),
        pc.or_(
            pc.greater_equal(pc.fill_null(column(batch, "max_tokens", pa.int32()), 0), ROOM),
            pc.greater_equal(pc.fill_null(column(batch, "output_tokens", pa.int32()), 0), LONG_OUTPUT),
        ),
        pc.and_(
            pc.equal(pc.fill_null(column(batch, "turn", pa.int16()), 1), 0), column(batch, "conversation_id").is_null()
        ),
    )
    total = sum((m.cast(pa.int8()).to_numpy(zero_copy_only=False) for m in marks), np.zeros(batch.num_rows, np.int8))
    return pa.array(total, pa.int8())


FINGERPRINT = Fingerprint(
    name="response",
    meaning="what came back, and how much was wanted",
    needs=("response",),
    kinds={},
    columns=("response_chars", "response_trace", "appetite"),
    observe=observe,
)
