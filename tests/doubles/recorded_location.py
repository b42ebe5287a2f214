"""A code location with only the tiny recording, for Dagster's daemon."""

from platform_assets.automation.factory import build_defs
from tests.doubles.recorded import SPEC

defs = build_defs(specs=[SPEC])
