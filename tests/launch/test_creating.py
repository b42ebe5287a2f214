"""Creating a pod through an API in trouble: asked again, found again, never twice and never somebody else's."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client

from platform_assets.kubernetes import api
from platform_assets.kubernetes.api import Api
from platform_assets.kubernetes.pod_status import read_pod
from platform_assets.kubernetes.responses import ApiTrouble

Answer = tuple[int, Any]
"""A status, and a body: an object, or bytes as they are; 0 closes the connection, -1 promises more than it sends."""

MINE = {"kind": "Pod", "metadata": {"name": "driftline-x", "labels": {"driftline/attempt": "a1"}}}
THEIRS = {"kind": "Pod", "metadata": {"name": "driftline-x", "labels": {"driftline/attempt": "b2"}}}
UNLABELLED = {"kind": "Pod", "metadata": {"name": "driftline-x"}}
HTML = b"<html><h1>503 Service Unavailable</h1></html>"


def refusal(code: int, reason: str, message: str) -> Answer:
    return code, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}


EXISTS = refusal(409, "AlreadyExists", 'pods "driftline-x" already exists')
CONFLICT = refusal(
    409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "team": the object has been modified'
)
QUOTA = refusal(403, "Forbidden", 'pods "driftline-x" is forbidden: exceeded quota: team, requested: pods=1')
TOO_NEW = refusal(403, "Forbidden", 'error looking up service account team/default: serviceaccount "default" not found')
GONE = refusal(404, "NotFound", 'pods "driftline-x" not found')
TIMEOUT = refusal(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
DEAD_WEBHOOK = refusal(
    500,
    "InternalError",
    'Internal error occurred: failed calling webhook "pods.example.com": failed to call webhook: Post '
    '"https://10.244.255.1:1/?timeout=2s": dial tcp 10.244.255.1:1: connect: connection refused',
)
Ask = Callable[..., Api]


class Script(ThreadingHTTPServer):
    """Answers each verb by its own list, the last one is repeated."""

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.asked = answers, list[str]()


class _Handler(BaseHTTPRequestHandler):
    server: Script

    def _say(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self.command)
        left = self.server.answers[self.command]
        status, body = left.pop(0) if len(left) > 1 else left[0]
        self.close_connection = True
        if not status:
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(201 if status < 0 else status)
        self.send_header("Content-Length", str(len(data) + (50 if status < 0 else 0)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET = _say

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Api, Script]]]:
    """Return an API by what it answers to POST and GET; its clock runs only while somebody waits."""
    servers = list[Script]()
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(api, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))

    def build(post: list[Answer], get: list[Answer] | None = None) -> tuple[Api, Script]:
        server = Script({"POST": post, "GET": get or [GONE]})
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        host = f"http://127.0.0.1:{server.server_address[1]}"
        return Api("team", client.Configuration(host=host), patience_s=60.0), server

    yield build
    for server in servers:
        server.shutdown()
        server.server_close()


Build = Callable[..., tuple[Api, Script]]


@pytest.mark.parametrize(
    "trouble",
    [
        CONFLICT,
        refusal(409, "", "no reason"),
        (409, HTML),
        (502, HTML),
        TIMEOUT,
        TOO_NEW,
        (0, b""),
        (-1, b'{"kind": "Pod", "meta'),
        (201, b'{"kind": "Pod", "meta'),
        (200, HTML),
        (403, b"<html>the proxy is being restarted</html>"),
        refusal(429, "TooManyRequests", "later"),
    ],
)
def test_what_passes_is_asked_again(script: Build, trouble: Answer) -> None:
    request, server = script([trouble, trouble, (201, MINE)])
    assert request.create(MINE).name == "driftline-x"
    assert server.asked == ["POST"] * 3


def test_a_pod_whose_creation_was_not_answered_is_found_and_not_created_twice(script: Build) -> None:
    request, server = script([TIMEOUT, EXISTS], [(200, MINE)])
    assert request.create(MINE) == read_pod(MINE)
    assert server.asked == ["POST", "POST", "GET"]


def test_a_pod_whose_answer_was_lost_uses_up_the_quota_that_refuses_it(script: Build) -> None:
    request, server = script([(0, b""), QUOTA], [(200, MINE)])
    assert request.create(MINE) == read_pod(MINE)
    assert server.asked == ["POST", "POST", "GET"]


def test_a_quota_that_is_used_up_by_others_refuses(script: Build) -> None:
    request, server = script([TIMEOUT, QUOTA])
    with pytest.raises(ApiTrouble, match="exceeded quota") as problem:
        request.create(MINE)
    assert (problem.value.meaning, problem.value.may_be_done) == ("full", False)
    assert server.asked == ["POST", "POST", "GET"], "it was looked for, and is not there"


@pytest.mark.parametrize(("pod", "whose"), [(THEIRS, "attempt b2"), (UNLABELLED, "no attempt")])
def test_a_pod_of_somebody_else_is_a_conflict_with_a_name(script: Build, pod: Any, whose: str) -> None:
    request, _ = script([EXISTS], [(200, pod)])
    with pytest.raises(ApiTrouble, match=f"pod driftline-x .* belongs to {whose}, not to attempt a1") as problem:
        request.create(MINE)
    assert problem.value.meaning == "refused"


def test_a_pod_that_is_gone_when_it_is_looked_for_is_created(script: Build) -> None:
    request, server = script([EXISTS, (201, MINE)], [GONE])
    assert request.create(MINE) == read_pod(MINE)
    assert server.asked == ["POST", "GET", "POST"]


@pytest.mark.parametrize(
    ("trouble", "may_be_done"),
    [
        (TIMEOUT, True),
        ((503, HTML), True),
        ((0, b""), True),
        ((200, HTML), True),
        (CONFLICT, False),
        (DEAD_WEBHOOK, False),
    ],
)
def test_trouble_beyond_patience_says_whether_a_pod_may_be_there(script: Build, trouble: Answer, may_be_done: bool):
    request, server = script([trouble])
    with pytest.raises(ApiTrouble) as problem:
        request.create(MINE)
    assert (problem.value.meaning, problem.value.may_be_done) == ("again", may_be_done)
    assert set(server.asked) == {"POST"}
    assert len(server.asked) > 5


def test_one_lost_answer_among_conflicts_is_not_forgotten(script: Build) -> None:
    request, _ = script([TIMEOUT, CONFLICT])
    with pytest.raises(ApiTrouble) as problem:
        request.create(MINE)
    assert problem.value.may_be_done


def test_what_a_new_namespace_lacks_is_waited_for_half_a_minute(script: Build) -> None:
    request, _ = script([TOO_NEW])
    with pytest.raises(ApiTrouble, match="serviceaccount") as problem:
        request.create(MINE)
    assert problem.value.meaning == "refused"
    assert 15 < api.time.monotonic() <= api.SOON_S


def test_an_api_server_that_denies_a_read_after_an_outage_is_waited_for(script: Build) -> None:
    denied = refusal(403, "Forbidden", 'pods "driftline-x" is forbidden: User "run" cannot get resource "pods"')
    request, _ = script([GONE], [*[(502, HTML)] * 6, *[denied] * 4, (200, MINE)])
    pod = request.pod("driftline-x").pod
    assert pod is not None and pod.name == "driftline-x"
    request, _ = script([GONE], [denied])
    with pytest.raises(ApiTrouble, match="cannot get resource"):
        request.pod("driftline-x")


@pytest.mark.parametrize(
    "body", [(200, HTML), (200, b'{"kind": "PodList", "items": ['), (404, HTML), (200, {"status": "ok"})]
)
def test_a_proxys_error_page_is_not_taken_for_a_missing_pod(script: Build, body: Answer) -> None:
    request, _ = script([], [body, body, (200, MINE)])
    assert request.pod("driftline-x").pod == read_pod(MINE)
    request, _ = script([], [body, (200, {"kind": "PodList", "items": [MINE]})])
    assert request.pods({"driftline/step": "train"}) == [read_pod(MINE)]
