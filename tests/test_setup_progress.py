"""Output of `make setup` while pip works, from the output of old and new versions of pip."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "follow.py"


@pytest.fixture(scope="module")
def progress() -> Callable[[Iterable[str], int], Iterator[str]]:
    return runpy.run_path(str(SCRIPT))["progress"]


def test_packages_and_megabytes_are_counted_and_metadata_is_not(
    progress: Callable[[Iterable[str], int], Iterator[str]],
) -> None:
    new = ["Collecting a\n", "  Downloading a-1-py3-none-any.whl.metadata (2.1 kB)\n"]
    new += ["Downloading a-1-py3-none-any.whl (1.5 GB)\n", *["Using cached b-1.whl (12.5 MB)\n"] * 18]
    old = ["  Downloading c-1.tar.gz (500kB)\n", "Installing collected packages: a, b, c\n"]
    assert list(progress([*new, *old], 207)) == [
        "  2/3 downloading: 20 of about 207 packages, 1,726 MB",
        "  3/3 installing: 20 packages downloaded, 1,726 MB; takes a minute or two",
    ]


def test_resolving_is_shown_before_anything_is_downloaded(
    progress: Callable[[Iterable[str], int], Iterator[str]],
) -> None:
    assert list(progress(["Collecting a\n"] * 45, 207)) == ["  2/3 resolving: 40 of about 207 packages"]


def test_files_without_a_size_count(progress: Callable[[Iterable[str], int], Iterator[str]]) -> None:
    assert list(progress(["Downloading a.whl\n"] * 20, 20)) == ["  2/3 downloading: 20 of about 20 packages, 0 MB"]
