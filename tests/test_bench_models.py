"""The small models of the bench: made, trained, sampled and kept as they say."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

pytestmark = pytest.mark.protect
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("scipy")

from fixtures_bench import MICRO  # noqa: E402
from stillwatch.errors import Terminal, UsageError  # noqa: E402
from stillwatch.protection import outcomes  # noqa: E402
from stillwatch.protection.bench import corpus as corpus_  # noqa: E402
from stillwatch.protection.bench.corpus import Corpus, cleaned, corpus, rows  # noqa: E402
from stillwatch.protection.bench.learning import Lab, Size  # noqa: E402
from stillwatch.protection.bench.models import END, small, vocabulary_of  # noqa: E402
from stillwatch.protection.bench.training import generate, nll, rewritten, train  # noqa: E402
from stillwatch.protection.keys import Kind, Scheme, derive  # noqa: E402
from stillwatch.protection.samplers import is_fresh  # noqa: E402
from stillwatch.protection.sequences import Sequences, pairs_of  # noqa: E402
from stillwatch.secret import Secret  # noqa: E402

MASTER = Secret("a master secret for tests of the bench alone")


def model(seed=0, vocabulary=50):
    return small(vocabulary, layers=1, width=32, heads=2, context=32, seed=seed)


def counting(rows, length=24, vocabulary=50):
    """Each row counts upwards from a drawn number: what comes next is sure."""
    first = torch.randint(0, vocabulary, (rows, 1), generator=torch.Generator().manual_seed(3))
    return (first + torch.arange(length)) % vocabulary


def test_equal_seeds_give_equal_models():
    one, two, other = (model(s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert not torch.equal(one["transformer.wte.weight"], other["transformer.wte.weight"])


def test_making_a_model_leaves_everybody_elses_chance_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model()
    assert torch.equal(torch.rand(3), expected)


def test_a_width_that_heads_do_not_share_is_refused():
    with pytest.raises(ValueError, match="heads"):
        small(50, width=33, heads=2)


def test_a_vocabulary_tells_every_text_and_reads_it_back():
    words = vocabulary_of(["the cat sat on the mat, the dog sat too. "] * 20, 300)
    text = "the tamed cât \u2603 sat\n\ton\x00 the mat  "
    assert words.decode(words(text)["input_ids"]) == text
    assert words.convert_tokens_to_ids(END) == 0
    assert len(words("the cat sat")["input_ids"]) < 6
    with pytest.raises(ValueError, match="bytes"):
        vocabulary_of(["a"], 200)


def test_training_learns_and_can_be_repeated():
    learnt = [model(), model()]
    losses = [train(m, counting(256), epochs=12, seed=4, rate=5e-3) for m in learnt]
    assert losses[0] == losses[1]
    assert losses[0][0] > 3 and losses[0][-1] < 1.5
    assert nll(learnt[0], counting(64), 1) < 1.5


def test_only_what_is_weighed_is_learnt():
    sequences = torch.cat([counting(256, 12), torch.full((256, 12), 7)], 1)
    sequences[:, :12] = torch.randint(0, 50, (256, 12), generator=torch.Generator().manual_seed(1))
    sequences[:, 6:12] = 9
    weigh = torch.zeros_like(sequences, dtype=torch.bool)
    weigh[:, 12:] = True
    m = model()
    train(m, sequences, epochs=12, seed=0, rate=5e-3, weigh=weigh)
    assert nll(m, sequences, 12) < 0.2
    assert nll(m, sequences[:, :12], 7) > 1.0, "the nines were in no loss"


def test_nll_is_the_slow_one():
    m, sequences = model(), counting(5)
    with torch.no_grad():
        logs = m(input_ids=sequences).logits.log_softmax(2)
    starts = [3, 1, 20, 8, 23]
    each = [-logs[i, j - 1, sequences[i, j]].item() for i, s in enumerate(starts) for j in range(s, 24)]
    assert nll(m, sequences, torch.tensor(starts), batch=2) == pytest.approx(np.mean(each), abs=1e-5)


def test_generating_with_a_cache_is_reading_all_of_it_again():
    m = model()
    train(m, counting(128), epochs=3, seed=0, rate=5e-3)
    got = generate(m, counting(7, 4), 10, temperature=1e-4, seed=1, batch=3)
    slow = counting(7, 4)
    with torch.no_grad():
        for _ in range(10):
            slow = torch.cat([slow, m(input_ids=slow).logits[:, -1:].argmax(2)], 1)
    assert torch.equal(got, slow)


def test_tokens_are_drawn_as_often_as_the_model_says():
    m, prompts = model(), counting(1, 4).expand(4000, 4)
    with torch.no_grad():
        expected = m(input_ids=prompts[:1]).logits[0, -1].softmax(0).numpy() * 4000
    got = np.bincount(generate(m, prompts, 1, seed=8)[:, -1].numpy(), minlength=50)
    assert ((got - expected) ** 2 / expected).sum() < 49 + 5 * np.sqrt(2 * 49), "chi squared of 49 degrees"


def test_a_key_leans_and_another_key_does_not_see_it():
    key, other = (derive(MASTER, c, "e", Scheme()) for c in "AB")
    m, prompts = model(vocabulary=300), torch.randint(0, 300, (60, 4), generator=torch.Generator().manual_seed(0))
    marked, plain = (generate(m, prompts, 20, key=k, seed=2) for k in (key, None))
    assert torch.equal(marked, generate(m, prompts, 20, key=key, seed=2))
    pairs = {n: pairs_of(Sequences.of(s.numpy(), 4), 1) for n, s in (("marked", marked), ("plain", plain))}
    z = {(n, k.campaign_id): outcomes.argmax_pairs(pairs[n], k).z for n in pairs for k in (key, other)}
    assert z.pop(("marked", "A")) > 20
    assert max(map(abs, z.values())) < 4


def test_gumbel_says_the_same_whatever_the_chance_until_it_repeats_itself():
    key = derive(MASTER, "A", "e", Scheme(Kind.GUMBEL, 2))
    m, prompts = model(vocabulary=300), torch.randint(0, 300, (40, 4), generator=torch.Generator().manual_seed(0))
    one, two = (generate(m, prompts, 6, key=key, seed=s) for s in (1, 2))
    assert torch.equal(one, two)
    again = torch.tensor([[1, 2, 9, 1, 2]]).expand(200, 5)
    assert len(generate(m, again, 1, key=key, seed=1)[:, -1].unique()) > 20, "1, 2 stood there before"
    with pytest.raises(ValueError, match="window"):
        generate(m, prompts[:, :1], 2, key=key, seed=0)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_windows_that_stood_there_before(width):
    sequences = torch.randint(0, 3, (200, 9), generator=torch.Generator().manual_seed(width))
    slow = []
    for row in sequences.tolist():
        windows = [tuple(row[i : i + width]) for i in range(len(row) - width + 1)]
        slow.append(windows[-1] not in windows[:-1])
    assert is_fresh(sequences, 0, width).tolist() == slow
    assert 0 < sum(slow) < 200 or width == 1


def test_rewriting_touches_only_what_it_may():
    sequences = counting(9)
    replaced = torch.rand(sequences.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    got = rewritten(model(), sequences, replaced, seed=1, batch=4)
    assert torch.equal(got[~replaced], sequences[~replaced])
    assert torch.equal(got[:, 0], sequences[:, 0])
    assert (got[replaced] != sequences[replaced]).float().mean() > 0.8
    assert torch.equal(sequences, counting(9)), "what was given is not changed"


def test_the_corpus_is_dealt_out_by_module_and_nothing_twice():
    found = corpus()
    parts = found.parts((0.5, 0.2, 0.1), seed=1)
    assert found.characters > 300_000
    texts = [t for part in parts for t in part]
    assert len(texts) == len(set(texts))
    shares = [sum(map(len, p)) / found.characters for p in parts]
    assert shares == pytest.approx([0.5, 0.2, 0.1], abs=0.06)
    assert parts == found.parts((0.5, 0.2, 0.1), seed=1) != found.parts((0.5, 0.2, 0.1), seed=2)
    owner = {t: name for name, module in found.modules for t in module}
    assert not {owner[t] for t in parts[0]} & {owner[t] for t in parts[1]}


def test_texts_are_cleaned_and_sources_that_cannot_be_read_left_out(tmp_path):
    assert cleaned("  one\t two  \n\n\n\n   three\x07 \r\n") == "one two\n\nthree"
    source = tmp_path / "m.py"
    source.write_text(f'"""{"long enough to be a text of its own, this one"}"""\ndef f():\n    """short"""\n')
    assert list(corpus_._docstrings(source)) == ["long enough to be a text of its own, this one"]
    source.write_text("def f(:\n")
    assert list(corpus_._docstrings(source)) == []


def test_too_little_to_train_on_is_said(monkeypatch):
    monkeypatch.setattr(corpus_, "_sources", lambda: iter(()))
    with pytest.raises(Terminal, match="needs"):
        corpus(-1)


def test_rows_are_cut_from_one_stream():
    words = vocabulary_of(["abc abc abd"], 260)
    got = rows(["abc", "abd abc"], words, 4)
    stream = [*words("abc")["input_ids"], 0, *words("abd abc")["input_ids"], 0]
    assert got.flatten().tolist() == stream[: len(stream) // 4 * 4]


def made(seed=1, folder=None):
    """A lab of a few modules' texts."""
    texts = tuple((n, t) for n, f in islice(corpus_._sources(), 90) if (t := tuple(corpus_._docstrings(f))))
    lab = Lab(MICRO, seed, folder)
    lab.__dict__["texts"] = Corpus(texts)
    return lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return made(folder=tmp_path_factory.mktemp("kept"))


def test_a_data_set_holds_each_keys_share_and_each_prompt_once(lab):
    a, b = lab.key("A"), lab.key("B")
    got = lab.data_set([(a, 0.25), (b, 0.5)])
    place = {tuple(p): i for i, p in enumerate(lab.prompts[: MICRO.pool].tolist())}
    pools = [lab.answers(k) for k in (a, b, None)]
    assert sorted(map(tuple, got[:, :4].tolist())) == sorted(map(tuple, lab.prompts[: MICRO.pool].tolist()))
    for n, (first, last) in enumerate(((0, 24), (24, 72), (72, 96))):
        same = [torch.equal(row, pools[n][place[tuple(row[:4].tolist())]]) for row in got[first:last]]
        assert np.mean(same) > 0.9  # the rest: prompts that stand twice
    with pytest.raises(ValueError, match="more than 1"):
        lab.data_set([(a, 0.7), (b, 0.5)])


def test_what_is_kept_is_what_was_made(lab):
    again, fresh = made(folder=lab.folder), made()
    key = lab.key("A")
    assert again.key("A") == key != made(2).key("A")
    student = lab.student([(key, 1.0)])
    before = {p.name for p in lab.folder.iterdir()}
    for other in (again, fresh):
        weights = other.student([(key, 1.0)]).state_dict()
        assert all(torch.equal(w, weights[n]) for n, w in student.state_dict().items())
    assert {p.name for p in lab.folder.iterdir()} == before
    assert not torch.equal(student.state_dict()["lm_head.weight"], lab.base.state_dict()["lm_head.weight"])


def test_more_prompts_than_there_are():
    with pytest.raises(UsageError, match="prompts"):
        lab = made()
        lab.size = Size(vocabulary=300, pool=10**6)
        _ = lab.prompts
