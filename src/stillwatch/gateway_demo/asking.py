"""Requests over HTTP, as a customer, a gateway or a person makes them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from stillwatch.errors import Transient

TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body read as JSON; Transient where it is none."""
        try:
            return json.loads(self.body)
        except ValueError as e:
            raise Transient(f"an answer that is no JSON (status {self.status}): {self.text[:200]}") from e


def ask(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One request over a connection of its own. Transient where nobody answers."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=TIMEOUT_S)
    try:
        connection.request(method, f"{place.path}?{place.query}".rstrip("?"), body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
    except (OSError, http.client.HTTPException) as e:
        raise Transient(f"{method} {place.netloc}{place.path}: {e or type(e).__name__}") from e
    finally:
        connection.close()


def post_json(url: str, value: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a value as JSON."""
    return ask("POST", url, json.dumps(value).encode(), {"content-type": "application/json", **(headers or {})})


def post_form(url: str, fields: Mapping[str, str]) -> Answer:
    """Send fields as a page's form does."""
    return ask("POST", url, urlencode(fields).encode(), {"content-type": "application/x-www-form-urlencoded"})
