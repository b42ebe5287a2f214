"""What an ingestion lists when nothing is new, with a million old segments in the bucket.

A real S3 server holds them: one heartbeat is put by S3, and SeaweedFS's own shell loads the entries of all others,
which share its bytes and differ by name. A first ingestion claims them all; later ones must list one page.
"""

import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from platform_assets.base.settings import Settings
from platform_assets.prediction_log import prediction_log
from platform_assets.store import objects, segments
from platform_assets.store.product_store import ProductStore
from platform_assets.store.segments import Name
from proof.benchmarks.harness import Disagreement, Measure
from tests.doubles import s3_server
from tests.doubles.faulty_s3 import Faults, in_front_of
from tests.doubles.s3_server import S3Server
from tests.doubles.shipped import SPEC, encoded, lines, ship

OLD = int(os.environ.get("P15_OLD", "1_000_000"))
APART = timedelta(seconds=1)
"""Of two segments: 60 processes with a heartbeat per minute."""
BUCKET = "segments"
KEYS = ("2020-01-05",)
PARALLEL = 32
shown: list[str] = []


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "s3").mkdir()
        with s3_server.running(base / "s3") as server, in_front_of(server.endpoint) as faults:
            os.environ.update(server.environment())
            server.make_bucket(BUCKET)
            root = f"s3://{BUCKET}/store"
            product = ProductStore(SPEC, Settings(environment="cluster", root=root, state=base / "state"))
            began_s = time.monotonic()
            # Put one segment by S3, and load the entries of all others, older by up to `OLD` times `APART`.
            file = base / "entries"
            last = datetime.now(UTC)
            path, data = encoded(last, b"")
            if not objects.create(objects.open_store(root), path, data):
                raise Disagreement(f"{path} exists")
            place = f"/buckets/{root.removeprefix('s3://')}/{path}"
            parent, day, name = place.rsplit("/", 2)
            _shell(server, f"fs.meta.save -v=false -o {file} {parent}")
            saved = file.read_bytes()
            with file.open("wb") as target:
                target.writelines(_renamed(_entry(saved, name), path, last))
                target.write(_entry(saved, day))  # a folder's entry makes the shell wait for those before
            output = _shell(server, f"fs.meta.load -v=false -concurrency={PARALLEL} {file}")
            if f"1 directories, {OLD - 1} files" not in output:
                raise Disagreement(f"the server's shell says: {output[-500:]}")
            print(f"{OLD:,} segments loaded in {time.monotonic() - began_s:.0f} s", flush=True)
            os.environ["AWS_ENDPOINT_URL"] = faults.endpoint
            first, first_s = ingested(product, faults)
            number, _ = product.history.claim() or (0, None)
            claims = [product.history.claim_at(index) for index in range(1, number + 1)]
            if (claimed := sum(len(claim.segments) for claim in claims if claim is not None)) != OLD:
                raise Disagreement(f"{claimed:,} of {OLD:,} segments were claimed")
            shown.append(f"the first ingestion claimed {claimed:,} segments: {_sentence(first)}; {first_s:.0f} s")
            ship(root, datetime.now(UTC), lines([1]))
            one, one_s = ingested(product, faults)
            shown.append(f"with one new segment: {_sentence(one)}; {one_s:.2f} s")
            rounds = [ingested(product, faults) for _ in range(5)]
            nothing, nothing_s = max(rounds, key=lambda item: item[0].total())
            shown.append(f"with nothing new, the most of 5: {_sentence(nothing)}; {nothing_s:.2f} s")
    return [
        Measure("old segments under the prefix", OLD, target=">= 1000000"),
        Measure("pages listed when nothing is new", nothing["pages"], target="<= 1"),
        Measure("requests when nothing is new", nothing.total()),
        Measure("s of an ingestion when nothing is new", sorted(taken_s for _, taken_s in rounds)[2]),
        Measure("pages listed with one new segment", one["pages"]),
        Measure("pages listed by the first ingestion", first["pages"], limit=OLD / 1000),
    ]


def _entry(saved: bytes, name: str) -> bytes:
    """Return the first entry with a name among those that the shell saved: each has its length in front."""
    at = 0
    while at < len(saved):
        end = at + 4 + int.from_bytes(saved[at : at + 4], "big")
        if name.encode() in saved[at:end]:
            return saved[at:end]
        at = end
    raise Disagreement(f"{name} was not saved")


def _renamed(entry: bytes, path: str, last: datetime) -> Iterator[bytes]:
    """Yield the entries of older segments: day and name, whose lengths stay, are other ones."""
    *_, day, name = path.split("/")
    for number in range(1, OLD):
        at = last - number * APART
        older = Name.parse(path)
        renamed = Name(
            product=older.product,
            shipped_ms=round(at.timestamp() * 1000),
            process=older.process,
            stream=segments.NO_STREAM,
            first=0,
        ).path.split("/")
        if (len(renamed[-2]), len(renamed[-1])) != (len(day), len(name)):
            raise Disagreement(f"{renamed} has another length than {path}")
        yield entry.replace(f"/{day}".encode(), f"/{renamed[-2]}".encode()).replace(name.encode(), renamed[-1].encode())


def _shell(server: S3Server, command: str) -> str:
    options = dict(word.removeprefix("-").split("=", 1) for word in server.program.command if "=" in word)
    places = [
        f"-{name}={options['ip']}:{options[f'{name}.port']}.{options[f'{name}.port.grpc']}"
        for name in ("master", "filer")
    ]
    argv = [str(s3_server.binary()), "shell", *places]
    ended = subprocess.run(
        argv, input=f"{command}\n", capture_output=True, text=True, check=True, cwd=server.program.folder
    )
    return ended.stdout + ended.stderr


def ingested(product: ProductStore, faults: Faults) -> tuple[Counter[str], float]:
    """Ingest once; return the requests to the store by kind, and the seconds."""
    faults.clear()
    began_s = time.monotonic()
    prediction_log.ingest_segments(product, "code", KEYS)
    taken_s = time.monotonic() - began_s
    return Counter(_kind(method, path) for method, path in faults.requests), taken_s


def _kind(method: str, path: str) -> str:
    query = parse_qs(urlsplit(path).query)
    if method == "GET" and f"{segments.PREFIX}/" in query.get("prefix", [""])[0]:
        return "pages"
    return "other listings" if "list-type" in query else method


def _sentence(requests: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(requests.items()))
