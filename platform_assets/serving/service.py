"""The BentoML service: what `bentoml serve` imports. `middleware` answers the requests.

In addition to the code, a Bento contains the folder `fallback`: `contract.json`, `fallback.json` (`{"digest": ...}`)
and the blobs of one bundle. Bento's tracing, access log and metrics are switched off: they cost more than a prediction
(together about 700 microseconds per request) and do not see what the middleware answers.

What answers is not imported here, because a Bento is built, and Bento's supervisor runs, without it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml
from starlette.requests import Request
from starlette.responses import Response

from platform_assets import settings as settings_module
from platform_assets.serving import listening, protocol
from platform_assets.serving.callers import Callers, CallersProblem
from platform_assets.serving.gate import Gate
from platform_assets.serving.routes import ANSWER, API, PREDICT, TIMEOUT_S
from platform_assets.settings import Settings

if TYPE_CHECKING:
    from platform_assets.serving.middleware import Application, PredictionMiddleware
    from platform_assets.serving.runtime import Runtime

FALLBACK = settings_module.REPOSITORY / "fallback"


def make_runtime(settings: Settings | None = None, fallback: Path = FALLBACK) -> Runtime:
    """Return the runtime for the contract and the fallback bundle of this Bento.

    Args:
        settings: from the environment by default.
        fallback: the folder with `contract.json`, `fallback.json` and blobs.
    """
    from prometheus_client import values

    from platform_assets.serving import assembly
    from platform_assets.serving.contract import Contract
    from platform_assets.serving.metrics import Metrics
    from platform_assets.serving.vitals import Waiting
    from platform_assets.storage.artifacts import ArtifactStore

    settings = Settings.from_environment() if settings is None else settings
    contract = Contract.from_bytes((fallback / "contract.json").read_bytes())
    follower = assembly.make_follower(
        settings,
        contract,
        assembly.make_trial(settings, contract.product),
        fallback=ArtifactStore(str(fallback)),
        fallback_digest=json.loads((fallback / "fallback.json").read_bytes())["digest"],
        pinned=settings.serving_digest,
    )
    # Bento's supervisor asks for numbers in files, which only several workers need.
    values.ValueClass = values.MutexValue
    metrics = Metrics()
    protocol.Protocol.on_bad_request = staticmethod(metrics.count_unread)
    gate = protocol.Protocol.gate = Gate(settings.serving_in_flight, settings.serving_wait_s)
    public = listening.copies()
    probes = _bind_probes(settings, public[0]) if public else None
    return assembly.make_runtime(settings, contract, follower, metrics, gate, waiting=Waiting(public), probes=probes)


def _bind_probes(settings: Settings, public: socket.socket) -> socket.socket:
    host, port = public.getsockname()[:2]
    try:
        return listening.bound(host, settings.probes_port(port))
    except listening.PortProblem as problem:
        raise SystemExit(f"serve: {problem}") from None


def check(settings: Settings) -> None:
    """End the process with a sentence if the file of callers cannot be used.

    While a service loads, Bento takes any other exception for a missing service.
    """
    try:
        Callers(settings.serving_callers)
    except CallersProblem as problem:
        raise SystemExit(f"serve: {problem}") from None


class Rows(bentoml.IODescriptor):
    """A body as it came: the contract's decoder reads it, Pydantic does not."""

    __root_input__ = True
    body: bytes

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Rows:
        """Return a request's body.

        Args:
            request: of Starlette.
            serde: Bento's reader of the content type, not used.
        """
        del serde
        return cls(body=await request.body())

    @classmethod
    def model_json_schema(cls, *_: object, **__: object) -> dict[str, Any]:
        """Tell Bento's client that the argument is the body."""
        return {"title": "Rows", "description": "`Row` of /openapi.json, or a list of them.", "root_input": True}


class Answers(bentoml.IODescriptor):
    """JSON that is written already."""

    @classmethod
    def model_json_schema(cls, *_: object, **__: object) -> dict[str, Any]:
        """Tell Bento's client where answers are described."""
        return {"title": "Answers", "description": "`Answer` of /openapi.json, or a list of them."}


def direct(app: Application, make: Callable[[], Runtime]) -> PredictionMiddleware:
    """Return the middleware, which gets the requests to `/predict` without Bento's layers around it."""
    from platform_assets.serving.middleware import PredictionMiddleware

    middleware = PredictionMiddleware(app, make)
    protocol.Protocol.direct = {PREDICT: middleware}
    return middleware


check(Settings.from_environment())


@bentoml.service(
    name="driftline",
    traffic={"timeout": TIMEOUT_S},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class PredictionService:
    """Answers predictions by the product's contract; see /openapi.json."""

    @bentoml.api(route=API, input_spec=Rows, output_spec=Answers)
    async def predict(self, rows: Rows, /) -> Response:
        """Answer one row or a list of rows, as `/predict` does."""
        status, body = await ANSWER.get()(rows.body)
        return Response(body, status, media_type="application/json")


protocol.install()
PredictionService.add_asgi_middleware(direct, make=make_runtime)  # type: ignore[attr-defined]  # a bentoml.Service
