"""Users of one wording who are active in the same hours, beyond everybody's rhythm of the day.

For a wording with ``worked`` account-hours and hours that hold a share p of all account-hours, ``worked x p`` of its users
would meet in an hour by chance. ``tied`` counts those who meet beyond the first; its expectation is the Poisson
``sum of m - 1 + exp(-m)``. Balancing a load over accounts and pausing all of them at once both show here; so do a class
and a hackathon, which is why it only proposes.
"""

from stillwatch.detectors import Detector, Example


def _log(hours: dict[str, list[int]]) -> list[dict[str, object]]:
    return [{"account": a, "time": 60 * h, "wording": "w"} for a, hs in hours.items() for h in hs]


_NOISE = [{"account": f"o{k}", "time": 60 * h, "wording": f"v{k}"} for k in range(40) for h in range(k % 5, 96, 5)]

DETECTOR = Detector(
    name="lockstep",
    family="tempo",
    technique="AML.T0024.002",
    meaning="accounts that use one wording in the same hours, beyond everybody's daily rhythm",
    shape="ties",
    needs=("exchanges.prompt",),
    params={"min_holders": 5, "max_share": 0.2, "min_bits": 20, "min_lift": 2.5, "min_cover": 0.25},
    steps={
        "lockstep_hours": """
            SELECT a.customer AS account, f.wording AS wording, date_trunc('hour', f.time) AS slot
            FROM facts f JOIN accounts a ON a.account = f.account
            WHERE f.wording IN (
                SELECT h.value FROM holders h CROSS JOIN population p
                WHERE h.kind = 'wording' AND h.holders >= $min_holders
                  AND h.holders <= greatest(20, $max_share * p.customers))
            GROUP BY a.customer, f.wording, date_trunc('hour', f.time)""",
        "lockstep_everybody": """
            SELECT slot, count(*) * 1.0 / sum(count(*)) OVER () AS share FROM (
                SELECT a.customer AS account, date_trunc('hour', f.time) AS slot
                FROM facts f JOIN accounts a ON a.account = f.account
                GROUP BY a.customer, date_trunc('hour', f.time)) worked
            GROUP BY slot""",
        "lockstep_worked": """
            SELECT wording, count(*) AS worked, count(DISTINCT account) AS holders
            FROM lockstep_hours GROUP BY wording""",
        "lockstep_tied": """
            SELECT wording, CAST(sum(met - 1) AS DOUBLE) AS tied FROM (
                SELECT wording, slot, count(*) AS met FROM lockstep_hours GROUP BY wording, slot) cells
            GROUP BY wording""",
        "lockstep_chance": """
            SELECT w.worked AS worked, sum(w.worked * e.share - 1 + exp(-w.worked * e.share)) AS expected
            FROM (SELECT DISTINCT worked FROM lockstep_worked) w CROSS JOIN lockstep_everybody e
            GROUP BY w.worked""",
        "lockstep_coherent": """
            SELECT w.wording AS wording, w.holders AS holders,
                   (t.tied * log2(t.tied / greatest(c.expected, 1e-6)) - (t.tied - c.expected) * 1.4426950408889634)
                       / w.worked AS bits
            FROM lockstep_worked w
            JOIN lockstep_tied t ON t.wording = w.wording
            JOIN lockstep_chance c ON c.worked = w.worked
            WHERE t.tied >= $min_lift * c.expected AND t.tied >= $min_cover * w.worked
              AND t.tied * log2(t.tied / greatest(c.expected, 1e-6))
                  - (t.tied - c.expected) * 1.4426950408889634 >= $min_bits""",
        "lockstep": """
            SELECT DISTINCT l.account AS account, 'lockstep' AS kind, l.wording AS value,
                   c.bits AS bits, c.holders AS holders
            FROM lockstep_coherent c JOIN lockstep_hours l ON l.wording = c.wording""",
    },
    examples=[
        Example(
            "six accounts, the same twelve hours",
            [(a, "wording", "w") for a in "abcdef"],
            {(a, b) for a in "abcdef" for b in "abcdef" if a < b},
            tables={"facts": _log({a: list(range(3, 96, 8)) for a in "abcdef"}) + _NOISE},
        ),
        Example(
            "six users of one tool, each at hours of their own",
            [(a, "wording", "w") for a in "abcdef"],
            tables={"facts": _log({a: list(range(k, 96, 17)) for k, a in enumerate("abcdef")}) + _NOISE},
        ),
    ],
)
