"""Say what is wrong with a product's service on a cluster, from what its processes send to the store."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from platform_assets.operations.status.state import Step, Todo
from platform_assets.prediction_log import waiting
from platform_assets.prediction_log.barrier import Listener
from platform_assets.prediction_log.waiting import SILENCE, Process
from platform_assets.serving.log.shipping import deployments_problem
from platform_assets.store.segments import CLOCK_LIMIT_S, HELLO, deployment_of, server_of

if TYPE_CHECKING:
    from platform_assets.store.product_store import ProductStore

SERVERS_SHOWN = 4


def todos(product: ProductStore) -> list[Todo]:
    """Return what a person should do about the product's service; costs a listing and the newest segment of each.

    A process counts as long as it may be alive: until it says goodbye, or for three heartbeats.
    """
    newest = product.history.live()
    if newest is None or not product.settings.serving_ships:
        return []
    now = datetime.now(UTC)
    processes = Listener(product.settings.root, product.name).processes(now - SILENCE)
    alive = [process for process in processes if not process.has_left]
    if alive:
        return [*_contracts(product, newest[0], alive), *_deployments(product, alive), *_clocks(product, alive)]
    text = (
        f"Release {newest[0]} is live, and no process of its service sent anything to the store in the last "
        f"{SILENCE / timedelta(seconds=1):g} s: either nothing serves it, or what does cannot reach the store."
    )
    pods = _kubectl(
        product.settings.namespace,
        "describe",
        "pods",
        f"--selector=app.kubernetes.io/component=service,driftline/product={product.name}",
    )
    return [_entry(text, _apply(product), Step(when="to see why its pods are not ready", command=pods))]


def _entry(text: str, *steps: Step) -> Todo:
    return Todo(about="service", key=None, text=text, steps=list(steps))


def _apply(product: ProductStore) -> Step:
    """Return the step that brings the newest release's contract to the cluster."""
    command = f"driftline manifests {product.name} | kubectl apply --filename=-"
    return Step(when="to run the newest release's service", command=command)


def _kubectl(namespace: str, *arguments: str) -> str:
    return shlex.join(["kubectl", f"--namespace={namespace}", *arguments])


def _contracts(product: ProductStore, newest: int, alive: Iterable[Process]) -> list[Todo]:
    """Return who serves another contract than that of the newest release, or follows no release at all."""
    contracts = {newest: _contract(product, newest)}
    behind, no_release = list[Process](), list[Process]()
    for process in alive:
        if process.kind == HELLO:  # it had not looked for releases yet
            continue
        if process.release is None:
            no_release.append(process)
        elif contracts.setdefault(process.release, _contract(product, process.release)) != contracts[newest]:
            behind.append(process)
    todo = []
    if behind:
        text = (
            f"Release {newest} has another contract than release {max(one.release or 0 for one in behind)}, which "
            f"{_servers(behind)} still serve{_s(behind)}: roll out the Bento that was built for it."
        )
        todo.append(_entry(text, _apply(product)))
    if no_release:
        own = "its Bento" if len(no_release) == 1 else "their Bento"
        s = _s(no_release)
        text = f"{_servers(no_release)} follow{s} no release and answer{s} with the model of {own}."
        pod = server_of(no_release[0].name).partition(".")[0]
        path = f"/api/v1/namespaces/{product.settings.namespace}/pods/{pod}:3001/proxy/readyz"
        todo.append(_entry(text, Step(when="to see why", command=shlex.join(["kubectl", "get", "--raw", path]))))
    return todo


def _contract(product: ProductStore, number: int) -> str | None:
    release = product.history.release(number)
    return None if release is None else release.contract_sha256


def _deployments(product: ProductStore, alive: Iterable[Process]) -> list[Todo]:
    deployments = {name for process in alive if (name := deployment_of(process.name)) is not None}
    problem = deployments_problem(product.name, deployments)
    if problem is None:
        return []
    steps = []
    for deployment in sorted(deployments):
        namespace, name = deployment.split("/")
        command = _kubectl(namespace, "delete", "deployment", name)
        steps.append(Step(when=f"if {deployment} should not be there", command=command))
    return [_entry(problem, *steps)]


def _clocks(product: ProductStore, alive: Iterable[Process]) -> list[Todo]:
    wrong = waiting.wrong_clocks(alive, CLOCK_LIMIT_S)
    by_server = {server_of(process): offset for process, offset in wrong.items()}
    todo = []
    for server, offset in by_server.items():
        side = "behind" if offset > 0 else "ahead of"
        text = (
            f"The clock of {server} is {abs(offset):.0f} s {side} the store's, and times of its answers are wrong by "
            "that: repair the time service of its node."
        )
        command = _kubectl(product.settings.namespace, "get", "pod", server.partition(".")[0], "--output=wide")
        todo.append(_entry(text, Step(when="to see its node", command=command)))
    return todo


def _servers(processes: Iterable[Process]) -> str:
    servers = sorted({server_of(process.name) for process in processes})
    more = len(servers) - SERVERS_SHOWN
    return ", ".join(servers[:SERVERS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _s(processes: Iterable[Process]) -> str:
    """Return the ending of a verb whose subject is their servers."""
    return "s" if len({server_of(process.name) for process in processes}) == 1 else ""
