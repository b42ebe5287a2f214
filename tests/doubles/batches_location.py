"""A code location with only the numbered batches, for Dagster's command line."""

from platform_assets.automation.factory import build_defs
from tests.doubles.numbered_batches import SPEC

defs = build_defs(specs=[SPEC])
