"""The verb that asks a log how many campaigns chance alone makes of it."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from cyclopts import App
from rich.console import Console

from stillwatch.cli_options import Flag, JsonFlag, Paths
from stillwatch.errors import UsageError

app = App(name="decoy-verbs")


@app.command
def decoys(
    exchanges: Path,
    *,
    accounts: Path | None = None,
    models: Path | None = None,
    adapter: str | None = None,
    map: Paths = (),
    config: Path | None = None,
    key: Path | None = None,
    logs: int = 3,
    seed: int = 1,
    json_: JsonFlag = False,
    quiet: Flag = False,
) -> int:
    """Judge a log whose links are shuffled, in which there is no operator: what is found there is found by chance.

    Examples:

        stillwatch decoys last-month/ --accounts accounts.parquet
        stillwatch decoys last-month/ --accounts accounts.parquet --logs 10 --json

    Who pays, where an account comes from and what it asks are dealt out anew, each for
    itself: every value and every account stays as busy as it was, within kinds of
    account, countries and days. A campaign found there is one that chance makes. Groups
    of honest customers are dealt apart too, so nothing is said about look-alikes.
    Each shuffled log takes about as long as a scan; nothing is written.

    Parameters
    ----------
    exchanges
        As for stillwatch scan.
    accounts
        One row per account, as for stillwatch scan.
    models
        Table of model and released_at.
    adapter
        Name of the log's format, where it is not recognised by itself.
    map
        A field map (TOML) of your own.
    config
        Settings (TOML).
    key
        File with the secret for keyed hashes.
    logs
        How many times the log is shuffled and judged.
    seed
        Of the shuffling.
    json_
        Print the figures as JSON.
    quiet
        No progress on stderr.
    """
    from stillwatch import config as settings
    from stillwatch.evaluation.decoys import decoys as run
    from stillwatch.intake import Log
    from stillwatch.privacy import Privacy

    if logs < 1:
        raise UsageError(f"--logs {logs}: at least one must be judged")
    told = Console(stderr=True, quiet=quiet)
    log = Log(exchanges, accounts, models, adapter, tuple(map))
    found = run(
        log, logs, settings.load(config), Privacy.load(key), seed, lambda k: told.print(f"judged {k} of {logs}")
    )
    if json_:
        print(json.dumps(asdict(found) | {"expected_false": found.expected_false}, indent=2))
        return 0
    print(f"{logs} shuffled logs, each judged as a whole")
    print(
        f"campaigns       {found.campaigns}, {found.accounts} accounts: {found.expected_false:.2f} a log by chance alone"
    )
    print(f"review          {found.review} cases")
    print(f"highest risk    {found.highest_risk:.3f}")
    return 0
