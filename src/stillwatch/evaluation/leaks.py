"""Does a simulated log give its campaigns away? What an outsider gets without reading a word of it.

Each non-text column of an account is tried alone, and all of them together by boosted trees that learn on half of the
campaigns and are tested on the other half. A column that separates alone is a giveaway of the simulator, to be mended
there; what the trees reach together is the bar a detector that reads text and links has to clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stillwatch.errors import UsageError
from stillwatch.evaluation.columns import Columns, account_columns
from stillwatch.evaluation.plain import plain
from stillwatch.evaluation.reading import EXCHANGES_FOLDER, Labels, label, read_truth
from stillwatch.evaluation.risks import standing
from stillwatch.evaluation.trees import MIN_CAMPAIGNS, MIN_HONEST, TreeReport, grow_and_test

ACCOUNTS_FILE = "accounts.parquet"
GIVEAWAY_AUC = 0.85
BOOTSTRAP_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Leak:
    """How well one column alone tells campaign accounts from honest ones, whichever way it points (0.5 not at all).

    ``low`` and ``high`` bound ``auc`` with 95 % confidence, drawing campaigns, not accounts, anew; ``campaign_mean`` is
    the same AUC with every campaign counted alike, so that a large one does not hide what gives the small ones away.
    """

    column: str
    family: str
    auc: float
    low: float
    high: float
    campaign_mean: float
    more_in_campaigns: bool

    @property
    def is_giveaway(self) -> bool:
        return self.auc > GIVEAWAY_AUC

    @property
    def is_giveaway_by_campaign(self) -> bool:
        return self.campaign_mean > GIVEAWAY_AUC


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What gives the campaigns away. ``leaks``: every column, strongest first; ``notes``: what was not tried."""

    accounts: int
    planted: int
    campaigns: int
    leaks: tuple[Leak, ...]
    trees: TreeReport | None
    notes: tuple[str, ...]

    @property
    def giveaways(self) -> tuple[Leak, ...]:
        """The columns whose AUC alone exceeds 0.85."""
        return tuple(leak for leak in self.leaks if leak.is_giveaway)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"giveaways": [leak.column for leak in self.giveaways], **plain(self)}


def probe(
    world: Path, seed: int = 0, *, log: Path | None = None, accounts: Path | None = None, truth: Path | None = None
) -> LeakReport:
    """Try all non-text columns of a simulated log, each alone and together; needs scikit-learn.

    ``world`` is the folder `stillwatch simulate` wrote: exchanges, accounts.parquet (may be missing), truth.parquet.
    Any of the three can be given apart, for a log that was changed since. With no campaign, or no honest account,
    nothing can be tried; with one campaign the trees have nothing unseen to be tested on. Raises UsageError if a file
    cannot be read.
    """
    _require_sklearn()
    known = read_truth(truth or world)
    ids = known["account_id"].cast(pa.string()).combine_chunks()
    columns = account_columns(log or world / EXCHANGES_FOLDER, accounts or _if_there(world / ACCOUNTS_FILE), ids)
    campaign = label(known["campaign_id"])
    planted = campaign.codes > 0
    notes = _notes(len(ids), int(planted.sum()), len(campaign.names))
    can_tell = planted.any() and not planted.all()
    return LeakReport(
        accounts=len(ids),
        planted=int(planted.sum()),
        campaigns=len(campaign.names),
        leaks=single_columns(columns, campaign, seed) if can_tell else (),
        trees=grow_and_test(columns, campaign, seed) if not notes else None,
        notes=notes,
    )


def _if_there(file: Path) -> Path | None:
    return file if file.exists() else None


def single_columns(columns: Columns, campaign: Labels, seed: int) -> tuple[Leak, ...]:
    """The AUC of each column alone, strongest first. An account without a value stands below all that have one."""
    rng = np.random.default_rng(seed)
    found = [_leak(columns, j, campaign.codes, rng) for j in range(len(columns.names))]
    return tuple(sorted(found, key=lambda leak: (-leak.auc, leak.column)))


def _leak(columns: Columns, j: int, codes: NDArray[np.int64], rng: np.random.Generator) -> Leak:
    values = np.nan_to_num(columns.values[:, j].astype(np.float64), nan=-np.inf)
    planted, honest = values[codes > 0], values[codes == 0]
    above = standing(planted, honest)
    points_up = bool(above.mean() >= 0.5)
    means, sizes = _by_campaign(above, codes[codes > 0])
    spread = standing(honest, planted).std() / np.sqrt(len(honest))
    low, high = _interval(above, means, sizes, float(spread), rng)
    return Leak(
        column=columns.names[j],
        family=columns.families[j],
        auc=_fold(above.mean(), points_up),
        low=low if points_up else 1 - high,
        high=high if points_up else 1 - low,
        campaign_mean=_fold(means.mean(), points_up),
        more_in_campaigns=points_up,
    )


def _fold(auc: float, points_up: bool) -> float:
    return float(auc if points_up else 1 - auc)


def _by_campaign(above: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sizes = np.bincount(codes)[1:]
    sums = np.bincount(codes, weights=above)[1:]
    return sums / np.maximum(sizes, 1), sizes


def _interval(
    above: NDArray[np.float64],
    means: NDArray[np.float64],
    sizes: NDArray[np.int64],
    honest_spread: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Draw campaigns anew (accounts, if there is one campaign only); honest accounts add DeLong's normal error."""
    if len(means) > 1:
        picks = rng.integers(0, len(means), (BOOTSTRAP_DRAWS, len(means)))
        draws = (means * sizes)[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    else:
        draws = rng.normal(above.mean(), above.std() / np.sqrt(len(above)), BOOTSTRAP_DRAWS)
    draws = draws + rng.normal(0, honest_spread, BOOTSTRAP_DRAWS)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(max(0.0, low)), float(min(1.0, high))


def _notes(accounts: int, planted: int, campaigns: int) -> tuple[str, ...]:
    if not accounts:
        return ("The truth lists no account: nothing to tell apart.",)
    if not planted:
        return ("No campaign is planted: there is nothing to give away.",)
    if planted == accounts:
        return ("Every account is of a campaign: there is no honest account to tell them from.",)
    if accounts - planted < MIN_HONEST:
        return (
            "One honest account only: the trees were not grown, for they learn on one half of them and are tested on "
            "the other.",
        )
    if campaigns < MIN_CAMPAIGNS:
        return (
            "One campaign only: the trees were not grown, for they must be tested on campaigns they have not seen.",
        )
    return ()


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError("the leak probe needs scikit-learn", hint="pip install 'stillwatch[evaluate]'") from error
