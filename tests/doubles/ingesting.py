"""Ingest a tiny product's segments, as its stage does: `python -m tests.doubles.ingesting ROOT STATE BATCH_BYTES`.

Prints `ready`, and waits for a line before it starts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from platform_assets.handle import Product
from platform_assets.intake import claiming, prediction_log
from platform_assets.settings import Settings
from tests.doubles.shipped import SPEC

KEYS = ("2020-01-05", "2020-01-06")


def main() -> None:
    """Ingest once, and print the number of rows."""
    root, state, batch_bytes = sys.argv[1:]
    claiming.BATCH_BYTES = int(batch_bytes)
    product = Product(SPEC, Settings(environment="cluster", root=root, state=Path(state)))
    print("ready", flush=True)
    sys.stdin.readline()
    done, _ = prediction_log.ingest_segments(product, "code", KEYS)
    print(done.rows, flush=True)


if __name__ == "__main__":
    main()
