"""Learn the weights of groups from labelled logs, and measure them on worlds that were left out.

    python bench/weights.py collect WORLD... --out runs/groups            # traits of every hypothesis, a file a world
    python bench/weights.py fit runs/groups/*.parquet --out src/stillwatch/weights.json
    STILLWATCH_WEIGHTS=W python bench/weights.py stand WORLD... --out runs/standing    # groups that stand, by other weights
    python bench/weights.py fit runs/groups/*.parquet --standing runs/standing/*.parquet --out src/stillwatch/weights.json
    python bench/weights.py check runs/groups/*.parquet --svg docs/calibration.svg

A WORLD is a folder with exchanges/, accounts.parquet, models.csv and truth.parquet: `stillwatch simulate`, `python -m
drawn` and `python -m heldout` write such. A group counts as one operator's if four fifths of it are of one planted
campaign. Worlds whose folder's name begins alike (drawn-7, drawn-8) have one generator. ``check`` learns without each
generator in turn, and says how what is said of its groups holds: calibration, Brier score, and false among those
accused against what was expected.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PURE = 0.8
MIXED = 0.3
"""Share of honest accounts up to which a group that stands is an operator's."""
PULL = 0.3
"""How freely the line's weights may leave nought (inverse of the ridge)."""
TREES = {"max_leaf_nodes": 6, "learning_rate": 0.1, "max_iter": 80, "l2_regularization": 3, "min_samples_leaf": 25,
         "max_features": 0.5, "random_state": 1}  # fmt: skip
BITS = float(np.log2(np.e))


def collect(world: Path, out: Path) -> None:
    """Traits of every hypothesis about a world, and of what the promising ones become, with the share that is of one campaign."""
    from stillwatch import clusters, membership  # noqa: PLC0415
    from stillwatch.grouping import RAW, SMALLEST, improved, weighed  # noqa: PLC0415
    from stillwatch.hypotheses import hypotheses  # noqa: PLC0415
    from stillwatch.weighing import weights  # noqa: PLC0415

    holdings, ground, ties, names = loaded(world)
    rules = membership.Rules()
    proposals = [*hypotheses(holdings), *(c for c in clusters.resolve(ties) if len(c) >= SMALLEST)]
    groups = [("raw", weighed(ground, h, weights())) for h in proposals]
    better = (improved(ground, g, weights(), rules) for _, g in groups if g.bits >= RAW - 1)
    groups += [("improved", g) for g in better if np.isfinite(g.bits)]
    campaign, population = labels(world, names)
    groups += [("planted", weighed(ground, members, weights())) for members in planted(campaign)]
    rows = [
        {"world": world.name, "kind": kind, **truth(g.members, campaign, population), **g.traits} for kind, g in groups
    ]
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), out / f"{world.name}.parquet")


def loaded(world: Path) -> tuple[Any, Any, Any, Any]:
    """Holdings, ground, ties and account names of a world, as the pipeline has them."""
    from stillwatch import folds  # noqa: PLC0415
    from stillwatch.config import Config  # noqa: PLC0415
    from stillwatch.evidence import Holdings  # noqa: PLC0415
    from stillwatch.ground import Ground  # noqa: PLC0415
    from stillwatch.intake import Log, keep, open_log, take_in  # noqa: PLC0415
    from stillwatch.pipeline import blindness, detect  # noqa: PLC0415
    from stillwatch.plugins import discover  # noqa: PLC0415
    from stillwatch.privacy import Privacy  # noqa: PLC0415
    from stillwatch.progress import Progress  # noqa: PLC0415
    from stillwatch.store import open_engine  # noqa: PLC0415

    declared, source = open_log(Log(world / "exchanges", world / "accounts.parquet", world / "models.csv"))
    privacy = Privacy.load(None)
    with Progress(quiet=True) as progress:
        progress.stage("read")
        intake = take_in(source, privacy, progress)
    blind = blindness(discover("detectors"), source.coverage, declared.accounts, declared.models)
    with open_engine("duckdb", "3GB", None) as engine:
        keep(engine, intake, declared, privacy)
        folds.fold(engine)
        folds.prepare(engine)
        holdings = Holdings.load(engine, len(intake.accounts))
        ties = detect(engine, [d for n, d in discover("detectors").items() if n not in blind], Config())["ties"]
        return holdings, Ground.load(engine, holdings), ties, intake.accounts.names


def planted(campaign: np.ndarray) -> Iterator[np.ndarray]:
    """The accounts of each campaign, and half of them: what a perfect proposal would be."""
    rng = np.random.default_rng(1)
    for name in sorted(set(campaign.tolist()) - {""}):
        members = np.flatnonzero(campaign == name)
        if len(members) >= 5:
            yield members
        if len(members) >= 12:
            yield np.sort(rng.choice(members, len(members) // 2, replace=False))


def stand(world: Path, out: Path) -> None:
    """The groups that stand about a world and that nothing honest explains at once: their bits, and how many are honest.

    Give weights that have seen nothing of the world's generator: what they say of strangers' groups is what is calibrated.
    """
    from stillwatch import clusters, membership  # noqa: PLC0415
    from stillwatch.grouping import SMALLEST, groups  # noqa: PLC0415
    from stillwatch.hypotheses import hypotheses  # noqa: PLC0415
    from stillwatch.weighing import weights  # noqa: PLC0415

    holdings, ground, ties, names = loaded(world)
    proposals = [*hypotheses(holdings), *(c for c in clusters.resolve(ties) if len(c) >= SMALLEST)]
    campaign, _ = labels(world, names)
    rows = [
        {
            "world": world.name,
            "accounts": len(g.members),
            "honest": int((campaign[g.members] == "").sum()),
            "bits": g.bits,
        }
        for g in groups(ground, proposals, weights(), membership.Rules())
        if not excused(g.traits)
    ]
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), out / f"{world.name}.parquet")


def excused(traits: dict[str, float]) -> bool:
    """Whether the traits alone let a group go: one payer, one site, work of their own, or nothing that they practise."""
    from stillwatch.alternatives import one_workplace  # noqa: PLC0415

    explained = one_workplace(traits, 0.0).explains or traits["one_payer"] >= 0.7 or traits["one_site"] >= 0.5
    return explained or traits["practising"] < 0.2


def standing(files: list[Path]) -> tuple[float, float, float]:
    """Slope, bits a doubling of accounts, and shift that make the bits of standing groups mean what they say."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    table = pa.concat_tables([pq.read_table(f) for f in files])
    accounts, honest = table["accounts"].to_numpy(), table["honest"].to_numpy()
    large = accounts >= 8
    x = np.column_stack([table["bits"].to_numpy(), np.log2(accounts)])[large]
    model = LogisticRegression(C=10).fit(x, (honest <= MIXED * accounts)[large])
    slope, doubling = model.coef_[0]
    return float(slope * BITS), float(doubling * BITS), float(model.intercept_[0] * BITS)


def labels(world: Path, names: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Planted campaign ('' for none) and population of each account, in the order of ``names``."""
    table = pq.read_table(world / "truth.parquet", columns=["account_id", "campaign_id", "population"])
    known = {a: (c or "", p) for a, c, p in zip(*(table[n].to_pylist() for n in table.column_names))}
    found = [known[a] for a in names.to_pylist()]
    return np.array([c for c, _ in found]), np.array([p for _, p in found])


def truth(members: np.ndarray, campaign: np.ndarray, population: np.ndarray) -> dict[str, Any]:
    """What a group mostly is, and how purely."""
    names, count = np.unique(campaign[members], return_counts=True)
    who, share = str(names[np.argmax(count)]), float(count.max() / len(members))
    people, many = np.unique(population[members], return_counts=True)
    one = bool(who) and share >= PURE
    mixed = not one and float((campaign[members] == "").mean()) < PURE
    return {
        "accounts": len(members), "one_operator": one,
        "of": who if one else "mixed" if mixed else str(people[np.argmax(many)]),
    }  # fmt: skip


class Rows:
    """Groups of several worlds as arrays: traits ``x``, whether one operator ``y``, world, generator, kind, weight."""

    def __init__(self, files: list[Path]) -> None:
        from stillwatch.weighing import TRAITS  # noqa: PLC0415

        table = pa.concat_tables([pq.read_table(f) for f in files])
        self.names = list(TRAITS)
        self.signs = np.array([sign for sign, _, _ in TRAITS.values()])
        self.x = np.column_stack([table[n].to_numpy() for n in self.names])
        self.y = table["one_operator"].to_numpy(zero_copy_only=False)
        self.world = np.array(table["world"].to_pylist())
        self.generator = np.array([w.rstrip("0123456789").rstrip("-_") for w in self.world])
        self.kind = np.array(table["kind"].to_pylist())
        self.of = np.array(table["of"].to_pylist())
        self.w = self._even()

    def _even(self) -> np.ndarray:
        """The groups of one campaign, or of one population of a world, count as the root of their number: they are much alike."""
        _, number, count = np.unique(
            np.char.add(self.world, np.char.add("/", self.of)), return_inverse=True, return_counts=True
        )
        return 1 / np.sqrt(count[number])


def line(rows: Rows, use: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A logistic line whose weights keep the sign their trait may have: centre, scale, weights with the start last."""
    from scipy.optimize import minimize  # noqa: PLC0415

    x, y, w = rows.x[use], rows.y[use], rows.w[use]
    centre = np.average(x, axis=0, weights=w)
    scale = np.sqrt(np.average((x - centre) ** 2, axis=0, weights=w)) + 1e-6
    z = np.clip((x - centre) / scale, -3, 3)

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        at = z @ b[:-1] + b[-1]
        slope = (1 / (1 + np.exp(-at)) - y) * w
        value = (w * np.logaddexp(0, np.where(y, -at, at))).sum() + b[:-1] @ b[:-1] / (2 * PULL)
        return value, np.append(z.T @ slope + b[:-1] / PULL, slope.sum())

    bounds = [(0, None) if s > 0 else (None, 0) for s in rows.signs] + [(None, None)]
    found = minimize(
        loss, np.zeros(x.shape[1] + 1), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 2000}
    )
    return centre, scale, found.x


def forest(rows: Rows, use: np.ndarray) -> Any:
    """Boosted trees, monotone in every trait."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    model = HistGradientBoostingClassifier(monotonic_cst=rows.signs.tolist(), **TREES)
    return model.fit(rows.x[use], rows.y[use], sample_weight=rows.w[use])


def as_arrays(model: Any) -> dict[str, Any]:
    """The trees as flat lists, values in bits."""
    nodes: dict[str, list[Any]] = {n: [] for n in ("asks", "bound", "left", "right", "value", "roots")}
    for (tree,) in model._predictors:
        first = len(nodes["asks"])
        nodes["roots"].append(first)
        for n in tree.nodes:
            leaf = bool(n["is_leaf"])
            nodes["asks"].append(-1 if leaf else int(n["feature_idx"]))
            nodes["bound"].append(0.0 if leaf else round(float(n["num_threshold"]), 6))
            nodes["left"].append(0 if leaf else int(n["left"]) + first)
            nodes["right"].append(0 if leaf else int(n["right"]) + first)
            nodes["value"].append(round(float(n["value"]) * BITS, 5) if leaf else 0.0)
    return {**nodes, "start": float(np.ravel(model._baseline_prediction)[0]) * BITS}


def bits(rows: Rows, made: tuple[Any, Any], use: np.ndarray) -> np.ndarray:
    """What line and trees together give the groups ``use``, uncalibrated."""
    (centre, scale, b), trees = made
    straight = np.clip((rows.x[use] - centre) / scale, -3, 3) @ b[:-1] + b[-1]
    return BITS * (straight + trees.decision_function(rows.x[use])) / 2


def left_out(rows: Rows, by: np.ndarray) -> np.ndarray:
    """Bits of every group by weights that have seen nothing of its world, or generator."""
    found = np.zeros(len(rows.y))
    for name in np.unique(by):
        made = (line(rows, by != name), forest(rows, by != name))
        found[by == name] = bits(rows, made, by == name)
    return found


def calibrated(given: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """Slope and shift that make bits mean what they say (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression(C=1e3).fit(given[:, None], y, sample_weight=w)
    return float(np.clip(model.coef_[0, 0] * BITS, 0.2, 1.0)), float(model.intercept_[0] * BITS)


def fit(files: list[Path], stood: list[Path], out: Path) -> None:
    """Weights from all rows, with their spread over worlds, calibrated on groups of generators left out: the log they will
    judge is of none of these."""
    rows = Rows(files)
    every = np.ones(len(rows.y), bool)
    centre, scale, b = line(rows, every)
    spread = np.array([line(rows, rows.world != w)[2] for w in np.unique(rows.world)]).std(axis=0)
    told = rows.kind == "improved"
    by = rows.generator if len(np.unique(rows.generator)) > 1 else rows.world
    slope, shift = calibrated(left_out(rows, by)[told], rows.y[told], rows.w[told])
    count = len(np.unique(rows.world))
    made = {
        "made_by": "bench/weights.py", "worlds": sorted(set(rows.world.tolist())), "groups": len(rows.y),
        "start": float(b[-1] * BITS), "slope": slope, "shift": shift,
        "standing": standing(stood) if stood else (1.0, 0.0, 0.0),
        "traits": [
            {"name": n, "bits": round(float(b[k] * BITS), 4), "spread": round(float(spread[k] * BITS * np.sqrt(count)), 4),
             "centre": round(float(centre[k]), 5), "scale": round(float(scale[k]), 5)}
            for k, n in enumerate(rows.names)
        ],
        "trees": as_arrays(forest(rows, every)),
    }  # fmt: skip
    out.write_text(json.dumps(made) + "\n", encoding="utf-8")
    print(f"{out}: {len(rows.y)} groups of {count} worlds, slope {slope:.2f}, shift {shift:.2f}")


def check(files: list[Path], svg: Path | None) -> None:
    """How what is said of groups holds where their generator was left out, and where only their world was."""
    rows = Rows(files)
    told = rows.kind == "improved"
    for name, by in (("generator", rows.generator), ("world", rows.world)):
        if len(np.unique(by)) < 2:
            continue
        given = left_out(rows, by)
        p = np.zeros(len(given))
        for part in np.unique(by):
            slope, shift = calibrated(
                given[told & (by != part)], rows.y[told & (by != part)], rows.w[told & (by != part)]
            )
            p[by == part] = 1 / (1 + 2.0 ** -(slope * given[by == part] + shift))
        report(name, p[told], rows.y[told], rows.w[told], rows.of[told])
        if svg is not None and name == "generator":
            found = bins(p[told], rows.y[told], rows.w[told])
            among = among_worlds(p[told], rows.y[told], rows.w[told], rows.world[told])
            svg.write_text(picture(*found, *among), encoding="utf-8")


def tenth(p: np.ndarray) -> np.ndarray:
    """In which of ten parts of the scale each probability lies."""
    return np.minimum((p * 10).astype(int), 9)


def bins(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share that is one operator, and weight, in ten parts of the scale."""
    at = tenth(p)
    weight = np.bincount(at, w, 10)
    seen = weight > 0
    return (
        np.bincount(at, w * p, 10)[seen] / weight[seen],
        np.bincount(at, w * y, 10)[seen] / weight[seen],
        weight[seen],
    )


def among_worlds(
    p: np.ndarray, y: np.ndarray, w: np.ndarray, world: np.ndarray, draws: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Of each part of the scale that ``bins`` tells of, the 95 % interval of the share that is one operator, by drawing worlds
    anew: groups of one world overlap."""
    at = tenth(p)
    _, of = np.unique(world, return_inverse=True)
    rng, worlds = np.random.default_rng(1), of.max() + 1
    weight, held = np.zeros((worlds, 10)), np.zeros((worlds, 10))
    np.add.at(weight, (of, at), w)
    np.add.at(held, (of, at), w * y)
    drawn = np.stack([np.bincount(rng.integers(0, worlds, worlds), minlength=worlds) for _ in range(draws)])
    all_ = drawn @ weight
    share = np.divide(drawn @ held, all_, out=np.full(all_.shape, np.nan), where=all_ > 0)[:, weight.sum(axis=0) > 0]
    low, high = np.nanquantile(share, [0.025, 0.975], axis=0)
    return low, high


def report(name: str, p: np.ndarray, y: np.ndarray, w: np.ndarray, of: np.ndarray) -> None:
    """Print Brier score, calibration and false discoveries."""
    brier = np.average((p - y) ** 2, weights=w)
    rate = np.average(y, weights=w)
    naive = np.average((y - rate) ** 2, weights=w)
    print(f"left out by {name}: {len(p)} groups, Brier {brier:.4f} (always the base rate: {naive:.4f})")
    for said, held, weight in zip(*bins(p, y, w)):
        print(f"   said {said:.2f}  held {held:.2f}  weight {weight:.0f}")
    for least in (0.5, 0.9, 0.95):
        act = p >= least
        if act.any():
            wrong = np.unique(of[act & ~y], return_counts=True)
            told = ", ".join(f"{n} {c}" for n, c in sorted(zip(*wrong), key=lambda i: -i[1]))
            print(
                f"   at {least}: {act.sum()} groups, false expected {np.average(1 - p[act], weights=w[act]):.3f}, "
                f"observed {np.average(~y[act], weights=w[act]):.3f} ({told})"
            )


def picture(said: np.ndarray, held: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """The calibration plot: what was said against what held, dots by weight, bars from ``low`` to ``high``."""

    def x(v: float) -> float:
        return 60 + 300 * v

    def y(v: float) -> float:
        return 330 - 300 * v

    bars = "".join(
        f'<path d="M{x(s):.1f} {y(a):.1f} V{y(b):.1f}" stroke="#2b7a78" stroke-width="1.5"/>'
        for s, a, b in zip(said, low, high)
    )
    dots = "".join(
        f'<circle cx="{x(s):.1f}" cy="{y(h):.1f}" r="{2 + 6 * np.sqrt(n / weight.max()):.1f}" fill="#2b7a78" '
        'fill-opacity=".7"/>'
        for s, h, n in zip(said, held, weight)
    )
    ticks = "".join(
        f'<text x="{x(v):.0f}" y="350" text-anchor="middle">{v:g}</text>'
        f'<text x="50" y="{y(v) + 4:.0f}" text-anchor="end">{v:g}</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 390" font-family="sans-serif" font-size="12" '
        'fill="#777" role="img"><title>Calibration on worlds of generators left out</title>'
        '<rect x="60" y="30" width="300" height="300" fill="none" stroke="#999"/>'
        '<path d="M60 330 L360 30" stroke="#999" stroke-dasharray="4 4"/>'
        f'{bars}{dots}{ticks}<text x="210" y="375" text-anchor="middle">probability that was said</text>'
        '<text x="16" y="180" transform="rotate(-90 16 180)" text-anchor="middle">share that is one operator</text>'
        "</svg>\n"
    )


def main() -> None:
    """Read the command line and do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("collect", "stand", "fit", "check"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--standing", type=Path, nargs="+", default=[], help="what `stand` wrote, for fit")
    options = parser.parse_args()
    if options.verb in ("collect", "stand"):
        for world in options.paths:
            (collect if options.verb == "collect" else stand)(world, options.out)
            print(f"{world}: done", flush=True)
    elif options.verb == "fit":
        fit(options.paths, options.standing, options.out)
    else:
        check(options.paths, options.svg)


if __name__ == "__main__":
    main()
