"""Play recorded answers of the Kubernetes API to a launcher: each pod that it creates shows a list of statuses.

No scheduler, kubelet or container is behind it: what a cluster does is tested on one (`tests/cluster`). It is for what
no cluster does on demand: answers that are lost, refused or garbled, and a clock that is wrong.
"""

import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from dagster_pipes import DAGSTER_PIPES_MESSAGES_ENV_VAR, decode_param
from kubernetes.client import Configuration

from platform_assets.base.settings import Settings

Object = dict[str, Any]
IMAGE = f"trainer@sha256:{0:064}"
LOST = 0
"""The status of an answer that never comes: the connection is closed."""
GONE: Object = {"gone": True}
"""The status of a pod that the API does not have any more."""
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@dataclass(frozen=True)
class Play:
    """What one pod shows, a status per look, the last one for ever.

    Attributes:
        result: that its step reports when the last status is shown; None for none.
    """

    statuses: Sequence[Object]
    result: int | None = None


@dataclass
class Trouble:
    """Wrong answers to the next requests of a verb: create, get, list, delete, or `all`.

    Attributes:
        status: of HTTP, or `LOST`.
        is_done: whether the request is carried out all the same.
    """

    verb: str
    status: int
    reason: str = ""
    message: str = "of the test"
    details: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    is_done: bool = False


class PlayedApi(ThreadingHTTPServer):
    """The API of one namespace.

    Args:
        plays: of the pods, in the order in which they are created; the last one is played again and again.
        clock_shift_s: how far its clock is ahead.
    """

    daemon_threads = True

    def __init__(self, *plays: Play, clock_shift_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plays = deque(plays)
        self.shift = timedelta(seconds=clock_shift_s)
        self.pods: dict[str, Object] = {}
        self.left: dict[str, tuple[deque[Object], int | None]] = {}
        self.troubles: list[Trouble] = []
        self.events: list[Object] = []
        self.created: list[str] = []
        self.lock = threading.RLock()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def configuration(self) -> Configuration:
        return Configuration(host=f"http://127.0.0.1:{self.server_address[1]}")

    def kubeconfig(self) -> str:
        cluster = {"server": self.configuration().host}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "played", "cluster": cluster}],
            "users": [{"name": "user", "user": {}}],
            "contexts": [{"name": "played", "context": {"cluster": "played", "user": "user"}}],
            "current-context": "played",
        }
        return json.dumps(document)

    def now(self) -> datetime:
        """Return the time by its clock, in whole seconds as Kubernetes has it."""
        return (datetime.now(UTC) + self.shift).replace(microsecond=0)

    def create(self, manifest: Object) -> Object:
        name = str(manifest["metadata"]["name"])
        play = self.plays.popleft() if len(self.plays) > 1 else self.plays[0]
        meta = {**manifest["metadata"], "uid": name, "creationTimestamp": stamp(self.now()), "resourceVersion": "1"}
        self.pods[name] = {"kind": "Pod", **manifest, "metadata": meta, "status": {"phase": "Pending"}}
        self.left[name] = deque(play.statuses), play.result
        self.created.append(name)
        return self.pods[name]

    def look(self, name: str) -> Object:
        pod, (statuses, result) = self.pods[name], self.left[name]
        if statuses:
            pod["status"] = shown(statuses.popleft(), self)
            if "containerStatuses" in pod["status"]:
                pod["spec"]["nodeName"] = "node-1"
            if not statuses and result is not None:
                # The messages of a step that reports its result, where its pod was told to.
                (container,) = pod["spec"]["containers"]
                (value,) = (
                    item["value"] for item in container["env"] if item["name"] == DAGSTER_PIPES_MESSAGES_ENV_VAR
                )
                payload = {"payload": {"kind": "result", "value": result}}
                messages = [("opened", {"extras": {}}), ("report_custom_message", payload), ("closed", {})]
                lines = [
                    json.dumps({"__dagster_pipes_version": "0.1", "method": name, "params": more})
                    for name, more in messages
                ]
                with Path(decode_param(value)["path"]).open("a", encoding="utf-8") as file:
                    file.write("".join(f"{line}\n" for line in lines))
        return pod

    def trouble(self, verb: str) -> Trouble | None:
        """Return the next trouble of a verb."""
        for trouble in self.troubles:
            if trouble.count and trouble.verb in (verb, "all"):
                trouble.count -= 1
                return trouble
        return None


class _Handler(BaseHTTPRequestHandler):
    server: PlayedApi
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        address = urlsplit(self.path)
        name = address.path.partition("/pods/")[2]
        verb = {"POST": "create", "DELETE": "delete"}.get(self.command, "get" if name else "list")
        query = parse_qs(address.query)
        with self.server.lock:
            if address.path == "/version/":
                return self._send(200, {"major": "1", "minor": "35"})
            if address.path.endswith("/selfsubjectaccessreviews"):
                return self._send(201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": True}})
            if address.path.endswith("/resourcequotas"):
                return self._send(200, {"kind": "ResourceQuotaList", "items": [{"metadata": {"name": "steps"}}]})
            if address.path.endswith("/jobs"):
                return self._send(200, {"kind": "JobList", "items": []})
            if "dryRun" in query:
                return self._send(201, {"kind": "Pod", **body})
            if "events" in address.path:
                return self._send(200, {"kind": "EventList", "items": self.server.events})
            if "/nodes/" in address.path:
                node = {"kind": "Node", "metadata": {"name": address.path.rpartition("/")[2]}, "status": READY}
                return self._send(200, node)
            if name.endswith("/log"):
                return self._send(200, b"")
            if "watch" in query:
                return self._refuse(405, "MethodNotAllowed", "nothing is watched here")
            text = query.get("labelSelector", [""])[0]
            selector = {tuple(item.split("=")) for item in text.split(",") if item}
            return self._of_pods(verb, name, body, selector)

    def _of_pods(self, verb: str, name: str, body: Object, selector: set[tuple[str, ...]]) -> None:
        server, trouble = self.server, self.server.trouble(verb)
        if trouble and not trouble.is_done:
            return self._refuse(trouble.status, trouble.reason, trouble.message, trouble.details)
        if verb == "create" and body["metadata"]["name"] in server.pods:
            status, answer = 409, _status(409, "AlreadyExists", "it already exists")
        elif verb == "create":
            status, answer = 201, server.create(body)
        elif verb == "list":
            items = [pod for pod in server.pods.values() if selector <= set(pod["metadata"].get("labels", {}).items())]
            status, answer = 200, {"kind": "PodList", "items": items}
        elif name not in server.pods or (verb == "get" and server.look(name)["status"] == GONE):
            status, answer = 404, _status(404, "NotFound", f'pods "{name}" not found')
        elif verb == "get":
            status, answer = 200, server.pods[name]
        else:
            status, answer = 200, server.pods.pop(name)
        if trouble:
            return self._refuse(trouble.status, trouble.reason, trouble.message, trouble.details)
        return self._send(status, answer)

    def _refuse(self, code: int, reason: str, message: str, details: Mapping[str, str] | None = None) -> None:
        if code == LOST:
            self.close_connection = True
            return
        self._send(code, _status(code, reason, message, details))

    def _send(self, status: int, body: Object | bytes) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Date", f"{self.server.now():%a, %d %b %Y %H:%M:%S GMT}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


def shown(status: Object, api: PlayedApi) -> Object:
    """Return a status as it is shown now."""
    document: Object = json.loads(json.dumps(status).replace("NOW", stamp(api.now())))
    return document


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def running() -> Object:
    """Return the status of a pod whose step has begun; NOW stands for the time at which it is shown."""
    state = {"name": "step", "state": {"running": {"startedAt": "NOW"}}, "ready": True, "restartCount": 0}
    return {"phase": "Running", "containerStatuses": [state]}


def ended(code: int, reason: str = "") -> Object:
    """Return the status of a pod whose step has ended."""
    end = {"exitCode": code, "reason": reason or ("Error" if code else "Completed")}
    state = {"terminated": {**end, "startedAt": "NOW", "finishedAt": "NOW"}}
    status = {"name": "step", "state": state, "ready": False, "restartCount": 0}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [status]}


def well(looks: int = 2) -> Play:
    """Return the play of a step that finishes after some looks."""
    return Play([*[running()] * looks, ended(0)], result=1)


def settings_of(folder: Path | str, **more: str) -> Settings:
    """Return the settings of a launcher on such an API, with store and state in a folder."""
    places = {
        "DRIFTLINE_STATE": f"{folder}/state",
        "DRIFTLINE_ROOT": f"{folder}/store",
        "DRIFTLINE_NAMESPACE": "default",
    }
    return Settings.from_environment({**places, "DRIFTLINE_TRAINER_IMAGE": IMAGE, **more})


def _status(code: int, reason: str, message: str, details: Mapping[str, str] | None = None) -> Object:
    """Return the API's object for a refusal."""
    about = {"details": dict(details)} if details else {}
    return {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code, **about}
