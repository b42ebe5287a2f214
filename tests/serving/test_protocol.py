"""Requests to a direct path reach their application without the layers around it; all others go through them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from platform_assets.serving.protocol import Protocol


def called(path: str) -> list[str]:
    """Return which applications a protocol calls for a request to a path."""
    calls: list[str] = []

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        calls.append("whole")

    async def direct(scope: Any, receive: Any, send: Any) -> None:
        calls.append("direct")

    async def live() -> None:
        Protocol.direct = {"/predict": direct}
        config = Config(whole, proxy_headers=False, interface="asgi3", log_config=None)
        protocol = Protocol(config, ServerState(), {}, asyncio.get_running_loop())
        await protocol.app({"type": "http", "path": path}, None, None)  # type: ignore[arg-type]

    asyncio.run(live())
    return calls


@pytest.mark.parametrize(
    ("path", "application"), [("/predict", "direct"), ("/readyz", "whole"), ("/predict/", "whole")]
)
def test_only_direct_paths_skip_the_layers(monkeypatch: pytest.MonkeyPatch, path: str, application: str) -> None:
    monkeypatch.setattr(Protocol, "direct", {})
    assert called(path) == [application]
