"""Does a single column give planted accounts away? python -m strangers.probe WORLD... prints AUCs by column."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

COLUMNS = ["account_id", "time", "ip", "user_agent", "model", "input_tokens", "output_tokens", "max_tokens", "temperature",
           "thinking", "stream", "batch", "turn", "prompt", "system", "conversation_id", "status"]  # fmt: skip


def auc(values: np.ndarray, planted: np.ndarray) -> float:
    """Chance that a planted account ranks above an honest one, or below if that is more; ties count half."""
    _, place, many = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(many) - (many - 1) / 2)[place]
    a, b = int(planted.sum()), int((~planted).sum())
    area = (rank[planted].sum() - a * (a + 1) / 2) / (a * b)
    return float(max(area, 1 - area))


def features(world: Path) -> dict[str, np.ndarray]:
    """Columns of each account, and whether it is planted."""
    t = pq.read_table(world / "exchanges", columns=COLUMNS)
    t = (
        t.append_column("length", pc.utf8_length(t["prompt"]))
        .append_column("has_system", pc.cast(pc.is_valid(t["system"]), pa.int8()))
        .append_column("hour", pc.cast(pc.hour(t["time"]), pa.float64()))
        .append_column("weekend", pc.cast(pc.greater_equal(pc.day_of_week(t["time"]), 5), pa.int8()))
        .append_column("seen", pc.cast(t["time"], pa.int64()))
        .append_column("moment", pc.cast(t["time"], pa.int64()))
        .drop_columns(["prompt", "system", "time"])
    )
    for c in ("thinking", "stream", "batch"):
        t = t.set_column(t.column_names.index(c), c, pc.cast(t[c], pa.int8()))
    means = ["input_tokens", "output_tokens", "max_tokens", "temperature", "thinking", "stream", "batch", "turn", "length",
             "has_system", "hour", "weekend"]  # fmt: skip
    g = t.group_by("account_id").aggregate(
        [(c, "mean") for c in means]
        + [("seen", "min"), ("moment", "max"), ("length", "stddev"), ("hour", "stddev"), ("status", "count")]
        + [(c, "count_distinct") for c in ("ip", "user_agent", "model")]
    )  # fmt: skip
    truth = pq.read_table(world / "truth.parquet", columns=["account_id", "campaign_id"])
    people = pq.read_table(world / "accounts.parquet")
    g = g.join(truth, "account_id").join(people, "account_id")
    out = {f"{c}": g[c].to_numpy(zero_copy_only=False).astype(float) for c in g.column_names if c.split("_")[-1] in
           ("mean", "min", "max", "stddev", "count", "distinct")}  # fmt: skip
    out = {c: np.nan_to_num(v, nan=-1) for c, v in out.items()}
    out["lifetime"] = out["moment_max"] - out["seen_min"]
    out["pace"] = out["status_count"] / (out["lifetime"] + 3.6e9)
    out["ip_per_request"] = out["ip_count_distinct"] / out["status_count"]
    made = pc.cast(g["created_at"], pa.int64()).to_numpy()
    out["age"] = out["seen_min"] - made
    out["created"] = made.astype(float)
    for c in ("payment_hash", "phone_hash", "org_id"):
        out[f"has_{c}"] = pc.is_valid(g[c]).to_numpy(zero_copy_only=False).astype(float)
    for c in ("plan", "programme", "verification", "email_domain", "payment_issuer", "billing_country", "referrer"):
        code = pc.fill_null(pc.cast(g[c], pa.string()), "").combine_chunks().dictionary_encode().indices.to_numpy()
        planted = pc.is_valid(g["campaign_id"]).to_numpy(zero_copy_only=False)
        half = np.arange(len(code)) % 2 == 0
        seen = np.bincount(code[half], minlength=code.max() + 1) + 5
        rate = (np.bincount(code[half], planted[half], code.max() + 1) + 5 * planted.mean()) / seen
        out[c] = np.where(half, np.nan, rate[code])
    out["planted"] = pc.is_valid(g["campaign_id"]).to_numpy(zero_copy_only=False)
    return out


def main() -> None:
    """Print a table of columns by world, the largest first."""
    rows: dict[str, list[float]] = {}
    for world in sys.argv[1:]:
        f = features(Path(world))
        planted = f.pop("planted")
        for name, values in f.items():
            known = ~np.isnan(values)
            rows.setdefault(name, []).append(auc(values[known], planted[known]))
    for name, values in sorted(rows.items(), key=lambda r: -max(r[1])):
        print(f"| {name} | " + " | ".join(f"{v:.2f}" for v in values) + " |")


if __name__ == "__main__":
    main()
