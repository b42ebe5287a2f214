"""Send requests to the Kubernetes API (pods, logs, events, nodes), and retry while the API is unavailable.

What holds an attempt is a pod here; `gang/objects.py` replaces it by a Job.

The client's own models are not used: they fill in None for what the API left out, and drop fields they do not know.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar

from platform_assets.kubernetes import responses
from platform_assets.kubernetes.manifest import Manifest
from platform_assets.kubernetes.pod_status import Event, Node, Pod, read_event, read_node, read_pod
from platform_assets.kubernetes.responses import ApiTrouble, Meaning, Response
from platform_assets.store.records.values import items, member, text

if TYPE_CHECKING:
    from kubernetes.client import Configuration, CoreV1Api

CONNECT_S, READ_S = 5.0, 20.0
SILENCE_S = 5.0
"""How long a log may be silent before its stream is reopened: a client gets no notice of a connection that died."""
PATIENCE_S = 300.0  # an API in trouble is asked for five minutes; the step goes on meanwhile
SOON_S = 30.0
"""How long a `soon` refusal is retried: a new namespace lacks a service account for about a second."""
LONGEST_PAUSE_S = 15.0
LONGEST_REST = 1 << 16
"""Bytes of an unfinished line that are buffered."""
UNAUTHORIZED_TRIES = 3
FIRST_PAUSE_S = 0.5
ASKED_AGAIN: tuple[Meaning, ...] = ("again", "soon", "unauthorized")
OWNERS = ("CoreV1Api", "BatchV1Api", "NetworkingV1Api", "CustomObjectsApi", "AuthorizationV1Api", "VersionApi")
"""The client's classes whose methods are sent."""
NODES_NAMESPACE = "default"
"""Where the events of nodes are, which have no namespace themselves."""
ATTEMPT = "driftline/attempt"
"""The label that holds the id of a pod's attempt."""
INDEX = "batch.kubernetes.io/job-completion-index"
"""The label and the annotation with a pod's number in an attempt on several nodes, from 0."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The API's answer: the pod, None when there is none; and the time by its own clock."""

    pod: Pod | None
    now: datetime


class Api:
    """The API of one namespace.

    Attributes:
        kind, suffix: of the object that is one attempt, and of the client's methods for it.
        read: returns what the API shows of it, from its JSON.
        deletion: options of its deletion.

    Args:
        namespace: of the attempts.
        configuration: address and credentials; None for those of the pod that this runs in, otherwise `KUBECONFIG`.
        patience_s: how long the API may be unavailable before an error is raised.
        log: logs a line when a request is retried.
    """

    kind: ClassVar[str] = "Pod"
    suffix: ClassVar[str] = "pod"
    read: ClassVar[staticmethod[[object], Pod]] = staticmethod(read_pod)
    deletion: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        namespace: str,
        configuration: Configuration | None = None,
        *,
        patience_s: float = PATIENCE_S,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.namespace = namespace
        self.patience_s = patience_s
        self.log = log
        self._configuration = configuration
        self._client: CoreV1Api | None = None
        self._refused = set[str]()

    def create(self, manifest: Manifest) -> Pod:
        """Create an attempt's object, or find the one that an earlier try of the same request created, and return it.

        A quota may refuse the second try because of what the first one created. So after a lost answer, a refusal
        counts only when there is no such object.

        Raises:
            ApiTrouble: it was not created, one of that name belongs to another attempt, or the result is unknown
                (`may_be_done`).
        """
        requested = self.read(manifest)
        attempt, name = _attempt_of(requested), requested.name
        until_s = time.monotonic() + self.patience_s
        while True:
            try:
                method = f"create_namespaced_{self.suffix}"
                return self.read(self._json((self.kind,), method, self.namespace, manifest)[0])
            except ApiTrouble as trouble:
                if trouble.meaning == "again" or not (trouble.meaning == "exists" or trouble.may_be_done):
                    raise
                refusal = trouble
            try:
                pod = self.pod(name).pod
            except ApiTrouble as trouble:
                trouble.may_be_done = True  # nobody knows now whether it is there
                raise
            if pod is not None and (other := _attempt_of(pod)) == attempt:
                return pod
            if pod is not None:
                message = (
                    f"{self.kind.lower()} {name} in namespace {self.namespace} belongs to {other}, not to {attempt}; "
                    "it is left alone."
                )
                raise ApiTrouble(409, "AlreadyExists", message)
            refusal.may_be_done = False
            if refusal.meaning != "exists" or time.monotonic() > until_s:
                raise refusal
            time.sleep(FIRST_PAUSE_S)  # the other one is gone by now; the name is free again

    def version(self) -> tuple[int, int] | None:
        """Return the major and minor version of the API server; None if it does not say."""
        try:
            document, _ = self._json(("",), "get_code")
        except ApiTrouble as trouble:
            if trouble.meaning != "absent":
                raise
            return None
        numbers = [re.match(r"\d+", text(document, name)) for name in ("major", "minor")]
        major, minor = (int(number.group()) if number else 0 for number in numbers)
        return (major, minor) if major else None

    def may(self, verb: str, resource: str) -> bool:
        """Return whether this account may do something in the namespace; True if the API does not say.

        Args:
            resource: such as `pods`, `pods/log` or `jobs.batch`.
        """
        name, _, part = resource.partition("/")
        name, _, group = name.partition(".")
        attributes = {"namespace": self.namespace, "verb": verb, "group": group, "resource": name, "subresource": part}
        review = {"spec": {"resourceAttributes": attributes}}
        try:
            document, _ = self._json(("SelfSubjectAccessReview",), "create_self_subject_access_review", review)
        except ApiTrouble as trouble:
            if trouble.meaning not in ("absent", "refused"):
                raise
            return True
        return member(document, "status", "allowed") is not False

    def has_quota(self) -> bool:
        """Return whether the namespace has a ResourceQuota; True where they may not be listed."""
        lack = f"Whether namespace {self.namespace} has a ResourceQuota is not known."
        quotas = self._readable(lack, ("ResourceQuotaList",), "list_namespaced_resource_quota", self.namespace, limit=1)
        return all(items(document, "items") for document in quotas)

    def refusal(self, manifest: Manifest) -> str | None:
        """Return why the API would never create an object; None if it would, now or later, or if it cannot be asked."""
        try:
            self._json((self.kind,), f"create_namespaced_{self.suffix}", self.namespace, manifest, dry_run="All")
        except ApiTrouble as trouble:
            # A webhook that has no dry run says so; what it thinks of the object shows when that is created.
            return (
                None if trouble.meaning in ("full", "again", "exists") or "dry run" in trouble.message else str(trouble)
            )
        return None

    def pod(self, name: str) -> Answer:
        """Return an attempt's pod."""
        method = f"read_namespaced_{self.suffix}"
        document, now = self._json((self.kind,), method, name, self.namespace, is_there=False, is_allowed=True)
        return Answer(pod=None if document is None else self.read(document), now=now)

    def pods(self, labels: Mapping[str, str]) -> list[Pod]:
        """Return the pods of attempts that carry all of these labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        kinds, method = (f"{self.kind}List",), f"list_namespaced_{self.suffix}"
        document, _ = self._json(kinds, method, self.namespace, label_selector=selector)
        return [self.read(item) for item in items(document, "items")]

    def delete(self, name: str, *, grace_s: float | None = None, version: str = "") -> bool:
        """Delete an attempt's object if there is one; return False if it has another version than the given one.

        Args:
            grace_s: instead of the pod's own; 0 removes it from the API at once, even if its node does not answer.
            version: the only one to delete; empty for any.
        """
        options: dict[str, str | int | dict[str, str]] = {**self.deletion}
        if grace_s is not None:
            options["gracePeriodSeconds"] = int(grace_s)
        if version:
            options["preconditions"] = {"resourceVersion": version}  # what was judged, nothing newer
        kinds, method = (self.kind, "Status"), f"delete_namespaced_{self.suffix}"
        try:
            self._json(kinds, method, name, self.namespace, is_there=False, body=options)
        except ApiTrouble as trouble:
            if trouble.meaning != "changed":
                raise
            return False
        return True

    def changes(self, selector: Mapping[str, str], version: str, *, timeout_s: int) -> Iterator[tuple[str, Pod]]:
        """Yield each change of pods with its kind (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`) as it happens.

        Args:
            selector: the client's name of a selector of pods, and the selector.
            version: the last one that is known; empty to begin with the pods as they are.
            timeout_s: when the API ends the stream.

        Raises:
            ApiTrouble: the API refused, or does not have the changes since `version` any more (410).
        """
        from kubernetes import client

        try:
            response = self._core().list_namespaced_pod(
                self.namespace,
                watch=True,
                allow_watch_bookmarks=True,  # keep the version new while nothing changes, or the next stream gets 410
                timeout_seconds=timeout_s,
                _preload_content=False,
                _request_timeout=(CONNECT_S, timeout_s + READ_S),  # the client has no limit of its own
                **selector,
                **({"resource_version": version} if version else {}),
            )
        except client.ApiException as error:
            raise ApiTrouble(int(error.status or 0), str(error.reason or ""), str(error.body or "")) from None
        try:
            for change in map(json.loads, _lines(response)):
                kind, subject = text(change, "type"), member(change, "object")
                if kind == "ERROR":  # the API wrote it into the stream
                    code, reason = member(subject, "code"), text(subject, "reason")
                    raise ApiTrouble(code if isinstance(code, int) else 0, reason, text(subject, "message"))
                yield kind, read_pod(subject)
        finally:
            response.close()

    def events(self, name: str, node: str = "") -> list[Event]:
        """Return the events of an attempt's object and of its node, without those that may not be read."""
        places = [(self.namespace, self.kind, name), *([(NODES_NAMESPACE, "Node", node)] if node else [])]
        return [
            read_event(event)
            for namespace, kind, of in places
            for document in self._readable(
                f"Events in namespace {namespace} are missing from the evidence.",
                ("EventList",),
                "list_namespaced_event",
                namespace,
                # Notices, memory that ran short and Xids are events of nodes, which only their kind finds.
                field_selector=f"involvedObject.kind={kind},involvedObject.name={of}",
            )
            for event in items(document, "items")
        ]

    def node(self, name: str) -> Node | None:
        """Return a node; None where nodes may not be read, which is asked once."""
        lack = (
            "Labels, taints and conditions of nodes are missing from the evidence; that a node is lost shows in its "
            "pods. deploy/kubernetes/base/rights.yaml grants the right."
        )
        return next(map(read_node, self._readable(lack, ("Node",), "read_node", name, is_there=False)), None)

    def _readable(
        self, lack: str, kinds: tuple[str, ...], method: str, *arguments: object, **more: Any
    ) -> list[object]:
        """Return the answer to a request; none where this account may not make it, which is tried and logged once.

        Args:
            lack: a sentence on what is not known then.
        """
        if lack in self._refused:
            return []
        try:
            return [self._json(kinds, method, *arguments, **more)[0]]
        except ApiTrouble as trouble:
            # 404 for a kind that this cluster does not have.
            if trouble.status not in (403, 404):  # others may pass
                raise
            self._refused.add(lack)
            self.log(f"{trouble}. {lack}")
            return []

    def lines(
        self, name: str, container: str, *, follow: bool, since: datetime | None = None
    ) -> Iterator[tuple[str, str]]:
        """Open a container's log and return an iterator over its lines with their node's time stamps, to its end.

        Overlong lines are cut at `LONGEST_REST` bytes.

        Args:
            follow: whether to wait for new lines; after some silence that ends with urllib3's `ReadTimeoutError`.
            since: skip lines older than this, in whole seconds, by the node's clock.
        """
        # Lower case: the client's own method sends `follow=True`.
        query = [("container", container), ("follow", str(follow).lower()), ("timestamps", "true")]
        if since is not None:
            query.append(("sinceTime", f"{since:%Y-%m-%dT%H:%M:%SZ}"))
        # The client's own method knows only seconds before the kubelet's answer, which may come late.
        response = self._core().api_client.call_api(
            "/api/v1/namespaces/{namespace}/pods/{name}/log",
            "GET",
            {"namespace": self.namespace, "name": name},
            query,
            {"Accept": "*/*"},
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=False,
            _request_timeout=(CONNECT_S, SILENCE_S),
        )
        return _stamped_lines(response)

    def _json(
        self,
        kinds: tuple[str, ...],
        method: str,
        *arguments: object,
        is_there: bool = True,
        is_allowed: bool = False,
        **more: object,
    ) -> tuple[object, datetime]:
        """Repeat a request until the API answers with an object of these kinds, or None if it may be absent and is.

        The time is that of the API's clock.

        Args:
            is_allowed: the account has the right: an API server that has just started denies it for a moment.
        """
        began_s, tries, refused, may_be_done = time.monotonic(), 0, 0, False
        is_soon = False
        while True:
            tries += 1
            response, headers = self._once(kinds, method, *arguments, **more)
            meaning = response.meaning
            if is_allowed and meaning == "refused" and response.status == 403:
                meaning = "soon"
            if meaning == "soon" and not is_soon:  # what went before, such as an outage, is not of this patience
                began_s, tries, is_soon = time.monotonic(), 1, True
            if meaning == "answer" or (meaning == "absent" and not is_there):
                date = headers.get("Date") if headers is not None else None  # in whole seconds
                now = parsedate_to_datetime(date) if date else datetime.now(UTC)
                return response.body if meaning == "answer" else None, now
            may_be_done = may_be_done or response.may_be_done
            trouble = ApiTrouble(response.status, response.reason, response.message, meaning, may_be_done=may_be_done)
            if meaning == "unauthorized":
                # An expired token was often replaced in its file already: read it again.
                self._client, refused = None, refused + 1
            if meaning not in ASKED_AGAIN or refused >= UNAUTHORIZED_TRIES:
                raise trouble
            retry_after = str((headers or {}).get("Retry-After", ""))
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (tries - 1))
            pause_s = max(pause_s, float(retry_after)) if retry_after.isdecimal() else pause_s
            patience_s = min(SOON_S, self.patience_s) if meaning == "soon" else self.patience_s
            if time.monotonic() - began_s + pause_s > patience_s:
                trouble.meaning = "refused" if meaning == "soon" else meaning
                raise trouble
            if tries in (1, 5) or tries % 20 == 0:
                self.log(f"{trouble}; retrying in {pause_s:g} s (try {tries}).")
            time.sleep(pause_s)

    def _once(self, kinds: tuple[str, ...], method: str, *arguments: object, **more: object) -> tuple[Response, Any]:
        """Return the response to one request, and its headers; an error's text when there was no response."""
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        try:
            core = self._core()
            owner = next((owner for owner in OWNERS if hasattr(getattr(client, owner), method)), "CoreV1Api")
            group = core if owner == "CoreV1Api" else getattr(client, owner)(core.api_client)
            response = getattr(group, method)(
                *arguments, **more, _preload_content=False, _request_timeout=(CONNECT_S, READ_S)
            )
            return responses.read(response.status, response.data, kinds), response.headers
        except client.ApiException as error:
            return responses.read(int(error.status or 0), error.body or str(error.reason or ""), kinds), error.headers
        except (HTTPError, OSError) as error:
            address = self._core().api_client.configuration.host
            message = f"the Kubernetes API did not answer: {responses.describe(error)} ({address})"
            return Response(status=0, expected=kinds, body=None, text=message), None

    def _core(self) -> CoreV1Api:
        if self._client is None:
            from kubernetes import client

            configuration = self._configuration or credentials()
            # urllib3 would repeat requests unseen; `_json` repeats them, and knows what may have been carried out.
            configuration.retries = False
            self._client = client.CoreV1Api(client.ApiClient(configuration))
        return self._client


def credentials() -> Configuration:
    """Return address and credentials of the cluster: those of the pod that this runs in, otherwise `KUBECONFIG`.

    Raises:
        ApiTrouble: there are none.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            config.load_kube_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        fix = "run in a pod with a service account, or set KUBECONFIG"
        raise ApiTrouble(0, "", f"no Kubernetes cluster is configured: {error}; {fix}") from None
    return configuration


def _lines(response: Any, longest: int | None = None) -> Iterator[bytes]:
    """Yield the lines of a response as they come; the rest of a line that is longer is cut."""
    rest = b""
    for chunk in response.stream(65536, decode_content=False):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        rest = rest[:longest]
    if rest:
        yield rest


def _stamped_lines(response: Any) -> Iterator[tuple[str, str]]:
    try:
        for line in _lines(response, LONGEST_REST):
            # A step may write any bytes, and a line may be cut in the middle of a character.
            stamp, _, rest = line.decode("utf-8", errors="replace").rstrip("\r").partition(" ")
            yield stamp, rest
    finally:
        response.close()


def _attempt_of(pod: Pod) -> str:
    name = pod.labels.get(ATTEMPT)
    return f"attempt {name}" if name else "no attempt"
