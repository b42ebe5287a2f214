"""The prediction log: its share of the CPU, what SIGKILL loses or doubles under load, and how late it is shipped.

The share is that of the log's stages in a worker that answers rows of the flights' product over 16 connections
(`serving_timed`): each record as JSON, and the write. Its cost per record is compared with `bentoml.monitor` and with a
JSON line per record, written at once; the limit is one write of the same bytes per record. Then a pod's process ships
its log to a real S3 server while callers keep the ids of their answers and repeat what was not answered, and it is
killed again and again. Every answer a caller has must be in the store, under one id per key.
"""

import contextlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import msgspec

from platform_assets.serving.answer.answer_records import BinaryRecord
from platform_assets.serving.answer.decoding import Decoding
from platform_assets.serving.log.prediction_log import PredictionLog
from platform_assets.serving.run import child as serving
from proof.benchmarks import serving_contest as contest
from proof.benchmarks import serving_timed
from proof.benchmarks.harness import Disagreement, Measure
from proof.doubles import shipping_service
from proof.doubles.asking import Callers
from proof.doubles.shipping_service import figure
from tests.doubles import models, pods, received, s3_server

ROUNDS, RECORDS, TICK = 7, 320, 16
KILLS, BETWEEN_KILLS_S = 12, 3.0
SHIP_S, LOOK_S = 5.0, 1.0
BUCKET = "driftline-log"
LOG_STAGES = ("log", "records as JSON")
ENCODER = msgspec.json.Encoder()
shown: list[str] = []


def run() -> list[Measure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = contest.prepare(folder)
        with contest.timed(prepared) as running:
            us = serving_timed.measured(prepared, running, 16)
        share = sum(us[stage] for stage in LOG_STAGES) / us[serving_timed.TOTAL]
        with contextlib.chdir(folder):  # `bentoml.monitor` writes into the current folder
            costs = _costs(folder, prepared)
    with tempfile.TemporaryDirectory() as name:
        # Kill the process of a pod under load, and count what was lost or doubled.
        base = Path(name)
        bento = shipping_service.built(base).path
        (base / "s3").mkdir()
        ages: list[float] = []
        with s3_server.running(base / "s3") as server:
            server.make_bucket(BUCKET)
            settings, environment = shipping_service.settings_of(
                base, BUCKET, server, server.endpoint, serving_ship_s=SHIP_S
            )
            port = serving.free_port()
            with pods.Kubelet(settings, bento, port, environment) as kubelet:
                with Callers(port, callers=8, rows=2, pause_s=0.005) as callers:
                    for _ in range(KILLS):
                        _watch(kubelet, ages, BETWEEN_KILLS_S)
                        kubelet.server.process.kill()
                    _watch(kubelet, ages, 2 * SHIP_S)
                _watch(kubelet, ages, SHIP_S + 2 * LOOK_S)
            with patch.dict(os.environ, server.environment()):
                bodies = [segment.body for segment in received.read(settings.root, models.PRODUCT)]
        lines = [json.loads(line) for body in bodies for line in body.splitlines()]
        ids = Counter(line["prediction_id"] for line in lines)
        one_each: dict[str, set[str]] = defaultdict(set)
        for line in lines:
            one_each[f"key {line['idempotency_key']}"].add(line["prediction_id"])
            one_each[f"id {line['prediction_id']}"].add(str(line["probability"]))
        shown.append(
            f"{len(callers.acknowledged)} answers; callers repeated {callers.repeated} lists, and "
            f"{sum(count - 1 for count in ids.values())} records came twice under one id, which readers count once"
        )
        kills = {
            "lost": len(callers.acknowledged - ids.keys()),
            "doubled": sum(len(values) > 1 for values in one_each.values()),
            "age_s": max(ages),
        }
    limit = costs.pop("append of the bytes")
    return [
        Measure("share of the worker's CPU at 16 connections", share, target="<= 0.05"),
        Measure("CPU-us per record of 86 fields", costs.pop(contest.OURS), peers=costs, limit=limit),
        Measure(f"answers lost after {KILLS} SIGKILLs under load", kills["lost"], target="<= 0"),
        Measure("keys with two ids, or ids with two answers", kills["doubled"], target="<= 0"),
        Measure(
            "greatest age of an answer that was not shipped, s",
            kills["age_s"],
            limit=SHIP_S + LOOK_S,
            target="<= 1.0x limit",
        ),
    ]


def _costs(folder: Path, prepared: contest.Contest) -> dict[str, float]:
    """Return the CPU-us per record of each way to log the same records, medians of interleaved rounds."""
    # Records of some answers, as a worker builds them.
    digest = (folder / "digest").read_text(encoding="utf-8")
    decoding = Decoding(contest.contract_of_contest(folder))
    rows = [decoding.decode(body).rows[0] for body in prepared.one_row()[:RECORDS]]
    records = [
        BinaryRecord(
            f"{number:032x}",
            digest,
            1,
            row.entity,
            row.service_time,
            row.asked_at,
            None,
            datetime.now(UTC),
            900,
            0.25,
            row.features,
        )
        for number, row in enumerate(rows)
    ]
    lines = [ENCODER.encode_lines([record]) for record in records]
    descriptor = os.open(folder / "bytes.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(_: Sequence[BinaryRecord]) -> None:
        for line in lines:
            os.write(descriptor, line)

    ways = {
        contest.OURS: _ours(folder / "ours"),
        "bentoml.monitor": _monitor(),
        "synchronous JSON lines": _json_lines(folder / "lines.jsonl"),
        "append of the bytes": write,
    }
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, log in sorted(ways.items(), reverse=bool(number % 2)):
            begin_s = time.process_time()
            log(records)
            rounds[name].append((time.process_time() - begin_s) / len(records) * 1e6)
    written = sum(path.stat().st_size for path in (folder / "ours").glob("*.jsonl"))
    if written != (folder / "bytes.jsonl").stat().st_size:
        raise Disagreement(f"our log has {written} bytes, the append {(folder / 'bytes.jsonl').stat().st_size}.")
    return {name: statistics.median(values[1:]) for name, values in rounds.items()}


def _ours(folder: Path) -> Callable[[Sequence[BinaryRecord]], None]:
    log = PredictionLog(folder)

    def write(records: Sequence[BinaryRecord]) -> None:
        for start in range(0, len(records), TICK):
            log.append(ENCODER.encode_lines(records[start : start + TICK]))

    return write


def _monitor() -> Callable[[Sequence[BinaryRecord]], None]:
    import bentoml
    import msgspec

    def write(records: Sequence[BinaryRecord]) -> None:
        for record in records:
            values = msgspec.to_builtins(record)
            with bentoml.monitor("answers") as monitor:
                for name, value in values.pop("features").items():
                    kind = "categorical" if isinstance(value, str) else "numerical"
                    monitor.log(value, name=name, role="feature", data_type=kind)
                monitor.log(values["probability"], name="probability", role="prediction", data_type="numerical")
                monitor.log(values["prediction_id"], name="prediction_id", role="feature", data_type="categorical")

    return write


def _json_lines(path: Path) -> Callable[[Sequence[BinaryRecord]], None]:
    import msgspec

    def write(records: Sequence[BinaryRecord]) -> None:
        with path.open("a", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(msgspec.to_builtins(record)) + "\n")
                file.flush()

    return write


def _watch(kubelet: pods.Kubelet, ages: list[float], seconds: float) -> None:
    """Note the age of the oldest answer that was not shipped for some seconds."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError):  # it has just been killed
            ages += figure(kubelet.server.probe("/metrics")[1].decode(), "driftline_log_unshipped_seconds")
        time.sleep(0.2)
