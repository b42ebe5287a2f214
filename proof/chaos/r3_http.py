"""Hostile HTTP for row R3: bytes on a connection, and slow senders."""

import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

PATIENCE_S = 30.0


def connections(row: dict[str, Any], canary: str, path: str = "/predict") -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of connections."""
    body = json.dumps(row).encode()
    pickled = b"cbuiltins\nopen\n(S'%s'\nS'w'\ntR." % canary.encode()
    packed, bomb = gzip.compress(body), gzip.compress(b" " * 50_000_000)
    yield from (("body", _post(path, body, **headers)) for headers in _headers(body))
    for kind in (
        "application/vnd.bentoml+pickle",
        "application/python-pickle",
        "application/octet-stream",
        "text/plain",
        JSON,
    ):
        yield "pickle", _post(path, pickled, **{"Content-Type": kind})
    for kind, data in (
        ("application/xml", b'<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>'),
        ("application/x-yaml", b"!!python/object/apply:os.system ['touch %s']" % canary.encode()),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="rows"\r\n\r\n' + body + b"\r\n--b--\r\n",
        ),
        ("application/vnd.apache.arrow.stream", b"ARROW1\0\0" + body),
    ):
        yield kind, _post(path, data, **{"Content-Type": kind})
    for coding, data in (
        ("gzip", packed),
        ("gzip", bomb),
        ("deflate", zlib.compress(body)),
        ("br", body),
        ("gzip, identity", packed),
    ):
        yield "coding", _post(path, data, **{"Content-Encoding": coding})
    for method in (
        "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "PROPFIND", "X" * 5000,
    ):  # fmt: skip
        yield "method", _post(path, body, method=method)
    for place in PATHS:
        yield "path", _post(place, body)
        yield "path", _post(place, b"", method="GET")
    yield from _framing(path, body)


JSON = "application/json"
PATHS = [
    "/", "//predict", "/predict/", "/predict/../predict", "/predict%2f", "/predict%00", "/PREDICT", "/./predict",
    "/predict;x=1", "/../../etc/passwd", "/static_content/../../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/metrics",
    "/schema.json", "/livez", "http://other/predict", "*", "/" + "a" * 60_000, "/predict?" + "a=b&" * 15_000,
    "/predict?\xff", "/api/predict/submit", "/api/predict/get?task_id=1", "/debug", "/.git/config", "/predict#x",
    "/%", "/%zz", "/\x00", "/docs.json", "/openapi.json",
]  # fmt: skip


def _post(path: str, body: bytes, *, method: str = "POST", version: str = "1.1", **headers: str) -> bytes:
    fields = {"Host": "x", "Content-Type": JSON, "Content-Length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _headers(body: bytes) -> Iterator[dict[str, str]]:
    for length in (
        "0", "-1", "+5", "1", "99999999999999999999999", "abc", "0x10", "", " ", f"{len(body)}, {len(body)}", "1e3",
        "１０",
    ):  # fmt: skip
        yield {"Content-Length": length.encode("utf-8").decode("latin-1")}
    for kind in (
        "", ";", "application/json;charset=utf-16", "application/json; charset=", "application/json" + ";a" * 5000,
        "\xff", "image/png",
    ):  # fmt: skip
        yield {"Content-Type": kind}
    yield from (
        {name: value}
        for name, value in (
            ("Expect", "100-continue"),
            ("Expect", "nonsense"),
            ("Upgrade", "websocket"),
            ("Connection", "close, keep-alive"),
            ("Transfer-Encoding", "identity"),
            ("Transfer-Encoding", "gzip, chunked"),
            ("Transfer-Encoding", "xchunked"),
            ("Host", ""),
            ("X-Request-ID", "a" * 50_000),
            ("X-Request-ID", "\x01"),
            ("X-Request-ID", '"}\\'),
            ("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"),
            ("traceparent", "zz"),
            ("Authorization", "Bearer " + "x" * 9000),
            ("Authorization", "Basic \xff"),
            ("Cookie", "a=" + "b" * 30_000),
            ("X-Forwarded-For", "::1, ' OR 1=1"),
            ("Forwarded", 'for="_x"'),
            ("Range", "bytes=0-"),
            ("X-" + "a" * 30_000, "b"),
            ("X-Null", "a\x00b"),
        )
    )


def _framing(path: str, body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield connections whose messages begin and end in odd places."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\n".encode()
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    yield "pipelined", whole * 50
    yield "lengths differ", head + b"Content-Length: 1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    yield "length and chunks", head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + whole
    yield "chunks", chunked + b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in body) + b"0\r\n\r\n"
    yield "chunk extension", chunked + b"%x;%s\r\n" % (len(body), b"a=b;" * 2000) + body + b"\r\n0\r\nX: y\r\n\r\n"
    for size in (b"zz", b"-1", b"FFFFFFFFFFFFFFFFF", b"0x5", b"5 5", b"", b"1" * 5000):
        yield "chunk size", chunked + size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    yield "a large chunk", chunked + b"7fffffff\r\n" + b"x" * 3_000_000
    yield "folded header", head + b"X: a\r\n b\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    yield "no colon", head + b"nonsense\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    yield "blank before colon", head + b"Content-Length : %d\r\n\r\n" % len(body) + body
    yield "many headers", head + b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n"
    yield "a header of 1 MB", head + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n"
    yield "line feeds alone", whole.replace(b"\r\n", b"\n", 3)
    yield "old", _post(path, body, version="1.0")
    yield "old and open", _post(path, body, version="1.0", Connection="keep-alive")
    yield "version", _post(path, body, version="9.9")
    yield "no version", b"POST /predict\r\n\r\n" + body
    yield "version 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 40
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500
    yield "nothing", b"\r\n" * 100
    yield "noise", bytes(range(256)) * 40
    yield "more than it says", whole + b"x" * 1000
    yield "less than it says", whole[:-20]


def sent(host: str, port: int, data: bytes) -> bytes:
    with socket.create_connection((host, port), timeout=PATIENCE_S) as connection:
        answer = bytearray()
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        except (ConnectionError, TimeoutError):
            pass
        return bytes(answer)


def slow(host: str, port: int, data: bytes, pause_s: float, parts: int) -> bytes:
    """Return the answer to bytes of which a few come at a time; the last are never sent."""
    with socket.create_connection((host, port), timeout=PATIENCE_S) as connection:
        try:
            for number in range(parts):
                connection.sendall(data[number : number + 1])
                time.sleep(pause_s)
            return connection.recv(65_536)
        except (ConnectionError, TimeoutError):
            return b""
