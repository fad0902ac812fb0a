"""What deploy/ says is so: the unit as systemd itself reads it, and both files against the command, the package and the tree."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stillwatch.cli import app
from stillwatch.serving import server
from stillwatch.serving.settings import Settings

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "deploy" / "stillwatch.service"
CONTAINER = ROOT / "deploy" / "Containerfile"
ANALYZE = shutil.which("systemd-analyze")
with_systemd = pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze: apt-get install systemd")

EXPOSURE = 20
"""Of 100, the most that ``systemd-analyze security`` may say of the unit; it calls up to 20 OK."""


def instructions() -> list[tuple[str, str]]:
    """Instructions of the container file in order, continued lines joined, without comments."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", CONTAINER.read_text(), flags=re.MULTILINE))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line.strip()]


def all_of(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


def parses(tokens: list[str]) -> None:
    app.parse_args(tokens, exit_on_error=False, print_error=False)


def analyzed(*words: str) -> str:
    """What systemd-analyze says, with exit code 0."""
    done = subprocess.run([str(ANALYZE), *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@with_systemd
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert text.count("/opt/stillwatch/bin/stillwatch serve") == 2
    here = tmp_path / UNIT.name
    here.write_text(text.replace("/opt/stillwatch/bin/stillwatch", sys.executable))
    said = analyzed("verify", str(here))
    assert UNIT.name not in said, said
    here.write_text(here.read_text().replace("UMask=", "Umbrella="))
    assert (
        "Umbrella"
        in subprocess.run(
            [str(ANALYZE), "verify", str(here)], capture_output=True, text=True, check=False, timeout=60
        ).stderr
    )


@with_systemd
def test_the_unit_is_as_shut_in_as_systemd_calls_ok() -> None:
    analyzed("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(UNIT))


def test_the_commands_of_both_are_commands_of_ours() -> None:
    started = re.findall(r"^#?\s*ExecStart=(\S+) (.*)$", UNIT.read_text(), re.MULTILINE)
    assert len(started) == 2
    for program, words in started:
        assert program.endswith("/bin/stillwatch")
        parses(shlex.split(words))
    (entry,), (command,) = all_of("ENTRYPOINT"), all_of("CMD")
    assert json.loads(entry)[0].endswith("/bin/stillwatch")
    parses(json.loads(command))
    with pytest.raises(Exception, match="--hots"):
        parses([*json.loads(command)[:-2], "--hots", "::"])


def test_a_stop_is_given_the_time_that_it_takes() -> None:
    given = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert given and int(given[1]) >= 2 * Settings().stop_within_s
    assert "KillSignal=SIGTERM" in UNIT.read_text() and all_of("STOPSIGNAL") == ["SIGTERM"]


def test_the_container_is_made_of_what_is_there() -> None:
    copied = [p for rest in all_of("COPY") if not rest.startswith("--from") for p in rest.split()[:-1]]
    assert copied and not [p for p in copied if not (ROOT / p).exists()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = [rest for rest in all_of("RUN") if "pip install" in rest]
    extras = re.search(r"'\.\[([\w,]+)\]'", install)
    assert extras and set(extras[1].split(",")) <= set(project["optional-dependencies"])
    needed = {project["readme"], *project["license-files"], "pyproject.toml"}
    assert needed <= set(copied), "the package is not built without these"
    (warmed,) = [rest for rest in all_of("RUN") if " -c " in rest]
    assert "from stillwatch.serving.server import warm; warm()" in warmed and callable(server.warm)


def test_the_container_runs_as_nobody_special_and_keeps_its_home_in_a_volume() -> None:
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    (cache,) = {found for rest in all_of("ENV") for found in re.findall(r"NUMBA_CACHE_DIR=(\S+)", rest)}
    assert f"--from=build --chown=stillwatch:stillwatch {cache} {cache}" in all_of("COPY"), "numba would compile anew"
    (user,), (volume,), (command,) = all_of("USER"), all_of("VOLUME"), all_of("CMD")
    assert f"useradd --system --uid {Settings().port}" in " ".join(all_of("RUN")) and user == "stillwatch"
    assert json.loads(command)[1] == volume
    assert all_of("EXPOSE") == [str(Settings().port)]
    assert f"127.0.0.1:{Settings().port}/healthz" in " ".join(all_of("HEALTHCHECK"))
