"""Only a release with a passing verdict, or a person's word, is followed; and never one below the highest number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from platform_assets import naming
from platform_assets.serving.local_copy import LocalCopy
from platform_assets.storage.artifacts import canonical
from platform_assets.storage.ledgers import Ledgers
from tests.doubles import documents, models


@pytest.fixture
def kept_app(make: Callable[..., Any], tmp_path: Path) -> Any:
    """An app that keeps its last release on disk, with release 1 and 2 behind it."""
    app = make(local_copy=LocalCopy(tmp_path / "kept"))
    for bias in (1.0, 2.0):
        models.release(root_of(app), models.write_bundle(app.store, bias=bias))
        assert app.follower.look()
    return app


def root_of(app: Any) -> str:
    return str(app.folder / "store")


def ledgers_of(app: Any) -> Ledgers:
    return Ledgers(root_of(app), models.PRODUCT)


def place_of(app: Any, number: int) -> Path:
    return Path(root_of(app), naming.ledger_path(models.PRODUCT, naming.RELEASES), f"{number:08d}.json")


def record(app: Any, digest: str, **changes: Any) -> int:
    """Append a release record without a verdict."""
    ledgers = ledgers_of(app)
    number = ledgers.newest_number(naming.RELEASES) + 1
    ledgers.create_number(naming.RELEASES, number, models.release_record(number, digest, **changes))
    return number


def judge(app: Any, digest: str, document: dict[str, Any]) -> None:
    ledgers_of(app).create(naming.VERDICTS, digest, document)


def stays(app: Any, words: str) -> None:
    """Check that nothing newer than release 2 is followed, before and after a restart, and why."""
    digest = app.follower.live.model.digest
    for restarts in (False, True):
        if restarts:
            app.follow(local_copy=LocalCopy(app.folder / "kept")).fall_back()
        for _ in range(2):
            app.follower.look()
        live = app.follower.live
        assert (live.model.digest, live.release, app.follower.highest) == (digest, 2, 2)
        assert words in app.follower.problem


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (None, "has no verdict"),
        ({"passed": False}, "failed its evaluation"),
        ({"digest": "f" * 64, "passed": True}, f"has the verdict on {'f' * 64}"),
        ({"passed": "true"}, "cannot be read"),
        ({"passed": None}, "cannot be read"),
    ],
)
def test_a_digest_without_a_passing_verdict_is_not_followed(
    kept_app: Any, verdict: dict[str, Any] | None, words: str
) -> None:
    third = models.write_bundle(kept_app.store, bias=3.0)
    if verdict is not None:
        judge(kept_app, third, documents.verdict(**{"digest": third, **verdict}))
    record(kept_app, third)
    stays(kept_app, words)


@pytest.mark.parametrize("verdict", [None, {"passed": False}])
def test_a_person_and_a_reason_release_without_a_passing_verdict(kept_app: Any, verdict: dict[str, Any] | None) -> None:
    third = models.write_bundle(kept_app.store, bias=3.0)
    if verdict is not None:
        judge(kept_app, third, documents.verdict(**{"digest": third, **verdict}))
    record(kept_app, third, override={"by": "ada", "reason": "the holdout is broken"})
    assert kept_app.follower.look()
    assert (kept_app.follower.live.model.digest, kept_app.follower.problem) == (third, None)


@pytest.mark.parametrize(
    "override", [{}, {"by": "ada"}, {"reason": "it is late"}, {"by": "", "reason": "x"}, {"by": "ada", "reason": ""}, 1]
)
def test_an_override_without_a_person_or_a_reason_is_none(kept_app: Any, override: Any) -> None:
    record(kept_app, models.write_bundle(kept_app.store, bias=3.0), override=override)
    stays(kept_app, "00000003.json is not a record of releases that this code reads")


@pytest.mark.parametrize("number", [3, 7])
def test_an_old_record_under_a_new_number_is_not_followed(kept_app: Any, number: int) -> None:
    shutil.copyfile(place_of(kept_app, 1), place_of(kept_app, number))
    ledgers_of(kept_app).hint(naming.RELEASES, number)
    stays(kept_app, f"release {number} states that it follows release None; expected {number - 1}")


def test_when_the_newest_is_deleted_it_does_not_go_back(kept_app: Any) -> None:
    place_of(kept_app, 2).unlink()
    stays(kept_app, "release 2 was followed, but is no longer in the store")


def test_when_all_are_deleted_it_does_not_go_back(kept_app: Any) -> None:
    shutil.rmtree(place_of(kept_app, 1).parent)
    stays(kept_app, "release 2 was followed, but is no longer in the store")


def test_a_record_that_names_another_model_afterwards_is_not_followed(kept_app: Any) -> None:
    third = models.write_bundle(kept_app.store, bias=3.0)
    judge(kept_app, third, documents.verdict(third))
    place_of(kept_app, 2).write_bytes(canonical(models.release_record(2, third)))
    stays(kept_app, "a record is written once")


def test_the_highest_number_counts_though_its_bundle_could_not_be_served(kept_app: Any) -> None:
    third = models.write_bundle(kept_app.store, graph=b"no graph")
    models.release(root_of(kept_app), third)
    kept_app.follower.look()
    assert (kept_app.follower.live.release, kept_app.follower.highest) == (2, 3)
    place_of(kept_app, 3).unlink()
    kept_app.follow(local_copy=LocalCopy(kept_app.folder / "kept")).fall_back()
    kept_app.follower.look()
    assert kept_app.follower.highest == 3
    assert "release 3 was followed, but is no longer in the store" in kept_app.follower.problem
    for bias in (3.5, 4.0):
        good = models.write_bundle(kept_app.store, bias=bias)
    judge(kept_app, good, documents.verdict(good))
    ledgers_of(kept_app).create_number(naming.RELEASES, 4, models.release_record(4, good))
    kept_app.follower.look()
    assert (kept_app.follower.live.model.digest, kept_app.follower.problem) == (good, None)


def test_records_of_before_are_followed(kept_app: Any) -> None:
    """Format 1, as main of 2026-11-25 wrote it: no `format`, no `override`; a rollback names `restores`."""
    first = kept_app.store.bundle(ledgers_of(kept_app).at(naming.RELEASES, 1)["channels"]["live"]["digest"]).digest
    messages = {**models.release_record(3, first), "outcome": "rolled_back", "restores": 1}
    ledgers_of(kept_app).create_number(
        naming.RELEASES, 3, {name: value for name, value in messages.items() if name not in ("format", "override")}
    )
    assert kept_app.follower.look()
    assert (kept_app.follower.live.model.digest, kept_app.follower.live.release) == (first, 3)


def test_a_verdict_that_cannot_be_read_now_is_asked_for_again(kept_app: Any) -> None:
    third = models.write_bundle(kept_app.store, bias=3.0)
    models.release(root_of(kept_app), third)
    path = Path(root_of(kept_app), naming.ledger_path(models.PRODUCT, naming.VERDICTS), f"{third}.json")
    away = path.rename(path.with_suffix(".away"))
    path.mkdir()
    assert not kept_app.follower.look()
    assert "cannot be read" in kept_app.follower.problem
    path.rmdir()
    away.rename(path)
    assert kept_app.follower.look()
    assert kept_app.follower.live.model.digest == third


def test_a_pinned_bundle_needs_no_verdict(make: Callable[..., Any]) -> None:
    app = make()
    pinned = models.write_bundle(app.store, bias=1.0)
    assert app.follow(pinned=pinned).look()
    assert (app.follower.live.model.digest, app.follower.live.source) == (pinned, "pinned")
