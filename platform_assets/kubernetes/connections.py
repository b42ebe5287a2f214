"""Try every connection that a deployment needs, from inside: `driftline doctor connections`.

Network policies drop packets and say nothing: a pod waits, and its rollout is green. Each connection is opened as its
user opens it, all at once and each within a bound, and one that fails names the value that lets it through.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import psycopg2

from platform_assets.base import settings as variables
from platform_assets.base.settings import Settings, SettingsProblem
from platform_assets.store import objects

BOUND_S = 10.0
"""For one connection, all of them at once."""
ATTEMPT_S = 5.0
CODE_SERVER = ("driftline-code", 4000)
CLUSTER_CA = Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
LOST = (
    "No answer: packets are dropped on the way. Let {networks} contain {addresses}, then apply the overlay; a firewall "
    "outside of the cluster does the same."
)


@dataclass(frozen=True)
class Connection:
    """A connection, and how to try it.

    Attributes:
        name: of the other side.
        host: to resolve; its addresses are what network policies are about.
        attempt: opens it; raises what went wrong.
        networks: the value that lets its packets through.
        access: where else to look when it is refused.
    """

    name: str
    host: str
    port: int
    attempt: Callable[[], object]
    networks: str
    access: str


@dataclass(frozen=True)
class Result:
    """What came of a connection: None, or what is wrong and what to change."""

    connection: Connection
    seconds: float
    problem: str | None

    def line(self) -> str:
        """Return it as one line: result, other side, address, time, and what to change."""
        place = f"{self.connection.host}:{self.connection.port}"
        outcome = f"{1000 * self.seconds:.0f} ms" if self.problem is None else self.problem
        return f"{'ok' if self.problem is None else 'FAILED':<7} {self.connection.name:<13} {place:<40} {outcome}"


def run(settings: Settings) -> int:
    """Print a line per connection; return 1 when one fails."""
    results = tried(needed(settings))
    for result in results:
        print(result.line())
    return int(any(result.problem is not None for result in results))


def tried(connections: Sequence[Connection], bound_s: float = BOUND_S) -> list[Result]:
    """Try all connections at once, and return their results in the same order."""
    began_s, done = time.monotonic(), queue.Queue[tuple[int, Result]]()

    def attempt(place: int, connection: Connection) -> None:
        problem = None
        try:
            connection.attempt()
        except (OSError, SettingsProblem, psycopg2.Error, http.client.HTTPException) as error:
            problem = _advice(connection, error)
        done.put((place, Result(connection, time.monotonic() - began_s, problem)))

    # Daemon threads: one that hangs in the resolver must not hold the process.
    for place, connection in enumerate(connections):
        threading.Thread(target=attempt, args=(place, connection), daemon=True).start()
    results: dict[int, Result] = {}
    while len(results) < len(connections):
        try:
            place, result = done.get(timeout=max(0.0, began_s + bound_s - time.monotonic()))
        except queue.Empty:
            break
        results[place] = result
    return [
        results.get(place) or Result(connection, bound_s, _advice(connection, TimeoutError()))
        for place, connection in enumerate(connections)
    ]


def needed(settings: Settings) -> list[Connection]:
    """Return the connections that this process's environment asks for; those inside of a cluster only there."""
    kubernetes, tracking = variables.kubernetes_address(), variables.mlflow_variables().get(variables.TRACKING)
    connections = []
    if kubernetes is not None:
        connections += _of_cluster(*kubernetes)

    def ask_postgres() -> None:
        # Without its variables this fails again, as a line of the output.
        psycopg2.connect(**variables.postgres_options(), connect_timeout=int(ATTEMPT_S)).close()

    try:
        options = variables.postgres_options()
        host, port = options["host"], int(options["port"])
    except SettingsProblem:
        host, port = "", 0
    networks = "the policy to-postgres (POSTGRES_NETWORK, DAGSTER_PG_PORT)"
    access = "DAGSTER_PG_HOST, _PORT, _DB, PGSSLMODE and the secret driftline-postgres"
    connections.append(Connection("PostgreSQL", host, port, ask_postgres, networks, access))
    if not objects.is_folder(settings.root):
        environment = dict(objects.access())
        region = environment.get("AWS_REGION", "us-east-1")
        address = environment.get("AWS_ENDPOINT_URL", f"https://s3.{region}.amazonaws.com")
        networks = "the policy to-store (STORE_NETWORK, STORE_PORT)"
        access = f"{settings.root}, AWS_ENDPOINT_URL, AWS_REGION and the secret driftline-store"
        server = _web("store", address, networks, access)

        def ask_store() -> None:
            server.attempt()  # its client repeats, and says less
            try:
                objects.read(objects.open_store(settings.root, timedelta(seconds=ATTEMPT_S)), "connections")
            except (obstore.exceptions.BaseError, FileNotFoundError) as error:
                # Its own text names times of its own.
                raise OSError(objects.reason(settings.root, error)) from error

        connections.append(replace(server, attempt=ask_store))
    for address in settings.alertmanager_addresses:
        networks = "a policy such as to-alertmanager"
        connections.append(_web("Alertmanager", address, networks, "DRIFTLINE_ALERTMANAGER"))
    if tracking is not None:
        connections.append(_web("MLflow", tracking, "a policy of yours to MLflow", variables.TRACKING))
    return connections


def _of_cluster(host: str, port: int) -> list[Connection]:
    """Return those to a cluster's own servers, with the address of its API server."""
    lines = Path("/etc/resolv.conf").read_text(encoding="utf-8").splitlines()
    resolver = next((words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"]), "")

    def ask() -> None:
        context = ssl.create_default_context(cafile=str(CLUSTER_CA) if CLUSTER_CA.exists() else None)
        if not CLUSTER_CA.exists():
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent or believed
        connection = http.client.HTTPSConnection(host, port, timeout=ATTEMPT_S, context=context)
        try:
            connection.request("GET", "/version")
            connection.getresponse()  # also one that refuses
        finally:
            connection.close()

    dns = (
        "the pods of DNS: the policy to-dns opens port 53 and DRIFTLINE_DNS_PORT of pods labelled k8s-app: kube-dns in "
        "kube-system. Theirs: kubectl get endpointslices --namespace kube-system --selector k8s-app=kube-dns"
    )
    code, to_code = "the Deployment driftline-code: its pod is not ready", "the policies to-code, code-from"
    servers = "the policy to-kubernetes (API_SERVER, the address behind the Service, of each server)"
    return [
        Connection("DNS", resolver, 53, lambda: socket.getaddrinfo("kubernetes.default", None), "", dns),
        Connection("code server", *CODE_SERVER, lambda: _greet(*CODE_SERVER, is_tls=False), to_code, code),
        Connection("API server", host, port, ask, servers, "kubectl get endpointslices kubernetes"),
    ]


def _web(name: str, address: str, networks: str, access: str) -> Connection:
    place = urlsplit(address)
    is_tls = place.scheme != "http"
    host, port = place.hostname or "", place.port or (443 if is_tls else 80)
    return Connection(name, host, port, lambda: _greet(host, port, is_tls=is_tls), networks, access)


def _greet(host: str, port: int, *, is_tls: bool) -> None:
    """Connect, and with TLS have the server prove its name."""
    with socket.create_connection((host, port), timeout=ATTEMPT_S) as opened:
        if is_tls:
            ssl.create_default_context().wrap_socket(opened, server_hostname=host).close()


def _advice(connection: Connection, error: Exception) -> str:
    """Return what went wrong in a sentence, and what to change."""
    text = objects.first_line(error).strip().rstrip(".")
    if connection.name == "DNS":
        return f"No name is resolved ({text or 'no answer'}). Look at {connection.access}"
    if isinstance(error, socket.gaierror):
        return f"{connection.host} is not resolved: {text}. See DNS, or {connection.access}."
    # Policies drop packets. The store's client says `retry_timeout` whatever is wrong, so it is greeted first.
    if isinstance(error, TimeoutError) or "timeout" in text or "timed out" in text:
        found: list[str] = []

        def ask() -> None:
            found.append(", ".join(sorted({str(item[4][0]) for item in socket.getaddrinfo(connection.host, None)})))

        asking = threading.Thread(target=ask, daemon=True)  # a resolver may hang, too
        asking.start()
        asking.join(1.0)
        addresses = found[0] if found else f"the addresses of {connection.host}"
        return LOST.format(networks=connection.networks, addresses=addresses)
    if isinstance(error, ssl.SSLError) or "certificate" in text.lower():
        return (
            f"TLS failed: {text}. The certificate must name {connection.host}; one of a private authority needs the "
            "config map driftline-ca, and variables with its file (docs/recover.md)."
        )
    if isinstance(error, ConnectionRefusedError) or "refused" in text:
        return f"Refused: nothing listens there. Look at {connection.access}."
    return f"{text or type(error).__name__}. Look at {connection.access}."
