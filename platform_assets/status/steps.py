"""Make entries of what to do about a service: sentences and commands for a shell, from what Kubernetes reports."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from platform_assets.records.values import items, text
from platform_assets.status.state import Step, Todo

if TYPE_CHECKING:
    from platform_assets.handle import Product

SERVICE = "service"


def service_todo(what: str, *steps: Step) -> Todo:
    """Return an entry about the service."""
    return Todo(about=SERVICE, key=None, what=what, steps=list(steps))


def apply(product: Product) -> Step:
    """Return the step that brings the newest release's contract to the cluster."""
    command = f"driftline manifests {product.name} | kubectl apply --filename=-"
    return Step(when="to run the newest release's service", command=command)


def kubectl(product: Product, *words: str) -> str:
    """Return a command in the namespace of the settings."""
    return shlex.join(["kubectl", f"--namespace={product.settings.namespace}", *words])


def condition(document: object, kind: str) -> object:
    """Return the condition of a kind in an object's status; None without one."""
    conditions = items(document, "status", "conditions")
    return next((one for one in conditions if text(one, "type") == kind), None)


def as_line(message: str) -> str:
    """Return a message as one line that ends with a full stop."""
    line = " ".join(message.split())
    return line if not line or line.endswith(".") else f"{line}."
