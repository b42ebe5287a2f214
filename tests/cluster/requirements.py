"""What a cluster of our own needs on this machine."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import control_plane, node

ASSETS = "KUBEBUILDER_ASSETS"
KUBECONFIG = "DRIFTLINE_TEST_KUBECONFIG"
REGISTRY = "DRIFTLINE_TEST_REGISTRY"
PACKAGES = {
    "catatonit": "catatonit",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ctr": "containerd",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "runc": "runc",
    "skopeo": "skopeo",
    "unshare": "util-linux",
}
"""Debian's packages by the program of theirs that is called."""
HIDDEN = ("/run", "/var/lib", "/var/log")


def missing(environment: Mapping[str, str], user: int | None = None) -> str:
    """Return one sentence that says what is missing for a cluster of our own, or an empty string."""
    if os.geteuid() if user is None else user:
        return "a cluster needs root: it makes network namespaces, mounts and control groups"
    path = environment.get("PATH")
    packages = {package for program, package in PACKAGES.items() if not shutil.which(program, path=path)}
    packages |= set() if Path(node.CNI, "ptp").exists() else {"containernetworking-plugins"}
    if packages:
        return f"a cluster needs packages that are not installed: apt-get install {' '.join(sorted(packages))}"
    if not environment.get(ASSETS):
        return f"a cluster needs Kubernetes' programs: {ASSETS} is not set and should name their folder"
    assets = Path(environment[ASSETS])
    programs = [name for name in (*control_plane.NAMES, *node.PROGRAMS) if not (assets / name).exists()]
    if programs:
        return f"a cluster needs Kubernetes' programs: {ASSETS} is {assets}, which lacks {', '.join(programs)}"
    temporary = Path(tempfile.gettempdir()).resolve()
    if any(temporary.is_relative_to(folder) for folder in HIDDEN):
        return f"a cluster needs a temporary folder outside of {', '.join(HIDDEN)}, not {temporary}: set TMPDIR"
    return ""
