"""Say whether a service is alive and ready: what `/healthz`, `/readyz` and `/metrics` answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST

from platform_assets.serving.run.event_loop import HUNG_S
from platform_assets.serving.run.probes import HEALTH, METRICS, READINESS, Page, Pages, json_page
from platform_assets.serving.run.runtime import Runtime


class Health:
    """The answers of a process."""

    def __init__(self, runtime: Runtime, ended: Callable[[], list[str]]) -> None:
        """Prepare.

        Args:
            runtime: of the process.
            ended: returns the names of background jobs that ended by a bug.
        """
        self._runtime, self._ended = runtime, ended
        self._noting = threading.Lock()  # jobs, the loop and the thread of probes publish

    @property
    def pages(self) -> Pages:
        """The pages of the probes' port."""
        return {HEALTH: self.alive, READINESS: self.ready, METRICS: self.metrics}

    def note(self) -> None:
        """Publish the state of this process."""
        runtime = self._runtime
        with self._noting:
            runtime.metrics.note(runtime.follower, runtime.predictor.log.problem, is_ready=self._judge()[0])
            faults = runtime.predictor.faults
            runtime.metrics.note_faults(faults.invalid, faults.problem(runtime.follower.live))
            if runtime.shipper is not None:
                runtime.metrics.note_shipping(runtime.shipper.figures, runtime.shipper.problem)

    def alive(self) -> Page:
        """Alive, unless a bug ended a background job or the event loop hangs: then a restart is right."""
        ended, turn_s = self._ended(), self._runtime.metrics.turn_s
        problems = [f"ended by a bug: {', '.join(ended)}; see the log, and restart the service."] if ended else []
        if turn_s is not None and time.monotonic() - turn_s > HUNG_S:
            problems.append(f"the event loop has had no turn for more than {HUNG_S:g} s.")
        if problems:
            return json_page(503, {"is_alive": False, "problem": " ".join(problems)})
        return json_page(200, {"is_alive": True})

    def ready(self) -> Page:
        """Ready, if a model answers and its answers can be logged; with the reasons if not."""
        is_ready, problems = self._judge()
        follower = self._runtime.follower
        live, confirmed_at = follower.live, follower.confirmed_at
        kept_at = confirmed_at if live is not None and live.source == "kept" else None
        state = {
            "is_ready": is_ready,
            "product": self._runtime.contract.product,
            "digest": None if live is None else live.model.digest,
            "release": None if live is None else live.release,
            "source": None if live is None else live.source,
            "contract_sha256": self._runtime.contract.sha256,
            "latest_release": follower.latest,
            "highest_release": follower.highest,
            "kept_at_utc": kept_at,
            "kept_age_s": None if kept_at is None else round((datetime.now(UTC) - kept_at).total_seconds(), 1),
            "problem": " ".join(problems) or None,
        }
        return json_page(200 if is_ready else 503, state)

    def is_ready(self) -> Page:
        """Ready or not, and nothing else: what the public port says, because anybody may read it."""
        status = self.ready().status
        return json_page(status, {"is_ready": status == 200})

    def metrics(self) -> Page:
        """The metrics."""
        self.note()
        return Page(200, self._runtime.metrics.text(), CONTENT_TYPE_LATEST.encode())

    def _judge(self) -> tuple[bool, list[str]]:
        """Return whether the process is ready, and what is wrong with it or may be soon."""
        runtime = self._runtime
        shipper, live, log_problem = runtime.shipper, runtime.follower.live, runtime.predictor.log.problem
        room_problem, shipping_problem = (None, None) if shipper is None else (shipper.room.problem, shipper.problem)
        model_problem = runtime.predictor.faults.problem(live)
        named = (log_problem, room_problem, runtime.follower.problem, model_problem, shipping_problem)
        problems = [text for text in named if text is not None]
        is_named = live is not None and (live.source in ("release", "pinned") or not runtime.needs_store)
        if live is not None and not is_named:
            problems.append(
                f"the store has not named the live model (source: {live.source}), which DRIFTLINE_SERVING_NEEDS_STORE "
                "requires."
            )
        if runtime.gate.is_draining:
            problems.append("the service was asked to end, and answers only those who have not noticed yet.")
        # Not for a model's invalid answers nor for shipping: other rows are answered, and the log is on the disk.
        is_ready = is_named and log_problem is None and room_problem is None and not runtime.gate.is_draining
        return is_ready, problems
