"""Use is measured while a step works: missing where it cannot be, and part of no digest."""

import sys
from typing import Any

import pytest

from platform_assets.base.settings import Settings
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training.steps import process, train, use
from platform_assets.training.steps.use import Use
from tests.doubles import tiny_product as tiny
from tests.doubles.nvml import Nvml

pytestmark = pytest.mark.slow


def test_a_step_without_a_driver_has_no_gpu_numbers_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for nvml in (Nvml(gpus=0), Nvml(has_driver=False), None):
        cpu_s, wall_s = iter((5.0, 8.0)), iter((100.0, 102.0))
        monkeypatch.setattr(process, "cpu_s", lambda clock=cpu_s: next(clock))
        monkeypatch.setattr(use.time, "perf_counter", lambda clock=wall_s: next(clock))
        with Use(nvml) as used:
            pass
        assert used.summary() == {"mean_cpu_cores": 1.5}


def test_gpus_are_averaged_in_utilisation_and_added_up_in_memory() -> None:
    nvml = Nvml(gpus=2, percent=(40.0, 60.0), memory=(1e9, 3e9))
    with Use(nvml) as used:
        used.sample()
        nvml.percent, nvml.memory = (0.0, 20.0), (1e9, 1e9)
    numbers = used.summary()
    assert (numbers["mean_gpu_percent"], numbers["peak_gpu_memory_mb"]) == (30.0, 4000.0)
    assert nvml.shut_down == 1


def test_a_gpu_that_stops_answering_leaves_a_gap() -> None:
    nvml = Nvml(gpus=1)
    with Use(nvml) as used:
        used.sample()
        nvml.is_lost = True
    assert used.summary()["mean_gpu_percent"] == nvml.percent[0]


def test_a_thread_samples_by_itself_and_ends_with_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "INTERVAL_S", 0.001)
    with Use(Nvml()) as used:
        while used._samples < 3:
            sum(range(1000))
    assert not used._thread.is_alive()


@pytest.mark.costly
def test_the_use_of_a_training_is_in_its_result_and_in_no_bundle(
    settings: Settings, extras: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(fingerprint: str, nvml: Nvml | None = None) -> dict[str, Any]:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        job = train.Job.from_extras({**extras, "fingerprint": fingerprint})
        return train.Training(tiny.SPEC, job, settings, log=lambda line: None).run()

    plain, with_gpu = run("a" * 64), run("b" * 64, Nvml(gpus=1))
    assert plain["used"].keys() == {"mean_cpu_cores"}
    assert with_gpu["used"]["mean_gpu_percent"] == 75.0
    assert plain["checkpoint"] == with_gpu["checkpoint"], "the same bytes whatever was measured"
    assert "used" not in ArtifactStore(settings.root).get_json(plain["checkpoint"])
    assert "used" not in run("a" * 64), "a reused training has no use"
