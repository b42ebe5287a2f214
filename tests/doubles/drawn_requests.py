"""Requests that Schemathesis draws from a service's OpenAPI document, and what that document says about any request."""

import contextlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jsonschema_rs
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as examples

from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.openapi import openapi

_UNTYPED = (
    re.compile(r"did not occur in training"),
    re.compile(r"idempotency_key (appears in this list|was used before) with another request"),
    # OpenAPI cannot make a parameter depend on the body, and allows any other parameter.
    re.compile(r"Object (missing required|contains unknown) field|the query string has a parameter"),
    re.compile(
        r"\.\w+ (is|has|contains) .*(pixels|a file of|base64 text|PNG|images|per colour|scans|tables|parts|chunks)"
    ),
)
"""Refusals of a value that has the type that the document states."""


@dataclass(frozen=True)
class Request:
    body: bytes
    content_type: str
    query: str = ""


def draw(contract: Contract, count: int, *, allowed: bool, start: int = 0) -> list[Request]:
    """Return requests that the document of a contract allows, or others.

    Args:
        start: of the random numbers.
    """
    operation = schemathesis.openapi.from_dict(openapi(contract))["/predict"]["POST"]
    mode = schemathesis.GenerationMode.POSITIVE if allowed else schemathesis.GenerationMode.NEGATIVE
    drawn: list[Request] = []

    @examples(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @seed(start)
    @given(operation.as_strategy(generation_mode=mode))
    def collect(case: schemathesis.Case) -> None:
        sent = case.as_transport_kwargs(base_url="http://service")
        body = json.dumps(sent["json"]).encode() if "json" in sent else sent.get("data") or b""
        if isinstance(body, bytes):
            drawn.append(Request(body, case.media_type or "", _query(sent.get("params") or {})))

    collect()
    return drawn


class Document:
    """What the OpenAPI document of a contract says about requests to `/predict`."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        document = openapi(contract)
        post = document["paths"]["/predict"]["post"]
        self._content = post["requestBody"]["content"]
        schemas = {"components": document["components"]}
        self._body = jsonschema_rs.validator_for({**self._content["application/json"]["schema"], **schemas})
        self._query = {item["name"]: jsonschema_rs.validator_for(item["schema"]) for item in post.get("parameters", [])}

    def allows(self, request: Request) -> bool:
        """Return whether a request follows the document; a duplicate name in JSON does not."""
        for name, value in parse_qsl(request.query, keep_blank_values=True):
            if name in self._query and not self._query[name].is_valid(value):
                return False
        if request.content_type != "application/json":
            return request.content_type in self._content
        try:
            return bool(self._body.is_valid(json.loads(request.body, object_pairs_hook=_once, parse_constant=_nothing)))
        except (ValueError, RecursionError):
            return False

    def explains(self, answer: dict[str, Any], request: Request) -> bool:
        """Return whether a refusal is one that the document's types cannot state."""
        error = answer["error"]
        if "expected a UTC time from" in error or "Invalid RFC3339" in error:
            return not all(
                self._is_moment_within(answer["field"], value) for value in _places(answer["field"], request)
            )
        return any(pattern.search(error) for pattern in _UNTYPED)

    def _is_moment_within(self, field: str, value: object) -> bool:
        if not isinstance(value, str):
            return True  # its type speaks for itself
        try:
            moment = datetime.fromisoformat(value.upper())
        except ValueError:
            return False  # the 30th of February, the year 0, a leap second
        begins, ends = self._contract.moments[("service_time", "asked_at").index(field.split(".")[-1])]
        return begins <= moment < ends


def _places(field: str, request: Request) -> list[Any]:
    """Return what stands at a field: in the query, which is read next to a body of JSON too, and in the body."""
    query = dict(parse_qsl(request.query))
    found = [query[field]] if field in query else []
    if request.content_type == "application/json":
        value: Any = json.loads(request.body)
        with contextlib.suppress(LookupError, TypeError):
            for position, name in re.findall(r"\[(\d+)\]|(\w+)", field):
                value = value[int(position) if position else name]
            found.append(value)
    return found


def _query(parameters: dict[str, Any]) -> str:
    return urlencode({name: value for name, value in parameters.items() if isinstance(value, str)})


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name appears twice")
    return dict(pairs)


def _nothing(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
