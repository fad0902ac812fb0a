"""Samplers lean as the key says, touch nothing else, and what they wrote is found again with NumPy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stillwatch.protection.coins import BITS, coins, threshold
from stillwatch.protection.keys import Key, Kind, Scheme, derive
from stillwatch.protection.sequences import Sequences, pairs_of
from stillwatch.secret import Secret

pytestmark = pytest.mark.protect
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
stats = pytest.importorskip("scipy.stats")
torch.set_num_threads(1)

VOCABULARY = 64
MASTER = Secret("a master secret of the tests, long enough")


def key(kind: Kind = Kind.BERNOULLI, campaign: str = "C-1", **scheme: Any) -> Key:
    return derive(MASTER, campaign, "2026-11", Scheme(kind, **scheme))


def favoured(key: Key, windows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """What a test counts, in NumPy alone."""
    coin = coins(key.words, windows, tokens)
    if key.scheme.kind is Kind.BERNOULLI:
        return coin < threshold(key.scheme.share)
    return coin >= (1 << BITS) - threshold(key.scheme.share)


def log10_p(key: Key, text: Sequences) -> float:
    pairs = pairs_of(text, key.scheme.width)
    hits = int(favoured(key, pairs.windows, pairs.tokens).sum())
    return float(stats.binom.logsf(hits - 1, len(pairs), key.scheme.share)) / math.log(10)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=None
    )
    model = GPT2LMHeadModel(config).eval()
    # Logits of a random model are all but equal: make them such that something is at stake.
    model.transformer.ln_f.weight.data *= 8
    return model


def written(
    model: Any, keys: Sequence[Key | None], length: int = 60, seed: int = 1, warped: Any = None, **how: Any
) -> np.ndarray:
    from stillwatch.protection.samplers import Watermark

    torch.manual_seed(11)
    prompts = torch.randint(0, VOCABULARY, (len(keys), 5))
    torch.manual_seed(seed)
    marks = [Watermark(keys, prompts.shape[1], warpers=warped)] if any(keys) else []
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": length, "pad_token_id": 0, "logits_processor": marks}
    mask = torch.ones_like(prompts)
    return np.asarray(model.generate(prompts, attention_mask=mask, **{**settings, **how}).numpy())


def test_without_the_key_favoured_tokens_are_binomial_and_with_it_as_the_logits_say() -> None:
    from stillwatch.protection.samplers import lean

    mark, rng = key(width=2), torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(4000, VOCABULARY, generator=rng)
    windows = torch.randint(0, 1 << 17, (4000, 2), generator=rng)
    leant = lean(logits, windows, mark)
    is_favoured = favoured(mark, windows[:, None].numpy(), np.arange(VOCABULARY)[None])
    np.testing.assert_array_equal((leant - logits).numpy() > 1, is_favoured)
    for given, expected in ((logits, np.full(4000, 0.25)), (leant, (leant.softmax(1).numpy() * is_favoured).sum(1))):
        drawn = torch.multinomial(given.softmax(1), 1, generator=rng)[:, 0].numpy()
        hits = favoured(mark, windows.numpy(), drawn).sum()
        assert abs(hits - expected.sum()) < 4 * math.sqrt((expected * (1 - expected)).sum())
    assert expected.mean() > 0.5


def test_over_keys_gumbel_draws_from_the_distribution_as_it_is() -> None:
    from stillwatch.protection.samplers import lean

    shares = torch.tensor([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
    logits, windows = shares.log().expand(20, 7), torch.arange(40).view(20, 2)
    keys = [derive(MASTER, f"C-{n}", "e", Scheme(Kind.GUMBEL, width=2)) for n in range(150)]
    leant = torch.cat([lean(logits, windows, k) for k in keys])
    assert (torch.isfinite(leant).sum(1) == 1).all()
    counts = np.bincount(leant.argmax(1).numpy(), minlength=7)
    assert stats.chisquare(counts, 3000 * shares.numpy().astype(float).round(6)).pvalue > 1e-3


def test_gumbel_never_picks_what_cannot_be() -> None:
    from stillwatch.protection.samplers import lean

    logits = torch.full((500, VOCABULARY), -torch.inf)
    logits[:, [3, 5]] = torch.tensor([0.0, -9.0])
    picked = lean(logits, torch.arange(500)[:, None], key(Kind.GUMBEL, width=1)).argmax(1)
    assert set(picked.tolist()) <= {3, 5}


def test_what_is_many_is_done_in_parts_and_comes_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from stillwatch.protection import samplers

    logits, windows = torch.randn(50, VOCABULARY), torch.randint(0, 99, (50, 1))
    for kind in Kind:
        whole = samplers.lean(logits, windows, key(kind, width=1))
        monkeypatch.setattr(samplers, "CELLS", 7 * VOCABULARY)
        assert torch.equal(samplers.lean(logits, windows, key(kind, width=1)), whole)
        monkeypatch.undo()


def test_windows_of_another_width_are_refused() -> None:
    from stillwatch.protection.samplers import Watermark, lean

    with pytest.raises(ValueError, match="width 2"):
        lean(torch.zeros(3, 8), torch.zeros(3, 1, dtype=torch.int64), key(width=2))
    with pytest.raises(ValueError, match="3 rows, but 1 keys"):
        Watermark([None], 2)(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 8))
    with pytest.raises(ValueError, match="as many lengths"):
        Watermark([None], 2, [3])


@pytest.mark.parametrize("kind", list(Kind))
def test_each_row_has_its_own_key_and_those_without_are_untouched(model: Any, kind: Kind) -> None:
    ours, theirs = key(kind, "C-1", width=2), key(kind, "C-2", width=2)
    rows: list[Key | None] = [ours, None, theirs, None, ours]
    text, plain = written(model, rows), written(model, [None] * 5)
    for row in (1, 3):
        np.testing.assert_array_equal(text[row], plain[row])
    for row in (0, 2, 4):
        assert (text[row] != plain[row]).any()

    from stillwatch.protection.samplers import Watermark

    ids, scores = torch.from_numpy(text), torch.randn(5, VOCABULARY)
    given = scores.clone()
    leant = Watermark(rows, 5)(ids, scores)
    assert torch.equal(scores, given)
    assert torch.equal(leant[[1, 3]], scores[[1, 3]])
    assert not torch.equal(leant[0], scores[0])


@pytest.mark.parametrize(("kind", "width"), [(Kind.BERNOULLI, 1), (Kind.BERNOULLI, 2), (Kind.GUMBEL, 2)])
def test_numpy_finds_the_key_of_what_torch_wrote_and_no_other(model: Any, kind: Kind, width: int) -> None:
    mark = key(kind, width=width)
    text = Sequences.of(written(model, [mark] * 24), prompts=5)
    assert log10_p(mark, text) < -20
    others = [log10_p(key(kind, f"C-{n}", width=width), text) for n in range(2, 102)]
    assert min(others) > -4
    plain = Sequences.of(written(model, [None] * 24), prompts=5)
    assert log10_p(mark, plain) > -3


def test_the_marks_of_one_key_are_no_other_schemes(model: Any) -> None:
    """The scheme is part of what a key is derived from: the same campaign's other scheme finds nothing."""
    text = Sequences.of(written(model, [key(width=1)] * 24), prompts=5)
    assert log10_p(key(width=1, delta=1.0), text) > -3


def test_a_window_seen_before_is_drawn_without_the_key(model: Any) -> None:
    from stillwatch.protection.samplers import Watermark, is_fresh

    mark = key(Kind.GUMBEL, width=2)
    #                    prompt   | written       window (8, 9) stands in the prompt alone, (1, 2) was drawn after
    ids = torch.tensor([[8, 9, 1, 1, 2, 5, 8, 9], [8, 9, 1, 1, 2, 5, 1, 2], [8, 9, 1, 1, 2, 5, 6, 7]])
    assert is_fresh(ids, 4, 2).tolist() == [True, False, True]
    assert is_fresh(ids[:, :4], 4, 2).all(), "nothing was written yet"
    scores = torch.randn(3, VOCABULARY)
    leant = Watermark([mark] * 3, 4)(ids, scores)
    assert torch.isfinite(leant).sum(1).tolist() == [1, VOCABULARY, 1]
    assert torch.equal(leant[1], scores[1])


def test_freshness_is_that_of_a_set_of_windows() -> None:
    from stillwatch.protection.samplers import is_fresh

    ids = torch.from_numpy(np.random.default_rng(4).integers(0, 4, (30, 40)))
    for width, prompt in ((1, 6), (2, 6), (3, 2), (5, 3)):
        seen: list[set[tuple[int, ...]]] = [set() for _ in ids]
        for length in range(max(prompt, width), 41):
            window = [tuple(row[length - width : length].tolist()) for row in ids]
            wanted = [w not in s for w, s in zip(window, seen, strict=True)]
            assert is_fresh(ids[:, :length], prompt, width).tolist() == wanted
            for w, s in zip(window, seen, strict=True):
                s.add(w)


def test_gumbel_does_not_end_in_loops(model: Any) -> None:
    """Without the rule a window of one token brings the same token each time, and the text turns in a circle for ever."""
    from stillwatch.protection.samplers import lean

    mark = key(Kind.GUMBEL, width=1)
    kept = len(set(written(model, [mark], length=120)[0].tolist()))

    class Naive:
        def __call__(self, ids: Any, scores: Any) -> Any:
            return lean(scores, ids[:, -1:], mark)

    looped = len(set(written(model, [None], length=120, logits_processor=[Naive()])[0].tolist()))
    assert kept > 2 * looped


def test_generate_warps_after_our_turn_so_gumbel_is_given_the_warpers(model: Any) -> None:
    from stillwatch.protection.samplers import warpers

    mark = key(Kind.GUMBEL, width=3)
    greedy = written(model, [None], length=12, do_sample=False)
    unheard = written(model, [mark], length=12, top_k=1)
    heard = written(model, [mark], length=12, top_k=1, warped=warpers(top_k=1))
    np.testing.assert_array_equal(heard, greedy)
    assert (unheard != greedy).any()
    np.testing.assert_array_equal(unheard, written(model, [mark], length=12, temperature=0.01))
    cold = written(model, [mark], length=12, temperature=0.01, warped=warpers(temperature=0.01))
    np.testing.assert_array_equal(cold, greedy)


def test_warpers_are_those_of_generate(model: Any) -> None:
    """Gumbel over keys, told top-p, has the distribution that generate's own top-p has."""
    from stillwatch.protection.samplers import Watermark, warpers

    ids, scores = torch.tensor([[1, 2]]), 2 * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(8))
    told = warpers(temperature=0.7, top_k=20, top_p=0.8)
    left = told(ids, scores).softmax(1)[0].numpy().astype(float)
    drawn = [
        int(
            Watermark([derive(MASTER, f"C-{n}", "e", Scheme(Kind.GUMBEL, width=2))], 2, warpers=told)(
                ids, scores
            ).argmax()
        )
        for n in range(400)
    ]
    counts, at = np.bincount(drawn, minlength=VOCABULARY), left > 0
    assert counts[~at].sum() == 0
    assert stats.chisquare(counts[at], 400 * left[at] / left.sum()).pvalue > 1e-3


def test_greedy_text_carries_a_bernoulli_key(model: Any) -> None:
    mark = key(width=2, delta=4.0)
    text = Sequences.of(written(model, [mark] * 12, do_sample=False), prompts=5)
    assert log10_p(mark, text) < -10
    plain = Sequences.of(written(model, [None] * 12, do_sample=False), prompts=5)
    assert log10_p(mark, plain) > -3


def test_padding_is_no_window(model: Any) -> None:
    """A prompt padded on the left, shorter than a window, is leant on only once its window is whole."""
    from stillwatch.protection.samplers import Watermark

    mark = key(Kind.GUMBEL, width=3)
    processor = Watermark([mark, mark], 4, [2, 4])
    scores = torch.randn(2, VOCABULARY)
    first = processor(torch.tensor([[0, 0, 5, 6], [1, 2, 5, 6]]), scores)
    assert torch.equal(first[0], scores[0]) and torch.isfinite(first[1]).sum() == 1
    second = processor(torch.tensor([[0, 0, 5, 6, 7], [1, 2, 5, 6, 7]]), scores)
    assert torch.isfinite(second).sum(1).tolist() == [1, 1]


def test_a_key_does_not_show_in_what_is_printed_of_it() -> None:
    mark = key()
    assert mark.secret.hex() not in repr(mark) and repr(mark.secret) not in repr(mark)
    assert dataclasses.replace(mark) == mark
