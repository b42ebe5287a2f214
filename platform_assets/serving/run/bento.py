"""Import the service for its servers, `bentoml serve` and `pod`: an error of the import ends them with its cause.

Bento's loader takes a ValueError or an ImportError of this import for a Bento that is not there, and says only that no
Python module has the Bento's name.
"""

from __future__ import annotations

import sys
import traceback

_LOADERS = sys.exc_info()[1]
"""What Bento's loader is handling: it looks for a module first, and tells of that search in every traceback."""

try:
    from platform_assets.base import logs
    from platform_assets.base.problems import Problem
    from platform_assets.serving.run import service
except Exception as problem:  # noqa: BLE001  # any error, of a library too
    first: BaseException = problem
    while first.__context__ not in (None, _LOADERS):
        first = first.__context__
    first.__context__ = None
    traceback.print_exc()
    raise SystemExit(f"serve: the service cannot be imported: {type(problem).__name__}: {problem}") from None

try:
    logs.install()
    service.check()
except Problem as problem:
    raise SystemExit(f"serve: {problem}") from None

PredictionService = service.PredictionService
