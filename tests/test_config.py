"""Settings: a file, its defaults, and every way to get one wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stillwatch.config import Config, load
from stillwatch.errors import UsageError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_without_a_file_and_with_an_empty_one_the_defaults_hold(tmp_path: Path) -> None:
    assert load(None) == load(written(tmp_path, "")) == Config()
    assert Config().engine == "duckdb"


def test_what_is_given_replaces_and_the_rest_stays(tmp_path: Path) -> None:
    found = load(written(tmp_path, 'memory = "1GB"\nthreads = 2\n[detectors.shared_payment]\nmax_holders = 100'))
    assert found == Config(memory="1GB", threads=2, detectors={"shared_payment": {"max_holders": 100}})


def test_settings_can_be_written_down(tmp_path: Path) -> None:
    found = load(written(tmp_path, "[detectors.lockstep]\nx = 0.5"))
    assert json.loads(json.dumps(found.plain())) == {
        "engine": "duckdb", "memory": "2GB", "threads": 0, "detectors": {"lockstep": {"x": 0.5}},
    }  # fmt: skip


WRONG = [
    ("treads = 2", "unknown setting 'treads'"),
    ("threads = 'two'", "threads must be int, not str"),
    ("threads = 1.5", "threads must be int, not float"),
    ("memory = 2", "memory must be str, not int"),
    ("detectors = 3", "detectors must be dict, not int"),
    ("threads = ", "cannot be read as TOML"),
    (b"\xff\xfe", "cannot be read as TOML"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=r"settings\.toml") as caught:
        load(path)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_setting_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, "x = 1"))
    assert caught.value.hint == "known: engine, memory, threads, detectors"


def test_a_file_that_is_not_there_is_a_fault_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml"):
        load(tmp_path / "none.toml")


NESTED = [
    ("threads = true", "threads must be int, not bool"),
    ("threads = -1", "threads"),
    ("[detectors]\nshared_payment = 5", "detectors.shared_payment"),
    ("[detectors.shared_payment]\nmax_holders = 'many'", "detectors.shared_payment.max_holders"),
]


@pytest.mark.parametrize(("text", "said"), NESTED)
def test_a_wrong_number_of_a_detector_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, text))
    assert said in str(caught.value)
