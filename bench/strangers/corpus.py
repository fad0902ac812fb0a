"""The real prompts and the real traces, read at run time and never copied."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

MOST_PROMPT, MOST_TEMPLATE = 2_000, 1_500
"""Characters kept of a prompt and of its template."""
HOLES = re.compile(r"\{\{?[^{}\n]{0,40}\}?\}|\{%[^%]*%\}")


@dataclass
class Corpus:
    """Prompts of all sources; ``rows`` gives those of a source by the name of its file."""

    template: list[str]
    prompt: list[str]
    task: np.ndarray
    rows: dict[str, np.ndarray]

    def of(self, *names: str) -> np.ndarray:
        """The rows of these sources together."""
        return np.concatenate([self.rows[n] for n in names])

    @property
    def benign(self) -> list[str]:
        """Names of the benign sources."""
        return [n for n in self.rows if n.startswith("benign_")]

    @property
    def distill(self) -> list[str]:
        """Names of the distillation sources that are large enough to be a list."""
        return [n for n, rows in self.rows.items() if n.startswith("distill_") and len(rows) >= 300]


def load(folder: Path) -> Corpus:
    """Read every source below the folder, in the order of their names."""
    template: list[str] = []
    prompt: list[str] = []
    task: list[str] = []
    rows: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file, columns=["template", "prompt", "task"]).to_pydict()
        keep = [i for i, p in enumerate(table["prompt"]) if p.strip()]
        rows[file.stem] = np.arange(len(prompt), len(prompt) + len(keep))
        template += [HOLES.sub("", table["template"][i])[:MOST_TEMPLATE].strip() for i in keep]
        prompt += [table["prompt"][i][:MOST_PROMPT].strip() for i in keep]
        task += [table["task"][i] for i in keep]
    return Corpus(template, prompt, np.array(task), rows)


@dataclass
class Traces:
    """What real traffic looked like: pauses, lengths of answers by style, and arrivals of production clients."""

    gaps: np.ndarray
    answers: list[np.ndarray]
    contexts: list[np.ndarray]
    arrivals: list[tuple[np.ndarray, np.ndarray]]


def _columns(file: Path, *names: str) -> list[np.ndarray]:
    table = pq.read_table(file, columns=list(names))
    return [table[n].to_numpy(zero_copy_only=False) for n in names]


def read_traces(folder: Path) -> Traces:
    """Pauses within sessions, (input, output) lengths of three styles, and rates of every client by 10 minutes."""
    session, agent, seconds, given, out = _columns(
        folder / "claude_code_sessions_a.parquet", "session_id", "agent", "t_seconds", "input_tokens", "output_tokens"
    )
    same = (session[1:] == session[:-1]) & (agent[1:] == agent[:-1])
    gaps = np.diff(seconds.astype(float))[same]
    lengths = [(given, out)]
    for name in ("azure_llm_2023_conv", "azure_llm_2023_code"):
        lengths.append(tuple(_columns(folder / f"{name}.parquet", "input_tokens", "output_tokens")))
    clients: list[tuple[np.ndarray, np.ndarray]] = []
    for size in ("small", "mid"):
        client, start, rate = _columns(
            folder / f"servegen_m_{size}_arrivals.parquet", "client_id", "window_start_s", "rate_rps"
        )
        for one in np.unique(client):
            mine = client == one
            if mine.sum() >= 100:
                clients.append((start[mine].astype(float), np.cumsum(rate[mine] / rate[mine].sum())))
    return Traces(
        gaps[(gaps > 0.3) & (gaps < 5_400)],
        [np.clip(o.astype(float), 1, 16_000) for _, o in lengths],
        [np.clip(i.astype(float), 1, 150_000) for i, _ in lengths],
        clients,
    )
