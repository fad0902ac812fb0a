"""The command line: one verb per thing a person wants, examples first, errors that say what to do.

Results go to files and stdout, messages and progress to stderr. Exit codes: 0 no campaign, 1 campaigns found, 2 usage,
3 input rejected, 4 partial, 5 a dependency is down, 70 a fault of our own, 130 interrupted.
"""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from stillwatch import __version__
from stillwatch.cli_bench import app as bench_verbs
from stillwatch.cli_canary import app as canary_verbs
from stillwatch.cli_demo import app as demo_verbs
from stillwatch.cli_options import Flag, JsonFlag, Paths
from stillwatch.cli_policy import app as policy_verbs
from stillwatch.cli_prove import app as prove_verbs
from stillwatch.cli_serving import app as serving_verbs
from stillwatch.cli_watermark import app as watermark_verbs
from stillwatch.errors import Reject, StillwatchError, UsageError

if TYPE_CHECKING:
    from stillwatch.findings import Findings, Run
    from stillwatch.simulate import Summary

FOUND, USAGE, PARTIAL, DEPENDENCY, OUR_FAULT, INTERRUPTED = 1, 2, 4, 5, 70, 130
"""Exit codes; 0 is no campaign, 3 comes with InputRejected. A traceback would end with 1, which means campaigns."""

REJECTS_SHOWN = 10

# "Examples:" as a line of its own would be taken for a section of the docstring, and left out.
HELP = """\
Find, stop and prove illicit model distillation in an LLM provider's traffic.

To begin with:

    stillwatch scan last-month/ --accounts accounts.parquet --out result
    stillwatch inspect gateway.ndjson.zst

To try it without a log of your own:

    stillwatch demo
    stillwatch simulate --out world --seed 7
    stillwatch scan world/exchanges --out result
    stillwatch evaluate world result

Then open result/report.html. `stillwatch VERB --help` explains a verb.

Exit codes: 0 no campaign, 1 campaigns found, 2 usage, 3 input rejected,
4 partial, 5 a dependency is down, 130 interrupted.
"""

app = App(name="stillwatch", help=HELP, version=__version__, help_format="plaintext", suppress_keyboard_interrupt=False)


@app.command
def scan(
    exchanges: Path,
    *,
    out: Path,
    accounts: Path | None = None,
    models: Path | None = None,
    adapter: str | None = None,
    map: Paths = (),
    config: Path | None = None,
    key: Path | None = None,
    json_: JsonFlag = False,
    quiet: Flag = False,
) -> int:
    """Judge a log as a whole: who is one hidden operator, what they are after, and who merely looks alike.

    Examples:

        stillwatch scan last-month/ --accounts accounts.parquet --out result
        stillwatch scan litellm.ndjson.gz --adapter litellm --out result
        stillwatch scan gateway.ndjson --map our-gateway.toml --out result

    Writes accounts.parquet, campaigns.json, review.json, report.html and run.json
    to OUT, all or none.

    Exit codes: 0 no campaign; 1 campaigns found; 3 nothing could be judged;
    4 no campaign, but a file of the log could not be read, or not to its end.

    Parameters
    ----------
    exchanges
        A file or folder: Parquet, NDJSON (.gz, .zst) or CSV in the canonical form, or a gateway's log; "-" is stdin.
    out
        Folder for the results; those of an earlier scan there are replaced.
    accounts
        One row per account: sign-up, organisation, payment, mail domain. Without it identity evidence is blind.
    models
        Table of model and released_at, to notice moves to a new model.
    adapter
        Name of the log's format, where it is not recognised by itself; stillwatch inspect --adapters lists them.
    map
        A field map (TOML) of your own, for a gateway we do not know.
    config
        Settings (TOML): engine, memory, threads, detectors' numbers.
    key
        File with the secret for keyed hashes; else the variable STILLWATCH_KEY, else one made for this run.
    json_
        Print run.json to stdout instead of the summary.
    quiet
        No progress on stderr; what was wrong with the input is still told.
    """
    from stillwatch import config as settings
    from stillwatch import results
    from stillwatch.pipeline import Log
    from stillwatch.pipeline import scan as run_scan
    from stillwatch.privacy import Privacy
    from stillwatch.progress import Progress

    _check_out(out)
    with Progress(quiet=quiet) as progress:
        log = Log(exchanges, accounts, models, adapter, tuple(map))
        findings, run = run_scan(log, settings.load(config), Privacy.load(key), progress)
        progress.stage("write")
        results.write(findings, run, out)
    return _end(findings, run, out, exchanges, json_)


@app.command
def replay(
    exchanges: Path,
    *,
    out: Path,
    every: str = "1h",
    accounts: Path | None = None,
    models: Path | None = None,
    adapter: str | None = None,
    map: Paths = (),
    config: Path | None = None,
    key: Path | None = None,
    state: Path | None = None,
    until: str | None = None,
    share: float = 0.0,
    policy: Path | None = None,
    json_: JsonFlag = False,
    quiet: Flag = False,
) -> int:
    """Walk a log in event time: what would have been known when, judging at each step by what had arrived until then.

    Examples:

        stillwatch replay last-month/ --accounts accounts.parquet --out result
        stillwatch replay last-month/ --every 6h --out result --json
        stillwatch replay log/ --key key --state state --out result
        stillwatch replay world/exchanges --policy policy.toml --out result

    Writes what scan writes, with the time each campaign was first told (detected_at) and
    each account first flagged (first_flagged_at; cleared_at where a later step took it
    back), and history.json: what became of each campaign.

    The last step judges the whole log, so campaigns and accounts are those of a scan.

    With --state a later run over the same log, grown in between, takes up where this one
    was, and ends as one run over all of it would.

    Parameters
    ----------
    exchanges
        As for scan. Rows that a log holds late are taken at the time they happened, unless a state was past it already.
    out
        Folder for the results; those of an earlier run there are replaced.
    every
        Length of a step: a number and s, m, h or d. Steps end at full multiples of it in UTC.
    accounts
        One row per account, as for scan.
    models
        Table of model and released_at, as for scan.
    adapter
        Name of the log's format, where it is not recognised by itself.
    map
        A field map (TOML) of your own.
    config
        Settings (TOML).
    key
        File with the secret for keyed hashes.
    state
        Folder to keep the state of the replay in, and to take it up from; it needs a key that lasts, --key or STILLWATCH_KEY.
    until
        Stop after the step that ends at or after this time (ISO 8601, UTC), as if the log ended there.
    share
        Part of one core's time (as the log tells time) that judging everything may take beside the usual; a server's is 0.02.
    policy
        Tell too what this policy (TOML) would have done, and whom honest it would have hit where the truth lies with the log;
        written to policy.json.
    json_
        Print run.json to stdout instead of the summary.
    quiet
        No progress on stderr.
    """
    from stillwatch import config as settings
    from stillwatch import policy as policies
    from stillwatch import rehearsal, results
    from stillwatch.checkpoint import Checkpoint, belonging
    from stillwatch.pipeline import Log
    from stillwatch.privacy import Privacy
    from stillwatch.progress import Progress
    from stillwatch.replay import Plan, follow, read
    from stillwatch.store.state import write_json
    from stillwatch.windows import length_text, parse_length, parse_moment

    _check_out(out)
    if state is not None:
        _check_out(state, "--state")
    if not 0 <= share <= 1:
        raise UsageError(f"share {share} is none", hint="a part of one core's time, from 0 to 1: 0.02")
    rules = policies.load(policy) if policy else None
    length, set_up, privacy = parse_length(every), settings.load(config), Privacy.load(key)
    kept = None if state is None else Checkpoint(state, belonging(set_up, privacy, length_text(length), share))
    plan = Plan(length, parse_moment(until) if until else None, kept, share=share)
    with Progress(quiet=quiet) as progress, kept.held() if kept else nullcontext():
        log = Log(exchanges, accounts, models, adapter, tuple(map))
        material = read(log, plan, privacy, progress)
        tally = rehearsal.Tally.of_facts(material.intake.accounts.names, material.intake.facts) if rules else None
        followed = follow(material, plan, set_up, privacy, progress)
        findings, run = followed.findings, followed.run
        if rules and tally:
            progress.stage("rehearse")
            declared, seed = material.declared.accounts, privacy.seed("policy").to_bytes(8, "little")
            known = policies.traffic_of(declared).organisations if declared is not None else {}
            honest = rehearsal.honest_of(exchanges)
            told = rehearsal.rehearse(rules, findings, tally, seed, organisations=known, honest=honest)
        progress.stage("write")
        results.write(findings, run, out, followed.history)
        (out / "policy.json").unlink(missing_ok=True)
        if rules:
            write_json(out / "policy.json", told.to_dict())
    code = _end(findings, run, out, exchanges, json_)
    if rules and not json_:
        rehearsal.show(told, Terminal())
    return code


@app.command
def inspect(
    log: Path | None = None,
    *,
    accounts: Path | None = None,
    models: Path | None = None,
    adapter: str | None = None,
    map: Paths = (),
    adapters: Flag = False,
    json_: JsonFlag = False,
) -> int:
    """Print the coverage card of a log: which columns are there in how many rows, and which detectors are blind for it.

    Examples:

        stillwatch inspect gateway.ndjson.zst
        stillwatch inspect otel/ --accounts accounts.parquet --json
        stillwatch inspect --adapters

    Reads the whole log, judges nothing, writes nothing.

    Parameters
    ----------
    log
        A file or folder, as for scan; "-" is stdin.
    accounts
        The accounts file, to see which detectors would work with it.
    models
        The table of models, likewise.
    adapter
        Name of the log's format, where it is not recognised by itself.
    map
        A field map (TOML) of your own, for a gateway we do not know.
    adapters
        List the formats that are known, instead.
    json_
        Print the card as JSON.
    """
    from stillwatch import card

    if adapters:
        card.show_adapters(Terminal())
        return 0
    if log is None:
        raise UsageError("no log given", hint="stillwatch inspect LOG, or stillwatch inspect --adapters")
    shown = card.look(log, accounts, models, adapter, tuple(map))
    if json_:
        print(json.dumps(shown.to_dict(), indent=2))
    else:
        card.show(shown, Terminal())
    return 0


@app.command
def simulate(
    *,
    out: Path,
    seed: int = 1,
    accounts: int = 10_000,
    exchanges: int = 1_000_000,
    campaign: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    look_alikes_only: Flag = False,
    prompts: Path | None = None,
    traces: Path | None = None,
    quiet: Flag = False,
) -> int:
    """Write a labelled log: a month of honest customers and look-alikes, with campaigns planted in it.

    Examples:

        stillwatch simulate --out world --seed 7
        stillwatch simulate --out quiet --look-alikes-only --accounts 30000
        stillwatch simulate --out hydra --campaign hydra_proxy:400:0.5
        stillwatch simulate --out w --campaign small_ring --campaign hydra_proxy

    Writes exchanges/, accounts.parquet, models.csv, truth.parquet,
    truth_exchanges.parquet and world.json to OUT.

    Shapes of campaigns, all disclosed by providers but the last:

        balanced_reasoning  reasoning, rubric grading and censorship-safe
                            rewrites, load-balanced over shared cards
        many_pathways       tools, coding, data analysis, computer use and
                            vision over several channels and kinds of account
        agentic_pivot       huge agentic coding that moves half of its traffic
                            to a new model within a day
        tagged_traces       one fixed prompt that forces the reasoning into
                            tags; banned accounts are replaced at once
        forwarded_users     an operator's own users' requests, forwarded as
                            they come through a pool of accounts
        trace_cleaning      raw traces sent in to be cleaned and judged
        session_replay      sessions of an operator's users replayed, many
                            through routers
        four_requests       thousands of accounts with about four requests
                            each, in a spike of days
        foreign_traces      reasoning coerced in the language of the question,
                            other than English
        hydra_proxy         a resale proxy: real customers and extraction in
                            the same accounts, heads replaced after bans
        small_ring          one small wallet and one prompt: a handful of
                            accounts, easy to overlook

    Parameters
    ----------
    out
        Folder for the log; an older one there is replaced.
    seed
        Equal settings and seed give an equal log.
    accounts
        Accounts in all, those of campaigns included.
    exchanges
        Exchanges in all, to within a few percent.
    campaign
        A campaign to plant, SHAPE[:ACCOUNTS[:CAMOUFLAGE]][,KNOB=VALUE...]; may be repeated. Default: a usual month's.
    look_alikes_only
        Plant none: a log in which nobody should be accused.
    prompts
        Folder of real prompts to use instead of the built-in ones.
    traces
        Folder of real timings to use instead of the built-in ones.
    quiet
        No progress on stderr.
    """
    from stillwatch import simulate as worlds
    from stillwatch.progress import Progress

    planned = {"campaigns": tuple(worlds.parse_campaign(c) for c in campaign)} if campaign or look_alikes_only else {}
    if campaign and look_alikes_only:
        raise UsageError("--campaign and --look-alikes-only contradict each other", hint="give one of them")
    world = worlds.default_world(seed, accounts, exchanges, prompts=prompts, traces=traces, **planned)
    _check_out(out)
    with Progress(quiet=quiet) as progress:
        progress.stage("simulate", total=exchanges)
        made = worlds.simulate(world, out, lambda done, total: progress.advance(done - progress.rows))
    _tell_world(made)
    return 0


@app.command
def evaluate(
    truth: Path,
    result: Path | None = None,
    *,
    leaks: Flag = False,
    seed: int = 0,
    json_: JsonFlag = False,
) -> int:
    """Hold a scan's result against the truth of a simulated log: precision, recall, pieces, purity, look-alikes, cost.

    Examples:

        stillwatch evaluate world result
        stillwatch evaluate --leaks world
        stillwatch evaluate --leaks world result --json

    Parameters
    ----------
    truth
        Folder that stillwatch simulate wrote.
    result
        Folder that stillwatch scan wrote.
    leaks
        Ask too whether a single column that is not text gives the campaigns away, and how far boosted trees on all of
        them come on campaigns they have not seen. Needs the extra: pip install 'stillwatch[evaluate]'.
    seed
        Of the boosted trees.
    json_
        Print the figures as JSON.
    """
    from stillwatch import evaluation

    if result is None and not leaks:
        raise UsageError("nothing to evaluate", hint="stillwatch evaluate TRUTH RESULT, or add --leaks")
    found = evaluation.evaluate(truth, result) if result is not None else None
    probed = evaluation.probe(truth, seed) if leaks else None
    if json_:
        print(json.dumps({n: e.to_dict() for n, e in (("evaluation", found), ("leaks", probed)) if e}, indent=2))
    else:
        evaluation.show(found, probed, Terminal())
    return 0


@app.command
def demo(
    *, out: Path = Path("demo"), seed: int = 7, accounts: int = 10_000, exchanges: int = 1_000_000, quiet: Flag = False
) -> int:
    """Simulate a month, scan it, hold the result against the truth, and say where the report is.

    Examples:

        stillwatch demo
        stillwatch demo --out small --accounts 2000 --exchanges 100000

    Parameters
    ----------
    out
        Folder for the log (world) and the result.
    seed
        Of the simulated month.
    accounts
        Accounts in all.
    exchanges
        Exchanges in all.
    quiet
        No progress on stderr.
    """
    world, result = out / "world", out / "result"
    print(f"1/3  a simulated month: {accounts:,} accounts, {exchanges:,} exchanges")
    simulate(out=world, seed=seed, accounts=accounts, exchanges=exchanges, quiet=quiet)
    print("\n2/3  scan", flush=True)
    models = world / "models.csv"
    scan(world / "exchanges", accounts=world / "accounts.parquet", models=models, out=result, quiet=quiet)
    print("\n3/3  held against the truth", flush=True)
    evaluate(world, result)
    print(f"\nthe report: {(result / 'report.html').resolve()}")
    return 0


app.command(policy_verbs)
app.command(watermark_verbs)
app.command(canary_verbs)
app.command(prove_verbs)
app.command(bench_verbs)
app.command(serving_verbs, name="*")
app.command(demo_verbs, name="*")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; every error is a sentence on stderr and an exit code, never a code that means campaigns."""
    given = sys.argv[1:] if arguments is None else arguments
    # A lone "-" would be taken for an option; as a path "./-" is the same, and standard input.
    tokens = ["./-" if token == "-" else token for token in given]
    _open_streams()
    with _Interrupts() as interrupts:
        try:
            return _run(tokens)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except (Exception, KeyboardInterrupt) as e:
            # An engine that is interrupted inside a step reports a failed step.
            if interrupts.seen or isinstance(e, KeyboardInterrupt):
                return _say("interrupted", "no half-written result is left; run it again", INTERRUPTED)
            return _explain(e)


def _run(tokens: Sequence[str]) -> int:
    code = app(tokens, console=Terminal(), exit_on_error=False, print_error=False, result_action="return_value")
    sys.stdout.flush()
    return code if isinstance(code, int) else 0


class Terminal(Console):
    """A console whose broken pipe is an error for ``main``: rich would exit with 1, which means campaigns."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _open_streams() -> None:
    """Make stdout and stderr fit to be written to: there, and able to say any name in some way."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> int:
    """Say what went wrong and what to do; the exit code."""
    match error:
        case StillwatchError():
            return _say(str(error), "", error.exit_code)
        case CycloptsError():
            return _say(" ".join(str(error).split()), "stillwatch --help, or stillwatch VERB --help", USAGE)
        case MemoryError():
            hint = "set a lower memory or fewer threads in --config, or scan a part of the log"
            return _say("out of memory; nothing was written", hint, DEPENDENCY)
        case ImportError():
            return _say(f"a package is missing: {error}", "pip install --force-reinstall stillwatch", DEPENDENCY)
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return _say(f"{where}{error.strerror or error}", "no half-written result is left", DEPENDENCY)
    traceback.print_exception(error)
    return _say("this is a fault of stillwatch, not of your log", "please report it with the lines above", OUR_FAULT)


def _say(message: str, hint: str, code: int) -> int:
    print(f"stillwatch: {message}" + (f"\n  hint: {hint}" if hint else ""), file=sys.stderr)
    return code


class _Interrupts:
    """Ctrl-C and a polite kill both raise KeyboardInterrupt while this is open, and are remembered in ``seen``."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt


def _end(findings: Findings, run: Run, out: Path, exchanges: Path, json_: bool) -> int:
    """Tell what was found, and what of the input was left out; the exit code."""
    from stillwatch import summary

    _tell(run.rejects)
    if json_:
        print((out / "run.json").read_text(encoding="utf-8"), end="")
    else:
        summary.show(findings, run, out, Terminal())
    if findings.campaigns:
        return FOUND
    return PARTIAL if any(_is_of_a_file(r, exchanges) for r in run.rejects) else 0


def _check_out(out: Path, option: str = "--out") -> None:
    """UsageError where nothing could be written to ``out``: better now than after an hour."""
    # Unlike Path.exists, this is False, no error, where a folder above may not be looked into.
    standing = next((p for p in (out, *out.parents, *out.absolute().parents) if os.path.exists(p)), Path("/"))
    if not standing.is_dir():
        raise UsageError(f"{standing}: is a file, but {option} is a folder", hint="give the name of a folder")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise UsageError(f"{standing}: no permission to write there", hint=f"give {option} a folder of your own")


def _tell(rejects: Iterable[Reject]) -> None:
    """What of the input was left out, and where, on stderr."""
    lines = [str(r).replace("\n", "\n  ") for r in rejects]
    if lines:
        print("stillwatch: not all of the input could be used", file=sys.stderr)
    for line in lines[:REJECTS_SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(lines) > REJECTS_SHOWN:
        print(f"  and {len(lines) - REJECTS_SHOWN} more reasons: run.json has them all", file=sys.stderr)


def _is_of_a_file(reject: Reject, log: Path) -> bool:
    """Whether a file of the log, not a row of it, was left out or broke off; rows have a place ``file:line``."""
    place = Path(reject.place)
    return reject.place == "(stdin)" or ((place == log or log in place.parents) and place.exists())


def _tell_world(made: Summary) -> None:
    print(f"{made.exchanges:,} exchanges of {made.accounts:,} accounts in {made.out}")
    for c in made.campaigns:
        print(f"  {c.campaign_id}  {c.shape:<19}{c.accounts:>6,} accounts {c.exchanges:>9,} exchanges")


if __name__ == "__main__":
    sys.exit(main())
