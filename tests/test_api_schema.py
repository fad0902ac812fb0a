"""What the OpenAPI document says of the server, tried by schemathesis on a real one, with the token of each role.

Run by ``make test-api``, which gets schemathesis into a venv of its own; without it these are skipped. Left out of its
checks, each for a reason:

- ``positive_data_acceptance``: a schema cannot say that an action must be there, or an account or a campaign be named;
- ``not_a_server_error`` and ``missing_required_header`` where Envoy and nginx ask: without a token that holds they are
  answered 503 on purpose (``edge.locked_out``), and the document says so;
- ``unsupported_method`` there: what is asked about may be of any method, and a document names one at a time;
- ``ignored_auth`` there: a header given to schemathesis is sent again where it means to leave it out. That no token and a wrong
  one open nothing is in test_app.py and test_nginx.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillwatch.serving.access import Role
from test_serve_cli import Running, started

SCHEMATHESIS = os.environ.get("SCHEMATHESIS", "")
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "3"))
"""Random requests for each operation, beside those that cover the schema."""
LEFT_OUT_FOR_GATEWAYS = (
    "positive_data_acceptance", "not_a_server_error", "missing_required_header", "unsupported_method", "ignored_auth",
)  # fmt: skip
ASKED_BY_GATEWAYS = "^/(ext_authz|nginx_auth)"

pytestmark = [pytest.mark.api, pytest.mark.skipif(not SCHEMATHESIS, reason="no schemathesis: make test-api")]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        home = Path(name) / "home"
        home.mkdir()
        (home / "serve.toml").write_text('loop_every_s = 1.0\npublic_url = "https://w.example"\n')
        running = started(home)
        assert running.process.stderr is not None
        # Read all the time: a server that nobody listens to would wait for it.
        hearing = threading.Thread(target=lambda: running.lines.extend(map(json.loads, running.process.stderr or ())))
        hearing.start()
        yield running
        running.process.terminate()
        hearing.join(60)
        assert running.process.wait(60) == 0
        running.process.stderr.close()
        if running.process.stdout:
            running.process.stdout.close()
        faults = [line for line in running.lines if line["level"] == "error"]
        assert not faults, faults[:3]


def tried(server: Running, *options: str) -> None:
    command = [
        SCHEMATHESIS, "run", f"{server.url}/openapi.json", "--no-color", "--seed=1", "--phases=examples,coverage,fuzzing",
        f"--max-examples={EXAMPLES}", "--generation-database=:memory:", *options,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        told = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=folder)
    assert told.returncode == 0, told.stdout[told.stdout.find("FAILURES") :][:6000] + told.stderr[-2000:]
    assert "Tested: " in told.stdout, told.stdout[-2000:]


@pytest.mark.parametrize("role", list(Role))
def test_every_answer_is_as_the_document_says(server: Running, role: Role) -> None:
    header = server.token(role)["authorization"]
    given = (f"--header=Authorization: {header}", f"--exclude-path-regex={ASKED_BY_GATEWAYS}")
    tried(server, *given, "--exclude-checks=positive_data_acceptance")


def test_so_is_every_answer_to_a_gateway(server: Running) -> None:
    token = server.token(Role.GATEWAY)["authorization"].removeprefix("Bearer ")
    given = (f"--header=X-Stillwatch-Token: {token}", f"--include-path-regex={ASKED_BY_GATEWAYS}")
    tried(server, *given, f"--exclude-checks={','.join(LEFT_OUT_FOR_GATEWAYS)}")
