"""The double's HTTP server, and the faults of a server: failures, silence, streams that are cut."""

import json
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.doubles.cluster.api import Answer, Api, Request
from tests.doubles.cluster.objects import KINDS, ApiProblem

PATH = re.compile(
    r"/(?P<group>api/v1|apis/batch/v1)(?:/namespaces/(?P<namespace>[^/]+))?"
    rf"/(?P<resource>{'|'.join(KINDS)})(?:/(?P<name>[^/]+))?(?:/(?P<part>log|status))?"
)
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}


class Server(ThreadingHTTPServer):
    """Listens on a port of this machine."""

    request_queue_size = 64

    def __init__(self, api: Api, port: int) -> None:
        self.api = api
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away; everything else is a fault of the double."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_request(self, *args: Any) -> None:
        """Keep no log of requests."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(self.server.api.store.now().timestamp())

    def do_GET(self) -> None:
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.server.api.is_silent:
                while self.server.api.is_silent and not self.server.api.refuses:
                    time.sleep(0.02)
                raise ConnectionAbortedError
            try:
                self._send(self._answer(body))
            except ApiProblem as problem:
                self._send(Answer(body=problem.body, code=problem.code))
        except ConnectionError:
            # Closing with a reset, so that no client takes the end for a proper one.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

    def _answer(self, body: bytes) -> Answer:
        url, api = urlsplit(self.path), self.server.api
        match = PATH.fullmatch(url.path)
        if match is None or (match["resource"] == "jobs") != (match["group"] == "apis/batch/v1"):
            raise ApiProblem(404, "NotFound", "the server could not find the requested resource")
        path = {key: match[key] or "" for key in ("namespace", "resource", "name")}
        query, verb = dict(parse_qsl(url.query)), VERBS.get(self.command, self.command.lower())
        if verb == "get":
            verb = "log" if match["part"] == "log" else "get" if match["name"] else "list"
            verb = "watch" if query.get("watch", "").lower() in ("true", "1") else verb
        request = Request(verb=verb, **path, query=query, body=json.loads(body) if body else None)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        for failure in api.failures:
            if failure[0] > 0 and failure[1] in (None, verb):
                failure[0] -= 1
                if failure[3]:
                    api.answer(request, token)
                raise failure[2] or ConnectionAbortedError
        return api.answer(request, token)

    def _send(self, answer: Answer) -> None:
        content = json.dumps(answer.body).encode()
        self.send_response(answer.code)
        self.send_header("Content-Type", answer.content_type)
        if answer.code == 429:
            self.send_header("Retry-After", "1")
        if answer.stream is None:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for block in self._whole(answer.stream, answer.content_type == "text/plain"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if block else b"")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _whole(self, stream: Iterator[bytes], is_log: bool) -> Iterator[bytes]:
        """Yield a stream's blocks until the client is gone, the server falls silent, or a planned cut of a log."""
        cuts = self.server.api.cuts
        left, is_clean = cuts.pop(0) if is_log and cuts else (None, False)
        for block in stream:
            readable, _, _ = select.select([self.connection], [], [], 0)
            is_gone = readable and not self.connection.recv(1, socket.MSG_PEEK)
            if self.server.api.is_silent or self.server.api.is_closed or is_gone:
                raise ConnectionAbortedError
            yield block[:left]
            if left is not None and (left := left - len(block)) <= 0:
                if is_clean:
                    return
                raise ConnectionAbortedError
