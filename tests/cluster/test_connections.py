"""Who reaches whom under the overlay's network policies: exactly the listed connections, each by its own rule.

Pods with a shell carry the labels of the platform's components. Each opens a connection to every other one, to DNS and
the API server by the addresses of their Services, and to servers of this machine, which stand for PostgreSQL, the store
and what only the overlay `production` lets pods reach.
"""

import copy
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from platform_assets.kubernetes.api import ATTEMPT
from tests.cluster import gangs, guards, names
from tests.cluster.cluster import Cluster
from tests.cluster.connections import (
    ANY,
    COMPONENT,
    COMPONENTS,
    CONTROLLER,
    DNS,
    KUBERNETES,
    PORTS,
    POSTGRES,
    REASONS,
    SCRAPER,
    STORE,
    Connection,
    labels_of,
    rules,
    sources_of,
)
from tests.cluster.gangs import Gang
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.node import POLICIES
from tests.cluster.platform import Images, write_overlay
from tests.cluster.pods import Manifest, Pods, manifest
from tests.cluster.spaces import HOST
from tests.cluster.waiting import wait_until
from tests.doubles.kustomize import FOLDER

STRANGER, OUTSIDER, ELSEWHERE = "stranger", "outsider", "another server"
"""A pod of the namespace without a label, one of another namespace, and a server that nobody needs."""
PEERS = {CONTROLLER: "controller", SCRAPER: "scraper"}
"""The pods of other namespaces that stand for those outside."""
WEBHOOK, TOKENS, PRIVATE = "a webhook", "the token service", "a private server"
HTTPS = {WEBHOOK: "203.0.113.1", TOKENS: "10.0.2.1", PRIVATE: HOST}
"""Addresses with a server on port 443: a public one of nobody, one in the network of the overlay's values, and ours."""
ALERTMANAGER = "alertmanager"
ALERTMANAGER_PORT = 9093
LISTENING = 4180
"""Where components listen in this test that listen nowhere else."""
ENFORCED_S = 60.0
NO_DIGEST = f"registry.example/image@sha256:{'0' * 64}"
QUERY = (
    r"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    r"\x08kube-dns\x0bkube-system\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
)
"""A question to DNS without the byte of a line feed, at which bash would send a packet of its own."""
Policies = list[dict[str, Any]]


@dataclass
class Net:
    """Pods, and addresses that they try.

    Attributes:
        places: namespace of each pod, by its name.
        targets: shell commands that succeed where a connection is answered, by the target's name.
    """

    cluster: Cluster
    namespace: str
    folder: Path
    policies: Policies
    places: Mapping[str, str]
    targets: Mapping[str, str]

    def enforce(self, changed: Policies) -> None:
        path = self.folder / "policies.yaml"
        path.write_text(yaml.safe_dump_all(changed), encoding="utf-8")
        self.cluster.kubectl("apply", "--filename", str(path))

    def drop(self, policy: str) -> None:
        self.cluster.kubectl("delete", "networkpolicy", policy, f"--namespace={self.namespace}")

    def reached(self, sources: list[str]) -> set[Connection]:
        with ThreadPoolExecutor(len(sources)) as pool:
            return set[Connection]().union(*pool.map(self._reached_by, sources))

    def _reached_by(self, source: str) -> set[Connection]:
        tries = [f'(timeout 2 bash -c "{act}" 2>/dev/null && echo "{name}") &' for name, act in self.targets.items()]
        script = "\n".join([*tries, "wait"])
        argv = ("exec", f"--namespace={self.places[source]}", source, "--", "bash", "-c", script)
        return {Connection(source, target) for target in self.cluster.kubectl(*argv).splitlines() if target != source}

    def wait_for(self, expected: set[Connection], sources: list[str]) -> None:
        """Wait until exactly these connections can be opened."""
        seen: list[set[Connection]] = []

        def is_so() -> bool:
            seen.append(self.reached(sources))
            return seen[-1] == expected

        wait_until(
            is_so,
            ENFORCED_S,
            "the policies are in force",
            lambda: f"too many: {sorted(seen[-1] - expected)}\ntoo few: {sorted(expected - seen[-1])}",
        )


@contextmanager
def _listening(address: str = HOST, port: int = 0) -> Iterator[int]:
    """Accept connections on a port of this machine."""
    with socket.create_server((address, port)) as server:

        def accept() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def _https(cluster: Cluster) -> Iterator[None]:
    """Accept connections at the addresses in HTTPS, which pods reach like the internet: by way of their node."""
    assert cluster.control is not None
    space = cluster.control.space
    for address in set(HTTPS.values()) - {HOST}:
        space.run("ip", "address", "add", f"{address}/32", "dev", "host0")
    try:
        with ExitStack() as stack:
            for address in HTTPS.values():
                stack.enter_context(_listening(address, 443))
            yield
    finally:
        for address in set(HTTPS.values()) - {HOST}:
            space.run("ip", "address", "delete", f"{address}/32", "dev", "host0")


@pytest.fixture(scope="module")
def net(cluster: Cluster, shell: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """All components as pods, without policies."""
    if cluster.control is None or not (cluster.control.assets / POLICIES).exists():
        pytest.skip(f"the cluster's network policies are enforced by its programs, which lack {POLICIES}")
    folder = tmp_path_factory.mktemp("connections")
    with ExitStack() as stack:
        stack.enter_context(cluster.network())
        names.serve_names(cluster, folder)
        here, there = (stack.enter_context(fresh_namespace(cluster.core)) for _ in range(2))
        cluster.core.patch_namespace(there, {"metadata": {"labels": {"driftline/ingress": "true"}}})
        outside = stack.enter_context(fresh_namespace(cluster.core))
        places = dict.fromkeys((*COMPONENTS, STRANGER), here) | {PEERS[CONTROLLER]: there}
        places |= dict.fromkeys((PEERS[SCRAPER], OUTSIDER, ALERTMANAGER), outside)
        servers = {name: stack.enter_context(_listening()) for name in (POSTGRES, STORE, ELSEWHERE)}
        stack.enter_context(_https(cluster))
        addresses = _run(cluster, shell, places)
        targets = {name: _open(addresses[name], PORTS.get(name, LISTENING)) for name in (*COMPONENTS, STRANGER)}
        targets |= {name: _open(HOST, port) for name, port in servers.items()}
        targets |= {name: _open(address, 443) for name, address in HTTPS.items()}
        targets |= {ALERTMANAGER: _open(addresses[ALERTMANAGER], ALERTMANAGER_PORT)}
        targets |= {KUBERNETES: _open(*_service(cluster, "default", "kubernetes")), DNS: _ask(cluster)}
        yield Net(cluster, here, folder, _policies(cluster, folder, servers, here, outside), places, targets)


def _policies(cluster: Cluster, folder: Path, servers: Mapping[str, int], namespace: str, scraping: str) -> Policies:
    """Return the policies of the overlay `local` with this cluster's addresses, and Prometheus in one namespace."""
    variables = {
        "DAGSTER_PG_HOST": HOST,
        "DAGSTER_PG_PORT": str(servers[POSTGRES]),
        "AWS_ENDPOINT_URL": f"http://{HOST}:{servers[STORE]}",
    }
    overlay = write_overlay(folder, cluster, Images(NO_DIGEST, NO_DIGEST, NO_DIGEST, ""), variables)
    policies = guards.objects(namespace, "NetworkPolicy", overlay=overlay)
    (scraped,) = (item for item in policies if item["metadata"]["name"] == "exporter-from")
    selector = scraped["spec"]["ingress"][0]["from"][0]["namespaceSelector"]
    selector["matchLabels"] = {"kubernetes.io/metadata.name": scraping}
    return policies


def _run(cluster: Cluster, image: str, places: Mapping[str, str]) -> dict[str, str]:
    for name, namespace in places.items():
        Pods(cluster.core, namespace).create(_pod(name, image))
    return {
        name: Pods(cluster.core, namespace).wait_until_ready(name).status.pod_ip for name, namespace in places.items()
    }


def _pod(name: str, image: str) -> Manifest:
    port = ALERTMANAGER_PORT if name == ALERTMANAGER else PORTS.get(name, LISTENING)
    pod = manifest(name, image, f"exec openssl s_server -accept {port} -nocert -quiet")
    own = {"app.kubernetes.io/name": "prometheus" if name == PEERS[SCRAPER] else name}
    pod["metadata"]["labels"] = labels_of(name) if name in COMPONENTS else own
    container = pod["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "10m", "memory": "32Mi"}}
    container["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    return pod


def _open(address: str, port: int) -> str:
    return f"exec 3<>/dev/tcp/{address}/{port}"


def _service(cluster: Cluster, namespace: str, name: str) -> tuple[str, int]:
    spec = cluster.core.read_namespaced_service(name, namespace).spec
    return spec.cluster_ip, spec.ports[0].port


def _ask(cluster: Cluster) -> str:
    """Return a command that asks DNS by UDP for a Service's address, and connects to it by TCP."""
    address, port = _service(cluster, "kube-system", "kube-dns")
    ask = rf"exec 3<>/dev/udp/{address}/{port}; printf '{QUERY}' >&3; head -c 1 <&3 >/dev/null"
    return f"{ask} && {_open(address, port)}"


def _expected(net: Net) -> set[Connection]:
    """Return what is allowed: everybody in the namespace may ask DNS, and without policies all of other namespaces."""
    inside = [*COMPONENTS, STRANGER]
    elsewhere = [name for name in net.targets if name not in inside]
    listed = {connection for connection in REASONS if connection.source in COMPONENTS}
    others = (*PEERS.values(), OUTSIDER, ALERTMANAGER)
    free = {Connection(name, target) for name in others for target in elsewhere}
    free -= {Connection(ALERTMANAGER, ALERTMANAGER)}
    outside = {Connection(PEERS[CONTROLLER], "proxy"), Connection(PEERS[SCRAPER], "exporter")}
    return listed | {Connection(name, DNS) for name in inside} | free | outside


def test_exactly_the_listed_connections_can_be_opened(net: Net) -> None:
    everyone = list(net.places)
    with net.cluster.network():
        net.wait_for({Connection(a, b) for a in everyone for b in net.targets if a != b}, everyone)
        net.enforce(net.policies)
        net.wait_for(_expected(net), everyone)


def test_without_its_rule_a_connection_fails_and_the_others_do_not(net: Net) -> None:
    """Take a component out of each rule: of the policies of ingress a round later, or a connection would lose both."""
    expected = _expected(net)
    by_rule, taken = rules(net.policies), set[tuple[str, str]]()
    with net.cluster.network():
        for number in range(max(_first(item) + len(_parts(item)) for item in net.policies)):
            changed, lost = copy.deepcopy(net.policies), set[Connection]()
            for policy in changed:
                name, parts = policy["metadata"]["name"], _parts(policy)
                index = number - _first(policy)
                if 0 <= index < len(parts):
                    _take_out(policy["spec"], parts[index])
                    taken.add((name, parts[index]))
                    lost |= {item for item in by_rule[name] if item.source == parts[index]}
            net.enforce(changed)
            lost = _in_this_test(lost)
            sources = sorted({item.source for item in lost})
            net.wait_for({item for item in expected if item.source in sources} - lost, sources)
    assert taken == {(name, item.source) for name, allowed in by_rule.items() for item in allowed}


def test_production_opens_receivers_of_alerts_and_tokens_by_one_rule_each(net: Net) -> None:
    """Code server and doctor reach public addresses and Alertmanager; who reaches the store, the token service too."""
    overlay = guards.objects(net.namespace, "NetworkPolicy", overlay=FOLDER / "overlays/production")
    policies = {item["metadata"]["name"]: item for item in overlay}
    webhooks = {Connection(name, WEBHOOK) for name in ("code", "doctor")}
    alertmanager = {Connection(name, ALERTMANAGER) for name in ("code", "doctor")}
    (to_alertmanager,) = policies["to-alertmanager"]["spec"]["egress"][0]["to"]
    assert to_alertmanager["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    to_alertmanager["namespaceSelector"]["matchLabels"] = {"kubernetes.io/metadata.name": net.places[ALERTMANAGER]}
    tokens = {Connection(item.source, TOKENS) for item in REASONS if item.target == STORE}
    expected, everyone = _expected(net), list(net.places)
    with net.cluster.network():
        net.enforce([*net.policies, policies["to-webhooks"], policies["to-alertmanager"], policies["to-tokens"]])
        net.wait_for(expected | webhooks | alertmanager | tokens, everyone)
        net.drop("to-alertmanager")
        net.wait_for(expected | webhooks | tokens, everyone)
        net.drop("to-webhooks")
        net.wait_for(expected | tokens, everyone)
        net.enforce([policies["to-webhooks"]])
        net.drop("to-tokens")
        net.wait_for(expected | webhooks, everyone)
        net.drop("to-webhooks")
        net.wait_for(expected, everyone)


def test_ranks_reach_their_gang_the_store_and_dns_and_nobody_else_reaches_them(net: Net, shell: str) -> None:
    with net.cluster.network(), _running(net, shell, "a") as first, _running(net, shell, "b") as second:
        net.enforce(net.policies)
        ranks = {name: gang for gang in (first, second) for name in gang.addresses}
        hosts = {f"{name} by name": _open(gang.hosts[name], LISTENING) for name, gang in ranks.items()}
        addresses = {name: _open(gang.addresses[name], LISTENING) for name, gang in ranks.items()}
        own = replace(net, places=dict.fromkeys(ranks, net.namespace), targets={**net.targets, **addresses, **hosts})
        outside = {Connection(name, target) for name in ranks for target in (DNS, STORE)}
        expected = outside | first.connections | second.connections
        own.wait_for(expected, list(ranks))
        replace(net, targets=addresses).wait_for(set(), list(net.places))
        net.drop(first.gang.name)
        # A pod reaches itself whatever a policy says.
        itself = {Connection(name, f"{name} by name") for name in first.addresses}
        own.wait_for(expected - first.connections | itself, list(ranks))


@dataclass(frozen=True)
class Ranks:
    """The pods of a gang that runs.

    Attributes:
        addresses, hosts: of each pod, by its name; hosts are names that the gang's Service gives them.
    """

    gang: Gang
    addresses: Mapping[str, str]
    hosts: Mapping[str, str]

    @property
    def connections(self) -> set[Connection]:
        """What its ranks may open among themselves, by address and by name."""
        targets = [*self.addresses, *(f"{name} by name" for name in self.addresses)]
        return {Connection(name, target) for name in self.addresses for target in targets if name != target}


@contextmanager
def _running(net: Net, image: str, attempt: str) -> Iterator[Ranks]:
    pod = _pod(f"driftline-gang-{attempt}", image)
    pod["metadata"] |= {"namespace": net.namespace, "labels": labels_of("step") | {ATTEMPT: attempt}}
    gang = gangs.gang(net.cluster.api, pod)
    gang.create()
    try:
        gang.wait_for_pods()
        pods = Pods(net.cluster.core, net.namespace)
        ranks = [pods.wait_until_ready(pod.metadata.name) for pod in gang.pods()]
        yield Ranks(
            gang=gang,
            addresses={rank.metadata.name: rank.status.pod_ip for rank in ranks},
            hosts={rank.metadata.name: f"{rank.spec.hostname}.{gang.name}.{net.namespace}.svc" for rank in ranks},
        )
    finally:
        gang.delete()


def _first(policy: Mapping[str, Any]) -> int:
    """Return the round in which the first component of a policy is taken out."""
    return int("ingress" in policy["spec"])


def _parts(policy: Mapping[str, Any]) -> list[str]:
    """Return the components of a policy, of which one after the other is taken out."""
    spec = policy["spec"]
    if "egress" not in spec and "ingress" not in spec:
        return []
    return sources_of(_peer(spec))


def _peer(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return whom a policy of ingress lets in; for egress its own pods, as if they were a peer."""
    if "egress" in spec:
        return {"podSelector": spec["podSelector"]}
    ((peer,),) = (rule["from"] for rule in spec["ingress"])
    return dict(peer)


def _take_out(spec: dict[str, Any], component: str) -> None:
    """Let a policy no longer be for a component."""
    rest = [name for name in sources_of(_peer(spec)) if name not in (component, *PEERS)]
    selector = {"matchExpressions": [{"key": COMPONENT, "operator": "In", "values": rest or ["nobody"]}]}
    if "egress" in spec:
        spec["podSelector"] = selector
    else:
        spec["ingress"][0]["from"] = [{"podSelector": selector}]


def _in_this_test(lost: set[Connection]) -> set[Connection]:
    """Return the connections between pods of this test."""
    names = {ANY: [*COMPONENTS, STRANGER], **{name: [pod] for name, pod in PEERS.items()}}
    return {Connection(name, item.target) for item in lost for name in names.get(item.source, [item.source])}
