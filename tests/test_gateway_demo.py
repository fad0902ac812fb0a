"""Parts of the demonstration that need no proxy: what is sent, how processes end, what is said. The rest: test_litellm.py."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.compute as pc
import pytest

from fixtures_gateways import answers
from stillwatch import cli
from stillwatch.errors import Terminal, Transient, UsageError
from stillwatch.gateway_demo import processes, running, story
from stillwatch.gateway_demo.asking import Answer, post_json
from stillwatch.gateway_demo.model import ANSWER, Model
from stillwatch.gateway_demo.month import Month, Size, lines, name_of, secret_of, simulated
from stillwatch.gateway_demo.processes import Child, wait_for
from stillwatch.gateway_demo.proxy import Ends, Proxy, command_of, environment
from stillwatch.gateway_demo.telling import WIDTH, Teller
from stillwatch.serving.gateways import hashed

NOW = datetime(2026, 11, 26, 15, 30, tzinfo=UTC)
MIDNIGHT = NOW.replace(hour=0, minute=0)
TINY = Size(260, 2_600, ("balanced_reasoning:20",))
ENDS = Ends(1, "http://127.0.0.1:2", "sending", "asking")
WITHIN_S = 60


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Month:
    return simulated(tmp_path_factory.mktemp("month") / "world", TINY, 4, NOW)


# What is sent


def test_all_until_midnight_is_archive_and_all_of_today_is_called_in_order(month: Month) -> None:
    assert pc.max(month.archive["time"]).as_py() < MIDNIGHT
    assert month.today and month.archive.num_rows > 10 * len(month.today)
    assert pc.max(month.accounts["created_at"]).as_py() <= NOW


def test_accounts_have_the_names_that_the_proxys_log_will_have(month: Month) -> None:
    assert name_of("a") == hashed(secret_of("a"))
    names = set(month.accounts["account_id"].to_pylist())
    assert names == set(month.names)
    assert set(month.archive["account_id"].to_pylist()) <= names
    assert {name_of(c.account) for c in month.today} <= names
    (planted,) = month.planted.values()
    assert len(planted) == 20 and planted < names


def test_the_archive_is_sent_whole_and_without_nulls(month: Month) -> None:
    rows = b"".join(month.bodies()).splitlines()
    assert len(rows) == month.archive.num_rows
    assert b"null" not in lines(month.accounts)
    assert rows[0].startswith(b'{"exchange_id": "')


def test_a_call_has_the_fields_of_the_log_and_none_that_are_not_there(month: Month) -> None:
    bodies = [c.body() for c in month.today]
    assert all(set(b) <= {"model", "messages", "user", "max_tokens", "tools"} for b in bodies)
    assert all(v for b in bodies for v in b.values())
    assert [b["messages"][-1]["content"] for b in bodies] == [c.prompt for c in month.today]
    tooled = next(c for c in month.today if c.tools)
    assert [t["function"]["name"] for t in tooled.body()["tools"]] == list(tooled.tools)


def test_the_model_says_what_the_log_says_was_said(month: Month) -> None:
    call = next(c for c in month.today if c.response)
    with Model({call.prompt: call}) as model:
        url = f"http://127.0.0.1:{model.port}/v1/chat/completions"
        said = post_json(url, call.body()).json()
        other = post_json(url, story.QUESTION).json()
        assert model.asked == 2
    assert said["choices"][0]["message"]["content"] == call.response
    assert said["usage"]["prompt_tokens"] == call.input_tokens
    assert other["choices"][0]["message"]["content"] == ANSWER
    with pytest.raises(Transient, match="POST"):
        post_json(url, story.QUESTION)


# The proxy


def test_a_proxy_must_be_named_and_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM", raising=False)
    with pytest.raises(UsageError, match="no LiteLLM proxy was named"):
        command_of(None)
    monkeypatch.setenv("LITELLM", "/none/such")
    with pytest.raises(UsageError, match="'/none/such'"):
        command_of(None)
    assert command_of(Path(sys.executable)) == sys.executable
    assert cli.main(["gateway-demo"]) == 2


def test_the_proxy_is_told_of_no_database_and_its_tokens_are_its_owners_alone(tmp_path: Path) -> None:
    told = environment({"DATABASE_URL": "postgres://", "PATH": "/bin"}, ENDS)
    assert "DATABASE_URL" not in told and told["PATH"] == "/bin" and told["STILLWATCH_TOKEN"] == "asking"
    made = Proxy(sys.executable, tmp_path / "proxy", ENDS)
    with pytest.raises(Terminal, match="the LiteLLM proxy has ended with"):
        made.wait()
    assert stat.S_IMODE((tmp_path / "proxy").stat().st_mode) == 0o700
    config = (tmp_path / "proxy" / "config.yaml").read_text()
    assert "litellm_hook.stillwatch" in config and "guardrails" not in config


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UsageError, match="is there already"), running.folder_of(tmp_path):
        pass
    with running.folder_of(None) as passing:
        assert passing.is_dir()
    assert not passing.exists()


# Processes


def test_a_process_that_ends_by_itself_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("it", [sys.executable, "-c", "print('why'); exit(3)"], tmp_path / "log", tmp_path, os.environ)
    with pytest.raises(Terminal, match=r"it has ended with 3[\s\S]*why"):
        wait_for("never", lambda: False, WITHIN_S, child)
    assert child.stop() == 3
    with pytest.raises(Terminal, match="does not start"):
        Child("it", ["/none/such"], tmp_path / "log", tmp_path, os.environ)


def test_a_process_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.2)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )
    child = Child("it", [sys.executable, "-c", deaf], tmp_path / "log", tmp_path, os.environ)
    wait_for("deaf", lambda: "deaf" in child.log.read_text(), WITHIN_S, child)
    assert child.stop() == -signal.SIGKILL


def test_waiting_ends(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="in vain: the moon"):
        wait_for("the moon", lambda: False, 0.01)


# What is said


def test_steps_are_numbered_and_an_answer_is_shown_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    tell = Teller()
    tell.step("First")
    tell.step("Second " + "word " * 40)
    headers = {"retry-after": "10", "x-other": "hidden"}
    tell.got("acme", Answer(429, headers, b'{"error": {"message": "slowly"}}'))
    said = capsys.readouterr().out
    assert re.findall(r"^\[ +\d+ s\] +(\d)  (\w+)", said, re.MULTILINE) == [("1", "First"), ("2", "Second")]
    assert "acme gets  HTTP 429   retry-after: 10\n" in said and "hidden" not in said
    assert '{"error": {"message": "slowly"}}' in said
    assert max(map(len, said.splitlines())) <= WIDTH


def test_the_link_of_a_refusal_is_found_or_its_lack_is_told() -> None:
    refused = b'{"error": {"message": "Suspended. To appeal: https://w.example/appeals?case=A&proof=b"}}'
    assert story.link_of(Answer(403, {}, refused)) == "https://w.example/appeals?case=A&proof=b"
    with pytest.raises(Terminal, match="names no place to appeal"):
        story.link_of(Answer(403, {}, b'{"error": {"message": "Suspended."}}'))


def test_what_a_page_says_is_read_off_it_or_its_lack_is_told() -> None:
    page = Answer(200, {}, b"<h1>A &amp; b</h1><div class=told>\n<p>Your appeal <b>AP-1</b>\n was filed.</p></div>")
    assert story.found_in(page, "h1") == "A & b"
    assert story.appeal_on(page) == "Your appeal AP-1 was filed."
    for other in (b"<h1>A</h1>", b"<div>none</div>"):
        with pytest.raises(Terminal, match="the page"):
            story.appeal_on(Answer(200, {}, other))


# Ends

STAND_IN = """#!{python}
import http.server, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), http.server.BaseHTTPRequestHandler).serve_forever()
"""


def test_ctrl_c_ends_everything_and_leaves_nothing(tmp_path: Path) -> None:
    stand_in = tmp_path / "litellm"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o700)
    verb = [sys.executable, "-m", "stillwatch", "gateway-demo", "--quick", "--litellm", str(stand_in)]
    told = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(verb, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=told) as process:
        assert process.stdout and process.stderr
        urls = []
        for line in process.stdout:
            urls += re.findall(r"http://127\.0\.0\.1:\d+", line)
            if len(urls) == 2:
                break
        assert all(answers(urlsplit(u).port or 0) for u in urls), urls
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert said.startswith("stillwatch: interrupted")
    assert not [u for u in urls if answers(urlsplit(u).port or 0)]
    assert [p.name for p in tmp_path.iterdir()] == ["litellm"]
