"""The loop on a real S3 server with `deploy/store/keys.py`: each run and step has enough rights with its own key."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import obstore
import pytest

from platform_assets.automation.factory import build_defs
from platform_assets.base import accounts, clock, naming
from platform_assets.base.accounts import Account
from platform_assets.base.settings import Settings
from platform_assets.engine.store_resource import StoreResource
from platform_assets.launch.attempt import StepRequest
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.history.reader import History
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.objects import open_store
from tests.doubles import documents, instances, s3_server, store_keys
from tests.doubles import numbered_batches as batches
from tests.doubles.launcher import InProcessLauncher
from tests.doubles.s3_server import S3Server
from tests.stages.conftest import NOW
from tests.stages.test_model_stages import CUTOFF, SPEC

pytestmark = pytest.mark.slow

BUCKET = "driftline-loop"
LOGS = "driftline-loop-logs"
ROOT = f"s3://{BUCKET}/store"
Acting = Callable[[Account], AbstractContextManager[None]]


class AsStep(InProcessLauncher):
    """Runs steps in this process, each with the account of its product's steps."""

    def __init__(self, settings: Settings, acting: Acting) -> None:
        super().__init__(SPEC, settings)
        self.acting = acting

    def run_step(self, request: StepRequest) -> Any:
        with self.acting(accounts.STEP):
            return super().run_step(request)


@dataclass(frozen=True)
class Loop:
    """A product whose runs take turns, each with its own key of the store."""

    settings: Settings
    instance: dg.DagsterInstance
    acting: Acting
    launcher: AsStep

    def run(self, job: str, **options: Any) -> dg.ExecuteInProcessResult:
        """Run a job in this process, with the account that the coordinator would give it."""
        name = naming.job(job, SPEC.name)
        with self.acting(accounts.of_run(name, ())):
            resources = {"store": StoreResource(variables=self.settings.to_environment()), "launcher": self.launcher}
            defs = build_defs(specs=[SPEC], resources=resources)
            return defs.resolve_job_def(name).execute_in_process(instance=self.instance, **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server.running(tmp_path_factory.mktemp("s3")) as running:
        for bucket in (BUCKET, LOGS):
            running.make_bucket(bucket)
        yield running


@pytest.fixture
def loop(server: S3Server, tmp_path: Path) -> Iterator[Loop]:
    file, keys = tmp_path / "store.json", {}
    settings = Settings(root=ROOT, state=tmp_path / "state")
    with pytest.MonkeyPatch.context() as environment, instances.forgetful() as instance:

        @contextmanager
        def acting(account: Account) -> Iterator[None]:
            with pytest.MonkeyPatch.context() as inner:
                for name, text in keys[account.store_secret(SPEC.name)].items():
                    inner.setenv(name, text)
                yield

        for name, text in {**settings.to_environment(), **server.environment()}.items():
            environment.setenv(name, text)
        store_keys.write(settings, [SPEC.name, "another"], LOGS, file, renews=False)
        keys |= store_keys.read(file)
        clock.move(settings, SPEC.name, NOW)
        yield Loop(settings, instance, acting, AsStep(settings, acting))


def deliver(folder: Path) -> None:
    """Land all batches as the upstream does, which is none of our accounts."""
    batches.land_all(str(folder), "0001", "0036")
    for path in (folder / "landing").rglob("*.*"):
        obstore.put(open_store(ROOT), str(path.relative_to(folder)), path.read_bytes())


@pytest.mark.thorough
def test_every_kind_of_run_works_with_the_rights_of_its_account(loop: Loop, tmp_path: Path) -> None:
    deliver(tmp_path / "upstream")
    ledgers = Ledgers(ROOT, SPEC.name)
    keys = {"dagster/asset_partition_range_start": "0001", "dagster/asset_partition_range_end": "0036"}
    assert loop.run("advance", tags=keys).success
    assert loop.run("retrain", partition_key=CUTOFF).success
    assert {"train", "export"} <= set(loop.launcher.ran)
    assert History(ROOT, SPEC.name).live() is not None, "a retrain ends with its release"

    released = ledgers.newest_number(naming.RELEASES)
    digest = ArtifactStore(ROOT).write_bundle(
        {"contract.json": json.dumps({}).encode()}, {"cutoff": CUTOFF, "contract_sha256": "c" * 64}
    )
    ledgers.create(naming.VERDICTS, digest, documents.verdict(digest, True, cutoff=CUTOFF))
    config = {f"{SPEC.name}__release": {"config": {"digest": digest, "why": "a person's choice"}}}
    assert loop.run("release", run_config={"ops": config}).success
    assert ledgers.newest_number(naming.RELEASES) == released + 1

    ledgers.append("faults/0035", documents.fault("fault", "0035"))
    config = {f"accept_key__{SPEC.name}": {"config": {"key": "0035", "why": "it is right"}}}
    assert loop.run("accept", run_config={"ops": config}).success
    assert loop.run("maintain", run_config={"ops": {f"tidy__{SPEC.name}": {"config": {"retention_hours": 24}}}}).success
