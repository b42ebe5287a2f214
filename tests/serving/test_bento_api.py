"""Bento's API gives the answers, records and counts of `/predict`, through Bento's real application."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.answer.middleware import PredictionMiddleware
from platform_assets.serving.run import service
from tests.doubles import models
from tests.doubles.drawn_requests import Request, draw
from tests.serving.picture_files import BAD_FILES, JPEG, PNG

PATHS = ("/predict", "/api/predict")
OURS, BENTOS, CLOSED = {"/readyz", "/docs.json", "/"}, {"/api/predict", "/schema.json"}, {"/livez", "/healthz"}
"""Of Bento's routes: answered by us instead, answered by Bento, and 404 like any other path."""
PAGES = "/static_content"


@pytest.fixture
def bento(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return an app whose calls go through Bento's application with our middleware, as in a worker."""

    def bento(document: dict[str, Any] | None = None) -> Any:
        app = make(document)
        app.follower.fall_back()
        runtime = app.runtime
        monkeypatch.setattr(
            service.PredictionService, "middlewares", [(PredictionMiddleware, {"make": lambda: runtime})]
        )
        app.middleware = service.PredictionService.to_asgi(is_main=True)
        return app

    return bento


def ask(app: Any, calls: list[tuple[str, str, bytes, dict[str, str]]]) -> list[tuple[int, dict[str, str], bytes]]:
    """Return (status, headers, body) of calls, one after the other, during Bento's lifespan."""

    async def asking() -> list[tuple[int, dict[str, str], bytes]]:
        async with app.middleware.router.lifespan_context(app.middleware):
            return [await app._call(method, path, [body], headers) for method, path, body, headers in calls]

    return asyncio.run(asking())


def without_time(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, **dict.fromkeys(("prediction_id", "answered_at_utc", "latency_us"))}


def requests_of(app: Any) -> list[Request]:
    """Return good, bad and damaged requests for a contract."""
    is_picture = app.contract.image is not None
    row = models.image_row() if is_picture else models.row()
    one, several = json.dumps(row).encode(), json.dumps([row, {**row, "idempotency_key": "k"}, row]).encode()
    typed = [
        Request(one, kind)
        for kind in ("application/json; charset=utf-8", "text/plain", "application/vnd.bentoml+pickle")
    ]
    requests = [*draw(app.contract, 20, allowed=True), *draw(app.contract, 20, allowed=False), *typed]
    varied = [
        json.dumps({**row, "entity": f"{number}", "service_time": f"2013-03-{number:02}T14:00:00Z"})
        for number in range(1, 29)
    ]
    bodies = [one, several, b"", b"[]", b" " * 200_000, *(text.encode() for text in varied)]
    requests += [Request(body, "application/json") for body in bodies]
    if is_picture:
        query = "entity=a&service_time=2013-03-01T14:00:00Z&asked_at=2013-03-01T12:00:00Z"
        files = [PNG, JPEG, *(data for data, _ in BAD_FILES.values())]
        requests += [Request(data, "image/png", query) for data in files]
    return requests


@pytest.mark.costly
@pytest.mark.parametrize("document", [models.contract(), models.image_contract()], ids=["numbers", "picture"])
def test_both_paths_give_the_same_answers_and_records(bento: Callable[..., Any], document: dict[str, Any]) -> None:
    app = bento(document)
    requests = requests_of(app)
    calls = []
    for number, request in enumerate(requests):
        headers = {"content_type": request.content_type, "x_request_id": f"{number}"}
        # A key is not used twice, because the second answer would be the first.
        bodies = [request.body, request.body.replace(b'"k"', b'"l"')]
        calls += [("POST", f"{path}?{request.query}", body, headers) for path, body in zip(PATHS, bodies, strict=True)]
    answers = ask(app, calls)
    records = {record["prediction_id"]: without_time(record) for record in app.records()}
    counts = Counter(status for status, _, _ in answers)
    rows, logged = 0, set()
    for request, (status, _, body), (other_status, headers, other_body) in zip(
        requests, answers[::2], answers[1::2], strict=True
    ):
        assert (status, headers["content-type"]) == (other_status, "application/json"), request
        one, other = json.loads(body), json.loads(other_body)
        if status != 200:
            assert one == other
            continue
        pairs = zip(*(answer if isinstance(answer, list) else [answer] for answer in (one, other)), strict=True)
        for first, second in pairs:
            assert {**first, "prediction_id": ""} == {**second, "prediction_id": ""}
            pair = [{**records[item["prediction_id"]], "traceparent": ""} for item in (first, second)]
            assert {**pair[0], "idempotency_key": ""} == {**pair[1], "idempotency_key": ""}
            rows, logged = rows + 2, logged | {first["prediction_id"], second["prediction_id"]}
    assert logged == set(records)
    assert counts[200] > 50
    assert counts[422] > 30
    text = app.runtime.metrics.text().decode()
    for path in PATHS:
        assert f'driftline_http_requests_total{{path="{path}",status="200"}} {counts[200] / 2}' in text
    assert f'driftline_predictions_total{{release="none"}} {float(rows)}' in text


def test_a_key_has_one_answer_on_both_paths(bento: Callable[..., Any]) -> None:
    app = bento()
    body = json.dumps(models.row(idempotency_key="k")).encode()
    first, second = ask(app, [("POST", path, body, {}) for path in PATHS])
    assert first[2] == second[2]
    assert len(app.records()) == 1


def test_bentos_routes_are_open_on_purpose(bento: Callable[..., Any]) -> None:
    app = bento()
    routes = {route.path for route in app.middleware.routes}
    assert routes == {*OURS, *BENTOS, *CLOSED, PAGES}, "a new version of Bento answers more: decide and document"
    not_found = {*CLOSED, f"{PAGES}/index.css", "/metrics", "/api/predict/submit"}
    paths = sorted({*OURS, "/schema.json", *not_found})
    answers = dict(zip(paths, ask(app, [("GET", path, b"", {}) for path in paths]), strict=True))
    assert {path for path in paths if answers[path][0] == 404} == not_found
    assert all("server" not in answers[path][1] for path in OURS), "Bento names itself in its answers"
    (route,) = json.loads(answers["/schema.json"][2])["routes"]
    assert (route["name"], route["route"], route["input"]["root_input"]) == ("predict", "/api/predict", True)
    document = (REPOSITORY / "docs/serve.md").read_text(encoding="utf-8")
    assert all(
        f"`GET {path}`" in document or f"`{path}`" in document for path in (*OURS, "/schema.json", *CLOSED, PAGES)
    )
