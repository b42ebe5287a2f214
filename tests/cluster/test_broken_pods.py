"""What the API server refuses before a pod exists."""

from __future__ import annotations

import pytest
from kubernetes import client

from tests.cluster.broken_pods import BROKEN, Broken
from tests.cluster.pods import Pods


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_manifest_is_answered_as_listed(broken: Broken, pods: Pods, shell: str) -> None:
    pod = broken.manifest(shell)
    if broken.status == 201:
        pods.create(pod)
        return
    with pytest.raises(client.ApiException) as refusal:
        pods.create(pod)
    assert refusal.value.status == broken.status
    assert broken.message in str(refusal.value.body)
