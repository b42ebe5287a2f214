"""For any damage to the store: the problem is named, the last good model answers, the next good release is loaded."""

import json
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest

from platform_assets.base import naming
from platform_assets.store import objects
from platform_assets.store.artifacts import canonical
from platform_assets.store.ledgers import Ledgers
from platform_assets.training import sealed
from tests.doubles import documents, models
from tests.volume import draws

pytestmark = pytest.mark.slow

DEEP = b"[" * 100_000 + b"]" * 100_000
RELEASES = f"ledgers/{models.PRODUCT}/{naming.RELEASES}"
STRANGE = (None, True, 0, -1, 1.5, 10**30, "", "x", "f" * 64, "../../etc/passwd", [], [1], {}, {"a": {}}, [[]], "\x00")
SEEDS, STORES = draws(20), 25
"""Number of seeds, and of damaged stores per seed."""


class World:
    """A store whose release 1 is live, a second release to damage, and the log of the service."""

    def __init__(self, app: Any, log: pytest.LogCaptureFixture) -> None:
        self.app, self.log, self.store, self.root = app, log, app.store, app.folder / "store"
        self.first = models.write_bundle(self.store, bias=1.0)
        models.release(str(self.root), self.first)
        assert app.follower.look()
        self.log.clear()

    def seal(self, **changes: bytes) -> str:
        """Return a new bundle whose named blobs have this content, with valid digests on every level."""
        digest = models.write_bundle(self.store, bias=2.0)
        manifest = self.store.bundle(digest).manifest
        for name, data in changes.items():
            manifest["blobs"][f"{name}.json"]["sha256"] = self.store.put(data)
        return self.store.put_json(manifest)

    def names_a_problem(self) -> str:
        """Check the guarantees while the newest release cannot be served; return the problem."""
        state = json.loads(self.app.probe("/readyz")[1])
        assert (state["digest"], state["is_ready"]) == (self.first, True)
        assert isinstance(state["problem"], str) and 20 < len(state["problem"]) < 1000
        assert "driftline_release_has_problem 1.0" in self.app.metrics()
        assert self.app.predict(models.row())[1]["digest"] == self.first
        lines = [record for record in self.log.records if record.name.endswith("driftline")]
        assert len(lines) == 1 and state["problem"] in lines[0].getMessage()
        return state["problem"]

    def release(self, number: int) -> str:
        """Release a good bundle under a number, and return its digest."""
        digest = models.write_bundle(self.store, bias=float(number))
        ledgers = Ledgers(str(self.root), models.PRODUCT)
        ledgers.create(naming.VERDICTS, digest, documents.verdict(digest))
        ledgers.create_number(naming.RELEASES, number, models.release_record(number, digest))
        return digest

    def loads_the_next(self, number: int = 3) -> None:
        """Release another good bundle and check that it is loaded within two looks."""
        digest = self.release(number)
        for _ in range(2):
            self.app.follower.look()
        assert (self.app.follower.live.model.digest, self.app.follower.problem) == (digest, None)
        assert self.app.predict(models.row())[1]["digest"] == digest


@pytest.fixture
def world(app: Any, caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.INFO)
    return World(app, caplog)


def record_of(digest: Any) -> bytes:
    return canonical(models.release_record(2, digest))


def vocabulary(values: Any) -> dict[str, Any]:
    return {"categorical": [{"name": "carrier", "vocabulary": values}]}


MALFORMED: dict[str, Callable[[World], str | bytes]] = {
    "learned.json is not JSON": lambda world: world.seal(learned=b"{"),
    "learned.json is a list": lambda world: world.seal(learned=b"[]"),
    "the digest is a number": lambda _: record_of(7),
    "the digest is null": lambda _: record_of(None),
    "blobs of the manifest is a list": lambda world: world.store.put_json({"format": 1, "blobs": ["model.onnx"]}),
    "a record is nested deep": lambda _: DEEP,
    "a vocabulary is a number": lambda world: world.seal(learned=canonical(vocabulary(7))),
    "learned.json lacks a vocabulary": lambda world: world.seal(learned=canonical(vocabulary(["AA"]))),
    "learned.json is nested deep": lambda world: world.seal(learned=DEEP),
    "contract.json is nested deep": lambda world: world.seal(contract=DEEP),
    "the manifest is nested deep": lambda world: world.store.put(DEEP),
    "the manifest names a path": lambda world: world.store.put_json(
        {"format": 1, "blobs": {"model.onnx": {"sha256": "../../../etc/passwd", "bytes": 1}}}
    ),
}
"""Digests of bundles, which are released, and records of a release."""


@pytest.mark.parametrize("damage", MALFORMED.values(), ids=MALFORMED)
def test_malformed_content_is_named_and_the_next_release_is_loaded(
    world: World, damage: Callable[[World], str | bytes]
) -> None:
    damaged = damage(world)
    if isinstance(damaged, bytes):
        (world.root / RELEASES / "00000002.json").write_bytes(damaged)
    else:
        models.release(str(world.root), damaged)
    for _ in range(3):
        assert not world.app.follower.look()
    world.names_a_problem()
    world.loads_the_next()


@pytest.mark.parametrize("head", [b"9" * 5_000, b"9" * 200, b"-1", b"\xff", "³".encode()])
def test_a_head_that_is_not_a_number_is_ignored(world: World, head: bytes) -> None:
    (world.root / RELEASES / "HEAD").write_bytes(head)
    second = models.write_bundle(world.store, bias=2.0)
    Ledgers(str(world.root), models.PRODUCT).create(naming.VERDICTS, second, documents.verdict(second))
    (world.root / RELEASES / "00000002.json").write_bytes(record_of(second))
    world.app.follower.look()
    assert (world.app.follower.live.model.digest, world.app.follower.problem) == (second, None)


def test_an_unreachable_s3_is_one_line_of_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = iter(range(100))

    def away(*_: Any) -> bool:
        text = f"Generic S3 error: Error performing HEAD http://h/b in {next(seconds)}.5s, after 10 retries, "
        raise obstore.exceptions.GenericError(f"{text}max_retries: 10, retry_timeout: 180s  - HTTP error")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "size", away)
        for _ in range(3):
            world.app.follower.look()
        assert "Error performing HEAD http://h/b - HTTP error" in world.names_a_problem()
    world.app.follower.look()
    assert world.app.follower.problem is None


def damaged(draw: random.Random, path: Path) -> str:
    """Damage a file at random and return how. Who runs tests may read everything, so nothing is just unreadable."""
    kind = draw.choice(("gone", "cut", "nested", "swapped", "folder", "dangling link", "loop of links", "pipe"))
    data = path.read_bytes()
    path.unlink()
    if kind == "cut":
        path.write_bytes(data[: draw.randrange(max(1, len(data)))])
    elif kind == "nested":
        path.write_bytes(DEEP)
    elif kind == "swapped":
        try:
            document = json.loads(data)
        except ValueError:
            document = None
        if isinstance(document, dict):
            document[draw.choice(list(document))] = draw.choice(STRANGE)
        path.write_bytes(canonical(document))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "gone":
        path.symlink_to(path if kind == "loop of links" else "nowhere")
    return f"{kind}: {path}"


@pytest.mark.costly
@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_drawn_damage_stops_the_follower(world: World, seed: int) -> None:
    draw, follower, refused = random.Random(seed), world.app.follower, 0
    for number in range(2, 2 + 2 * STORES, 2):
        last, newest = follower.live.model.digest, world.release(number)
        blobs = world.store.bundle(newest).manifest["blobs"]
        record = world.root / RELEASES / f"{number:08d}.json"
        digests = [newest, *(blobs[name]["sha256"] for name in sealed.USED if name in blobs)]
        verdict = world.root / f"ledgers/{models.PRODUCT}/verdicts/{newest}.json"
        places = [record.with_name("HEAD"), record, verdict, *(world.root / naming.blob_path(one) for one in digests)]
        path = draw.choice(places)
        data, how = path.read_bytes(), damaged(draw, path)
        for _ in range(2):
            follower.look()
        live, problem = follower.live.model.digest, follower.problem
        # An empty newest record does not count: it is a write undone by a power failure (`store.ledgers`).
        is_gone = not record.exists() or (record.is_file() and not record.stat().st_size)
        assert (live == last and (problem is not None or is_gone)) or (live, problem) == (newest, None), (seed, how)
        assert problem is None or (20 < len(problem) < 1000 and "failed with" not in problem), (seed, how, problem)
        assert world.app.predict(models.row())[1]["digest"] == live, (seed, how)
        refused += problem is not None
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(data)
        world.loads_the_next(number + 1)
    assert refused > STORES / 2
