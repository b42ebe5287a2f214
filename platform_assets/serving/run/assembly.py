"""Put the parts of a serving process together, from settings and a product's contract."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from platform_assets.base.settings import Settings
from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.answer.callers import Callers
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.follow.alive import Mark
from platform_assets.serving.follow.candidate import Trial
from platform_assets.serving.follow.follower import LOAD_S, Follower, log
from platform_assets.serving.follow.local_copy import LocalCopy
from platform_assets.serving.follow.model_cache import Shelf
from platform_assets.serving.follow.model_faults import ModelFaults
from platform_assets.serving.log import prediction_log, shipping
from platform_assets.serving.log.disk_room import SHARE, DiskRoom
from platform_assets.serving.log.prediction_log import PredictionLog
from platform_assets.serving.log.sender import Sender
from platform_assets.serving.log.shipping import Shipper, Terms
from platform_assets.serving.run.event_loop import Waiting
from platform_assets.serving.run.runtime import Runtime
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.store.segments import CLOCK_LIMIT_S

if TYPE_CHECKING:
    from platform_assets.serving.run.metrics import Metrics


def make_trial(settings: Settings, product: str, *, measures: bool = False) -> Trial:
    """Return what tries a product's bundles; with `measures` it also measures their memory."""
    lock = settings.serving_kept / product / "candidate.lock"
    return Trial(LOAD_S, settings.serving_candidate_bytes, lock, measures=measures)


def make_follower(
    settings: Settings,
    contract: Contract,
    trial: Trial,
    *,
    fallback: ArtifactStore | None = None,
    fallback_digest: str = "",
    pinned: str | None = None,
    shelf: Shelf | None = None,
    name: str = "",
) -> Follower:
    """Return what follows a product's releases; see `Follower`."""
    if not settings.serving_keys:
        log.info("%s: signatures of releases are not checked, as DRIFTLINE_SERVING_KEYS is not set.", contract.product)
    return Follower(
        contract,
        settings.root,
        fallback=fallback,
        fallback_digest=fallback_digest,
        pinned=pinned,
        local_copy=LocalCopy(settings.serving_kept / contract.product),
        trial=trial,
        pinned_keys=settings.serving_keys,
        shelf=shelf,
        name=name,
    )


def make_runtime(
    settings: Settings,
    contract: Contract,
    follower: Follower,
    metrics: Metrics,
    gate: Gate,
    *,
    waiting: Waiting | None = None,
    probes: socket.socket | None = None,
    room: DiskRoom | None = None,
    shelf: Shelf | None = None,
) -> Runtime:
    """Return what answers for a product; see `Runtime`.

    Args:
        room: of the volume with the prediction logs, where several products write to it.
    """
    file_bytes_max = shipping.FILE_BYTES_MAX if settings.serving_ships else prediction_log.FILE_BYTES_MAX
    folder = settings.prediction_log / contract.product
    mark = Mark(settings.serving_kept / contract.product / "alive")
    faults = ModelFaults(mark)
    follower.taking = faults.note
    predictor = Predictor(PredictionLog(folder, file_bytes_max, settings.serving_name), faults)
    predictor.tick.is_alone = gate.has_one
    shipper = None
    if settings.serving_ships:
        shipper = Shipper(
            predictor.log,
            Sender(settings.root, contract.product, LOAD_S),
            make_room(settings) if room is None else room,
            Terms(
                every_s=settings.serving_ship_s,
                bytes_max=settings.serving_ship_bytes,
                heartbeat_s=settings.serving_heartbeat_s,
                clock_limit_s=CLOCK_LIMIT_S,
                goodbye_s=settings.serving_goodbye_s,
            ),
            answered_before=predictor.answered_before,
            release=lambda: None if follower.live is None else follower.live.release,
        )
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
        waiting=Waiting() if waiting is None else waiting,
        probes=probes,
        shipper=shipper,
        shelf=shelf,
    )


def make_room(settings: Settings) -> DiskRoom:
    """Return the room of the volume with the prediction logs."""
    return DiskRoom(settings.state, settings.serving_room_bytes, SHARE)
