"""Measure the cost of the platform and the quality of its models: `make bench ROWS=...`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks import harness

if __name__ == "__main__":
    sys.exit(harness.main("bench", Path(__file__).parent))
