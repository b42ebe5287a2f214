"""Measure the cost of the platform and the quality of its models: `make bench ROWS=...`."""

import sys
from pathlib import Path

from proof.benchmarks import harness

if __name__ == "__main__":
    sys.exit(harness.main("bench", Path(__file__).parent))
