"""Write deliveries of the example product into a folder, and a question about one part of the next batch.

    python deploy/example/deliveries.py parts FOLDER --first 0 --count 8

FOLDER/parts/parts/KEY.csv and FOLDER/parts/tests/KEY.csv are what an upstream system would deliver;
FOLDER/question.json is the body of a request.
"""

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from platform_assets.engine import product_files

PARTS = 200
"""Rows of a batch."""


def rows(batch):
    """Return a batch's parts, of which one breaks when both of its numbers have the same sign."""
    for number in range(batch * PARTS, (batch + 1) * PARTS):
        # Steps of two irrational numbers fill the square evenly.
        width, weight = round(number * 2**0.5 % 2 - 1, 6), round(number * 3**0.5 % 2 - 1, 6)
        yield f"p{number:06d}", width, weight, width * weight > 0


def main():
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0, help="number of the first batch (default: 0)")
    parser.add_argument("--count", type=int, default=1, help="how many batches (default: 1)")
    options = parser.parse_args()
    if options.first < 0 or options.count < 1:
        parser.error(f"--first is {options.first} and --count {options.count}; expected at least 0 and 1")
    if options.product not in (names := product_files.names()):
        parser.error(
            f"{options.product!r} is not the name of a product; expected one of {', '.join(names)}. Copy "
            f"deploy/example/parts.py to platform_assets/products/{options.product}.py, or fix the name"
        )
    grain, now = product_files.load(options.product).grain, datetime.now(UTC)
    end = options.first + options.count
    for batch in range(options.first, end):
        # Batches are known a minute after each other, the last one now.
        at = (now - timedelta(minutes=end - 1 - batch)).strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = [f"{part},{width:.6f},{weight:.6f},{at}" for part, width, weight, _ in rows(batch)]
        tests = [f"{part},{str(is_broken).lower()},{at}" for part, _, _, is_broken in rows(batch)]
        files = {"parts": ["part,width,weight,known_at_utc", *parts], "tests": ["part,is_broken,known_at_utc", *tests]}
        for source, lines in files.items():
            path = options.folder / options.product / source / f"{grain.key_at(batch)}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    part, width, weight, _ = next(rows(end))
    question = {"entity": part, "service_time": now.isoformat(), "asked_at": now.isoformat()}
    document = {**question, "features": {"width": width, "weight": weight}}
    (options.folder / "question.json").write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main()
