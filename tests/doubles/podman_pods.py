"""Run the pods of the cluster's double in their image with podman, with nothing but what the pod specifies.

To the double this is what a container runtime is to a kubelet: `Cluster(runs=PodmanContainer)`. Volumes are empty.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping

from kubernetes.utils import parse_quantity

from tests.doubles.cluster.processes import Container


class PodmanContainer(Container):
    """A container of a pod, in this machine's network, because the servers of a test listen there."""

    @property
    def _id(self) -> str:
        return f"double-{self.pod['metadata']['uid']}-{self.name}"

    def command(self, environment: Mapping[str, str]) -> list[str]:
        """Return podman's command: values are inherited, so that no list of processes shows them."""
        security, memory = self.spec["securityContext"], parse_quantity(self.spec["resources"]["limits"]["memory"])
        command = ["podman", "run", "--rm", f"--name={self._id}", f"--hostname={self.pod['metadata']['name']}"]
        command += ["--network=host", "--pull=never", "--log-driver=none", f"--memory={int(memory)}b"]
        command += [f"--user={security['runAsUser']}:{self.pod['spec']['securityContext']['runAsGroup']}"]
        command += [f"--cap-drop={item}" for item in security["capabilities"]["drop"]]
        command += ["--read-only", "--read-only-tmpfs=false"] if security["readOnlyRootFilesystem"] else []
        command += [] if security["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
        command += [f"--tmpfs={item['mountPath']}:rw,mode=1777" for item in self.spec["volumeMounts"]]
        # The image has a search path of its own.
        command += [f"--env={name}" for name in environment if name != "PATH"]
        return [*command, self.spec["image"], *self.spec["command"]]

    def signal(self, number: int) -> None:
        """Send a signal: podman forwards SIGTERM; SIGKILL would end only podman."""
        if number == signal.SIGKILL:
            subprocess.run(["podman", "rm", "--force", "--ignore", self._id], capture_output=True, check=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
