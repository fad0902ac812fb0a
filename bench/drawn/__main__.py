"""Draw one world and write it: `python -m drawn --seed 3 --prompts DIR --traces DIR --out DIR`."""

import argparse
from pathlib import Path

from .world import draw_world, write_world


def main() -> None:
    """Read the arguments, draw, write, and say how large the world is."""
    parser = argparse.ArgumentParser(prog="drawn", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--prompts", type=Path, required=True, help="folder of benign_*.parquet and distill_*.parquet")
    parser.add_argument("--traces", type=Path, required=True, help="folder of the public traffic traces")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--look-alikes-only", action="store_true", help="no campaigns: every alarm is a false one")
    parser.add_argument("--accounts", type=int, help="instead of the drawn number")
    parser.add_argument("--exchanges", type=int, help="instead of the drawn number (met within a few per cent)")
    args = parser.parse_args()
    world = draw_world(
        args.seed,
        args.prompts,
        args.traces,
        look_alikes_only=args.look_alikes_only,
        accounts=args.accounts,
        exchanges=args.exchanges,
    )
    write_world(world, args.out)
    about = world.about["world"]
    print(f"{about['exchanges']} exchanges, {about['accounts']} accounts, {len(about['campaigns'])} campaigns")


if __name__ == "__main__":
    main()
