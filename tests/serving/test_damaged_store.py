"""For any damage to the store: the problem is named, the last good model answers, the next good release is loaded."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest

from platform_assets.base import naming
from platform_assets.store import objects
from platform_assets.store.artifacts import ArtifactStore, canonical
from platform_assets.store.ledgers import Ledgers
from platform_assets.training import sealed
from tests.doubles import documents, models
from tests.volume import draws

DEEP = b"[" * 100_000 + b"]" * 100_000
RELEASES = f"ledgers/{models.PRODUCT}/{naming.RELEASES}"
SEEDS, STORES = draws(20), 100
"""Number of seeds, and of damaged stores per seed."""
STRANGE = (None, True, 0, -1, 1.5, 10**30, "", "x", "f" * 64, "../../etc/passwd", [], [1], {}, {"a": {}}, [[]], "\x00")
"""Replacements for a value."""


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
        assert "driftline_release_has_problem 1.0" in self.app.probe("/metrics")[1].decode()
        assert self.app.predict(models.row())[1]["digest"] == self.first
        lines = [record for record in self.log.records if record.name.endswith("driftline")]
        assert len(lines) == 1 and state["problem"] in lines[0].getMessage()
        return state["problem"]

    def loads_the_next(self) -> None:
        """Release another good bundle and check that it is loaded within two looks."""
        digest = models.write_bundle(self.store, bias=3.0)
        ledgers = Ledgers(str(self.root), models.PRODUCT)
        ledgers.create(naming.VERDICTS, digest, documents.verdict(digest))
        ledgers.create_number(naming.RELEASES, 3, models.release_record(3, digest))
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


MALFORMED: dict[str, Callable[[World], Any]] = {
    "learned.json is not JSON": lambda world: models.release(str(world.root), world.seal(learned=b"{")),
    "learned.json is a list": lambda world: models.release(str(world.root), world.seal(learned=b"[]")),
    "the digest is a number": lambda world: world.root.joinpath(RELEASES, "00000002.json").write_bytes(record_of(7)),
    "the digest is null": lambda world: world.root.joinpath(RELEASES, "00000002.json").write_bytes(record_of(None)),
    "blobs of the manifest is a list": lambda world: models.release(
        str(world.root), world.store.put_json({"format": 1, "blobs": ["model.onnx"]})
    ),
    "a record is nested deep": lambda world: world.root.joinpath(RELEASES, "00000002.json").write_bytes(DEEP),
    "a vocabulary is a number": lambda world: models.release(
        str(world.root), world.seal(learned=b'{"categorical": [{"name": "carrier", "vocabulary": 7}]}')
    ),
    "learned.json lacks a vocabulary": lambda world: models.release(
        str(world.root), world.seal(learned=b'{"categorical": [{"name": "carrier", "vocabulary": ["AA"]}]}')
    ),
    "learned.json is nested deep": lambda world: models.release(str(world.root), world.seal(learned=DEEP)),
    "contract.json is nested deep": lambda world: models.release(str(world.root), world.seal(contract=DEEP)),
    "the manifest is nested deep": lambda world: models.release(str(world.root), world.store.put(DEEP)),
    "the manifest names a path": lambda world: models.release(
        str(world.root),
        world.store.put_json({"format": 1, "blobs": {"model.onnx": {"sha256": "../../../etc/passwd", "bytes": 1}}}),
    ),
}


@pytest.mark.parametrize("damage", MALFORMED.values(), ids=MALFORMED)
def test_malformed_content_is_named_and_the_next_release_is_loaded(
    world: World, damage: Callable[[World], Any]
) -> None:
    damage(world)
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


# Five hundred damaged stores; in CI two thousand ---------------------------------------------------------------------


class Damage:
    """Draws random damage to a store whose second release is good.

    The process may be root, whom `chmod` does not stop, so an unreadable file is replaced by a folder, a dangling link,
    a loop of links or a pipe.
    """

    def __init__(self, draw: random.Random, root: Path, second: str, hanging: set[str]) -> None:
        self.draw, self.root, self.second, self.hanging = draw, root, second, hanging
        self.store, self.description = ArtifactStore(str(root)), ""
        self.shared: dict[Path, bytes] = {}
        self.newest = second

    def do(self) -> None:
        kinds = {"sealed": 4, "truncated": 3, "nested": 2, "swapped": 3, "deleted": 1, "unreadable": 4, "slow": 1}
        kind = self.draw.choices(list(kinds), list(kinds.values()))[0]
        if kind == "sealed":
            self._sealed()
            return
        path = self.draw.choice(self._paths())
        self.description = f"{kind}: {path.name}"
        data = path.read_bytes()
        if "sha256" in path.parts and path.name != self.second:
            self.shared[path] = data
        if kind == "slow":
            self.hanging.add(str(path.relative_to(self.root)))
            return
        path.unlink()
        if kind == "unreadable":
            self._unreadable(path)
        elif kind != "deleted":
            path.write_bytes(self._malformed(data, kind))

    def restore_shared_blobs(self) -> None:
        """Restore a damaged blob that the next release also uses, such as the contract, to keep that release good."""
        for path, data in self.shared.items():
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(data)

    def _paths(self) -> list[Path]:  # damage to a blob that a service does not use is not noticed
        ledgers = self.root / "ledgers" / models.PRODUCT
        blobs = self.store.bundle(self.second).manifest["blobs"]
        return [
            ledgers / "releases/HEAD",
            ledgers / "releases/00000002.json",
            ledgers / f"verdicts/{self.second}.json",
            self.root / naming.blob_path(self.second),
            *(self.root / naming.blob_path(blob["sha256"]) for name, blob in blobs.items() if name in sealed.USED),
        ]

    def _unreadable(self, path: Path) -> None:
        kind = self.draw.choice(("folder", "dangling", "loop", "pipe"))
        self.description += f" ({kind})"
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(path if kind == "loop" else "nowhere")

    def _sealed(self) -> None:
        """Damage a document of the bundle and seal it again, so that every digest is valid."""
        kind, name = self.draw.choice(("truncated", "nested", "swapped")), self.draw.choice(("learned", "contract", ""))
        self.description = f"sealed: {name or 'manifest'} {kind}"
        manifest = self.store.bundle(self.second).manifest
        if name:
            entry = manifest["blobs"][f"{name}.json"]
            entry["sha256"] = self.store.put(self._malformed(self.store.get(entry["sha256"]), kind))
            sealed = self.store.put_json(manifest)
        else:
            sealed = self.store.put(self._malformed(canonical(manifest), kind))
        path = self.root / RELEASES / "00000002.json"
        path.unlink()
        path.write_bytes(record_of(sealed))
        self.newest = sealed
        if sealed != self.second:
            Ledgers(str(self.root), models.PRODUCT).create(naming.VERDICTS, sealed, documents.verdict(sealed))

    def _malformed(self, data: bytes, kind: str) -> bytes:
        if kind == "nested":
            return DEEP
        if kind == "truncated":
            return data[: self.draw.randrange(len(data))] if data else b""
        try:
            document = json.loads(data)
        except ValueError:
            return canonical(self.draw.choice(STRANGE))
        return canonical(self._swapped(document))

    def _swapped(self, value: Any) -> Any:
        """Return a document with one value, anywhere in it, swapped for one of another type."""
        if isinstance(value, dict | list) and value and self.draw.random() < 0.8:
            at = self.draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
            value[at] = self._swapped(value[at])
            return value
        return self.draw.choice(STRANGE)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str, str]]:
    """A store with two releases, and a bundle for the third."""
    root = tmp_path_factory.mktemp("template") / "store"
    store = ArtifactStore(str(root))
    first, second, third = (models.write_bundle(store, bias=bias) for bias in (1.0, 2.0, 3.0))
    for digest in (first, second):
        models.release(str(root), digest)
    return root, (first, second, third)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_damaged_store_stops_the_follower(
    seed: int,
    app: Any,
    template: tuple[Path, tuple[str, str, str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, digests = template
    hanging: set[str] = set()
    read, is_released = objects.read, threading.Event()

    def slow(store: Any, path: str, bytes_max: int | None = None) -> bytes | None:
        if path in hanging:
            is_released.wait()
        return read(store, path, bytes_max)

    monkeypatch.setattr(objects, "read", slow)
    outcomes: Counter[str] = Counter()
    for number in range(STORES):
        is_released.clear()
        restore(original, app.folder / "store")
        damage = Damage(random.Random(f"{seed} {number}"), app.folder / "store", digests[1], hanging)
        try:
            outcomes[check_one(app, damage, digests, caplog, is_released)] += 1
        except BaseException as problem:
            problem.add_note(f"seed {seed}, store {number}, {damage.description}")
            raise
    assert outcomes["refused"] > STORES / 2, outcomes


@functools.cache
def inodes_of(original: Path) -> dict[Path, int]:
    """Return the inode of each file below a folder, by its path there."""
    return {path.relative_to(original): path.stat().st_ino for path in original.rglob("*") if path.is_file()}


def restore(original: Path, root: Path) -> None:
    """Make a store equal to the template by links; nearly all files of a damaged store still are."""
    expected = {root / place: inode for place, inode in inodes_of(original).items()}
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            if expected.get(path) != path.lstat().st_ino:
                path.unlink()
        elif path in expected:
            path.rmdir()
    for path in expected:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(original / path.relative_to(root))


def check_one(
    app: Any, damage: Damage, digests: tuple[str, str, str], caplog: Any, is_released: threading.Event
) -> str:
    """Look at a damaged store; return whether its second release was refused, is gone, or was loaded nevertheless."""
    first, _, third = digests
    root = damage.root
    newest = [root / RELEASES / name for name in ("HEAD", "00000002.json")]
    data = [path.read_bytes() for path in newest]
    for path in newest:
        path.unlink()
    follower = app.follow()
    assert follower.look()
    for path, content in zip(newest, data, strict=True):
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    damage.do()
    caplog.clear()
    seconds = follower._reading.seconds
    if damage.hanging:
        follower._reading.seconds = follower._loading.seconds = 0.02
    problems = [None]
    for _ in range(2):
        follower.look()
        problems.append(follower.problem)
    live, problem = follower.live.model.digest, follower.problem
    # An empty newest record does not count: it is a write undone by a power failure (`store.ledgers`).
    is_gone = not newest[1].exists() or (newest[1].is_file() and not newest[1].stat().st_size)
    is_named = problem is not None or is_gone
    assert is_named if live == first else (live, problem) == (damage.newest, None), (live, problem)
    answer = app.predict(models.row(features={"origin": None}))[1]  # a damaged vocabulary may refuse any other
    assert answer["digest"] == live
    state = json.loads(app.probe("/readyz")[1])
    assert (state["digest"], state["is_ready"], state["problem"]) == (live, True, problem)
    gauge = f"driftline_release_has_problem {float(problem is not None)}"
    assert gauge in app.probe("/metrics")[1].decode()
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("driftline")]
    assert len(lines) == sum(one != other for one, other in itertools.pairwise(problems)), lines
    if problem is not None:
        assert (
            problem in lines[-1]
            and 20 < len(problem) < 1000
            and "failed by" not in problem
            and "failed with" not in problem
        ), problem
    damage.hanging.clear()
    is_released.set()
    for deadline in (follower._reading, follower._loading):
        for thread in deadline._abandoned:
            thread.join(60)
            assert not thread.is_alive(), damage.description
        deadline.seconds = seconds
    damage.restore_shared_blobs()
    ledgers = Ledgers(str(root), models.PRODUCT)
    ledgers.create(naming.VERDICTS, third, documents.verdict(third))
    ledgers.create_number(naming.RELEASES, 3, models.release_record(3, third))
    follower.look()
    follower.look()
    assert (follower.live.model.digest, follower.problem) == (third, None)
    return "taken" if live != first else "gone" if is_gone else "refused"
