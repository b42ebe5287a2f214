"""A code location with the tiny recording alone, for Dagster's daemon."""

from platform_assets.definitions import build_defs
from tests.doubles.recorded import SPEC

defs = build_defs(specs=[SPEC])
