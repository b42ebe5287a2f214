"""Send one request again and again to a service, at a fixed rate or as fast as it answers.

At a fixed rate requests are sent when they are due, on a free connection or a new one, and a latency runs from the
moment at which its request was due.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

GIVE_UP_S = 5.0
CALLERS = 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Sent:
    """One request: the status (0 without an answer), seconds until its answer, seconds by which it was sent late."""

    status: int
    took_s: float
    late_s: float = 0.0


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer; the last part ends the request."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if separator and length is not None and len(body) >= int(length[1]):
            self._end(int(head.split(b" ", 2)[1]))

    def connection_lost(self, _problem: Exception | None) -> None:
        """End a request that is under way without an answer."""
        self._transport = None
        self._end(0)

    async def ask(self, request: bytes) -> int:
        """Send a request and return the status of its answer; 0 if none came within `GIVE_UP_S`."""
        if self._transport is None:
            return 0
        self._received, self._answer = b"", asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                return await self._answer
        except TimeoutError:
            self.close()
            return 0

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


class Callers:
    """Connections to one service, used again when they are free."""

    def __init__(self, host: str, port: int, body: bytes) -> None:
        head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        self._address, self._request = (host, port), f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._free = list[Connection]()

    async def ask(self, due_s: float) -> Sent:
        """Send the request once, on a connection of its own."""
        late_s, status = time.monotonic() - due_s, 0
        try:
            connection = self._free.pop() if self._free else await self._connect()
        except OSError:
            return Sent(0, time.monotonic() - due_s, late_s)
        status = await connection.ask(self._request)
        if connection.is_open:
            self._free.append(connection)
        return Sent(status, time.monotonic() - due_s, late_s)

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *self._address)
        return connection

    async def at_rate(self, per_second: float, seconds: float) -> list[Sent]:
        """Send requests at a fixed rate and return them all."""
        tasks, begun_s = list[asyncio.Task[Sent]](), time.monotonic()
        for number in range(max(1, round(per_second * seconds))):
            due_s = begun_s + number / per_second
            if (early_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            tasks.append(asyncio.create_task(self.ask(due_s)))
            if early_s <= 0 and number % CALLERS == 0:  # behind: answers must be read nevertheless
                await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    async def waiting(self, seconds: float) -> list[Sent]:
        """Send requests from `CALLERS` callers, each of which waits for its answer, and return them all."""
        ends_s = time.monotonic() + seconds

        async def call() -> list[Sent]:
            sent = list[Sent]()
            while time.monotonic() < ends_s:
                sent.append(await self.ask(time.monotonic()))
            return sent

        return [one for sent in await asyncio.gather(*(call() for _ in range(CALLERS))) for one in sent]

    def close(self) -> None:
        """Close all connections."""
        for connection in self._free:
            connection.close()
        self._free.clear()
