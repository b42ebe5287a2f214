"""What is checked before a pod is created, with answers of clusters that the tests cannot start."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from platform_assets.kubernetes.api import Api
from platform_assets.kubernetes.launcher import check_cluster
from platform_assets.launch.tries import NotReady


class Old:
    """A cluster of an older version, which must be asked nothing else."""

    namespace = "team"

    def version(self) -> tuple[int, int]:
        return 1, 31


def test_a_cluster_older_than_the_oldest_checked_one_is_refused_by_its_version() -> None:
    with pytest.raises(NotReady) as problem:
        check_cluster(cast("Api", Old()), {})
    assert problem.value.description == (
        "The cluster runs Kubernetes 1.31; expected 1.32 or newer: update it, or name another cluster. "
        "Nothing was started."
    )


@dataclass
class Sound:
    """A cluster that can run everything, and what its user is warned of."""

    quotas: bool
    namespace: str = "team"
    lines: list[str] = field(default_factory=list)

    def version(self) -> tuple[int, int]:
        return 1, 35

    def may(self, verb: str, resource: str) -> bool:
        return True

    def has_quota(self) -> bool:
        return self.quotas

    def log(self, line: str) -> None:
        self.lines.append(line)


def test_a_namespace_without_a_quota_is_named_and_runs_the_step() -> None:
    bare, bounded = Sound(quotas=False), Sound(quotas=True)
    for cluster in (bare, bounded):
        check_cluster(cast("Api", cluster), {})
    (line,) = bare.lines
    assert line.startswith("Namespace team has no ResourceQuota, so steps may take all that its services need to start")
    assert line.endswith("apply one, such as those of deploy/kubernetes/base/quotas.yaml.")
    assert bounded.lines == []
