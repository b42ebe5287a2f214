"""A double of `pynvml`, NVIDIA's management library, for machines without a GPU."""

from collections.abc import Sequence
from types import SimpleNamespace


class NVMLError(Exception):
    """The only exception of the library."""


class Nvml:
    """A driver with some GPUs, or none; with `is_lost` it stops answering."""

    NVMLError = NVMLError

    def __init__(
        self,
        *,
        gpus: int = 1,
        percent: Sequence[float] = (75.0,),
        memory: Sequence[float] = (2e9,),
        has_driver: bool = True,
    ) -> None:
        self.gpus, self.percent, self.memory = gpus, percent, memory
        self.has_driver = has_driver
        self.is_lost = False
        self.shut_down = 0

    def nvmlInit(self) -> None:  # noqa: N802  # the library's name
        if not self.has_driver:
            raise NVMLError("Driver/library not found")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802  # the library's name
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802  # the library's name
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802  # the library's name
        self._answer()
        return SimpleNamespace(gpu=self.percent[handle], memory=0)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802  # the library's name
        self._answer()
        return SimpleNamespace(used=self.memory[handle])

    def nvmlShutdown(self) -> None:  # noqa: N802  # the library's name
        self.shut_down += 1

    def _answer(self) -> None:
        if self.is_lost:
            raise NVMLError("GPU is lost")
