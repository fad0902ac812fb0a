"""A real server in a process of its own: traffic in, a question, figures, a clean end; and what doctor says of its home."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from stillwatch import cli
from stillwatch.audit import public_key, verify
from stillwatch.serving.access import Access, Role
from stillwatch.serving.doctor import Check, examine
from stillwatch.serving.home import Home
from stillwatch.serving.office import open_office
from stillwatch.serving.server import Tls, is_exposed, listen
from stillwatch.serving.settings import Settings
from stillwatch.store.state import State

WITHIN_S = 60
POLICY = '[[rules]]\nname = "watch"\nrung = "observe"\nlasts = "30d"\n'


@dataclass
class Running:
    """A server process, its address, and the lines it has logged."""

    process: subprocess.Popen[str]
    home: Path
    url: str
    lines: list[dict[str, Any]]

    def token(self, role: Role) -> dict[str, str]:
        """A token that the server makes: it alone holds the audit."""
        with open_office(Home(self.home), None, "test") as office:
            issued = office.issue(f"t-{role}", role, timedelta(days=1))
        return {"authorization": f"Bearer {issued.secret.reveal()}"}

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=WITHIN_S)
        self.lines += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode


def started(home: Path, *options: str) -> Running:
    command = [sys.executable, "-m", "stillwatch", "serve", str(home), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1]["what"] == "Application startup complete.":
            break
    listening = [told for told in lines if told["what"] == "listening"]
    assert listening, f"did not start: {lines}, {process.poll()}"
    scheme = "https" if listening[0]["tls"] else "http"
    return Running(process, home, f"{scheme}://127.0.0.1:{listening[0]['port']}", lines)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "3"}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_libraries_under_numpy_have_one_thread_unless_somebody_wants_more(folder: Path, given: dict[str, str]) -> None:
    """Seen in the judge, which inherits what the server has set: by the installed command, as a service runs it."""
    command = [str(Path(sys.executable).parent / "stillwatch"), "serve", str(folder / "home"), "--port", "0"]
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
    clean = {n: v for n, v in os.environ.items() if n not in names}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean | given) as process:
        assert process.stderr is not None
        until = time.monotonic() + WITHIN_S
        try:
            while not (found := children(process.pid)):
                assert time.monotonic() < until
                time.sleep(0.02)
            told = Path(f"/proc/{found[0]}/environ").read_text().split("\0")
        finally:
            process.kill()
    held = {n: v for n, _, v in (line.partition("=") for line in told) if n in names}
    assert held == (given or {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})


def children(pid: int) -> list[int]:
    """Processes of ours that run a judge for this one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(p) for p in (task / "children").read_text().split()]
    return [p for p in found if b"judge" in Path(f"/proc/{p}/cmdline").read_bytes()]


def test_nothing_that_reads_how_many_threads_there_are_is_loaded_before_serve_sets_it() -> None:
    code = "import sys, stillwatch.__main__, stillwatch.cli, stillwatch.cli_serving; print('numpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False"


def body(count: int = 5) -> bytes:
    at = datetime.now(UTC) - timedelta(hours=3)
    rows = [
        {"exchange_id": f"e{i}", "time": (at + timedelta(seconds=i)).isoformat(), "account_id": "a", "model": "m",
         "prompt": f"canary-4711 {i}"}
        for i in range(count)
    ]  # fmt: skip
    return json.dumps(rows).encode()


def test_a_server_takes_in_answers_and_ends_cleanly(folder: Path) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "serve.toml").write_text('loop_every_s = 0.1\n[judge]\ninterval = "1s"\n')
    server = started(folder / "home")
    try:
        ingest, gateway, metrics, admin = (
            server.token(r) for r in (Role.INGEST, Role.GATEWAY, Role.METRICS, Role.ADMIN)
        )
        with httpx.Client(base_url=server.url, timeout=WITHIN_S) as client:
            taken = client.post(
                "/ingest/exchanges", content=body(), headers=ingest | {"content-type": "application/json"}
            )
            assert (taken.status_code, taken.json()["kept"]) == (200, 5)
            assert client.get("/v1/in-force?account=a", headers=gateway).json()["rung"] is None
            assert client.get("/readyz").status_code == 200
            assert 'stillwatch_ingest_rows_total{source="exchanges"} 5' in client.get("/metrics", headers=metrics).text
            client.post("/api/judge-now", headers=admin).raise_for_status()
            until = time.monotonic() + WITHIN_S
            while client.get("/api/campaigns", headers=admin).json()["judged"] is None:
                assert time.monotonic() < until, (server.home / "judging.json").read_text()
                time.sleep(0.1)
        second = subprocess.run(
            [sys.executable, "-m", "stillwatch", "serve", str(server.home), "--port", "0"],
            capture_output=True, text=True, check=False, timeout=WITHIN_S,
        )  # fmt: skip
        assert second.returncode == 5
        assert "another server has this home" in second.stderr
        found = {c.name: c for c in examine(Home(server.home))}
        assert found["judge"].level == "ok", found["judge"]
    finally:
        code = server.end()
    assert code == 0, server.lines
    assert [told["what"] for told in server.lines][-1] == "stopped"
    assert not any("canary" in json.dumps(told) or "sw_" in json.dumps(told) for told in server.lines)
    assert not Home(server.home).is_held()
    assert json.loads((server.home / "judging.json").read_text())["pid"] is None
    assert not any(b"canary-4711" in p.read_bytes() for p in server.home.rglob("*") if p.is_file())
    assert verify(server.home / "audit", public_key(server.home / "audit")).is_sound
    loose = [p for p in server.home.rglob("*") if p.stat().st_mode & 0o007 and p.name != "serve.toml"]
    assert not loose


def test_tls_and_a_stop_with_a_request_under_way(folder: Path) -> None:
    cert, key = folder / "cert.pem", folder / "key.pem"
    own_certificate(cert, key)
    (folder / "home").mkdir()
    server = started(folder / "home", "--tls-cert", str(cert), "--tls-key", str(key), "--host", "127.0.0.1")
    ingest = server.token(Role.INGEST)

    def slowly() -> Iterator[bytes]:
        whole = body()
        yield whole[:10]
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        yield whole[10:]

    with httpx.Client(base_url=server.url, timeout=WITHIN_S, verify=False) as client:
        taken = client.post(
            "/ingest/exchanges", content=slowly(), headers=ingest | {"content-type": "application/json"}
        )
    assert taken.json()["kept"] == 5
    _, rest = server.process.communicate(timeout=WITHIN_S)
    assert server.process.returncode == 0, rest


def own_certificate(cert: Path, key: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(secret.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    cert.write_bytes(made.sign(secret, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, *form))


# Starting


def test_what_keeps_a_server_from_starting_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "home").mkdir()
    (folder / "bad.toml").write_text("port = 'high'")
    for options, code, said in (
        (["--tls-cert", "c.pem"], 2, "--tls-cert and --tls-key go together"),
        (["--config", str(folder / "bad.toml")], 2, "port must be int, not str"),
        (["--config", str(folder / "gone.toml")], 2, "cannot be read as TOML"),
        (["--port", "70000"], 2, "port must be at most 65535"),
    ):
        assert cli.main(["serve", str(folder / "home"), *options]) == code
        assert said in capsys.readouterr().err


def test_a_port_that_is_taken_may_be_free_later() -> None:
    with listen(Settings(port=0)) as door, pytest.raises(Exception, match="cannot listen") as told:
        listen(Settings(port=door.getsockname()[1]))
    assert type(told.value).__name__ == "Transient"
    with pytest.raises(Exception, match="cannot listen"):
        listen(Settings(host="203.0.113.7", port=0))


def test_small_answers_are_sent_at_once() -> None:
    # Without the protocol's name asyncio leaves Nagle's algorithm on, and a question takes 40 ms and more.
    with listen(Settings(port=0)) as door:
        assert door.proto == socket.IPPROTO_TCP


def test_tokens_in_the_clear_are_noticed(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "c", tmp_path / "k")
    assert is_exposed(Settings(host="0.0.0.0"), None)
    assert not is_exposed(Settings(host="0.0.0.0"), tls)
    assert not is_exposed(Settings(), None)
    with pytest.raises(Exception, match="no usable certificate"):
        tls.context()


# Doctor


@pytest.fixture
def home(folder: Path) -> Home:
    """A home that a server has been in, with all there should be."""
    from stillwatch.serving.services import opened

    made = Home(folder / "home").made()
    made.policy.write_text(POLICY)
    made.settings.write_text("port = 0\n")
    before = os.umask(0o077)
    try:
        with opened(made, Settings(port=0), judge=False) as services:
            for role in Role:
                services.door.do_now(Access.issue, f"t-{role}", role, "test")
            services.audit.append("test", "ann", "admin", "x", {})
    finally:
        os.umask(before)
    return made


def levels(home: Home) -> dict[str, Check]:
    found: dict[str, Check] = {}
    for check in examine(home):
        if check.name not in found or check.level != "ok":
            found[check.name] = check
    return found


def test_a_home_that_is_well(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    found = levels(home)
    assert {n: c.level for n, c in found.items() if c.level != "ok"} == {"judge": "warn"}
    assert cli.main(["doctor", str(home.folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {t["check"] for t in told} == set(found)
    assert cli.main(["doctor", str(home.folder)]) == 0
    assert "ok    audit       9 entries, sound" in capsys.readouterr().out


def break_state(home: Home) -> None:
    content = bytearray(home.state.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    home.state.write_bytes(content)


def break_audit(home: Home) -> None:
    log = home.audit / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"ann"', b'"bob"'))


def end_tokens(home: Home) -> None:
    with State(home.state) as state:
        state.execute("UPDATE tokens SET revoked_at = '2026-01-01T00:00:00+00:00'")


def near_end(home: Home) -> None:
    with State(home.state) as state:
        soon = (datetime.now(UTC) + timedelta(days=2)).isoformat()
        state.execute("UPDATE tokens SET expires_at = ? WHERE role = 'gateway'", soon)


def failed_judge(home: Home) -> None:
    from stillwatch.serving.judging import Status

    told = Status("failed", error="the state is damaged", hint="begin afresh").plain()
    (home.folder / "judging.json").write_text(json.dumps(told))


def turn_back(home: Home) -> None:
    ahead = time.time() + 3600
    os.utime(home.state, (ahead, ahead))


@pytest.mark.parametrize(
    ("harm", "name", "level", "said"),
    [
        (break_state, "state", "fail", "damaged"),
        (break_audit, "audit", "fail", "its hash does not fit"),
        (end_tokens, "tokens", "warn", "none holds"),
        (near_end, "tokens", "warn", "t-gateway"),
        (failed_judge, "judge", "fail", "the state is damaged"),
        (turn_back, "clock", "fail", "behind what was written"),
        (lambda h: h.privacy_key.chmod(0o644), "key", "fail", "others may read"),
        (lambda h: h.privacy_key.unlink(), "key", "fail", "is not there"),
        (lambda h: h.audit_key.unlink(), "audit", "fail", "the key that signs the audit"),
        (lambda h: h.policy.write_text("[[rules]]"), "policy", "fail", "policy.toml"),
        (lambda h: h.policy.unlink(), "policy", "warn", "stands in shadow"),
        (lambda h: h.settings.write_text("prot = 1"), "settings", "fail", "unknown setting 'prot'"),
        (lambda h: h.settings.write_text(f"disk_free_bytes = {2**62}"), "disk", "fail", "bytes are free"),
        (lambda h: h.in_force.write_text("{}"), "in force", "fail", "is no file of ours"),
        (lambda h: h.folder.chmod(0o755), "permissions", "warn", "others may look into"),
        (lambda h: h.spool.write_bytes(b"x" * 9000), "spool", "fail", "damaged"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_home_is_found(home: Home, harm: Any, name: str, level: str, said: str) -> None:
    harm(home)
    check = levels(home)[name]
    assert (check.level, said in check.said) == (level, True), check
    assert check.hint
    assert (cli.main(["doctor", str(home.folder)]) == 1) == any(c.level == "fail" for c in examine(home))


def test_a_port_that_somebody_else_has_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillwatch.serving.doctor.ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as door:
        home.settings.write_text(f"port = {door.getsockname()[1]}")
        assert levels(home)["port"].level == "fail"
        with home.held():
            assert levels(home)["port"].level == "warn"


def test_of_a_long_audit_the_end_is_looked_at(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from stillwatch.serving import doctor

    monkeypatch.setattr(doctor, "WHOLE_BYTES", 0)
    assert levels(home)["audit"].said.startswith("the last 9 entries are sound, 9 are signed")
    break_audit(home)
    assert levels(home)["audit"].level == "fail"


def test_a_doctor_needs_a_home(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["doctor", str(tmp_path / "gone")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
