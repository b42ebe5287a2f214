"""The BentoML service: what `bentoml serve` imports. `middleware` answers the requests.

In addition to the code, a Bento contains the folder `fallback`: `contract.json`, `fallback.json` (`{"digest": ...}`)
and the blobs of one bundle. Bento's tracing, access log and metrics are switched off: they cost more than a prediction
(together about 700 microseconds per request) and do not see what the middleware answers.

What answers is not imported here, because a Bento is built, and Bento's supervisor runs, without it. Servers import
this module through `bento`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import bentoml
import click
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from platform_assets.base import settings as settings_module
from platform_assets.base.private_folders import make_folder
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.serving.answer.callers import Callers
from platform_assets.serving.answer.routes import ANSWER, API, PREDICT, TIMEOUT_S
from platform_assets.serving.run import protocol
from platform_assets.serving.run.listening import bound, bound_for_probes, copies
from platform_assets.store import objects

if TYPE_CHECKING:
    from platform_assets.serving.answer.middleware import PredictionMiddleware
    from platform_assets.serving.run.runtime import Runtime

FALLBACK = settings_module.REPOSITORY / "fallback"
ANY_HOST = "0.0.0.0"
"""BentoML's default."""


def check() -> None:
    """Refuse what a service cannot start with, before Bento's supervisor starts processes that would end one by one.

    Raises:
        Problem: a variable, the file of callers or a port cannot be used.
    """
    settings = Settings.from_environment()
    Callers(settings.serving_callers)
    bento = settings_module.REPOSITORY.resolve().parent
    if (bento / "bento.yaml").exists() and settings.state.resolve().is_relative_to(bento):
        raise SettingsProblem(
            f"DRIFTLINE_STATE is {settings.state}, within the Bento {bento}: `bentoml export` would pack what callers "
            "sent; name a folder elsewhere."
        )
    try:
        make_folder(settings.state)
    except OSError as problem:
        raise SettingsProblem(
            f"DRIFTLINE_STATE is {str(settings.state)!r}; expected a folder that exists or can be made: "
            f"{problem.strerror}."
        ) from None
    address, flag = (dict(settings.store_environment).get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"))
    if not objects.is_folder(settings.root) and address.startswith("http://") and flag != "true":
        raise SettingsProblem(f"AWS_ALLOW_HTTP is {flag!r}; expected true, because AWS_ENDPOINT_URL is {address}.")
    # Ports are bound and given back; in a pod its own is open already.
    context = click.get_current_context(silent=True)
    with contextlib.ExitStack() as opened:
        if context is not None and context.info_name == "serve":
            host, port = context.params["host"] or ANY_HOST, context.params["port"]
            # Without a port on the command line it is in Bento's configuration, whose reader is not public.
            public = [] if port is None else [opened.enter_context(bound(host, port))]
        else:
            public = [opened.enter_context(copy) for copy in copies()]
        if public:
            opened.enter_context(bound_for_probes(settings, public[0]))


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
    def model_json_schema(cls, *_: object, **__: object) -> dict[str, str | bool]:
        """Tell Bento's client that the argument is the body."""
        return {"title": "Rows", "description": "`Row` of /openapi.json, or a list of them.", "root_input": True}


class Answers(bentoml.IODescriptor):
    """JSON that is written already."""

    @classmethod
    def model_json_schema(cls, *_: object, **__: object) -> dict[str, str]:
        """Tell Bento's client where answers are described."""
        return {"title": "Answers", "description": "`Answer` of /openapi.json, or a list of them."}


def make_or_exit() -> Runtime:
    """Return the runtime; end the process on any error, with a sentence for a problem.

    In the server's start an exception would be printed with a traceback of the server's, and under Bento the server
    would go on without the service.
    """
    try:
        from platform_assets.serving.run import assembly

        return assembly.make_runtime(FALLBACK)
    except BaseException as problem:  # noqa: BLE001  # whatever it is, nothing can be served
        if not isinstance(problem, Problem):
            traceback.print_exception(problem)
        print(f"serve: {problem}", file=sys.stderr, flush=True)
        os._exit(1)


def direct(app: ASGIApp, make: Callable[[], Runtime]) -> PredictionMiddleware:
    """Return the middleware, which gets the requests to `/predict` without Bento's layers around it."""
    from platform_assets.serving.answer.middleware import PredictionMiddleware

    middleware = PredictionMiddleware(app, make)
    protocol.Protocol.direct = {PREDICT: middleware}
    return middleware


@bentoml.service(
    name="driftline",
    traffic={"timeout": TIMEOUT_S},
    metrics={"enabled": False},  # 7 % of a default request's time
    logging={"access": {"enabled": False}},  # 11 %
    tracing={"excluded_urls": ".*"},  # 36 %
)
class PredictionService:
    """Answers predictions by the product's contract; see /openapi.json."""

    @bentoml.api(route=API, input_spec=Rows, output_spec=Answers)
    async def predict(self, rows: Rows, /) -> Response:
        """Answer one row or a list of rows, as `/predict` does."""
        status, body = await ANSWER.get()(rows.body)
        return Response(body, status, media_type="application/json")


protocol.install()
PredictionService.add_asgi_middleware(direct, make=make_or_exit)  # type: ignore[attr-defined]  # a bentoml.Service
