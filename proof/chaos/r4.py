"""Tampered bundles and records: refused by name, the last good model answers.

A service with pinned keys follows release 2; then whoever can write to its store attacks release 3, one attack at a
time on a fresh store. After each the newest release must be refused by a sentence that names it, release 2 must answer,
nothing may have been executed, and once the attack is undone the service must follow the next good release. Attacks by
the holder of the key (malformed content, pickles and harmful graphs, all signed and sealed) are among them. The peer
follows the newest record and loads its graph, as a service without verification does. Costs are medians of rounds, on
a bundle with a graph as large as a shipped product's.
"""

import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from platform_assets.base import naming
from platform_assets.serving.follow.releases import read
from platform_assets.store import objects, signatures
from platform_assets.store.artifacts import ArtifactStore, sha256
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.records.releases import RELEASES
from platform_assets.training.sealed import Sealed
from proof.benchmarks.harness import Measure
from proof.chaos import r4_worker
from proof.chaos.r4_attacks import ATTACKS, KEY, Template
from tests.doubles import models

ROUNDS, REPEATS = 25, 20
GRAPH_BYTES = 895_985
"""Graph, contract and vocabulary of the flights: what serving reads of a bundle, but for its golden rows."""
shown: list[str] = []


def run() -> list[Measure]:
    shown.clear()
    outcomes: dict[str, Counter[str]] = {}
    rng = random.Random(17)
    with tempfile.TemporaryDirectory() as folder:
        template = Template(Path(folder))
        for kind, attacks in ATTACKS.items():
            counted = outcomes[kind] = Counter()
            for attack, times in attacks.items():
                for _ in range(times):
                    world = template.world()
                    attack(world, rng)
                    for _ in range(2):
                        world.app.follower.look()
                    problem, live = world.app.follower.problem or "", world.app.follower.live
                    is_named = any(name in problem for name in ("release 3", "00000003.json", template.third))
                    is_refused = is_named and live.release == 2 and "failed with" not in problem
                    status, answer = world.app.predict(models.row())
                    result = Counter(
                        attacks=1, refused=is_refused, answered=status == 200 and answer["digest"] == template.second
                    )
                    result["executed"] = int(template.marker.exists())
                    if not is_refused:
                        shown.append(f"NOT REFUSED BY NAME: {attack.__name__}: live {live.release}, {problem!r:.300}")
                        print(shown[-1], flush=True)
                    if not world.is_unsafe_to_load:
                        result["asked naively"] = 1
                        result["naive"] = int(not world.loads_without_verification())
                    expected = world.undo()
                    for _ in range(2):
                        world.app.follower.look()
                    result["followed"] = int(
                        (world.app.follower.live.release, world.app.follower.problem) == (expected, None)
                    )
                    if not result["followed"]:
                        shown.append(f"NOT FOLLOWED AFTERWARDS: {attack.__name__}: {world.app.follower.problem!r:.300}")
                        print(shown[-1], flush=True)
                    counted.update(result)
            shown.append(
                f"{kind}: {counted['attacks']} attacks, {counted['refused']} refused by name, "
                f"{counted['answered']} times the last good model answered, {counted['naive']} of "
                f"{counted['asked naively']} refused without verification"
            )
            print(shown[-1], flush=True)
    total: Counter[str] = sum(outcomes.values(), Counter())
    naive = 100 * total["naive"] / total["asked naively"]
    count = total["attacks"]
    return [
        Measure(
            f"% of {count} attacks refused by name",
            100 * total["refused"] / count,
            peers={"no verification": naive},
            limit=100,
            target=">= 100 %",
        ),
        Measure(f"% of {count}: the last good model answers", 100 * total["answered"] / count, target=">= 100 %"),
        Measure(
            f"% of {count}: undone, the next good release is followed",
            100 * total["followed"] / count,
            target=">= 100 %",
        ),
        Measure("executions of what was stored", total["executed"], target="<= 0"),
        *_costs(),
        *r4_worker.measures(shown),
    ]


def _costs() -> list[Measure]:
    """Compare what is verified of a shipped product's release with the sha256 of the bytes used."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        ledgers, store, pinned = Ledgers(folder, models.PRODUCT), ArtifactStore(folder), (signatures.public_key(KEY),)
        digest = models.write_bundle(store, graph=random.Random(5).randbytes(GRAPH_BYTES))
        number = models.signed_release(folder, digest, KEY)
        used = _used(ledgers, store, number, digest, pinned)
        data = [content for _, content in used]
        records = {path.rpartition("/")[2]: content for path, content in used if path.startswith("ledgers/")}
        release_bytes, release = records[f"{number:08d}.json"], ledgers.of(RELEASES).at(number)
        assert release is not None

        def verify() -> None:
            for content in data:
                sha256(content)
            # The verdict's signature is not checked: the release names its hash, and the same key signed both.
            signatures.check(naming.RELEASES, release_bytes, release.signed, pinned)

        def hash_alone() -> None:
            for content in data:
                sha256(content)

        def whole() -> None:
            read(ledgers, number, 0, None, pinned)
            Sealed.read(store, digest)

        def read_and_hash() -> None:
            for path, _ in used:
                sha256(objects.read(store._store, path) or b"")

        verification, hashes, everything, plain = _cpu_us(verify, hash_alone, whole, read_and_hash)
    total = sum(map(len, data))
    shown.append(f"the release uses {total} bytes in {len(data)} objects; its bundle has others, unread")
    return [
        Measure(
            "verification of a release, CPU-us, against sha256 of the bytes used",
            verification,
            limit=hashes,
            target="<= 1.5x limit",
        ),
        Measure("the same with reading and decoding, against reading and sha256", everything, limit=plain),
        Measure(
            "blobs read that serving does not use",
            max(0, sum(path.startswith("artifacts/") for path, _ in used) - 5),
            target="<= 0",
        ),
    ]


def _used(
    ledgers: Ledgers, store: ArtifactStore, number: int, digest: str, pinned: tuple[str, ...]
) -> list[tuple[str, bytes]]:
    """Return path and content of each object that following a release reads."""
    used: list[tuple[str, bytes]] = []
    original = objects.read

    def recording(opened: Any, path: str, bytes_max: int | None = None) -> bytes | None:
        content = original(opened, path, bytes_max)
        if content is not None:
            used.append((path, content))
        return content

    objects.read = recording
    try:
        read(ledgers, number, 0, None, pinned)
        Sealed.read(store, digest)
    finally:
        objects.read = original
    return used


def _cpu_us(*jobs: Callable[[], None]) -> list[float]:
    """Return the median CPU of each job, over rounds in which all of them run."""
    rounds: list[list[float]] = [[] for _ in jobs]
    for _ in range(ROUNDS):
        for times, job in zip(rounds, jobs, strict=True):
            started = time.process_time()
            for _ in range(REPEATS):
                job()
            times.append((time.process_time() - started) / REPEATS * 1e6)
    return [statistics.median(times) for times in rounds]
