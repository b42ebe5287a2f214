"""The commands of docs/recover.md, each block after what it repairs has happened, and a daemon that stands still.

On a real cluster whose DNS pods listen on port 5353, with a real PostgreSQL and S3 server.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import psycopg2
import pytest
import yaml

from platform_assets.base import naming
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.tables import TableStore
from tests.cluster import loop, names, platform_images, trainer
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import TESTS
from tests.cluster.loop import BUCKET
from tests.cluster.platform import NAMESPACE, Images, Platform
from tests.cluster.spaces import environment
from tests.cluster.waiting import wait_until
from tests.cluster.ways import container_of
from tests.doubles import documents
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.s3_server import S3Server

pytestmark = pytest.mark.long

BLOCK = re.compile(
    r"(?:^## (?P<heading>[^\n]+)$(?:(?!^## ).)*?)?^<!-- run by tests/cluster/test_recover_page.py -->\n```bash\n"
    r"(?P<text>.*?)^```$",
    re.M | re.S,
)
PAGE = "docs/recover.md"
FROZEN_S = 300.0
BLOCK_S = 600.0
PRODUCT, PASSWORD = "restored", "another-password"


def blocks(page: str) -> dict[str, str]:
    """Return the blocks of the page by their heading; the first one, of functions, has none."""
    return {part["heading"] or "": part["text"] for part in BLOCK.finditer(page)}


def functions_of(repository: Path) -> str:
    """Return the page's functions, and the one that they take from the shell of docs/deploy.md."""
    lines = (repository / "docs/deploy.md").read_text(encoding="utf-8").splitlines()
    (secret,) = (line for line in lines if line.startswith("secret() "))
    return f"{secret}\n{blocks((repository / PAGE).read_text(encoding='utf-8'))['']}"


def test_every_command_of_the_page_is_run(repository: Path) -> None:
    page = (repository / PAGE).read_text(encoding="utf-8")
    assert page.count("```bash") == len(blocks(page))
    assert set(blocks(page)) == {"", *HAPPENED}


@dataclass
class Deployment:
    """A deployment, and the shell of whoever repairs it.

    Attributes:
        older, newer: the platform's image, twice.
    """

    platform: Platform
    postgres: PostgresServer
    shell: dict[str, str]
    folder: Path
    older: str
    newer: str

    def run(self, text: str) -> str:
        """Run commands after the page's functions, as one shell does."""
        argv = ["bash", "-c", f"set -eo pipefail\n{text}"]
        ended = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.shell,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_S,
            check=False,
        )
        assert ended.returncode == 0, f"{ended.stdout}\n{self.platform.described()}"
        return ended.stdout

    def denied(self, functions: str, name: str) -> list[str]:
        """Return what fails once a connection does: a network policy is in force a moment after its change."""
        tries = f"until connections >tried 2>&1; grep --quiet 'FAILED *{name}' tried; do sleep 1; done; cat tried"
        return [line for line in self.run(f"{functions}\n{tries}").splitlines() if line.startswith("FAILED")]

    def execute(self, statement: str) -> None:
        """Change PostgreSQL as its administrator."""
        options = self.postgres.environment()
        connection = psycopg2.connect(
            host=options["DAGSTER_PG_HOST"],
            port=options["DAGSTER_PG_PORT"],
            dbname=options["DAGSTER_PG_DB"],
            user=options["DAGSTER_PG_USER"],
            password=options["DAGSTER_PG_PASSWORD"],
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def daemon(self) -> object:
        (pod,) = self.platform.pods("app.kubernetes.io/component=daemon")
        return pod

    def open_read_only(self, functions: str) -> None:
        """Have the overlay start the read-only webserver too, with a user of its own."""
        path = self.folder / "overlay/kustomization.yaml"
        top = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in top["replicas"]:
            part["count"] = 1
        path.write_text(yaml.safe_dump(top, sort_keys=False), encoding="utf-8")
        self.platform.apply_all()
        self.run(f"{functions}\nreader; ready")

    def use(self, image: str) -> None:
        """Have the overlay name another platform image."""
        path = self.folder / "overlay/kubernetes/overlays/local/values/kustomization.yaml"
        text = path.read_text(encoding="utf-8")
        for other in (self.older, self.newer):
            text = text.replace(other.rpartition("@")[2], image.rpartition("@")[2])
        path.write_text(text, encoding="utf-8")


def _roll_out_another_image(here: Deployment) -> None:
    here.run("kubectl kustomize deploy/kubernetes/overlays/mine >before.yaml")
    here.use(here.newer)
    here.platform.apply_all()


def _replace_the_password(here: Deployment) -> None:
    here.execute(f"ALTER USER driftline PASSWORD '{PASSWORD}'")
    here.postgres = replace(here.postgres, password=PASSWORD)


HAPPENED: dict[str, Callable[[Deployment], object]] = {
    "PostgreSQL is lost": lambda here: here.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public"),
    "The bucket is restored": lambda here: here.run('aws s3 rm --quiet --recursive "$STORE"'),
    "The namespace is deleted": lambda here: here.platform.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s"),
    "An image is rolled back": _roll_out_another_image,
    "Dagster is upgraded": lambda here: here.use(here.newer),
    "A node of the platform is drained": lambda _: None,
    "A password of PostgreSQL is replaced": _replace_the_password,
}
"""What happens before each block, by its heading. The password is last: the overlay of this test has the first."""


def _write_store(root: str) -> None:
    """Write rows of two keys, a release and a decision."""
    store, ledgers = TableStore(root, PRODUCT), Ledgers(root, PRODUCT)
    for key in ("a", "b"):
        store.replace("features", {key: pl.DataFrame({"number": [1]})}, inputs={key: {}}, code="code", notes={key: {}})
    ledgers.append(naming.RELEASES, documents.release(digest=ArtifactStore(root).write_bundle({"model": b"m"}, {})))
    ledgers.create(naming.DECISIONS, "a", {"action": "wait"})


@pytest.fixture(scope="module")
def here(
    cluster: Cluster, s3: S3Server, postgres: PostgresServer, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    if cluster.control is None:
        pytest.skip("the page drains and deletes: only on a cluster that was started here")
    if not shutil.which("aws"):
        pytest.skip("the aws command is missing: apt-get install awscli")
    folder = tmp_path_factory.mktemp("recover")
    built = platform_images.built(repository, "platform")
    layer = trainer.layer(repository, "localhost/driftline-newer", f"FROM {built}\nLABEL newer=true\n")
    _write_store(str(folder / "kept"))
    with cluster.network():
        older, newer = (cluster.registry.push_built("platform", image) for image in (built, layer))
        names.serve_names(cluster, folder, 5353)
        with loop.at_work(cluster, Images(older, older, older, ""), s3, postgres, folder) as platform:
            mine = folder / "deploy/kubernetes/overlays/mine"
            mine.parent.mkdir(parents=True)
            mine.symlink_to(folder / "overlay")
            shell = {
                **environment(),
                **s3.environment(),
                "PATH": f"{cluster.control.assets}:{repository / '.venv/bin'}:{os.environ['PATH']}",
                "HOME": str(folder),
                "KUBECONFIG": str(cluster.kubeconfig),
                "DRIFTLINE_ENV": "cluster",
                "DRIFTLINE_ROOT": platform.settings.root,
                "STORE": platform.settings.root,
                "BACKUP": f"s3://{BUCKET}/backup",
                "PRODUCT": PRODUCT,
                "NEXT_PG_PASSWORD": PASSWORD,
            }
            opened = Deployment(platform, postgres, shell, folder, older, newer)
            opened.run('for place in "$STORE" "$BACKUP"; do aws s3 sync --quiet kept "$place"; done')
            opened.open_read_only(functions_of(repository))
            yield opened
        names.serve_names(cluster, folder)


@pytest.fixture
def functions(here: Deployment, reachable: Cluster, request: pytest.FixtureRequest, repository: Path) -> str:
    """The page's functions, with this test where it reaches the cluster."""
    request.config.stash.setdefault(TESTS, {})[NAMESPACE] = request.node.nodeid
    return functions_of(repository)


def test_connections_are_tried_from_inside_and_what_is_denied_is_named(here: Deployment, functions: str) -> None:
    output = here.run(f"{functions}\nconnections")
    lines = [line for line in output.splitlines() if line.startswith(("ok ", "FAILED "))]
    assert [line.split()[1] for line in lines] == ["DNS", "code", "API", "PostgreSQL", "store"], output
    assert all(line.startswith("ok ") for line in lines)
    patch = '[{"op": "replace", "path": "/spec/egress/0/ports/%d/port", "value": 53}]'
    for place in (2, 3):
        here.platform.kubectl("patch", "networkpolicy", "to-dns", "--type=json", f"--patch={patch % place}")
    (line,) = (line for line in here.denied(functions, "DNS") if line.split()[1] == "DNS")
    assert "DRIFTLINE_DNS_PORT" in line
    here.platform.apply_all()
    nobody = '[{"op": "replace", "path": "/spec/egress/0/to", "value": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}]'
    here.platform.kubectl("patch", "networkpolicy", "to-postgres", "--type=json", f"--patch={nobody}")
    (line,) = here.denied(functions, "PostgreSQL")
    assert "POSTGRES_NETWORK" in line
    assert here.postgres.address in line
    here.platform.apply_all()


def test_a_daemon_that_stands_still_is_restarted(here: Deployment, functions: str) -> None:
    pod = here.daemon()
    machines = {node.name: node for node in here.platform.cluster.nodes}
    machines[pod.spec.node_name].kill_container(container_of(pod), signal.SIGSTOP)
    began_s = time.monotonic()

    def is_another() -> bool:
        (status,) = here.daemon().status.container_statuses
        return bool(status.restart_count > pod.status.container_statuses[0].restart_count and status.ready)

    wait_until(is_another, FROZEN_S, "the daemon is restarted and beats", here.platform.described)
    print(f"a daemon that stood still was at work again after {time.monotonic() - began_s:.0f} s")
    events = here.platform.kubectl("get", "events", "--field-selector=reason=Unhealthy")
    assert "newest heartbeat is" in events


@pytest.mark.parametrize("heading", list(HAPPENED))
def test_the_page_repairs_it(here: Deployment, functions: str, heading: str, repository: Path) -> None:
    HAPPENED[heading](here)
    began_s = time.monotonic()
    output = here.run(f"{functions}\n{blocks((repository / PAGE).read_text(encoding='utf-8'))[heading]}")
    print(f"{heading}: {time.monotonic() - began_s:.0f} s\n{output}")
    daemon = here.daemon()
    assert daemon.status.container_statuses[0].ready
    read_only = here.platform.pods("app.kubernetes.io/component=webserver-read-only")
    assert [pod.status.container_statuses[0].ready for pod in read_only] == [True]
    image = here.newer if heading == "Dagster is upgraded" else here.older
    if heading in ("An image is rolled back", "Dagster is upgraded"):
        assert daemon.spec.containers[0].image.rpartition("@")[2] == image.rpartition("@")[2]
    here.use(here.older)
