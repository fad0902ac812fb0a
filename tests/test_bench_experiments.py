"""What the bench asks, and that it would notice: a row holds on figures as they should be, and fails on others."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.protect
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("scipy")

from tokenizers import Tokenizer  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from fixtures_bench import MICRO  # noqa: E402
from stillwatch import cli  # noqa: E402
from stillwatch.errors import InputRejected, UsageError  # noqa: E402
from stillwatch.protection import opened  # noqa: E402
from stillwatch.protection.bench import (  # noqa: E402
    accuracy,
    cost,
    experiments,
    identification,
    innocents,
    page,
    parts,
    removal,
    translated,
)  # fmt: skip
from stillwatch.protection.bench import corpus as corpus_  # noqa: E402
from stillwatch.protection.bench.attackers import Course  # noqa: E402
from stillwatch.protection.bench.corpus import Corpus  # noqa: E402
from stillwatch.protection.bench.learning import SMALL, Lab  # noqa: E402
from stillwatch.protection.bench.models import small  # noqa: E402
from stillwatch.protection.bench.reading import judged, of_weights  # noqa: E402
from stillwatch.protection.bench.rows import Over, Row, Table, uniform  # noqa: E402
from stillwatch.protection.keys import Scheme  # noqa: E402
from stillwatch.protection.opened import Opened  # noqa: E402

MICRO = replace(MICRO, pool=192)
MINUTES, USUAL_S = 8, 0.5
"""Of processor time that all of the small bench may take."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A lab of a few modules' texts."""
    texts = tuple((n, t) for n, f in islice(corpus_._sources(), 90) if (t := tuple(corpus_._docstrings(f))))
    made = Lab(MICRO, 1, tmp_path_factory.mktemp("kept"))
    made.__dict__["texts"] = Corpus(texts)
    return made


def quiet(share, what):
    assert 0 <= share < 1 and what


# Figures as they should be, about those of the first prototype.
GOOD = {
    "power": [
        {"share": s, "tokens": int(s * 1e5), "open": {"z": z, "log10_p": p}, "closed": {"z": z / 2, "log10_p": p / 3}}
        for s, z, p in ((1.0, 42, -393.0), (0.5, 26, -154.0), (0.1, 6.3, -9.9), (0.05, 3.4, -3.4), (0.01, 1.1, -0.9))
    ],
    "innocent": {n: {"z": 0.1, "log10_p": -0.3} for n in ("clean open", "clean closed", "other open", "other closed")},
    "null": [float(p) for p in np.log10((np.arange(500) + 0.5) / 500)],
    "hard": [{"residual": float(np.log10((i + 0.5) / 40)), "naive": -5.0 if i % 3 else -0.5} for i in range(40)],
    "identified": {"A": {"guilty": -300.0, "others": -0.5}, "B": {"guilty": -300.0, "others": 0.0}},
    "related": {"pairs": 2016, "adjusted_p": 0.7, "ours_same": 0, "theirs_same": 199, "tokens": 199},
}


def held(found):
    return {row.number: row.holds for row in experiments.rows(found, experiments.ASKED["full"])}


def test_all_nine_hold_on_good_figures():
    assert held([GOOD] * 5) == {str(n): True for n in range(1, 10)}


@pytest.mark.parametrize(
    ("number", "spoil"),
    [
        ("1", lambda f: f["power"][0]["open"].update(log10_p=-49.0)),
        ("2", lambda f: f["power"][2]["open"].update(log10_p=-3.9)),
        ("3", lambda f: f["power"][0]["closed"].update(log10_p=-19.0)),
        ("4", lambda f: f["power"][4]["open"].update(log10_p=-7.0)),
        ("4", lambda f: f["power"][3]["open"].update(log10_p=-0.1 * 1e3)),
        ("5", lambda f: f["innocent"]["other closed"].update(log10_p=-2.1)),
        ("6", lambda f: f.update(null=[p * 1.5 for p in f["null"]])),
        ("7", lambda f: [h.update(residual=-2.5) for h in f["hard"][:30]]),
        ("7", lambda f: [h.update(naive=-1.0) for h in f["hard"]]),
        ("8", lambda f: f["identified"]["B"].update(guilty=-5.0)),
        ("8", lambda f: f["identified"]["A"].update(others=-6.5)),
        ("9", lambda f: f["related"].update(ours_same=1)),
        ("9", lambda f: f["related"].update(adjusted_p=1e-4)),
    ],
)
def test_one_seed_that_is_not_as_asked_is_enough(number, spoil):
    bad = deepcopy(GOOD)
    spoil(bad)
    found = [GOOD, bad] if number != "7" else [bad]
    assert held(found)[number] is False


def test_related_keys_and_the_scheme_that_confuses_them():
    found = experiments.related(SimpleNamespace(size=SMALL, key=Lab(SMALL, 1).key))
    assert found["adjusted_p"] > 0.01 and found["ours_same"] == 0
    assert found["theirs_same"] == found["tokens"] == 199, "transformers' own"


def test_intervals_over_seeds():
    assert Over.of([-3.0]).text() == "-3.0"
    assert Over.of([-3.0, -1.0]).text() == "-2.0 (-3.0 to -1.0)"
    five = Over.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (five.mean, five.low, five.high) == pytest.approx((3.0, 3 - 1.9632, 3 + 1.9632), abs=1e-3)
    with pytest.raises(ValueError, match="no seed"):
        Over.of([])
    assert uniform([float(p) for p in np.log10((np.arange(99) + 0.5) / 99)]) > 0.99
    assert uniform([-2.0] * 30) < 1e-6


def permuted(lab):
    """The lab's own teacher with all token numbers changed: what it says is the same, told otherwise."""
    size, order = lab.size, np.random.default_rng(0).permutation(lab.size.vocabulary)
    told = json.loads(lab.vocabulary.backend_tokenizer.to_str())
    told["model"]["vocab"] = {t: int(order[n]) for t, n in told["model"]["vocab"].items()}
    for token in told["added_tokens"]:
        token["id"] = int(order[token["id"]])
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(told)), bos_token="<|end|>")
    model = small(size.vocabulary, layers=size.layers, width=size.width, heads=size.heads, context=size.length)
    weights = dict(lab.teacher.state_dict())
    for name in ("transformer.wte.weight", "lm_head.weight"):
        moved = torch.empty_like(weights[name])
        moved[torch.from_numpy(order)] = weights[name]
        weights[name] = moved
    model.load_state_dict(weights)
    return Opened(model.eval(), words)


def test_alignment_finds_a_suspect_whose_tokens_have_other_numbers_to_be_the_same_model(lab):
    served = lab.sequences(lab.held_out[:40])
    other = permuted(lab)
    assert not opened.same_vocabulary(other.tokenizer, lab.vocabulary)
    found, aligned = opened.of_translated(other, Opened(lab.teacher, lab.vocabulary), served, 1)
    assert aligned.read > 0.9 * aligned.positions > 500
    unaligned = opened.of_models(other.model, lab.teacher, served, 1)
    sums = [float(d.value @ d.value) for d in (found, unaligned)]
    assert sums[0] < 1e-4 * sums[1], "by number they are strangers"


def test_a_verdict_asks_both_halves(lab):
    key, other = lab.key("A", Scheme(delta=6.0)), lab.key("B")
    answers = lab.answers(key)
    marked = lab.later(lab.base, answers, 12, "hard")
    halves = [of_weights(lab, marked, answers[h::2]) for h in (0, 1)]
    assert judged(halves, [key, other]).campaigns == ("A",)
    nothing = of_weights(lab, lab.base, answers[1::2])
    assert judged([halves[0], nothing], [key, other]).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("module", "asked"),
    [
        (innocents, innocents.Asked(2)),
        (identification, identification.Asked(3, 8, Scheme())),
        (translated, translated.Asked(16, 280, 0.0)),
        (removal, removal.Asked(16, False)),
        (cost, cost.Asked(4, 1, (1, 32))),
        (accuracy, accuracy.Asked(("sums",), 60, 20, Course(4, 1))),
    ],
)
def test_every_part_gives_json_rows_and_tables(lab, module, asked, monkeypatch):
    if module is innocents:
        monkeypatch.setattr(innocents, "PROBE", 8)
    found = json.loads(json.dumps(module.measure(lab, asked, quiet)))
    assert found == json.loads(json.dumps(module.measure(lab, asked, quiet))) or module is cost
    rows, tables = module.rows([found], asked), list(module.tables([found]))
    assert rows and all(r.got and r.asked for r in rows)
    for table in tables:
        assert table.lines and all(len(line) == len(table.head) for line in table.lines)


def fake(calls):
    """A part that measures at once, and says how often it did."""

    def measure(lab, asked, tell):
        tell(0.5, "half of it")
        calls.append(lab.seed)
        return {"got": lab.seed}

    return SimpleNamespace(
        ASKED={"small": experiments.ASKED["small"]},
        measure=measure,
        rows=lambda found, asked: [Row("F", "seeds", "all", str([f["got"] for f in found]), len(found) < 3)],
        tables=lambda found: [Table("Seeds", ("seed",), tuple((str(f["got"]),) for f in found), "a note")],
    )


@pytest.fixture
def faked(monkeypatch):
    calls, corpus = [], SimpleNamespace(digest="d")
    monkeypatch.setitem(parts.PARTS, "cost", replace(parts.PARTS["cost"], module=fake(calls)))
    monkeypatch.setattr(Lab, "texts", corpus)
    return calls


def test_a_run_goes_on_where_it_was(tmp_path, faked):
    said = []
    assert parts.run(tmp_path, ["cost"], 2, "small", said.append)["cost"][0].got == "[1, 2]"
    assert parts.run(tmp_path, ["cost"], 3, "small", said.append)["cost"][0].holds is False
    assert parts.run(tmp_path, ["cost"], 1, "small", said.append)["cost"][0].got == "[1]"
    assert faked == [1, 2, 3]
    assert "left" in " ".join(said) and "seed 2" in " ".join(said)
    kept = json.loads((tmp_path / "cost.json").read_text())
    assert sorted(kept["seeds"]) == ["1", "2", "3"] and kept["rows"][0]["number"] == "F"
    with pytest.raises(UsageError, match="measured at size small"):
        parts.run(tmp_path, ["cost"], 1, "full", said.append)
    (tmp_path / "cost.json").write_text('{"half')
    with pytest.raises(InputRejected, match="no file of the bench"):
        parts.run(tmp_path, ["cost"], 1, "small", said.append)


@pytest.mark.parametrize(
    ("names", "seeds", "size", "said"),
    [(["x"], 1, "small", "no part"), (["cost"], 0, "small", "seed"), (["cost"], 1, "x", "size")],
)
def test_what_cannot_be_run_is_refused(tmp_path, names, seeds, size, said):
    with pytest.raises(UsageError, match=said):
        parts.run(tmp_path / "out", names, seeds, size, print)
    assert not (tmp_path / "out").exists()


def test_the_verb_says_what_fails_and_writes_the_page(tmp_path, faked, capsys):
    out = str(tmp_path)
    assert cli.main(["bench", "protect", "--out", out, "--part", "cost", "--size", "small", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("holds  F  seeds: [1]") and str(tmp_path / page.PAGE) in told
    assert "| F | seeds | all | [1] | yes |" in (tmp_path / page.PAGE).read_text()
    again = ["bench", "protect", "--out", out, "--part", "cost", "--size", "small", "--seeds", "3", "--json", "--quiet"]
    assert cli.main(again) == 1
    assert json.loads(capsys.readouterr().out)["cost"][0]["holds"] is False
    assert "**no**" in (tmp_path / page.PAGE).read_text()


def test_the_picture_is_an_svg_with_every_share_and_both_lines():
    root = ET.fromstring(page.picture([GOOD, GOOD]))
    told = "".join(root.itertext())
    assert all(f"{s:.0%}" in told for s in experiments.SHARES)
    assert "open weights" in told and "its text" in told
    heights = [float(c.get("cy")) for c in root.iter() if c.tag.endswith("circle")][:5]
    assert heights == sorted(heights, reverse=True), "more of it stands higher"


BY_CHANCE = "5"
"""The row that fails in 4 of 100 runs by chance, as it says itself: which seed does hangs on the processor, since models that are
trained on another differ. An innocent accused in earnest is accused under every seed."""


def of_another_seed(folder):
    """The experiments once more, with other texts, models and keys."""
    asked = experiments.ASKED["small"]
    return experiments.rows([experiments.measure(Lab(SMALL, 2, folder / "again"), asked, quiet)], asked)


@pytest.mark.slow
def test_all_of_the_small_bench_holds(tmp_path):
    """What CI runs: thresholds are in the parts' ``ASKED``; all of it in eight minutes of processor time."""
    began = time.process_time()
    found = parts.run(tmp_path, parts.NAMES, 1, "small", print)
    spent = time.process_time() - began
    told = page.write(tmp_path, "small").read_text()
    failing = [row for rows in found.values() for row in rows if not row.holds]
    if [row.number for row in failing] == [BY_CHANCE]:
        failing = [row for row in of_another_seed(tmp_path) if row.number == BY_CHANCE and not row.holds]
    assert not failing, told
    assert set(found) == set(parts.NAMES) and "Students (DE)" in told and (tmp_path / page.PICTURE).exists()
    assert spent < MINUTES * 60 * slowness(), f"{spent:.0f} s, at a slowness of {slowness():.2f}"


def slowness() -> float:
    """How many times longer than usual this machine takes for a fixed loop, 1 at least: a shared core may take twice as long."""
    began, total = time.process_time(), 0
    for i in range(5_000_000):
        total += i
    return max(1.0, (time.process_time() - began) / USUAL_S)
