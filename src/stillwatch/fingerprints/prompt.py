"""What was asked, as marks: sketches for wording families, hashes, capability and elicitation. No text leaves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stillwatch.fingerprints import SYSTEM_SKETCH_WIDTH, Fingerprint, Values, column
from stillwatch.fingerprints._cues import CLASSES, SYSTEM_WEIGHT, Floats, cue_book, judge, with_structure
from stillwatch.fingerprints._scan import Reading, scan
from stillwatch.privacy import Privacy, spans
from stillwatch.tables import SKETCH_WIDTH


def observe(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    """Sketches, hashes, length in characters, and the verdict of cues over prompt, system text, tools and images."""
    book = cue_book()
    prompt = column(batch, "prompt")
    asked = read(prompt, privacy, SKETCH_WIDTH)
    system, rows = read_distinct(column(batch, "system"), privacy)
    scores = with_structure(asked.scores, asked.counts, book)
    scores += SYSTEM_WEIGHT * with_structure(system.scores, system.counts, book)[rows]
    verdict = judge(scores + side_scores(batch, privacy), book)
    return {
        "prompt": asked.whole,
        "prompt_chars": pc.utf8_length(prompt).cast(pa.int32()),
        "sketch": asked.sketch,
        "system": system.whole[rows],
        "system_sketch": system.sketch[rows],
        "capability": verdict.capability,
        "elicitation": verdict.elicitation,
        "elicitation_kind": verdict.kind,
    }


def read(texts: pa.Array, privacy: Privacy, width: int) -> Reading:
    """Scans texts under this run's keys."""
    keys = np.concatenate([privacy.keys("text"), privacy.keys("shingle")])
    return scan(spans(texts), keys, cue_book().cues, CLASSES, width)


def read_distinct(texts: pa.Array, privacy: Privacy) -> tuple[Reading, npt.NDArray[np.int64]]:
    """Scans each different text once; gives the readings, an empty one last, and which one each row has."""
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    entries = pa.concat_arrays([encoded.dictionary, pa.nulls(1, encoded.dictionary.type)])
    rows = encoded.indices.fill_null(len(entries) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    return read(entries, privacy, SYSTEM_SKETCH_WIDTH), rows


def side_scores(batch: pa.RecordBatch, privacy: Privacy) -> Floats:
    """Scores that tools and images add: cues in the names of tools, and the bare fact that there are any."""
    book = cue_book()
    tools = column(batch, "tools", pa.list_(pa.string()))
    joined, rows = read_distinct(pc.binary_join(tools, " "), privacy)
    offered = (pc.fill_null(tools.value_lengths(), 0).to_numpy(zero_copy_only=False) > 0).astype(np.float32)
    shown = (pc.fill_null(column(batch, "images", pa.int16()), 0).to_numpy(zero_copy_only=False) > 0).astype(np.float32)
    scores: Floats = joined.scores[rows] * np.float32(SYSTEM_WEIGHT)
    scores += np.multiply.outer(offered, book.structure["tools"])
    return scores + np.multiply.outer(shown, book.structure["images"])


FINGERPRINT = Fingerprint(
    name="prompt",
    meaning="what was asked, as marks: wording, capability, elicitation",
    needs=("prompt",),
    kinds={
        "prompt": "the whole last user turn, normalised: equal for a word-for-word re-ask",
        "system": "the system text, or its wording family once that is known",
    },
    columns=("system", "prompt", "prompt_chars", "capability", "elicitation", "elicitation_kind"),
    observe=observe,
)
