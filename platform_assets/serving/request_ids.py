"""Keep the ids that a request came with, `X-Request-ID` and `traceparent`, and make new ones where there are none."""

from __future__ import annotations

import itertools
import random
import re
import secrets
from collections.abc import Mapping

Ids = tuple[bytes, bytes]
"""The values of `X-Request-ID` and `traceparent`, for log and answer."""

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_FIELDS = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rb"00" + _FIELDS + rb"|(?!00|ff)[0-9a-f]{2}" + _FIELDS + rb"(?:-[!-~]{0,72})?")
"""W3C's Trace Context. Versions after 00 may have more fields."""


class RequestIds:
    """Gives each request its ids."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(10)
        self._count = itertools.count(1)
        self._random = random.Random(secrets.randbits(128)).getrandbits

    def of(self, fields: Mapping[bytes, bytes]) -> Ids:
        """Return a request's ids: those of its headers, or new ones for absent and malformed ones."""
        request_id, traceparent = fields.get(b"x-request-id"), fields.get(b"traceparent")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = b"%s%012x" % (self._prefix.encode(), next(self._count))
        if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
            # Not sampled. Ids of zeros are malformed.
            traceparent = b"00-%032x-%016x-00" % (self._random(128) | 1, self._random(64) | 1)
        return request_id, traceparent
