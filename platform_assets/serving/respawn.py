"""Change how `bentoml serve` starts and replaces workers: replaced soon, and with a port of their own for probes.

Bento's parent process checks for dead workers every 10 s, and replaces none if its image sets `BENTOML_CONTAINERIZED`:
such a service would go on with fewer workers, while all pages of the others report that everything is fine.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from platform_assets import settings
from platform_assets.settings import Settings

if TYPE_CHECKING:
    from bentoml._internal.utils.circus import Arbiter

CHECK_S = 1.0
"""Seconds between two checks for dead workers by the parent."""
BACKLOG = 64
"""Probes that may wait to be accepted."""
_PUBLIC, _PROBES = "_bento_api_server", "driftline_probes"


def install() -> None:
    """Change what `bentoml serve` does next in this process; a worker, which starts none, is not affected."""
    from bentoml._internal.utils import circus

    settings.forget_container()
    original = circus.create_standalone_arbiter
    if getattr(original, "__module__", None) == __name__:
        return

    def create_standalone_arbiter(watchers: Any, *, sockets: Any, **options: Any) -> Arbiter:
        _bind_probes(watchers, sockets)
        if sys.platform == "linux" and not options.get("threaded") and not options.get("plugins"):
            _fork(watchers)
        return original(watchers, sockets=sockets, check_delay=CHECK_S, **options)

    circus.create_standalone_arbiter = create_standalone_arbiter  # type: ignore[assignment]  # Bento names `sockets`


def _fork(watchers: Any) -> None:
    """Make the workers copies of this process: not where threads or a reloader of changed code run next to them."""
    import circus.watcher

    from platform_assets.serving import forked

    forked.preload(watchers[-1].env)
    circus.watcher.Process = forked.Forked


def _bind_probes(watchers: Any, sockets: Any) -> None:
    """Add the probes' socket to those that the workers inherit. The parent binds it, so a taken port ends the start."""
    public = next(item for item in sockets if item.name == _PUBLIC)
    port = Settings.from_environment().probes_port(public.port)
    probes = type(public)(name=_PROBES, host=public.host, port=port, family=public.family, backlog=BACKLOG)
    sockets.append(probes)
    for watcher in watchers:
        watcher.env.update(settings.probes_variable(probes.fileno()))
