"""A proxy that puts TLS in front of a server. Bytes pass unchanged, the host's name included: signatures stay valid."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
PIECE = 1 << 16


@contextmanager
def in_front_of(server: str, pair: Path, address: str = LOOPBACK) -> Iterator[str]:
    """Run the proxy in front of a server's address, and return its own, `https://ADDRESS:PORT`.

    Args:
        pair: its certificate is PAIR.crt, its key PAIR.key.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
    thread = threading.Thread(target=asyncio.run, args=(_serve(server, pair, address, started),), daemon=True)
    thread.start()
    loop, end, port = started.result(timeout=30)
    try:
        yield f"https://{address}:{port}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


async def _serve(
    server: str, pair: Path, address: str, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.with_suffix(".crt"), pair.with_suffix(".key"))
    place, loop, end = urlsplit(server), asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(lambda *_: None)  # of clients that refuse the certificate

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except asyncio.CancelledError:
            for opened in (writer, far_writer):
                opened.transport.abort()  # the loop ends before a farewell of TLS
            raise

    listening = await asyncio.start_server(pass_on, address, 0, ssl=context)
    started.set_result((loop, end, listening.sockets[0].getsockname()[1]))
    await end.wait()
    listening.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the other side is gone
        while piece := await source.read(PIECE):
            target.write(piece)
            await target.drain()
    target.close()
