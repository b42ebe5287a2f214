"""The double's API: what each verb on each resource does, and who may use it. HTTP does not belong here."""

import copy
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.doubles.cluster import statuses
from tests.doubles.cluster.kubelet import Kubelet, Order
from tests.doubles.cluster.objects import GROUPS, KINDS, ApiProblem, Change, Object, field_of, refusal, selects, walk

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")


class Access(NamedTuple):
    """Whom a bearer token stands for, and the namespaces where it may do everything; None: everywhere."""

    user: str = "system:serviceaccount:driftline:driftline"
    namespaces: Collection[str] | None = None
    may_read_nodes: bool = True


class Request(NamedTuple):
    """One request: a verb as Kubernetes names it (and `log`, which is a get of a part of a pod), an object, options."""

    verb: str
    resource: str
    namespace: str
    name: str
    query: Mapping[str, str]
    body: Any = None

    def asks(self, option: str) -> bool:
        # The Python client writes it with a capital T.
        return self.query.get(option, "").lower() in ("true", "1")

    def chooses(self) -> Callable[[Object], bool]:
        return selects(self.query.get("labelSelector", ""), self.query.get("fieldSelector", ""))


class Answer(NamedTuple):
    """A JSON object, or a stream of blocks (an empty one when there is nothing to say for a while)."""

    body: Object | None = None
    stream: Iterator[bytes] | None = None
    code: int = 200
    content_type: str = "application/json"


class Api:
    """Answers requests from the store, the kubelet's logs and the tokens that are valid now; see Faults for its own."""

    def __init__(self, kubelet: Kubelet, tokens: dict[str, Access]) -> None:
        self.store, self.kubelet, self.tokens = kubelet.store, kubelet, tokens
        self.failures: list[list[Any]] = []
        self.cuts: list[tuple[int, bool]] = []
        self.silent_until, self.refuses, self.is_closed = 0.0, False, False

    @property
    def is_silent(self) -> bool:
        return time.monotonic() < self.silent_until

    def answer(self, request: Request, token: str) -> Answer:
        """Carry a request out, or raise the failure that is its answer."""
        access, name, resource = self.tokens.get(token), request.name, request.resource
        if access is None:
            raise ApiProblem(401, "Unauthorized", "Unauthorized")
        is_allowed = access.namespaces is None or request.namespace in access.namespaces
        if not request.namespace and resource in ("nodes", "namespaces"):
            is_allowed = access.may_read_nodes
        if not is_allowed:
            scope = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
            subject = f'resource "{resource}" in API group "{"batch" if resource == "jobs" else ""}" {scope}'
            message = f'is forbidden: User "{access.user}" cannot {request.verb} {subject}'
            raise refusal(403, "Forbidden", resource, name, message)
        if request.verb == "watch":
            return Answer(stream=self._events(request))
        act: Callable[[Request], Answer] | None = getattr(self, f"_{request.verb}", None)
        if act is None or not (request.verb in ("get", "list", "log") or resource in ("pods", "jobs")):
            raise ApiProblem(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        return act(request)

    def _get(self, request: Request) -> Answer:
        return Answer(body=self.store.get(request.resource, request.namespace, request.name))

    def _list(self, request: Request) -> Answer:
        body: Object = {"kind": f"{KINDS[request.resource]}List", "apiVersion": GROUPS.get(request.resource, "v1")}
        with self.store.changed:
            body["metadata"] = {"resourceVersion": str(self.store.version)}
            body["items"] = list(filter(request.chooses(), self.store.every(request.resource, request.namespace)))
        return Answer(body=body)

    def _events(self, request: Request) -> Iterator[bytes]:
        until = time.monotonic() + float(request.query.get("timeoutSeconds") or 3600)
        chosen, since = request.chooses(), int(request.query.get("resourceVersion") or 0)
        if not since:
            there = self._list(request).body or {}
            since = int(there["metadata"]["resourceVersion"])
            yield b"".join(_event("ADDED", item) for item in there["items"])
        while (left := until - time.monotonic()) > 0 and not self.is_closed:
            try:
                with self.store.changed:
                    if not self.store.changes(request.resource, since):
                        self.store.changed.wait(min(left, 0.5))
                    changes, since = self.store.changes(request.resource, since), self.store.version
            except ApiProblem as problem:
                yield _event("ERROR", problem.body)
                return
            mine = [item for item in changes if request.namespace in ("", item[3]["metadata"].get("namespace"))]
            yield b"".join(_told(change, chosen) for change in mine)

    def _create(self, request: Request) -> Answer:
        self.store.get("namespaces", "", request.namespace)
        if request.resource == "jobs":
            new = _sound("Job", request.body, request.body["spec"]["template"]["spec"], request.namespace)
            new |= {"spec": {"backoffLimit": 6} | new["spec"], "status": {}}
            return Answer(body=self.store.add("jobs", new), code=201)
        if requested := self.kubelet.planned("quota"):
            self.kubelet.journal.write(request.body, "quota")
            message = f"is forbidden: exceeded quota: gpu-quota, requested: {requested}"
            raise refusal(403, "Forbidden", "pods", request.body["metadata"]["name"], message)
        return Answer(body=self.create_pod(request.namespace, request.body), code=201)

    def create_pod(self, namespace: str, body: Object) -> Object:
        """Store a pod, as the API and the controller of jobs do; 422 when it breaks a rule."""
        new = _sound("Pod", body, body.get("spec") or {}, namespace)
        new["spec"] = {"terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"} | new["spec"]
        if code := self.kubelet.planned("init"):
            command = ["sh", "-c", f"echo the init container was told to fail >&2; exit {code}"]
            injected = {"name": "injected-init", "image": new["spec"]["containers"][0]["image"], "command": command}
            new["spec"]["initContainers"] = [*(new["spec"].get("initContainers") or []), injected]
        return self.store.add("pods", new | {"status": {"phase": "Pending", "qosClass": "Burstable"}})

    def _delete(self, request: Request) -> Answer:
        old = self.store.get(request.resource, request.namespace, request.name)
        options = dict(request.query) | (request.body or {})
        output = self.delete(request.resource, old, options)
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return Answer(body=output if request.resource == "pods" else success)

    def delete(self, resource: str, old: Object, options: Mapping[str, Any]) -> Object:
        """Delete a pod with its grace, or a job; by default a job's pods are left, as the API has it."""
        if resource == "jobs":
            for pod in self.store.every("pods") if options.get("propagationPolicy", "Orphan") != "Orphan" else []:
                if any(owner["uid"] == old["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", [])):
                    self.delete("pods", pod, {})
            return self.store.remove("jobs", old) or old
        with self.store.changed:
            pod = self.store.get("pods", old["metadata"]["namespace"], old["metadata"]["name"])
            request, node = options.get("gracePeriodSeconds"), pod["spec"].get("nodeName")
            grace_s = pod["spec"]["terminationGracePeriodSeconds"] if request is None else int(request)
            runs, is_lost = pod["metadata"]["uid"] in self.kubelet.workers, node in self.kubelet.unreachable
            if grace_s and (runs or is_lost) and pod["status"]["phase"] not in statuses.ENDED:
                gone = self.doom(pod, grace_s)
            else:
                gone = self.store.remove("pods", pod) or pod
                refused = any(item.get("reason") == "Unschedulable" for item in pod["status"].get("conditions") or [])
                if not runs:
                    self.kubelet.journal.write(pod, "unschedulable" if refused else "deleted")
        if not is_lost:
            self.kubelet.order(pod, Order(cause="deleted", grace_s=grace_s), waits=False)
        return gone

    def doom(self, pod: Object, grace_s: float, act: Callable[[Object], object] = lambda pod: None) -> Object:
        """Mark a pod as one that is being deleted: it goes as soon as its processes have ended."""

        def mark(now: Object) -> None:
            act(now)
            stamp = self.store.stamp(datetime.now(UTC) + timedelta(seconds=grace_s))
            now["metadata"] |= {"deletionTimestamp": stamp, "deletionGracePeriodSeconds": int(grace_s)}

        with self.store.changed:
            self.kubelet.doomed.add(pod["metadata"]["uid"])
            return self.store.change("pods", pod, mark) or pod

    def _log(self, request: Request) -> Answer:
        pod, query = self.store.get("pods", request.namespace, request.name), request.query
        name, node = query.get("container") or pod["spec"]["containers"][0]["name"], pod["spec"].get("nodeName")
        message, subject = "", f'container "{name}" in pod "{request.name}"'
        if node in self.kubelet.unreachable:
            message = f'Get "https://{node}:10250/containerLogs/{request.namespace}/{request.name}/{name}": dial tcp'
            raise ApiProblem(500, "InternalError", f"{message} {node}:10250: connect: no route to host")
        output = [*(pod["status"].get("initContainerStatuses") or []), *(pod["status"].get("containerStatuses") or [])]
        state = next((item["state"] for item in output if item["name"] == name), {})
        log = self.kubelet.logs.get((pod["metadata"]["uid"], name))
        if name not in [spec["name"] for _, spec in walk(pod)]:
            message = f"container {name} is not valid for pod {request.name}"
        elif "waiting" in state:
            message = f"{subject} is waiting to start: {field_of(state, 'waiting.reason')}"
        elif not state or log is None:
            message = f"{subject} is not available"
        if message or log is None:
            raise ApiProblem(400, "BadRequest", message)
        tail = int(query["tailLines"]) if "tailLines" in query else None
        follow, timestamps, seconds = request.asks("follow"), request.asks("timestamps"), query.get("sinceSeconds")
        since = self.store.stamp(datetime.now(UTC) - timedelta(seconds=int(seconds)))[:-1] if seconds else ""
        blocks = log.read(follow=follow, tail=tail, timestamps=timestamps, since=since)
        return Answer(stream=blocks, content_type="text/plain")


def _sound(kind: str, body: Object, spec: Object, namespace: str) -> Object:
    """Return an object as it is stored; 422 when it breaks a rule."""
    metadata, causes = body.get("metadata") or {}, []
    name = metadata.get("name") or metadata.get("generateName", "").rstrip("-")
    if not NAME.fullmatch(name):
        causes.append(f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain is required')
    odd = [value for value in (metadata.get("labels") or {}).values() if not LABEL.fullmatch(value)]
    causes += [f'metadata.labels: Invalid value: "{value}": must be no more than 63 characters' for value in odd]
    if not spec.get("containers"):
        causes.append("spec.containers: Required value")
    if spec.get("restartPolicy") != "Never" or len(spec.get("containers") or []) > 1:
        causes.append("spec: the double runs pods of one container, and with restartPolicy Never")
    for field, container in walk({"spec": spec}):
        causes += [f"spec.{field}[0].{key}: Required value" for key in ("name", "image") if not container.get(key)]
    if causes:
        message = causes[0] if len(causes) == 1 else f"[{', '.join(causes)}]"
        raise ApiProblem(422, "Invalid", f'{kind} "{name}" is invalid: {message}', {"name": name, "kind": kind})
    return copy.deepcopy(body) | {"metadata": copy.deepcopy(metadata) | {"namespace": namespace}}


def _event(kind: str, of: Object) -> bytes:
    return json.dumps({"type": kind, "object": of}).encode() + b"\n"


def _told(change: Change, chosen: Callable[[Object], bool]) -> bytes:
    """Return the event for a watcher who sees only chosen objects: one that stops being chosen is deleted to it."""
    _, _, kind, new, old = change
    was_chosen = old is not None and chosen(old)
    if chosen(new) and kind != "DELETED":
        return _event("MODIFIED" if was_chosen else "ADDED", new)
    return _event("DELETED", new) if was_chosen else b""
