"""The verbs of watermarks, from issue to a stranger's check, and what goes wrong in a sentence."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures_verbs import Run, runner
from stillwatch.audit import public_key, verify
from stillwatch.errors import UsageError
from stillwatch.protection.engine_keys import read_keys
from stillwatch.protection.keys import Kind


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner("watermark", capsys, monkeypatch)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    rng, file = np.random.default_rng(0), tmp_path / "tokens.jsonl"
    rows = [{"prompt_tokens": [1, 2], "tokens": rng.integers(0, 200, 40).tolist()} for _ in range(80)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return file


def issued(run: Run, home: Path, text: Path, campaign: str = "C-1", *more: object) -> dict[str, Any]:
    code, out, _ = run("issue", home, campaign, "--text", text, "--json", *more)
    assert code == 0
    return dict(json.loads(out))


def test_from_issue_to_a_strangers_check(run: Run, home: Path, text: Path, tmp_path: Path) -> None:
    key = issued(run, home, text)
    other = issued(run, home, text, "C-2", "--scheme", "gumbel", "--width", 4)
    assert (key["campaign_id"], key["scheme"]["kind"], other["scheme"]["kind"]) == ("C-1", "bernoulli", "gumbel")
    assert abs(key["vetted"]["z"]) <= 1
    for file in home.glob("keys/*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert verify(home / "watermarks", public_key(home / "watermarks")).is_sound

    code, out, _ = run("list", home)
    assert code == 0 and len(out.splitlines()) == 2 and "C-1 " in out and "in use" in out

    keys = tmp_path / "engine" / "keys.json"
    code, out, _ = run("export", home, "--out", keys, "--json")
    assert code == 0 and sorted(json.loads(out)) == sorted([key["key_id"], other["key_id"]])
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600 and "C-1" not in keys.read_text()
    held = read_keys(keys)
    assert held[key["key_id"]].commitment == key["commitment"] and held[other["key_id"]].scheme.kind is Kind.GUMBEL

    note, public = tmp_path / "commitments.txt", tmp_path / "key.pub"
    code, out, _ = run("publish", home, "--out", note, "--json")
    assert code == 0
    public.write_text(json.loads(out)["key"] + "\n")
    assert run("verify", note, "--key", public, "--home", home)[0] == 0

    secret = tmp_path / "key.hex"
    assert run("reveal", home, key["key_id"], "--reason", "court", "--out", secret)[0] == 0
    checked = ("verify", note, "--key", public, "--secret", secret, "--key-id")
    assert run(*checked, key["key_id"])[0] == 0
    code, out, _ = run(*checked, other["key_id"])
    assert code == 1 and "not the secret that was committed to" in out
    assert run("verify", note, "--key", public, "--home", home / "watermarks")[0] == 0, "a ledger only grows"


def test_rotation_and_retirement(run: Run, home: Path, text: Path, tmp_path: Path) -> None:
    first = issued(run, home, text)
    code, out, _ = run("rotate", home, "C-1", "--text", text, "--after", "5m", "--json")
    second = json.loads(out)
    assert code == 0 and second["epoch"] == first["epoch"] + ".2" and second["starts_at"] > first["starts_at"]
    assert "begins" in run("list", home)[1]
    assert run("retire", home, first["key_id"], "--reason", "over")[0] == 0
    told = [json.loads(line) for line in run("list", home, "--all", "--json")[1].splitlines()]
    assert [(k["key_id"], k["reason"]) for k in told] == [(first["key_id"], "over"), (second["key_id"], "")]
    assert first["key_id"] not in run("list", home)[1]
    code, _, err = run("retire", home, first["key_id"], "--reason", "again")
    assert code == 2 and "already" in err


def test_what_goes_wrong_is_said(run: Run, home: Path, text: Path, tmp_path: Path) -> None:
    issued(run, home, text)
    code, _, err = run("issue", home, "C-1", "--text", text)
    assert code == 2 and "has the key" in err and "rotate" in err
    code, _, err = run("issue", home, "C-2", "--text", text, "--width", 99)
    assert code == 2 and "1 to 16 tokens" in err
    short = tmp_path / "short.jsonl"
    short.write_text('{"tokens": [1, 2, 3]}\n')
    code, _, err = run("issue", home, "C-2", "--text", short)
    assert code == 2 and "distinct pairs" in err
    words = tmp_path / "words.jsonl"
    words.write_text('{"text": "hello"}\n')
    code, _, err = run("issue", home, "C-2", "--text", words)
    assert code == 2 and "--tokenizer" in err
    code, _, err = run("list", tmp_path / "nowhere")
    assert code == 2 and "no such folder" in err
    code, _, err = run("verify", text, "--key", home / "watermarks" / "key.pub", "--key-id", "ab")
    assert code == 2 and "both" in err
    code, out, _ = run("verify", text, "--key", home / "watermarks" / "key.pub", "--json")
    assert code == 1 and not json.loads(out)["sound"]


def test_a_damaged_ledger_and_a_changed_master_are_told(run: Run, home: Path, text: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    issued(run, home, text)
    assert run("publish", home, "--out", note)[0] == 0
    (home / "keys" / "watermark.key").write_text("another secret that is long enough too\n")
    code, _, err = run("export", home, "--out", tmp_path / "keys.json")
    assert code == 5 and "another key than was committed to" in err and not (tmp_path / "keys.json").exists()
    log = home / "watermarks" / "log.jsonl"
    log.write_text(log.read_text().replace("C-1", "C-7"))
    assert run("list", home)[0] == 5
    code, out, _ = run("verify", note, "--key", home / "watermarks" / "key.pub", "--home", home)
    assert code == 1 and "not those that were published" in out


@pytest.mark.protect
def test_text_is_given_its_tokens_by_the_served_models_tokenizer(run: Run, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{n}": n for n in range(200)} | {"?": 200}
    made = Tokenizer(models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?").save_pretrained(tmp_path / "model")
    rng, file = np.random.default_rng(0), tmp_path / "answers.txt"
    lines = (" ".join(f"w{n}" for n in rng.integers(0, 200, 40)) for _ in range(80))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = issued(run, home, file, "C-1", "--tokenizer", tmp_path / "model")
    assert 2900 < told["vetted"]["pairs"] <= 80 * 39
    code, _, err = run("issue", home, "C-2", "--text", file, "--tokenizer", home)
    assert code == 2 and "no tokenizer" in err


def test_a_file_of_keys_is_read_whole_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for told in (
        "{}",
        "[]",
        '{"format": 2, "keys": {}}',
        '{"format": 1, "keys": {"a": {"secret": "00", "scheme": {}}}}',
    ):
        file.write_text(told)
        file.chmod(0o600)
        with pytest.raises(UsageError, match="no file of keys"):
            read_keys(file)
    file.chmod(0o644)
    with pytest.raises(UsageError, match="others may read"):
        read_keys(file)
