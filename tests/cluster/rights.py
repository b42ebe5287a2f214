"""The rights that deploy/ grants, why, and which of them the API server's audit log shows in use."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from platform_assets.base.settings import REPOSITORY
from tests.cluster import connections

DOCUMENT = REPOSITORY / "docs/rights.md"
FILE = REPOSITORY / "deploy/kubernetes/base/rights.yaml"
KUEUE = REPOSITORY / "deploy/kubernetes/components/kueue/rights.yaml"
NAMESPACE, DEFAULT, CLUSTER = "driftline", "default", "(cluster)"
GROUPS = {"jobs": "batch", "networkpolicies": "networking.k8s.io", "workloads": "kueue.x-k8s.io"}
FREE = ("", "selfsubjectaccessreviews", "selfsubjectrulesreviews")
"""What Kubernetes grants to everybody: its version, which is not a resource, and asking for one's own rights."""
_ACCOUNT = re.compile(r"system:serviceaccount:(?P<namespace>[^:]+):(?P<account>driftline-[^:]+)")


@dataclass(frozen=True, order=True)
class Right:
    """One kind of request.

    Attributes:
        resource: with its subresource, as `pods/log`.
        place: the namespace in the files of deploy/, or `(cluster)`.
    """

    account: str
    place: str
    resource: str
    verb: str

    @property
    def group(self) -> str:
        """The API group of the resource."""
        return GROUPS.get(self.resource.partition("/")[0], "")

    @property
    def name(self) -> str:
        """The resource with its group."""
        return f"{self.resource}.{self.group}".removesuffix(".")


RUN, DAEMON, WEBSERVER, CODE = "driftline-retrain", "driftline-daemon", "driftline-webserver", "driftline-code"
REASONS = {
    Right(DAEMON, NAMESPACE, "jobs", "create"): "starts a run",
    Right(DAEMON, NAMESPACE, "jobs", "delete"): "ends a run that a sensor or the run monitor cancelled",
    Right(DAEMON, NAMESPACE, "jobs", "list"): "why a run's job has no pod, for the run's page",
    Right(DAEMON, NAMESPACE, "jobs/status", "get"): "whether a run is still at work, every 15 s",
    Right(DAEMON, NAMESPACE, "pods", "delete"): "ends the pod of a run with its job",
    Right(DAEMON, NAMESPACE, "pods", "list"): "finds the pods of a run's job",
    Right(DAEMON, NAMESPACE, "pods/log", "get"): "shows the last lines of a run that died",
    Right(DAEMON, NAMESPACE, "events", "list"): "why a run's pod died or did not start",
    Right(WEBSERVER, NAMESPACE, "jobs", "delete"): "ends a run that a person terminates",
    Right(WEBSERVER, NAMESPACE, "pods", "delete"): "ends the pod of a run with its job",
    Right(WEBSERVER, NAMESPACE, "pods", "list"): "finds the pods of a run's job",
    Right(CODE, NAMESPACE, "pods", "list"): "finds pods of steps whose run is over",
    Right(CODE, NAMESPACE, "pods", "delete"): "stops them",
    Right(CODE, NAMESPACE, "jobs", "list"): "finds steps on several nodes whose run is over",
    Right(CODE, NAMESPACE, "jobs", "delete"): "stops them, with all that belongs to them",
    Right(CODE, NAMESPACE, "events", "list"): "when an attempt began and ended whose pod is gone",
    Right(RUN, NAMESPACE, "pods", "create"): "starts an attempt at a step",
    Right(RUN, NAMESPACE, "pods", "get"): "polls the attempt's pod; finds it again after an answer that was lost",
    Right(RUN, NAMESPACE, "pods", "list"): "finds the pod of a run that was replaced, and pods whose run is over",
    Right(RUN, NAMESPACE, "pods", "watch"): "sees the last status of a deleted pod, which is there for a second",
    Right(RUN, NAMESPACE, "pods", "delete"): "removes a recorded pod; stops that of a cancelled run, or an orphan",
    Right(RUN, NAMESPACE, "pods/log", "get"): "shows the step's lines in the run",
    Right(RUN, NAMESPACE, "events", "list"): "why a pod does not start, was evicted, or is gone",
    Right(RUN, NAMESPACE, "jobs", "create"): "starts an attempt at a step on several nodes",
    Right(RUN, NAMESPACE, "jobs", "get"): "polls it; finds it again after an answer that was lost",
    Right(RUN, NAMESPACE, "jobs", "list"): "finds that of a run that was replaced, and those whose run is over",
    Right(RUN, NAMESPACE, "jobs", "delete"): "removes a recorded one, or stops it, with all that belongs to it",
    Right(RUN, NAMESPACE, "services", "create"): "gives its pods names",
    Right(RUN, NAMESPACE, "networkpolicies", "create"): "lets its pods reach each other",
    Right(RUN, NAMESPACE, "networkpolicies", "list"): "whether others keep its pods from each other",
    Right(RUN, NAMESPACE, "workloads", "list"): "whether Kueue has admitted its Job, or evicted it",
    Right(RUN, NAMESPACE, "resourcequotas", "list"): "warns of a namespace in which nothing bounds what steps take",
    Right(RUN, DEFAULT, "events", "list"): "why a node left: events of nodes are in this namespace",
    Right(RUN, CLUSTER, "nodes", "get"): "whether the node is lost or being taken away, and its zone",
}
"""Why each right is granted."""


OPTIONAL = {right for right in REASONS if right.resource in ("events", "nodes", "resourcequotas")}
"""Rights without which steps run, and the run says which evidence is missing."""
OF_GANGS = {
    right
    for right in REASONS
    if right.account in (RUN, CODE) and right.resource in ("jobs", "networkpolicies", "services")
}
"""Rights for steps on several nodes."""
OF_QUEUES = {right for right in REASONS if right.resource == "workloads"}
"""Rights where Kueue is."""


def granted() -> set[Right]:
    """Return the rights in deploy/kubernetes, with those of its component `kueue`."""
    objects = [item for file in (FILE, KUEUE) for item in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    roles = {(item["kind"], item["metadata"]["name"]): item for item in objects if item["kind"].endswith("Role")}
    return {
        Right(subject["name"], binding["metadata"].get("namespace", CLUSTER), resource, verb)
        for binding in objects
        if binding["kind"].endswith("Binding")
        for subject in binding["subjects"]
        for rule in roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(log: Path, namespaces: Iterable[str] | None = None) -> Iterator[tuple[Right, str]]:
    """Yield each allowed request of Driftline's accounts in an audit log, with the namespace of its account.

    Args:
        namespaces: of the accounts; None for all.
    """
    chosen = None if namespaces is None else set(namespaces)
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        account = _ACCOUNT.fullmatch(entry["user"]["username"])
        is_allowed = entry.get("annotations", {}).get("authorization.k8s.io/decision") == "allow"
        if account and is_allowed and (chosen is None or account["namespace"] in chosen):
            right = _right(account["account"], account["namespace"], entry)
            if right.resource not in FREE:
                yield right, account["namespace"]


def _right(account: str, namespace: str, entry: Mapping[str, Any]) -> Right:
    subject = entry.get("objectRef", {})
    resource = "/".join(subject[name] for name in ("resource", "subresource") if subject.get(name))
    place = subject.get("namespace", CLUSTER)
    return Right(account, NAMESPACE if place == namespace else place, resource, entry["verb"])


def recorded() -> dict[Right, str]:
    """Return the test that docs/rights.md names for each right."""
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    result = {}
    for account, request, place, _, situation in (row.strip("| ").split(" | ") for row in rows):
        verb, _, resource = request.strip("`").partition(" ")
        result[Right(account.strip("`"), place, resource, verb)] = situation
    return result


def document(situations: Mapping[Right, str]) -> str:
    """Return docs/rights.md.

    Args:
        situations: the test in which each right was used; a right that is not among them keeps its test.
    """
    situations = {**recorded(), **situations}
    rows = [
        f"| `{right.account}` | `{right.verb} {right.resource}` | {right.place} | {REASONS[right]} | "
        f"{situations.get(right, 'not seen')} |"
        for right in sorted(REASONS)
    ]
    return "\n".join(
        [
            "# Rights and connections on Kubernetes",
            "",
            "What `deploy/kubernetes/base/rights.yaml` grants, and for `workloads` its component `kueue`, why, and the",
            "test of `tests/cluster` in which the API server's audit log shows the request, made under that account",
            "and allowed. Written by `make cluster-test RECORD_RIGHTS=1`. Of jobs, services and networkpolicies",
            "`admission.yaml` lets `driftline-retrain` make those of steps only, and lets it and `driftline-code`",
            "end no other jobs. Runs that train nothing, steps and services have no rights here, and no token. What",
            "each may write in the store: [security](security.md#rights-at-the-store). Kubernetes tells",
            "everybody its version and, by `create selfsubjectaccessreviews`, their rights.",
            "",
            "| account | request | namespace | reason | seen in |",
            "|---|---|---|---|---|",
            *rows,
            "",
            connections.document(),
        ]
    )
