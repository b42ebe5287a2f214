"""A code location of many small products, which differ by name only: as many as `P18_PRODUCTS` says."""

import os
from dataclasses import replace

from platform_assets.definitions import build_defs
from tests.doubles import numbered_batches

COUNT = "P18_PRODUCTS"
SPECS = [replace(numbered_batches.SPEC, name=f"p{number:03}") for number in range(int(os.environ.get(COUNT, "0")))]
defs = build_defs(specs=SPECS, automation=True)
