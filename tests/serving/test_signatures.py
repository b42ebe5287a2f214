"""A service with pinned keys follows what they signed, and refuses by name what was changed, forged or replayed."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from platform_assets.base import naming
from platform_assets.serving.follow.local_copy import LocalCopy
from platform_assets.store.artifacts import ArtifactStore, canonical
from platform_assets.store.signatures import public_key
from tests.doubles import documents, models

pytestmark = pytest.mark.slow

KEY, OTHER, NEXT = (Ed25519PrivateKey.from_private_bytes(bytes([place] * 32)) for place in (1, 2, 3))


@dataclass
class World:
    """A service with pinned keys that follows release 2, and a bundle whose release is attacked."""

    app: Any
    third: str

    @property
    def root(self) -> Path:
        return Path(self.app.folder, "store")

    def change(self, ledger: str, name: str | int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        path = self.app.record(ledger, name)
        path.write_bytes(canonical(change(json.loads(path.read_bytes()))))

    def restart(self, **changes: Any) -> None:
        self.app.follow(local_copy=LocalCopy(self.app.folder / "kept"), **changes).fall_back()


@pytest.fixture
def world(make: Callable[..., Any], tmp_path: Path) -> World:
    app = make(local_copy=LocalCopy(tmp_path / "kept"), pinned_keys=(public_key(NEXT), public_key(KEY)), starts=True)
    for bias in (1.0, 2.0):
        models.signed_release(str(tmp_path / "store"), models.write_bundle(app.store, bias=bias), KEY)
        assert app.follower.look(), app.follower.problem
    return World(app, models.write_bundle(app.store, bias=3.0))


def unsigned_release(world: World) -> None:
    models.release(str(world.root), world.third)


def forged_release(world: World) -> None:
    models.signed_release(str(world.root), world.third, OTHER)


def changed_release(world: World) -> None:
    models.signed_release(str(world.root), world.third, KEY)
    world.change(naming.RELEASES, 3, lambda record: {**record, "why": "better"})


def signature_of_another_record(world: World) -> None:
    before = json.loads(world.app.record(naming.RELEASES, 2).read_bytes())["signed"]
    models.signed_release(str(world.root), world.third, KEY)
    world.change(naming.RELEASES, 3, lambda record: {**record, "signed": before})


def renamed_key(world: World) -> None:
    models.signed_release(str(world.root), world.third, OTHER)
    world.change(naming.RELEASES, 3, lambda record: {**record, "signed": {**record["signed"], "key": public_key(KEY)}})


def record_of_another_store(world: World) -> None:
    """The third release of another store of the same product, signed with the same key."""
    other = world.app.folder / "other"
    store = ArtifactStore(str(other))
    for bias in (4.0, 5.0, 6.0):
        models.signed_release(str(other), models.write_bundle(store, bias=bias), KEY)
    shutil.copyfile(
        other / naming.ledger_path(models.PRODUCT, naming.RELEASES) / "00000003.json",
        world.app.record(naming.RELEASES, 3),
    )


def unsigned_verdict(world: World) -> None:
    world.app.ledgers.create(naming.VERDICTS, world.third, documents.verdict(world.third))
    models.signed_release(str(world.root), world.third, KEY)


def forged_verdict(world: World) -> None:
    verdict = models.signed(naming.VERDICTS, documents.verdict(world.third), OTHER)
    world.app.ledgers.create(naming.VERDICTS, world.third, verdict)
    models.signed_release(str(world.root), world.third, KEY)


def changed_verdict(world: World) -> None:
    models.signed_release(str(world.root), world.third, KEY)
    world.change(naming.VERDICTS, world.third, lambda verdict: {**verdict, "reasons": ["it is good"]})


def changed_verdict_that_the_release_does_not_name(world: World) -> None:
    models.signed_release(str(world.root), world.third, KEY, verdict_sha256=None)
    world.change(naming.VERDICTS, world.third, lambda verdict: {**verdict, "reasons": ["it is good"]})


def forged_override(world: World) -> None:
    record = models.chained(
        world.app.ledgers, models.release_record(3, world.third), override={"by": "ada", "reason": "it is late"}
    )
    world.app.ledgers.create_number(naming.RELEASES, 3, models.signed(naming.RELEASES, record, OTHER))


def signature_of_a_verdict_on_a_release(world: World) -> None:
    record = models.chained(
        world.app.ledgers, models.release_record(3, world.third), override={"by": "a", "reason": "b"}
    )
    world.app.ledgers.create_number(naming.RELEASES, 3, models.signed(naming.VERDICTS, record, KEY))


def of_another_product(world: World) -> None:
    models.signed_release(str(world.root), world.third, KEY, product="other")


ATTACKS = {
    unsigned_release: "release 3 is not signed; expected a signature by a pinned key",
    forged_release: f"release 3 is signed by {re.escape(public_key(OTHER))}; expected a pinned key",
    changed_release: "release 3 has a signature .* that does not fit its content",
    signature_of_another_record: "release 3 has a signature .* that does not fit its content",
    renamed_key: "release 3 has a signature .* that does not fit its content",
    record_of_another_store: "release 3 states that the record before it has sha256 .*; release 2 has",
    unsigned_verdict: "release 3 is not followed: .* has a verdict that is not signed",
    forged_verdict: f"release 3 is not followed: .* has a verdict that is signed by {re.escape(public_key(OTHER))}",
    changed_verdict: "release 3 is not followed: .* has another verdict than the release names",
    changed_verdict_that_the_release_does_not_name: "has a verdict that has a signature .* that does not fit",
    forged_override: f"release 3 is signed by {re.escape(public_key(OTHER))}",
    signature_of_a_verdict_on_a_release: "release 3 has a signature .* that does not fit its content",
    of_another_product: "release 3 is one of product 'other'; expected 'tiny'",
}


@pytest.mark.parametrize(("attack", "message"), ATTACKS.items(), ids=[attack.__name__ for attack in ATTACKS])
def test_an_attack_is_refused_by_name_and_the_last_good_model_answers(
    world: World, attack: Callable[[World], None], message: str
) -> None:
    second = world.app.follower.live.model.digest
    attack(world)
    for restarts in (False, True):
        if restarts:
            world.restart()
        assert not world.app.follower.look() or restarts
        assert re.search(message, world.app.follower.problem or ""), world.app.follower.problem
        assert (world.app.follower.live.model.digest, world.app.follower.highest) == (second, 2)
        assert world.app.predict(models.row())[1]["digest"] == second


def test_a_signed_override_is_followed_without_a_verdict(world: World) -> None:
    record = models.chained(
        world.app.ledgers,
        models.release_record(3, world.third),
        override={"by": "ada", "reason": "the holdout is broken"},
    )
    world.app.ledgers.create_number(naming.RELEASES, 3, models.signed(naming.RELEASES, record, KEY))
    assert world.app.follower.look(), world.app.follower.problem
    assert world.app.follower.live.model.digest == world.third


def test_releases_that_were_not_seen_are_followed_along_their_hashes(world: World) -> None:
    for bias in (3.0, 4.0, 5.0):
        models.signed_release(str(world.root), models.write_bundle(world.app.store, bias=bias), NEXT)
    assert world.app.follower.look(), world.app.follower.problem
    assert world.app.follower.live.release == 5


@pytest.mark.parametrize("number", [3, 4])
def test_a_record_in_between_that_was_replaced_is_named(world: World, number: int) -> None:
    for bias in (3.0, 4.0, 5.0):
        models.signed_release(str(world.root), models.write_bundle(world.app.store, bias=bias), KEY)
    world.change(naming.RELEASES, number, lambda record: {**record, "why": "another"})
    assert not world.app.follower.look()
    assert f"release {number + 1} states that the record before it has sha256" in world.app.follower.problem


def test_the_followed_record_may_not_change_after_a_restart(world: World) -> None:
    record = models.chained(
        world.app.ledgers, models.release_record(2, world.app.follower.live.model.digest), why="another reason"
    )
    world.app.record(naming.RELEASES, 2).write_bytes(canonical(models.signed(naming.RELEASES, record, KEY)))
    for restarts in (False, True):
        if restarts:
            world.restart()
        world.app.follower.look()
        assert "release 2 was changed after it was followed" in world.app.follower.problem


def test_a_service_that_has_seen_nothing_follows_what_is_signed(make: Callable[..., Any], world: World) -> None:
    """It cannot know that there was a third release: the threat model says so."""
    models.signed_release(str(world.root), world.third, KEY)
    world.app.record(naming.RELEASES, 3).unlink()
    follower = world.app.follow(local_copy=LocalCopy(world.app.folder / "new"))
    assert follower.look(), follower.problem
    assert follower.live.release == 2
