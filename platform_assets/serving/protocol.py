"""Speak HTTP as uvicorn does, but for two things that it keeps to itself.

Belongs here: a caller who closes the sending side and still reads, and requests that are no HTTP. Does not belong here:
anything that an ASGI application can do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol.

    Attributes:
        on_bad_request: called for each answer with 400 to what is no HTTP: no application sees those.
    """

    on_bad_request: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio reads a bool, uvicorn returns None
        """Keep the connection for the answer to a request that is whole; without that the transport closes."""
        cycle: RequestResponseCycle | None = self.cycle
        if self.scheme == "https" or cycle is None or cycle.response_complete or cycle.more_body:
            return None
        cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Answer with 400, and let it be counted."""
        type(self).on_bad_request()
        super().send_400_response(msg)


def install() -> None:
    """Make the server of this process use `Protocol`. Call it before the server chooses: while the service loads."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:Protocol"
