"""Speak to the Kubernetes API: pods, their logs and events, nodes; as plain JSON, patient with an API in trouble.

Belongs here: requests, credentials, which errors pass. Does not belong here: what an answer means (`pods.py`).

The client's own models are not used: they fill what the API left out with None and lose what they do not know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from kubernetes.client import Configuration, CoreV1Api

CONNECT_S, READ_S = 5.0, 20.0
SILENCE_S = 5.0
"""How long a log may be silent before its stream is opened anew: nobody tells a client of a connection that died."""
PATIENCE_S = 300.0
LONGEST_PAUSE_S = 15.0
LONGEST_REST = 1 << 16
"""How many bytes are kept of a line that has no end yet."""
UNAUTHORIZED_TRIES = 3
Result = TypeVar("Result")


class ApiTrouble(Exception):
    """The API refused a request, or did not answer for longer than patience lasts.

    Attributes:
        status: HTTP's; 0 when nothing answered.
        reason: the API's own word for it, such as `Forbidden`.
        said: its sentence.
    """

    def __init__(self, status: int, reason: str, said: str) -> None:
        self.status = status
        self.reason = reason
        self.said = said
        super().__init__(f"{status} {reason}: {said}".rstrip(": ") if status else said)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the API answered: the object, None when there is none; and the time by its own clock."""

    found: dict[str, Any] | None
    now: datetime


class Api:
    """The API of one namespace.

    Args:
        namespace: of the pods.
        configuration: address and credentials; None for those of the pod that this runs in, or else of `KUBECONFIG`.
        patience_s: how long it may be in trouble before that is raised.
        tell: takes a line when a request is tried again.
    """

    def __init__(
        self,
        namespace: str,
        configuration: Configuration | None = None,
        *,
        patience_s: float = PATIENCE_S,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.namespace = namespace
        self.patience_s = patience_s
        self.tell = tell
        self._given = configuration
        self._client: CoreV1Api | None = None

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create a pod, or find that an earlier try of the same request did, and return it."""
        name = manifest["metadata"]["name"]
        try:
            answer = self._json(lambda core, **how: core.create_namespaced_pod(self.namespace, manifest, **how))
        except ApiTrouble as trouble:
            if trouble.status != 409:
                raise
            answer = self.pod(name)
        return answer.found or {}

    def pod(self, name: str) -> Answer:
        """Return a pod."""
        return self._json(lambda core, **how: core.read_namespaced_pod(name, self.namespace, **how), is_there=False)

    def pods(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the pods that carry all of these labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        answer = self._json(
            lambda core, **how: core.list_namespaced_pod(self.namespace, label_selector=selector, **how)
        )
        return list((answer.found or {}).get("items") or [])

    def delete(self, name: str, *, grace_s: float | None = None) -> None:
        """Delete a pod, if it is there.

        Args:
            grace_s: in place of the pod's own; 0 takes it off the API at once, whatever its node says.
        """
        more = {} if grace_s is None else {"grace_period_seconds": int(grace_s)}
        self._json(lambda core, **how: core.delete_namespaced_pod(name, self.namespace, **more, **how), is_there=False)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a pod; none where they may not be read."""
        selector = f"involvedObject.kind=Pod,involvedObject.name={name}"
        try:
            answer = self._json(
                lambda core, **how: core.list_namespaced_event(self.namespace, field_selector=selector, **how)
            )
        except ApiTrouble as trouble:
            if trouble.status != 403:
                raise
            return []
        return list((answer.found or {}).get("items") or [])

    def node(self, name: str) -> dict[str, Any] | None:
        """Return a node, an empty mapping when it is gone, None where nodes may not be read."""
        try:
            return self._json(lambda core, **how: core.read_node(name, **how), is_there=False).found or {}
        except ApiTrouble as trouble:
            if trouble.status != 403:
                raise
            return None

    def lines(
        self, name: str, *, container: str, follow: bool, since_s: int | None = None
    ) -> Iterator[tuple[str, str]]:
        """Yield each line of a container's log with the time that the node gave it, until the stream ends.

        Of a line without an end only its beginning is kept.

        Args:
            follow: whether to wait for lines to come; after some silence that ends with urllib3's `ReadTimeoutError`.
            since_s: skip lines that are older.
        """
        more = {} if since_s is None else {"since_seconds": since_s}
        response = self._core().read_namespaced_pod_log(
            name,
            self.namespace,
            container=container,
            follow=follow,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(CONNECT_S, SILENCE_S),
            **more,
        )
        rest = b""
        try:
            for chunk in response.stream(65536, decode_content=False):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from map(_stamped, whole)
                rest = rest[:LONGEST_REST]
            if rest:
                yield _stamped(rest)
        finally:
            response.close()

    def _json(self, ask: Callable[..., Any], *, is_there: bool = True) -> Answer:
        """Ask until the API answers; a 404 is an answer where something need not be there."""

        def once() -> Answer:
            from kubernetes import client

            try:
                response = ask(self._core(), _preload_content=False, _request_timeout=(CONNECT_S, READ_S))
                body = response.data
            except client.ApiException as error:
                if error.status == 404 and not is_there and _body(error.body).get("kind", "Status") == "Status":
                    return Answer(found=None, now=_date(error.headers))
                raise
            return Answer(found=json.loads(body), now=_date(response.headers))

        return self._patiently(once)

    def _patiently(self, once: Callable[[], Result]) -> Result:
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        began_s, tries, refused = time.monotonic(), 0, 0
        while True:
            tries += 1
            pause_s = min(LONGEST_PAUSE_S, 0.25 * 2.0**tries)
            try:
                return once()
            except client.ApiException as error:
                trouble = _trouble(error)
                if error.status == 401:
                    # A token that has run out is often replaced in its file before anybody notices.
                    refused += 1
                    self._client = None
                    if refused >= UNAUTHORIZED_TRIES:
                        raise trouble from None
                elif error.status not in (0, 408, 429) and not 500 <= error.status <= 599:
                    raise trouble from None
                asked_s = str((error.headers or {}).get("Retry-After", ""))
                pause_s = max(pause_s, float(asked_s)) if asked_s.isdecimal() else pause_s
            except (HTTPError, OSError, json.JSONDecodeError) as error:
                trouble = ApiTrouble(0, "", f"the Kubernetes API did not answer: {type(error).__name__}: {error}")
            if time.monotonic() - began_s + pause_s > self.patience_s:
                raise trouble
            if tries in (1, 5) or tries % 20 == 0:
                self.tell(f"{trouble}; asking again in {pause_s:g} s (try {tries}).")
            time.sleep(pause_s)

    def _core(self) -> CoreV1Api:
        if self._client is None:
            from kubernetes import client

            configuration = self._given or credentials()
            configuration.retries = False
            self._client = client.CoreV1Api(client.ApiClient(configuration))
        return self._client


def credentials() -> Configuration:
    """Return address and credentials of the cluster: those of the pod that this runs in, or else of `KUBECONFIG`.

    Raises:
        ApiTrouble: there are none.
    """
    from kubernetes import client, config

    found = client.Configuration()
    try:
        try:
            config.load_incluster_config(client_configuration=found)
        except config.ConfigException:
            config.load_kube_config(client_configuration=found)
    except (config.ConfigException, OSError) as error:
        raise ApiTrouble(
            0, "", f"no Kubernetes cluster is known: {error}; run in a pod with a service account, or set KUBECONFIG"
        ) from None
    return found


def _stamped(line: bytes) -> tuple[str, str]:
    stamp, _, text = line.decode("utf-8", errors="replace").rstrip("\r").partition(" ")
    return stamp, text


def _trouble(error: Any) -> ApiTrouble:
    body = _body(error.body)
    return ApiTrouble(int(error.status or 0), str(body.get("reason") or error.reason), str(body.get("message") or ""))


def _body(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text or b"{}")
    except (ValueError, TypeError):
        return {"kind": "Text", "message": str(text)[:500]}
    return found if isinstance(found, dict) else {}


def _date(headers: Any) -> datetime:
    """Return the time by the API's clock; its Date header counts whole seconds."""
    told = headers.get("Date") if headers is not None else None
    return parsedate_to_datetime(told) if told else datetime.now(UTC)
