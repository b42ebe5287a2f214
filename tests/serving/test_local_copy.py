"""Starting without the store serves the last good release, reports its age, and never serves a damaged one."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_assets.serving.follow import local_copy as module
from platform_assets.serving.follow.local_copy import LocalCopy, LocalCopyProblem
from platform_assets.serving.follow.releases import Release
from platform_assets.store import durable
from platform_assets.training.sealed import Sealed
from tests.doubles import models


@pytest.fixture
def app(make: Callable[..., Any], tmp_path: Path) -> Any:
    app = make(local_copy=LocalCopy(tmp_path / "kept"), starts=True)
    release(app, 1.0)
    return app


def release(app: Any, bias: float) -> str:
    digest = app.release(bias=bias)
    app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (digest, None)
    return digest


def restart_without_the_store(app: Any, **changes: Any) -> dict[str, Any]:
    """Start again with a file in place of the store's folder; return `/readyz`."""
    store = app.folder / "store"
    if store.is_dir():
        store.rename(app.folder / "away")
        store.write_text("not a folder")
    app.follow(local_copy=LocalCopy(app.folder / "kept"), **changes).fall_back()
    app.follower.look()
    status, state = app.ready()
    return {**state, "status": status}


def test_a_restart_without_the_store_serves_the_last_release(app: Any) -> None:
    second = release(app, 2.0)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    os.utime(app.folder / "kept" / module.NAME, (hour_ago.timestamp(),) * 2)
    state = restart_without_the_store(app)
    members = {name: state[name] for name in ("status", "is_ready", "digest", "release", "source", "highest_release")}
    assert members == {
        "status": 200, "is_ready": True, "digest": second, "release": 2, "source": "kept", "highest_release": 2
    }  # fmt: skip
    assert datetime.fromisoformat(state["kept_at_utc"]) == pytest.approx(hour_ago, abs=timedelta(seconds=1))
    assert state["kept_age_s"] >= 3600
    assert "cannot be read" in state["problem"]
    assert app.predict(models.row())[1]["digest"] == second
    assert app.records()[-1]["release"] == 2


def test_a_look_that_finds_the_same_release_records_the_time(app: Any) -> None:
    path = app.folder / "kept" / module.NAME
    os.utime(path, (0, 0))
    app.follower.look()
    assert LocalCopy(app.folder / "kept").confirmed() > datetime(2020, 1, 1, tzinfo=UTC)


def test_the_store_confirms_the_local_copy_without_another_load(app: Any) -> None:
    app.follow(local_copy=LocalCopy(app.folder / "kept")).fall_back()
    model = app.follower.live.model
    assert app.follower.live.source == "kept"
    assert app.follower.look()
    assert (app.follower.live.source, app.follower.live.model, app.follower.problem) == ("release", model, None)
    assert app.ready()[1]["kept_age_s"] is None


def test_only_the_newest_bundle_is_kept(app: Any) -> None:
    for bias in (2.0, 3.0):
        newest = release(app, bias)
    result = {path.name for path in (app.folder / "kept" / "artifacts").rglob("*") if path.is_file()}
    blobs = {
        blob["sha256"]
        for name, blob in app.store.bundle(newest).manifest["blobs"].items()
        if name in ("model.onnx", "contract.json", "learned.json", "golden.json")
    }
    assert result == {*blobs, newest}


def test_a_worker_that_lags_behind_keeps_nothing_older(app: Any) -> None:
    first = app.follower.live.model.digest
    second = release(app, 2.0)
    local_copy = LocalCopy(app.folder / "kept")
    local_copy.copy(app.store, Release(1, first, ""), Sealed.read(app.store, first))
    local_copy.note(Release(1, first, ""))
    note = local_copy.read()
    assert (note.release, note.digest, note.highest) == (2, second, 2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, blob: path.write_bytes(b""),
        lambda path, blob: path.write_bytes(b"[" * 100_000),
        lambda path, blob: path.write_bytes(b'{"format": 9, "highest": 1, "highest_digest": "' + b"f" * 64 + b'"}'),
        lambda path, blob: path.write_bytes(path.read_bytes().replace(b'"release":1', b'"release":"1"')),
        lambda path, blob: blob.write_bytes(b"x" + blob.read_bytes()),
        lambda path, blob: blob.unlink(),
    ],
)
def test_a_damaged_local_copy_is_named_and_replaced(app: Any, damage: Callable[[Path, Path], Any]) -> None:
    digest = app.follower.live.model.digest
    graph = app.store.bundle(digest).manifest["blobs"]["model.onnx"]["sha256"]
    path, blob = app.folder / "kept" / module.NAME, app.folder / f"kept/artifacts/sha256/{graph[:2]}/{graph}"
    damage(path, blob)
    app.follow(local_copy=LocalCopy(app.folder / "kept")).fall_back()
    assert app.follower.live.source == "fallback"
    assert "the local copy of the last release cannot be served" in app.follower.problem
    assert app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (digest, None)
    state = restart_without_the_store(app)
    assert (state["digest"], state["source"]) == (digest, "kept")


def test_a_setting_makes_the_service_not_ready_instead(app: Any) -> None:
    def with_setting() -> tuple[int, dict[str, Any]]:
        app.change(needs_store=True)
        return app.ready()

    restart_without_the_store(app)
    status, state = with_setting()
    assert (status, state["is_ready"], state["source"]) == (503, False, "kept")
    assert "the store has not named the live model" in state["problem"]
    (app.folder / "store").unlink()
    (app.folder / "away").rename(app.folder / "store")
    app.follower.look()
    status, state = with_setting()
    assert (status, state["is_ready"], state["source"], state["problem"]) == (200, True, "release", None)


def test_a_local_copy_for_another_contract_is_not_served(app: Any) -> None:
    other = models.contract(title="Another title")
    app.contract = type(app.contract)(other)
    state = restart_without_the_store(app, fallback_digest=models.write_bundle(app.fallback, document=other))
    assert (state["source"], state["highest_release"]) == ("fallback", 1)


def test_a_problem_ends_once_the_newest_release_is_live_however_long_copying_takes(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[tuple[int | None, str | None]] = []

    def keep(*_: Any) -> None:
        state = app.ready()[1]
        states.append((state["release"], state["problem"]))

    store = app.folder / "store"
    store.rename(app.folder / "away")
    app.follower.look()
    assert "cannot be read" in app.follower.problem
    (app.folder / "away").rename(store)
    monkeypatch.setattr(LocalCopy, "copy", keep)
    release(app, 2.0)
    assert states == [(2, None)]


def test_a_full_disk_does_not_stop_a_release(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(durable, "replace", full)
        second = app.release(bias=2.0)
        assert app.follower.look()
        assert app.follower.live.model.digest == second
        assert "release 2 is served, but not copied to local disk for a start without the store" in app.follower.problem
        with pytest.raises(LocalCopyProblem, match="No space left"):
            LocalCopy(app.folder / "kept").note(Release(3, second, ""))
    assert not app.follower.look()
    assert (app.follower.problem, LocalCopy(app.folder / "kept").read().release) == (None, 2)
