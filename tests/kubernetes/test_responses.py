"""What a response of the Kubernetes API means: one table, over what API servers, webhooks and proxies have sent."""

import json
import socket
import ssl
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from platform_assets.kubernetes import responses
from platform_assets.kubernetes.responses import Meaning

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
POD = b'{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "driftline-x"}}'


def status(code: int, reason: str | None, message: str, **details: Any) -> tuple[int, bytes]:
    """Return a response of the API itself."""
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code}
    return code, json.dumps(body | ({} if reason is None else {"reason": reason}) | {"details": details}).encode()


def forbidden(message: str) -> tuple[int, bytes]:
    return status(403, "Forbidden", message)


RESPONSES: dict[str, tuple[tuple[int, bytes | str | None], Meaning]] = {
    "created": ((201, POD), "answer"),
    "accepted": ((202, POD), "answer"),
    "a success cut short": ((201, POD[:40]), "again"),
    "a success without a body": ((201, b""), "again"),
    "a login page": ((200, b"<!doctype html><title>Sign in</title>"), "again"),
    "a balancer's health": ((200, b'{"status": "ok"}'), "again"),
    "a list where a pod belongs": ((200, b"[]"), "again"),
    "a success that is a Status": (status(200, None, "done"), "again"),
    "already exists": (
        status(409, "AlreadyExists", 'pods "driftline-x" already exists', kind="pods", name="driftline-x"),
        "exists",
    ),
    "deleted in another version": (
        status(
            409,
            "Conflict",
            'Operation cannot be fulfilled on pods "driftline-x": the ResourceVersion in the precondition (1) does not '
            "match the ResourceVersion in record (1374). The object might have been modified",
            name="driftline-x",
            kind="pods",
        ),
        "changed",
    ),
    "the quota is being changed": (
        status(
            409,
            "Conflict",
            'Operation cannot be fulfilled on resourcequotas "team": the object has been modified; please apply your '
            "changes to the latest version and try again",
            name="team",
            kind="resourcequotas",
        ),
        "again",
    ),
    "409 without a reason": (status(409, None, "conflict"), "again"),
    "409 with a page": ((409, HTML), "again"),
    "409 cut short before its reason": ((409, b'{"kind": "Status", "reason": "AlreadyEx'), "again"),
    "409 whose reason is a number": (status(409, 409, "conflict"), "again"),  # type: ignore[arg-type]
    "the quota is used up": (
        forbidden('pods "driftline-x" is forbidden: exceeded quota: team, requested: pods=1, used: 4'),
        "full",
    ),
    "the quota is not counted yet": (
        forbidden('pods "driftline-x" is forbidden: status unknown for quota: team, resources: pods'),
        "soon",
    ),
    "the namespace is a second old": (
        forbidden(
            'pods "driftline-x" is forbidden: error looking up service account team/default: serviceaccount "default" '
            "not found"
        ),
        "soon",
    ),
    "the quota wants a limit": (
        forbidden('pods "driftline-x" is forbidden: failed quota: team: must specify limits.cpu'),
        "refused",
    ),
    "pod security": (
        forbidden('pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'),
        "refused",
    ),
    "no right": (forbidden('pods is forbidden: User "guest" cannot create resource "pods" in API group ""'), "refused"),
    "the namespace ends": (
        forbidden("unable to create new content in namespace team because it is being terminated"),
        "refused",
    ),
    "403 of a proxy": ((403, b"<html>Access denied by policy</html>"), "again"),
    "an admission policy": (
        status(422, "Invalid", 'ValidatingAdmissionPolicy "owner" with binding "b" denied request: no owner'),
        "refused",
    ),
    "a webhook's own refusal": (status(400, None, 'admission webhook "v.example" denied the request: no'), "refused"),
    "a webhook that is dead": (
        status(500, "InternalError", 'Internal error occurred: failed calling webhook "v.example": connection refused'),
        "again",
    ),
    "no namespace": (status(404, "NotFound", 'namespaces "team" not found', kind="namespaces"), "absent"),
    "404 of a mux": ((404, b"404 page not found\n"), "again"),
    "404 without a body": ((404, None), "again"),
    "404 without a reason": (status(404, None, "not here"), "again"),
    "the method is not there": (status(405, "MethodNotAllowed", "no"), "refused"),
    "a token that has run out": (status(401, "Unauthorized", "Unauthorized"), "unauthorized"),
    "a proxy's 401": ((401, HTML), "unauthorized"),
    "too many requests": (status(429, "TooManyRequests", "try again later"), "again"),
    "the API took too long": (status(504, "Timeout", "Timeout: request did not complete within 34s"), "again"),
    "a gateway": ((502, HTML), "again"),
    "503 without a body": ((503, b""), "again"),
    "5xx cut short": ((500, b'{"kind": "Status", "code": 5'), "again"),
    "moved": ((302, b""), "again"),
    "silence": ((0, b""), "again"),
    "bytes of no text": ((500, b"\xff\xfe\x00"), "again"),
    "nested too deep": ((403, b"[" * 100_000), "again"),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_each_response_has_its_meaning(name: str) -> None:
    (code, body), meaning = RESPONSES[name]
    assert responses.read(code, body, ("Pod",)).meaning == meaning


def test_every_meaning_and_every_row_of_the_table_has_a_response() -> None:
    assert {meaning for _, meaning in RESPONSES.values()} == set(get_args(Meaning))
    read = [responses.read(*response, ("Pod",)) for response, _ in RESPONSES.values()]
    first = {next(row for row, (is_so, _) in enumerate(responses.TABLE) if is_so(item)) for item in read}
    assert first == set(range(len(responses.TABLE)))


def test_only_these_retried_responses_rule_out_that_the_request_was_carried_out() -> None:
    unsure = {name for name, (item, _) in RESPONSES.items() if responses.read(*item, ("Pod",)).may_be_done}
    sure = {name for name, (_, meaning) in RESPONSES.items() if meaning == "again"} - unsure
    assert sure == {
        "the quota is being changed",
        "409 without a reason",
        "409 whose reason is a number",
        "a webhook that is dead",
        "too many requests",
    }


BODIES = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=20)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["kind", "reason", "message", "status", "code", "x"]), inner, max_size=5),
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(st.integers(0, 599), BODIES)
def test_no_response_is_final_unless_the_api_itself_refuses(code: int, body: bytes) -> None:
    result = responses.read(code, body, ("Pod",))
    if result.meaning in ("refused", "full", "soon", "exists", "absent"):
        assert result.kind == "Status"
        assert 400 <= code <= 499
    if result.meaning == "answer":
        assert result.body is not None
        assert result.body["kind"] == "Pod"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            raised(
                NewConnectionError(HTTPConnection("10.96.0.1"), "Failed to establish a new connection"),
                ConnectionRefusedError(111, "Connection refused"),
            ),
            "the connection was refused",
        ),
        (
            raised(
                NameResolutionError("api", HTTPConnection("api"), socket.gaierror(-2, "Name or service not known")),
                socket.gaierror(-2, "Name or service not known"),
            ),
            "its name could not be resolved",
        ),
        (ConnectTimeoutError("timed out"), "it did not answer in time"),
        (ReadTimeoutError(HTTPConnectionPool("10.96.0.1"), "/api", "Read timed out."), "it did not answer in time"),
        (ProtocolError("Connection aborted.", ConnectionResetError(104, "reset")), "the connection was cut"),
        (SSLError(ssl.SSLCertVerificationError(1, "certificate verify failed")), "its certificate is not trusted"),
        (MaxRetryError(HTTPConnectionPool("h"), "/api", SSLError("EOF")), "no TLS connection could be made"),
        (OSError(101, "Network is unreachable"), "network is unreachable"),
        (ValueError("?"), "the connection failed"),
    ],
)
def test_a_person_reads_no_exception(error: BaseException, words: str) -> None:
    assert responses.describe(error) == words
