"""A proxy in front of a database that can hold its answers back, or delay each of them."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOPBACK = "127.0.0.1"
PIECE = 1 << 16


class HeldProxy:
    """Passes bytes on, to the server only while it is not held.

    Attributes:
        port: to connect to.
        delay_s: how long each request waits.
    """

    def __init__(self, port: int) -> None:
        self._far = port
        self.delay_s = 0.0
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Pass nothing on for a while: the database does not answer."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection((LOOPBACK, self._far))
                except OSError:  # the server is gone
                    near.close()
                    continue
                for source, target, is_request in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pass_on, args=(source, target, is_request), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError), source, target:
            while piece := source.recv(PIECE):
                if is_request:
                    self._open.wait()
                    time.sleep(self.delay_s)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
