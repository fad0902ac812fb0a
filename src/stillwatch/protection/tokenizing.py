"""Text to token ids by the served model's own tokenizer, from a folder; nothing is fetched, and no code of its is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer

from stillwatch.errors import UsageError


def tokenizer_in(folder: Path) -> Callable[[str], list[int]]:
    """What gives a text its token ids, without special tokens. UsageError where the folder has no tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as e:
        raise UsageError(f"{folder}: no tokenizer can be read from it", hint="a folder with tokenizer.json") from e
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))
