"""Run a step's own `main` for the numbered batches, which are not in `platform_assets/products`.

`python -m tests.doubles.batches_step platform_assets.training.steps.train`
"""

from __future__ import annotations

import importlib
import sys

from platform_assets.engine import product_files
from tests.doubles.numbered_batches import SPEC


def main(module: str) -> None:
    product_files.load_of = lambda name, module: SPEC
    importlib.import_module(module).main()


if __name__ == "__main__":
    main(sys.argv[1])
