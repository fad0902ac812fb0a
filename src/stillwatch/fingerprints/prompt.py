"""What was asked, as marks: sketches for wording families, hashes, capability, elicitation, meaning. No text leaves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.fingerprints import SYSTEM_SKETCH_WIDTH, Fingerprint, Values, column
from stillwatch.fingerprints._lexicon import Sums, lexicon, no_sums
from stillwatch.fingerprints._reader import features, judge, rows_of, scores
from stillwatch.fingerprints._scan import Reading, scan
from stillwatch.fingerprints._unwrap import unwrapped
from stillwatch.privacy import Privacy, spans
from stillwatch.tables import SKETCH_WIDTH


def observe(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    """Sketches, hashes, length in characters, and what the reader says of prompt, system text, tools and images."""
    prompt = column(batch, "prompt")
    asked = read(prompt, privacy, SKETCH_WIDTH)
    system, rows = read_distinct(column(batch, "system"), privacy)
    tools, offers = read_distinct(_tool_names(batch), privacy)
    over = added(rows_of(system.sums, rows), rows_of(tools.sums, offers))
    offered = _positive(column(batch, "tools", pa.list_(pa.string())).value_lengths())
    shown = _positive(column(batch, "images", pa.int16()))
    seen = features(asked.sums, asked.counts, over)
    given = scores(seen, offered, shown)
    _look_inside(prompt, asked, given, privacy)
    verdict = judge(seen, given, (asked.sums.known[:, 0] + over.known[:, 0] > 0) | offered | shown)
    return {
        "prompt": asked.whole,
        "prompt_chars": pc.utf8_length(prompt).cast(pa.int32()),
        "sketch": asked.sketch,
        "system": system.whole[rows],
        "system_sketch": system.sketch[rows],
        "capability": verdict.capability,
        "capabilities": verdict.capabilities,
        "elicitation": verdict.elicitation,
        "elicitation_kind": verdict.kind,
        "elicitation_kinds": verdict.kinds,
        "meaning": verdict.meaning,
    }


def read(texts: pa.Array, privacy: Privacy, width: int) -> Reading:
    """Scans texts under this run's keys."""
    keys = np.concatenate([privacy.keys("text"), privacy.keys("shingle")])
    return scan(spans(texts), keys, lexicon(), width)


def read_distinct(texts: pa.Array, privacy: Privacy) -> tuple[Reading, npt.NDArray[np.int64]]:
    """Scans each different text once; gives the readings, an empty one last, and which one each row has."""
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    entries = pa.concat_arrays([encoded.dictionary, pa.nulls(1, encoded.dictionary.type)])
    rows = encoded.indices.fill_null(len(entries) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    return read(entries, privacy, SYSTEM_SKETCH_WIDTH), rows


def added(system: Sums, tools: Sums) -> Sums:
    """The names of tools count as a part of the system text."""
    return Sums(
        system.whole + tools.whole, system.head + tools.head, system.tail, np.maximum(system.peaks, tools.peaks),
        system.known + tools.known,
    )  # fmt: skip


def _look_inside(prompt: pa.Array, asked: Reading, given: npt.NDArray[np.float32], privacy: Privacy) -> None:
    """Raises the scores of prompts that wrap another text (base64, hexadecimal, rot13) to what that text gets."""
    rows, texts = unwrapped(prompt, asked.counts, asked.sums.known)
    if not len(rows):
        return
    inner = read(pa.array(texts, pa.large_string()), privacy, SYSTEM_SKETCH_WIDTH)
    none = np.zeros(len(rows), bool)
    empty = no_sums(len(texts), inner.sums.peaks.shape[1])
    inside = scores(features(inner.sums, inner.counts, empty), none, none)
    clear = 2 * inner.sums.known[:, 0] > inner.sums.known[:, 1]
    np.maximum.at(given, rows[clear], inside[clear])


def _tool_names(batch: pa.RecordBatch) -> pa.Array:
    return pc.binary_join(column(batch, "tools", pa.list_(pa.string())), " ")


def _positive(counts: pa.Array) -> npt.NDArray[np.bool_]:
    """Where a count is there and more than 0."""
    found: npt.NDArray[np.bool_] = pc.fill_null(counts, 0).to_numpy(zero_copy_only=False) > 0
    return found


FINGERPRINT = Fingerprint(
    name="prompt",
    meaning="what was asked, as marks: wording, capability, elicitation, meaning",
    needs=("prompt",),
    kinds={
        "prompt": "the whole last user turn, normalised: equal for a word-for-word re-ask",
        "system": "the system text, or its wording family once that is known",
    },
    columns=(
        "system", "prompt", "prompt_chars", "capability", "capabilities", "elicitation", "elicitation_kind",
        "elicitation_kinds", "meaning",
    ),
    observe=observe,
)  # fmt: skip
