"""The parts of a serving process."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from platform_assets.serving.answer.admission import Gate
from platform_assets.serving.answer.callers import Callers
from platform_assets.serving.answer.contract import Contract
from platform_assets.serving.answer.predict import Predictor
from platform_assets.serving.follow.alive import Mark
from platform_assets.serving.follow.follower import Follower
from platform_assets.serving.log.shipping import Shipper
from platform_assets.serving.run.event_loop import Waiting
from platform_assets.serving.run.metrics import Metrics


@dataclass(frozen=True)
class Runtime:
    """A process's parts.

    Attributes:
        needs_store: whether it is not ready before the store has named the live model.
        mark: tells the next process whether this one died.
        shipper: sends the log to the store; None where the platform reads the log's folder.
        callers: who may ask.
        gate: which requests begin.
        drain_s: for how long it is not ready and still answers before it ends.
        waiting: counts the connections that it has not accepted.
        probes: the listening socket of its probes; None without one.
    """

    contract: Contract
    follower: Follower
    predictor: Predictor
    metrics: Metrics
    mark: Mark
    poll_s: float
    needs_store: bool = False
    shipper: Shipper | None = None
    callers: Callers = field(default_factory=Callers)
    gate: Gate = field(default_factory=Gate)
    drain_s: float = 0.0
    waiting: Waiting = field(default_factory=Waiting)
    probes: socket.socket | None = None
