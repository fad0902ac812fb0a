"""Write one world: python -m strangers --seed N --prompts DIR --traces DIR --out DIR [--look-alikes-only]."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from strangers import corpus, honest, network, operators, people, traffic, writing


def begin(options: argparse.Namespace) -> people.World:
    """The world's size, its models and its setting."""
    rng = np.random.default_rng([options.seed, 0x57A])
    accounts = int(8_000 * (30_000 / 8_000) ** rng.random())
    exchanges = int(np.clip(accounts * rng.lognormal(2.9, 0.4), 150_000, 590_000))
    days = float(rng.uniform(10, 40))
    news = np.sort(rng.uniform(0.08, 0.85, int(rng.integers(1, 4)))) * days * people.DAY
    releases = [*(-rng.uniform(20, 400, 3) * people.DAY).tolist(), *news.tolist()]
    releases[:3] = sorted(releases[:3])
    models = [
        f"{n}-{v}"
        for n, v in zip(rng.permutation(["heron", "ibis", "kestrel", "lark", "merlin", "osprey"]), range(3, 9))
    ]
    w = people.World(rng, corpus.load(options.prompts), corpus.read_traces(options.traces), network.draw(rng), accounts,
                     exchanges, days, models[: len(releases)], releases)  # fmt: skip
    w.knobs = people.setting(rng)
    epoch = int(1_767_225_600 + rng.integers(0, 300) * people.DAY)
    w.knobs.update(epoch=epoch, weekday=int(epoch // people.DAY + 3) % 7, east=network.HOURS_EAST,
                   failures=float(rng.uniform(0.005, 0.05)), clouds_hide=bool(rng.random() < 0.6),
                   tag=f"{int(network.mixed(options.seed, 3)) >> 40:06x}")  # fmt: skip
    return w


def gathered(w: people.World) -> people.Block:
    """All accounts in one table, in an order that tells nothing, calls kept within the world."""
    a = {name: np.concatenate([b[name] for b in w.blocks]) for name in w.blocks[0]}
    order = w.rng.permutation(len(a["created"]))
    a = {name: values[order] for name, values in a.items()}
    a["start"] = np.clip(a["start"], 0, w.days * people.DAY - 120)
    a["end"] = np.clip(a["end"], a["start"] + 60, w.days * people.DAY)
    a["created"] = np.minimum(a["created"], a["start"] / people.DAY - 0.0005)
    a["ramp"] = w.rng.lognormal(0, 0.3, len(order))
    a["keys_id"] = w.ids(len(order))
    return a


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--look-alikes-only", action="store_true")
    for name in ("--prompts", "--traces", "--out"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    w = begin(options)
    honest.ordinary_plans(w)
    planted = 0 if options.look_alikes_only else operators.plant(w, w.accounts)
    honest.fill(w, w.accounts - planted)
    a = gathered(w)
    writing.write(w, a, traffic.requests(w, a), options.out, options.seed)
    print(f"seed {options.seed}: {len(a['created']):,} accounts, {planted:,} planted")


if __name__ == "__main__":
    main()
