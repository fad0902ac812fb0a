"""Every table: its columns, types and what they mean. Schemas, docs and checks all come from here.

``EXCHANGES``, ``ACCOUNTS`` and ``MODELS`` are what an adapter yields (the canonical form). ``FACTS`` is what is kept of an
exchange once its content has been read: hashes, counts and marks, never text or a personal value. Hashes are signed
64-bit integers, keyed (``privacy.py``), 0 or null where there was nothing to hash; engines never hash.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

UTC_US = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its Arrow type, what it means, whether a row without it is refused, its OpenTelemetry name."""

    name: str
    type: pa.DataType
    meaning: str
    required: bool = False
    otel: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A named, ordered set of columns."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type, nullable=not c.required) for c in self.columns])

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.columns]

    @property
    def required(self) -> list[str]:
        return [c.name for c in self.columns if c.required]


_S, _I2, _I4, _I8, _F4, _B = pa.string(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.bool_()
C = Column

EXCHANGES = Table("exchanges", "one row per request to a model", (
    C("exchange_id", _S, "unique; the idempotency key", True, "gen_ai.response.id"),
    C("time", UTC_US, "arrival of the request", True),
    C("account_id", _S, "the account whose key was used", True),
    C("end_user", _S, "the customer's own user, as passed on", otel="enduser.pseudo.id"),
    C("channel", _S, "api, console, cloud:NAME, reseller:NAME"),
    C("model", _S, "the model asked for", True, "gen_ai.request.model"),
    C("ip", _S, "client address", otel="client.address"),
    C("asn", _I4, "autonomous system of ip"),
    C("country", _S, "country of ip"),
    C("user_agent", _S, "client software", otel="user_agent.original"),
    C("ja4", _S, "TLS client fingerprint"),
    C("conversation_id", _S, "conversation this belongs to", otel="gen_ai.conversation.id"),
    C("turn", _I2, "messages before this one"),
    C("system", _S, "system text", otel="gen_ai.system_instructions"),
    C("prompt", _S, "the last user turn"),
    C("response", _S, "the answer"),
    C("tools", pa.list_(_S), "names of the tools offered"),
    C("images", _I2, "images in the request"),
    C("input_tokens", _I4, "tokens read", otel="gen_ai.usage.input_tokens"),
    C("output_tokens", _I4, "tokens written", otel="gen_ai.usage.output_tokens"),
    C("reasoning_tokens", _I4, "tokens of reasoning", otel="gen_ai.usage.reasoning.output_tokens"),
    C("max_tokens", _I4, "limit asked for", otel="gen_ai.request.max_tokens"),
    C("temperature", _F4, "sampling temperature asked for", otel="gen_ai.request.temperature"),
    C("n", _I2, "answers asked for", otel="gen_ai.request.choice.count"),
    C("logprobs", _B, "token probabilities asked for"),
    C("thinking", _B, "reasoning asked for"),
    C("stream", _B, "streamed", otel="gen_ai.request.stream"),
    C("batch", _B, "sent through the batch API"),
    C("status", _I2, "HTTP status"),
    C("stop_reason", _S, "why the answer ended", otel="gen_ai.response.finish_reasons"),
))  # fmt: skip

ACCOUNTS = Table("accounts", "one row per account", (
    C("account_id", _S, "the account", True),
    C("created_at", UTC_US, "sign-up"),
    C("org_id", _S, "the organisation it declares: accounts of one org are one customer"),
    C("programme", _S, "none, education, research, startup"),
    C("plan", _S, "free, payg, enterprise"),
    C("email_domain", _S, "domain of its mail address"),
    C("payment_hash", _S, "its payment instrument"),
    C("payment_issuer", _S, "who issued that"),
    C("billing_country", _S, "country of the bill"),
    C("phone_country", _S, "country of the phone"),
    C("phone_hash", _S, "its phone"),
    C("signup_ip", _S, "address at sign-up"),
    C("signup_ja4", _S, "TLS fingerprint at sign-up"),
    C("referrer", _S, "where it came from"),
    C("verification", _S, "none, email, phone, card, domain, id, contract"),
))  # fmt: skip

MODELS = Table("models", "one row per model", (
    C("model", _S, "name of the model", True),
    C("released_at", UTC_US, "its release", True),
))  # fmt: skip

SKETCH_WIDTH = 48
"""Sampled shingles kept of a prompt until its wording family is known: head, tail and a bottom-k of the middle."""

FACTS = Table("facts", "one row per exchange: what is kept of it", (
    C("account", _I4, "dense number of the account (``seen`` maps it to account_id)", True),
    C("time", UTC_US, "arrival", True),
    C("model", _I4, "number of the model in the run's list", True),
    C("exchange", _I8, "hash of exchange_id", True),
    C("slot", _I4, "quarters of a day from 1970 to its arrival"),
    C("channel", _I8, "hash of the channel"),
    C("end_user", _I8, "hash of the customer's own user"),
    C("address", _I8, "hash of the whole address"),
    C("net", _I8, "hash of the /24 or /48 the address lies in"),
    C("asn", _I4, "autonomous system"),
    C("country", _I8, "hash of the country of the address"),
    C("client", _I8, "hash of the client software"),
    C("tls", _I8, "hash of the TLS fingerprint"),
    C("settings", _I8, "hash of the request settings taken together"),
    C("conversation", _I8, "hash of the conversation"),
    C("turn", _I2, "messages before this one; null where unknown"),
    C("system", _I8, "wording family of the system text"),
    C("tools", _I8, "hash of the sorted names of tools"),
    C("wording", _I8, "wording family of the last user turn: the fixed wrapper, whatever fills its slot"),
    C("prompt", _I8, "hash of the normalised last user turn: equal for a word-for-word re-ask"),
    C("prompt_chars", _I4, "length of the last user turn, characters"),
    C("capability", pa.int8(), "index into types.CAPABILITIES of the likeliest"),
    C("capabilities", pa.int16(), "a bit for each of types.CAPABILITIES that holds"),
    C("elicitation", _F4, "0-1: reads like training data being made (traces, rubrics, rewriting, generation, pretexts)"),
    C("elicitation_kind", pa.int8(), "index into types.ELICITATIONS of the strongest mark, 0 = none"),
    C("elicitation_kinds", pa.int16(), "a bit for each of types.ELICITATIONS marked with at least 0.5"),
    C("meaning", _I8, "sign code of the prompt's meaning: like meanings differ in few of its 64 bits; 0 = none"),
    C("response_chars", _I4, "length of the answer, characters"),
    C("response_trace", _B, "the answer opens with reasoning in plain sight"),
    C("appetite", pa.int8(), "0-5: asked for reasoning, several answers, log-probabilities, room, one turn alone"),
    C("images", _I2, "images in the request"),
    C("input_tokens", _I4, "tokens read"),
    C("output_tokens", _I4, "tokens written"),
    C("reasoning_tokens", _I4, "tokens of reasoning"),
    C("max_tokens", _I4, "limit asked for"),
    C("n", _I2, "answers asked for"),
    C("temperature", _F4, "sampling temperature asked for"),
    C("logprobs", _B, "token probabilities asked for"),
    C("thinking", _B, "reasoning asked for"),
    C("batch", _B, "sent through the batch API"),
    C("status", _I2, "HTTP status"),
))  # fmt: skip

OBSERVATIONS = Table("observations", "facts folded per account, kind and value", (
    C("account", _I4, "dense number of the account", True),
    C("kind", _S, "what was seen, a name some fingerprint declares", True),
    C("value", _I8, "keyed hash of it", True),
    C("count", _I8, "exchanges it was seen in (1 for account traits)", True),
    C("first", UTC_US, "first seen"),
    C("last", UTC_US, "last seen"),
))  # fmt: skip

PROFILES = Table("accounts", "what is kept of an account, in the engine's table ``accounts``", (
    C("account", _I4, "dense number of the account", True),
    C("customer", _I4, "number of the customer: the first account of its declared organisation, or itself", True),
    C("created_at", UTC_US, "sign-up"),
    C("org", _I8, "hash of the organisation it declares"),
    C("programme", _S, "none, education, research, startup"),
    C("plan", _S, "free, payg, enterprise"),
    C("verification", _S, "none, email, phone, card, domain, id, contract"),
    C("card", _I8, "hash of its payment instrument"),
    C("issuer", _I8, "hash of who issued that"),
    C("phone", _I8, "hash of its phone"),
    C("mail_domain", _I8, "hash of its mail domain"),
    C("referrer", _I8, "hash of where it came from"),
    C("signup_day", _I8, "days from 1970 to its sign-up; 0 where unknown"),
    C("signup_net", _I8, "hash of the /24 or /48 it signed up from"),
    C("signup_tls", _I8, "hash of the TLS fingerprint at sign-up"),
    C("billing_country", _I8, "hash of the country of the bill"),
    C("phone_country", _I8, "hash of the country of the phone"),
))  # fmt: skip

TRUTH = Table("truth", "one row per account of a simulated log", (
    C("account_id", _S, "the account", True),
    C("campaign_id", _S, "the planted campaign; null for an honest account"),
    C("population", _S, "the honest population, or the campaign's shape", True),
))  # fmt: skip
