"""The double's objects: one store with a clock, versions and a history that watches read; and how the API fails."""

import copy
import re
import threading
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

Object = dict[str, Any]
"""An object as the API shows it. One that is in the store is never changed, only replaced."""

KINDS = {"namespaces": "Namespace", "nodes": "Node", "pods": "Pod", "events": "Event", "jobs": "Job"}
GROUPS = {"jobs": "batch/v1"}


class ApiProblem(Exception):
    """An answer that is a failure: an object of kind Status, with the server's own sentence."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
        self.body |= {"reason": reason} | ({"details": details} if details else {}) | {"code": code}


def refusal(code: int, reason: str, resource: str, name: str, said: str) -> ApiProblem:
    """Return the refusal of something that is about an object: jobs are of a group, the double's others of none."""
    details = {"name": name} | ({"group": "batch"} if resource == "jobs" else {}) | {"kind": resource}
    qualified = "jobs.batch" if resource == "jobs" else resource
    return ApiProblem(code, reason, (f'{qualified} "{name}" ' if name else f"{qualified} ") + said, details)


Change = tuple[int, str, str, Object, Object | None]
"""Version, resource, kind, new state (of what was deleted: the last), old state (of what was added: None)."""


class Store:
    """Holds objects by resource, namespace and name; `changed` tells of changes. Its clock is ahead by `skew_s`."""

    def __init__(self) -> None:
        self.skew_s = 0.0
        self.changed = threading.Condition(threading.RLock())
        self.version = self._oldest = 1000
        self._objects: dict[str, dict[tuple[str, str], Object]] = {resource: {} for resource in KINDS}
        self._history: list[Change] = []

    def now(self, true: datetime | None = None) -> datetime:
        return (true or datetime.now(UTC)) + timedelta(seconds=self.skew_s)

    def stamp(self, true: datetime | None = None) -> str:
        """Return the cluster's time now, or at a true time, in whole seconds, as the API gives it."""
        return self.now(true).strftime("%Y-%m-%dT%H:%M:%SZ")

    def add(self, resource: str, new: Object) -> Object:
        """Add an object, with what the server fills in."""
        with self.changed:
            new = {"kind": KINDS[resource], "apiVersion": GROUPS.get(resource, "v1")} | copy.deepcopy(new)
            metadata = new["metadata"]
            name = metadata["name"] = metadata.get("name") or metadata["generateName"] + uuid.uuid4().hex[:5]
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self.stamp()}
            if _key(new) in self._objects[resource]:
                raise refusal(409, "AlreadyExists", resource, name, "already exists")
            return self._record(resource, "ADDED", new, None)

    def find(self, resource: str, namespace: str, name: str) -> Object | None:
        return self._objects[resource].get((namespace, name))

    def get(self, resource: str, namespace: str, name: str) -> Object:
        """Return an object; 404 without one."""
        if (result := self.find(resource, namespace, name)) is None:
            raise refusal(404, "NotFound", resource, name, "not found")
        return result

    def every(self, resource: str, namespace: str = "") -> list[Object]:
        with self.changed:
            return [value for (path, _), value in self._objects[resource].items() if namespace in ("", path)]

    def change(self, resource: str, old: Object, act: Callable[[Object], object]) -> Object | None:
        """Let `act` change the newest state of an object; None when it is gone (one of another uid is not it)."""
        with self.changed:
            if (now := self._newest(resource, old)) is None:
                return None
            act(new := copy.deepcopy(now))
            return now if new == now else self._record(resource, "MODIFIED", new, now)

    def remove(self, resource: str, old: Object) -> Object | None:
        """Remove an object; None when it was not there any more."""
        with self.changed:
            if (now := self._newest(resource, old)) is None:
                return None
            del self._objects[resource][_key(old)]
            return self._record(resource, "DELETED", copy.deepcopy(now), now)

    def changes(self, resource: str, since: int) -> list[Change]:
        """Return the history after a version; 410 when that is forgotten."""
        with self.changed:
            if since < self._oldest:
                raise ApiProblem(410, "Expired", f"too old resource version: {since} ({self._oldest})")
            first = bisect_right(self._history, since, key=lambda change: change[0])
            return [change for change in self._history[first:] if change[1] == resource]

    def forget(self) -> None:
        """Forget the history: a watch from any version before now is answered with 410."""
        with self.changed:
            self.version = self._oldest = self.version + 1
            self._history.clear()

    def tell(self, of: Object, reason: str, message: str, by: str = "kubelet", *, is_warning: bool = False) -> None:
        """Add an event about an object."""
        metadata, stamp = of["metadata"], self.stamp()
        path = {"namespace": metadata.get("namespace", "default")}
        involved = {key: of[key] for key in ("kind", "apiVersion")} | {key: metadata[key] for key in ("name", "uid")}
        event = {"metadata": {"generateName": f"{metadata['name']}."} | path, "involvedObject": involved | path}
        event |= {"reason": reason, "message": message, "source": {"component": by}, "count": 1}
        event |= {"type": "Warning" if is_warning else "Normal", "firstTimestamp": stamp, "lastTimestamp": stamp}
        self.add("events", event)

    def _newest(self, resource: str, old: Object) -> Object | None:
        now = self.find(resource, *_key(old))
        return now if now is not None and now["metadata"]["uid"] == old["metadata"]["uid"] else None

    def _record(self, resource: str, kind: str, new: Object, old: Object | None) -> Object:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        if kind != "DELETED":
            self._objects[resource][_key(new)] = new
        self._history.append((self.version, resource, kind, new, old))
        self.changed.notify_all()
        return new


def _key(of: Object) -> tuple[str, str]:
    return of["metadata"].get("namespace", ""), of["metadata"]["name"]


def selects(labels: str = "", fields: str = "") -> Callable[[Object], bool]:
    """Return whether an object has the labels and fields that a request selects by."""
    terms = [_label_test(term.strip()) for term in re.split(r",(?![^(]*\))", labels) if term]
    exact = [re.split(r"(!=|==|=)", term, maxsplit=1) for term in fields.split(",") if term]

    def test(candidate: Object) -> bool:
        original = candidate["metadata"].get("labels") or {}
        is_shown = all((field_of(candidate, path) == value) != (sign == "!=") for path, sign, value in exact)
        return is_shown and all(term(original) for term in terms)

    return test


def field_of(value: Any, path: str) -> str:
    """Return a field by its path, `status.phase`; the empty text where there is none."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def _label_test(term: str) -> Callable[[dict[str, str]], bool]:
    if among := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", term):
        values = {value.strip() for value in among[3].split(",")}
        return lambda own: (own.get(among[1]) in values) == (among[2] == "in")
    if equal := re.fullmatch(r"([^!=\s]+)\s*(!=|==|=)\s*(\S*)", term):
        return lambda own: (own.get(equal[1]) == equal[3]) != (equal[2] == "!=")
    return lambda own: (term.lstrip("!") in own) != term.startswith("!")


def walk(pod: Object) -> Iterator[tuple[str, Object]]:
    """Yield (field, container) for a pod's init containers and its container."""
    for field in ("initContainers", "containers"):
        yield from ((field, container) for container in pod["spec"].get(field) or [])
