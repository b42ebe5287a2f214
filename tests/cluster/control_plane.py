"""A control plane: etcd, the API server, the controller manager and the scheduler, as processes of one space."""

import json
import ssl
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

from tests.cluster.certificates import Authority, create_account_keys, write_kubeconfig
from tests.cluster.spaces import HOST, Service, Space
from tests.cluster.waiting import wait_until

PORT = 6443
SERVICES = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
READY_S = 240.0
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


@dataclass
class ControlPlane:
    """A running control plane.

    Attributes:
        space: the network of the control plane and of whatever stands outside of the nodes.
        folder: certificates, kubeconfigs, logs, `audit.log`.
        assets: the folder of Kubernetes' programs.
    """

    space: Space
    folder: Path
    assets: Path

    @property
    def authority(self) -> Authority:
        return Authority(self.folder, "ca")

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a cluster administrator."""
        return self.folder / "kubeconfig"

    def kubectl(self, *argv: str, text: str | None = None) -> str:
        """Run kubectl as a cluster administrator."""
        # By default it would write its cache to the home folder.
        flags = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'cache'}")
        return self.space.run(str(self.assets / "kubectl"), *flags, *argv, text=text)

    def start(self) -> None:
        """Start everything, and return when the API server is ready."""
        self._create_certificates()
        self.start_etcd()
        self.start_api_server()
        # Before readiness their roles do not exist, and they would end.
        self._start("kube-controller-manager", *self._logins("controller-manager"), *self._controller_flags())
        self._start("kube-scheduler", *self._logins("scheduler"), "--leader-elect=false")

    def start_etcd(self) -> Service:
        clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        return self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",  # nothing of it survives the session anyway
        )

    def start_api_server(self) -> Service:
        """Start the API server and wait until it is ready."""
        service = self._start("kube-apiserver", *self._api_server_flags())
        wait_until(self._is_ready, READY_S, "the API server is ready", service.tail)
        return service

    def _is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        with self.space.network(), closing(HTTPSConnection(HOST, PORT, context=context, timeout=5)) as connection:
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            except OSError:
                return False

    def _start(self, name: str, *flags: str) -> Service:
        return self.space.start(name, str(self.assets / name), *flags, log=self.folder / f"{name}.log")

    def _logins(self, name: str) -> list[str]:
        kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return [f"--{kind}={self.folder / name}.conf" for kind in kinds]

    def _create_certificates(self) -> None:
        authority, front = self.authority, Authority(self.folder, "front-proxy-ca")
        authority.create()
        front.create()
        names = ["DNS:kubernetes", "DNS:kubernetes.default.svc", "DNS:localhost"]
        addresses = [f"IP:{address}" for address in (FIRST_SERVICE, HOST, "127.0.0.1")]
        authority.sign("apiserver", "/CN=kube-apiserver", ",".join(names + addresses))
        authority.sign("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        front.sign("front-proxy-client", "/CN=front-proxy-client")
        create_account_keys(self.folder)
        server = f"https://{HOST}:{PORT}"
        accounts = {
            "kubeconfig": ("admin", "/O=system:masters/CN=admin"),
            "controller-manager.conf": ("controller-manager", "/CN=system:kube-controller-manager"),
            "scheduler.conf": ("scheduler", "/CN=system:kube-scheduler"),
            "proxy.conf": ("proxy", "/CN=system:kube-proxy"),
        }
        for file, (name, subject) in accounts.items():
            authority.sign(name, subject)
            write_kubeconfig(self.folder / file, server, authority, self.folder / name)

    def _api_server_flags(self) -> list[str]:
        policy = self.folder / "audit-policy.json"
        # Which rights accounts of pods use is read from this log; requests of the control plane would fill it.
        rule = {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["RequestReceived"]}
        # Created pods as a whole: `created_pods` reads them, also those that are gone soon.
        pods = {"level": "RequestResponse", "verbs": ["create"], "resources": [{"group": "", "resources": ["pods"]}]}
        policy.write_text(
            json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule | pods, rule]}),
            encoding="ascii",
        )
        at = self.folder
        return [
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=0.0.0.0",
            f"--advertise-address={HOST}",  # Endpoints refuse a loopback address
            f"--secure-port={PORT}",
            f"--tls-cert-file={at}/apiserver.crt",
            f"--tls-private-key-file={at}/apiserver.key",
            f"--client-ca-file={self.authority.certificate}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",  # a kubelet changes its own node and pods alone
            "--allow-privileged=true",  # as other clusters have it: refusing such pods is left to Pod Security
            f"--service-cluster-ip-range={SERVICES}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={at}/accounts.pub",
            f"--service-account-signing-key-file={at}/accounts.key",
            f"--kubelet-client-certificate={at}/kubelet-client.crt",
            f"--kubelet-client-key={at}/kubelet-client.key",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",  # nobody resolves the names of the nodes
            # Extension API servers (metrics) trust the front proxy's headers.
            f"--requestheader-client-ca-file={at}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={at}/front-proxy-client.crt",
            f"--proxy-client-key-file={at}/front-proxy-client.key",
            "--enable-aggregator-routing=true",  # no kube-proxy runs here: straight to the pods, not to a Service
            f"--audit-log-path={at}/audit.log",
            f"--audit-policy-file={policy}",
            "--etcd-compaction-interval=30s",  # by default 5 minutes pass before an old watch is answered with 410
            "--profiling=false",
        ]

    def _controller_flags(self) -> list[str]:
        return [
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--root-ca-file={self.authority.certificate}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            "--allocate-node-cidrs=false",  # each node's configuration names its pods' addresses
            "--node-monitor-grace-period=10s",  # the default makes a lost node NotReady after 50 s
            "--node-monitor-period=1s",
        ]
