"""Everything started in order and ended in the reverse one, and the story told in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.gateway_demo.asking import ask
from stillwatch.gateway_demo.model import Model
from stillwatch.gateway_demo.month import QUICK, USUAL, Month, simulated
from stillwatch.gateway_demo.processes import Child, free_port, undisturbed, wait_for
from stillwatch.gateway_demo.proxy import Ends, Proxy, command_of
from stillwatch.gateway_demo.story import FIRST, REVIEWER, SECOND, Stage, tell_all
from stillwatch.gateway_demo.telling import Teller
from stillwatch.serving.access import Role
from stillwatch.serving.home import Home

READY_WITHIN_S = 300
SETTINGS = """\
port = {port}
# A name and no address: LiteLLM blots out private addresses in what it tells customers.
public_url = "http://localhost:{port}"
loop_every_s = 0.2
[judge]
every = "7d"
interval = "1d"
final_scan = "always"
models = "{models}"
"""
POLICY = """\
# Slow down at once what is surely a campaign; to suspend waits for people.
[[rules]]
name = "slow_down"
rung = "throttle"
when = { confidence = 0.8, accounts = 10 }
settings = { requests_per_minute = 6, burst = 2 }
lasts = "7d"
[[rules]]
name = "stop"
rung = "suspend"
when = { confidence = 0.8, accounts = 10 }
lasts = "14d"
signatures = 1
# In a log this small a campaign is a large share of the traffic.
[caps]
traffic_share_per_hour = 1.0
# More accounts than this suspended at once need two people.
[bulk]
suspend = 10
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What ``stillwatch gateway-demo`` was told. ``out`` None is a folder that goes when it is over."""

    litellm: Path | None = None
    out: Path | None = None
    seed: int = 4
    quick: bool = False


def run(wish: Wish) -> None:
    """Start everything, tell the story, and unless it is to be quick stay until Ctrl-C; when this returns, nothing runs any more.

    UsageError where there is no proxy or the folder is there already, Terminal or Transient where a step fails.
    """
    command = command_of(wish.litellm)
    with folder_of(wish.out) as folder, ExitStack() as ending:
        tell = Teller()
        size = QUICK if wish.quick else USUAL
        operators = "a hidden operator" if len(size.campaigns) == 1 else f"{len(size.campaigns)} hidden operators"
        tell.step(f"A month that ends today is simulated: {size.accounts:,} accounts, some of them of {operators}")
        month = simulated(folder / "world", size, wish.seed, datetime.now(UTC))
        stage = started(folder, month, command, tell, ending)
        tell_all(stage)
        look(stage, folder)
        if not wish.quick:
            stay(stage)
        tell.step("Everything ends: the proxy, the server with its judge, the model")


@contextmanager
def folder_of(out: Path | None) -> Iterator[Path]:
    """The folder for everything; UsageError for one that is there already and is not empty."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="stillwatch-") as name:
            yield Path(name)
        return
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is there already", hint="name another folder, or remove it")
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield out.absolute()


def started(folder: Path, month: Month, command: str, tell: Teller, ending: ExitStack) -> Stage:
    """The server, the model and the proxy, started and ready, and people with tokens."""
    home, port = Home(folder / "home").made(), free_port()
    home.settings.write_text(SETTINGS.format(port=port, models=month.models))
    home.policy.write_text(POLICY)
    url = f"http://127.0.0.1:{port}"
    tell.step("stillwatch serve and a LiteLLM proxy start, the proxy in front of a stand-in for the models")
    serve = [sys.executable, "-m", "stillwatch", "serve", str(home.folder)]
    server = Child("stillwatch serve", serve, folder / "serve.log", folder, os.environ)
    ending.callback(stopped, server)
    wait_for("the server is ready", lambda: is_ready(url), READY_WITHIN_S, server)
    tokens = tokens_of(home)
    model = ending.enter_context(Model({call.prompt: call for call in month.today}))
    proxy = Proxy(command, folder / "proxy", Ends(model.port, url, tokens[Role.INGEST], tokens[Role.GATEWAY]))
    ending.callback(stopped, proxy.child)
    proxy.wait()
    tell.line(f"stillwatch  {url}   log: {server.log}")
    tell.line(f"LiteLLM     {proxy.url}   log: {proxy.child.log}")
    people = {name: _bearer(tokens[name]) for name in (FIRST, SECOND, REVIEWER)}
    return Stage(home, url, server, proxy, month, people, _bearer(tokens[Role.INGEST]), tell)


def stopped(child: Child) -> None:
    """End a process, undisturbed by a further Ctrl-C."""
    with undisturbed():
        child.stop()


def is_ready(url: str) -> bool:
    """Whether the server takes traffic in."""
    try:
        return ask("GET", f"{url}/readyz").status == 200
    except Transient:
        return False


def tokens_of(home: Home) -> dict[str, str]:
    """Tokens for the proxy's two ends, by role, and for people, by name: made as one makes them beside a running server."""
    roles = {str(r): r for r in (Role.INGEST, Role.GATEWAY)}
    roles |= {FIRST: Role.APPROVER, SECOND: Role.APPROVER, REVIEWER: Role.ADMIN}
    return {name: token_of(home, name, role) for name, role in roles.items()}


def token_of(home: Home, name: str, role: Role) -> str:
    """A new token of the running server; Terminal with what was said where there is none."""
    verb = [sys.executable, "-m", "stillwatch", "token", "new", str(home.folder), name, "--role", str(role), "--json"]
    done = subprocess.run(verb, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Terminal(f"no token for {name}: {done.stderr.strip()}")
    return str(json.loads(done.stdout)["token"])


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def look(stage: Stage, folder: Path) -> None:
    """Where to look, and with what."""
    headers = folder / "as-admin"
    headers.touch(mode=0o600)
    headers.write_text(f"authorization: {stage.people[REVIEWER]['authorization']}\n")
    stage.tell.step("To look around")
    stage.tell.line(f"the report      {stage.home.results / 'report.html'}")
    stage.tell.line(f"campaigns       curl -H @{headers} {stage.url}/api/campaigns")
    stage.tell.line(f"actions         curl -H @{headers} {stage.url}/api/actions")
    stage.tell.line(f"figures         curl -H @{headers} {stage.url}/metrics")
    stage.tell.line(f"all there is    {stage.url}/openapi.json")
    stage.tell.line(f"call it         curl {stage.proxy.url}/v1/chat/completions -H 'authorization: Bearer sk-me' "
                    "-H 'content-type: application/json' -d '{\"model\": \"cedar-2\", \"messages\": [{\"role\": \"user\", "
                    "\"content\": \"1+1?\"}]}'")  # fmt: skip
    stage.tell.line(f"audit           stillwatch audit show {stage.home.folder}")


def stay(stage: Stage) -> None:
    """Until Ctrl-C; Terminal where the server or the proxy ends before."""
    stage.tell.line("Ctrl-C ends it all")
    try:
        while True:
            stage.server.check()
            stage.proxy.child.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        print()
