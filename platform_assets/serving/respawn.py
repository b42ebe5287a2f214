"""Have a killed worker replaced within a second or two, in a container too.

Belongs here: what Bento's parent process is told about its workers, before it starts any. Bento looks for dead ones
every 10 s, and never replaces one where its image says `BENTOML_CONTAINERIZED`: such a service goes on with fewer
workers for good, and every page of the others says that all is well.
"""

from __future__ import annotations

import functools

from platform_assets import settings

CHECK_S = 1.0
"""How often the parent looks for dead workers."""


def install() -> None:
    """Change what `bentoml serve` does next in this process; a worker, which starts none, loses nothing by it."""
    from bentoml._internal.utils import circus

    settings.forget_container()
    circus.create_standalone_arbiter = functools.partial(circus.create_standalone_arbiter, check_delay=CHECK_S)
