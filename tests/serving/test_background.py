"""A graph, a store or a disk that hangs keeps nothing else waiting."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base.settings import REPOSITORY
from platform_assets.serving.follow import background, follower
from platform_assets.serving.follow.background import Deadline, Overdue, Repeated
from platform_assets.store import objects
from tests.doubles import models

pytestmark = pytest.mark.slow


def test_a_job_gives_its_result_or_raises_its_problem() -> None:
    deadline = Deadline(60)
    assert deadline.run("a job", lambda: 7) == 7
    with pytest.raises(TimeoutError, match="the job's own"):
        deadline.run("a job", lambda: (_ for _ in ()).throw(TimeoutError("the job's own")))


def test_jobs_that_hang_are_left_alone_and_bounded() -> None:
    deadline, end = Deadline(0.01), threading.Event()
    for number in range(background.MAX_ABANDONED):
        with pytest.raises(Overdue, match=f"job {number} did not end within 0.01 s"):
            deadline.run(f"job {number}", end.wait)
    with pytest.raises(Overdue, match="one more was not started, because 3 others hang: job 0, job 1, job 2"):
        deadline.run("one more", end.wait)
    end.set()
    for thread in deadline._abandoned:
        thread.join(60)
    deadline.seconds = 60
    assert deadline.run("one more", lambda: 1) == 1


def test_a_failing_repeated_job_is_visible() -> None:
    done: list[int] = []

    def job() -> None:
        done.append(1)
        if len(done) == 3:
            raise KeyError("a fault of ours")

    errors: list[Any] = []
    hook, threading.excepthook = threading.excepthook, errors.append
    try:
        repeated = Repeated("job", job, 0.0)
        assert not repeated.has_ended
        repeated.start()
        repeated._thread.join(60)
    finally:
        threading.excepthook = hook
    assert (repeated.has_ended, len(done), errors[0].exc_type) == (True, 3, KeyError)


@pytest.mark.costly
def test_a_graph_that_never_ends_is_named_and_abandoned(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = app.release(bias=1.0)
    assert app.follower.look()
    runs: list[str] = []
    warm = follower.Model.warm
    monkeypatch.setattr(follower.Model, "warm", lambda model: (runs.append(model.digest), warm(model))[1])
    app.follower._loading.seconds = 1.0
    endless = app.release(graph=models.endless(app.document))
    for _ in range(3):
        assert not app.follower.look()
    assert "release 2 is refused: loading and warming" in app.follower.problem
    assert "did not end within 1 s; it is abandoned" in app.follower.problem
    assert runs == [endless], "it is not started again"
    assert app.predict(models.row())[1]["digest"] == first
    for thread in app.follower._loading._abandoned:
        thread.join(60)
        assert not thread.is_alive(), "ONNX Runtime received the request to end it"
    app.follower._loading.seconds = 60
    third = app.release(bias=3.0)
    assert app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (third, None)


def test_hanging_bundles_of_bento_and_local_copy_do_not_stop_the_start(make: Callable[..., Any]) -> None:
    app = make()
    endless = models.write_bundle(app.fallback, graph=models.endless(app.document))
    app.follow(fallback_digest=endless, load_s=0.5).fall_back()
    assert app.follower.live is None
    assert "the fallback cannot be served: loading and warming" in app.follower.problem
    app.follower._loading.seconds = 60
    digest = app.release(bias=1.0)
    app.follower.look()
    assert app.follower.live.model.digest == digest


def test_a_hanging_store_is_named_and_its_late_answer_ignored(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app.release(bias=1.0)
    assert app.follower.look()
    read, end, started = objects.read, threading.Event(), threading.Event()

    def hangs(store: Any, path: str, bytes_max: int | None = None) -> bytes | None:
        if threading.current_thread() is not threading.main_thread():  # whose is the second release
            started.set()
            end.wait()
        return read(store, path, bytes_max)

    app.follower._reading.seconds = 0.05
    with monkeypatch.context() as patch:
        patch.setattr(objects, "read", hangs)
        assert not app.follower.look()
        assert started.wait(60)
        assert "cannot be read: the release ledger did not end within 0.05 s" in app.follower.problem
        second = app.release(bias=2.0)
        end.set()
        for thread in app.follower._reading._abandoned:
            thread.join(60)
    assert app.follower.live.release == 1, "the abandoned job changes nothing"
    app.follower._reading.seconds = 60
    assert app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (second, None)


@pytest.mark.costly
def test_a_hanging_sync_delays_no_release(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    end, is_syncing = threading.Event(), threading.Event()

    def hangs(descriptor: int) -> None:
        is_syncing.set()
        end.wait()

    async def live() -> None:
        await app.middleware.start()
        assert (await app.post(models.row()))[0] == 200
        assert await asyncio.to_thread(is_syncing.wait, 60)
        digest = await asyncio.to_thread(app.release, bias=1.0)
        for _ in range(6000):
            if app.follower.live.model.digest == digest:
                break
            await asyncio.sleep(0.01)
        assert app.follower.live.model.digest == digest
        assert (await app.post(models.row()))[0] == 200
        assert app.probe("/healthz")[0] == 200
        end.set()
        await app.middleware.stop()

    monkeypatch.setattr(os, "fdatasync", hangs)
    asyncio.run(live())


def test_a_background_thread_that_ends_makes_the_service_not_alive(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def faulty() -> None:
        raise AttributeError("a fault of ours")

    async def live() -> None:
        app.middleware._syncing._job = faulty
        await app.middleware.start()
        app.middleware._syncing._thread.join(60)
        status, body = app.probe("/healthz")
        assert (status, json.loads(body)["is_alive"]) == (503, False)
        assert "sync the log" in json.loads(body)["problem"]
        await app.middleware.stop()

    asyncio.run(live())


def test_an_internal_error_in_a_look_is_named_and_passes(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = app.release(bias=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(follower.releases, "read", lambda *_: {}["a fault of ours"])
        assert not app.follower.look()
        assert "failed with KeyError: 'a fault of ours'" in app.follower.problem
    assert app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (digest, None)


def test_a_bundle_that_makes_a_library_raise_is_refused_at_the_start_too(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    with monkeypatch.context() as patch:
        patch.setattr(follower.Model, "warm", lambda model: {}["a library's own"])
        app.follower.fall_back()
        assert "the fallback cannot be served: bundle" in app.follower.problem
        assert "failed with KeyError" in app.follower.problem
        app.release(bias=1.0)
        assert not app.follower.look()
        assert "release 1 is refused: bundle" in app.follower.problem


CHILD = """
import sys
from pathlib import Path
from tests.doubles import models
from tests.serving.conftest import App

app = App(Path(sys.argv[1]))
app.follower._loading.seconds = 0.5
follow_model = __import__("platform_assets.serving.answer.model", fromlist=["Model"]).Model
follow_model.give_up = lambda model: None
models.release(str(app.folder / "store"), models.write_bundle(app.store, graph=models.endless(app.document)))
app.follower.look()
print(app.follower.problem, flush=True)
"""


@pytest.mark.costly
def test_a_process_ends_although_a_graph_in_it_does_not(tmp_path: Path) -> None:
    """Also if ONNX Runtime ignores the request to end the run."""
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=600
    )
    assert "did not end within 0.5 s" in ended.stdout, ended.stderr
