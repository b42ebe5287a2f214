"""Read a request's body within limits of time and size, and discard the rest of a refused one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Message, Receive

from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.answer.requests import Refused

BODY_S = 5.0
"""How long a body may take to arrive; below Bento's own limit, which answers with 504."""
DRAIN_S, DRAIN_BYTES_MAX = 1.0, 64_000_000
"""For how long, and up to how many bytes, a refused body is discarded, so that its sender gets to read the answer."""


def is_short(fields: Mapping[bytes, bytes], bytes_max: int) -> bool:
    """Tell whether a request's headers promise a body of at most so many bytes."""
    length = fields.get(b"content-length", b"")
    return length.isdigit() and int(length) <= bytes_max


async def read(
    fields: Mapping[bytes, bytes], receive: Receive, bytes_max: int, gate: Gate, *, is_whole: bool = False
) -> bytes | bytearray | None:
    """Return a request's body, None if the caller left; raise `Refused` without reading a body that is too large.

    Args:
        fields: the request's headers.
        bytes_max: limit of the body.
        gate: does not count the request while its body arrives.
        is_whole: whether it has arrived, which saves a timer.
    """
    if b"content-length" in fields and not is_short(fields, bytes_max):
        length = fields[b"content-length"].decode("latin-1")[:20]
        raise Refused(413, f"the body has {length} bytes; expected at most {bytes_max}.")
    if fields.get(b"content-encoding", b"identity") != b"identity":
        raise Refused(415, "the body is compressed; expected it uncompressed, without a Content-Encoding.")
    if is_whole:
        return await _read(receive, bytes_max)
    # Who sends slowly costs nothing meanwhile, and must not keep others out.
    gate.unread += 1
    try:
        async with asyncio.timeout(BODY_S):
            return await _read(receive, bytes_max)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_S:g} s.") from None
    finally:
        gate.unread -= 1


async def _read(receive: Receive, bytes_max: int) -> bytes | bytearray | None:
    body: bytes | bytearray = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        if not body:
            body = part
        else:  # adding to bytes would copy all that came before, part by part
            body = body if isinstance(body, bytearray) else bytearray(body)
            body += part
        if len(body) > bytes_max:
            raise Refused(413, f"the body is larger than {bytes_max} bytes; send fewer rows at once.")
        if not message.get("more_body", False):
            return body


def replayed(body: bytes | bytearray, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read, and then what follows."""
    first: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replaying() -> Message:
        return first.pop() if first else await receive()

    return replaying


async def drain(receive: Receive) -> None:
    """Discard the rest of a refused body, for a moment: closing at once would reset the connection."""
    dropped = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            while dropped < DRAIN_BYTES_MAX:
                message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
