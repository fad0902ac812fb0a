"""The command line: one verb per thing a person wants, examples first, errors that say what to do.

Results go to files and stdout, messages and progress to stderr. Exit codes: 0 no campaign, 1 campaigns found, 2 usage,
3 input rejected, 4 partial, 5 a dependency is down, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from stillwatch import __version__
from stillwatch.errors import StillwatchError

EXAMPLES = """\
Find, stop and prove illicit model distillation in an LLM provider's traffic.

Examples:

    stillwatch scan last-month/ --accounts accounts.parquet --models models.csv --out result
    stillwatch inspect gateway.ndjson.zst
    stillwatch simulate --out world --seed 7 --accounts 10000 --exchanges 1000000
    stillwatch scan world/exchanges --accounts world/accounts.parquet --out result
    stillwatch evaluate world result

Then open result/report.html. `stillwatch VERB --help` explains a verb.
"""

app = App(name="stillwatch", help=EXAMPLES, version=__version__, help_format="plaintext")


@app.command
def scan(
    exchanges: Path,
    *,
    out: Path,
    accounts: Path | None = None,
    models: Path | None = None,
    adapter: str | None = None,
    map: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),  # noqa: A002
    config: Path | None = None,
    key: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Judge a log as a whole: which accounts are one hidden operator's, what they are after, and who merely looks alike.

    Examples:

        stillwatch scan last-month/ --accounts accounts.parquet --out result
        stillwatch scan litellm.ndjson.gz --adapter litellm --out result
        stillwatch scan gateway.ndjson --map our-gateway.toml --out result

    Writes accounts.parquet, campaigns.json, review.json, report.html and run.json to OUT.
    Exit code 0: no campaign; 1: campaigns found; 3: nothing could be judged; 4: judged, but a file of the log was left out.

    Parameters
    ----------
    exchanges
        A file or folder: Parquet, NDJSON (.gz, .zst) or CSV in the canonical form, or a gateway's own log; "-" is stdin.
    out
        Folder for the results; those of an earlier scan there are replaced.
    accounts
        One row per account: sign-up, organisation, payment, mail domain. Without it identity evidence is blind.
    models
        Table of model and released_at, to notice moves to a new model.
    adapter
        Name of the log's format, where it is not recognised by itself (see `stillwatch inspect --adapters`).
    map
        A field map (TOML) of your own, for a gateway we do not know.
    config
        Settings (TOML): engine, memory, threads, detectors' numbers.
    key
        File with the secret for keyed hashes; else the variable STILLWATCH_KEY, else one made for this run.
    json_
        Print run.json to stdout instead of the summary.
    quiet
        No progress on stderr.
    """
    from stillwatch import config as settings
    from stillwatch import results, summary
    from stillwatch.pipeline import Log
    from stillwatch.pipeline import scan as run_scan
    from stillwatch.privacy import Privacy
    from stillwatch.progress import Progress

    with Progress(quiet=quiet) as progress:
        log = Log(exchanges, accounts, models, adapter, tuple(map))
        findings, run = run_scan(log, settings.load(config), Privacy.load(key), progress)
        progress.stage("write")
        results.write(findings, run, out)
    if json_:
        print((out / "run.json").read_text(encoding="utf-8"), end="")
    else:
        summary.show(findings, run, out, Console())
    return 1 if findings.campaigns else 0


@app.command
def inspect(
    log: Path,
    *,
    accounts: Path | None = None,
    models: Path | None = None,
    adapter: str | None = None,
    map: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),  # noqa: A002
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Print the coverage card of a log: which columns are there in how many rows, and which detectors are blind for it.

    Examples:

        stillwatch inspect gateway.ndjson.zst
        stillwatch inspect otel/ --json

    Reads the whole log, judges nothing, writes nothing.
    """
    from stillwatch import card

    shown = card.look(log, accounts, models, adapter, tuple(map))
    if json_:
        print(json.dumps(shown.to_dict(), indent=2))
    else:
        card.show(shown, Console())
    return 0


@app.command
def simulate(
    *,
    out: Path,
    seed: int = 1,
    accounts: int = 10_000,
    exchanges: int = 1_000_000,
    campaign: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    look_alikes_only: Annotated[bool, Parameter(negative="")] = False,
    prompts: Path | None = None,
    traces: Path | None = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a labelled log: a month of honest customers and look-alikes, with campaigns planted in it.

    Examples:

        stillwatch simulate --out world --seed 7
        stillwatch simulate --out quiet --look-alikes-only --accounts 30000
        stillwatch simulate --out hydra --campaign hydra_proxy:400:0.5 --campaign four_requests:4000

    Writes exchanges/, accounts.parquet, models.csv, truth.parquet, truth_exchanges.parquet and world.json to OUT.
    """
    from stillwatch import simulate as worlds
    from stillwatch.progress import Progress

    planned = () if look_alikes_only else tuple(worlds.parse_campaign(c) for c in campaign) or None
    world = worlds.default_world(
        seed, accounts=accounts, exchanges=exchanges, campaigns=planned, prompts=prompts, traces=traces
    )
    with Progress(quiet=quiet) as progress:
        made = worlds.simulate(world, out, progress)
    print(made)
    return 0


@app.command
def evaluate(
    truth: Path,
    result: Path | None = None,
    *,
    leaks: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Hold a scan's result against the truth of a simulated log: precision, recall, pieces, purity, look-alikes, cost.

    Examples:

        stillwatch evaluate world result
        stillwatch evaluate --leaks world
        stillwatch evaluate --leaks world result --json

    With --leaks: does any single column that is not text give the campaigns away, and how far would boosted trees on all of
    them come on campaigns they have not seen? (needs the extra: pip install 'stillwatch[evaluate]')
    """
    from stillwatch import evaluation

    found = evaluation.evaluate(truth, result) if result is not None else None
    probed = evaluation.probe(truth, seed) if leaks else None
    if json_:
        print(json.dumps({n: e.to_dict() for n, e in (("evaluation", found), ("leaks", probed)) if e}, indent=2))
    else:
        evaluation.show(found, probed, Console())
    return 0


@app.command
def demo(*, out: Path = Path("demo"), seed: int = 7, accounts: int = 10_000, exchanges: int = 1_000_000) -> int:
    """Simulate a month, scan it, hold the result against the truth, and say where the report is.

    Examples:

        stillwatch demo
        stillwatch demo --out /tmp/small --accounts 2000 --exchanges 100000
    """
    world, result = out / "world", out / "result"
    console = Console()
    console.print(f"1/3 a simulated month: {accounts:,} accounts, {exchanges:,} exchanges")
    simulate(out=world, seed=seed, accounts=accounts, exchanges=exchanges)
    console.print("2/3 scan")
    scan(
        world / "exchanges", accounts=world / "accounts.parquet", models=world / "models.csv", out=result
    )
    console.print("3/3 held against the truth")
    evaluate(world, result)
    console.print(f"the report: {(result / 'report.html').resolve()}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; every error is a sentence on stderr and an exit code, never a traceback."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as e:
        print(f"stillwatch: {e}\n  hint: stillwatch --help", file=sys.stderr)
        return 2
    except StillwatchError as e:
        print(f"stillwatch: {e}", file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("stillwatch: interrupted; nothing was written", file=sys.stderr)
        return 130
    except OSError as e:
        print(f"stillwatch: {e.filename or ''}: {e.strerror or e}\n  hint: nothing of this run was kept", file=sys.stderr)
        return 5
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
