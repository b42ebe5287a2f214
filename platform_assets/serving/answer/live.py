"""Define the model that answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from platform_assets.serving.answer.model import Model

Source = Literal["release", "pinned", "kept", "fallback"]


@dataclass(frozen=True)
class Live:
    """The model that answers.

    Attributes:
        model: loaded, verified and warm.
        release: the number of its release, None if no release chose it.
        source: `release`, `pinned` (`Settings.serving_digest`), `kept` (this machine's copy of the last release, not
            yet confirmed by the store since the start) or `fallback` (the bundle in the Bento).
    """

    model: Model
    release: int | None
    source: Source
