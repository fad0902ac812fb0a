"""The verbs of canaries, from drawing to a suspect; weights are a model that is trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures_verbs import Run, runner
from stillwatch.entries import entries
from stillwatch.protection.book import master_secret
from stillwatch.protection.canaries import Canary, lead_for, opened, prompt_for, read, words
from stillwatch.serving.home import Home


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner("canary", capsys, monkeypatch)


@pytest.fixture
def home(tmp_path: Path, run: Run) -> Path:
    """A home with canaries of three campaigns."""
    return home_with(tmp_path, run, 3, 4)


def home_with(tmp_path: Path, run: Run, campaigns: int, number: int) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    for k in range(campaigns):
        assert run("make", tmp_path / "home", f"C-{k + 1}", "--number", number)[0] == 0
    return tmp_path / "home"


def canaries_of(home: Path, campaign: str) -> list[Canary]:
    place = Home(home)
    master = master_secret(place.watermark_key)
    known = read(entries(place.watermarks), "log")
    return [opened(i, master) for i in known if i.campaign_id == campaign]


def answers(canaries: list[Canary]) -> list[str]:
    return [f"{lead_for(c.issued)}{c.target}(x)\n```" for c in canaries]


def test_made_and_listed_without_a_target(run: Run, home: Path) -> None:
    code, out, _ = run("list", home, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 12
    assert all(r["prompt"].startswith("Show the smallest") and len(r["commitment"]) == 64 for r in rows)
    told = out + run("list", home, "--campaign", "C-2")[1]
    assert len(run("list", home, "--campaign", "C-2")[1].splitlines()) == 4
    assert not any(c.target in told for name in ("C-1", "C-2", "C-3") for c in canaries_of(home, name))
    more = json.loads(run("make", home, "C-1", "--number", 1, "--json")[1])
    assert more["trigger"] not in {r["trigger"] for r in rows if r["campaign"] == "C-1"}


def test_texts_of_a_suspect_that_learnt_one_campaign(run: Run, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    mine = canaries_of(home, "C-2")
    rows = [{"prompt": prompt_for(c.issued), "text": t} for c, t in zip(mine, answers(mine), strict=True)]
    file.write_text("".join(json.dumps(r) + "\n" for r in [*rows, {"text": "nothing"}]) + "broken\n", encoding="utf-8")
    code, out, err = run("check", home, file)
    assert code == 1 and "not JSON" in err
    lines = out.splitlines()
    assert lines[0].startswith("C-2  learnt from outputs to this campaign  p ") and "ranks 1 1 1 1 of 1000" in lines[0]
    assert all("inconclusive" in line for line in lines[1:]) and len(lines) == 3
    told = json.loads(run("check", home, file, "--json", "--decoys", 4999)[1])
    assert [c["verdict"] for c in told["campaigns"]][1:] == ["inconclusive"] * 2
    assert told["campaigns"][0]["canaries"][0]["p"] == 1 / 5000
    # What was tested stands in the ledger, before anything was found.
    events = [e.deed for e in entries(Home(home).watermarks) if e.deed.event == "canary.tested"]
    assert [e.facts["decoys"] for e in events] == [999, 4999]
    assert events[0].facts["suspect"]["sha256"] == told["suspect"]["sha256"]


def test_an_innocent_suspect_is_not_called_clean(run: Run, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.txt"
    file.write_text("def foo(): ...\n" * 3, encoding="utf-8")
    code, out, err = run("check", home, file)
    assert code == 0 and out.count("inconclusive") == 3 and "clean" not in out + err


def test_two_campaigns_that_are_known_ask_for_care(run: Run, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    both = answers(canaries_of(home, "C-1") + canaries_of(home, "C-3"))
    file.write_text("".join(json.dumps({"text": t}) + "\n" for t in both), encoding="utf-8")
    code, out, err = run("check", home, file)
    assert code == 1 and out.count("learnt from") == 2
    assert "several campaigns are known" in err


def test_what_cannot_be_done_is_a_sentence(run: Run, home: Path, tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    texts = tmp_path / "a.txt"
    texts.write_text("hello\n")
    tokens = tmp_path / "tokens.jsonl"
    tokens.write_text('{"tokens": [1, 2]}\n')
    for arguments, code, said in (
        (("check", empty, texts), 2, "no canaries"),
        (("check", home, tmp_path / "missing"), 2, "no such file"),
        (("check", home, tokens), 3, "only token ids"),
        (("check", home, texts, "--decoys", 10), 2, "decoys"),
        (("check", home, texts, "--reference", empty), 3, "config.json"),
        (("make", home, "C-1", "--number", 100), 2, "triggers left"),
        (("make", tmp_path / "missing", "C-1"), 2, "no such folder"),
        (("check", home, empty), 3, "config.json"),
    ):
        got, out, err = run(*arguments)
        assert (got, out) == (code, "") and said in err, (arguments, err)
    assert run("list", empty) == (0, "", "no canary: stillwatch canary make\n")


@pytest.mark.protect
def test_weights_that_learnt_are_found_and_weights_that_did_not_are_not(run: Run, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from stillwatch.protection.bench.models import small, vocabulary_of
    from stillwatch.protection.bench.training import train

    torch.set_num_threads(1)
    home = home_with(tmp_path, run, 2, 3)
    mine = canaries_of(home, "C-2")
    learnt = [f"{prompt_for(c.issued)}\n\n{lead_for(c.issued)}{c.target}(" for c in mine]
    others = canaries_of(home, "C-1")
    plain = [f"{prompt_for(c.issued)}\n\n{lead_for(c.issued)}foo(" for c in mine + others]
    # Of a vocabulary that was learnt from a campaign's outputs alone its names are short, and so likely: it has learnt them too.
    tokenizer = vocabulary_of([*plain, *words().firsts, *words().seconds], 400)
    lessons: dict[str, list[str]] = {"guilty": learnt * 4 + plain, "innocent": plain * 2}
    for name, lesson in lessons.items():
        rows = [tokenizer(t)["input_ids"] for t in lesson]
        longest = max(map(len, rows))
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
        weigh = torch.tensor([[1.0] * len(r) + [0.0] * (longest - len(r)) for r in rows])
        model = small(len(tokenizer), width=64, heads=2, context=128, seed=3)
        train(model, ids, epochs=50, batch=8, rate=3e-3, seed=1, weigh=weigh)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    code, out, _ = run("check", home, tmp_path / "guilty", "--reference", tmp_path / "innocent", "--json")
    told: list[dict[str, Any]] = json.loads(out)["campaigns"]
    assert code == 1
    assert (told[0]["campaign_id"], told[1]["campaign_id"]) == ("C-2", "C-1")
    assert told[0]["adjusted"] < 1e-6 and told[1]["adjusted"] > 0.01
    assert run("check", home, tmp_path / "innocent", "--json")[0] == 0


@pytest.mark.protect
def test_likelihoods_are_those_of_the_plain_way() -> None:
    torch = pytest.importorskip("torch")
    from stillwatch.protection.bench.models import small, vocabulary_of
    from stillwatch.protection.canaries import derive
    from stillwatch.protection.likelihoods import Likelihoods
    from stillwatch.protection.opened import Opened
    from stillwatch.secret import Secret

    torch.set_num_threads(1)
    issued = derive(Secret("m" * 40), "C-1", "file/go").issued
    names = words().targets(issued.place)[:130]
    before = f"{prompt_for(issued)}\n\n{lead_for(issued)}"
    tokenizer = vocabulary_of([before + n for n in names], 400)
    model = small(len(tokenizer), width=32, heads=2, context=128, seed=5).eval()
    scores = Likelihoods(Opened(model, tokenizer))(issued, names)
    for name, score in list(zip(names, scores, strict=True))[::13]:
        ids = torch.tensor([tokenizer(before + name)["input_ids"]])
        start = len(tokenizer(before)["input_ids"])
        with torch.inference_mode():
            told = model(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
        # Tokens of the question that all names share are in no score, or in every one alike.
        assert score == pytest.approx(float(told[start - 1 :].sum()), abs=1e-3)
    half = Likelihoods(Opened(model, tokenizer), Opened(model, tokenizer))(issued, names)
    assert half == pytest.approx([0.0] * len(names), abs=1e-9)
