"""Only a release with a passing verdict or a person's override is followed, and never one below the highest number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base import naming
from platform_assets.serving.follow.local_copy import LocalCopy
from platform_assets.store.artifacts import canonical
from platform_assets.store.ledgers import Ledgers
from tests.doubles import documents, models


@pytest.fixture
def app_with_copy(make: Callable[..., Any], tmp_path: Path) -> Any:
    """An app that keeps its last release on disk, after releases 1 and 2."""
    app = make(local_copy=LocalCopy(tmp_path / "kept"))
    for bias in (1.0, 2.0):
        models.release(root_of(app), models.write_bundle(app.store, bias=bias))
        assert app.follower.look()
    return app


def root_of(app: Any) -> str:
    return str(app.folder / "store")


def ledgers_of(app: Any) -> Ledgers:
    return Ledgers(root_of(app), models.PRODUCT)


def path_of(app: Any, number: int) -> Path:
    return Path(root_of(app), naming.ledger_path(models.PRODUCT, naming.RELEASES), f"{number:08d}.json")


def record(app: Any, digest: str, **changes: Any) -> int:
    """Append a release record without a verdict."""
    ledgers = ledgers_of(app)
    number = ledgers.newest_number(naming.RELEASES) + 1
    ledgers.create_number(naming.RELEASES, number, models.release_record(number, digest, **changes))
    return number


def judge(app: Any, digest: str, document: dict[str, Any]) -> None:
    ledgers_of(app).create(naming.VERDICTS, digest, document)


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
    app_with_copy: Any, verdict: dict[str, Any] | None, message: str
) -> None:
    third = models.write_bundle(app_with_copy.store, bias=3.0)
    if verdict is not None:
        judge(app_with_copy, third, documents.verdict(**{"digest": third, **verdict}))
    record(app_with_copy, third)
    stays(app_with_copy, message)


@pytest.mark.parametrize("verdict", [None, {"passed": False}])
def test_an_override_with_person_and_reason_releases_without_a_passing_verdict(
    app_with_copy: Any, verdict: dict[str, Any] | None
) -> None:
    third = models.write_bundle(app_with_copy.store, bias=3.0)
    if verdict is not None:
        judge(app_with_copy, third, documents.verdict(**{"digest": third, **verdict}))
    record(app_with_copy, third, override={"by": "ada", "reason": "the holdout is broken"})
    assert app_with_copy.follower.look()
    assert (app_with_copy.follower.live.model.digest, app_with_copy.follower.problem) == (third, None)


@pytest.mark.parametrize(
    "override", [{}, {"by": "ada"}, {"reason": "it is late"}, {"by": "", "reason": "x"}, {"by": "ada", "reason": ""}, 1]
)
def test_an_override_without_a_person_or_a_reason_does_not_count(app_with_copy: Any, override: Any) -> None:
    record(app_with_copy, models.write_bundle(app_with_copy.store, bias=3.0), override=override)
    stays(app_with_copy, "00000003.json is not a record of releases that this code reads")


@pytest.mark.parametrize("number", [3, 7])
def test_an_old_record_under_a_new_number_is_not_followed(app_with_copy: Any, number: int) -> None:
    shutil.copyfile(path_of(app_with_copy, 1), path_of(app_with_copy, number))
    ledgers_of(app_with_copy).hint(naming.RELEASES, number)
    stays(app_with_copy, f"release {number} states that it follows release None; expected {number - 1}")


def test_the_follower_does_not_go_back_when_the_newest_release_is_deleted(app_with_copy: Any) -> None:
    path_of(app_with_copy, 2).unlink()
    stays(app_with_copy, "release 2 was followed, but is no longer in the store")


def test_the_follower_does_not_go_back_when_all_releases_are_deleted(app_with_copy: Any) -> None:
    shutil.rmtree(path_of(app_with_copy, 1).parent)
    stays(app_with_copy, "release 2 was followed, but is no longer in the store")


def test_a_record_that_names_another_model_afterwards_is_not_followed(app_with_copy: Any) -> None:
    third = models.write_bundle(app_with_copy.store, bias=3.0)
    judge(app_with_copy, third, documents.verdict(third))
    path_of(app_with_copy, 2).write_bytes(canonical(models.release_record(2, third)))
    stays(app_with_copy, "a record is written once")


def test_the_highest_number_counts_although_its_bundle_could_not_be_served(app_with_copy: Any) -> None:
    third = models.write_bundle(app_with_copy.store, graph=b"no graph")
    models.release(root_of(app_with_copy), third)
    app_with_copy.follower.look()
    assert (app_with_copy.follower.live.release, app_with_copy.follower.highest) == (2, 3)
    path_of(app_with_copy, 3).unlink()
    app_with_copy.follow(local_copy=LocalCopy(app_with_copy.folder / "kept")).fall_back()
    app_with_copy.follower.look()
    assert app_with_copy.follower.highest == 3
    assert "release 3 was followed, but is no longer in the store" in app_with_copy.follower.problem
    for bias in (3.5, 4.0):
        good = models.write_bundle(app_with_copy.store, bias=bias)
    judge(app_with_copy, good, documents.verdict(good))
    ledgers_of(app_with_copy).create_number(naming.RELEASES, 4, models.release_record(4, good))
    app_with_copy.follower.look()
    assert (app_with_copy.follower.live.model.digest, app_with_copy.follower.problem) == (good, None)


def test_an_unreadable_verdict_is_read_again_later(app_with_copy: Any) -> None:
    third = models.write_bundle(app_with_copy.store, bias=3.0)
    models.release(root_of(app_with_copy), third)
    path = Path(root_of(app_with_copy), naming.ledger_path(models.PRODUCT, naming.VERDICTS), f"{third}.json")
    away = path.rename(path.with_suffix(".away"))
    path.mkdir()
    assert not app_with_copy.follower.look()
    assert "cannot be read" in app_with_copy.follower.problem
    path.rmdir()
    away.rename(path)
    assert app_with_copy.follower.look()
    assert app_with_copy.follower.live.model.digest == third


def test_a_pinned_bundle_needs_no_verdict(make: Callable[..., Any]) -> None:
    app = make()
    pinned = models.write_bundle(app.store, bias=1.0)
    assert app.follow(pinned=pinned).look()
    assert (app.follower.live.model.digest, app.follower.live.source) == (pinned, "pinned")
