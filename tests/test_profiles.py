"""A profile that cannot be carried out is refused where it is written, with field, value and what is expected."""

import math
from dataclasses import replace
from typing import Any

import pytest

from platform_assets.profiles import PROFILES, StepProfile, Toleration, named, profile

SMALL = PROFILES["cpu_small"]
SPOT = PROFILES["gpu_spot"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "Gpu Spot", "lower-case letters"),
        ("name", "", "lower-case letters"),
        ("cores", 0, "at least 1"),
        ("memory_gb", 0, "positive"),
        ("memory_gb", math.nan, "positive"),
        ("accelerators", -1, "0 or 1"),
        ("accelerators", 8, "a step computes on one device, and the others would be paid for"),
        ("accelerators", 2, "0 or 1"),
        ("accelerators", True, "0 or 1"),
        ("accelerators", 0.5, "0 or 1"),
        ("accelerators", "8", "0 or 1"),
        ("at_once", 0, "1 to 1000"),
        ("precision", "float16", "one of float32, bfloat16"),
        ("at_once", 1001, "1 to 1000"),
        ("accelerator_resource", "gpu", "an extended resource"),
        ("accelerator_resource", "nvidia.com/", "an extended resource"),
        ("usd_per_hour", -0.01, "0 or more US dollars"),
        ("usd_per_hour", math.inf, "0 or more US dollars"),
        ("on_demand_usd_per_hour", -1, "0 or more, or None"),
        ("on_demand_usd_per_hour", 7.0, "None or usd_per_hour"),
        ("on_demand", "gpu", "None, because is_spot is False"),
        ("priced_on", "1 November", "the date of the price"),
        ("priced_on", "", "the date of the price"),
        ("schedule_timeout_s", 0, "positive number of seconds"),
        ("deadline_s", -1, "positive number of seconds"),
        ("deadline_s", math.inf, "positive number of seconds"),
        ("grace_s", 29.9, "at least 30 seconds"),
        ("grace_s", 30_000, "less than deadline_s"),
        ("node_selector", (("a label", "x"),), "pairs of a node's label and its value"),
        ("node_selector", (("zone", "a/b"),), "pairs of a node's label and its value"),
        ("node_selector", (("zone", "a"), ("zone", "b")), "every label once"),
        ("priority_class", "High Priority", "the name of a PriorityClass"),
        ("data_zone", "", "a zone's name"),
        ("data_zone", "europe west", "a zone's name"),
        ("shm_gb", 4, "below memory_gb"),
        ("shm_gb", 0, "below memory_gb"),
        ("nodes", 0, "1, because a step runs on one node"),
        ("nodes", 4, "1, because a step runs on one node"),
        ("nodes", True, "1, because a step runs on one node"),
        ("larger_memory_gb", 4, "more than memory_gb"),
        ("larger_memory_gb", math.inf, "more than memory_gb"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_what_is_expected(field: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is ") as caught:
        replace(SMALL, **{field: value})
    assert f"{value!r}" in str(caught.value)
    assert expected in str(caught.value)
    assert "platform_assets/profiles.py" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [("on_demand", None, "on-demand twin"), ("on_demand_usd_per_hour", None, "the price of that twin")],
)
def test_a_spot_profile_names_its_twin_on_demand_and_the_price(field: str, value: None, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        replace(SPOT, **{field: value})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"on_demand": "gpu_large"},
            "on_demand is 'gpu_large'; expected one of the profiles on demand: cpu_small, gpu",
        ),
        ({"on_demand": "gpu_spot"}, "expected one of the profiles on demand"),
        ({"on_demand": "cpu_small"}, "a profile of the same size"),
        ({"cores": 4}, "a profile of the same size"),
        ({"on_demand_usd_per_hour": 3.0}, "on_demand_usd_per_hour is 3.0; expected gpu's 2.49"),
    ],
)
def test_a_spot_profile_agrees_with_its_twin(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        named(SMALL, PROFILES["gpu"], replace(SPOT, **changes))


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="every name once"):
        named(SMALL, SMALL)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"key": ""}, "a taint's key"),
        ({"key": "a b"}, "a taint's key"),
        ({"key": "k", "value": "a b"}, "at most 63 letters"),
        ({"key": "k", "effect": "NoWay"}, "one of NoSchedule, PreferNoSchedule, NoExecute"),
    ],
)
def test_a_toleration_is_one_that_a_cluster_takes(fields: dict[str, str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Toleration(**fields)


def test_the_profiles_have_the_names_that_specs_say() -> None:
    assert list(PROFILES) == ["cpu_small", "cpu_spot", "gpu", "gpu_spot"]
    assert profile("gpu_spot").on_demand == "gpu"
    with pytest.raises(ValueError, match="profile is 'tpu'; expected one of cpu_small, cpu_spot, gpu, gpu_spot"):
        profile("tpu")


def test_a_profile_with_accelerators_trains_on_them_and_its_twin_does_too() -> None:
    assert {name: each.device for name, each in PROFILES.items()} == {
        "cpu_small": "cpu",
        "cpu_spot": "cpu",
        "gpu": "cuda",
        "gpu_spot": "cuda",
    }
    with pytest.raises(ValueError, match=r"StepProfile\('gpu'\).accelerators is 2"):
        named(SMALL, replace(PROFILES["gpu"], accelerators=2), SPOT)
    for other in ({"accelerators": 0}, {"precision": "bfloat16"}):
        with pytest.raises(ValueError, match="a profile of the same size"):
            named(SMALL, PROFILES["gpu"], replace(SPOT, **other))


def test_a_spot_profile_selects_spot_nodes_and_no_other_tolerates_them() -> None:
    for each in PROFILES.values():
        assert (("driftline/spot", "true") in each.node_selector) is each.is_spot
        assert any(taint.key == "driftline/spot" for taint in each.tolerations) is each.is_spot


def test_every_field_is_explained() -> None:
    text = StepProfile.__doc__ or ""
    assert not [field for field in StepProfile.__dataclass_fields__ if f"        {field}: " not in text]
