"""Say in one line what to install for the tests that were skipped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

PACKAGE = re.compile(r"apt-get install ([a-z0-9][a-z0-9+.-]*)")


def line_of(reasons: Iterable[str]) -> str:
    """Return the line for the reasons of skipped tests, one per test; empty without any.

    A reason names a package as `apt-get install NAME`, or what else is needed before its first colon.
    """
    packages, others = Counter[str](), Counter[str]()
    for reason in reasons:
        package = PACKAGE.search(reason)
        if package is None:
            others[reason.removeprefix("Skipped: ").partition(":")[0]] += 1
        else:
            packages[package[1]] += 1
    sentences = []
    if packages:
        sentences.append(f"Skipped without {_listed(packages)}: apt-get install {' '.join(sorted(packages))}.")
    if others:
        sentences.append(f"Skipped{' too' * bool(packages)}: {_listed(others)}.")
    return " ".join(sentences)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
