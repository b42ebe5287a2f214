"""A node: a kubelet, containerd, kube-proxy and NetworkPolicies on a machine of its own, made of namespaces.

The machine has its own network, processes, /run, /var/lib and /var/log. What lies on its disk survives a power cut;
/run, its network and its processes do not.
"""

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import cleanup
from tests.cluster.certificates import write_kubeconfig
from tests.cluster.control_plane import PORT, ControlPlane
from tests.cluster.registry import Registry
from tests.cluster.spaces import HOST, Cable, Service, Space
from tests.cluster.waiting import wait_until

PROGRAMS = ("kubelet", "kube-proxy")
POLICIES = "network-policies"
"""An engine of NetworkPolicies. The assets may lack it: then policies have no effect."""
CNI = "/usr/lib/cni"
STARTED_S = 120.0
POD_RESERVE = "100Mi"

Settings = dict[str, Any]


@dataclass
class Node:
    """One node of a cluster.

    Attributes:
        number: from 1; its addresses follow from it.
        settings: changes to the kubelet's configuration, in force at its next start.
    """

    control: ControlPlane
    registry: Registry
    cluster: str
    number: int
    settings: Settings = field(default_factory=dict)
    space: Space | None = None

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def disk(self) -> Path:
        """The folder that is the node's disk."""
        return self.control.folder / self.name

    @property
    def cable(self) -> Cable:
        return Cable(self.control.space, self.number)

    @property
    def running(self) -> Space:
        """The node's namespaces; an error while its power is off."""
        assert self.space is not None, f"{self.name} is switched off"
        return self.space

    def create(self) -> None:
        for folder in ("cni", "lib", "log"):
            (self.disk / folder).mkdir(parents=True)
        alternatives = f"DNS:{self.name},IP:{self.cable.address}"
        authority = self.control.authority
        authority.sign("node", f"/O=system:nodes/CN=system:node:{self.name}", alternatives, self.disk)
        write_kubeconfig(self.disk / "kubeconfig", f"https://{HOST}:{PORT}", authority, self.disk / "node")
        self.pull_from(self.registry)
        self._write("cni/10-pods.conflist", json.dumps(self._pod_network()))
        self._write("containerd.toml", self._containerd())
        self._write("proxy.json", json.dumps(self._proxy()))
        self._write("resolv.conf", "# Pods with the node's DNS resolve nothing: there is no network outside.\n")

    def pull_from(self, registry: Registry) -> None:
        """Tell containerd, which looks at each pull, how a registry is reached."""
        server = f"{'http' if registry.is_plain else 'https'}://{registry.address}"
        (self.disk / f"certs.d/{registry.address}").mkdir(parents=True)
        self._write(
            f"certs.d/{registry.address}/hosts.toml",
            f'server = "{server}"\n[host."{server}"]\n  capabilities = ["pull", "resolve"]\n',
        )

    def power_on(self) -> None:
        """Start the machine and everything on it. Whether the node is Ready shows in its conditions."""
        lib, log = self.disk / "lib", self.disk / "log"
        self.space = self.control.space.open_inner(
            f"mount -t tmpfs tmpfs /run; mount --bind {lib} /var/lib; mount --bind {log} /var/log"
        )
        self.cable.lay(self.space)
        self._create_cgroups()
        service = self._start("containerd", "containerd", f"--config={self.disk / 'containerd.toml'}")
        wait_until(self._containerd_answers, STARTED_S, f"containerd of {self.name} answers", service.tail)
        self.start_kubelet()
        assets = self.control.assets
        self._start("kube-proxy", str(assets / "kube-proxy"), f"--config={self.disk / 'proxy.json'}", "--v=2")
        if (assets / POLICIES).exists():
            self._queue_packets()
            flags = (f"--kubeconfig={self.control.kubeconfig}", f"--node={self.name}")
            self._start(POLICIES, str(assets / POLICIES), *flags)

    def power_off(self) -> None:
        """Cut the power: everything ends at once, and nothing gets to say so."""
        self.running.end()
        self.space = None
        cleanup.remove_cgroups(*(path / self.name for path in cleanup.cgroups(self.cluster)))

    def start_kubelet(self) -> Service:
        self._write("kubelet.json", json.dumps(self._kubelet() | self.settings))
        return self._start(
            "kubelet",
            str(self.control.assets / "kubelet"),
            f"--config={self.disk / 'kubelet.json'}",
            f"--kubeconfig={self.disk / 'kubeconfig'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.cable.address}",
            "--v=2",
        )

    def service(self, name: str) -> Service:
        """Return the newest process of a name."""
        return next(service for service in reversed(self.running.services) if service.name == name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill one of the node's own processes, and leave its containers alone."""
        self.service(name).kill(number)

    def send(self, name: str, number: int) -> None:
        self.service(name).send(number)

    def kill_container(self, container: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a container's first process, as somebody with root on the node does."""
        self.running.run("kill", f"-{number}", str(self.task(container)))

    def task(self, container: str) -> int:
        """Return the process id of a container, as the node counts."""
        lines = self.running.run("ctr", "--namespace=k8s.io", "tasks", "list").splitlines()[1:]
        return next(int(pid) for name, pid, _ in map(str.split, lines) if name == container)

    def limit_memory(self, container: str, more: int) -> None:
        """Lower a running container's memory limit to so many bytes more than it uses: the kernel enforces it."""
        roots = cleanup.cgroups(self.cluster)
        ((used, limit),) = {files for root in roots for path in root.rglob(container) if (files := _memory_files(path))}
        limit.write_text(str(int(used.read_text(encoding="ascii")) + more), encoding="ascii")

    def _start(self, name: str, *argv: str) -> Service:
        return self.running.start(name, *argv, log=self.disk / f"{name}.log")

    def _containerd_answers(self) -> bool:
        try:
            self.running.run("ctr", "version")
        except RuntimeError:
            return False
        return True

    def _write(self, name: str, text: str) -> None:
        (self.disk / name).write_text(text, encoding="utf-8")

    def _create_cgroups(self) -> None:
        """Create the group below which the kubelet puts pods, which it expects to be there."""
        for top in cleanup.hierarchies():
            for folder in (top / self.cluster, top / self.cluster / self.name):
                folder.mkdir(exist_ok=True)
                # In version 1 a new cpuset is empty, and no process may enter it.
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if top != cleanup.CGROUPS and (folder / file).exists():
                        (folder / file).write_text((folder.parent / file).read_text(encoding="ascii"), encoding="ascii")

    def _queue_packets(self) -> None:
        """Ask the engine of NetworkPolicies about the first packets of connections from and to pods.

        By iptables, because kernels may lack the queue expression of nftables. Without an answer a packet is dropped.
        The kubelet's probes, which come from root on the node, always pass.
        """
        rules = [
            "-N POLICIES",
            "-A POSTROUTING -j POLICIES",
            "-A POLICIES -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
            "-A POLICIES -m owner --uid-owner 0 -j RETURN",
            f"-A POLICIES -s {self.cable.pods} -j NFQUEUE --queue-num 100",
            f"-A POLICIES -d {self.cable.pods} -j NFQUEUE --queue-num 100",
        ]
        self.running.shell("; ".join(f"iptables -t mangle {rule}" for rule in rules))

    def _pod_network(self) -> Settings:
        addresses = {"type": "host-local", "ranges": [[{"subnet": self.cable.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
        plugins = [
            {"type": "ptp", "mtu": 1500, "ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}

    def _containerd(self) -> str:
        # restrict_oom_score_adj: without CAP_SYS_RESOURCE a score may not be lowered, and no container would start.
        return f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{self.registry.address}/pause:latest"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{self.disk}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{self.disk}/cni"
"""

    def _kubelet(self) -> Settings:
        authentication = {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(self.control.authority.certificate)},
        }
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # What a machine with control groups of version 1 and without CAP_SYS_RESOURCE needs: the kubelet neither
            # refuses to start nor fails where it may not set kernel parameters or its own OOM score.
            "failCgroupV1": False,
            "featureGates": {"KubeletInUserNamespace": True},
            "oomScoreAdj": 0,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",  # no systemd runs on the node
            "cgroupRoot": f"/{self.cluster}/{self.name}",
            "enforceNodeAllocatable": ["pods"],
            # Evictions for local storage come within 10 s; by default the kubelet looks once a minute.
            "volumeStatsAggPeriod": "5s",
            "containerLogMonitorInterval": "3s",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": authentication,
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(self.disk / "node.crt"),
            "tlsPrivateKeyFile": str(self.disk / "node.key"),
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.disk / "resolv.conf"),
            # The machine's disk is shared: 1 % of it may be the whole machine's last gigabytes, but not a test's.
            "evictionHard": {
                "memory.available": POD_RESERVE,
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
            # A lost node is noticed after the grace period of the controller manager, 10 s, if its lease is short.
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 5,
        }

    def _proxy(self) -> Settings:
        # Zeros: the kernel's own limits of connection tracking stay, which only the first network may change.
        conntrack = {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.control.folder / "proxy.conf")},
            "clusterCIDR": "10.244.0.0/16",
            "hostnameOverride": self.name,
            "conntrack": conntrack,
        }


def _memory_files(group: Path) -> tuple[Path, Path] | None:
    """Return the files of a control group with its memory and its limit, of version 1 or 2; None without them."""
    for used, limit in (("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")):
        if (group / limit).exists():
            return group / used, group / limit
    return None


def conditions_of(object_: Any) -> dict[str, str]:
    """Return a node's or a pod's conditions: type -> status."""
    return {condition.type: condition.status for condition in object_.status.conditions or []}
