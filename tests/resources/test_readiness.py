"""What is checked before a pod is created, by the answers of a cluster that tests have none of."""

from __future__ import annotations

from typing import cast

import pytest

from resources.launchers import readiness
from resources.launchers.api import Api


class Old:
    """A cluster of an older version, which must be asked nothing else."""

    namespace = "team"

    def version(self) -> tuple[int, int]:
        return 1, 31


def test_a_cluster_older_than_the_oldest_checked_one_is_refused_by_its_version() -> None:
    with pytest.raises(readiness.NotReady) as problem:
        readiness.check(cast("Api", Old()), {})
    assert problem.value.description == (
        "The cluster runs Kubernetes 1.31; expected 1.32 or newer: update it, or name another cluster. "
        "Nothing was started."
    )
