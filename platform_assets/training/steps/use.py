"""Sample what a step uses while it works: CPU, memory, and GPU if there is one.

A thread reads psutil and NVIDIA's driver. The samples go into the step's result and Dagster's metadata, never into a
bundle, a manifest or a digest.

A number that cannot be read is left out, never zero: without a driver, no sample has `gpu_percent`. GPU numbers cover
all devices that the driver shows (in a pod: its own): the mean of their utilisation, the sum of their memory. CPU and
memory are those of this process; a child's CPU seconds count once it has ended. A sample costs 0.04 ms of CPU, plus the
driver's time with a GPU: at the first interval, less than 0.01 % of a core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Any, Self

from platform_assets.training.steps import process

INTERVAL_S = 0.5
MOST_SAMPLES = 200
"""At this number every second sample is dropped and the interval doubles: a run of any length has 100 to 200."""

COLUMNS = ("at_s", "cpu_cores", "memory_mb", "gpu_percent", "gpu_memory_mb")
MB = 1e6

Sample = dict[str, float]
"""`at_s` since the start, `cpu_cores` (mean since the previous sample), `memory_mb`, and with a GPU two more."""

Columns = Mapping[str, Sequence[float | None]]
"""Samples by column, as they are sent in a step's result."""


class Use:
    """Samples of this process and its children, taken while the context is open.

    Args:
        interval_s: between two samples at the start.
        most: maximum number of samples.
        nvml: NVIDIA's management library; imported by default, a double in tests.
    """

    def __init__(
        self, *, interval_s: float = INTERVAL_S, most: int = MOST_SAMPLES, nvml: ModuleType | Any | None = None
    ) -> None:
        if interval_s <= 0 or most < 2:
            raise ValueError(f"interval_s is {interval_s} and most is {most}; expected above 0, and at least 2.")
        self._interval_s = interval_s
        self._most = most
        self._samples: list[Sample] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._gpu = _Gpu(nvml)
        self._thread = threading.Thread(target=self._watch, name="use", daemon=True)

    def __enter__(self) -> Self:
        self._began_s = self._sampled_s = time.perf_counter()
        self._cpu_s = process.cpu_s()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self.sample()
        self._gpu.close()

    def sample(self) -> None:
        """Take a sample now."""
        import psutil

        cpu_s, memory_mb, now_s = process.cpu_s(), psutil.Process().memory_info().rss / MB, time.perf_counter()
        with self._lock:
            passed_s = max(now_s - self._sampled_s, 1e-6)
            taken = {
                "at_s": round(now_s - self._began_s, 3),
                "cpu_cores": round(max(0.0, cpu_s - self._cpu_s) / passed_s, 3),
                "memory_mb": round(memory_mb, 1),
                **self._gpu.sample(),
            }
            self._sampled_s, self._cpu_s = now_s, cpu_s
            self._samples.append(taken)
            if len(self._samples) >= self._most:
                self._samples = thinned(self._samples)
                self._interval_s *= 2

    def columns(self) -> Columns:
        """Return the samples so far."""
        with self._lock:
            return as_columns(self._samples)

    def _watch(self) -> None:
        while not self._is_over.wait(self._interval_s):
            self.sample()


def thinned(samples: list[Sample]) -> list[Sample]:
    """Return half as many samples: the later one of each pair, with the mean CPU of both, weighted by time."""
    rows, before_s = [], 0.0
    for index in range(1, len(samples), 2):
        one, other = samples[index - 1], samples[index]
        first_s, second_s = one["at_s"] - before_s, other["at_s"] - one["at_s"]
        passed_s = first_s + second_s
        cores = other["cpu_cores"]
        if passed_s > 0:
            cores = (one["cpu_cores"] * first_s + other["cpu_cores"] * second_s) / passed_s
        peaks = {name: max(one.get(name, 0.0), value) for name, value in other.items() if name.endswith("memory_mb")}
        rows.append({**other, "cpu_cores": round(cores, 3), **peaks})
        before_s = other["at_s"]
    return rows + (samples[-1:] if len(samples) % 2 else [])


def as_columns(samples: Sequence[Sample]) -> Columns:
    """Return samples by column, None where a sample lacks the number; a column that no sample has is absent."""
    names = [name for name in COLUMNS if any(name in value for value in samples)]
    return {name: [value.get(name) for value in samples] for name in names}


def summary(columns: Columns) -> dict[str, float]:
    """Return the summary numbers of a run's use; what could not be measured is absent."""
    gpu_memory_mb = [value for value in columns.get("gpu_memory_mb", ()) if value is not None]
    numbers = {
        "mean_cpu_cores": _mean(columns, "cpu_cores"),
        "mean_gpu_percent": _mean(columns, "gpu_percent"),
        "peak_gpu_memory_mb": max(gpu_memory_mb, default=None),
    }
    return {name: round(value, 3) for name, value in numbers.items() if value is not None}


def _mean(columns: Columns, name: str) -> float | None:
    """Return a mean over time: each value counts for the time since the previous sample."""
    total = whole = before_s = 0.0
    for at_s, value in zip(columns.get("at_s", ()), columns.get(name, ()), strict=False):
        assert at_s is not None  # every sample has its time
        if value is not None:
            passed_s = max(at_s - before_s, 1e-6)
            total, whole = total + value * passed_s, whole + passed_s
        before_s = at_s
    return total / whole if whole else None


class _Gpu:
    """NVIDIA's driver; no numbers if there is none, or once it stops answering."""

    def __init__(self, nvml: Any | None) -> None:
        self._nvml: Any | None = None
        self._handles: list[Any] = []
        nvml = _library() if nvml is None else nvml
        if nvml is None:
            return
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except nvml.NVMLError:
            return
        self._nvml = nvml

    def sample(self) -> Sample:
        if self._nvml is None or not self._handles:
            return {}
        try:
            busy = [float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) for handle in self._handles]
            memory = [float(self._nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in self._handles]
        except self._nvml.NVMLError:
            return {}
        return {"gpu_percent": round(sum(busy) / len(busy), 1), "gpu_memory_mb": round(sum(memory) / MB, 1)}

    def close(self) -> None:
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = None


def _library() -> ModuleType | None:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
