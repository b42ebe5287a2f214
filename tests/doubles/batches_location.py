"""A code location with the numbered batches alone, for Dagster's command line."""

from platform_assets.definitions import build_defs
from tests.doubles.numbered_batches import SPEC

defs = build_defs(specs=[SPEC])
