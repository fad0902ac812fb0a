"""Figures of the running server, in Prometheus' text format. Every name is in ``METRICS``; a name that is not is an error.

Labels come from small closed sets (routes as patterns, reasons, sources), never from an account or a body, so that neither
memory nor a personal value can be pumped in through them.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram's buckets, in seconds."""

MOST_SERIES = 1000
"""Sets of labels one metric may have; what is beyond goes to one with ``other`` in every label."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure: its kind is counter, gauge or histogram."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("stillwatch_requests_total", "counter", "Requests answered, by route and status", ("route", "status")),
    Metric("stillwatch_request_seconds", "histogram", "Seconds from a request's first byte to its answer", ("route",)),
    Metric("stillwatch_requests_under_way", "gauge", "Requests being answered now"),
    Metric("stillwatch_denied_total", "counter", "Requests without a valid token, or whose token lacks the right", ("why",)),
    Metric("stillwatch_ingest_rows_total", "counter", "Exchanges taken in and on disk, each once", ("source",)),
    Metric("stillwatch_ingest_twice_total", "counter", "Exchanges that were there already, and were left out", ("source",)),
    Metric("stillwatch_ingest_accounts_total", "counter", "Rows about accounts taken in", ("source",)),
    Metric("stillwatch_ingest_refused_total", "counter", "Records that could not be used, kept as dead letters", ("source",)),
    Metric("stillwatch_ingest_dropped_total", "counter", "Bodies accepted and dropped: nothing of them is judged", ("source",)),
    Metric("stillwatch_ingest_bodies_refused_total", "counter", "Bodies answered with an error, by status", ("source", "status")),
    Metric("stillwatch_ingest_seconds", "histogram", "Seconds from a whole body to its rows on disk", ("source",)),
    Metric("stillwatch_ingest_waiting", "gauge", "Bodies that wait for a thread to read them"),
    Metric("stillwatch_spool", "gauge", "What the spool says of itself", ("figure",)),
    Metric("stillwatch_in_force", "gauge", "Accounts, keys and end users for which an action is in force, by rung", ("rung",)),
    Metric("stillwatch_belongings", "gauge", "Keys and end users whose account the log has said, and several's", ("what",)),
    Metric("stillwatch_actions", "gauge", "Actions by where they are in their life", ("standing",)),
    Metric("stillwatch_decisions_total", "counter", "Questions of gateways: asked, stale, rewritten and so on", ("what",)),
    Metric("stillwatch_decisions_by_rung_total", "counter", "Answers that were in_force, shadow or refused", ("what", "rung")),
    Metric("stillwatch_decisions_stale", "gauge", "1 where what is in force has not been told anew for long"),
    Metric("stillwatch_audit_entries", "gauge", "Entries in the audit"),
    Metric("stillwatch_judgement_age_seconds", "gauge", "Seconds since the last result was written; -1 where there is none"),
    Metric("stillwatch_judge_running", "gauge", "1 where the process that judges is alive"),
    Metric("stillwatch_loop_runs_total", "counter", "Rounds of the loop that turns results into actions", ("outcome",)),
    Metric("stillwatch_loop_seconds", "histogram", "Seconds that a round of the loop took", ("outcome",)),
    Metric("stillwatch_actions_proposed_total", "counter", "Actions that a rule or a person proposed, by rung", ("rung",)),
    Metric("stillwatch_disk_free_bytes", "gauge", "Free bytes on the disk of the home folder"),
    Metric("stillwatch_alarm", "gauge", "1 where an alarm is raised; docs/serving.md says what to do", ("alarm",)),
    Metric("stillwatch_started_seconds", "gauge", "When the server started, seconds since 1970"),
    Metric("stillwatch_info", "gauge", "1; the version is in its label", ("version",)),
)  # fmt: skip

ALARMS: Mapping[str, str] = {
    "loop_failing": "results are no longer turned into actions; what is in force stays. The log says why, under `loop`",
    "judge_failing": "the process that judges is not running or its last judgement failed; see `stillwatch doctor`",
    "judgement_stale": "what came in has waited for a judgement for `stale_after_s`: see `stillwatch doctor`, and whether the "
    "judge has time enough",
    "policy_unreadable": "the policy file cannot be used; the last good one goes on, and nothing new is proposed without one",
    "audit_failing": "the audit cannot be written, so that no action can begin: free its disk, check its permissions",
    "intake_refusing": "senders were told 503 in the last minute: too much comes in, or the spool is full; see the log",
    "judge_rebuilt": "the state of judging was of an older version's format and was begun anew from what the spool holds; "
    "`rebuilt.json` in the home says what that means; remove it when you have read it",
    "spool_damaged": "batches of the spool could not be read and were set aside, all others are judged: each has a file in the "
    "home's `quarantine` that says when they came; have senders repeat them, check the disk, remove the files",
    "gateway_locked_out": "Envoy or nginx asks without a token that holds and is answered 503: it does as when nobody answers, "
    "so that nothing may be enforced there; give it a token of the role gateway",
    "disk_low": "less than `disk_free_bytes` are free on the home's disk",
    "watermark_missing": "answers to these campaigns are to carry a watermark and do not, for none has a key: `stillwatch "
    "watermark issue`, or change the rule",
    "watermark_unreadable": "the ledger of watermark keys is not what was signed; the last that could be read goes on: see "
    "`stillwatch audit verify HOME/watermarks`",
    "snapshot_failing": "in_force.json cannot be written; a restart would know what was in force when it last could",
}
"""Every alarm, and what to do about it."""


class Metrics:
    """Counters, gauges and histograms of one process; any thread may call."""

    def __init__(self, metrics: Iterable[Metric] = METRICS) -> None:
        self._known = {m.name: m for m in metrics}
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple[str, ...], float]] = {n: {} for n in self._known}
        self._seconds: dict[str, dict[tuple[str, ...], list[int]]] = {n: {} for n in self._known}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count up."""
        with self._lock:
            series = self._values[name]
            key = self._key(name, labels, series)
            series[key] = series.get(key, 0) + amount

    def put(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            series = self._values[name]
            series[self._key(name, labels, series)] = value

    def only(self, name: str, label: str, values: Mapping[str, float]) -> None:
        """Set a gauge with one label for all its values at once; those that are gone are 0."""
        with self._lock:
            series = self._values[name]
            series.update(dict.fromkeys(series, 0.0))
            for value, number in values.items():
                series[self._key(name, {label: value}, series)] = number

    def took(self, name: str, seconds: float, **labels: str) -> None:
        """Add a time to a histogram."""
        with self._lock:
            sums = self._values[name]
            key = self._key(name, labels, sums)
            sums[key] = sums.get(key, 0.0) + seconds
            counts = self._seconds[name].setdefault(key, [0] * (len(BUCKETS_S) + 1))
            counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1

    def value(self, name: str, **labels: str) -> float:
        """A counter's or gauge's value, 0 where it was never touched."""
        with self._lock:
            return self._values[name].get(tuple(labels[label] for label in self._known[name].labels), 0.0)

    def total(self, name: str) -> float:
        """The sum over all labels."""
        with self._lock:
            return math.fsum(self._values[name].values())

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        with self._lock:
            return "\n".join(self._lines()) + "\n"

    def _key(self, name: str, labels: Mapping[str, str], series: Mapping[tuple[str, ...], object]) -> tuple[str, ...]:
        wanted = self._known[name].labels
        if set(labels) != set(wanted):
            raise ValueError(f"{name} has the labels {wanted}, not {tuple(labels)}")
        key = tuple(labels[label] for label in wanted)
        return key if key in series or len(series) < MOST_SERIES else ("other",) * len(wanted)

    def _lines(self) -> Iterator[str]:
        for metric in self._known.values():
            series = self._values[metric.name]
            if not series:
                continue
            yield f"# HELP {metric.name} {metric.meaning}"
            yield f"# TYPE {metric.name} {metric.kind}"
            for key in sorted(series):
                yield from self._series(metric, key, series[key])

    def _series(self, metric: Metric, key: tuple[str, ...], value: float) -> Iterator[str]:
        labels = dict(zip(metric.labels, key))
        if metric.kind != "histogram":
            yield f"{metric.name}{_braces(labels)} {_number(value)}"
            return
        counts, below = self._seconds[metric.name][key], 0
        for bound, count in zip((*BUCKETS_S, math.inf), counts):
            below += count
            yield f"{metric.name}_bucket{_braces({**labels, 'le': '+Inf' if bound == math.inf else f'{bound:g}'})} {below}"
        yield f"{metric.name}_sum{_braces(labels)} {_number(value)}"
        yield f"{metric.name}_count{_braces(labels)} {below}"


def _braces(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
