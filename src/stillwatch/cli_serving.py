"""The verbs around a server: start it, look whether it is well, keep a copy of its home and put that back."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from stillwatch import cli_state, cli_trust
from stillwatch.cli_options import Flag, JsonFlag
from stillwatch.errors import UsageError

app = App(name="serving")
app.command(cli_trust.audit)
app.command(cli_trust.token)
app.command(cli_state.state)


FAILED = 1
"""Exit code of ``doctor`` where something must be mended."""
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries under numpy go by, each over ``OMP_NUM_THREADS``; read when numpy is loaded, never again."""


def _one_thread_each() -> None:
    """Have the libraries under numpy use one thread, here and in the judge, unless somebody has set it otherwise.

    What is read of a body is a small matrix product: with a thread for each core most of the time goes into waiting for each
    other, which took two thirds of the rows that one core fingerprints.
    """
    if not any(os.environ.get(name) for name in (*BLAS_THREADS, "GOTO_NUM_THREADS", "OMP_NUM_THREADS")):
        os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))


@app.command
def serve(
    home: Path,
    *,
    config: Path | None = None,
    policy: Path | None = None,
    key: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> int:
    """Stand beside the gateway: take traffic in, judge all the time, answer what is in force, act in steps that expire.

    Examples:

        stillwatch serve home
        stillwatch serve home --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem

    Makes the home folder if it is not there, with keys of its own, and runs until SIGTERM
    or Ctrl-C. Logs are JSON lines on stderr. stillwatch token new makes tokens for people
    and gateways; docs/serving.md tells how to connect them.

    Exit codes: 0 stopped; 2 a setting is wrong; 5 the home or the port is in use.

    Parameters
    ----------
    home
        Folder that holds everything: what came in, what was judged, what is in force, the audit.
    config
        Settings (TOML) instead of serve.toml in the home.
    policy
        Policy (TOML) instead of policy.toml in the home; with neither the default one is in shadow, and nothing is done.
    key
        File with the secret for keyed hashes; else the variable STILLWATCH_KEY, else keys/privacy.key in the home.
    host
        Address to listen on, over the settings' one.
    port
        Port to listen on, over the settings' one.
    tls_cert
        Certificate with its chain, PEM.
    tls_key
        The certificate's key, PEM.
    """
    _one_thread_each()
    from stillwatch.serving.home import Home
    from stillwatch.serving.server import Start, Tls, start

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together", hint="give both or neither")
    tls = Tls(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    start(Start(Home(home), config, policy, key, host, port, tls))
    return 0


@app.command
def judge(
    home: Path,
    *,
    every: str = "1h",
    interval: str = "5m",
    grace: str = "10m",
    retention: str = "2d",
    horizon: str = "90d",
    final_scan: Literal["when_due", "always"] = "when_due",
    share: float = 0.02,
    accounts: Path | None = None,
    models: Path | None = None,
    config: Path | None = None,
    key: Path | None = None,
    once: Flag = False,
    forever: Flag = False,
    parent: Annotated[int | None, Parameter(show=False)] = None,
) -> int:
    """Judge what came in at a server's home, as a replay of it would, and write the results into the home.

    Examples:

        stillwatch judge home --once
        stillwatch judge home --forever --interval 2m

    serve runs this in a process of its own; judging.json in the home says how it stands.
    A file named judge_now in the home has it judge at once.

    Exit codes: 0 judged, or told to stop; 5 another one judges this home, or its state is
    damaged.

    Parameters
    ----------
    home
        The folder that serve was given.
    every
        Length of a step, as for replay; a state is bound to it.
    interval
        How long to wait between two judgements.
    grace
        A step is over when something that happened this much later has come in, or nothing has for so long.
    retention
        How long rows stay in the spool after the state of the judging has them.
    horizon
        How far back the state of the judging goes; what was concluded from older exchanges stays, they themselves do not.
    final_scan
        With when_due everything is judged anew only as often as share allows, known campaigns being recognised all the time;
        with always each judgement ends as a replay does.
    share
        Part of one core's time that judging everything anew may take; a state is bound to it.
    accounts
        One row per account, as for scan; what came in about an account holds over it.
    models
        Table of model and released_at, as for scan.
    config
        Settings (TOML), as for scan.
    key
        File with the secret for keyed hashes; else the variable STILLWATCH_KEY, else keys/privacy.key in the home.
    once
        Judge once and end; this is the default.
    forever
        Judge until told to stop.
    parent
        End when this is no longer the parent process.
    """
    from stillwatch import config as settings
    from stillwatch.privacy import KEY_VARIABLE, Privacy
    from stillwatch.progress import Progress
    from stillwatch.serving import judge_loop
    from stillwatch.serving.home import Home
    from stillwatch.serving.judging import Terms
    from stillwatch.windows import parse_length

    if once and forever:
        raise UsageError("--once and --forever contradict each other", hint="give one of them")
    own = Home(home).privacy_key
    secret = own if key is None and not os.environ.get(KEY_VARIABLE) and own.exists() else key
    step, wait, late, kept, back = (parse_length(text) for text in (every, interval, grace, retention, horizon))
    terms = Terms(step, wait, late, kept, back, final_scan, share, accounts, models, config, secret)
    place, set_up, privacy = Home(home).made(), settings.load(config), Privacy.load(secret)
    if forever:
        judge_loop.judge_for_ever(place, terms, set_up, privacy, parent)
        return 0
    with Progress() as progress:
        judged = judge_loop.judge_once(place, terms, set_up, privacy, progress)
    told = f"{judged.campaigns:,} campaigns of {judged.accounts:,} accounts in {judged.rows:,} exchanges"
    print(f"{told}, {judged.new:,} of them new" if judged.is_new else f"nothing new; {told}")
    return 0


@app.command
def doctor(home: Path, *, config: Path | None = None, key: Path | None = None, json_: JsonFlag = False) -> int:
    """Look whether a server's home is well: each line says ok, warn or fail, and what to do.

    Examples:

        stillwatch doctor home
        stillwatch doctor home --json

    Changes nothing, and may be run beside the server.

    Exit codes: 0 nothing failed; 1 something must be mended.

    Parameters
    ----------
    home
        The folder that serve was given.
    config
        Settings (TOML) instead of serve.toml in the home.
    key
        File with the secret, as for serve.
    json_
        Print the lines as JSON.
    """
    from stillwatch.serving.doctor import examine
    from stillwatch.serving.home import Home

    checks = examine(Home(home), config, key)
    if json_:
        print(json.dumps([c.to_dict() for c in checks], indent=2))
    else:
        for check in checks:
            print(check)
    return FAILED if any(c.level == "fail" for c in checks) else 0


@app.command
def backup(home: Path, file: Path, *, config: Path | None = None) -> int:
    """Copy a server's home into one file, while the server runs.

    Examples:

        stillwatch backup home stillwatch-2026-11-26.tar.zst

    Holds the spool, the state, the audit, the results and the watch, as they were
    together, with a digest of each file. Keys are not in it: keep keys/ apart. A state in
    PostgreSQL goes in as a copy of its rows.

    Parameters
    ----------
    home
        The folder that serve was given.
    file
        File to write, .tar.zst or .tar.gz; one of that name is replaced when the new one is whole.
    config
        Settings (TOML) instead of serve.toml in the home, as for serve.
    """
    from stillwatch.serving.backup import backup as copy
    from stillwatch.serving.home import Home

    made = copy(Home(home), file, config)
    print(
        f"{made.file}: {made.files} files, {made.bytes:,} bytes before compression, as of {made.at:%Y-%m-%d %H:%M:%S} UTC"
    )
    print("keys are not in it: keep a copy of the home's keys/ apart from it", file=sys.stderr)
    return 0


@app.command
def restore(file: Path, home: Path, *, force: Flag = False) -> int:
    """Make a home what it was when a backup was taken.

    Examples:

        stillwatch restore stillwatch-2026-11-26.tar.zst home
        stillwatch restore stillwatch-2026-11-26.tar.zst home --force

    Verifies every digest, the databases and the audit before anything is put in place.
    Then put keys/ back, and look with stillwatch doctor. A database is never written to:
    the state is in the home then, and stillwatch state move brings it into an empty one.

    Parameters
    ----------
    file
        A file that stillwatch backup wrote.
    home
        Folder to make; one that is not empty is refused.
    force
        Keep what is there under another name, HOME.before-TIME, instead of refusing.
    """
    from stillwatch.serving.backup import restore as put_back
    from stillwatch.serving.home import Home

    done = put_back(file, Home(home), force=force)
    print(f"{home}: {done.files} files as of {done.at:%Y-%m-%d %H:%M:%S} UTC, all verified")
    return 0
