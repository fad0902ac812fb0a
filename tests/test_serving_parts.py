"""Settings, figures and log lines of the server, each alone."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
from datetime import timedelta
from pathlib import Path

import pytest

from stillwatch.errors import Transient, UsageError
from stillwatch.serving import lines, page, settings
from stillwatch.serving.access import Right
from stillwatch.serving.app import ROUTES
from stillwatch.serving.lines import JsonLine
from stillwatch.serving.metrics import ALARMS, BUCKETS_S, METRICS, Metrics
from stillwatch.serving.settings import Settings


def written(folder: Path, text: str) -> Path:
    (folder / "serve.toml").write_text(text)
    return folder / "serve.toml"


# Settings


def test_every_setting_has_a_meaning_and_the_defaults_fit() -> None:
    assert [*settings.MEANINGS, *settings.TABLES] == [f.name for f in dataclasses.fields(Settings)]
    for name, keys in settings.TABLES.items():
        fields = [f.name for f in dataclasses.fields(getattr(Settings(), name))]
        assert list(keys) == [f for f in fields if (name, f) != ("judge", "key")]
    assert settings.load(None, **Settings().plain()) == Settings()


def test_what_is_given_goes_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'host = "::1"\nport = 9\nloop_every_s = 3\n')
    assert settings.load(file, port=10, host=None) == Settings(host="::1", port=10, loop_every_s=3)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path, 'port = 70000\nhots = "x"\nintake_threads = 0\nlog_level = "loud"\nretry_after_s = true\nmaps = "x"\n'
    )
    with pytest.raises(UsageError) as told:
        settings.load(file)
    said = str(told.value)
    for fault in (
        "port must be at most 65535", "unknown setting 'hots'", "intake_threads must be at least 1",
        "log_level must be one of", "retry_after_s must be int, not bool", "maps must be a list of texts", str(file),
    ):  # fmt: skip
        assert fault in said


def test_a_table_sets_up_a_part(tmp_path: Path) -> None:
    text = '[judge]\nevery = "30m"\nmodels = "m.csv"\n[gateway]\nsecret_headers = ["X-Key"]\n[spool]\njoin_s = 1\n'
    made = settings.load(written(tmp_path, text))
    assert (made.judge.every, made.judge.models) == (timedelta(minutes=30), Path("m.csv"))
    assert (made.gateway.secret_headers, made.spool.join_s) == (("x-key",), 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[judge]\nevery = "soon"', "[judge] every: "),
        ("[judge]\nevery = 1", "[judge] every: must be a length such as 1h, not int"),
        ('[judge]\nkey = "k"', "unknown setting [judge] 'key'"),
        ('[judge]\nfinal_scan = "never"', "[judge]: final scan 'never' is none"),
        ("[spool]\nbytes = 0", "[spool] bytes: must be above 0"),
        ("spool = 1", "spool must be a table"),
        ('[gateway]\ndialect = "latin"', "[gateway]: "),
        ("[gateway]\nsecret_headers = [1]", "must be a list of texts"),
    ],
)
def test_faults_of_tables_are_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as told:
        settings.load(written(tmp_path, text))
    assert said in str(told.value)


def test_a_file_that_is_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as TOML"):
        settings.load(written(tmp_path, "port ="))


# Metrics


def test_the_text_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.add("stillwatch_requests_total", route="/a", status="200")
    metrics.add("stillwatch_requests_total", 2, route="/a", status="200")
    metrics.put("stillwatch_disk_free_bytes", 0.5)
    metrics.took("stillwatch_request_seconds", 0.003, route='/"x\\\n')
    metrics.took("stillwatch_request_seconds", 99.0, route='/"x\\\n')
    text = metrics.text()
    assert '# TYPE stillwatch_requests_total counter\nstillwatch_requests_total{route="/a",status="200"} 3\n' in text
    assert "stillwatch_disk_free_bytes 0.5\n" in text
    label = r'route="/\"x\\\n"'
    assert f'stillwatch_request_seconds_bucket{{{label},le="0.0025"}} 0\n' in text
    assert f'stillwatch_request_seconds_bucket{{{label},le="0.005"}} 1\n' in text
    assert f'stillwatch_request_seconds_bucket{{{label},le="+Inf"}} 2\n' in text
    assert f"stillwatch_request_seconds_sum{{{label}}} 99.003\n" in text
    assert f"stillwatch_request_seconds_count{{{label}}} 2\n" in text


def test_an_unknown_figure_or_label_is_a_fault() -> None:
    with pytest.raises(KeyError):
        Metrics().add("stillwatch_bogus_total")
    with pytest.raises(ValueError, match="has the labels"):
        Metrics().add("stillwatch_requests_total", route="/a")


def test_labels_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(5000):
        metrics.add("stillwatch_denied_total", why=str(number))
    assert metrics.text().count("stillwatch_denied_total{") == 1001
    assert metrics.value("stillwatch_denied_total", why="other") == 4000
    assert metrics.total("stillwatch_denied_total") == 5000


def test_a_gauge_of_many_forgets_those_that_are_gone() -> None:
    metrics = Metrics()
    metrics.only("stillwatch_in_force", "rung", {"suspend": 2})
    metrics.only("stillwatch_in_force", "rung", {"throttle": 1})
    assert (metrics.value("stillwatch_in_force", rung="suspend"), metrics.total("stillwatch_in_force")) == (0, 1)


def test_names_are_as_prometheus_asks() -> None:
    for metric in METRICS:
        assert metric.name.startswith("stillwatch_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.meaning
        assert metric.kind in ("counter", "gauge", "histogram")
    assert len({m.name for m in METRICS}) == len(METRICS)
    assert list(BUCKETS_S) == sorted(BUCKETS_S)
    assert all(ALARMS.values())


# Log lines


def logged(level: int, what: str, error: BaseException | None = None, **facts: object) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLine())
    lines.LOG.addHandler(handler)
    try:
        lines.say(level, what, error=error, **facts)
    finally:
        lines.LOG.removeHandler(handler)
    return stream.getvalue()


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as e:
        return e


def test_a_line_is_one_json_object_with_the_request_it_belongs_to() -> None:
    token = lines.REQUEST.set("r1")
    try:
        line = logged(logging.ERROR, "two\nlines", rows=3)
    finally:
        lines.REQUEST.reset(token)
    assert line.count("\n") == 1
    told = json.loads(line)
    assert told.pop("at").endswith("Z")
    assert told == {"level": "error", "what": "two\nlines", "request_id": "r1", "rows": 3}


def test_our_errors_say_what_and_where_those_of_others_only_where() -> None:
    ours = json.loads(logged(logging.ERROR, "x", raised(Transient("the disk is full", hint="free it"))))
    assert (ours["why"], ours["hint"]) == ("the disk is full", "free it")
    foreign = logged(logging.ERROR, "x", raised(ValueError("prompt: canary-4711")))
    assert "canary" not in foreign
    assert json.loads(foreign)["error"] == "ValueError"
    assert "raised" in json.loads(foreign)["raised_at"][-1]


def test_what_looks_like_a_token_is_blotted_out() -> None:
    assert "hunter2" not in logged(logging.ERROR, "asked with Bearer hunter2", path="Basic hunter2")


# The page


PAGE = Path(__file__).parent.parent / "docs" / "serving.md"


def test_the_page_is_what_the_code_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page.filled(text) == text, "run: python -m stillwatch.serving.page docs/serving.md"
    assert set(re.findall(r"<!-- (\w+) -->", text)) == {*page.PARTS, "end"}


@pytest.mark.parametrize(
    "name",
    [
        *(r.path.replace(":path", "") for r in ROUTES),
        *settings.MEANINGS,
        *(f"[{table}] {key}" for table, keys in settings.TABLES.items() for key in keys),
        *(m.name for m in METRICS),
        *ALARMS,
        *Right,
    ],
)
def test_everything_of_the_server_with_a_name_has_its_line(name: str) -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    meanings = [cells[1] for cells in rows if re.search(rf"`{re.escape(name)}`$", cells[0])]
    assert meanings, f"docs/serving.md has no line for {name}"
    assert all(len(text.strip(" |")) > 2 for text in meanings)
