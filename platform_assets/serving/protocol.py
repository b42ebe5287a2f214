"""Speak HTTP as uvicorn does, with two changes that no ASGI application can make.

A caller who closes the sending side may still read the answer, and requests that are not HTTP are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, changed.

    Attributes:
        on_bad_request: called for each 400 answer to a request that is not HTTP: no application sees those.
    """

    on_bad_request: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio reads a bool, uvicorn returns None
        """Keep the connection open for the answer to a complete request; otherwise the transport would close."""
        cycle: RequestResponseCycle | None = self.cycle
        if self.scheme == "https" or cycle is None or cycle.response_complete or cycle.more_body:
            return None
        cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Answer with 400 and count it."""
        type(self).on_bad_request()
        super().send_400_response(msg)


def install() -> None:
    """Make this process's server use `Protocol`. Call it before the server chooses: while the service loads."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:Protocol"
