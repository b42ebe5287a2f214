"""POST JSON to a receiver. Neither results nor logs contain its address, which may be a secret."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from platform_assets.automation.receivers.api import TIMEOUT_S, Delivery

_RETRIED = (401, 403, 404, 407, 408, 425, 429)
"""Refusals that may be temporary, or end when a setting is corrected; any other 4xx would be repeated forever."""


def post(address: str, body: object, headers: Mapping[str, str]) -> Delivery:
    """POST a body as JSON."""
    import httpx

    # At INFO these libraries log the whole address of each request.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        response = httpx.post(address, json=body, headers=dict(headers), timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as problem:  # OSError: there is no file SSL_CERT_FILE
        # The text of some of these contains the address.
        return Delivery(outcome="unreachable", message=f"receiver: {type(problem).__name__}")
    status, message = response.status_code, f"receiver answered {response.status_code}"
    if response.is_success:
        return Delivery(outcome="sent", message=message)
    is_final = response.is_client_error and status not in _RETRIED
    return Delivery(outcome="refused" if is_final else "unreachable", message=message)
