"""Put the parts of a serving process together, from settings and a product's contract."""

from __future__ import annotations

import json
from pathlib import Path

from prometheus_client import values

from platform_assets.base.settings import Settings
from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.answer.callers import Callers
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.follow.alive import Mark
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.follower import LOAD_S, Follower, log
from platform_assets.serving.follow.local_copy import LocalCopy
from platform_assets.serving.follow.model_faults import ModelFaults
from platform_assets.serving.log.disk_room import SHARE, DiskRoom
from platform_assets.serving.log.prediction_log import PredictionLog
from platform_assets.serving.log.sender import Sender
from platform_assets.serving.log.shipping import Shipper, Terms
from platform_assets.serving.run.event_loop import Waiting
from platform_assets.serving.run.listening import bound_for_probes, copies
from platform_assets.serving.run.metrics import Metrics
from platform_assets.serving.run.protocol import Protocol
from platform_assets.serving.run.runtime import Runtime
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.segments import CLOCK_LIMIT_S

CANDIDATE_BYTES = 512 * 1024 * 1024
"""What loading and warming a model may take; its files may have a quarter of it."""
SHIP_BYTES = 4 * 1024 * 1024
"""Answers, not compressed, that are sent to the store without waiting."""

SHIPS_PER_HEARTBEAT = 6
"""How many times `serving_ship_s` a process that has nothing to send is silent: a minute by default."""


def make_runtime(folder: Path) -> Runtime:
    """Return what answers for the product of a Bento; see `Runtime` and `Follower`.

    Args:
        folder: of the Bento's own bundle, with `contract.json`, `fallback.json` and blobs.
    """
    settings, contract = Settings.from_environment(), Contract.from_bytes((folder / "contract.json").read_bytes())
    # Bento's supervisor asks for numbers in files, which only several workers need.
    values.ValueClass = values.MutexValue
    metrics = Metrics()
    Protocol.on_bad_request = staticmethod(metrics.count_unread)
    gate = Protocol.gate = Gate(settings.serving_in_flight, settings.serving_wait_s)
    public = copies()
    probes = bound_for_probes(settings, public[0]) if public else None
    kept = settings.serving_kept / contract.product
    if not settings.serving_keys:
        log.info("%s: signatures of releases are not checked, as DRIFTLINE_SERVING_KEYS is not set.", contract.product)
    follower = Follower(
        contract,
        settings.root,
        fallback=ArtifactStore(str(folder)),
        fallback_digest=json.loads((folder / "fallback.json").read_bytes())["digest"],
        pinned=settings.serving_digest,
        local_copy=LocalCopy(kept),
        trial=Trial(LOAD_S, CANDIDATE_BYTES, kept / "candidate.lock"),
        pinned_keys=settings.serving_keys,
    )
    mark = Mark(kept / "alive")
    faults = ModelFaults(mark)
    follower.taking = faults.note  # before it answers: the first row may end the process
    log_of_answers = PredictionLog(settings.prediction_log / contract.product, server=settings.serving_name)
    predictor = Predictor(log_of_answers, faults)
    predictor.tick.is_alone = gate.has_one  # nobody to wait for: a turn of the loop is saved
    return Runtime(
        contract=contract,
        follower=follower,
        predictor=predictor,
        metrics=metrics,
        mark=mark,
        poll_s=settings.serving_poll_s,
        needs_store=settings.serving_needs_store,
        callers=Callers(settings.serving_callers),
        gate=gate,
        drain_s=settings.serving_drain_s,
        waiting=Waiting(public),
        probes=probes,
        shipper=_shipper(settings, predictor, follower) if settings.serving_ships else None,
    )


def _shipper(settings: Settings, predictor: Predictor, follower: Follower) -> Shipper:
    return Shipper(
        predictor.log,
        Sender(settings.root, predictor.log.folder.name, LOAD_S),
        DiskRoom(settings.state, settings.serving_room_bytes, SHARE),
        Terms(
            every_s=settings.serving_ship_s,
            bytes_max=SHIP_BYTES,
            heartbeat_s=SHIPS_PER_HEARTBEAT * settings.serving_ship_s,
            clock_limit_s=CLOCK_LIMIT_S,
            goodbye_s=settings.serving_goodbye_s,
        ),
        answered_before=predictor.answered_before,
        release=lambda: None if follower.live is None else follower.live.release,
    )
