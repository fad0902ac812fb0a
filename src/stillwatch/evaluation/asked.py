"""What was truly asked for: the distillation queries of a simulated log, counted by account and capability."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillwatch.errors import UsageError
from stillwatch.evaluation.reading import log_of

ASKED = """
SELECT account_id, capability, count(*) AS exchanges
FROM read_parquet($exchanges)
JOIN (SELECT exchange_id, coalesce(capability, 'other') AS capability FROM read_parquet($marks) WHERE distillation)
USING (exchange_id) GROUP BY account_id, capability"""


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
    """The distillation queries of these accounts, or None where the log does not lie with the truth."""
    if (log := log_of(truth)) is None:
        return None
    marks, exchanges = log
    try:
        with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as engine:
            counted = engine.sql(ASKED, params={"marks": marks, "exchanges": exchanges}).to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(f"{marks}: cannot be read: {error}", hint="its columns are those of `simulate`") from error
    at = pc.index_in(counted["account_id"], value_set=account_ids.combine_chunks())
    counted = counted.filter(at.is_valid())
    return Asked(
        at.drop_null().to_numpy().astype(np.int64),
        counted["capability"].to_numpy(),
        counted["exchanges"].to_numpy().astype(np.int64),
    )
