"""Fixtures for all tests: every test has its own state and store.

No test reads or writes the checkout's `.driftline`: the whole session runs with a temporary state, and a test
that stores something uses `settings`, with folders of its own.
"""

import gc
import os
import re
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before numpy and torch are imported, also for every process that tests start. Threads that wait for each other spin:
# tests take all cores as processes, so small products of matrices took ten times their work. Fits set their own number.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})

import pytest
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadFileScheduling

from platform_assets import products
from platform_assets.base.settings import Settings
from tests.cluster.certificates import Authority
from tests.doubles.s3_server import BUCKET, S3Server, running
from tests.volume import ANEW, draws

pytest_plugins = ("tests.costs", "tests.skips")
hypothesis_settings.register_profile("driftline", deadline=None, max_examples=draws(100), derandomize=not ANEW)
hypothesis_settings.load_profile("driftline")

YEAR = "tests/product/test_flight_delays"
REPOSITORY = Path(__file__).resolve().parent


ALL_SLOW = re.compile(r"^pytestmark = (?:pytest|\[\s*pytest)\.mark\.slow\b", re.MULTILINE)
"""What a file has in which every test is slow."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no slow file for `make test-fast`: imports would take a third of its time."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    is_fast = config.option.markexpr == "not slow and not costly"
    is_left_out = is_fast and is_test and ALL_SLOW.search(collection_path.read_text(encoding="utf-8"))
    return True if is_left_out else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Keep files that share a year of flights (`tests/product/conftest.py`, 15 CPU seconds) on one worker."""
    return ByFile(config, log) if config.option.dist == "loadfile" else None


class ByFile(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return YEAR if file.startswith(YEAR) else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start several workers with the files of most costly tests, so that none of these is alone at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        costly = Counter(item.path for item in items if item.get_closest_marker("costly"))
        items.sort(key=lambda item: -costly[item.path])


def pytest_collection_finish() -> None:
    """Let the collector leave alone what the imports made: thousands of collections looked at it in vain."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


# A shell that starts something in the background lets it ignore SIGINT, and Dagster gives SIGTERM what SIGINT has.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_shared_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set the environment to a temporary state for the whole session."""
    state = tmp_path_factory.mktemp("state")
    patch = pytest.MonkeyPatch()
    for name in ("DRIFTLINE_ENV", "DRIFTLINE_ROOT", "DRIFTLINE_LAUNCHER", "DRIFTLINE_PROFILES"):
        patch.delenv(name, raising=False)
    patch.setenv("DRIFTLINE_STATE", str(state))
    for name in ("DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE", "BENTOML_HOME", "BENTOML_DO_NOT_TRACK"):
        patch.setenv(name, Settings.from_environment().to_environment()[name])
    Settings.from_environment().dagster_home.mkdir(parents=True)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _signals_unchanged() -> Iterator[None]:
    """Report the test after which this process, and every process it starts, ignores or blocks SIGTERM."""
    yield
    state = Path("/proc/self/status").read_text(encoding="utf-8")
    masks = {name: int(value, 16) for name, value in re.findall(r"^(SigIgn|SigBlk):\s+(\w+)$", state, re.MULTILINE)}
    masked = [name for name, mask in masks.items() if mask >> (signal.SIGTERM - 1) & 1]
    assert not masked, f"SIGTERM is in {masked} of this process"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    settings.dagster_home.mkdir(parents=True)
    return settings


@pytest.fixture
def product_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which products are found, beside the shipped ones; what is loaded from it is forgotten at the end."""
    folder = tmp_path / "products"
    folder.mkdir()
    products.__path__.append(str(folder))
    yield folder
    products.__path__.remove(str(folder))
    for file in folder.glob("*.py"):
        sys.modules.pop(f"{products.__name__}.{file.stem}", None)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests, with one bucket in which each test has its own root."""
    with running(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that no system trusts; it has signed the certificate `server`, of 127.0.0.1."""
    result = Authority(tmp_path_factory.mktemp("authority"), "private")
    result.create()
    result.sign("server", "/CN=server", "IP:127.0.0.1")
    return result


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, which has signed nothing."""
    result = Authority(tmp_path_factory.mktemp("authority"), "stranger")
    result.create()
    return result


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage root of either kind; a test that must look at files requires the folder: see `ON_A_FOLDER`."""
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3_root")


@pytest.fixture
def s3_root(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage root on S3, with its variables set in the environment."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
