"""The table of routes as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from stillwatch import __version__
from stillwatch.serving.edge import OUR_HEADER, Route
from stillwatch.types import Rung, Standing

METHODS = ("get", "post", "put", "patch", "delete", "head", "options")

TEXT: Mapping[str, Any] = {"type": "string"}
TEXTS: Mapping[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
FLAG: Mapping[str, Any] = {"type": "string", "enum": ["true", "false", "1", "0"]}
LIMIT: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": 10_000}
QUERY: Mapping[str, Mapping[str, Any]] = {
    "limit": LIMIT, "preview": FLAG, "unmask": FLAG, "open": FLAG,
    "standing": {"type": "array", "items": {"type": "string", "enum": [str(s) for s in Standing]}},
}  # fmt: skip
"""What may stand in a query, by name; other names take any text."""
BODY: Mapping[str, Mapping[str, Any]] = {
    "accounts": TEXTS, "actions": TEXTS, "settings": {"type": "object"},
    "rung": {"type": "string", "enum": [str(r) for r in Rung]},
    "verdict": {"type": "string", "enum": ["positive", "negative", "unsure"]},
    "outcome": {"type": "string", "enum": ["upheld", "overturned"]},
}  # fmt: skip
"""What may stand in a field of a body, likewise. What hangs on several fields, or on what there is, no schema says."""
PAGES = (("get", "/appeals"),)
"""Answered with a page for people, errors too."""

ERROR = {
    "type": "object",
    "required": ["error", "hint", "request_id"],
    "properties": {
        "error": {"type": "string", "description": "what is wrong"},
        "hint": {"type": "string", "description": "what to do next"},
        "request_id": {"type": "string", "description": "names this request in the log"},
    },
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """One entry for each path and method; a route for every method is told for GET and POST."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for method in ("get", "post") if route.method == "*" else (route.method.lower(),):
            paths.setdefault(path, {})[method] = operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stillwatch",
            "version": __version__,
            "summary": "Beside the gateway: what is in force, and why",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "gateway_token": {"type": "apiKey", "in": "header", "name": OUR_HEADER},
            },
            "schemas": {"Error": ERROR},
        },
    }


def operation(route: Route, method: str) -> dict[str, Any]:
    """What a route takes and gives; its right, or why it is open, is told in words."""
    told: dict[str, Any] = {
        "operationId": f"{method}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": route.summary,
        "description": f"Needs the right `{route.right}`." if route.right else f"Open: {route.open_because}.",
        "security": [{"gateway_token" if route.token_header else "token": []}] if route.right else [],
        "parameters": [*_parameters(route)],
        "responses": {"2XX": {"description": "as asked"}, "default": _error()},
    }
    if route.token_header:
        told["responses"]["503"] = _error("no token that holds: an error and no denial, which would be the customer's")
        told["responses"]["default"] = {"description": "refused, in the words of the customer's API"}
    if (method, route.path) in PAGES:
        told["responses"] = {s: {"description": "a page", "content": {"text/html": {}}} for s in ("2XX", "default")}
    if route.fields and method != "get":
        told["requestBody"] = {"content": {"application/json": {"schema": _object(route.fields)}}}
    return told


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)(?::\w+)?\}", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for name, meaning in route.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": dict(QUERY.get(name, TEXT))}


def _object(fields: Mapping[str, str]) -> dict[str, Any]:
    properties = {name: {"description": meaning, **BODY.get(name, TEXT)} for name, meaning in fields.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _error(meaning: str = "what is wrong, and what to do") -> dict[str, Any]:
    return {
        "description": meaning,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
