"""Have a killed worker replaced within a second or two, in a container too.

Bento's parent process checks for dead workers every 10 s, and replaces none if its image sets `BENTOML_CONTAINERIZED`:
such a service would go on with fewer workers, while all pages of the others report that everything is fine.
"""

from __future__ import annotations

import functools

from platform_assets import settings

CHECK_S = 1.0
"""Seconds between two checks for dead workers by the parent."""


def install() -> None:
    """Change what `bentoml serve` does next in this process; a worker, which starts none, is not affected."""
    from bentoml._internal.utils import circus

    settings.forget_container()
    circus.create_standalone_arbiter = functools.partial(circus.create_standalone_arbiter, check_delay=CHECK_S)
