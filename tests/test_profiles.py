"""An impossible profile is refused where it is defined, with the field, the value and the expectation."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from platform_assets.launch.profiles import (
    BUILT_IN_PROFILES,
    PROFILES,
    ProfileProblem,
    StepProfile,
    Toleration,
    configured,
    named,
    profile,
)

SMALL = PROFILES["cpu_small"]
SPOT = PROFILES["gpu_spot"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "Gpu Spot", "lower-case letters"),
        ("cores", 0, "at least 1"),
        ("memory_gb", 0, "positive"),
        ("memory_gb", math.nan, "positive"),
        ("accelerators", -1, "0 or more"),
        ("accelerators", True, "0 or more"),
        ("processes", 0, "at least 1, or None"),
        ("nodes", 0, "at least 1"),
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
        ("grace_s", 14.9, "at least 15 seconds"),
        ("start_timeout_s", 180, "more than 180 seconds"),
        ("queue_timeout_s", 0, "positive number of seconds"),
        ("cpu_limit", 1, "at least cores, 2"),
        ("cpu_limit", 0, "a number of processors"),
        ("storage_gb", -1, "a positive number of 10^9 bytes"),
        ("larger_storage_gb", 0, "more than storage_gb"),
        ("cloud", "oracle", "one of gke, aws, azure"),
        ("notice_s", 0, "a positive number of seconds"),
        ("runtime_class", "Not A Class", "the name of a RuntimeClass"),
        ("labels", (("kueue.x-k8s.io/queue-name", "a queue"),), "pairs of a label and its value"),
        ("labels", (("driftline/attempt", "x"),), "none of them driftline's own"),
        ("labels", (("team", "a"), ("team", "b")), "every name once"),
        ("annotations", (("driftline-attempt", "x"),), "none of them driftline's own"),
        ("annotations", (("a name", "x"),), "pairs of an annotation's name and a text"),
        ("grace_s", 30_000, "less than deadline_s"),
        ("node_selector", (("a label", "x"),), "pairs of a node's label and its value"),
        ("node_selector", (("zone", "a/b"),), "pairs of a node's label and its value"),
        ("node_selector", (("zone", "a"), ("zone", "b")), "every name once"),
        ("priority_class", "High Priority", "the name of a PriorityClass"),
        ("data_zone", "", "a zone's name"),
        ("data_zone", "europe west", "a zone's name"),
        ("image", "trainer:1", "name@sha256: and 64 hexadecimal digits"),
        ("libraries", "torch=2.13", "None, because image is None"),
        ("gpu_memory_gb", 10, "None, because accelerators is 0"),
        ("gpu_memory_gb", 0, "a positive number of 10^9 bytes, or None"),
        ("shm_gb", 4, "below memory_gb"),
        ("shm_gb", 0, "below memory_gb"),
        ("larger_memory_gb", 4, "more than memory_gb"),
        ("larger_memory_gb", math.inf, "more than memory_gb"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_the_expectation(field: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is ") as caught:
        SMALL.replace(**{field: value})
    assert f"{value!r}" in str(caught.value)
    assert expected in str(caught.value)
    assert "platform_assets/launch/profiles.py" in str(caught.value)


@pytest.mark.parametrize("field", sorted(set(StepProfile.model_fields) - {"name"}))
def test_a_value_of_a_wrong_type_has_our_own_message_for_every_field(field: str) -> None:
    with pytest.raises(ProfileProblem, match="; expected ") as caught:
        PROFILES["gpu_spot"].replace(**{field: object()})
    assert "<object object" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data_zone_only": True}, "data_zone_only is True; expected false, because data_zone is None"),
        ({"cross_zone_usd_per_gb": 0.0}, "cross_zone_usd_per_gb is 0.0; expected None, because data_zone is None"),
        ({"cross_zone_usd_per_gb": -1, "data_zone": "a"}, "cross_zone_usd_per_gb is -1; expected 0 or more"),
        (
            {"data_zone": "a", "data_zone_only": True, "node_selector": {"topology.kubernetes.io/zone": "b"}},
            "expected the zone 'a', because data_zone_only is true",
        ),
    ],
)
def test_fields_about_zones_agree(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ProfileProblem, match=expected):
        SMALL.replace(**changes)


@pytest.mark.parametrize(
    ("resource", "is_part"),
    [
        ("nvidia.com/gpu", False),
        ("nvidia.com/mig-1g.10gb", True),
        ("nvidia.com/mig-3g.40gb.me", True),
        ("nvidia.com/gpu.shared", True),
        ("amd.com/gpu", False),
    ],
)
def test_a_part_of_a_gpu_is_known_by_its_resource(resource: str, is_part: bool) -> None:
    assert PROFILES["gpu"].replace(accelerator_resource=resource).is_part_of_gpu == is_part
    assert not SMALL.replace(accelerator_resource=resource).is_part_of_gpu


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"StepProfile\('cpu_small'\).colour is not a field; expected one of name, cores"
    ):
        SMALL.replace(colour="blue")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"on_demand": "gpu_large"},
            "on_demand is 'gpu_large'; expected one of the profiles on demand: cpu_small, gpu",
        ),
        ({"on_demand": "gpu_spot"}, "expected one of the profiles on demand"),
        ({"on_demand": None}, "on-demand twin"),
        ({"on_demand_usd_per_hour": None}, "the price of that twin"),
        ({"on_demand": "cpu_small"}, "a profile of the same size"),
        ({"cores": 4}, "a profile of the same size"),
        ({"image": "own@sha256:" + "1" * 64}, "expected that of its twin gpu, None"),
        ({"gpu_memory_gb": 10}, "expected that of its twin gpu, None"),
        ({"on_demand_usd_per_hour": 3.0}, "on_demand_usd_per_hour is 3.0; expected gpu's 2.49"),
    ],
)
def test_a_spot_profile_names_its_twin_and_agrees_with_it(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        named(SMALL, PROFILES["gpu"], SPOT.replace(**changes))


def test_names_are_unique() -> None:
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
def test_a_toleration_must_be_valid_in_a_cluster(fields: dict[str, str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Toleration(**fields)


def test_the_profiles_have_the_names_used_in_specs() -> None:
    assert list(PROFILES) == ["cpu_small", "cpu_spot", "gpu", "gpu_spot"]
    assert profile("gpu_spot").on_demand == "gpu"
    with pytest.raises(ValueError, match="profile is 'tpu'; expected one of cpu_small, cpu_spot, gpu, gpu_spot"):
        profile("tpu")


def test_a_profile_with_accelerators_trains_on_them_and_its_twin_does_too() -> None:
    assert {name: size.device for name, size in PROFILES.items()} == {
        "cpu_small": "cpu",
        "cpu_spot": "cpu",
        "gpu": "cuda",
        "gpu_spot": "cuda",
    }
    for other in ({"accelerators": 0}, {"accelerators": 2}, {"nodes": 2}, {"precision": "bfloat16"}):
        with pytest.raises(ValueError, match="a profile of the same size"):
            named(SMALL, PROFILES["gpu"], SPOT.replace(**other))


def test_a_profile_has_one_process_per_accelerator_unless_it_says_more() -> None:
    gpus = PROFILES["gpu"].replace(accelerators=4, nodes=2)
    assert (SMALL.world_size, gpus.processes_per_node, gpus.world_size) == (1, 4, 8)
    assert gpus.threads == gpus.cores // 4
    shared = SMALL.replace(processes=2)
    assert (shared.device, shared.world_size, shared.threads) == ("cpu", 2, 1)
    for size in (gpus, shared):
        assert size.of_one_process.world_size == 1
        assert size.of_one_process.device == size.device


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accelerators": 4, "processes": 2}, r"processes is 2; expected one per accelerator, 4, or None"),
        ({"accelerators": 2, "accelerator_resource": "nvidia.com/mig-1g.10gb"}, "0 or 1 of nvidia.com/mig-1g.10gb"),
        ({"accelerators": 2, "accelerator_resource": "nvidia.com/gpu.shared"}, "its parts share no work"),
    ],
)
def test_processes_that_could_not_share_a_training_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        PROFILES["gpu"].replace(**changes)


def test_a_spot_profile_selects_spot_nodes_and_no_other_tolerates_them() -> None:
    for size in PROFILES.values():
        assert (("driftline/spot", "true") in size.node_selector) is size.is_spot
        assert any(taint.key == "driftline/spot" for taint in size.tolerations) is size.is_spot


def test_every_field_has_a_description() -> None:
    for model in (StepProfile, Toleration):
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def write(folder: Path, text: str) -> Path:
    path = folder / "profiles.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_and_variables_the_built_in_profiles_apply() -> None:
    assert configured(PROFILES) == PROFILES
    assert set(BUILT_IN_PROFILES) == {"cpu_small", "cpu_spot"}, "what a project without resources/ has"


def test_a_file_changes_profiles_and_adds_some(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [gpu]
        usd_per_hour = 2.11
        priced_on = 2026-12-01
        [gpu_spot]
        on_demand_usd_per_hour = 2.11
        priced_on = "2026-12-01"
        data_zone = "europe-west4-b"
        node_selector = { "driftline/spot" = "true", "cloud.google.com/gke-nodepool" = "gpu-spot" }
        tolerations = [{ key = "driftline/spot", value = "true" }, { key = "nvidia.com/gpu" }]
        [cpu_large]
        cores = 16
        memory_gb = 64
        usd_per_hour = 1
        priced_on = "2026-12-01"
        """,
    )
    profiles = configured(PROFILES, path)
    spot = PROFILES["gpu_spot"]
    assert profiles["gpu_spot"] == spot.replace(
        on_demand_usd_per_hour=2.11,
        priced_on="2026-12-01",
        data_zone="europe-west4-b",
        node_selector=(("driftline/spot", "true"), ("cloud.google.com/gke-nodepool", "gpu-spot")),
        tolerations=(Toleration(key="driftline/spot", value="true"), Toleration(key="nvidia.com/gpu")),
    )
    assert profiles["gpu"] == PROFILES["gpu"].replace(usd_per_hour=2.11, priced_on="2026-12-01")
    assert profiles["cpu_large"] == StepProfile(
        name="cpu_large", cores=16, memory_gb=64, usd_per_hour=1, priced_on="2026-12-01"
    )
    assert list(profiles) == [*PROFILES, "cpu_large"]
    assert profiles["cpu_small"] is PROFILES["cpu_small"]


def test_a_variable_overrides_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[gpu]\ndata_zone = "a"\nat_once = 3\n')
    variables = {"DRIFTLINE_PROFILE__GPU__DATA_ZONE": "europe-west4-b", "DRIFTLINE_PROFILE__CPU_SMALL__CORES": "4"}
    profiles = configured(PROFILES, path, {**variables, "DRIFTLINE_PROFILE__CPU_SPOT__CORES": "4"})
    assert (profiles["gpu"].data_zone, profiles["gpu"].at_once) == ("europe-west4-b", 3)
    assert (profiles["cpu_small"].cores, profiles["cpu_spot"].cores) == (4, 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[gpu]\ncores = 0", "{gpu}: cores is 0; expected at least 1."),
        ("[gpu]\ncore = 8", "{gpu}: core is not a field; expected one of name, cores, memory_gb, "),
        ('[gpu]\ncores = "8"', "{gpu}: cores is '8'; expected at least 1."),
        (
            "[gpu]\nshm_gb = 32",
            "{gpu}: shm_gb is 32; expected a positive number of 10^9 bytes below memory_gb, 32.",
        ),
        (
            "[gpu]\nmemory_gb = 8",
            "{gpu}: shm_gb is 8; expected a positive number of 10^9 bytes below memory_gb, 8.",
        ),
        (
            "[gpu]\nusd_per_hour = 2",
            "{gpu}: usd_per_hour is 2 without priced_on; expected the new price's date too.",
        ),
        (
            "[tpu]\ncores = 2",
            "{path}, [tpu]: memory_gb is missing; expected memory that the step may use, in 10^9",
        ),
        (
            '[gpu]\ntolerations = [{key = ""}]',
            "{gpu}: tolerations has a toleration whose key is ''; expected a taint's key, such as nvidia.com/gpu.",
        ),
        (
            "[gpu]\nusd_per_hour = 2.0\npriced_on = 2026-12-01",
            "StepProfile('gpu_spot').on_demand_usd_per_hour is 2.49; expected gpu's 2.0. Profiles were changed by ",
        ),
        ('[gpu]\nname = "tpu"', "{gpu}: name is 'tpu'; expected no name: the table has it."),
        ("gpu = 8", "{path}: gpu is 8; expected one table per profile, such as [gpu_spot]."),
        ("[gpu", "{path} is not TOML: "),
        pytest.param("[gpu]\nname = " + "[" * 5000 + "]" * 5000, "{path} is not TOML: ", id="nested too deeply"),
    ],
)
def test_a_wrong_file_gives_one_message_with_file_table_and_field(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ProfileProblem) as caught:
        configured(PROFILES, path)
    assert str(caught.value).startswith(sentence.format(path=path, gpu=f"{path}, [gpu]"))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("DRIFTLINE_PROFILE__GPU__CORES", "many", "DRIFTLINE_PROFILE__GPU__CORES is 'many'; expected at least 1."),
        (
            "DRIFTLINE_PROFILE__GPU__MEMORY_GB",
            "8",
            "profile gpu, changed by DRIFTLINE_PROFILE__GPU__MEMORY_GB: shm_gb is",
        ),
        (
            "DRIFTLINE_PROFILE__GPU__CORES",
            "8\nat_once = 9",
            "DRIFTLINE_PROFILE__GPU__CORES is '8\\nat_once = 9'; expected at least 1.",
        ),
        pytest.param(
            "DRIFTLINE_PROFILE__GPU__TOLERATIONS",
            "[" * 5000 + "]" * 5000,
            "DRIFTLINE_PROFILE__GPU__TOLERATIONS is ",
            id="nested too deeply",
        ),
        ("DRIFTLINE_PROFILE__CORES", "8", "DRIFTLINE_PROFILE__CORES names no field of a profile; expected "),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, sentence: str) -> None:
    with pytest.raises(ProfileProblem) as caught:
        configured(PROFILES, None, {variable: text})
    assert str(caught.value).startswith(sentence)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileProblem, match=r"DRIFTLINE_PROFILES is '.*none.toml'; expected a TOML file that exists"):
        configured(PROFILES, tmp_path / "none.toml")


@pytest.mark.costly
def test_the_environment_names_the_file_and_the_variables(tmp_path: Path, repository: Path) -> None:
    path = write(tmp_path, "[gpu]\nat_once = 7\n")
    code = (
        "from platform_assets.launch.profiles import profile; print(profile('gpu').at_once, profile('gpu').data_zone)"
    )
    environment = {"DRIFTLINE_PROFILES": str(path), "DRIFTLINE_PROFILE__GPU__DATA_ZONE": "here"}
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    assert output.stdout == "7 here\n"
    path.write_text("[gpu]\nat_once = 0\n", encoding="utf-8")
    refused = subprocess.run(
        [sys.executable, "-m", "platform_assets.cli", "--version"], cwd=repository, env=environment, check=False
    )
    assert refused.returncode == 0, "a command without profiles does not read the file"


def test_the_example_of_the_documentation_is_valid(tmp_path: Path, repository: Path) -> None:
    text = (repository / "docs" / "operate.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(\[gpu\].*?)```", text, re.DOTALL)
    profiles = configured(PROFILES, write(tmp_path, example))
    assert profiles["gpu_spot"].data_zone == "europe-west4-b"
    assert profiles["gpu_slice"].memory_gb == 8


# -- notices --


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 120),
        ({"cloud": "gke"}, 15),
        ({"cloud": "gke", "notice_s": 120}, 120),
        ({"cloud": "gke", "grace_s": 15}, 15),
        ({"cloud": "azure"}, 30),
        ({"cloud": "aws", "grace_s": 600}, 120),
        ({"notice_s": 45}, 45),
    ],
)
def test_a_step_on_a_spot_node_must_save_within_its_clouds_notice(changes: dict[str, Any], expected: float) -> None:
    assert SPOT.replace(**changes).save_s == expected


def test_a_notice_does_not_apply_to_nodes_on_demand() -> None:
    assert SMALL.replace(cloud="gke").save_s == SMALL.grace_s


def test_a_notice_of_gke_is_at_most_two_minutes() -> None:
    with pytest.raises(ProfileProblem, match=r"notice_s is 150\.0; expected at most 120 seconds on GKE"):
        SPOT.replace(cloud="gke", notice_s=150)
