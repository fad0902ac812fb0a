"""What evaluation reads: the truth of a simulated log, the outcome of a scan, and the two side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stillwatch.errors import UsageError

TRUTH_FILE = "truth.parquet"
MARKS_FILE = "truth_exchanges.parquet"
EXCHANGES_FOLDER = "exchanges"
OUTCOME_HINT = "RESULT is the folder `stillwatch scan --out` wrote: accounts.parquet and campaigns.json"
TRUTH_HINT = "TRUTH is truth.parquet, or the folder `stillwatch simulate` wrote it to"


@dataclass(frozen=True, slots=True)
class Labels:
    """Text labels of accounts as codes: 0 where there is none, otherwise 1 + the index into ``names`` (sorted)."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sides:
    """Every account of truth or result, one entry each: what it was planted as, and what was said of it.

    ``in_truth`` and ``in_result`` tell which side knows it; ``risk`` is NaN where the result gives none.
    """

    account_ids: pa.ChunkedArray
    planted: Labels
    reported: Labels
    population: Labels
    risk: NDArray[np.float64]
    in_truth: NDArray[np.bool_]
    in_result: NDArray[np.bool_]
    repeated: int
    """Rows left out because their account had one already."""

    def population_of(self, some: NDArray[np.bool_]) -> str:
        """The commonest population of these accounts; empty if that is none."""
        code = int(np.bincount(self.population.codes[some]).argmax())
        return self.population.names[code - 1] if code else ""


def read_truth(path: Path) -> pa.Table:
    """account_id, campaign_id (null: honest), population of every account, from the file or the folder it is in."""
    file = path / TRUTH_FILE if path.is_dir() else path
    return read_columns(file, ("account_id", "campaign_id", "population"), TRUTH_HINT)


def read_outcome(folder: Path) -> pa.Table:
    """account_id, campaign_id (null: in no campaign), risk of every account a scan saw."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", hint=OUTCOME_HINT)
    return read_columns(folder / "accounts.parquet", ("account_id", "campaign_id", "risk"), OUTCOME_HINT)


def log_of(truth: Path) -> tuple[str, list[str]] | None:
    """The file that marks distillation exchanges and the log's files, or None where they do not lie with the truth."""
    world = truth if truth.is_dir() else truth.parent
    marks, exchanges = world / MARKS_FILE, sorted(map(str, (world / EXCHANGES_FOLDER).glob("*.parquet")))
    return (str(marks), exchanges) if marks.exists() and exchanges else None


def read_campaigns(folder: Path) -> list[dict[str, Any]]:
    """The reported campaigns, as ``campaigns.json`` has them."""
    return read_list(folder / "campaigns.json", OUTCOME_HINT)


def lay_side_by_side(truth: pa.Table, outcome: pa.Table) -> Sides:
    """Match the accounts of both; UsageError if they have none in common though both have some."""
    left, right = _once(truth), _once(outcome)
    both = left.append_column("in_truth", _trues(left)).join(
        right.append_column("in_result", _trues(right)), "account_id", join_type="full outer", right_suffix="_reported"
    )
    in_truth, in_result = _flags(both["in_truth"]), _flags(both["in_result"])
    if len(left) and len(right) and not (in_truth & in_result).any():
        raise UsageError("truth and result have no account in common", hint="are they of the same log?")
    risk = pc.fill_null(both["risk"].cast(pa.float64()), float("nan")).to_numpy()
    return Sides(
        both["account_id"],
        label(both["campaign_id"]),
        label(both["campaign_id_reported"]),
        label(both["population"]),
        risk,
        in_truth,
        in_result,
        len(truth) - len(left) + len(outcome) - len(right),
    )


def label(values: pa.ChunkedArray) -> Labels:
    """Number the distinct texts in sorted order, from 1; null is 0."""
    text = values.cast(pa.string())
    distinct = pc.unique(text).drop_null()
    ordered = distinct.take(pc.array_sort_indices(distinct))
    codes = pc.fill_null(pc.index_in(text, value_set=ordered), -1).to_numpy().astype(np.int64) + 1
    return Labels(codes, tuple(ordered.to_pylist()))


def read_list(file: Path, hint: str) -> list[dict[str, Any]]:
    """Campaigns from a JSON list; UsageError with this hint if it is none."""
    try:
        campaigns = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read: {error}", hint=hint) from error
    if not isinstance(campaigns, list) or not all(isinstance(c, dict) and "campaign_id" in c for c in campaigns):
        raise UsageError(f"{file}: not a list of campaigns with a campaign_id each", hint=hint)
    return campaigns


def read_columns(file: Path, columns: tuple[str, ...], hint: str) -> pa.Table:
    """These columns of a Parquet file; UsageError with this hint if it cannot be read or lacks one."""
    try:
        found = set(pq.read_schema(file).names)
        if missing := [c for c in columns if c not in found]:
            raise UsageError(f"{file}: no column {', '.join(missing)}", hint=hint)
        return pq.read_table(file, columns=list(columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"{file}: cannot be read: {error}", hint=hint) from error


def _once(table: pa.Table) -> pa.Table:
    """The first row of each account, texts as plain strings so that any two files can be joined."""
    table = table.set_column(0, "account_id", table["account_id"].cast(pa.string()))
    numbered = table.select(["account_id"]).append_column("row", pa.array(np.arange(len(table))))
    first = numbered.group_by("account_id").aggregate([("row", "min")])["row_min"]
    table = table.take(first)
    return table.set_column(1, "campaign_id", table["campaign_id"].cast(pa.string()))


def _trues(table: pa.Table) -> pa.Array:
    return pa.array(np.ones(len(table), dtype=bool))


def _flags(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    return pc.fill_null(values, False).to_numpy().astype(bool)
