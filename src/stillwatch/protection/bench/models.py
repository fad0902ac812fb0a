"""Small models and vocabularies made on the spot: GPT-2's architecture (Radford et al., 2019), a few hundred thousand parameters.

Nothing is downloaded, and nothing here takes part in serving: these stand in for provider and suspect in the bench.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<|end|>"
"""What ends a text; token 0 of every vocabulary made here."""
BYTES = 256


def small(
    vocabulary: int, *, layers: int = 2, width: int = 96, heads: int = 4, context: int = 64, seed: int = 0
) -> GPT2LMHeadModel:
    """An untrained model for token ids below ``vocabulary`` and sequences up to ``context`` tokens; no dropout; equal arguments
    give equal weights. ValueError where ``width`` is no multiple of ``heads``."""
    if width % heads:
        raise ValueError(f"the width {width} is not shared out among {heads} heads")
    shape = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's own, in one step
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(shape)


def vocabulary_of(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE vocabulary (Sennrich et al., 2016) of at most ``size`` tokens, learnt from the texts; every text can be
    told in it and read back. ValueError where ``size`` does not hold the bytes."""
    if size <= BYTES:
        raise ValueError(f"a vocabulary of {size} tokens does not hold the {BYTES} bytes and the end of a text")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=END, eos_token=END, clean_up_tokenization_spaces=False
    )
