"""Describe the service by its contract, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

import msgspec

from platform_assets.serving.answer import image_files, pictures
from platform_assets.serving.answer.answers import Schema
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.requests import MOMENTS, Refusal, Row, within

_JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"
_AFTER_YEAR = (
    r"-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
    r"([Zz]|[+-]00:?00)$"
)
"""What msgspec reads as a moment in UTC. More than `date-time` allows: a blank for the T, and no colon in an offset."""
_YEARS_MAX = 30
"""How many years a pattern lists; for more it lists the centuries."""


def openapi(contract: Contract) -> Schema:
    """Return the OpenAPI document of a contract; it depends on nothing else."""
    row, components = _row(contract)
    refusal: Schema = {"schema": {"$ref": _REFERENCE.format(name="Refusal")}}
    answered: Schema = {
        "description": "The answers, in the order of the rows; each one is in the prediction log.",
        "content": {_JSON: _one_or_list("Answer", contract.max_rows)},
    }
    refused = {
        "401": "The API key is missing or not known.",
        "408": "The body did not arrive in time.",
        "413": f"The body is larger than {contract.max_body_bytes} bytes.",
        "415": "The body is compressed, or an image file that is not accepted, or has another content type.",
        "422": "The body does not follow the contract; `field` says where.",
        "503": "No model is loaded, the prediction cannot be logged, or too many requests are under way; nothing was "
        "answered.",
    }
    binary: Schema = {"schema": {"type": "string", "format": "binary"}}
    files = dict.fromkeys(pictures.CONTENT_TYPES, binary) if contract.takes_files else {}
    properties: Schema = {
        "prediction_id": {"type": "string"},
        "digest": {"type": "string", "description": "Of the bundle that answered."},
        "entity": {"type": "string"},
        **contract.task.schema(),
    }
    answer: Schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    responses: dict[str, Schema] = {"200": answered}
    responses |= {status: {"description": text, "content": {_JSON: refusal}} for status, text in refused.items()}
    predict: Schema = {
        "summary": f"Answer one {contract.entity} or a list of up to {contract.max_rows}.",
        **({"parameters": _parameters(row)} if contract.takes_files else {}),
        "requestBody": {
            "required": True,
            "content": {_JSON: _one_or_list("Row", contract.max_rows), **files},
        },
        "responses": responses,
    }
    ready: Schema = {
        "200": {"description": "A model is loaded and warm."},
        "503": {"description": "Not yet, or not any more."},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": contract.title, "version": contract.sha256[:12], "x-contract-sha256": contract.sha256},
        "paths": {
            "/predict": {"post": predict},
            "/readyz": {"get": {"summary": "Does a model answer?", "responses": ready}},
        },
        "components": {"schemas": {"Row": row, **components, "Answer": answer}},
    }


def _row(contract: Contract) -> tuple[Any, Any]:
    """Return the schemas of a row and of what else has a name, derived from the types that decode and encode it."""
    types = Row[contract.features_type], Refusal  # type: ignore[name-defined]  # made at run time
    ((reference, _), components) = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    row = components.pop(reference["$ref"].removeprefix(_REFERENCE.format(name="")))
    row["title"] = "Row"
    del row["description"]
    properties = row["properties"]
    properties["entity"]["description"] = f"The id of the {contract.entity}."
    properties["idempotency_key"]["description"] = "A retry with the same key gets the first answer."
    about = f"When the {contract.entity} takes place.", "The features use data up to this moment."
    for name, text in zip(MOMENTS, about, strict=True):
        first, last = (moment.year for moment in contract.moments[MOMENTS.index(name)])
        years = f"({'|'.join(f'{year:04}' for year in range(first, last + 1))})"
        if last - first >= _YEARS_MAX:
            years = f"({'|'.join(f'{century:02}' for century in range(first // 100, last // 100 + 1))})[0-9]{{2}}"
        bounds = within(contract.moments[MOMENTS.index(name)])
        if contract.clock_within is not None:
            bounds += f", at most {contract.clock_within.total_seconds() / 86_400:g} days from the server's clock"
        properties[name] = {
            "type": "string",
            "pattern": f"^{years}{_AFTER_YEAR}",
            "description": f"{text} UTC, such as 2013-03-01T05:00:00Z. {bounds[0].upper()}{bounds[1:]}.",
        }
    return row, components


def _parameters(row: Any) -> list[Schema]:
    """Return the query's parameters, for bodies that are files. OpenAPI cannot make them depend on the body."""
    # A query cannot say null, which a row's key may be: the bounds are those of any other text.
    properties = {**row["properties"], "idempotency_key": row["properties"]["entity"]}
    rule = "Only with a body that is an image file, and {} there; as in a row of JSON."
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": rule.format("required" if name in image_files.REQUIRED else "optional"),
            "schema": properties[name],
        }
        for name in (*image_files.REQUIRED, *image_files.OPTIONAL)
    ]


def _one_or_list(name: str, longest: int) -> Schema:
    """Return the media type of one object of a schema, or a list of such objects."""
    item = {"$ref": f"#/components/schemas/{name}"}
    return {"schema": {"oneOf": [item, {"type": "array", "items": item, "minItems": 1, "maxItems": longest}]}}
