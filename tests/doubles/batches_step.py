"""Run a step's own `main` for the numbered batches, which are not in `platform_assets/specs`.

`python -m tests.doubles.batches_step platform_assets.steps.train`
"""

from __future__ import annotations

import importlib
import sys

from platform_assets import specs
from tests.doubles.numbered_batches import SPEC


def main(module: str) -> None:
    specs.load = lambda name: SPEC
    importlib.import_module(module).main()


if __name__ == "__main__":
    main(sys.argv[1])
