"""Make entries of what to do about a service: sentences and commands for a shell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

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
