"""The commands of docs/deploy.md, all of them, in their order and in one shell, on a real cluster.

The values of the page's first block are replaced, nothing else; the test prints the difference. While secrets are
rotated, contracts change and images are rolled out, callers outside of the cluster ask the first product's service all
the while.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from kubernetes import client

from platform_assets.base.settings import Settings
from tests.cluster import names
from tests.cluster.callers import Callers
from tests.cluster.cluster import Cluster
from tests.cluster.loop import BUCKET, LOGS
from tests.cluster.pods import Pods
from tests.cluster.spaces import CABLES, HOST, environment
from tests.cluster.trainer import TrainerImage
from tests.cluster.waiting import wait_until
from tests.doubles import store_keys
from tests.doubles.checkout import copied
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.received import Arrived
from tests.doubles.s3_server import SECRET, S3Server

pytestmark = pytest.mark.long

VALUES = "values: replaced by the test"
OURS = "run by tests/cluster/test_deploy_page.py"
BLOCK = re.compile(r"^## (?P<heading>[^\n]+)$|^<!-- (?P<mark>[^\n]+) -->\n```bash\n(?P<text>.*?)^```$", re.M | re.S)
HEADING = "=== "
ASKED_FROM, ASKED_UNTIL = "A second product", "The end"
SHIPPED_S = 60.0


@dataclass(frozen=True)
class Followed:
    """What happened under each heading: its seconds, and how many answers callers got meanwhile."""

    seconds: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Return the headings of a page, marked, and the text of its blocks that the test runs or replaces."""
    for part in BLOCK.finditer(page):
        if part["heading"]:
            yield "heading", part["heading"]
        elif part["mark"] in (VALUES, OURS):
            yield part["mark"], part["text"]


def script(page: str, values: str) -> str:
    """Return the page as a script that prints each heading before its commands."""
    lines = ["set -eo pipefail; trap 'kill $(jobs -p) 2>/dev/null' EXIT"]  # forwarded ports hold the output open
    for kind, text in blocks(page):
        lines.append({"heading": f"echo; echo '{HEADING}{text}'", VALUES: values}.get(kind, text))
    return "\n".join(lines)


def difference(page: str, values: str) -> list[str]:
    """Return the lines that the page has and the test does not run, and the other way round."""
    own = next(text for kind, text in blocks(page) if kind == VALUES)
    lines = difflib.unified_diff(script(page, own).splitlines(), script(page, values).splitlines(), n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def test_every_command_of_the_page_is_run_or_replaced(repository: Path) -> None:
    page = (repository / "docs/deploy.md").read_text(encoding="utf-8")
    assert page.count("```bash") == sum(kind != "heading" for kind, _ in blocks(page))
    assert sum(kind == VALUES for kind, _ in blocks(page)) == 1
    replaced = set(re.findall(r"([A-Z_]+)=", next(text for kind, text in blocks(page) if kind == VALUES)))
    assert replaced == set(re.findall(r"([A-Z_]+)=", _values("r", "e", "h", "p")))
    lines = difference(page, _values("r", "e", "h", "p"))
    assert [line for line in lines if not re.match(r"[-+](export |#|$)", line)] == []


def test_secrets_of_the_page_reach_the_cluster_and_have_no_second_copy(
    pods: Pods, core: client.CoreV1Api, cluster: Cluster, s3: S3Server, stored: None, repository: Path, tmp_path: Path
) -> None:
    settings = Settings(root=f"s3://{BUCKET}/secrets", state=tmp_path, environment="cluster", namespace=pods.namespace)
    s3.make_bucket(LOGS)
    store_keys.write(settings, ["parts"], LOGS, tmp_path / "store.json", renews=False)
    s3.remove_bucket(LOGS)
    page = (repository / "docs/deploy.md").read_text(encoding="utf-8")
    functions = [line for line in page.splitlines() if line.startswith(("secret() ", "store_keys() "))]
    assert len(functions) == 2
    script = [line.replace("namespace driftline", f"namespace {pods.namespace}") for line in functions]
    script += [f"secret kept --from-literal=KEY={value}" for value in ("first", "second")]
    script += ["python() { true; }; LOGS=", "store_keys; store_keys"]
    path = f"{cluster.control.assets if cluster.control else ''}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}
    subprocess.run(["bash", "-ec", "\n".join(script)], cwd=tmp_path, env=variables, check=True)
    secrets = {item.metadata.name: item for item in core.list_namespaced_secret(pods.namespace).items}
    assert {item.metadata.annotations for item in secrets.values()} == {None}
    assert secrets["kept"].data == {"KEY": b64encode(b"second").decode()}
    given = {name: b64decode(text).decode() for name, text in secrets["driftline-store-step-parts"].data.items()}
    assert given == store_keys.read(tmp_path / "store.json")["driftline-store-step-parts"]


def _values(registry: str, endpoint: str, host: str, port: str) -> str:
    """Return this cluster's values for the page's first block."""
    return f"""
export REGISTRY={registry} OVERLAY=local STORE=s3://{BUCKET}/page LOGS={LOGS}
export AWS_REGION=us-east-1 AWS_ENDPOINT_URL={endpoint} AWS_ALLOW_HTTP=true
export AWS_ACCESS_KEY_ID=driftline-tests AWS_SECRET_ACCESS_KEY={SECRET}
export DAGSTER_PG_HOST={host} DAGSTER_PG_PORT={port} DAGSTER_PG_DB=$TEST_PG_DB
export DAGSTER_PG_USER=$TEST_PG_USER DAGSTER_PG_PASSWORD=$TEST_PG_PASSWORD
export API_SERVER={host}/32 API_SERVER_PORT=$TEST_API_PORT
export POSTGRES_NETWORK={host}/32 STORE_NETWORK={host}/32 STORE_PORT={endpoint.rpartition(":")[2]}
export DRIFTLINE_SERVICE_NETWORKS={CABLES}
"""


@pytest.fixture
def shell(cluster: Cluster, repository: Path, postgres: PostgresServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a person's shell: kubectl, the cluster's kubeconfig, a registry without TLS."""
    if cluster.control is None:
        pytest.skip("the page's addresses are those of a cluster that was started here")
    if not shutil.which("aws"):
        pytest.skip("the aws command is missing: apt-get install awscli")
    registries = tmp_path / "registries.conf"
    registries.write_text(f'[[registry]]\nlocation = "{cluster.registry.address}"\ninsecure = true\n', encoding="ascii")
    database = postgres.environment()
    return {
        **environment(),
        "PATH": f"{cluster.control.assets}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(cluster.kubeconfig),
        "NAME": "localhost/driftline-page",
        "CONTAINERS_CONF": str(repository / "deploy/images/containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(registries),
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "true",
        "PYTHONPATH": str(tmp_path / "checkout"),  # the packages of .venv point to this checkout
        "TEST_PG_DB": database["DAGSTER_PG_DB"],
        "TEST_PG_USER": database["DAGSTER_PG_USER"],
        "TEST_PG_PASSWORD": database["DAGSTER_PG_PASSWORD"],
        "TEST_API_PORT": str(cluster.api.configuration.host.rpartition(":")[2]),
    }


def test_the_page_leads_from_an_empty_cluster_through_a_deployments_life(
    cluster: Cluster,
    built: TrainerImage,
    shell: dict[str, str],
    s3: S3Server,
    postgres: PostgresServer,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "checkout"
    folder.mkdir()
    copied(repository, folder)
    # Layers of packages need a network, and are kept; the shell below has only the cluster's.
    subprocess.run(["make", "images"], cwd=repository, check=True, env={**os.environ, "NAME": shell["NAME"]})
    values = _values(f"{cluster.registry.address}/page", s3.endpoint, HOST, postgres.environment()["DAGSTER_PG_PORT"])
    page, callers = (repository / "docs/deploy.md").read_text(encoding="utf-8"), Callers("")
    print("not as on the page:", *difference(page, values), sep="\n")
    text = script(page, values)
    with cluster.network(), ExitStack() as stack:
        names.serve_names(cluster, tmp_path, 5353)
        s3.make_bucket(LOGS)
        process = stack.enter_context(
            subprocess.Popen(
                ["bash", "-c", text], cwd=folder, env=shell, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
        stack.callback(process.kill)
        followed = _follow(process, cluster, callers, stack)
        s3.remove_bucket(LOGS)
        assert process.returncode == 0, f"the page stopped under {list(followed.seconds)[-1]!r}\n{_described(cluster)}"
        assert followed.seconds[ASKED_UNTIL] <= 120
        assert _left(cluster) == []
        arrived = Arrived(f"s3://{BUCKET}/page", "parts")
        wait_until(
            lambda: not _missing(callers, arrived),
            SHIPPED_S,
            "every answer is in the store",
            lambda: "\n".join(_missing(callers, arrived)),
        )
    print(f"seconds: {followed.seconds}; answers: {followed.answers}, statuses {dict(callers.statuses)}")
    headings = list(followed.answers)
    asked = headings[headings.index(ASKED_FROM) : headings.index(ASKED_UNTIL)]
    assert {"A new key of the store", "A new signing key"} < set(asked)
    assert [heading for heading in asked if followed.answers[heading] == 0] == []
    assert callers.failed_twice == 0


def _missing(callers: Callers, arrived: Arrived) -> list[str]:
    """Return the answers that callers have and the store has not, each with its moment."""
    arrived.look()
    return sorted(f"{at.isoformat()} {name}" for name, at in callers.acknowledged.items() if name not in arrived.ids)


def _follow(process: subprocess.Popen[str], cluster: Cluster, callers: Callers, stack: ExitStack) -> Followed:
    """Print what the script prints, and ask the service meanwhile."""
    followed = Followed()
    heading, since, answers = "", time.monotonic(), 0
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", file=sys.stderr)
        if not line.startswith(HEADING):
            continue
        now, total = time.monotonic(), len(callers.acknowledged)
        followed.seconds[heading], followed.answers[heading] = round(now - since, 1), total - answers
        heading, since, answers = line.removeprefix(HEADING).strip(), now, total
        if heading == ASKED_FROM:
            spec = cluster.core.read_namespaced_service("driftline-parts", "driftline").spec
            callers.address = f"http://{spec.cluster_ip}:{spec.ports[0].port}"
            asking = stack.enter_context(ExitStack())
            asking.enter_context(callers.asking(_question(number) for number in count(2_000)))
        elif heading == ASKED_UNTIL:
            asking.close()
            print(cluster.kubectl("get", "all", "--namespace=driftline", "--output=wide"))
    process.wait()
    followed.seconds[heading] = round(time.monotonic() - since, 1)
    followed.answers[heading] = len(callers.acknowledged) - answers
    return followed


def _question(number: int) -> dict[str, object]:
    now = datetime.now(UTC).isoformat()
    features = {"width": number % 7 / 7, "weight": -(number % 5) / 5}
    part = f"q{number}"
    return {"entity": part, "service_time": now, "asked_at": now, "features": features, "idempotency_key": part}


def _described(cluster: Cluster) -> str:
    """Return how all pods are, what happened, and the last lines of the platform's own."""
    mine = ("--namespace=driftline",)
    states = [cluster.kubectl("get", "pods", *mine, "--output=wide")]
    states.append(cluster.kubectl("get", "events", *mine, "--sort-by=.lastTimestamp")[-6000:])
    logs = [cluster.kubectl("logs", *mine, f"deployment/driftline-{part}", "--tail=30") for part in ("code", "daemon")]
    return "\n".join([*states, *logs])


def _left(cluster: Cluster) -> list[str]:
    kinds = "namespaces,clusterroles,clusterrolebindings,priorityclasses,validatingadmissionpolicies,persistentvolumes"
    return [name for name in cluster.kubectl("get", kinds, "--output=name").splitlines() if "driftline" in name]
