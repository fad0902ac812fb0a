"""What was truly asked for: the distillation queries of a simulated log, counted by account and capability."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stillwatch.errors import UsageError

TRUTH_EXCHANGES_FILE = "truth_exchanges.parquet"
COLUMNS = ("account_id", "distillation", "capability")


@dataclass(frozen=True, slots=True)
class Asked:
    """Distillation queries: ``exchanges[i]`` of account ``accounts[i]`` (a place in the accounts it was read for) were
    after ``capabilities[i]``."""

    accounts: NDArray[np.int64]
    capabilities: NDArray[np.object_]
    exchanges: NDArray[np.int64]

    def total(self, of: NDArray[np.bool_]) -> int:
        """Distillation queries of the accounts where ``of`` is true."""
        return int(self.exchanges[of[self.accounts]].sum())

    def shares(self, of: NDArray[np.bool_]) -> dict[str, float]:
        """Shares of the capabilities over the distillation queries of the accounts where ``of`` is true."""
        held = of[self.accounts]
        names, at = np.unique(self.capabilities[held], return_inverse=True)
        counts = np.bincount(at, weights=self.exchanges[held], minlength=len(names))
        return {str(name): float(n / counts.sum()) for name, n in zip(names, counts)}


def read_asked(truth: Path, account_ids: pa.ChunkedArray) -> Asked | None:
    """The distillation queries of these accounts by ``truth_exchanges.parquet`` beside the truth, or None."""
    file = (truth if truth.is_dir() else truth.parent) / TRUTH_EXCHANGES_FILE
    if not file.exists():
        return None
    try:
        rows = pq.read_table(file, columns=list(COLUMNS), filters=pc.field("distillation"))
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{file}: cannot be read: {error}", hint=f"its columns are {', '.join(COLUMNS)}") from error
    rows = rows.set_column(2, "capability", pc.fill_null(rows["capability"].cast(pa.string()), "other"))
    counted = rows.group_by(["account_id", "capability"]).aggregate([("distillation", "count")])
    at = pc.index_in(counted["account_id"].cast(pa.string()), value_set=account_ids.combine_chunks())
    counted = counted.filter(at.is_valid())
    return Asked(
        at.drop_null().to_numpy().astype(np.int64),
        counted["capability"].to_numpy(zero_copy_only=False),
        counted["distillation_count"].to_numpy().astype(np.int64),
    )
