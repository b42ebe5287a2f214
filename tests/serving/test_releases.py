"""Only a release with a passing verdict or a person's override is followed, and never one below the highest number."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base import naming
from platform_assets.serving.follow.local_copy import LocalCopy
from platform_assets.store.artifacts import canonical
from tests.doubles import documents, models


@pytest.fixture
def app(make: Callable[..., Any], tmp_path: Path) -> Any:
    """An app that keeps its last release on disk, after releases 1 and 2."""
    app = make(local_copy=LocalCopy(tmp_path / "kept"))
    for bias in (1.0, 2.0):
        app.release(bias=bias)
        assert app.follower.look()
    return app


def record(app: Any, digest: str, **changes: Any) -> int:
    """Append a release record without a verdict."""
    ledgers = app.ledgers
    number = ledgers.newest_number(naming.RELEASES) + 1
    ledgers.create_number(naming.RELEASES, number, models.release_record(number, digest, **changes))
    return number


def judge(app: Any, digest: str, document: dict[str, Any]) -> None:
    app.ledgers.create(naming.VERDICTS, digest, document)


def stays(app: Any, message: str) -> None:
    """Check that nothing newer than release 2 is followed, before and after a restart, with this message."""
    digest = app.follower.live.model.digest
    for restarts in (False, True):
        if restarts:
            app.follow(local_copy=LocalCopy(app.folder / "kept")).fall_back()
        for _ in range(2):
            app.follower.look()
        live = app.follower.live
        assert (live.model.digest, live.release, app.follower.highest) == (digest, 2, 2)
        assert message in app.follower.problem


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (None, "has no verdict"),
        ({"passed": False}, "failed its evaluation"),
        ({"digest": "f" * 64, "passed": True}, f"has the verdict on {'f' * 64}"),
        ({"passed": "true"}, "cannot be read"),
        ({"passed": None}, "cannot be read"),
    ],
)
def test_a_digest_without_a_passing_verdict_is_not_followed(
    app: Any, verdict: dict[str, Any] | None, message: str
) -> None:
    third = models.write_bundle(app.store, bias=3.0)
    if verdict is not None:
        judge(app, third, documents.verdict(**{"digest": third, **verdict}))
    record(app, third)
    stays(app, message)


@pytest.mark.parametrize("verdict", [None, {"passed": False}])
def test_an_override_with_person_and_reason_releases_without_a_passing_verdict(
    app: Any, verdict: dict[str, Any] | None
) -> None:
    third = models.write_bundle(app.store, bias=3.0)
    if verdict is not None:
        judge(app, third, documents.verdict(**{"digest": third, **verdict}))
    record(app, third, override={"by": "ada", "reason": "the holdout is broken"})
    assert app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (third, None)


@pytest.mark.parametrize(
    "override", [{}, {"by": "ada"}, {"reason": "it is late"}, {"by": "", "reason": "x"}, {"by": "ada", "reason": ""}, 1]
)
def test_an_override_without_a_person_or_a_reason_does_not_count(app: Any, override: Any) -> None:
    record(app, models.write_bundle(app.store, bias=3.0), override=override)
    stays(app, "00000003.json is not a record of releases that this code reads")


@pytest.mark.parametrize("number", [3, 7])
def test_an_old_record_under_a_new_number_is_not_followed(app: Any, number: int) -> None:
    shutil.copyfile(app.record(naming.RELEASES, 1), app.record(naming.RELEASES, number))
    app.ledgers.hint(naming.RELEASES, number)
    stays(app, f"release {number} states that it follows release None; expected {number - 1}")


@pytest.mark.parametrize("is_all", [True, False])
def test_the_follower_does_not_go_back_when_releases_are_deleted(app: Any, is_all: bool) -> None:
    path = app.record(naming.RELEASES, 2)
    shutil.rmtree(path.parent) if is_all else path.unlink()
    stays(app, "release 2 was followed, but is no longer in the store")


def test_a_record_that_names_another_model_afterwards_is_not_followed(app: Any) -> None:
    third = models.write_bundle(app.store, bias=3.0)
    judge(app, third, documents.verdict(third))
    app.record(naming.RELEASES, 2).write_bytes(canonical(models.release_record(2, third)))
    stays(app, "a record is written once")


def test_the_highest_number_counts_although_its_bundle_could_not_be_served(app: Any) -> None:
    third = models.write_bundle(app.store, graph=b"no graph")
    models.release(app.store.root, third)
    app.follower.look()
    assert (app.follower.live.release, app.follower.highest) == (2, 3)
    app.record(naming.RELEASES, 3).unlink()
    app.follow(local_copy=LocalCopy(app.folder / "kept")).fall_back()
    app.follower.look()
    assert app.follower.highest == 3
    assert "release 3 was followed, but is no longer in the store" in app.follower.problem
    for bias in (3.5, 4.0):
        good = models.write_bundle(app.store, bias=bias)
    judge(app, good, documents.verdict(good))
    app.ledgers.create_number(naming.RELEASES, 4, models.release_record(4, good))
    app.follower.look()
    assert (app.follower.live.model.digest, app.follower.problem) == (good, None)


def test_an_unreadable_verdict_is_read_again_later(app: Any) -> None:
    third = models.write_bundle(app.store, bias=3.0)
    models.release(app.store.root, third)
    path = app.record(naming.VERDICTS, third)
    away = path.rename(path.with_suffix(".away"))
    path.mkdir()
    assert not app.follower.look()
    assert "cannot be read" in app.follower.problem
    path.rmdir()
    away.rename(path)
    assert app.follower.look()
    assert app.follower.live.model.digest == third
