"""A tally counts what prometheus-client itself would count, in memory and in the files that workers share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from platform_assets.serving.tally import Distribution, Tally

BOUNDS = (0.5, 1.0, 2.5)
VALUES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 8.0]), max_size=30)


@contextmanager
def files() -> Iterator[Path]:
    """Keep the numbers of prometheus-client in files, as in a worker."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", folder)
        patch.setattr(values, "ValueClass", values.MultiProcessValue())
        yield Path(folder)


def _text(registry: CollectorRegistry, folder: Path | None) -> list[bytes]:
    """Return the metrics as another process reads them, without the moments when they were created."""
    if folder is not None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]


def _counted(where: AbstractContextManager[Path | None], given: list[float], *, by_tally: bool) -> list[bytes]:
    with where as folder:
        registry = CollectorRegistry()
        counter = Counter("rows", "Rows.", ["kind"], registry=registry).labels("plain")
        histogram = Histogram("seconds", "Of a request.", registry=registry, buckets=BOUNDS)
        tally, distribution = Tally.of(counter), Distribution(histogram)
        for value in given:
            if by_tally:
                tally.add(value)
                distribution.observe(value)
            else:
                counter.inc(value)
                histogram.observe(value)
        return _text(registry, folder)


@pytest.mark.parametrize("where", [nullcontext, files])
@given(given=VALUES)
def test_a_tally_counts_what_the_library_counts(
    where: Callable[[], AbstractContextManager[Path | None]], given: list[float]
) -> None:
    expected = _counted(where(), given, by_tally=False)
    assert any(b"seconds_bucket" in line for line in expected)
    assert _counted(where(), given, by_tally=True) == expected


def test_a_process_that_comes_back_goes_on_from_its_file() -> None:
    with files() as folder:
        Tally.of(Counter("rows", "Rows.", registry=None)).add(3)
        values.ValueClass = values.MultiProcessValue()
        Tally.of(Counter("rows", "Rows.", registry=None)).add(4)
        assert b"rows_total 7.0" in _text(CollectorRegistry(), folder)
