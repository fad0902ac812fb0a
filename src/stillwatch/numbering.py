"""Dense numbers for names that come by the million and repeat by the thousand: accounts, models."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Numbering:
    """Gives each distinct string the next number, in order of first appearance; a string keeps its number for good."""

    def __init__(self) -> None:
        self._known = pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self._known)

    @property
    def names(self) -> pa.Array:
        """All names; the position of a name is its number."""
        return self._known

    def number(self, names: pa.Array) -> np.ndarray:
        """Numbers (int32) of ``names``, which must hold no null."""
        encoded = pc.dictionary_encode(names)
        distinct = encoded.dictionary
        at = pc.index_in(distinct, value_set=self._known)
        new = distinct.filter(pc.is_null(at))
        if len(new):
            self._known = pa.concat_arrays([self._known, new])
            at = pc.index_in(distinct, value_set=self._known)
        return at.to_numpy(zero_copy_only=False).astype(np.int32)[encoded.indices.to_numpy(zero_copy_only=False)]

    def sorted_order(self) -> np.ndarray:
        """New numbers of the old ones, so that names are in alphabetical order; the names are put into it."""
        order = pc.sort_indices(self._known).to_numpy()
        self._known = self._known.take(pa.array(order))
        number = np.empty(len(order), np.int32)
        number[order] = np.arange(len(order), dtype=np.int32)
        return number

    def find(self, names: pa.Array) -> np.ndarray:
        """Numbers (int32) of ``names`` already known, -1 for the others; adds nothing."""
        at = pc.fill_null(pc.index_in(names, value_set=self._known), -1)
        return at.to_numpy(zero_copy_only=False).astype(np.int32)
