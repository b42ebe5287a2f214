"""The skip message where no cluster can be started, and on which cluster the tests run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.requirements import ASSETS, KUBECONFIG, PACKAGES, REGISTRY, missing

ROOT, NOBODY = 0, 65534


def test_without_root_the_sentence_names_root() -> None:
    assert missing({}, NOBODY).startswith("a cluster needs root")


def test_without_packages_the_sentence_names_them(tmp_path: Path) -> None:
    sentence = missing({"PATH": str(tmp_path)}, ROOT)
    assert all(f" {package}" in sentence for package in PACKAGES.values())


@pytest.mark.skipif(bool(missing({**os.environ, ASSETS: ""}, ROOT).count("apt-get")), reason="packages are missing")
def test_without_assets_the_sentence_names_the_variable_or_the_programs(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    assert f"{ASSETS} is not set" in missing(environment, ROOT)
    assert f"{ASSETS} is {tmp_path}, which lacks etcd, " in missing({**environment, ASSETS: str(tmp_path)}, ROOT)


def test_without_assets_a_test_is_skipped_with_that_sentence(repository: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in (ASSETS, KUBECONFIG)}
    printed = _pytest(repository, "tests/cluster/test_pods.py", environment)
    assert "SKIPPED" in printed
    assert missing(environment) in printed.replace("\n", " ")
    assert "failed" not in printed
    assert "error" not in printed


def test_another_cluster_runs_the_same_tests(reachable: Cluster, repository: Path) -> None:
    environment = {
        **os.environ,
        ASSETS: "",
        KUBECONFIG: str(reachable.kubeconfig),
        REGISTRY: reachable.registry.address,
    }
    printed = _pytest(repository, "tests/cluster/test_pods.py", environment)
    assert " passed" in printed
    assert "skipped" not in printed


def _pytest(repository: Path, file: str, environment: dict[str, str], *flags: str) -> str:
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file, *flags]
    ended = subprocess.run(argv, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
