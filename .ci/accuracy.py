"""Hold the second product's demo to its quality: accuracy over its last ten batches, from `driftline status --json`."""

from __future__ import annotations

import json
import sys

PRODUCT, BATCHES, LEAST = "garment_photos", 10, 0.86


def main() -> int:
    """Print what was measured; return 1 when it falls short."""
    products = json.load(sys.stdin)["products"]
    quality = next(product for product in products if product["product"] == PRODUCT)["quality"]
    accuracy = quality["quality"]["accuracy"]
    value, low, high = accuracy["value"], accuracy["low"], accuracy["high"]
    span = f"{quality['keys']} batches, {quality['first']} to {quality['last']}"
    print(f"accuracy {value:.4f} ({low:.4f} to {high:.4f}) over {span}; expected at least {LEAST} over {BATCHES}.")
    return int(quality["keys"] != BATCHES or value < LEAST)


if __name__ == "__main__":
    sys.exit(main())
