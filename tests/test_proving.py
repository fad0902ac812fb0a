"""Open weights are read as they should be, and a registered test finds the guilty key, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures_proof import (
    LENGTH,
    MASTER,
    TOKENS,
    leaning_to,
    reference,
    sequences,
    some_keys,
    source,
    student,
    tokens_file,
    written,
)
from stillwatch.errors import InputRejected
from stillwatch.progress import Progress
from stillwatch.protection.differences import Differences, fresh, of_counts
from stillwatch.protection.keys import Key, Scheme, derive
from stillwatch.protection.registration import Registration, committed
from stillwatch.protection.sequences import Sequences
from stillwatch.protection.verdicts import Verdict
from stillwatch.secret import Secret

pytestmark = pytest.mark.protect
torch = pytest.importorskip("torch")
opened = pytest.importorskip("stillwatch.protection.opened")
from stillwatch.protection import outcomes, power, proving  # noqa: E402  # need the extra
from stillwatch.protection.proof_report import p_text, page, plain  # noqa: E402

KEYS = some_keys(30)
GUILTY = KEYS[4]
DECOYS = some_keys(250, master=Secret("another master secret of the tests"))


@pytest.fixture(scope="module")
def served() -> np.ndarray:
    return written(leaning_to(source(), GUILTY), 500, seed=11)


def dense(found: Differences) -> np.ndarray:
    whole = np.zeros((TOKENS, TOKENS))
    whole[found.windows[found.window_index, 0], found.token] = found.value
    return whole


# Reading


def slow_differences(suspect: Any, own: Any, served: Sequences) -> np.ndarray:
    sums, seen = np.zeros((TOKENS, TOKENS)), np.zeros(TOKENS)
    wanted = set(fresh(served, 1).tolist())
    for begin, end in zip(served.begins.tolist(), served.ends.tolist(), strict=True):
        tokens = torch.from_numpy(served.tokens[begin:end])[None]
        with torch.inference_mode():
            there, here = (m(input_ids=tokens).logits[0].softmax(1).numpy() for m in (suspect, own))
        for at in wanted & set(range(begin, end)):
            window = served.tokens[at - 1]
            sums[window] += there[at - begin - 1] - here[at - begin - 1]
            seen[window] += 1
    return sums / np.maximum(seen, 1)[:, None] * np.sqrt(np.minimum(seen, 64))[:, None]


def test_differences_of_models_are_those_read_slowly(served: np.ndarray) -> None:
    few = Sequences.of([r[: 8 + i] for i, r in enumerate(served[:20])], 1)
    found = opened.of_models(student(1.0, GUILTY), reference(), few, 1)
    slow = slow_differences(student(1.0, GUILTY), reference(), few)
    assert found.positions == len(fresh(few, 1))
    assert float(((dense(found) - slow) ** 2).sum()) < 0.0015 * float((slow**2).sum()), "a thousandth is left out"
    assert dense(found)[np.abs(dense(found)) > 0] == pytest.approx(slow[np.abs(dense(found)) > 0], abs=1e-5)


def test_bounded_memory_keeps_the_largest_and_most_of_the_power(served: np.ndarray) -> None:
    text = sequences(served)
    whole = opened.of_models(student(1.0, GUILTY), reference(), text, 1)
    told: list[int] = []
    bounded = opened.of_models(
        student(1.0, GUILTY), reference(), text, 1, opened.Limits(cells=2000, tokens=16), told.append
    )
    assert len(told) > 50 and sum(told) == bounded.positions == whole.positions
    z = [outcomes.leaning(d, GUILTY).z for d in (whole, bounded)]
    assert z[0] > 10 and z[1] > 0.8 * z[0]


def test_sequences_longer_than_a_context_are_read_in_pieces(served: np.ndarray) -> None:
    text = Sequences.of([np.concatenate(served[:3]), served[3]], 1)
    found = opened.of_models(student(1.0, GUILTY), reference(), text, 1, opened.Limits(context=10))
    assert found.positions == len(fresh(text, 1)), "each position once"
    assert opened.of_models(reference(), reference(), text, 1).value == pytest.approx([])


def test_text_with_tokens_that_a_model_has_not_is_refused() -> None:
    with pytest.raises(InputRejected, match="vocabulary ends at 63"):
        opened.of_models(reference(), reference(), Sequences.of([[1, 2, 99]]), 1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_p_of_open_weights_is_uniform_over_random_keys(served: np.ndarray, share: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    found = opened.of_models(student(share, GUILTY if share else None), reference(), sequences(served), 1)
    p = np.array([10 ** outcomes.leaning(found, k).log10_p for k in DECOYS])
    assert all((p <= a).mean() <= a + 3 * (a / len(p)) ** 0.5 for a in (0.01, 0.05, 0.1, 0.2))
    if share == 0:
        # Of the guilty one few terms weigh nearly all, and where they are fewer than FEW a p is a bound.
        assert stats.kstest(p, "uniform").pvalue > 0.001


def test_argmax_pairs_are_distinct_and_find_the_guilty_key(served: np.ndarray) -> None:
    read = opened.argmaxes(student(1.0, GUILTY), sequences(served), 1)
    rows = np.column_stack([read.windows, read.tokens])
    assert len(np.unique(rows, axis=0)) == len(rows) and read.counts.sum() == len(fresh(sequences(served), 1))
    assert outcomes.argmax_pairs(read, GUILTY).log10_p < -8
    assert min(outcomes.argmax_pairs(read, k).log10_p for k in DECOYS) > -4


# Other tokenizers


@pytest.fixture(scope="module")
def tokenizers() -> tuple[Any, Any, list[str]]:
    from stillwatch.protection.bench.models import vocabulary_of

    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdeéio"), rng.integers(2, 6))) for _ in range(60)]
    texts = [" ".join(rng.choice(words, 30)) + "." for _ in range(60)]
    return vocabulary_of(texts[:30], 340), vocabulary_of([t.upper() + t[:40] for t in texts[30:]], 400), texts


def random_model(size: int, seed: int) -> Any:
    from stillwatch.protection.bench.models import small

    return small(size, layers=1, width=16, heads=2, context=256, seed=seed).eval()


def test_a_suspect_of_the_same_tokenizer_is_read_alike_both_ways(tokenizers: tuple[Any, Any, list[str]]) -> None:
    ours, _, texts = tokenizers
    text = Sequences.of([ours(t)["input_ids"] for t in texts], 3)
    suspect, own = (opened.Opened(random_model(len(ours), s), ours) for s in (1, 2))
    straight = opened.of_models(suspect.model, own.model, text, 1)
    found, aligned = opened.of_translated(suspect, own, text, 1)
    assert (aligned.read, aligned.apart, aligned.unreadable, aligned.beyond) == (len(fresh(text, 1)), 0, 0, 0)
    for key in DECOYS[:5]:
        assert outcomes.leaning(found, key).z == pytest.approx(outcomes.leaning(straight, key).z, abs=0.1)


def test_another_tokenizer_is_aligned_by_characters_and_what_does_not_fit_is_counted(
    tokenizers: tuple[Any, Any, list[str]],
) -> None:
    ours, theirs, texts = tokenizers
    assert not opened.same_vocabulary(ours, theirs)
    text = Sequences.of([ours(t)["input_ids"] for t in texts], 3)
    suspect, own = opened.Opened(random_model(len(theirs), 1), theirs), opened.Opened(random_model(len(ours), 2), ours)
    found, aligned = opened.of_translated(suspect, own, text, 1)
    wanted = 0
    at = set(fresh(text, 1).tolist())
    for number, t in enumerate(texts):
        cuts = [{a for a, _ in k(t, return_offsets_mapping=True)["offset_mapping"]} for k in (ours, theirs)]
        offsets = [a for a, _ in ours(t, return_offsets_mapping=True)["offset_mapping"]]
        begin = int(text.begins[number])
        # A letter of two bytes may be cut in two: both halves then have its offset, and only the first byte's token begins it.
        wanted += sum(begin + i in at and a in cuts[1] and a > 0 for i, a in enumerate(offsets) if a not in offsets[:i])
    assert aligned.read == found.positions
    assert abs(aligned.read - wanted) <= 0.02 * wanted and aligned.apart > 0
    assert aligned.read + aligned.apart + aligned.unreadable + aligned.beyond == aligned.positions
    common = ours.get_vocab().keys() & theirs.get_vocab().keys()
    assert aligned.shared == len(common) - 1, "all but the end of a text"
    shared = {ours.get_vocab()[t] for t in common}
    assert set(found.token.tolist()) <= shared


def test_text_cut_within_a_letter_is_read_up_to_there(tokenizers: tuple[Any, Any, list[str]]) -> None:
    ours, theirs, _ = tokenizers
    whole = ours("ab cd é")["input_ids"]
    table = opened._Texts(opened.Opened(random_model(len(ours), 1), ours))
    odd = next(n for n, b in table.bytes.items() if b == "é".encode()[:1])
    text = Sequences.of([[*whole, odd, whole[0], whole[1]]], 1)
    suspect, own = opened.Opened(random_model(len(theirs), 1), theirs), opened.Opened(random_model(len(ours), 2), ours)
    _, aligned = opened.of_translated(suspect, own, text, 1)
    assert aligned.unreadable > 0 and aligned.read > 0


def test_without_its_tokenizer_another_vocabulary_is_refused(tokenizers: tuple[Any, Any, list[str]]) -> None:
    ours, _, texts = tokenizers
    text = Sequences.of([ours(texts[0])["input_ids"]])
    with pytest.raises(InputRejected, match=r"no tokenizer\.json"):
        opened.of_translated(
            opened.Opened(random_model(400, 1), None), opened.Opened(random_model(340, 1), ours), text, 1
        )


# What can be found, said before


def test_power_is_stated_below_what_is_then_found(served: np.ndarray) -> None:
    text = sequences(served)
    rehearsal = derive(MASTER, "rehearsal", "1", Scheme())
    signal, entropy = opened.leant(reference(), text, rehearsal)
    assert 2.5 < entropy < np.log(TOKENS)
    for share in (1.0, 0.5, 0.1):
        found = opened.of_models(student(share, GUILTY), reference(), text, 1)
        told = power.expected(signal, float(found.value @ found.value), rehearsal)
        assert list(told.values()) == sorted(told.values(), reverse=True)
        assert 0 < told[share] < outcomes.leaning(found, GUILTY).z


def test_power_of_texts_is_stated_below_what_is_then_found() -> None:
    own = sequences(written(source(), 250, 21))
    for kind in ("bernoulli", "gumbel"):
        rehearsal = derive(MASTER, "rehearsal", "1", Scheme(kind=kind))
        from stillwatch.protection.differences import of_text

        signal = power.leant_counts(of_text(own, 1), rehearsal)
        assert outcomes.leaning(signal, rehearsal).z > 10, "a perfect student leans by the key it leant by"
    rehearsal = derive(MASTER, "rehearsal", "1", Scheme())
    signal = power.leant_counts(of_text(own, 1), rehearsal)
    for share in (1.0, 0.5):
        mixed = share * leaning_to(source(), GUILTY) + (1 - share) * source()
        found = of_counts(sequences(written(mixed, 250, 22)), own, 1)
        told = power.expected(signal, float(found.value @ found.value), rehearsal)
        assert 0 < told[share] < outcomes.leaning(found, GUILTY).z


def test_the_chance_is_that_of_both_halves() -> None:
    sure, weak = dict.fromkeys(power.SHARES, 20.0), dict.fromkeys(power.SHARES, 5.0)
    told = power.least([sure, weak], [sure, sure], 1e-6, 200)[0]
    assert (told.z, told.perfect, told.needed) == (5.0, 20.0, pytest.approx(6.18, abs=0.01))
    assert told.chance < 0.2
    assert power.least([sure, sure], [sure, sure], 1e-6, 1)[0].chance > 0.999


# The whole test


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, served: np.ndarray) -> Path:
    made = tmp_path_factory.mktemp("proof")
    for name, model in (("own", reference()), ("guilty", student(1.0, GUILTY)), ("clean", student(0.0))):
        model.save_pretrained(made / name)
    tokens_file(made / "served.jsonl", served)
    return made


def registered(inputs: proving.Inputs, keys: list[Key], **more: Any) -> Registration:
    found = proving.Materials.of(inputs)
    made = Registration(
        "2026-11-27T12:00:00+00:00", "ann", found.suspects, found.served, found.reference, found.tokenizer,
        committed(keys, more.pop("licensed", {})), more.pop("statistics", ("residual",)), 7, {"context": 512, "tokens": 64}, (),
    )  # fmt: skip
    with Progress(quiet=True) as progress:
        bench = proving.Bench(inputs, made.form, made.seed, opened.Limits(), progress)
        told = proving.foresee(bench, [k.scheme for k in keys], made.hypotheses, made.threshold)
    return replace(made, power=told)


def made_test(test: Registration, inputs: proving.Inputs, keys: list[Key]) -> proving.Proof:
    with Progress(quiet=True) as progress:
        return proving.prove(test, inputs, keys, progress)


def test_the_guilty_key_fires_alone_and_the_clean_student_is_not_accused(folder: Path) -> None:
    inputs = proving.Inputs((folder / "guilty", folder / "clean"), folder / "own", folder / "served.jsonl")
    test = registered(inputs, KEYS)
    found = made_test(test, inputs, KEYS)
    guilty, clean = found.judged.values()
    assert (guilty.verdict, guilty.campaigns, guilty.keys) == (Verdict.LEARNT, (GUILTY.campaign_id,), (GUILTY.key_id,))
    assert clean.verdict is Verdict.INCONCLUSIVE
    tests = next(iter(found.tested.values()))
    own = next(t for t in tests if t.key_id == GUILTY.key_id)
    assert all(h.log10_p < -8 for h in own.halves) and own.log10_p > min(h.log10_p for h in own.halves) - 1e-9
    assert own.adjusted == pytest.approx(own.log10_p + np.log10(60))
    told = plain(found, test, "2026-11-27T13:00:00+00:00", "k")
    html = page(told)
    assert "Learnt from campaign C-4" in html and "Resale" in html and "<script" not in html
    assert told["suspects"][0]["tests"][4]["fires"] and told["files"][0]["distinct"] == 500
    alone = made_test(test, replace(inputs, suspects=inputs.suspects[:1]), KEYS)
    assert [t.adjusted for t in next(iter(alone.tested.values()))] == [t.adjusted for t in tests], "Holm stays over all"


def test_a_licensed_key_accuses_nobody(folder: Path) -> None:
    inputs = proving.Inputs((folder / "guilty",), folder / "own", folder / "served.jsonl")
    test = registered(inputs, KEYS[:6], licensed={GUILTY.key_id: "contract 17"}, statistics=("residual", "argmax"))
    judged = next(iter(made_test(test, inputs, KEYS).judged.values()))
    assert judged.verdict is Verdict.LICENSED and "contract 17" in judged.sentence


def test_nothing_else_than_what_was_registered_is_tested(folder: Path) -> None:
    inputs = proving.Inputs((folder / "guilty",), folder / "own", folder / "served.jsonl")
    test = registered(inputs, KEYS[:3])
    with pytest.raises(InputRejected, match="not the suspect that was registered"):
        made_test(test, replace(inputs, suspects=(folder / "clean",)), KEYS)
    with pytest.raises(InputRejected, match="not the reference"):
        made_test(test, replace(inputs, reference=folder / "clean"), KEYS)
    other = tokens_file(folder / "other.jsonl", written(source(), 40, 1))
    with pytest.raises(InputRejected, match="not the served text"):
        made_test(test, replace(inputs, served=other), KEYS)
    with pytest.raises(InputRejected, match="registered, and not at hand"):
        made_test(test, inputs, KEYS[:2])
    with pytest.raises(InputRejected, match="not the one that was registered"):
        made_test(test, inputs, [*KEYS[:2], replace(KEYS[2], secret=KEYS[5].secret)])


def test_texts_alone_name_the_campaign_and_two_campaigns_are_told_as_two(folder: Path) -> None:
    one, two = leaning_to(source(), GUILTY), leaning_to(source(), KEYS[9])
    alone = tokens_file(folder / "one.jsonl", written(one, 500, 31))
    both = tokens_file(folder / "both.jsonl", np.concatenate([written(one, 700, 32), written(two, 700, 33)]))
    own = tokens_file(folder / "texts.jsonl", written(source(), 600, 34))
    clean = tokens_file(folder / "clean.jsonl", written(source(), 500, 35))
    inputs = proving.Inputs((alone, both, clean), own)
    test = registered(inputs, KEYS, statistics=("residual", "pairs"))
    verdicts = [(j.verdict, set(j.campaigns)) for j in made_test(test, inputs, KEYS).judged.values()]
    assert verdicts == [
        (Verdict.LEARNT, {"C-4"}), (Verdict.SEVERAL, {"C-4", "C-9"}), (Verdict.INCONCLUSIVE, set()),
    ]  # fmt: skip


def test_too_little_text_is_refused_with_what_to_do(folder: Path) -> None:
    few = tokens_file(folder / "few.jsonl", written(source(), 10, 1))
    inputs = proving.Inputs((folder / "guilty",), folder / "own", few)
    with pytest.raises(InputRejected, match="10 distinct texts, of 20 at least"):
        registered(inputs, KEYS[:1])


def test_halves_are_distinct_rows_dealt_by_the_seed() -> None:
    from stillwatch.protection.suspects import Text, Texts

    rows = Texts(tuple(Text(tokens=(i, i + 1)) for i in range(41)), 0, ())
    first, second = proving.halved(rows, None, 3, Path("x"))
    assert (len(first), len(second)) == (21, 20)
    assert sorted([*first.tokens[::2].tolist(), *second.tokens[::2].tolist()]) == list(range(41))
    assert proving.halved(rows, None, 3, Path("x"))[0].tokens.tolist() == first.tokens.tolist()
    assert proving.halved(rows, None, 4, Path("x"))[0].tokens.tolist() != first.tokens.tolist()


def test_a_p_is_told_as_less_than_ten_to_the_minus_fifty_at_most() -> None:
    assert [p_text(x) for x in (-400.0, -50.5, -7.3, -1.0, 0.0)] == ["< 1e-50", "< 1e-50", "5.0e-8", "0.1", "1"]
    assert LENGTH == 32
