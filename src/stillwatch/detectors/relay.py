"""Accounts that stop using a wording just when others begin: replacement after a ban.

Where at least ``min_stops`` accounts leave a wording within ``gap_hours`` and do not come back to it, the hours after that are
a *wake*. New accounts that begin with the wording in a wake are counted against the share of all hours that are wakes.
Stops in the last two days of the log are not known to be stops and do not count.
"""

from stillwatch.detectors import Detector, Example

_OLD = [(a, "wording", "w", 50, 0, 60 * 100 + k) for k, a in enumerate("abcd")]
_NEW = [(a, "wording", "w", 50, 60 * 102 + 7 * k, 60 * 300) for k, a in enumerate("efgh")]
_LOG = [("z", "wording", "q", 9, 0, 60 * 400), ("y", "wording", "q", 9, 0, 60 * 400)]

DETECTOR = Detector(
    name="relay",
    family="tempo",
    technique="AML.T0021",
    meaning="accounts that take up a wording just after others dropped it for good, as replacements for banned ones do",
    shape="ties",
    needs=("exchanges.prompt",),
    params={"min_stops": 3, "min_holders": 6, "max_share": 0.1, "min_bits": 8, "min_lift": 3},
    steps={
        "relay_users": """
            SELECT o.account AS account, o.value AS value, h.holders AS holders,
                   date_trunc('hour', o.first) AS begins, date_trunc('hour', o.last) AS stops
            FROM observations o
            JOIN holders h ON h.kind = o.kind AND h.value = o.value
            CROSS JOIN population p
            WHERE o.kind = 'wording' AND o.count >= 3 AND h.holders >= $min_holders
              AND h.holders <= greatest(20, $max_share * p.customers)""",
        "relay_span": "SELECT min(begins) AS first, max(stops) AS last FROM relay_users",
        "relay_stops": """
            SELECT u.value AS value, u.stops AS slot, count(*) AS stopped
            FROM relay_users u CROSS JOIN relay_span s
            WHERE u.stops < s.last - INTERVAL 48 HOUR
            GROUP BY u.value, u.stops""",
        "relay_wakes": """
            SELECT a.value AS value, a.slot AS slot, CAST(sum(b.stopped) AS BIGINT) AS stopped
            FROM relay_stops a JOIN relay_stops b
              ON b.value = a.value AND b.slot <= a.slot AND b.slot > a.slot - INTERVAL 4 HOUR
            GROUP BY a.value, a.slot
            HAVING sum(b.stopped) >= $min_stops""",
        "relay_taken": """
            SELECT DISTINCT u.account AS account, u.value AS value
            FROM relay_users u JOIN relay_wakes w
              ON w.value = u.value AND u.begins >= w.slot AND u.begins <= w.slot + INTERVAL 6 HOUR""",
        "relay_left": """
            SELECT DISTINCT u.account AS account, u.value AS value
            FROM relay_users u JOIN relay_wakes w
              ON w.value = u.value AND u.stops <= w.slot AND u.stops > w.slot - INTERVAL 4 HOUR""",
        "relay_counted": """
            SELECT t.value AS value, t.taken AS taken, u.holders AS holders,
                   u.holders * least(1.0, w.wakes * 7.0 / u.hours) AS expected
            FROM (SELECT value, count(*) AS taken FROM relay_taken GROUP BY value) t
            JOIN (SELECT value, count(*) AS wakes FROM relay_wakes GROUP BY value) w ON w.value = t.value
            JOIN (SELECT r.value AS value, max(r.holders) AS holders,
                         greatest(24.0, max(date_diff('hour', s.first, s.last))) AS hours
                  FROM relay_users r CROSS JOIN relay_span s GROUP BY r.value) u ON u.value = t.value""",
        "relay_coherent": """
            SELECT value, holders, (taken * log2(taken / expected) - (taken - expected) * 1.4426950408889634) / taken
                   AS bits
            FROM relay_counted
            WHERE taken >= $min_lift * expected
              AND taken * log2(taken / expected) - (taken - expected) * 1.4426950408889634 >= $min_bits""",
        "relay": """
            SELECT e.account AS account, 'relay' AS kind, c.value AS value, c.bits AS bits, c.holders AS holders
            FROM relay_coherent c
            JOIN (SELECT account, value FROM relay_taken UNION SELECT account, value FROM relay_left) e
              ON e.value = c.value""",
    },
    examples=[
        Example(
            "four stop, four take over within hours",
            _OLD + _NEW + _LOG,
            {(a, b) for a in "abcdefgh" for b in "abcdefgh" if a < b},
        ),
        Example(
            "users of one tool who come and go at all times",
            [(a, "wording", "w", 50, 60 * 40 * k, 60 * 40 * k + 900) for k, a in enumerate("abcdefgh")] + _LOG,
        ),
    ],
)
