"""The verb that shows all of it at work, in front of a real gateway."""
# ruff: noqa: PLC0415  # verbs import what they need, so that --help does not wait for engines

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from stillwatch.cli_options import Flag

app = App(name="demo-verbs")


@app.command
def gateway_demo(*, litellm: Path | None = None, out: Path | None = None, seed: int = 4, quick: Flag = False) -> int:
    """Show serve at work before a real LiteLLM proxy, from the traffic to an appeal.

    Examples:

        stillwatch gateway-demo --litellm venv/bin/litellm
        stillwatch gateway-demo --litellm venv/bin/litellm --quick --out shown

    Traffic of a simulated month comes in, today's through the proxy; a campaign is
    named, its accounts are slowed down, then suspended by two people; one is let
    go, another one appeals. Each step says what a client gets. Only the model
    behind the proxy and the people are played. make gateway gets the proxy.
    At the end everything stays, to look around, until Ctrl-C.

    Exit codes: 0 all went as told; 2 no proxy, or the folder is there already;
    5 a step gave something else.

    Parameters
    ----------
    litellm
        Command of a LiteLLM proxy, in a virtual environment of its own; else the variable LITELLM names it.
    out
        Folder to keep the logs and the server's home in, a new one; without it they go when it is over.
    seed
        Of the simulated month.
    quick
        A smaller month, and everything ends by itself.
    """
    from stillwatch.gateway_demo.running import Wish, run

    run(Wish(litellm, out, seed, quick))
    return 0
