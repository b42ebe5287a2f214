"""The service accepts what its OpenAPI document allows, and nothing else: requests that Schemathesis draws."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.doubles import models
from tests.doubles.drawn_requests import Document, Request, draw

COUNT = 60
BOUNDS = {"from": "1900-01-01T00:00:00Z", "before": "2200-01-01T00:00:00Z"}
CONTRACTS = {
    "numbers": models.contract(service_time=BOUNDS, asked_at=BOUNDS),
    "picture": models.image_contract(service_time=BOUNDS, asked_at=BOUNDS),
    "picture and numbers": models.image_contract(models.MIXED_FIELDS),
    "regression": models.regression_contract(),
}
EXTRA_REQUESTS = {"picture": [Request(json.dumps(models.image_row()).encode(), "application/json")]}
"""Requests besides the drawn ones: drawn files have one pixel and are refused, and now and then all draws are files."""


def answer(app: Any, request: Request) -> tuple[int, Any]:
    path = f"/predict?{request.query}" if request.query else "/predict"
    status, _, body = app.call("POST", path, request.body, content_type=request.content_type)
    return status, json.loads(body)


@pytest.mark.costly
@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "forbidden"])
@pytest.mark.parametrize("name", CONTRACTS)
def test_the_document_and_the_service_agree(make: Callable[..., Any], name: str, allowed: bool) -> None:
    app = make(CONTRACTS[name], starts=True)
    document, counts = Document(app.contract), Counter[tuple[bool, int]]()
    sound = EXTRA_REQUESTS.get(name, []) if allowed else []
    for request in [*sound, *draw(app.contract, COUNT, allowed=allowed)]:
        status, result = answer(app, request)
        is_allowed = document.allows(request)
        counts[is_allowed, status] += 1
        if status == 200:
            assert is_allowed, request
        else:
            assert status in (413, 415, 422), (status, request)
            assert not is_allowed or document.explains(result, request), (result, request)
    print(name, counts)
    assert counts[allowed, 200 if allowed else 422] > 0
