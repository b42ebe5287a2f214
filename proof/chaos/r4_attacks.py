"""The attacks of row R4, by kind, and the store and service that they are made on."""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from platform_assets.base import naming
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.local_copy import LocalCopy
from platform_assets.store.artifacts import ArtifactStore, canonical
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.signatures import public_key
from tests.doubles import documents, models
from tests.serving.conftest import App, Untried

KEY, STRANGER, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([place] * 32)) for place in (1, 2, 3))
PINNED = (public_key(OTHER), public_key(KEY))
TRIAL_S = 5.0
USED = ("model.onnx", "contract.json", "learned.json", "golden.json")
DEEP = b"[" * 100_000 + b"]" * 100_000
STRANGE = (None, True, 0, -1, 1.5, 10**30, "", "x", "f" * 64, "../../etc/passwd", [], [1], {}, {"a": {}}, "\x00", 2**63)
Change = dict[str, Any]


class Template:
    """A store with three signed releases, of which a service has followed two; every attack gets a copy of both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.marker = folder / "executed"
        self.original = folder / "original"
        app = _app(self.original)
        for bias in (1.0, 2.0):
            self.second = _seal(app.store, bias)
            models.signed_release(str(self.original / "store"), self.second, KEY)
            assert app.follower.look(), app.follower.problem
        self.third = _seal(app.store, 3.0)
        models.signed_release(str(self.original / "store"), self.third, KEY)

    def world(self) -> Attacked:
        """Return a copy whose service follows release 2."""
        if self.count:
            shutil.rmtree(self.folder / f"world{self.count}")
        self.count += 1
        folder = self.folder / f"world{self.count}"
        shutil.copytree(self.original, folder)
        return Attacked(self, folder)


class Attacked:
    """A store to attack, and the service that follows it.

    Attributes:
        app: the service.
        is_unsafe_to_load: reading it without bounds would end or block this process.
    """

    def __init__(self, template: Template, folder: Path) -> None:
        self.template, self.root = template, folder / "store"
        self.is_unsafe_to_load = False
        self._away = folder / "away"
        self.app = _app(folder, trial=Untried(60))
        third = [self.path(naming.RELEASES, 3), self.path(naming.VERDICTS, template.third)]
        contents = [path.read_bytes() for path in third]
        third[0].unlink()
        (third[0].parent / "HEAD").write_bytes(b"2")
        self.app.follower.fall_back()
        self.app.follower.look()
        assert self.app.follower.live.release == 2, self.app.follower.problem
        for path, content in zip(third, contents, strict=True):
            path.write_bytes(content)
        shutil.copytree(self.root, self._away)

    @property
    def ledgers(self) -> Ledgers:
        return Ledgers(str(self.root), models.PRODUCT)

    @property
    def store(self) -> ArtifactStore:
        return self.app.store

    def path(self, ledger: str, name: str | int) -> Path:
        name = f"{name:08d}" if isinstance(name, int) else name
        return self.root / naming.ledger_path(models.PRODUCT, ledger) / f"{name}.json"

    def blob(self, name: str, digest: str | None = None) -> Path:
        """Return the file of a blob of the third bundle, or its manifest's for no name."""
        bundle = self.store.bundle(digest or self.template.third)
        return self.root / naming.blob_path(bundle.manifest["blobs"][name]["sha256"] if name else bundle.digest)

    def used(self, rng: random.Random) -> Path:
        """Return the file of any object that following release 3 reads."""
        records = [self.path(naming.RELEASES, 3), self.path(naming.VERDICTS, self.template.third)]
        return rng.choice([*records, *(self.blob(name) for name in (*USED, ""))])

    def replace_release(self, digest: str, key: Ed25519PrivateKey = KEY, **changes: Any) -> None:
        """Replace release 3 by a signed one of a bundle, with a signed verdict."""
        self.path(naming.RELEASES, 3).unlink()
        self.ledgers.hint(naming.RELEASES, 2)
        models.signed_release(str(self.root), digest, key, **changes)

    def undo(self) -> int:
        """Put the store back; return the release that must be followed.

        A record that the holder of the key signed used up the number 3, although its model cannot be served: then it
        stays, and release 4 follows.
        """
        follower, path = self.app.follower, self.path(naming.RELEASES, 3)
        record = path.read_bytes() if follower.highest == 3 else None
        follower._refused, follower._trial = None, Untried(60)
        shutil.rmtree(self.root)
        shutil.copytree(self._away, self.root)
        if record is None or record == path.read_bytes():
            return 3
        path.write_bytes(record)
        return models.signed_release(str(self.root), self.template.third, KEY)

    def loads_without_verification(self) -> bool:
        """Tell whether a service that verifies nothing loads the newest record's graph."""
        try:
            _, record = self.ledgers.latest(naming.RELEASES) or (0, {})
            digest = record["channels"]["live"]["digest"]
            manifest = json.loads((self.root / naming.blob_path(digest)).read_bytes())
            graph = (self.root / naming.blob_path(manifest["blobs"]["model.onnx"]["sha256"])).read_bytes()
            session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001  # whatever the attack made unreadable
            return False
        return session is not None and digest != self.template.second


def _app(folder: Path, **changes: Any) -> App:
    return App(folder, local_copy=LocalCopy(folder / "kept"), pinned_keys=PINNED, **changes)


def _seal(store: ArtifactStore, bias: float, **blobs: bytes) -> str:
    """Store a bundle with golden rows, with some blobs replaced and valid digests on every level."""
    document = models.contract()
    digest = models.write_bundle(store, bias=bias, golden=models.golden_of(document, bias))
    manifest = store.bundle(digest).manifest
    for name, data in blobs.items():
        file = {"graph": "model.onnx"}.get(name, f"{name}.json")
        manifest["blobs"][file] = {"sha256": store.put(data), "bytes": len(data)}
    return store.put_json(manifest) if blobs else digest


# Flips, truncations, swaps, links -------------------------------------------------------------------------------------


def flip(world: Attacked, rng: random.Random) -> None:
    path = world.used(rng)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(world: Attacked, rng: random.Random) -> None:
    path = world.used(rng)
    # An empty newest record is an undone write and does not count, so at least one byte is left.
    path.write_bytes(path.read_bytes()[: rng.randrange(1, path.stat().st_size)])


def extend(world: Attacked, rng: random.Random) -> None:
    path = world.used(rng)
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def remove(world: Attacked, rng: random.Random) -> None:
    paths = [world.path(naming.VERDICTS, world.template.third), *(world.blob(name) for name in (*USED, ""))]
    rng.choice(paths).unlink()


def swap_blobs(world: Attacked, rng: random.Random) -> None:
    """Put the valid blob of another bundle, or another blob of this one, in a blob's place."""
    name = rng.choice((*USED, ""))
    others = [world.blob(name, world.template.second), *(world.blob(other) for other in USED if other != name)]
    fitting = [path for path in others if path != world.blob(name)]
    world.blob(name).write_bytes(rng.choice(fitting).read_bytes())


def swap_verdicts(world: Attacked, _: random.Random) -> None:
    shutil.copyfile(
        world.path(naming.VERDICTS, world.template.second), world.path(naming.VERDICTS, world.template.third)
    )


def swap_digests(world: Attacked, _: random.Random) -> None:
    """Name another bundle in the signed record."""
    _edit(world.path(naming.RELEASES, 3), {"channels": {"live": {"digest": world.template.second, "share": 1.0}}})


def link_elsewhere(world: Attacked, rng: random.Random) -> None:
    """Replace an object by a link to another file, a device, a folder, a pipe or itself."""
    path = world.used(rng)
    path.unlink()
    choice = rng.choice(("/etc/passwd", "/dev/zero", "/proc/self/mem", "/proc/kmsg", ".", path.name, "pipe", "gone"))
    world.is_unsafe_to_load = True
    if choice == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(choice)
    if choice in ("/proc/self/mem", "gone", "/proc/kmsg") and path == world.path(naming.RELEASES, 3):
        # A record that reads as empty or absent is an undone write; take one with content instead.
        path.unlink()
        path.symlink_to("/etc/passwd")


# Replays and forgeries ------------------------------------------------------------------------------------------------


def replay_older(world: Attacked, rng: random.Random) -> None:
    shutil.copyfile(world.path(naming.RELEASES, rng.choice((1, 2))), world.path(naming.RELEASES, 3))


def replay_renumbered(world: Attacked, _: random.Random) -> None:
    """Store an older record under the new number, with its members made to fit."""
    first = json.loads(world.path(naming.RELEASES, 1).read_bytes())
    world.path(naming.RELEASES, 3).write_bytes(canonical({**first, "previous": 2}))


def replay_of_another_store(world: Attacked, _: random.Random) -> None:
    """Store the third release of another store, signed with the same key; its bundle and verdict come with it."""
    other = world.root.parent / "other"
    store = ArtifactStore(str(other))
    for bias in (4.0, 5.0, 6.0):
        digest = _seal(store, bias)
        models.signed_release(str(other), digest, KEY)
    shutil.copytree(other / "artifacts", world.root / "artifacts", dirs_exist_ok=True)
    for ledger, name in ((naming.VERDICTS, digest), (naming.RELEASES, f"{3:08d}")):
        source = other / naming.ledger_path(models.PRODUCT, ledger) / f"{name}.json"
        shutil.copyfile(source, world.path(ledger, name))


def replay_after_restart(world: Attacked, _: random.Random) -> None:
    """Offer an older record as the newest to a restarted service."""
    replay_older(world, random.Random(0))
    world.app.follow(trial=Untried(60)).fall_back()


def unsigned(world: Attacked, _: random.Random) -> None:
    document = json.loads(world.path(naming.RELEASES, 3).read_bytes())
    del document["signed"]
    world.path(naming.RELEASES, 3).write_bytes(canonical(document))


def unsigned_older_format(world: Attacked, _: random.Random) -> None:
    record = models.release_record(3, world.template.third)
    world.path(naming.RELEASES, 3).write_bytes(canonical({**record, "format": 2}))


def strange_key(world: Attacked, _: random.Random) -> None:
    world.replace_release(world.template.third, STRANGER)


def borrowed_name_of_a_key(world: Attacked, _: random.Random) -> None:
    strange_key(world, random.Random(0))
    path = world.path(naming.RELEASES, 3)
    _edit(path, {"signed": {**json.loads(path.read_bytes())["signed"], "key": PINNED[1]}})


def borrowed_signature(world: Attacked, _: random.Random) -> None:
    signature = json.loads(world.path(naming.RELEASES, 2).read_bytes())["signed"]
    _edit(world.path(naming.RELEASES, 3), {"signed": signature})


def forged_override(world: Attacked, _: random.Random) -> None:
    _edit(world.path(naming.RELEASES, 3), {"override": {"by": "ada", "reason": "it is late"}})


def forged_verdict(world: Attacked, _: random.Random) -> None:
    verdict = documents.verdict(world.template.third)
    world.path(naming.VERDICTS, world.template.third).write_bytes(
        canonical(models.signed(naming.VERDICTS, verdict, STRANGER))
    )


def verdict_turned(world: Attacked, _: random.Random) -> None:
    """Release a model that failed, with `passed` turned afterwards."""
    digest = _seal(world.store, 9.0)
    verdict = models.signed(naming.VERDICTS, documents.verdict(digest, passed=False), KEY)
    world.ledgers.create(naming.VERDICTS, digest, verdict)
    world.replace_release(digest)
    _edit(world.path(naming.VERDICTS, digest), {"passed": True})


def _edit(path: Path, members: Change) -> None:
    path.write_bytes(canonical({**json.loads(path.read_bytes()), **members}))


# Content that the holder of the key signed ----------------------------------------------------------------------------


def _pickle(path: Path) -> bytes:
    """Return a pickle, written by hand, that makes a folder where it is loaded."""
    return f"cos\nmkdir\n(V{path}\ntR.".encode()


def pickled(world: Attacked, rng: random.Random) -> None:
    world.used(rng).write_bytes(_pickle(world.template.marker))


def sealed_pickle(world: Attacked, rng: random.Random) -> None:
    data = _pickle(world.template.marker)
    world.replace_release(_seal(world.store, 4.0, **{rng.choice(("graph", "learned", "golden", "contract")): data}))


def sealed_malformed(world: Attacked, rng: random.Random) -> None:
    name = rng.choice(("learned", "golden", "contract", "graph"))
    contents = (b"", b"{", b"[]", b"null", b"\xff", DEEP, b'{"categorical": 7}', b'{"categorical": [{"name": 1}]}')
    world.replace_release(_seal(world.store, 4.0, **{name: rng.choice(contents)}))


def sealed_manifest(world: Attacked, rng: random.Random) -> None:
    manifest = world.store.bundle(world.template.third).manifest
    blob = rng.choice(USED[:3])
    broken = [
        DEEP,
        b"[]",
        canonical({**manifest, "blobs": ["model.onnx"]}),
        canonical({**manifest, "format": 9}),
        canonical({**manifest, "blobs": {**manifest["blobs"], blob: {"sha256": "../../../etc/passwd", "bytes": 1}}}),
        canonical({**manifest, "blobs": {**manifest["blobs"], blob: {"sha256": 7, "bytes": 1}}}),
        canonical({**manifest, "blobs": {**manifest["blobs"], blob: {"sha256": "f" * 64, "bytes": "many"}}}),
        canonical({**manifest, "blobs": {name: item for name, item in manifest["blobs"].items() if name != blob}}),
        canonical({**manifest, "contract_sha256": "e" * 64}),
    ]
    world.replace_release(world.store.put(rng.choice(broken)))


def malformed_record(world: Attacked, rng: random.Random) -> None:
    """Replace a member of the record by something of another type, with or without a valid signature."""
    record = models.chained(world.ledgers, models.release_record(3, world.template.third))
    name = rng.choice(sorted(set(record) - {"at_utc", "by", "why", "cutoff", "override"}))
    record[name] = rng.choice([value for value in STRANGE if value != record[name]])
    if name in ("verdict_sha256", "previous_sha256", "restores", "outcome"):
        record[name] = rng.choice([True, 1.5, [], {}, "x", ""])
    data = canonical(models.signed(naming.RELEASES, record, KEY) if rng.random() < 0.5 else record)
    world.path(naming.RELEASES, 3).write_bytes(data)


def strange_bytes(world: Attacked, rng: random.Random) -> None:
    contents = (DEEP, b"[]", b"7", b"\xff\xfe", b"{" * 1000, b'{"format":' + b"9" * 5000 + b"}", b"\x00" * 100)
    rng.choice([world.path(naming.RELEASES, 3), world.path(naming.VERDICTS, world.template.third)]).write_bytes(
        rng.choice(contents)
    )


def newer_format(world: Attacked, _: random.Random) -> None:
    record = models.chained(world.ledgers, models.release_record(3, world.template.third), format=99, more=1)
    world.path(naming.RELEASES, 3).write_bytes(canonical(models.signed(naming.RELEASES, record, KEY)))


def grown(world: Attacked, rng: random.Random) -> None:
    """Make an object 200 GB large (a sparse file)."""
    os.truncate(world.used(rng), 200 * 2**30)
    world.is_unsafe_to_load = True


def compressed_bomb(world: Attacked, rng: random.Random) -> None:
    """Replace a blob by a compressed file that unpacks to 4 GB."""
    path = world.blob(rng.choice(USED))
    path.unlink()
    packing, zeros = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16), b"\0" * 2**24
    packed = b"".join(packing.compress(zeros) for _ in range(4)) + packing.flush()
    path.with_name(f"{path.name}.gz").write_bytes(packed)


def odd_time(world: Attacked, rng: random.Random) -> None:
    """Give a file a time that neither Rust's nor Python's calendar has, and other content."""
    path = world.used(rng)
    flip_of = bytearray(path.read_bytes())
    flip_of[len(flip_of) // 2] ^= 1
    path.write_bytes(flip_of)
    moment = rng.choice((2**55, -(2**60), 253_402_300_800 + 10**6))
    os.utime(path, (moment, moment))


def _signed_graph(graph: Callable[[dict[str, Any]], bytes]) -> Callable[[Attacked, random.Random], None]:
    def attack(world: Attacked, _: random.Random) -> None:
        world.app.follower._trial = Trial(TRIAL_S)
        world.is_unsafe_to_load = True
        world.replace_release(models.write_bundle(world.store, graph=graph(models.contract())))

    attack.__name__ = graph.__name__
    return attack


def other_answers(world: Attacked, _: random.Random) -> None:
    """Sign a graph with the golden rows of another."""
    world.app.follower._trial = Trial(60)
    world.replace_release(_seal(world.store, 4.0, golden=models.golden_of(models.contract(), 3.99)))


ATTACKS: dict[str, dict[Callable[[Attacked, random.Random], None], int]] = {
    "flips": {flip: 60},
    "truncated, extended, removed": {truncate: 30, extend: 10, remove: 10},
    "swaps": {swap_blobs: 15, swap_verdicts: 1, swap_digests: 1},
    "replays": {replay_older: 4, replay_renumbered: 1, replay_of_another_store: 1, replay_after_restart: 1},
    "unsigned and forged": {
        unsigned: 1, unsigned_older_format: 1, strange_key: 1, borrowed_name_of_a_key: 1, borrowed_signature: 1,
        forged_override: 1, forged_verdict: 1, verdict_turned: 1,
    },
    "pickles": {pickled: 12, sealed_pickle: 8},
    "links, pipes, devices": {link_elsewhere: 24},
    "malformed": {
        sealed_malformed: 24, sealed_manifest: 18, malformed_record: 40, strange_bytes: 14, newer_format: 1,
    },
    "files too large or with impossible times": {grown: 8, compressed_bomb: 4, odd_time: 8},
    "signed graphs that do harm": {
        other_answers: 1,
        **{
            _signed_graph(graph): 1
            for graph in (
                models.endless,
                models.endless_to_load,
                models.takes_4_gb,
                models.deep_tree,
                models.divides_by_minus_one,
            )
        },
    },
}  # fmt: skip
"""Attacks by kind, and how often each is made."""
