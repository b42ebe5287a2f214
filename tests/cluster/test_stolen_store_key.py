"""What the store's key in a pod leads to: forged records, deletions and connections, tried from inside the pod.

The keys are those of `deploy/store/keys.py`, the pods those that the launcher and `driftline manifests` make, with code
of somebody else in them. The network policies of the overlay are in force.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from platform_assets.engine.outside import Work
from platform_assets.launch.launchers import StepLauncher
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.attempts import ATTEMPTS
from platform_assets.store.tables import TableStore
from tests.cluster import guards
from tests.cluster.cluster import Cluster
from tests.cluster.connections import KUBERNETES, POSTGRES, labels_of
from tests.cluster.node import POLICIES
from tests.cluster.opened import SECRET
from tests.cluster.platform import Images, write_overlay
from tests.cluster.pods import manifest
from tests.cluster.step_runs import SMALL, StepRuns
from tests.cluster.test_training import is_passed_on
from tests.doubles import cluster_environment as environment
from tests.doubles import store_keys, thief
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products import slow_batches
from tests.doubles.products.slow_batches import SPEC
from tests.doubles.s3_server import S3Server
from tests.test_manifests import documents

pytestmark = pytest.mark.long

Policies = list[guards.Object]
KEYS = SPEC.grain.span(SPEC.grain.first, SPEC.grain.key_at(slow_batches.BATCHES - 1))
CUTOFF = SPEC.grain.shift(KEYS[-1], 1)
NO_DIGEST = f"registry.example/image@sha256:{'0' * 64}"
OTHER = "flight_delays"
OF_STEPS = "driftline-store-step-{product}"
FORGED, KEPT = thief.foreign(SPEC.name, OTHER), thief.kept(SPEC.name, OTHER)
PATIENCE_S = 30.0
"""Within which a network policy counts for a pod that has just started: engines learn of it after its first packets."""
DENIED = dict.fromkeys((KUBERNETES, POSTGRES, "webserver"), "TimeoutError")
"""How a connection ends whose packets a network policy drops."""


@dataclass(frozen=True)
class Stolen:
    """A namespace whose steps have the key of their product, once there are keys, and what pods in it try.

    Attributes:
        folder: an empty one.
        plan: for `tests.doubles.thief`.
    """

    cluster: Cluster
    runs: StepRuns
    s3: S3Server
    folder: Path
    plan: Mapping[str, Any]

    def make_keys(self) -> None:
        """Make a key of each account, in the namespace's secrets."""
        file, logs = self.folder / "keys.json", f"{self._place('')['Bucket']}-logs"
        store_keys.write(self.runs.settings, (SPEC.name, OTHER), logs, file, renews=False)
        self.cluster.kubectl("apply", "--filename", str(file))

    def put(self) -> None:
        """Write every object that may be forged or deleted, as the store's owner."""
        for name in {*FORGED, *KEPT}:
            self.s3.client().put_object(**self._place(name), Body=b"kept")

    def content(self) -> set[bytes]:
        """Return what is in these objects."""
        return {self.s3.client().get_object(**self._place(name))["Body"].read() for name in {*FORGED, *KEPT}}

    def _place(self, name: str) -> dict[str, str]:
        bucket, _, path = self.runs.settings.root.removeprefix("s3://").partition("/")
        return {"Bucket": bucket, "Key": f"{path}/{name}"}

    def by_step(self, patience_s: float = PATIENCE_S, **settings: Any) -> Mapping[str, Any]:
        """Return how the tries of a step's pod ended, as the launcher makes it."""
        launcher, results = self.runs.launcher(**settings), list[Mapping[str, Any]]()
        extras = dict(self.plan) | {"patience_s": patience_s}
        work = Work(product=SPEC.name, step="train", cutoff=CUTOFF, fingerprint=2 * uuid.uuid4().hex)

        def steals(context: Any, launcher: Any) -> Any:
            result = launcher.run(
                context=context, module="tests.doubles.thief", extras=extras, profile=SMALL, work=work
            )
            results.append(result)
            return dg.MaterializeResult()

        steals.__annotations__ = {
            "context": dg.AssetExecutionContext,
            "launcher": dg.ResourceParam[StepLauncher],
            "return": dg.MaterializeResult,
        }
        with dg.DagsterInstance.ephemeral() as instance:
            dg.materialize([dg.asset(steals)], resources={"launcher": launcher}, instance=instance)
        return results[0]

    def by_service(self) -> Mapping[str, Any]:
        """Return how the tries of a service's pod ended, as `driftline manifests` describes it, but for its command.

        The trainer's image stands for the service's.
        """
        settings, pods = self.runs.settings, self.runs.pods
        variables = {
            "AWS_ENDPOINT_URL": self.s3.endpoint,
            "DRIFTLINE_NAMESPACE": pods.namespace,
            "DRIFTLINE_SERVICE_IMAGE": str(settings.trainer_image),
            "DRIFTLINE_STEP_SECRET": OF_STEPS,
        }
        parts = documents(self.folder, 1, **variables)
        keyless = {name: text for name, text in self.s3.environment().items() if "KEY" not in name}
        shared = {"DRIFTLINE_ROOT": settings.root, **keyless}
        pods.api.create_namespaced_config_map(pods.namespace, {"metadata": {"name": "driftline"}, "data": shared})
        template = parts["Deployment"]["spec"]["template"]
        (container,) = template["spec"]["containers"]
        for name in ("workingDir", "ports", "lifecycle", "startupProbe", "livenessProbe", "readinessProbe"):
            container.pop(name, None)
        container["command"] = [
            "python",
            "-m",
            "tests.doubles.thief",
            json.dumps(dict(self.plan) | {"patience_s": PATIENCE_S}),
        ]
        template["spec"] |= {"restartPolicy": "Never", "initContainers": []}
        template["metadata"]["name"] = "service"
        (self.folder / "service").mkdir()
        with guards.applied(self.cluster, self.folder / "service", [parts["NetworkPolicy"]]):
            pods.create({"apiVersion": "v1", "kind": "Pod", **template})
            assert pods.wait_for_end("service").exit_code == 0, pods.log("service")
        return dict(json.loads(pods.log("service").splitlines()[-1]))


@pytest.fixture
def stolen(
    runs: StepRuns, reachable: Cluster, s3: S3Server, postgres: PostgresServer, shell: str, tmp_path: Path
) -> Stolen:
    """A store without keys and policies, and servers that neither steps nor services should reach."""
    if reachable.control is None or not (reachable.control.assets / POLICIES).exists():
        pytest.skip(f"the cluster's network policies are enforced by its programs, which lack {POLICIES}")
    bucket = f"keys-{uuid.uuid4().hex[:8]}"
    root = f"s3://{bucket}/prod"
    runs = replace(
        runs,
        settings=runs.settings.replace(root=root, step_secret=OF_STEPS),
        environment={**runs.environment, "DRIFTLINE_ROOT": root, "DRIFTLINE_STEP_SECRET": OF_STEPS},
    )
    pod = manifest("webserver", shell, "exec openssl s_server -accept 3000 -nocert -quiet")
    pod["metadata"]["labels"] = labels_of("webserver")
    runs.pods.create(pod)
    address = runs.pods.wait_until_running("webserver").status.pod_ip
    api = reachable.core.read_namespaced_service("kubernetes", "default").spec
    connects = {
        KUBERNETES: (api.cluster_ip, api.ports[0].port),
        POSTGRES: (postgres.address, postgres.port),
        "webserver": (address, 3000),
    }
    for name in (bucket, f"{bucket}-logs"):
        s3.make_bucket(name)
    return Stolen(reachable, runs, s3, tmp_path, {"writes": FORGED, "deletes": KEPT, "connects": connects})


@pytest.fixture
def policies(reachable: Cluster, namespace: str, s3: S3Server, postgres: PostgresServer, tmp_path: Path) -> Policies:
    """The network policies of the overlay `local` with this cluster's addresses."""
    variables = {name: postgres.environment()[name] for name in ("DAGSTER_PG_HOST", "DAGSTER_PG_PORT")}
    variables |= {"AWS_ENDPOINT_URL": s3.endpoint}
    (tmp_path / "overlay").mkdir()
    overlay = write_overlay(tmp_path / "overlay", reachable, Images(NO_DIGEST, NO_DIGEST, NO_DIGEST, ""), variables)
    return guards.objects(namespace, "NetworkPolicy", overlay=overlay)


def test_a_steps_pod_forges_deletes_and_reaches_nothing_with_its_own_key(stolen: Stolen, policies: Policies) -> None:
    """With one key for all, and without policies, it does all of it."""
    stolen.put()
    before = stolen.by_step(patience_s=0, step_secret=SECRET)
    assert before["written"] == dict.fromkeys(FORGED, "")
    assert before["deleted"] == dict.fromkeys(KEPT, "")
    assert before["connected"] == dict.fromkeys(DENIED, "")
    stolen.put()
    stolen.make_keys()
    with guards.applied(stolen.cluster, stolen.folder, policies):
        after = stolen.by_step()
    assert after["written"] == dict.fromkeys(FORGED, "AccessDenied")
    assert after["deleted"] == dict.fromkeys(KEPT, "AccessDenied")
    assert after["connected"] == DENIED
    assert before["has"] == after["has"] == []
    assert stolen.content() == {b"kept"}


def test_a_services_pod_adds_segments_of_its_product_and_nothing_else(stolen: Stolen, policies: Policies) -> None:
    stolen.put()
    stolen.make_keys()
    with guards.applied(stolen.cluster, stolen.folder, policies):
        result = stolen.by_service()
    own = f"prediction_log/{SPEC.name}/"
    assert result["written"] == {path: "" if path.startswith(own) else "AccessDenied" for path in FORGED}
    assert result["deleted"] == dict.fromkeys(KEPT, "AccessDenied")
    assert result["connected"] == DENIED
    assert result["has"] == []


def test_a_training_does_its_work_with_the_key_of_its_product(
    stolen: Stolen, policies: Policies, labelled: None, repository: Path
) -> None:
    runs, (first, *_, last) = stolen.runs, KEYS
    stolen.make_keys()
    environment.land(runs.settings.root, slow_batches.files())
    checkout = environment.checkout(repository, stolen.folder / "checkout", slow_batches)
    variables = {name: value for name, value in runs.process_environment().items() if is_passed_on(name)}
    with guards.applied(stolen.cluster, stolen.folder, policies):
        words = (SPEC.name, first, last, CUTOFF)
        with environment.training(checkout, stolen.folder / "run", variables, *words):
            pass
    assert TableStore(runs.settings.root, SPEC.name).records("onnx", [CUTOFF])
    attempts = Ledgers(runs.settings.root, SPEC.name).of(ATTEMPTS).records()
    assert {record.reason for _, record in attempts} >= {"finished"}
