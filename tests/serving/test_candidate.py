"""A bundle is tried in a process of its own: what crashes, hangs or eats memory there is named, and nothing follows."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from platform_assets.base.settings import REPOSITORY, bare_environment
from platform_assets.serving.follow import follower
from platform_assets.serving.follow.background import Overdue
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.local_copy import LocalCopy
from platform_assets.serving.follow.releases import Release
from platform_assets.store.artifacts import ArtifactProblem, ArtifactStore, sha256
from platform_assets.training.sealed import ModelProblem, Sealed
from tests.doubles import models
from tests.serving.conftest import sealed

pytestmark = pytest.mark.slow

SECONDS, ENDLESS_S = 60, 4
KILLED = r"(4 s of CPU|24 s, 4 s of CPU or less); its process was killed"
"""The second on a machine that gave it less than a sixth of a processor."""


def test_a_good_bundle_is_accepted(tmp_path: Path) -> None:
    document = models.contract()
    Trial(SECONDS, lock=tmp_path / "kept" / "lock")(sealed(tmp_path, golden=models.golden_of(document, 0.0)))
    photos = models.image_contract()
    Trial(SECONDS)(sealed(tmp_path, document=photos, golden=models.golden_of(photos, 0.0)))


def test_the_bentos_own_bundle_and_a_pinned_one_are_not_tried(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them nothing could be served, and each start would pay for the process."""
    monkeypatch.setattr(subprocess, "Popen", None)
    app.follow(trial=Trial(SECONDS)).fall_back()
    assert app.follower.live.source == "fallback"
    pinned = models.write_bundle(app.store, bias=1.0)
    assert app.follow(trial=Trial(SECONDS), pinned=pinned).look()
    assert app.follower.live.model.digest == pinned


@pytest.mark.parametrize(
    ("owner", "name", "problem", "message"),
    [
        (Sealed, "read", Overdue("reading did not end within 30 s."), "cannot be read: reading did not end"),
        (subprocess, "Popen", OSError(12, "Cannot allocate memory"), "no process to try it could be started: [Errno"),
    ],
)
def test_a_problem_that_is_not_the_bundles_is_worth_another_try_soon(
    app: Any, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, problem: Exception, message: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise problem

    app.follow(trial=Trial(SECONDS)).fall_back()
    digest = app.release(bias=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        assert not app.follower.look()
    assert f"release 1 is refused: bundle {digest}" in app.follower.problem and message in app.follower.problem
    now = time.monotonic()
    monkeypatch.setattr(follower.time, "monotonic", lambda: now + follower.REFUSED_AGAIN_S + 60)
    assert app.follower.look()
    assert app.follower.live.release == 1


def test_a_bundle_that_passed_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback waits for no process."""
    trial, bundle = Trial(SECONDS), sealed(tmp_path)
    trial(bundle)
    monkeypatch.setattr(subprocess, "Popen", None)
    trial(bundle)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (models.takes_4_gb, "Failed to allocate memory for requested buffer of size 4294967296"),
        (models.deep_tree, "was ended by SIGSEGV while loading"),
        (models.divides_by_minus_one, "was ended by SIGFPE while loading"),
    ],
)
def test_a_bundle_that_cannot_be_served_is_named(
    tmp_path: Path, graph: Callable[[dict[str, Any]], bytes], message: str
) -> None:
    bundle = sealed(tmp_path, graph(models.contract()))
    with pytest.raises(ModelProblem, match=f"bundle {bundle.digest}.*{message}"):
        Trial(SECONDS)(bundle)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("graph", "stage"),
    [(models.endless, "warming"), pytest.param(models.endless_to_load, "loading", marks=pytest.mark.thorough)],
)
def test_a_bundle_that_does_not_end_is_killed(
    tmp_path: Path, graph: Callable[[dict[str, Any]], bytes], stage: str
) -> None:
    bundle = sealed(tmp_path, graph(models.contract()))
    with pytest.raises(Overdue, match=f"bundle {bundle.digest} was still {stage} after {KILLED}"):
        Trial(ENDLESS_S)(bundle)
    assert not [child for child in psutil.Process().children() if "candidate" in " ".join(child.cmdline())]


def test_other_answers_to_golden_rows_are_refused(tmp_path: Path) -> None:
    document = models.contract()
    bundle = sealed(tmp_path, bias=0.001, golden=models.golden_of(document, 0.0))
    with pytest.raises(ModelProblem, match=r"golden row \d with a difference of 0.000\d+.*expected at most 1e-05"):
        Trial(SECONDS)(bundle)


@pytest.mark.parametrize("golden", [b"{", b"[]", b"[" * 100_000, models.golden_of(models.image_contract(), 0.0)])
def test_golden_rows_that_do_not_fit_are_refused(tmp_path: Path, golden: bytes) -> None:
    with pytest.raises(ModelProblem, match=r"golden.json (cannot be read|does not fit its graph)"):
        Trial(SECONDS)(sealed(tmp_path, golden=golden))


def test_a_bundle_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    digest = models.write_bundle(store)
    with pytest.raises(ModelProblem, match=f"bundle {digest} has [0-9]+ bytes for serving; expected at most 100"):
        Sealed.read(store, digest, bytes_max=100)


def test_the_process_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    monkeypatch.setenv("DRIFTLINE_SIGNING_KEY", "a secret")
    assert "a secret" not in bare_environment().values()


WORKER = """
import sys
from pathlib import Path
from platform_assets.serving.follow.candidate import Trial
from tests.doubles import models
from tests.serving.conftest import sealed

Trial(600)(sealed(Path(sys.argv[1]), models.endless(models.contract())))
"""


def test_the_process_dies_with_its_worker(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], cwd=REPOSITORY)
    try:
        child = _child_at_work(worker.pid)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    child.wait(30)
    assert not child.is_running()


def test_a_server_that_ends_and_signals_its_children_ends_no_trial(tmp_path: Path) -> None:
    """Bento's process manager sends SIGTERM to a worker and its children; a worker that drains goes on trying."""
    problems: list[Exception] = []

    def tried() -> None:
        try:
            Trial(SECONDS)(sealed(tmp_path))
        except ModelProblem as problem:
            problems.append(problem)

    before = set(psutil.Process().children())  # Servers of other tests: an S3 server lives as long as pytest.
    trying = threading.Thread(target=tried)
    trying.start()
    while not (children := set(psutil.Process().children()) - before) and trying.is_alive():
        time.sleep(0.001)
    for child in children:
        child.send_signal(signal.SIGTERM)
    trying.join()
    assert children
    assert not problems


def _child_at_work(pid: int) -> psutil.Process:
    """Wait until a process has a child that has used a second of CPU."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children():
            if child.cpu_times().user > 1:
                return child
        time.sleep(0.05)
    raise AssertionError("no process tries the bundle")


@pytest.mark.costly
def test_a_follower_names_what_its_trial_names_and_goes_on(app: Any, tmp_path: Path) -> None:
    app.follow(trial=Trial(SECONDS, lock=tmp_path / "lock")).fall_back()
    root = str(app.folder / "store")
    first = models.write_bundle(app.store, bias=1.0, golden=models.golden_of(app.document, 1.0))
    models.release(root, first)
    assert app.follower.look()
    app.follower._trial = Trial(ENDLESS_S, lock=tmp_path / "lock")
    for graph, message in (
        (models.endless, "was still warming after"),
        (models.deep_tree, "was ended by SIGSEGV while loading"),
    ):
        number = models.release(root, models.write_bundle(app.store, graph=graph(app.document)))
        assert not app.follower.look()
        assert f"release {number} is refused: bundle" in app.follower.problem
        assert message in app.follower.problem
        assert app.predict(models.row())[1]["digest"] == first
    assert app.follower._loading._abandoned == []
    app.follower._trial = Trial(SECONDS, lock=tmp_path / "lock")
    last = models.write_bundle(app.store, bias=3.0)
    models.release(root, last)
    assert app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (last, None)


def test_a_kept_bundle_that_crashes_is_not_served_at_the_start(make: Callable[..., Any], tmp_path: Path) -> None:
    app = make(local_copy=LocalCopy(tmp_path / "kept"), trial=Trial(SECONDS))
    digest = models.write_bundle(app.store, graph=models.deep_tree(app.document))
    LocalCopy(tmp_path / "kept").copy(app.store, Release(1, digest, ""), Sealed.read(app.store, digest))
    app.follow().fall_back()
    assert app.follower.live.source == "fallback"
    assert "was ended by SIGSEGV while loading" in app.follower.problem


def test_a_blob_that_grew_is_not_read(app: Any) -> None:
    """A sparse file of 200 GB in the place of a blob or record would end a process that reads it."""
    root = app.folder / "store"
    first = models.write_bundle(app.store, bias=1.0)
    models.release(str(root), first)
    assert app.follower.look()
    second = models.write_bundle(app.store, bias=2.0)
    number = models.release(str(root), second)
    blob = app.store.bundle(second).manifest["blobs"]["model.onnx"]["sha256"]
    os.truncate(root / f"artifacts/sha256/{blob[:2]}/{blob}", 200 * 2**30)
    assert not app.follower.look()
    assert f"release {number} is refused: blob {blob} cannot be read" in app.follower.problem
    assert "expected at most" in app.follower.problem
    os.truncate(root / f"ledgers/{models.PRODUCT}/releases/{number:08d}.json", 200 * 2**30)
    assert not app.follower.look()
    assert "has 214748364800 bytes; expected at most 8388608" in app.follower.problem
    assert app.predict(models.row())[1]["digest"] == first


def test_a_compressed_blob_is_unpacked_no_further_than_it_may_be(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    digest = store.put(b"\0" * 2**20, compressed=True)
    with pytest.raises(ArtifactProblem, match="holds more than 2000 bytes"):
        store.get(digest, bytes_max=2000)
    assert sha256(store.get(digest, bytes_max=2**20)) == digest
