"""stillwatch prove, from a home with keys to a signed report, as a person gives it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures_proof import MASTER, leaning_to, reference, sequences, source, student, tokens_file, written
from stillwatch import cli
from stillwatch.audit import verify
from stillwatch.entries import entries
from stillwatch.notes import load_signer
from stillwatch.protection.book import LEDGER_VARIABLE, MASTER_VARIABLE, Book
from stillwatch.protection.keys import Key, Scheme
from stillwatch.protection.registration import EVENT, MADE, unsealed
from stillwatch.protection.vetting import Vetting
from stillwatch.secret import write_new
from stillwatch.serving.home import Home

pytestmark = pytest.mark.protect
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Key]]:
    """A home in which four campaigns have a key."""
    home = Home(tmp_path_factory.mktemp("home"))
    write_new(home.watermark_key, MASTER.reveal(), MASTER_VARIABLE)
    vetting = Vetting(sequences(written(source(), 200, 50)))
    with Book(home.watermarks, load_signer(home.watermark_ledger_key, LEDGER_VARIABLE)) as book:
        issued = [book.issue(f"C-{i}", Scheme(), vetting, MASTER, "ann", epoch="2026-11") for i in range(4)]
    return home.folder, issued


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, list[Key]]) -> Path:
    made = tmp_path_factory.mktemp("suspects")
    guilty = keys[1][2]
    for name, model in (("own", reference()), ("guilty", student(1.0, guilty)), ("clean", student(0.0))):
        model.save_pretrained(made / name)
    tokens_file(made / "served.jsonl", written(leaning_to(source(), guilty), 500, 51))
    with (made / "served.jsonl").open("a") as file:
        file.write("nonsense\n")
    return made


def register(folder: Path, home: Path, out: Path, suspect: str, *more: str) -> int:
    return cli.main(
        ["prove", "register", str(folder / suspect), "--home", str(home), "--served", str(folder / "served.jsonl"),
         "--reference", str(folder / "own"), "--out", str(out / "r.json"), "--seed", "7", "--quiet", *more]
    )  # fmt: skip


def prove(folder: Path, home: Path, out: Path, suspect: str, *more: str) -> int:
    return cli.main(
        ["prove", str(folder / suspect), "--registration", str(out / "r.json"), "--home", str(home),
         "--out", str(out / "proof"), "--quiet", *more]
    )  # fmt: skip


def test_a_guilty_suspect_from_registration_to_report(
    folder: Path, keys: tuple[Path, list[Key]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, issued = keys
    assert register(folder, home, tmp_path, "guilty") == 0
    told = capsys.readouterr()
    assert "4 hypotheses" in told.out and "chance to fire" in told.out and "not JSON (1 row)" in told.err
    assert prove(folder, home, tmp_path, "guilty") == 1
    told = capsys.readouterr()
    assert "Learnt from campaign C-2's outputs." in told.out and "proof.html" in told.out
    signer = load_signer(Home(home).watermark_ledger_key, LEDGER_VARIABLE)
    found = unsealed(tmp_path / "proof" / "proof.json", "proof", signer.verifier)
    assert found["suspects"][0]["firing_keys"] == [issued[2].key_id]
    assert found["files"][0]["left_out"] == [{"reason": "not JSON", "rows": 1, "first": "served.jsonl:501"}]
    html = (tmp_path / "proof" / "proof.html").read_text()
    assert "Learnt from campaign C-2" in html and "Re-posting" in html and 'class="fires"' in html
    assert not any(k.secret.hex() in html + json.dumps(found) for k in issued)
    assert str(folder) not in html + json.dumps(found), "where things lie here is nobody's business there"
    events = [e.deed.event for e in entries(Home(home).watermarks)]
    assert events.count(EVENT) == 1 and events.count(MADE) == 1
    assert verify(Home(home).watermarks, signer.verifier).is_sound


def test_an_innocent_suspect_is_inconclusive_and_never_clean(
    folder: Path, keys: tuple[Path, list[Key]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert register(folder, keys[0], tmp_path, "clean", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["registration"]["threshold"] == 1e-6 and len(made["registration"]["power"][0]["expected"]) == 5
    assert prove(folder, keys[0], tmp_path, "clean", "--json") == 0
    told = json.loads(capsys.readouterr().out)["proof"]["suspects"][0]
    assert told["verdict"] == "inconclusive" and "does not clear" in told["sentence"]
    assert register(folder, keys[0], tmp_path, "clean", "--json") == 0
    again = json.loads(capsys.readouterr().out)["registration"]
    assert again["threshold"] == pytest.approx(1e-6 / 4), "a second try is held to more"


def test_what_is_not_as_registered_is_refused(
    folder: Path, keys: tuple[Path, list[Key]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, issued = keys
    assert register(folder, home, tmp_path, "guilty", "--key", issued[2].key_id) == 0
    assert prove(folder, home, tmp_path, "clean") == 3
    assert "not the suspect that was registered" in capsys.readouterr().err
    text = (tmp_path / "r.json").read_text()
    (tmp_path / "r.json").write_text(text.replace('"seed": 7', '"seed": 8'))
    assert prove(folder, home, tmp_path, "guilty") == 3
    assert "not what was signed" in capsys.readouterr().err
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(("more", "said"), [
    (["--statistic", "pairs"], "statistics of weights are residual, argmax"),
    (["--licensed", "nonsense"], "is no licence"),
    (["--licensed", "nobody=all"], "licensed, but not tested"),
    (["--key", "nobody"], "no key 'nobody' was issued"),
])  # fmt: skip
def test_a_test_that_cannot_be_made_is_a_usage_error(
    folder: Path,
    keys: tuple[Path, list[Key]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert register(folder, keys[0], tmp_path, "guilty", *more) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "r.json").exists()


def test_a_home_without_keys_is_a_usage_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert register(folder, tmp_path, tmp_path, "guilty") == 2
    assert "no watermark key was issued there" in capsys.readouterr().err
    assert np.array([p.name for p in tmp_path.iterdir()]).size == 0
