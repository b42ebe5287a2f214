"""The connections that deploy/kubernetes/base/networks.yaml allows, and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from platform_assets.base.settings import REPOSITORY

DOCUMENT = REPOSITORY / "docs/rights.md"
FILE = REPOSITORY / "deploy/kubernetes/base/networks.yaml"
COMPONENT, PROXY = "app.kubernetes.io/component", "driftline/proxy"
COMPONENTS = (
    *("code", "daemon", "doctor", "exporter", "migration", "other-run", "run", "step"),
    *("webserver", "webserver-read-only", "proxy"),
)
PORTS = {"code": 4000, "exporter": 9464, "webserver": 3000, "webserver-read-only": 3000}
"""Where components are asked; the others listen nowhere."""
ANY, CONTROLLER, SCRAPER, DNS = "any pod", "ingress controller", "Prometheus", "DNS"
KUBERNETES, POSTGRES, STORE = "Kubernetes' API", "PostgreSQL", "the store"


@dataclass(frozen=True, order=True)
class Connection:
    """Who opens a connection, and to whom."""

    source: str
    target: str


REASONS = {
    Connection(ANY, DNS): "names of Services and servers",
    Connection("code", KUBERNETES): "its sensors stop the pods of steps whose run is over",
    Connection("code", POSTGRES): "Dagster's storage: what its sensors read",
    Connection("code", STORE): "its sensors read landings, ledgers and segments",
    Connection("daemon", "code"): "asks the sensors",
    Connection("daemon", KUBERNETES): "creates and watches the jobs of runs",
    Connection("daemon", POSTGRES): "Dagster's storage: the queue, ticks, heartbeats",
    Connection("doctor", "code"): "`driftline doctor connections` tries it",
    Connection("doctor", KUBERNETES): "`driftline doctor connections` tries it",
    Connection("doctor", POSTGRES): "`driftline doctor connections` tries it",
    Connection("doctor", STORE): "`driftline doctor connections` tries it",
    Connection("exporter", POSTGRES): "Dagster's storage: runs, ticks, heartbeats, pools",
    Connection("exporter", STORE): "the products' records",
    Connection("exporter", "webserver-read-only"): "which code locations load",
    Connection("migration", POSTGRES): "changes the tables",
    Connection("other-run", POSTGRES): "Dagster's storage: its events",
    Connection("run", KUBERNETES): "creates and watches the pods of its steps",
    Connection("run", POSTGRES): "Dagster's storage: its events",
    Connection("run", STORE): "data, ledgers, requests to steps, its output",
    Connection("step", STORE): "its request, data, saves and result",
    Connection("webserver", "code"): "what is defined, and how a run is launched",
    Connection("webserver", KUBERNETES): "ends the job of a run that a person terminates",
    Connection("webserver", POSTGRES): "Dagster's storage",
    Connection("webserver", STORE): "the output of runs",
    Connection("webserver-read-only", POSTGRES): "Dagster's storage",
    Connection("webserver-read-only", STORE): "the output of runs",
    Connection("proxy", "webserver"): "people, by the names that it has verified",
    Connection("proxy", "webserver-read-only"): "people who only look",
    Connection(CONTROLLER, "proxy"): "people from outside",
    Connection(SCRAPER, "exporter"): "scrapes it",
}
"""Why each connection is allowed."""

TARGETS = {
    "to-dns": (DNS,),
    "to-kubernetes": (KUBERNETES,),
    "to-postgres": (POSTGRES,),
    "to-store": (STORE,),
    "to-code": ("code",),
    "to-webserver": ("webserver", "webserver-read-only"),
    "exporter-to-webserver": ("webserver-read-only",),
}
"""Whom a policy of egress leads to. A policy of ingress stands for its own pods."""


BEFORE = """\
## Connections

In the namespace everything is denied, in and out, but for these connections. Each is a rule of
`deploy/kubernetes/base/networks.yaml`; within the namespace, one per side. `tests/cluster/test_connections.py` opens
every connection between these parts and strangers, with all rules and with each rule taken away once: exactly these
succeed, and without a rule its own fail. `tests/test_connections.py` writes this page when `RECORD_CONNECTIONS` is set.

| from | to | rule | reason |
|---|---|---|---|
"""
AFTER = """
- **Services** bring a policy of their own (`driftline manifests`): callers, Prometheus, DNS and the store.
- **A step on several nodes** brings one too: its pods reach each other, and nobody else reaches them.
- **The proxy** is yours: a pod with the label `driftline/proxy: "true"` in this namespace, which authenticates people.
  Nobody else reaches a webserver, the read-only one included. The ingress controller reaches the proxy from a namespace
  with the label `driftline/ingress: "true"`; what the proxy itself needs, such as its identity provider, is a policy of
  yours. Without a proxy, `kubectl port-forward` works for whoever has that right.
- **Addresses** of PostgreSQL, the store and Kubernetes' API are values of an overlay, one block each where there are
  several. The API's are those in `kubectl get endpointslices --selector kubernetes.io/service-name=kubernetes`, because
  egress is judged after kube-proxy has replaced a Service's address.
- **DNS** is pods with the label `k8s-app: kube-dns` in `kube-system`, on port 53 and `DRIFTLINE_DNS_PORT` (5353 by
  default). A cluster with a node-local cache needs its address too.
- **What is denied drops packets and says nothing**: the Job `driftline-connections` tries every connection and names
  what fails ([deploy](deploy.md#the-platform)).
- **Tokens** instead of keys, in the overlay `production`: whoever reaches the store reaches AWS's token service too.
- **Receivers of alerts** are opened by the overlay `production`, from code server and doctor: port 443 of public
  addresses, and pods with `app.kubernetes.io/name: alertmanager` in `monitoring`. Tested with servers of our own.
"""


def policies() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILE.read_text(encoding="utf-8")))


def rules(items: Iterable[Mapping[str, Any]]) -> dict[str, set[Connection]]:
    """Return the connections that each policy is for. Inside of the namespace each side has a rule of its own."""
    result = {}
    for item in items:
        name, spec = item["metadata"]["name"], item["spec"]
        own = components(spec["podSelector"])
        if "egress" in spec:
            result[name] = {Connection(source, target) for source in own for target in TARGETS[name]}
        elif "ingress" in spec:
            (rule,) = spec["ingress"]
            (peer,) = rule["from"]
            sources = sources_of(peer)
            result[name] = {Connection(source, target) for source in sources for target in own}
    return result


def sources_of(peer: Mapping[str, Any]) -> list[str]:
    if "namespaceSelector" in peer:
        return [SCRAPER if "podSelector" in peer else CONTROLLER]
    return components(peer["podSelector"])


def components(selector: Mapping[str, Any]) -> list[str]:
    """Return the components that a selector of pods is for."""
    if not selector:
        return [ANY]
    labels = selector.get("matchLabels", {})
    if PROXY in labels:
        return ["proxy"]
    if COMPONENT in labels:
        return [labels[COMPONENT]]
    (expression,) = selector["matchExpressions"]
    return list(expression["values"])


def labels_of(component: str) -> dict[str, str]:
    return {PROXY: "true"} if component == "proxy" else {COMPONENT: component}


def document() -> str:
    """Return the section of docs/rights.md."""
    by_rule = rules(policies())
    rows = []
    for connection in sorted(REASONS):
        names = ", ".join(f"`{name}`" for name, allowed in by_rule.items() if connection in allowed)
        rows.append(f"| {connection.source} | {connection.target} | {names} | {REASONS[connection]} |")
    return "\n".join([*BEFORE.splitlines(), *rows, *AFTER.splitlines(), ""])
