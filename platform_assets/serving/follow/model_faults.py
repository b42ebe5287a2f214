"""Note what speaks against the model that a process serves: invalid answers, and processes that died with it.

A model that passed its trials may still meet a row that it cannot answer. Its caller gets 503 and the process stays
ready, because the other rows are answered; `/readyz` (`problem`), a gauge, a counter and the log say so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from platform_assets.serving.follow.alive import Died, InHand, Mark

if TYPE_CHECKING:
    from platform_assets.serving.answer.live import Live

SHOWN_S = 3600.0
"""How long after the last invalid answer it is a problem, and how soon after a swap a death concerns the model."""
log = logging.getLogger("bentoml.driftline")


class ModelFaults:
    """What speaks against the live model.

    Attributes:
        invalid: requests so far, of whatever model, to which there was no valid answer.
    """

    def __init__(self, mark: Mark | None = None) -> None:
        """Prepare; nothing is read or written before `start`.

        Args:
            mark: of this process, which then says which model it has; None to keep none.
        """
        self.invalid = 0
        self._mark = mark
        self._digest, self._of_digest, self._last_s = "", 0, 0.0
        self._product = ""
        self._died: InHand | None = None
        self._lived_s = 0.0
        self._mine: InHand | None = None

    def count(self, live: Live) -> None:
        """Count a request to which the model gave no valid answer; the first, tenth, hundredth of a model is logged."""
        if live.model.digest != self._digest:
            self._digest, self._of_digest = live.model.digest, 0
        self.invalid, self._of_digest, self._last_s = self.invalid + 1, self._of_digest + 1, time.time()
        if str(self._of_digest).rstrip("0") == "1":
            log.warning("%s: %s", live.model.contract.product, self._of_answers(live))

    def problem(self, live: Live | None) -> str | None:
        """Return what speaks against the live model, or None."""
        if live is None:
            return None
        problems = []
        if live.model.digest == self._digest and time.time() - self._last_s < SHOWN_S:
            problems.append(self._of_answers(live))
        # A rollback is a release with a higher number, so it ends this.
        if self._died is not None and (live.release or 0) <= (self._died.release or 0):
            problems.append(self._of_death(self._died))
        return " ".join(problems) or None

    def start(self, product: str, died: Sequence[Died]) -> None:
        """Judge whether the last process before this one that died did so soon after it took a model."""
        self._product = product
        for item in died:
            if item.had is not None and item.seen_s - item.had.since_s < SHOWN_S:
                self._died, self._lived_s = item.had, max(0.0, item.seen_s - item.had.since_s)
        if self._died is not None:
            log.warning("%s: %s", product, self._of_death(self._died))

    def note(self, live: Live | None) -> None:
        """Write down which model this process has."""
        mine, died = self._mine, self._died
        if self._mark is None or live is None:
            return
        if mine is None or (mine.digest, mine.release) != (live.model.digest, live.release):
            deaths = died.deaths + 1 if died is not None and died.digest == live.model.digest else 0
            self._mine = InHand(digest=live.model.digest, release=live.release, since_s=time.time(), deaths=deaths)
            self._mark.hold(self._mine)

    def _of_answers(self, live: Live) -> str:
        moment = datetime.fromtimestamp(self._last_s, UTC).isoformat(timespec="seconds")
        return (
            f"model {live.model.digest} (release {live.release}) gave no valid answer to "
            f"{self._of_digest:,} requests of this process, the last one at {moment}; their callers got 503. "
            f"`driftline rollback {live.model.contract.product}` restores the model before it."
        )

    def _of_death(self, had: InHand) -> str:
        before = f"{had.deaths + 1} processes before this one" if had.deaths else "the process before this one"
        return (
            f"{before} died with model {had.digest} (release {had.release}) in hand, the last one "
            f"{self._lived_s:.0f} s after it had taken it. If it goes on, `driftline rollback {self._product}` "
            "restores the model before it."
        )
