"""An adversary of our own: what is the cheapest way past the detectors, for a harvest that is fixed?

Plans of one hidden operator (the simulator's knobs) are planted among honest accounts, the log is scanned, and the share
of the plan's distillation exchanges that stands with accused accounts is its loss. An evolution with re-testing looks for
plans that nobody undercuts on both cost and loss: mutants and crosses of the best so far (mu + lambda; Pareto layers as
in NSGA-II, Deb et al. 2002), and whoever reaches the frontier on one world's luck must hold it in further ones (racing,
as in successive halving, Jamieson and Talwalkar 2016). The scan is a black box to it; so is the evaluation to the search.

Equal options and code give equal searches: every batch draws from its own number, and all that is measured is archived,
so that a search that was stopped is taken up where it was.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stillwatch.config import Config
from stillwatch.errors import UsageError
from stillwatch.evaluation.asked import read_asked
from stillwatch.evaluation.knobs import CAREFUL, NAIVE, Space, cross, draw, mutate
from stillwatch.evaluation.reading import lay_side_by_side, read_truth
from stillwatch.findings import Findings
from stillwatch.pipeline import Log, scan
from stillwatch.privacy import Privacy
from stillwatch.progress import Progress
from stillwatch.simulate import CampaignPlan, World, simulate
from stillwatch.types import Campaign

OPENING = 9
"""Plans drawn at large before the search breeds from the best."""
CLOSING = 0.75
"""From this share of the budget on there are no new plans: the best so far are tried in further worlds."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a plan in one world.

    ``lost`` is the share of its ``harvest`` (distillation exchanges) that stands with accused accounts, ``reviewed`` and
    ``let_go`` the shares that were found but went to review or were let go with an honest explanation. ``recall`` is the
    share of its accounts accused; ``wrongly_accused`` counts honest accounts of the whole world.
    """

    seed: int
    harvest: int
    lost: float
    reviewed: float
    let_go: float
    recall: float
    wrongly_accused: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A plan, what it costs in US dollars, and its trials; shares are means over them."""

    plan: CampaignPlan
    usd: float
    trials: tuple[Trial, ...]

    @property
    def lost(self) -> float:
        return self.mean("lost")

    def mean(self, share: str) -> float:
        """The mean of one share of ``Trial``, by its name."""
        return float(np.mean([getattr(trial, share) for trial in self.trials]))


@dataclass(frozen=True, slots=True)
class Grounds:
    """Where plans are tried: the honest part of a log, to which they are added. Sizes are in accounts and exchanges."""

    accounts: int = 6000
    exchanges: int = 150_000
    days: int = 28
    prompts: Path | None = None
    traces: Path | None = None

    def world(self, plans: Sequence[CampaignPlan], seed: int = 0) -> World:
        """The world of these plans, each of which says its requests."""
        accounts = self.accounts + sum(p.accounts for p in plans)
        exchanges = self.exchanges + round(sum(p.accounts * p.requests for p in plans))
        return World(
            seed, accounts, exchanges, self.days, campaigns=tuple(plans), prompts=self.prompts, traces=self.traces
        )


Evaluate = Callable[[Sequence[CampaignPlan], int], Sequence[Trial]]
"""Tries plans side by side in the world of a seed: a trial each, in their order."""


def try_out(plans: Sequence[CampaignPlan], seed: int, grounds: Grounds, config: Config | None = None) -> list[Trial]:
    """Simulate the world of these plans and this seed, scan it in this process, and see what each has lost."""
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as folder, Progress(quiet=True) as progress:
        world = Path(folder)
        simulate(grounds.world(plans, seed), world)
        log = Log(world / "exchanges", world / "accounts.parquet", world / "models.csv")
        privacy = Privacy(f"the key of an adversary's world, seed {seed}".encode())
        findings, _ = scan(log, config or Config(), privacy, progress)
        return _trials(world, findings, len(plans), seed)


def _trials(world: Path, findings: Findings, plans: int, seed: int) -> list[Trial]:
    sides = lay_side_by_side(read_truth(world), findings.accounts.select(["account_id", "campaign_id", "risk"]))
    asked, accused = read_asked(world, sides.account_ids), sides.reported.codes > 0
    if asked is None or len(sides.planted.names) != plans:
        raise UsageError(f"{world}: the truth does not list the plans that were planted")
    reviewed = _members(findings.review, sides.account_ids) & ~accused
    let_go = _members(findings.let_go, sides.account_ids) & ~accused & ~reviewed
    wrongly = int((accused & sides.in_truth & (sides.planted.codes == 0)).sum())
    trials = []
    for number in range(1, plans + 1):
        own = sides.planted.codes == number
        harvest = asked.total(own)
        lost, seen, free = (asked.total(own & part) / max(1, harvest) for part in (accused, reviewed, let_go))
        trials.append(Trial(seed, harvest, lost, seen, free, float(accused[own].mean()), wrongly))
    return trials


def _members(clusters: Sequence[Campaign], account_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which of these accounts are members of any of the clusters."""
    members = [member.account_id for cluster in clusters for member in cluster.members]
    return pc.is_in(account_ids, value_set=pa.array(members, pa.string())).to_numpy()


@cache
def code() -> str:
    """A hash of the package's sources and data as they were when it was first asked for."""
    spec = find_spec("stillwatch")
    package = Path(spec.origin if spec and spec.origin else __file__).parent
    files = sorted(f for f in package.rglob("*") if f.is_file() and f.suffix not in (".pyc", ".nbi", ".nbc"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


class Archive:
    """All trials ever made, a JSON line each; those of other code or grounds stay in the file and are not used.

    ``setting`` is whatever, beside the plan, decides a trial. A last line that was cut short is left out.
    """

    def __init__(self, file: Path, setting: Mapping[str, Any]) -> None:
        self.file = file
        self.setting = dict(setting)
        self._trials: dict[str, list[Trial]] = {}
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text and not text.endswith("\n"):
            file.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        for row in map(json.loads, text[: text.rfind("\n") + 1].splitlines()):
            self._trials.setdefault(row["key"], []).append(Trial(**row["trial"]))

    def key(self, plan: CampaignPlan) -> str:
        """Names a plan by all that decides its trials."""
        return hashlib.sha256(json.dumps([asdict(plan), self.setting], sort_keys=True).encode()).hexdigest()[:16]

    def trials(self, plan: CampaignPlan) -> Sequence[Trial]:
        """Trials of the plan so far, oldest first."""
        return self._trials.get(self.key(plan), ())

    def add(self, plans: Sequence[CampaignPlan], trials: Sequence[Trial]) -> None:
        """Keep these trials, made side by side."""
        keys = [self.key(plan) for plan in plans]
        with self.file.open("a", encoding="utf-8") as lines:
            for key, plan, trial in zip(keys, plans, trials, strict=True):
                self._trials.setdefault(key, []).append(trial)
                row = {
                    "key": key,
                    "trial": asdict(trial),
                    "plan": asdict(plan),
                    "beside": [k for k in keys if k != key],
                }
                lines.write(json.dumps(row | {"setting": self.setting}) + "\n")


@dataclass(frozen=True, slots=True)
class Search:
    """How to look: trials in all (those in the archive count), plans side by side in a world, and in how many worlds a
    plan of the frontier must be tried before the search leaves it alone."""

    budget: int = 60
    seed: int = 1
    together: int = 3
    repeats: int = 3


def search(
    evaluate: Evaluate, space: Space, how: Search, archive: Archive, usd: Callable[[CampaignPlan], float]
) -> Iterator[list[Tried]]:
    """All plans tried so far, after each batch; whoever stops taking stops the search. ``usd`` prices a plan.

    At most ``how.budget`` trials are made or taken from the archive, where a trial that is there is not made again.
    """
    seen: dict[str, Tried] = {}
    spent = 0
    for number in count():
        rng = np.random.default_rng([how.seed, number])
        seed = int(rng.integers(2**31))
        batch = _batch(list(seen.values()), space, how, spent, rng)
        if not batch:
            return
        known = {key: len(seen[key].trials) if key in seen else 0 for key in map(archive.key, batch)}
        missing = [plan for plan in batch if len(archive.trials(plan)) <= known[archive.key(plan)]]
        if missing:
            archive.add(missing, evaluate(missing, seed))
        for plan in batch:
            key = archive.key(plan)
            seen[key] = Tried(plan, usd(plan), tuple(archive.trials(plan)[: known[key] + 1]))
        spent += len(batch)
        yield list(seen.values())


def _batch(tried: list[Tried], space: Space, how: Search, spent: int, rng: np.random.Generator) -> list[CampaignPlan]:
    """What to try next: plans of the frontier that were tried too seldom, cheapest first, then new ones."""
    room = min(how.together, how.budget - spent)
    front = frontier(tried)
    behind = frontier([t for t in tried if t not in front])
    doubtful = [t.plan for t in front if len(t.trials) < how.repeats]
    if tried and spent >= CLOSING * how.budget:
        doubtful += [t.plan for t in behind if len(t.trials) < how.repeats]
        settled = sorted((t for t in front if t.plan not in doubtful), key=lambda t: len(t.trials))
        return (doubtful + [t.plan for t in settled])[:room]
    batch = (doubtful[: room - 1] if len(tried) >= OPENING else []) if tried else _opening(space)[:room]
    old = [t.plan for t in tried]
    # Patience bounds a search whose space is used up.
    for _ in range(200 * room):
        if len(batch) >= room:
            break
        child = draw(space, rng) if len(tried) + len(batch) < OPENING else _child(front + behind, space, rng)
        if child not in old and child not in batch:
            batch.append(child)
    return batch


def _opening(space: Space) -> list[CampaignPlan]:
    naive, careful = space.plan(NAIVE), space.plan(CAREFUL)
    return [naive] if naive == careful else [naive, careful]


def _child(parents: Sequence[Tried], space: Space, rng: np.random.Generator) -> CampaignPlan:
    """A mutant, a cross of two of the best, or one of them with about half of what it has turned put back."""
    first, second = (parents[i].plan for i in rng.integers(len(parents), size=2))
    way = rng.random()
    if way < 0.3:
        return cross(first, space.plan(NAIVE), space, rng)
    return mutate(cross(first, second, space, rng) if way < 0.6 else first, space, rng)


def frontier(tried: Sequence[Tried]) -> list[Tried]:
    """The plans that no other undercuts on cost and loss both, cheapest first; of equals the one tried most often."""
    best: list[Tried] = []
    for t in sorted(tried, key=lambda t: (t.usd, t.lost, -len(t.trials))):
        if not best or t.lost < best[-1].lost:
            best.append(t)
    return best
