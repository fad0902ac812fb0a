"""What evaluation reads of a replay: when accounts were flagged and campaigns named, and what had been taken by then.

Times are microseconds since 1970 as floats, infinity for never.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stillwatch.errors import UsageError
from stillwatch.evaluation.measures import Overlap
from stillwatch.evaluation.reading import TRUTH_FILE, TRUTH_HINT, Sides, log_of, read_columns, read_list

REPLAY_HINT = "a replay's folder has first_flagged_at and cleared_at in accounts.parquet, and history.json"

COUNTED = """
SELECT place, count(*) FILTER (at_us < flagged_us) AS unflagged, count(*) FILTER (is_taken) AS harvest,
       count(*) FILTER (is_taken AND at_us < flagged_us) AS served,
       count(*) FILTER (is_taken AND at_us < named_us) AS unnamed,
       coalesce(min(at_us) FILTER (is_taken), 'inf'::DOUBLE) AS first_us
FROM (SELECT place, flagged_us, named_us, epoch_us(time) AS at_us,
             exchange_id IN (SELECT exchange_id FROM read_parquet($marks) WHERE distillation) AS is_taken
      FROM read_parquet($exchanges) JOIN watched USING (account_id))
GROUP BY place"""

Times = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Taken:
    """What the planted accounts took, an entry for each that made exchanges.

    ``code`` is that of the campaign; ``generation`` 0 for a first head, -1 where the truth does not say. Of all its
    exchanges ``unflagged`` are from before it was flagged; of its distillation exchanges (``harvest``, the first at
    ``first_us``), ``served`` are, and ``unnamed`` are from before its campaign was named.
    """

    code: Numbers
    generation: Numbers
    is_flagged: Flags
    unflagged: Numbers
    harvest: Numbers
    served: Numbers
    unnamed: Numbers
    first_us: Times


@dataclass(frozen=True, slots=True)
class Replay:
    """The accounts of truth and result and, by their place, when they were first flagged and let go for good; when each
    planted campaign, by its code, was named; what was taken, None where the log does not lie with the truth."""

    sides: Sides
    flagged_us: Times
    cleared_us: Times
    named_us: Times
    taken: Taken | None


def read_replay(
    truth: Path, result: Path, sides: Sides, counts: Overlap, listed: list[dict[str, Any]]
) -> Replay | None:
    """What the folder of a replay tells; None for that of a scan. UsageError if a file cannot be read.

    ``counts`` is the overlap of ``sides``, ``listed`` the reported campaigns.
    """
    if (flags := read_flags(result)) is None:
        return None
    flagged_us, cleared_us = (_times(flags, name, sides) for name in ("first_flagged_at", "cleared_at"))
    named_us = _named(sides, counts, flagged_us, _told([*listed, *read_history(result)]))
    return Replay(sides, flagged_us, cleared_us, named_us, _taken(truth, sides, flagged_us, named_us))


def read_generations(truth: Path) -> pa.Table | None:
    """account_id, generation (0: a first head, null: honest) of every account; None in a truth that does not say."""
    file = truth / TRUTH_FILE if truth.is_dir() else truth
    has = "generation" in pq.read_schema(file).names
    return read_columns(file, ("account_id", "generation"), TRUTH_HINT) if has else None


def read_flags(folder: Path) -> pa.Table | None:
    """account_id, first_flagged_at, cleared_at of every account a replay saw; None if the result is not a replay's."""
    file = folder / "accounts.parquet"
    has = "cleared_at" in pq.read_schema(file).names
    return read_columns(file, ("account_id", "first_flagged_at", "cleared_at"), REPLAY_HINT) if has else None


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Every campaign a replay ever told, as ``history.json`` has them; none where there is no such file."""
    return read_list(folder / "history.json", REPLAY_HINT) if (folder / "history.json").exists() else []


def _times(flags: pa.Table, name: str, sides: Sides) -> Times:
    """A column of times by place in ``sides``."""
    us = flags[name].cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64(), safe=False)
    return pc.fill_null(us.take(_places(flags, sides.account_ids)), float("inf")).to_numpy()


def _places(table: pa.Table, account_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The row of each account in the table, null where it has none."""
    return pc.index_in(account_ids, value_set=table["account_id"].cast(pa.string()).combine_chunks())


def _told(campaigns: list[dict[str, Any]]) -> dict[str, float]:
    """When each campaign was first told; those without a time are left out."""
    told: dict[str, float] = {}
    for campaign in campaigns:
        if at := campaign.get("detected_at") or campaign.get("named_at"):
            name = str(campaign["campaign_id"])
            try:
                us = float(round(datetime.fromisoformat(at).timestamp() * 1e6))
            except (TypeError, ValueError) as error:
                raise UsageError(f"{name}: told at {at!r}, which is no time", hint=REPLAY_HINT) from error
            told[name] = min(us, told.get(name, us))
    return told


def _named(sides: Sides, counts: Overlap, flagged_us: Times, told: dict[str, float]) -> Times:
    """When each planted campaign, by its code, was named."""
    named = np.full(len(counts), np.inf)
    for row, column in np.argwhere(2 * counts > counts.sum(axis=0)):
        if row and column:
            own = flagged_us[(sides.planted.codes == row) & (sides.reported.codes == column)]
            # The name may be older than its standing for this campaign: what it was given to has since moved on.
            named[row] = min(named[row], max(told.get(sides.reported.names[column - 1], np.inf), own.min()))
    return named


def _taken(truth: Path, sides: Sides, flagged_us: Times, named_us: Times) -> Taken | None:
    if (log := log_of(truth)) is None:
        return None
    places = np.flatnonzero(sides.planted.codes > 0)
    codes, flagged_us = sides.planted.codes[places], flagged_us[places]
    account_ids = sides.account_ids.take(pa.array(places))
    watched = {"place": np.arange(len(places)), "flagged_us": flagged_us, "named_us": named_us[codes]}
    try:
        with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as engine:
            engine.register("watched", pa.table({"account_id": account_ids, **watched}))
            rows = engine.sql(COUNTED, params={"marks": log[0], "exchanges": log[1]}).to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(f"{log[0]}: cannot be read: {error}", hint="its columns are those of `simulate`") from error
    place, *columns = (rows[name].to_numpy() for name in rows.column_names)
    generation = np.full(len(places), -1)
    if (known := read_generations(truth)) is not None:
        column = known["generation"].cast(pa.int64()).take(_places(known, account_ids))
        generation = pc.fill_null(column, 0).to_numpy()
    return Taken(codes[place], generation[place], np.isfinite(flagged_us[place]), *columns)
