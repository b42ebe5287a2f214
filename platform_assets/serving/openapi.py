"""Describe the service by its contract, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from platform_assets.serving import files, pictures
from platform_assets.serving.contract import Contract, ContractField
from platform_assets.serving.diagnosis import expectation, within
from platform_assets.serving.requests import MOMENTS, TEXT_MAX

_TEXT = {"type": "string", "minLength": 1, "maxLength": TEXT_MAX}
_MOMENT = {"type": "string", "format": "date-time", "description": "UTC, such as 2013-03-01T05:00:00Z."}
_JSON_TYPES = {"float": "number", "int": "integer", "bool": "boolean", "category": "string"}


def openapi(contract: Contract) -> dict[str, Any]:
    """Return the OpenAPI document of a contract, a function of it alone."""
    row, answer = {"$ref": "#/components/schemas/Row"}, {"$ref": "#/components/schemas/Answer"}
    refusal = {"$ref": "#/components/schemas/Refusal"}
    refused = {
        status: {"description": words, "content": _json(refusal)}
        for status, words in (
            ("408", "The body did not arrive in time."),
            ("413", f"The body is larger than {contract.max_body_bytes} bytes."),
            ("415", "The body is compressed, or an image file that is not taken, or not under this content type."),
            ("422", "The body does not follow the contract; `field` says where."),
            ("503", "No model is loaded, or the prediction cannot be logged; nothing was answered."),
        )
    }
    predict = {
        "summary": f"Answer one {contract.entity} or a list of up to {contract.max_rows}.",
        **_parameters(contract),
        "requestBody": {
            "required": True,
            "content": {**_json({"oneOf": [row, _list_of(row, contract.max_rows)]}), **_files(contract)},
        },
        "responses": {
            "200": {
                "description": "The answers, in the order of the rows; each one is in the prediction log.",
                "content": _json({"oneOf": [answer, _list_of(answer, contract.max_rows)]}),
            },
            **refused,
        },
    }
    ready = {
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
        "components": {"schemas": {"Row": _row(contract), "Answer": _answer(contract), "Refusal": _refusal()}},
    }


def _row(contract: Contract) -> dict[str, Any]:
    service_time, asked_at = (f"{_MOMENT['description']} {_bounds(contract, name)}" for name in MOMENTS)
    return {
        **_closed(
            {
                "entity": {**_TEXT, "description": f"The id of the {contract.entity}."},
                "service_time": {
                    **_MOMENT,
                    "description": f"When the {contract.entity} takes place. {service_time}",
                },
                "asked_at": {**_MOMENT, "description": f"Up to when the features look. {asked_at}"},
                "features": _closed({item.name: _value(item) for item in contract.fields}),
                "idempotency_key": {
                    **_TEXT,
                    "type": ["string", "null"],
                    "description": "Makes a retry give the first answer.",
                },
            }
        ),
        "required": ["entity", "service_time", "asked_at", "features"],
    }


def _bounds(contract: Contract, name: str) -> str:
    words = within(contract.moments[MOMENTS.index(name)])
    if contract.clock_within is not None:
        words += f", at most {contract.clock_within.total_seconds() / 86_400:g} days from the server's clock"
    return f"{words[0].upper()}{words[1:]}."


def _files(contract: Contract) -> dict[str, Any]:
    if not contract.takes_files:
        return {}
    return {name: {"schema": {"type": "string", "format": "binary"}} for name in pictures.CONTENT_TYPES}


def _parameters(contract: Contract) -> dict[str, Any]:
    """Return the query's parameters: what a body that is a file cannot say. OpenAPI cannot ask for them by body."""
    if not contract.takes_files:
        return {}
    properties = _row(contract)["properties"]
    rule = "Only beside a body that is an image file, and {} there: the same as in a row of JSON."
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": rule.format("required" if name in files.REQUIRED else "optional"),
                "schema": {**properties[name], "type": "string"},
            }
            for name in (*files.REQUIRED, *files.OPTIONAL)
        ]
    }


def _image(item: ContractField) -> dict[str, Any]:
    height, width = item.sized
    level = {"type": "integer", "minimum": 0, "maximum": 255}
    line = {"type": "array", "items": level, "minItems": width, "maxItems": width}
    return {
        "description": f"{item.description} ({expectation(item)})",
        "oneOf": [
            {"type": "string", "contentEncoding": "base64", "minLength": 1},
            {"type": "array", "items": line, "minItems": height, "maxItems": height},
        ],
    }


def _value(item: ContractField) -> dict[str, Any]:
    if item.dtype == "image":
        return _image(item)
    kind = _JSON_TYPES[item.dtype]
    schema: dict[str, Any] = {
        "type": [kind, "null"] if item.is_nullable else kind,
        "description": f"{item.description} ({expectation(item)})",
    }
    if item.dtype == "category":
        schema.update(minLength=1, maxLength=TEXT_MAX)
    if item.low is not None:
        schema["minimum"] = item.low
    if item.high is not None:
        schema["maximum"] = item.high
    return schema


def _answer(contract: Contract) -> dict[str, Any]:
    return _closed(
        {
            "prediction_id": {"type": "string"},
            "digest": {"type": "string", "description": "Of the bundle that answered."},
            "entity": {"type": "string"},
            **contract.task.schema(),
        }
    )


def _refusal() -> dict[str, Any]:
    return _closed({"error": {"type": "string"}, "field": {"type": ["string", "null"], "description": "Dotted path."}})


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list_of(schema: dict[str, Any], longest: int) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": longest}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
