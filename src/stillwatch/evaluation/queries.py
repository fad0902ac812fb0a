"""The queries behind the leak probe's columns: each gives account_id and numbers, over a log's canonical columns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A value that accounts hold, as an expression over the table; one with few values gets a column for each."""

    name: str
    value: str
    family: str
    few_values: bool = False


NET = (
    "CASE WHEN contains(ip, ':') THEN array_to_string(string_split(ip, ':')[1:3], ':') "
    "ELSE regexp_replace(ip, '[.][0-9]+$', '') END"
)
SETTINGS = (
    "concat_ws('/', coalesce(max_tokens::VARCHAR, '-'), coalesce(temperature::VARCHAR, '-'), "
    "coalesce(n::VARCHAR, '-'), logprobs, thinking, stream, batch)"
)

KINDS = (
    Kind("address", "ip", "network"),
    Kind("network", NET, "network"),
    Kind("asn", "asn::VARCHAR", "network", True),
    Kind("country", "country", "network", True),
    Kind("client", "user_agent", "client", True),
    Kind("ja4", "ja4", "client", True),
    Kind("channel", "channel", "client", True),
    Kind("model", "model", "client", True),
    Kind("tools", "array_to_string(list_sort(tools), ',')", "client"),
    Kind("settings", SETTINGS, "settings"),
    Kind("temperature", "temperature::VARCHAR", "settings", True),
    Kind("max tokens", "max_tokens::VARCHAR", "settings", True),
    Kind("status", "status::VARCHAR", "outcome", True),
    Kind("stop reason", "stop_reason", "outcome", True),
    Kind("end user", "end_user", "client"),
    Kind("conversation", "conversation_id", "session"),
)
"""Of an exchange."""

TRAITS = (
    Kind("card", "payment_hash", "sharing"),
    Kind("card issuer", "payment_issuer", "sharing", True),
    Kind("phone", "phone_hash", "sharing"),
    Kind("mail domain", "email_domain", "sharing", True),
    Kind("referrer", "referrer", "sharing", True),
    Kind("sign-up address", "signup_ip", "sharing"),
    Kind("sign-up network", NET.replace("ip", "signup_ip"), "sharing"),
    Kind("sign-up ja4", "signup_ja4", "sharing", True),
    Kind("organisation", "org_id", "sharing"),
    Kind("plan", "plan", "identity", True),
    Kind("programme", "programme", "identity", True),
    Kind("verification", "verification", "identity", True),
    Kind("billing country", "billing_country", "identity", True),
    Kind("phone country", "phone_country", "identity", True),
    Kind("sign-up hour of the log", "epoch_us(created_at) // 3600000000", "sharing"),
)
"""Of an account."""

HOLDING = """
CREATE OR REPLACE TEMP TABLE holding AS
SELECT account_id, value, count(*) AS n
FROM (SELECT account_id, $value AS value FROM $table) WHERE value IS NOT NULL GROUP BY account_id, value"""

SHARING = """
SELECT account_id, count(*) AS kinds, count(*) / sum(n) AS kinds_per_row, max(n) / sum(n) AS top_share,
       ln(sum(n)) - sum(n * ln(n)) / sum(n) AS entropy,
       sum(n * holders) / sum(n) AS holders, min(holders) AS holders_of_rarest, max(holders) AS holders_of_commonest
FROM holding JOIN (SELECT value, count(*) AS holders FROM holding GROUP BY value) USING (value)
GROUP BY account_id"""

VALUE_SHARE = """
SELECT account_id, coalesce(sum(n) FILTER (WHERE value = $value), 0) / sum(n) AS share
FROM holding GROUP BY account_id"""

GAPS = """
SELECT account_id, at_us, (at_us - lag(at_us) OVER (PARTITION BY account_id ORDER BY at_us)) / 1e6 AS gap_s
FROM (SELECT account_id, epoch_us(time) AS at_us FROM exchanges)"""

EXCHANGE_QUERIES = {
    "volume": """
SELECT account_id, count(*) AS exchanges, count(DISTINCT day) AS active_days, max(at_us) - min(at_us) AS span,
       count(*) / count(DISTINCT day) AS exchanges_per_active_day,
       count(DISTINCT day) / (max(day) - min(day) + 1) AS share_of_days_active,
       min(at_us) AS first_time, max(at_us) AS last_time, avg(at_us) AS mean_time
FROM (SELECT account_id, epoch_us(time) AS at_us, epoch_us(time) // 86400000000 AS day FROM exchanges)
GROUP BY account_id""",
    "time": """
SELECT account_id, entropy(hour) AS entropy_of_hours, count(DISTINCT hour) AS hours_used,
       avg((hour < 6)::INT) AS night_share, avg((hour BETWEEN 8 AND 17)::INT) AS office_share,
       avg((weekday IN (0, 6))::INT) AS weekend_share, entropy(weekday) AS entropy_of_weekdays,
       avg(sin(pi() * hour / 12)) AS hour_sine, avg(cos(pi() * hour / 12)) AS hour_cosine,
       avg(second) AS mean_second, avg((at_us % 1000 = 0)::INT) AS whole_millisecond_share,
       avg((at_us % 1000000 = 0)::INT) AS whole_second_share
FROM (SELECT account_id, epoch_us(time) AS at_us, epoch_us(time) // 3600000000 % 24 AS hour,
             epoch_us(time) // 1000000 % 60 AS second,
             (epoch_us(time) // 86400000000 + 4) % 7 AS weekday FROM exchanges)
GROUP BY account_id""",
    "session": f"""
SELECT account_id, quantile_cont(gap_s, 0.05) AS gap_5, quantile_cont(gap_s, 0.25) AS gap_25,
       quantile_cont(gap_s, 0.5) AS gap_50, quantile_cont(gap_s, 0.75) AS gap_75, quantile_cont(gap_s, 0.95) AS gap_95,
       max(gap_s) AS longest_gap,
       (stddev_pop(gap_s) - avg(gap_s)) / (stddev_pop(gap_s) + avg(gap_s) + 1e-9) AS burstiness,
       avg((gap_s < 10)::INT) AS gap_below_10_s_share, 1 + sum((gap_s > 1800)::INT) AS sessions,
       count(*) / (1 + sum((gap_s > 1800)::INT)) AS exchanges_per_session
FROM ({GAPS}) GROUP BY account_id""",
    "turns": """
SELECT account_id, avg(turn) AS mean_turn, max(turn) AS highest_turn, avg((turn = 0)::INT) AS first_turn_share,
       avg((turn IS NULL)::INT) AS turn_null_share, avg((conversation_id IS NULL)::INT) AS conversation_null_share
FROM exchanges GROUP BY account_id""",
    "tokens": """
SELECT account_id, avg(input_tokens) AS input_tokens_mean, stddev_pop(input_tokens) AS input_tokens_sd,
       quantile_cont(input_tokens, 0.1) AS input_tokens_10, quantile_cont(input_tokens, 0.5) AS input_tokens_50,
       quantile_cont(input_tokens, 0.9) AS input_tokens_90,
       avg(output_tokens) AS output_tokens_mean, stddev_pop(output_tokens) AS output_tokens_sd,
       quantile_cont(output_tokens, 0.1) AS output_tokens_10, quantile_cont(output_tokens, 0.5) AS output_tokens_50,
       quantile_cont(output_tokens, 0.9) AS output_tokens_90,
       avg(reasoning_tokens) AS reasoning_tokens_mean, stddev_pop(reasoning_tokens) AS reasoning_tokens_sd,
       quantile_cont(reasoning_tokens, 0.9) AS reasoning_tokens_90,
       sum(output_tokens) AS output_tokens_total, sum(output_tokens) / (1 + sum(input_tokens)) AS output_per_input,
       avg((output_tokens >= max_tokens)::INT) AS output_at_limit_share
FROM exchanges GROUP BY account_id""",
    "settings": """
SELECT account_id, avg(max_tokens) AS max_tokens_mean, avg(temperature) AS temperature_mean,
       stddev_pop(temperature) AS temperature_sd, avg(n) AS n_mean, avg(logprobs::INT) AS logprobs_share,
       avg(thinking::INT) AS thinking_share, avg(stream::INT) AS stream_share, avg(batch::INT) AS batch_share,
       avg(len(tools)) AS tools_mean, max(len(tools)) AS tools_max, avg((len(tools) > 0)::INT) AS tools_share,
       avg(images) AS images_mean, avg((images > 0)::INT) AS images_share
FROM exchanges GROUP BY account_id""",
    "outcome": """
SELECT account_id, avg((status >= 400)::INT) AS error_share, avg((status = 429)::INT) AS rate_limited_share
FROM exchanges GROUP BY account_id""",
    "nulls": """
SELECT account_id, avg((end_user IS NULL)::INT) AS end_user_null, avg((channel IS NULL)::INT) AS channel_null,
       avg((ip IS NULL)::INT) AS ip_null, avg((asn IS NULL)::INT) AS asn_null,
       avg((user_agent IS NULL)::INT) AS client_null, avg((ja4 IS NULL)::INT) AS ja4_null,
       avg((tools IS NULL)::INT) AS tools_null, avg((images IS NULL)::INT) AS images_null,
       avg((reasoning_tokens IS NULL)::INT) AS reasoning_tokens_null, avg((max_tokens IS NULL)::INT) AS max_tokens_null,
       avg((temperature IS NULL)::INT) AS temperature_null, avg((n IS NULL)::INT) AS n_null,
       avg((logprobs IS NULL)::INT) AS logprobs_null, avg((thinking IS NULL)::INT) AS thinking_null,
       avg((stream IS NULL)::INT) AS stream_null, avg((batch IS NULL)::INT) AS batch_null,
       avg((status IS NULL)::INT) AS status_null, avg((stop_reason IS NULL)::INT) AS stop_reason_null
FROM exchanges GROUP BY account_id""",
    "ids": """
SELECT account_id, rank() OVER (ORDER BY account_id) AS rank_of_account_id, length(account_id) AS length_of_account_id,
       try_cast(regexp_extract(account_id, '([0-9]+)$', 1) AS DOUBLE) AS number_in_account_id,
       rank() OVER (ORDER BY first_file, first_row) AS place_of_first_exchange,
       rank() OVER (ORDER BY exchange_id) AS rank_of_first_exchange_id, exchange_id_length AS length_of_exchange_ids,
       rank() OVER (ORDER BY conversation_id) AS rank_of_first_conversation_id,
       rank() OVER (ORDER BY end_user) AS rank_of_first_end_user
FROM (SELECT account_id, min(filename) AS first_file, min_by(file_row_number, (filename, file_row_number)) AS first_row,
             min_by(exchange_id, time) AS exchange_id, avg(length(exchange_id)) AS exchange_id_length,
             min_by(conversation_id, time) AS conversation_id, min_by(end_user, time) AS end_user
      FROM exchanges GROUP BY account_id)""",
}
"""By family, over the table of exchanges."""

ACCOUNT_QUERIES = {
    "identity": """
SELECT account_id, first_time - created AS age_at_first_use, created AS created,
       created // 3600000000 % 24 AS sign_up_hour,
       (created // 86400000000 + 4) % 7 AS sign_up_weekday, (created % 1000000 = 0)::INT AS sign_up_whole_second,
       (billing_country = phone_country)::INT AS bill_and_phone_agree,
       (billing_country = country)::INT AS bill_and_address_agree,
       (phone_country = country)::INT AS phone_and_address_agree, (signup_ja4 = ja4)::INT AS sign_up_ja4_still_used,
       (org_id IS NOT NULL)::INT AS has_organisation, (payment_hash IS NULL)::INT AS card_null,
       (phone_hash IS NULL)::INT AS phone_null, (referrer IS NULL)::INT AS referrer_null,
       (email_domain IS NULL)::INT AS mail_domain_null, (signup_ip IS NULL)::INT AS sign_up_address_null
FROM (SELECT *, epoch_us(created_at) AS created FROM accounts)
LEFT JOIN (SELECT account_id, min(epoch_us(time)) AS first_time, mode(country) AS country, mode(ja4) AS ja4
           FROM exchanges GROUP BY account_id) USING (account_id)""",
    "ids": """
SELECT account_id, rank() OVER (ORDER BY filename, file_row_number) AS place_in_accounts,
       rank() OVER (ORDER BY payment_hash) AS rank_of_card, rank() OVER (ORDER BY phone_hash) AS rank_of_phone,
       rank() OVER (ORDER BY signup_ip) AS rank_of_sign_up_address,
       rank() OVER (ORDER BY email_domain) AS rank_of_mail_domain, length(email_domain) AS length_of_mail_domain,
       rank() OVER (ORDER BY org_id) AS rank_of_organisation
FROM accounts""",
}
"""By family, over the table of accounts."""
