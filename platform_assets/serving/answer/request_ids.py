"""Keep the ids that a request came with, `X-Request-ID` and `traceparent`, and make new ones where there are none."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping

Ids = tuple[bytes, bytes]
"""The values of `X-Request-ID` and `traceparent`, for log and answer."""

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_FIELDS = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rb"00" + _FIELDS + rb"|(?!00|ff)[0-9a-f]{2}" + _FIELDS + rb"(?:-[!-~]{0,72})?")
"""W3C's Trace Context. Versions after 00 may have more fields."""


_STEP, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1
"""An odd step visits each number of 64 bits once, in an order whose last digits look random, as samplers expect."""


class RequestIds:
    """Gives each request its ids."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(10).encode()
        self._trace = b"00-" + secrets.token_hex(8).encode()
        self._count = itertools.count(1)
        self._first = secrets.randbits(64)

    def identify(self, fields: Mapping[bytes, bytes]) -> Ids:
        """Return a request's ids: those of its headers, or new ones for absent and malformed ones."""
        request_id, traceparent = fields.get(b"x-request-id"), fields.get(b"traceparent")
        number = next(self._count)
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = b"%s%012x" % (self._prefix, number)
        if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
            mixed = (self._first + number * _STEP) & _MASK or 1
            traceparent = b"%s%016x-%016x-00" % (self._trace, mixed, mixed)  # not sampled
        return request_id, traceparent
