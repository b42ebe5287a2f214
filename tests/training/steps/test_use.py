"""Use is sampled while a step works: bounded, missing where it cannot be measured, and part of no digest."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.base.settings import Settings
from platform_assets.store.artifacts import ArtifactStore
from platform_assets.training.steps import train, use
from platform_assets.training.steps.use import Use, as_columns, summary, thinned
from tests.doubles.nvml import Nvml


def test_a_step_without_a_driver_has_no_gpu_numbers_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    for nvml in (Nvml(gpus=0), Nvml(has_driver=False)):
        with Use(nvml=nvml) as used:
            pass
        assert set(used.columns()) == {"at_s", "cpu_cores", "memory_mb"}
        assert set(summary(used.columns())) == {"mean_cpu_cores"}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with Use() as used:
        pass
    assert "gpu_percent" not in used.columns()


def test_gpus_are_averaged_in_utilisation_and_added_up_in_memory() -> None:
    nvml = Nvml(gpus=2, percent=(40.0, 60.0), memory=(1e9, 3e9))
    with Use(nvml=nvml) as used:
        used.sample()
    columns = used.columns()
    assert columns["gpu_percent"] == [50.0, 50.0]
    assert columns["gpu_memory_mb"] == [4000.0, 4000.0]
    assert summary(columns)["peak_gpu_memory_mb"] == 4000.0
    assert nvml.shut_down == 1


def test_a_gpu_that_stops_answering_leaves_a_gap() -> None:
    nvml = Nvml(gpus=1)
    with Use(nvml=nvml) as used:
        used.sample()
        nvml.is_lost = True
    assert [value is None for value in used.columns()["gpu_percent"]] == [False, True]
    assert summary(used.columns())["mean_gpu_percent"] == nvml.percent[0]


def test_samples_are_bounded_and_the_interval_grows() -> None:
    with Use(interval_s=3600.0, most=8) as used:
        for _ in range(100):
            used.sample()
        assert len(used.columns()["at_s"]) < 8
        assert used._interval_s > 3600.0 * 8
    at_s = used.columns()["at_s"]
    assert list(at_s) == sorted(at_s)
    assert used.columns()["memory_mb"][-1] > 1


def test_a_thread_samples_by_itself_and_ends_with_the_step() -> None:
    with Use(interval_s=0.001) as used:
        while len(used.columns().get("at_s", ())) < 3:
            sum(range(1000))
    assert not used._thread.is_alive()
    with pytest.raises(ValueError, match=r"interval_s is 0"):
        Use(interval_s=0)


SAMPLES = st.lists(st.tuples(st.floats(0.01, 9), st.floats(0, 64), st.floats(1, 1e5)), min_size=1, max_size=33)


@given(SAMPLES)
def test_thinning_keeps_mean_end_and_peak(drawn: list[tuple[float, float, float]]) -> None:
    at_s, samples = 0.0, list[dict[str, float]]()
    for passed, cores, memory in drawn:
        at_s += passed
        samples.append({"at_s": at_s, "cpu_cores": cores, "memory_mb": memory})
    half = thinned(samples)
    assert len(half) == (len(samples) + 1) // 2
    assert half[-1]["at_s"] == samples[-1]["at_s"]
    assert max(item["memory_mb"] for item in half) == max(item["memory_mb"] for item in samples)
    means = [summary(as_columns(item))["mean_cpu_cores"] for item in (samples, half)]
    assert means[0] == pytest.approx(means[1], abs=2e-3)


def test_without_samples_there_are_no_numbers() -> None:
    assert as_columns([]) == {}
    assert summary({}) == {}


def test_the_use_of_a_training_is_in_its_result_and_in_no_bundle(
    tiny: ModuleType, settings: Settings, extras: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(fingerprint: str, nvml: Nvml | None = None) -> dict[str, Any]:
        monkeypatch.setattr(use, "_library", lambda: nvml)
        job = train.Job.from_extras({**extras, "fingerprint": fingerprint})
        return train.Training(tiny.SPEC, job, settings, log=lambda line: None).run()

    plain, with_gpu = run("a" * 64), run("b" * 64, Nvml(gpus=1))
    assert len(plain["use"]["at_s"]) == len(plain["use"]["cpu_cores"]) >= 1
    assert "gpu_percent" not in plain["use"]
    assert "gpu_percent" in with_gpu["use"]
    assert plain["checkpoint"] == with_gpu["checkpoint"], "the same bytes whatever was measured"
    assert "use" not in ArtifactStore(settings.root).get_json(plain["checkpoint"])
    assert "use" not in run("a" * 64), "a reused training has no use"
