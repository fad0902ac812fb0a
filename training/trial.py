"""Weights in use: the package's own reader on given weights and prompts, so that what is measured is what is shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.fingerprints._lexicon import lexicon_of
from stillwatch.fingerprints._reader import features, logits
from stillwatch.fingerprints._scan import scan
from stillwatch.privacy import spans
from training.corpus import Prompt

Floats = npt.NDArray[np.float32]
KEYS = np.arange(4, dtype=np.uint64)


def seen(weights: Mapping[str, Any], texts: Sequence[str], systems: Sequence[str] | None = None) -> Floats:
    """What the network sees of each text, through the package's kernel."""
    lexicon = lexicon_of(weights)
    asked = scan(spans(pa.array(texts, pa.large_string())), KEYS, lexicon, 24)
    over = scan(spans(pa.array(systems or [""] * len(texts), pa.large_string())), KEYS, lexicon, 24)
    return features(asked.sums, asked.counts, over.sums)


def raw(weights: Mapping[str, Any], prompts: Sequence[Prompt]) -> Floats:
    """Log-odds of each class, not calibrated."""
    return logits(seen(weights, [p.text for p in prompts], [p.system for p in prompts]), dict(weights))
