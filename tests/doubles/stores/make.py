"""Make the stores that `older.py` unpacks. No test runs this: the stores stay as the code of their time wrote them.

Written at commit 2f03d06, under `unshare --uts` with the host's name set to `laptop`, and with LOGNAME=alice:

    python -m tests.doubles.stores.make walk /srv/driftline_hourly
    python -m tests.doubles.stores.make pack hourly_temperature /srv/driftline_hourly --rows
    DRIFTLINE_STATE=/srv/driftline make demo EXIT=1     # ended after 36 of its 45 keys
    python -m tests.doubles.stores.make pack flight_delays /srv/driftline
    DRIFTLINE_STATE=/srv/driftline_garments make demo EXIT=1 PRODUCT=garment_photos
    python -m tests.doubles.stores.make pack garment_photos /srv/driftline_garments

A walk's folder holds `store` and `state`; a demo's state holds its store.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from platform_assets import naming
from platform_assets.factory import build_defs
from platform_assets.settings import REPOSITORY
from platform_assets.storage.artifacts import ArtifactStore
from platform_assets.storage.ledgers import Ledgers
from platform_assets.storage.tables import TableStore
from resources.alerts import AlertsResource
from resources.store import StoreResource
from tests.doubles.launcher import InProcessLauncher
from tests.doubles.stores.older import FOLDER
from tests.goldens.products import KELVIN, hourly
from tests.goldens.walk import Run, Walker, settings_in

ACCEPTED, LAST = "2013-01-03T02", "2013-01-03T04"


def walk(folder: Path) -> None:
    """Walk the odd product: two releases, a repaired and an accepted fault, alerts, an open request."""
    values, settings = hourly(), settings_in(folder)
    os.environ |= settings.to_environment()
    with dg.DagsterInstance.ephemeral() as instance:

        def walker_of(spec: Any) -> Walker:
            launcher = InProcessLauncher(spec, settings)
            defs = build_defs(specs=[spec], resources={"store": StoreResource(), "launcher": launcher})
            return Walker(replace(values, spec=spec), settings, defs, instance)

        walker, cursors = walker_of(values.spec), {}
        walker.advance(values.before)
        walker.retrain(values.cutoffs[0])
        for run in values.after:
            walker.ask(run)
            walker.advance(run)
            tick(walker, cursors)
        walker.retrain(values.cutoffs[1])
        broken = Run(first=values.cutoffs[1], last=ACCEPTED, faults={ACCEPTED: KELVIN})
        walker.ask(broken)
        walker.advance(broken)
        tick(walker, cursors)
        person(walker, "repair", "repair_key", key=values.after[0].last, why="delivered again", by="alice")  # refused
        person(walker, "accept", "accept_key", key=ACCEPTED, why="a sensor was changed", by="alice")
        last = replace(broken, first=walker.spec.grain.shift(ACCEPTED, 1), last=LAST)
        walker.ask(last)
        walker.advance(last)
        tick(walker, cursors)
        idle = replace(values.spec.training, epochs=1, learning_rate=1e-6)
        walker_of(replace(values.spec, training=idle)).retrain(walker.spec.grain.shift(LAST, 1))
        tick(walker, cursors)
        walker.land(Run(first=LAST, last=LAST))  # without the fault, so there is a new delivery of the accepted key
        person(walker, "repair", "repair_key", key=ACCEPTED, why="delivered again", by="alice")


def tick(walker: Walker, cursors: dict[str, str | None]) -> None:
    """Evaluate every sensor once, as the daemon does; the requested runs are not launched."""
    for sensor in walker.defs.sensors or ():
        values = {"store": StoreResource(), "alerts": AlertsResource()}
        context = dg.build_sensor_context(
            instance=walker.instance, resources=values, cursor=cursors.get(sensor.name), sensor_name=sensor.name
        )
        result = sensor(context)
        cursors[sensor.name] = getattr(result, "cursor", None) or cursors.get(sensor.name)


def person(walker: Walker, verb: str, op: str, **config: str) -> None:
    ops = {naming.job(op, walker.spec.name): {"config": config}}
    result = walker.job(verb).execute_in_process(
        instance=walker.instance, run_config={"ops": ops}, raise_on_error=False
    )
    print(verb, "done" if result.success else "refused")


def pack(product: str, folder: Path, *, has_rows: bool) -> Path:
    """Pack a product's part of a store, so that the same store makes the same bytes."""
    at = next(path for path in (folder / "store", folder) if (path / "ledgers").is_dir())
    state = folder / "state" if (folder / "state").is_dir() else folder
    names = {
        **{f"store/{path.relative_to(at)}": path for path in sorted(_of_store(at, product, has_rows=has_rows))},
        f"state/clock/{product}": state / "clock" / product,
        **{f"state/predictions/{product}/{path.name}": path for path in _log(state, product) if has_rows},
    }
    packed = FOLDER / f"{product}.tar.xz"
    with tarfile.open(packed, "w:xz", preset=9, format=tarfile.PAX_FORMAT) as archive:
        for name, path in names.items():
            data = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), int(path.stat().st_mtime)
            for secret in (str(REPOSITORY), str(Path.home())):
                if secret.encode() in data:
                    raise ValueError(f"{name} names {secret}, a place of this machine.")
            archive.addfile(member, io.BytesIO(data))
    return packed


def _of_store(at: Path, product: str, *, has_rows: bool) -> Iterator[Path]:
    for folder in ("landing", "tables") if has_rows else ():
        yield from _files(at / folder / product)
    yield from _files(at / "ledgers" / product)
    for stage in sorted((at / "records" / product).iterdir()):
        yield from _files(stage / "_delta_log")
        yield from _current(stage)
    if has_rows:
        yield from _files(at / "artifacts")
    else:
        yield from (at / naming.blob_path(digest) for digest in _blobs(str(at), product))


def _current(stage: Path) -> Iterator[Path]:
    """Yield the files of the current version of a table; only its log names files folded away."""
    from deltalake import DeltaTable

    yield from (stage / uri.removeprefix("file://").rsplit("/", 1)[-1] for uri in DeltaTable(stage).file_uris())


def _blobs(root: str, product: str) -> set[str]:
    """Return the blobs of every bundle, the manifests of bundles and checkpoints, and the sketches of keys."""
    artifacts, ledgers, tables = ArtifactStore(root), Ledgers(root, product), TableStore(root, product)
    bundles = {record.content_digest for record in tables.records("onnx").values()}
    checkpoints = {record.content_digest for record in tables.records("checkpoint").values()}
    sketches = {record.notes["sketch"] for record in tables.records("drift").values()}
    parts = {blob["sha256"] for digest in bundles for blob in artifacts.bundle(digest).manifest["blobs"].values()}
    assert all(ledgers.read(naming.VERDICTS, digest) for digest in bundles)
    return bundles | checkpoints | sketches | parts


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def _log(state: Path, product: str) -> list[Path]:
    return sorted((state / "predictions" / product).glob("*.jsonl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("walk").add_argument("place", type=Path)
    packing = commands.add_parser("pack")
    packing.add_argument("product")
    packing.add_argument("place", type=Path)
    packing.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.command == "walk":
        walk(options.place)
    else:
        packed = pack(options.product, options.place, has_rows=options.rows)
        print(json.dumps({"packed": packed.name, "bytes": packed.stat().st_size}))


if __name__ == "__main__":
    main()
