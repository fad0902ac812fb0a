"""A real LiteLLM proxy before a stand-in for the models, with the server beside it: the whole story, and the guardrail.

LITELLM names the proxy's command, in a venv of its own (make test-litellm); without it these are skipped.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures_gateways import answers, wait_for
from stillwatch.audit import entries, public_key, verify
from stillwatch.gateway_demo.asking import Answer
from stillwatch.gateway_demo.model import Model
from stillwatch.gateway_demo.proxy import Ends, Proxy
from stillwatch.serving.access import Role
from stillwatch.serving.gateways import hashed
from test_serve_cli import Running, folder, started  # noqa: F401  # a fixture

LITELLM = os.environ.get("LITELLM", "")
pytestmark = [
    pytest.mark.litellm,
    pytest.mark.slow,
    pytest.mark.skipif(not LITELLM, reason="no LiteLLM: make test-litellm"),
]

WITHIN_S = 180
STORY_S = 600
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "canary-4711 1+1?"}]}


def test_the_whole_story_through_the_proxy(folder: Path) -> None:  # noqa: F811
    out = folder / "shown"
    verb = [sys.executable, "-m", "stillwatch", "gateway-demo", "--quick", "--litellm", LITELLM, "--out", str(out)]
    with subprocess.Popen(verb, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said, failed = process.communicate(timeout=STORY_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            raise
    assert (process.returncode, failed) == (0, ""), said
    words = " ".join(said.split())

    # What a client got, as it got it: slowed down, suspended, let go, and let go after an appeal.
    # The month ends today: on which weekday it does moves an account in forty.
    told = re.search(r"In truth: (\d+) of the (\d+) accounts of one operator, and 0 others", words)
    assert told and int(told[1]) >= 0.95 * int(told[2]) > 30
    assert re.search(r"twice HTTP 200, and then gets HTTP 429 retry-after: \d+ x-stillwatch-rung: throttle", words)
    case = re.search(r"gets HTTP 403 x-stillwatch-rung: suspend x-stillwatch-case: (A-[0-9a-f]+) (\{.*?\}\})", words)
    assert case and case[1] in case[2] and '"type": "permission_error"' in case[2]
    assert re.search(rf"http://localhost:\d+/appeals\?case={case[1]}&proof=[0-9a-f]{{32}}", case[2])
    assert "the page says: The account is suspended: its requests are refused." in words
    assert re.search(r"then: Your appeal AP-[0-9a-f]+ was filed on .*? will decide it by \d+ \w+ \d{4}", words)
    assert re.search(r"sam is told: sam had a part in what AP-[0-9a-f]+ appeals against", words)
    assert re.search(r"the page says: Your appeal AP-[0-9a-f]+ was granted on", words)
    assert words.count("gets HTTP 200") == 3

    # What the audit has, which nobody told it.
    home = out / "home"
    assert verify(home / "audit", public_key(home / "audit")).is_sound
    done = [(e.deed.event, e.deed.who) for e in entries(home / "audit")]
    for who, event in (("robin", "action.signed"), ("sam", "action.signed"), ("robin", "action.undone"),
                       ("kim", "appeal.overturned"), ("kim", "action.undone")):  # fmt: skip
        assert (event, who) in done, f"{who} {event}"
    assert [w for e, w in done if e == "appeal.filed"] and ("appeal.overturned", "sam") not in done

    # Nothing runs any more, and no content is on disk.
    ports = {int(p) for p in re.findall(r"http://127\.0\.0\.1:(\d+)", said)}
    assert len(ports) == 2 and not [p for p in ports if answers(p)]
    prompt = b"Rewrite as one neutral sentence"
    kept = [p for p in home.rglob("*") if p.is_file() and prompt in p.read_bytes()]
    assert not kept


class Guarded:
    """A proxy that asks by LiteLLM's own guardrail, with nothing of ours inside of it, and the server that it asks."""

    def __init__(self, place: Path) -> None:
        (place / "home").mkdir()
        settings = 'loop_every_s = 0.1\npublic_url = "https://api.example"\n'
        (place / "home" / "serve.toml").write_text(settings)
        self.server: Running = started(place / "home")
        self.tokens = {r: self.server.token(r) for r in (Role.ADMIN, Role.APPROVER, Role.INGEST, Role.GATEWAY)}
        bare = {r: t["authorization"].removeprefix("Bearer ") for r, t in self.tokens.items()}
        self.model = Model().__enter__()
        ends = Ends(self.model.port, self.server.url, bare[Role.INGEST], bare[Role.GATEWAY])
        self.proxy = Proxy(LITELLM, place / "proxy", ends, guardrail=True)

    def ask(self, account: str) -> Answer:
        return self.proxy.chat(f"sk-{account}", QUESTION)

    def post(self, path: str, given: Any, role: Role = Role.ADMIN) -> Any:
        got = httpx.post(self.server.url + path, json=given, headers=self.tokens[role], timeout=60)
        assert got.is_success, got.text
        return got.json()

    def figures(self) -> str:
        return httpx.get(f"{self.server.url}/metrics", headers=self.tokens[Role.ADMIN], timeout=60).text

    def close(self) -> None:
        self.proxy.child.stop()
        self.model.__exit__(None, None, None)


@pytest.fixture
def guarded(folder: Path) -> Iterator[Guarded]:  # noqa: F811
    made = Guarded(folder)
    try:
        made.proxy.wait()
        yield made
    finally:
        made.close()
        made.server.end()


def test_the_guardrail_refuses_by_configuration_alone(guarded: Guarded) -> None:
    assert [guarded.ask(a).status for a in ("acme", "other", "acme")] == [200] * 3
    wait_for(lambda: 'stillwatch_ingest_rows_total{source="litellm"} 3' in guarded.figures(), WITHIN_S)
    assert re.search(r'^stillwatch_decisions_total\{what="asked"\} [1-9]', guarded.figures(), re.MULTILINE)

    wish = {"accounts": [hashed("sk-acme")], "rung": "suspend", "reason": "one of a ring"}
    (action,) = guarded.post("/api/actions", wish)["proposed"]
    assert guarded.ask("acme").status == 200
    guarded.post("/api/actions/sign", {"actions": [action["action_id"]]}, Role.APPROVER)
    wait_for(lambda: guarded.ask("acme").status != 200, WITHIN_S)
    before = guarded.model.asked
    refused = guarded.ask("acme")
    assert guarded.model.asked == before, "what was refused reached the model"
    assert refused.status == 400, refused.text
    assert action["action_id"] in refused.text
    assert f"https://api.example/appeals?case={action['action_id']}&proof=" in refused.text
    assert guarded.ask("other").status == 200

    wish = {"actions": [action["action_id"]], "reason": "a mistake"}
    guarded.post("/api/actions/undo", wish, Role.APPROVER)
    wait_for(lambda: guarded.ask("acme").status == 200, WITHIN_S)

    # The server gone, everybody passes: that is what unreachable_fallback says here.
    assert guarded.server.end() == 0
    assert guarded.ask("acme").status == 200
