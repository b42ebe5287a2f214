"""PostgreSQL and the store behind TLS of a private authority, and images of a registry that asks who pulls.

The platform runs with both on a real cluster. Pods of a step and a service have exactly their manifests, but for their
command: they read the store with each client.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest
from kubernetes import client

from platform_assets.base.settings import AUTHORITIES, AUTHORITY_VARIABLES, Settings
from platform_assets.engine.outside import Work
from platform_assets.launch.endings import first_try
from platform_assets.launch.profiles import PROFILES
from platform_assets.store import objects
from platform_assets.store.tables import TableStore
from tests.cluster import accounts, names, platform_images, pods, registry
from tests.cluster.certificates import Authority
from tests.cluster.cluster import Cluster
from tests.cluster.loop import BUCKET, SMALL
from tests.cluster.platform import NAMESPACE, PARTS, Images, Platform, deployed
from tests.cluster.pods import Manifest, Pods
from tests.cluster.rights import RUN
from tests.cluster.servers import DIES_WITH_PYTEST
from tests.cluster.spaces import HOST
from tests.cluster.step_runs import pod_of
from tests.cluster.waiting import wait_until
from tests.doubles import postgres_server, tls_proxy
from tests.doubles.postgres_server import MISSING, binaries
from tests.doubles.s3_server import S3Server
from tests.test_manifests import documents

pytestmark = pytest.mark.long

CA, PULL_SECRET, ACCOUNT = "driftline-ca", "driftline-registry", "driftline-doctor"
PORT, USER, PASSWORD = 5001, "puller", "pulled-by-tests"
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuTYLDyWnZC6nwr.ye9qQd5RjbqfoiD5G\n"
READ = """
import os
import boto3
from platform_assets.store import objects
from platform_assets.store.tables import TableStore
root = os.environ["DRIFTLINE_ROOT"]
bucket, _, folder = root.removeprefix("s3://").partition("/")
print(objects.read(objects.open_store(root), "probe").decode())
print(TableStore(root, "tiny").read("features", ["a"])["n"].item())
print(boto3.client("s3").get_object(Bucket=bucket, Key=f"{folder}/probe")["Body"].read().decode())
"""
CONTENT = "7\n7\n7\n"
JOB_S = 180.0


@dataclass(frozen=True)
class Deployment:
    """The platform, with values of its own.

    Attributes:
        shell: an image that no node has yet, by its name at the registry that asks.
    """

    platform: Platform
    authority: Authority
    asking: registry.Registry
    image: str
    shell: str

    @property
    def pods(self) -> Pods:
        return Pods(self.platform.cluster.core, NAMESPACE)

    def trust(self) -> None:
        """Create the config map as docs/recover.md says."""
        file = f"--from-file=ca.crt={self.authority.certificate}"
        self.platform.kubectl("create", "configmap", CA, file)

    def let_in(self) -> None:
        """Create the secret with which images are pulled."""
        login = (f"--docker-server={self.asking.address}", f"--docker-username={USER}", f"--docker-password={PASSWORD}")
        self.platform.kubectl("create", "secret", "docker-registry", PULL_SECRET, *login)

    def connections(self) -> list[str]:
        """Return the lines of `driftline doctor connections`, from a Job."""
        self.platform.kubectl("delete", "job", "connections", "--ignore-not-found")
        self.platform.kubectl("create", "job", "connections", "--from=cronjob/driftline-connections")
        batch = client.BatchV1Api(self.platform.cluster.api)

        def has_ended() -> bool:
            status = batch.read_namespaced_job("connections", NAMESPACE).status
            return bool(status.succeeded or status.failed)

        wait_until(has_ended, JOB_S, "the Job connections has ended", self.platform.described)
        lines = self.platform.kubectl("logs", "job/connections").splitlines()
        return [line for line in lines if line.startswith(("ok ", "FAILED "))]

    def read(self, pod: Manifest, api: client.CoreV1Api | None = None) -> str:
        """Run a pod whose containers read the store, and return what its last container prints."""
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            container["command"] = ["python", "-c", READ]
        name = replace(self.pods, api=api or self.pods.api).create(pod)
        self.pods.wait_for_phase(name, "Succeeded", "Failed")
        return self.platform.kubectl("logs", name, "--all-containers")


@pytest.fixture(scope="module")
def deployment(
    cluster: Cluster,
    s3: S3Server,
    shell: str,
    authority: Authority,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    if cluster.control is None:
        pytest.skip("nodes pull from a registry of this test: only on a cluster that was started here")
    if binaries() is None:
        pytest.skip(MISSING)
    folder, pair = tmp_path_factory.mktemp("authorities"), authority.folder / "cluster"
    authority.sign(pair.name, "/CN=cluster", f"IP:{HOST}")
    built = platform_images.built(repository, "platform")
    with ExitStack() as stack:
        stack.enter_context(cluster.network())
        postgres = stack.enter_context(postgres_server.running(HOST, DIES_WITH_PYTEST, pair))
        endpoint = stack.enter_context(tls_proxy.in_front_of(s3.endpoint, pair, HOST))
        names.serve_names(cluster, folder)
        pushed = cluster.registry.push_built("platform", built)
        asking, _ = registry.start(cluster.control.space, cluster.control.folder, PORT, HTPASSWD)
        for node in cluster.nodes:
            node.pull_from(asking)
        image, other = (name.replace(cluster.registry.address, asking.address) for name in (pushed, shell))
        (folder / "overlay").mkdir()
        variables, secrets = _values(postgres.environment() | s3.environment(endpoint), f"s3://{BUCKET}/{folder.name}")
        there = deployed(
            replace(cluster, registry=asking),
            Images(image, image, image, ""),
            variables,
            secrets,
            folder / "overlay",
            (),
            ["pull-secret"],
        )
        made = Deployment(stack.enter_context(there), authority, asking, image, other)
        made.trust()
        made.let_in()
        for part in PARTS:
            made.platform.kubectl("scale", f"deployment/driftline-{part}", "--replicas=1")
        for part in PARTS:
            made.platform.wait_for(f"driftline-{part}")
        yield made


def _values(environment: dict[str, str], root: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the values of the config map `driftline`, and the secrets."""
    postgres = {name: environment.pop(name) for name in ("DAGSTER_PG_USER", "DAGSTER_PG_PASSWORD")}
    store = {name: environment.pop(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    variables = {
        **environment,
        **SMALL,
        **dict.fromkeys(AUTHORITY_VARIABLES, f"{AUTHORITIES}/ca.crt"),
        "AWS_ALLOW_HTTP": "false",
        "DRIFTLINE_LOGS_BUCKET": BUCKET,
        "DRIFTLINE_ROOT": root,
        "PGSSLMODE": "verify-full",
    }
    return variables, {"driftline-postgres": postgres, "driftline-store": store}


@pytest.fixture
def here(deployment: Deployment, stored: None) -> Deployment:
    """The deployment, with something in its store; this process asks the store without TLS."""
    root = deployment.platform.settings.root
    objects.create(objects.open_store(root), "probe", b"7")
    frame = pl.DataFrame({"n": [7]})
    TableStore(root, "tiny").replace("features", {"a": frame}, inputs={"a": {}}, code="code")
    return deployment


def _values_in(here: Deployment) -> dict[str, str]:
    """Return the variables that runs and services have from the config map."""
    return dict(here.platform.cluster.core.read_namespaced_config_map("driftline", NAMESPACE).data)


def test_the_platform_reaches_all_that_it_needs(here: Deployment) -> None:
    lines = here.connections()
    assert [line.split()[:2] for line in lines] == [
        ["ok", name] for name in ("DNS", "code", "API", "PostgreSQL", "store")
    ], lines
    for part in ("code", "webserver"):  # the daemon needs no store
        assert here.platform.kubectl("exec", f"deployment/driftline-{part}", "--", "python", "-c", READ) == CONTENT


def test_a_step_reads_the_store_and_the_policy_lets_it_in(here: Deployment) -> None:
    """As the account of runs creates it, with the settings that a run has."""
    work = Work(product="flight_delays", step="train", cutoff="2013-07-01", fingerprint="ab" * 32)
    plan = first_try(PROFILES["cpu_small"].replace(cores=1))
    step = pod_of(Settings.from_environment(_values_in(here)), plan, work)
    account = accounts.configuration_of(here.platform.cluster, RUN, NAMESPACE)
    assert here.read(step, client.CoreV1Api(client.ApiClient(account))) == CONTENT


def test_a_service_reads_the_store(here: Deployment, tmp_path: Path) -> None:
    """Its manifests are written on a laptop, which trusts others."""
    address = {"AWS_ENDPOINT_URL": _values_in(here)["AWS_ENDPOINT_URL"], "DRIFTLINE_SERVICE_IMAGE": here.image}
    built = documents(tmp_path, SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt", **address)
    template = built["Deployment"]["spec"]["template"]
    spec = template["spec"] | {"restartPolicy": "Never"}
    labels = template["metadata"]["labels"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "service", "labels": labels}, "spec": spec}
    for container in spec["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe", "workingDir"):
            container.pop(probe)
    network = client.NetworkingV1Api(here.platform.cluster.api)
    network.create_namespaced_network_policy(NAMESPACE, built["NetworkPolicy"])
    assert here.read(pod) == 2 * CONTENT


def test_without_the_config_map_the_job_names_tls_and_the_config_map(here: Deployment) -> None:
    here.platform.kubectl("delete", "configmap", CA)
    try:
        lines = here.connections()
    finally:
        here.trust()
    failed = {line.split()[1]: line for line in lines if line.startswith("FAILED ")}
    assert set(failed) == {"PostgreSQL", "store"}, lines
    for line in failed.values():
        assert "TLS failed: " in line
        assert f"config map {CA}" in line


def test_images_are_pulled_with_the_secret_and_not_without(here: Deployment) -> None:
    for pod in here.platform.pods("app.kubernetes.io/part-of=driftline"):
        assert pod.spec.containers[0].image == here.image
        assert [secret.name for secret in pod.spec.image_pull_secrets] == [PULL_SECRET]
    here.platform.kubectl("delete", "secret", PULL_SECRET)
    try:
        name = here.pods.create(pods.manifest("pulled", here.shell, "exit 0", serviceAccountName=ACCOUNT))
        waiting = here.pods.wait_for_reason(name, "ImagePullBackOff")
    finally:
        here.let_in()
    assert here.shell in waiting.message
    assert here.pods.wait_for_end(name).exit_code == 0
