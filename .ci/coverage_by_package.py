"""Print the coverage of statements by package, and fail where one falls short. `make coverage`."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

LEAST = 85.0
CORE = ("product", "store", "data", "training", "evaluation", "monitoring")
LEAST_OF = {f"platform_assets/{name}": 95.0 for name in CORE}


def main(path: str) -> int:
    """Print one line per package of the report that `coverage json` wrote; return 1 when one is below its least."""
    statements, covered = defaultdict[str, int](int), defaultdict[str, int](int)
    for name, numbers in json.loads(Path(path).read_text(encoding="utf-8"))["files"].items():
        parts = Path(name).parts
        package = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        for key in (package, "all"):
            statements[key] += numbers["summary"]["num_statements"]
            covered[key] += numbers["summary"]["covered_lines"]
    short = False
    print(f"{'package':28} {'statements':>10} {'covered':>8} {'least':>6}")
    for package in sorted(statements, key=lambda name: (name == "all", name)):
        if not statements[package]:
            continue
        share = 100 * covered[package] / statements[package]
        least = LEAST_OF.get(package, LEAST)
        is_short = share < least and package != "all"
        short = short or is_short
        line = f"{package:28} {statements[package]:10,} {share:7.1f}% {least:5.0f}%"
        print(line + ("  falls short" if is_short else ""))
    return int(short)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
