"""Suspects as they lie on disk: hashed whole, read as data, and what cannot be read is told."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillwatch.errors import InputRejected, UsageError
from stillwatch.protection.suspects import (
    Form,
    Text,
    folder_hash,
    material,
    texts,
    tokenizer_material,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "suspect"
    (made / "more").mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "more" / "notes.txt").write_text("a note")
    return made


def test_a_folder_is_known_by_every_byte_and_name_in_it(folder: Path) -> None:
    found = material(folder)
    assert (found.name, found.form) == ("suspect", Form.WEIGHTS)
    seen = {found.sha256}
    (folder / "more" / "notes.txt").write_text("a Note")
    seen.add(folder_hash(folder))
    (folder / "more" / "notes.txt").rename(folder / "more" / "other.txt")
    seen.add(folder_hash(folder))
    (folder / "empty").write_text("")
    seen.add(folder_hash(folder))
    assert len(seen) == 4
    (folder / "empty").unlink()
    (folder / "more" / "other.txt").rename(folder / "more" / "notes.txt")
    (folder / "more" / "notes.txt").write_text("a note")
    assert folder_hash(folder) == found.sha256


def test_a_copy_elsewhere_is_the_same_suspect(folder: Path, tmp_path: Path) -> None:
    import shutil

    copied = shutil.copytree(folder, tmp_path / "copy")
    assert folder_hash(copied) == folder_hash(folder)


def test_files_that_a_cache_links_to_count_and_linked_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"weights")
    before = folder_hash(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(blob)
    assert folder_hash(folder) == before
    blob.write_bytes(b"others")
    assert folder_hash(folder) != before
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(InputRejected, match="a link to a folder"):
        folder_hash(folder)


def test_a_model_that_brings_code_or_pickles_is_refused_with_all_that_is_wrong(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputRejected) as told:
        material(folder)
    assert "code of its own" in str(told.value) and "only pytorch_model.bin" in str(told.value)
    assert "safetensors" in told.value.hint


@pytest.mark.parametrize("config", ["", "[]", "{", "{}", '{"model_type": 3}'])
def test_a_folder_without_a_config_that_names_its_model_is_refused(folder: Path, config: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(InputRejected, match=r"config\.json"):
        material(folder)


def test_what_is_no_suspect_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        material(tmp_path / "nowhere")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(UsageError, match="neither weights nor texts"):
        material(tmp_path / "x.csv")
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        tokenizer_material(tmp_path)


def test_texts_of_each_form_say_the_same(tmp_path: Path) -> None:
    rows = [("one", ""), ("two", "say"), ("one", "")]
    jsonl, parquet, txt = tmp_path / "a.jsonl", tmp_path / "a.parquet", tmp_path / "a.txt"
    jsonl.write_text("".join(json.dumps({"text": t, "prompt": p}) + "\n" for t, p in rows))
    pq.write_table(pa.table({"text": [t for t, _ in rows], "prompt": [p or None for _, p in rows]}), parquet)
    txt.write_text("one\ntwo\n\none\n")
    for path in (jsonl, parquet):
        found = texts(path)
        assert (found.rows, found.repeated, found.rejects) == ((Text("one"), Text("two", "say")), 1, ())
    assert texts(txt).rows == (Text("one"), Text("two"))


def test_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"tokens": [[1, 2], [3]], "prompt_tokens": [[9], None]}), path)
    assert texts(path).rows == (Text(tokens=(1, 2), prompt_tokens=(9,)), Text(tokens=(3,)))


def test_rows_that_cannot_be_read_are_counted_with_the_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b'{"text": "good"}', b"{", b'{"text": 3}', b'{"text": ""}', b"[1]", b"\xff\xfe", b'{"tokens": [1, -2]}']
    lines += [b'{"tokens": [true]}', b'{"text": "a", "prompt": 7}', b'{"text": "\\ud800"}', b"nonsense"]
    path.write_bytes(b"\n".join(lines))
    found = texts(path)
    assert found.rows == (Text("good"),)
    assert {(r.reason, r.rows, r.place.rpartition(":")[2]) for r in found.rejects} == {
        ("not JSON", 2, "2"), ("no text", 2, "3"), ("not an object", 1, "5"), ("not UTF-8", 1, "6"),
        ("tokens are not a list of whole numbers", 2, "7"), ("the prompt is no text", 1, "9"),
        ("a text holds half a character", 1, "10"),
    }  # fmt: skip


def test_a_file_of_nothing_that_can_be_read_is_rejected_with_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{\n{\n")
    with pytest.raises(InputRejected, match=r"a\.jsonl:1: not JSON \(2 rows\)"):
        texts(path)
    cut = tmp_path / "a.parquet"
    cut.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputRejected, match="cannot be read"):
        texts(cut)
