"""Fixtures for all tests: every test has its own state and store.

No test reads or writes the checkout's `.driftline`: the whole session runs with a temporary state, and a test
that stores something uses `settings`, with folders of its own.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before numpy and torch are imported, also for every process that tests start. Threads that wait for each other spin:
# tests take all cores as processes, so small products of matrices took ten times their work. Fits set their own number.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"})

import pytest
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadFileScheduling

from platform_assets.base.settings import Settings
from tests import skips
from tests.cluster.certificates import Authority
from tests.doubles.s3_server import S3Server, running
from tests.volume import draws

hypothesis_settings.register_profile(
    "driftline", deadline=None, max_examples=draws(100), derandomize=bool(os.environ.get("CI"))
)
hypothesis_settings.load_profile("driftline")

BUCKET = "driftline"
END_TO_END = ("test_end_to_end.py", "test_one_file.py")
"""Files that run a whole demo and a whole product; minutes each. Several workers start with them."""
PLAYED = {"test_run_coordinator.py": "platform", "test_end_to_end.py": "played", "test_one_file.py": "walked"}
"""Fixtures that take a minute or more, by file; `make test` leaves out the tests that use them."""
LONG = (
    *END_TO_END,
    *("test_goldens.py", "test_run_coordinator.py", "test_flight_delays_faults.py", "test_drift.py"),
    *("test_missing_labels.py", "test_tune.py", "test_damaged_store.py", "test_serve.py", "test_table_faults.py"),
)
"""Files that workers start with because they take longest, so that none of them is alone at the end."""
YEAR = "tests/product/test_flight_delays"
REPOSITORY = Path(__file__).resolve().parents[1]


STARTS = re.compile(
    r"\b(subprocess|multiprocessing|execute_in_process|materialize\(|DagsterInstance|build_defs|Children\()"
)
"""Pattern in test files that start processes or run a Dagster graph."""
SLOW_FIXTURES = {"s3_server", "instance", "world", "run", "walker", "service", "trained", "played"}
SLOW_FILES = (
    *(
        "tests/training/steps/",
        "tests/goldens/",
        "tests/demo/",
        "tests/stages/",
        "tests/automation/",
        "tests/checking/",
    ),
    *(
        "tests/operations/test_pages.py",
        "tests/operations/test_accessible.py",
        "tests/chaos/",
        "tests/cluster/",
        "tests/test_checking.py",
        "tests/test_trace.py",
    ),
    *("tests/store/test_table_faults.py", "tests/store/test_full_disk_training.py", "tests/test_bucket_policy.py"),
    "tests/test_store_keys.py",
    *("tests/serving/test_model_cache.py", "tests/training/test_fit_memory.py"),
    *("tests/training/test_export.py", "tests/evaluation/test_promises.py", "tests/serving/test_damaged_store.py"),
    *("tests/product/test_flight_delays", "tests/product/test_garment_photos", "tests/test_replay.py"),
)
"""Files that train, export, read whole recordings, evaluate sensors on stores, or start a server of their own."""
FAST_FILES = ("tests/test_conventions.py", "tests/test_settings.py", "tests/test_profiles.py")
"""Files with few processes, which take a second or two."""


@functools.cache
def _is_slow_file(path: Path) -> bool:
    """Return whether `make test-fast` leaves a file out."""
    name = path.relative_to(REPOSITORY).as_posix()
    if name in FAST_FILES:
        return False
    return name.startswith(SLOW_FILES) or STARTS.search(path.read_text(encoding="utf-8")) is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no slow file for `make test-fast`: imports would take a third of its time."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if config.option.markexpr == "not slow" and is_test and _is_slow_file(collection_path) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Keep files that share a year of flights (`tests/product/conftest.py`, 15 CPU seconds) on one worker."""
    return ByFile(config, log) if config.option.dist == "loadfile" else None


class ByFile(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return YEAR if file.startswith(YEAR) else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests; with several workers, start with the files that take longest."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        is_on_s3 = getattr(getattr(item, "callspec", None), "params", {}).get("root") == "s3"
        if _is_slow_file(item.path) or fixtures & SLOW_FIXTURES or is_on_s3:
            item.add_marker(pytest.mark.slow)
        if item.path.name in END_TO_END:
            item.add_marker(pytest.mark.end_to_end)
        if PLAYED.get(item.path.name) in fixtures:
            item.add_marker(pytest.mark.thorough)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Print last, below pytest's summary, what to install for the skipped tests."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # a worker has none
        skipped = terminal.stats.get("skipped", ())
        if line := skips.line_of(str(report.longrepr[2]) for report in skipped):
            terminal.write_line(line)


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
    """Settings with the test's own root and state, also set in the environment."""
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    settings.dagster_home.mkdir(parents=True)
    return settings


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's top folder."""
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


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage root of either kind; a test that must look at files requires the folder: see `ON_A_FOLDER`."""
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3_root")


@pytest.fixture
def s3_root(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage root on S3, with its variables set in the environment."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
