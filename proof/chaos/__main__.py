"""Break things on purpose and count what survived: `make chaos ROWS=...`."""

import sys
from pathlib import Path

from proof.benchmarks import harness

if __name__ == "__main__":
    sys.exit(harness.main("chaos", Path(__file__).parent))
