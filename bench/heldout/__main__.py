"""Write one held-out world: `python -m heldout --seed 3 --prompts DIR --traces DIR --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .campaigns import Campaign, draw_knobs, draw_shapes, enlist
from .honest import populate
from .people import DAY, Ledger, Net, Tokens, World
from .texts import Book, Library
from .traffic import build
from .writing import Lengths, write_world


def draw_world(rng: np.random.Generator) -> World:
    """The world's frame: days, release, networks."""
    net = Net(rng)
    days = int(rng.integers(10, 41))
    exits = net.addresses("vpn", rng.integers(0, 20, int(rng.integers(40, 300))))
    release = days * DAY * rng.uniform(0.35, 0.65)
    rushes = np.append(rng.uniform(-60 * DAY, days * DAY * 0.85, int(rng.integers(5, 14))), release)
    return World(rng, net, Tokens(rng), days, release, int(rng.integers(3, 6)), exits, rushes)


def main() -> None:
    """Parse the command line and write the world."""
    parser = argparse.ArgumentParser(prog="heldout", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="everything follows from it")
    parser.add_argument("--prompts", type=Path, required=True, help="folder of prompt files")
    parser.add_argument("--traces", type=Path, required=True, help="folder of traffic traces")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--look-alikes-only", action="store_true", help="honest customers only, no campaign")
    options = parser.parse_args()
    rng = np.random.default_rng([options.seed, 0x5EED])
    world = draw_world(rng)
    lib = Library.read(options.prompts, rng)
    book, ledger, campaigns = Book(lib, rng), Ledger(), []
    total = int(rng.integers(200_000, 600_001))
    sizes = populate(world, book, ledger, int(np.exp(rng.uniform(np.log(7_500), np.log(17_500)))))
    honest, room = ledger.columns(), int(min(ledger.size * 0.45, 24_500 - ledger.size))
    for number, shape in enumerate([] if options.look_alikes_only else draw_shapes(rng), start=1):
        knobs = draw_knobs(world, shape, room)
        campaigns.append(Campaign(f"planted-{number:02d}", shape, knobs))
        enlist(world, book, ledger, honest, campaigns[-1])
        room -= int(knobs["accounts"])
    accounts = ledger.columns()
    traffic = build(world, lib, book.styles, accounts, campaigns, total)
    lengths = Lengths.read(options.traces, rng)
    write_world(options.out, options.seed, world, lib, book, accounts, traffic, campaigns, sizes, lengths)


if __name__ == "__main__":
    main()
