"""Describe the service by its contract, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from platform_assets.serving import files, pictures
from platform_assets.serving.answers import Schema
from platform_assets.serving.contract import Contract, ContractField
from platform_assets.serving.diagnosis import expectation, within
from platform_assets.serving.requests import MOMENTS, TEXT_MAX

_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX}
_UTC = "UTC, such as 2013-03-01T05:00:00Z."
_JSON = "application/json"
_JSON_TYPES = {"float": "number", "int": "integer", "bool": "boolean", "category": "string"}


Parameter = TypedDict("Parameter", {"name": str, "in": str, "required": bool, "description": str, "schema": Schema})


class Media(TypedDict):
    """A body of one content type."""

    schema: Schema


class Response(TypedDict):
    """The meaning of a status, and its body."""

    description: str
    content: NotRequired[dict[str, Media]]


def openapi(contract: Contract) -> dict[str, Any]:
    """Return the OpenAPI document of a contract; it depends on nothing else."""
    refusal: Media = {"schema": {"$ref": "#/components/schemas/Refusal"}}
    answered: Response = {
        "description": "The answers, in the order of the rows; each one is in the prediction log.",
        "content": {_JSON: _one_or_list("Answer", contract.max_rows)},
    }
    refused = {
        "408": "The body did not arrive in time.",
        "413": f"The body is larger than {contract.max_body_bytes} bytes.",
        "415": "The body is compressed, or an image file that is not accepted, or has another content type.",
        "422": "The body does not follow the contract; `field` says where.",
        "503": "No model is loaded, or the prediction cannot be logged; nothing was answered.",
    }
    responses = {"200": answered}
    for status, text in refused.items():
        responses[status] = {"description": text, "content": {_JSON: refusal}}
    predict = {
        "summary": f"Answer one {contract.entity} or a list of up to {contract.max_rows}.",
        **({"parameters": _parameters(contract)} if contract.takes_files else {}),
        "requestBody": {
            "required": True,
            "content": {_JSON: _one_or_list("Row", contract.max_rows), **_files(contract)},
        },
        "responses": responses,
    }
    ready: dict[str, Response] = {
        "200": {"description": "A model is loaded and warm."},
        "503": {"description": "Not yet; `problem` says why."},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": contract.title, "version": contract.sha256[:12], "x-contract-sha256": contract.sha256},
        "paths": {
            "/predict": {"post": predict},
            "/healthz": {"get": {"summary": "Is the process alive?", "responses": {"200": {"description": "Yes."}}}},
            "/readyz": {"get": {"summary": "Which model answers, and why?", "responses": ready}},
            "/metrics": {"get": {"summary": "Prometheus metrics.", "responses": {"200": {"description": "Text."}}}},
        },
        "components": {"schemas": {"Row": _row(contract), "Answer": _answer(contract), "Refusal": _REFUSAL}},
    }


def _closed(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_PATH: Schema = {"type": ["string", "null"], "description": "Dotted path."}
_REFUSAL = _closed({"error": {"type": "string"}, "field": _PATH})


def _row(contract: Contract) -> Schema:
    keys = "A retry with the same key gets the first answer."
    properties: dict[str, Schema] = {
        "entity": {**_TEXT, "description": f"The id of the {contract.entity}."},
        "service_time": _moment(contract, "service_time", f"When the {contract.entity} takes place."),
        "asked_at": _moment(contract, "asked_at", "The features use data up to this moment."),
        "features": _closed({item.name: _value(item) for item in contract.fields}),
        "idempotency_key": {**_TEXT, "type": ["string", "null"], "description": keys},
    }
    return {**_closed(properties), "required": ["entity", "service_time", "asked_at", "features"]}


def _moment(contract: Contract, name: str, about: str) -> Schema:
    text = within(contract.moments[MOMENTS.index(name)])
    if contract.clock_within is not None:
        text += f", at most {contract.clock_within.total_seconds() / 86_400:g} days from the server's clock"
    bounds = f"{text[0].upper()}{text[1:]}."
    return {"type": "string", "format": "date-time", "description": f"{about} {_UTC} {bounds}"}


def _files(contract: Contract) -> dict[str, Media]:
    if not contract.takes_files:
        return {}
    return {name: {"schema": {"type": "string", "format": "binary"}} for name in pictures.CONTENT_TYPES}


def _parameters(contract: Contract) -> list[Parameter]:
    """Return the query's parameters, for bodies that are files. OpenAPI cannot make them depend on the body."""
    properties = _row(contract)["properties"]
    rule = "Only with a body that is an image file, and {} there; as in a row of JSON."
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": rule.format("required" if name in files.REQUIRED else "optional"),
            "schema": {**properties[name], "type": "string"},
        }
        for name in (*files.REQUIRED, *files.OPTIONAL)
    ]


def _image(item: ContractField) -> Schema:
    height, width = item.sized
    level: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
    line: Schema = {"type": "array", "items": level, "minItems": width, "maxItems": width}
    return {
        "description": f"{item.description} ({expectation(item)})",
        "oneOf": [
            {"type": "string", "contentEncoding": "base64", "minLength": 1},
            {"type": "array", "items": line, "minItems": height, "maxItems": height},
        ],
    }


def _value(item: ContractField) -> Schema:
    if item.dtype == "image":
        return _image(item)
    kind = _JSON_TYPES[item.dtype]
    schema: Schema = {
        "type": [kind, "null"] if item.is_nullable else kind,
        "description": f"{item.description} ({expectation(item)})",
    }
    if item.dtype == "category":
        schema |= {"minLength": 1, "maxLength": TEXT_MAX}
    if item.low is not None:
        schema["minimum"] = item.low
    if item.high is not None:
        schema["maximum"] = item.high
    return schema


def _answer(contract: Contract) -> Schema:
    return _closed(
        {
            "prediction_id": {"type": "string"},
            "digest": {"type": "string", "description": "Of the bundle that answered."},
            "entity": {"type": "string"},
            **contract.task.schema(),
        }
    )


def _one_or_list(name: str, longest: int) -> Media:
    """Return the media type of one object of a schema, or a list of such objects."""
    item: Schema = {"$ref": f"#/components/schemas/{name}"}
    return {"schema": {"oneOf": [item, {"type": "array", "items": item, "minItems": 1, "maxItems": longest}]}}
