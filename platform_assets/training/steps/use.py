"""Measure what a step uses while it works: CPU, and its GPUs if it has any, which a thread samples.

The numbers go into the step's result and Dagster's metadata, never into a bundle, a manifest or a digest. One that
cannot be measured is left out, never zero. Those of GPUs cover all devices that the driver shows (in a pod: its own):
the mean of their utilisation, the sum of their memory. A child's CPU seconds count once it has ended.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Any, Self

from platform_assets.training.steps import process

INTERVAL_S = 0.5


class Use:
    """What this process and its children use while the context is open.

    Args:
        nvml: NVIDIA's management library; imported by default, a double in tests.
    """

    def __init__(self, nvml: ModuleType | Any | None = None) -> None:
        self._is_over = threading.Event()
        self._handles, self._samples, self._percents, self._peak_mb = list[Any](), 0, 0.0, 0.0
        self._nvml: Any | None = nvml
        with suppress(ImportError):
            import pynvml

            self._nvml = nvml or pynvml
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):  # a library without a driver
                self._nvml.nvmlInit()
                count = self._nvml.nvmlDeviceGetCount()
                self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        self._thread = threading.Thread(target=self._watch, name="use", daemon=True)

    def __enter__(self) -> Self:
        self._began_s, self._cpu_s = time.perf_counter(), process.cpu_s()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self.sample()
        self._wall_s = max(time.perf_counter() - self._began_s, 1e-6)
        self._cpu_s = process.cpu_s() - self._cpu_s
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def sample(self) -> None:
        """Take a sample of the GPUs now."""
        if self._nvml is None or not self._handles:
            return
        try:
            busy = [float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) for handle in self._handles]
            memory = [float(self._nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in self._handles]
        except self._nvml.NVMLError:  # it may answer again
            return
        self._samples += 1
        self._percents += sum(busy) / len(busy)  # samples are equally far apart: their mean is that over time
        self._peak_mb = max(self._peak_mb, sum(memory) / 1e6)

    def summary(self) -> dict[str, float]:
        """Return the numbers of the context once it is closed; what could not be measured is absent."""
        numbers = {"mean_cpu_cores": round(self._cpu_s / self._wall_s, 3)}
        if self._samples:
            percent = round(self._percents / self._samples, 3)
            numbers |= {"mean_gpu_percent": percent, "peak_gpu_memory_mb": round(self._peak_mb, 3)}
        return numbers

    def _watch(self) -> None:
        while self._handles and not self._is_over.wait(INTERVAL_S):
            self.sample()
