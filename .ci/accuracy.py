"""Hold the second product's demo to its quality: accuracy over its last ten batches, from `driftline status --json`."""

from __future__ import annotations

import json
import sys

PRODUCT, BATCHES, LEAST = "garment_photos", 10, 0.86


def main() -> int:
    """Print what was measured; return 1 when it falls short."""
    products = json.load(sys.stdin)["products"]
    quality = next(each for each in products if each["product"] == PRODUCT)["quality"]
    found = quality["quality"]["accuracy"]
    value, low, high = found["value"], found["low"], found["high"]
    span = f"{quality['keys']} batches, {quality['first']} to {quality['last']}"
    print(f"accuracy {value:.4f} ({low:.4f} to {high:.4f}) over {span}; expected at least {LEAST} over {BATCHES}.")
    return int(quality["keys"] != BATCHES or value < LEAST)


if __name__ == "__main__":
    sys.exit(main())
