"""Namespaces for single tests."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from kubernetes import client

from tests.cluster.waiting import wait_until

ACCOUNT_S = 60.0
LABELS = {"pod-security.kubernetes.io/enforce": "restricted"}


@contextmanager
def fresh_namespace(core: client.CoreV1Api) -> Iterator[str]:
    """Create a namespace that enforces Pod Security "restricted", and delete it with all that is in it at the end."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name, "labels": LABELS}})
    try:
        # Pods are refused until a controller has created the default account, up to a second later.
        wait_until(
            lambda: bool(core.list_namespaced_service_account(name).items), ACCOUNT_S, f"{name} has its default account"
        )
        yield name
    finally:
        if name in [item.metadata.name for item in core.list_namespace().items]:  # a test may delete it
            core.delete_namespace(name)
