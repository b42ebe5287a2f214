"""A pod's manifest holds every field of profile and work, is valid, and states what the level "restricted" asks for."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import kubernetes_validate
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from platform_assets.base import accounts
from platform_assets.base.settings import Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes import manifest
from platform_assets.launch.attempt import begin, prepare
from platform_assets.launch.endings import first_try
from platform_assets.launch.labels import PRODUCT, TEAM, attribution_labels
from platform_assets.launch.profiles import PROFILES, StepProfile, Toleration

WORK = Work(product="flights", step="train", cutoff="2013-07-01", fingerprint="ab" * 32)
ENVIRONMENT = {
    "DRIFTLINE_NAMESPACE": "ml",
    "DRIFTLINE_TRAINER_IMAGE": "trainer@sha256:" + "0" * 64,
    "DRIFTLINE_STEP_SECRET": "store",
    "DRIFTLINE_STEP_SERVICE_ACCOUNT": "trainer",
}
SETTINGS = Settings.from_environment(ENVIRONMENT)
ANONYMOUS = SETTINGS.replace(step_secret=None, step_service_account=None)
SENTINEL_IMAGE = "sentinel@sha256:" + "0" * 64
Json = dict[str, Any]


def pod(
    profile: StepProfile = PROFILES["gpu_spot"],
    *,
    settings: Settings | None = None,
    module: str = "platform_assets.launch.train",
    pipes: Json | None = None,
    work: Work = WORK,
    attempt: str = "0d2f",
    run_id: str = "7e4a6dfa-6f5e-4f3f-8d53-f37b3f0a4d0e",
    **plan: Any,
) -> Json:
    settings = settings or SETTINGS
    a_try = replace(first_try(profile), **plan)
    launch = msgspec.structs.replace(begin(work, a_try, run_id=run_id, launcher="kubernetes"), id=attempt)
    return manifest.pod(
        settings, module, a_try, prepare(settings.root, launch, work.owner), pipes or {"DAGSTER_PIPES_CONTEXT": "x"}
    )


def with_variables(variables: dict[str, str]) -> Settings:
    return Settings.from_environment({**ENVIRONMENT, **variables})


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


AUTHORITIES = {"SSL_CERT_FILE": "/etc/driftline-ca/ca.crt", "AWS_CA_BUNDLE": "/etc/driftline-ca/ca.crt"}


def test_a_step_has_the_file_that_its_variables_of_authorities_name() -> None:
    result = pod(settings=with_variables(AUTHORITIES))
    assert kubernetes_validate.validate(result, "1.35", strict=True) == "1.35"
    (container,) = result["spec"]["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables.items() >= AUTHORITIES.items()
    (volume,) = [item for item in result["spec"]["volumes"] if "emptyDir" not in item]
    assert volume == {"name": "ca", "configMap": {"name": "driftline-ca", "optional": True}}
    assert {"name": "ca", "mountPath": "/etc/driftline-ca"} in container["volumeMounts"]


def test_a_step_gets_no_file_of_the_machine_that_starts_it() -> None:
    files = dict.fromkeys(AUTHORITIES, "/usr/local/share/ca.pem")
    assert pod(settings=with_variables(files))["spec"] == pod()["spec"]


# -- every field of profile, work and arguments --

PROFILE_SENTINELS: dict[str, tuple[Any, Any]] = {
    "name": ("sentinel_profile", "sentinel_profile"),
    "cores": (37, "37"),
    "accelerators": (1, "nvidia.com/gpu"),
    "accelerator_resource": ("sentinel.example/gpu", "sentinel.example/gpu"),
    "is_spot": (False, "false"),
    "deadline_s": (12_345.0, 12_345),
    "grace_s": (234.0, 234),
    "node_selector": ((("sentinel-label", "sentinel-node"),), "sentinel-node"),
    "tolerations": ((Toleration(key="sentinel-taint", value="sentinel-v", effect="NoExecute"),), "sentinel-taint"),
    "priority_class": ("sentinel-priority", "sentinel-priority"),
    "data_zone": ("sentinel-zone", "sentinel-zone"),
    "shm_gb": (3.21, "3134720Ki"),
    "cpu_limit": (37.5, "37.5"),
    "storage_gb": (4.56, "4560M"),
    "labels": ((("kueue.x-k8s.io/queue-name", "sentinel-queue"),), "sentinel-queue"),
    "annotations": ((("karpenter.sh/do-not-disrupt", "sentinel-true"),), "sentinel-true"),
    "runtime_class": ("sentinel-runtime", "sentinel-runtime"),
}
"""Field -> a value of it, and what the manifest holds of it."""

NOT_IN_A_MANIFEST = {
    "memory_gb": "the argument of that name decides: it may be larger after out of memory",
    "larger_memory_gb": "the launcher passes it as the argument memory_gb",
    "usd_per_hour": "prices go into the attempt's record; a cluster knows nothing of them",
    "on_demand_usd_per_hour": "likewise",
    "priced_on": "likewise",
    "larger_storage_gb": "the launcher passes it in the try's storage_gb",
    "schedule_timeout_s": "the launcher counts it: Kubernetes lets a pod wait for ever",
    "start_timeout_s": "likewise",
    "queue_timeout_s": "likewise",
    "cloud": "tells how long a save may take; a pod's grace cannot lengthen that",
    "notice_s": "likewise",
    "processes": "the pod's command has them, where they share the step; a test of its own",
    "nodes": "launchers refuse more than one",
    "on_demand": "the launcher chooses that profile for the last try",
    "gpu_memory_gb": "a variable of the container has it; a test of its own",
    "precision": "the step's request says it, and the fingerprint covers that",
    "at_once": "Dagster's queue keeps to it, before there is any pod",
    "data_zone_only": "says whether data_zone is required; a test of its own",
    "cross_zone_usd_per_gb": "prices go into the attempt's record",
    "image": "the launcher passes it as the argument image, where there is one",
    "libraries": "the fingerprint covers them; the image itself holds them",
}


def test_a_step_that_processes_share_runs_torchrun_and_any_other_step_of_the_size_does_not() -> None:
    size = PROFILES["gpu"].replace(accelerators=4)
    settings, plan = with_variables({}), first_try(size)
    prepared = prepare(settings.root, begin(WORK, plan, run_id="r", launcher="kubernetes"))
    commands = []
    for is_shared in (True, False):
        (container,) = manifest.pod(settings, "step", plan, prepared, {}, is_shared=is_shared)["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
        commands.append(container["command"])
    options = ["--processes=4", f"--grace-s={size.grace_s:g}"]
    assert commands == [["python", "-m", "platform_assets.launch.torchrun", *options, "step"], ["python", "-m", "step"]]


def test_every_field_of_a_profile_is_in_the_manifest_or_has_a_reason_not_to_be() -> None:
    assert {*PROFILE_SENTINELS, *NOT_IN_A_MANIFEST} == set(StepProfile.model_fields)
    assert not {*PROFILE_SENTINELS} & {*NOT_IN_A_MANIFEST}


@pytest.mark.parametrize("field", PROFILE_SENTINELS)
def test_a_profiles_field_is_found_in_the_manifest(field: str) -> None:
    value, expected = PROFILE_SENTINELS[field]
    plain = PROFILES["cpu_small" if field == "accelerators" else "gpu"]
    spot = PROFILES["gpu"].replace(is_spot=True, on_demand="gpu", on_demand_usd_per_hour=2.49)
    before = pod(profile=spot if field == "is_spot" else plain)
    after = pod(profile=plain.replace(**{field: value}))
    for result in (before, after):
        del result["spec"]["containers"][0]["env"]  # of the settings
    assert expected not in list(leaves(before))
    assert expected in list(leaves(after))


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("module", "sentinel", "sentinel"),
        ("pipes", {"SENTINEL": "x"}, "SENTINEL"),
        ("pipes", {"X": "sentinel"}, "sentinel"),
        ("memory_gb", 54.321, "54321M"),
        ("attempt", "sentinel", "sentinel"),
        ("run_id", "sentinel", "sentinel"),
        *(
            ("work", replace(WORK, **{field: "sentinel"}), "sentinel")
            for field in ("product", "step", "cutoff", "fingerprint")
        ),
        *(
            ("settings", SETTINGS.replace(**{field: SENTINEL_IMAGE}), SENTINEL_IMAGE)
            for field in ("namespace", "trainer_image", "step_secret", "step_service_account")
        ),
    ],
)
def test_an_argument_a_field_of_the_work_and_a_setting_are_found_in_the_manifest(
    argument: str, value: Any, expected: str
) -> None:
    assert expected in list(leaves(pod(**{argument: value})))


def test_a_node_with_a_broken_device_is_forbidden_and_one_where_nothing_started_avoided() -> None:
    plan = {"forbidden_nodes": ("n1", "n2"), "avoided_nodes": ("n3",)}
    size = PROFILES["gpu"].replace(data_zone="europe-west4-b")
    result = pod(profile=size, **plan)
    affinity = result["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [(item["operator"], item["values"]) for item in term["matchFields"]] == [
        ("NotIn", ["n1"]),
        ("NotIn", ["n2"]),
    ]
    assert {item["key"] for item in term["matchFields"]} == {"metadata.name"}
    zone, other = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert zone["preference"]["matchExpressions"][0]["values"] == ["europe-west4-b"]
    assert other["preference"]["matchFields"][0]["values"] == ["n3"]
    assert kubernetes_validate.validate(result, VERSIONS[-1], strict=True) == VERSIONS[-1]


def test_a_zone_may_be_required_next_to_forbidden_nodes() -> None:
    size = PROFILES["gpu"].replace(data_zone="zone-a", data_zone_only=True)
    zone = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-a"]}
    for plan, others in ({}, set()), ({"forbidden_nodes": ("n1",)}, {"metadata.name"}):
        affinity = pod(profile=size, **plan)["spec"]["affinity"]["nodeAffinity"]
        assert list(affinity) == ["requiredDuringSchedulingIgnoredDuringExecution"]
        # Requirements within a term are ANDed; terms are ORed.
        (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term["matchExpressions"] == [zone]
        assert {item["key"] for item in term.get("matchFields", [])} == others
    assert kubernetes_validate.validate(pod(profile=size), VERSIONS[-1], strict=True) == VERSIONS[-1]


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [("cpu_small", None, "step"), ("cpu_spot", None, "spot"), ("cpu_spot", "training", "training")],
)
def test_a_profile_without_a_priority_class_gets_that_of_the_installation(name: str, own: str | None, expected: str):
    priorities = {"DRIFTLINE_STEP_PRIORITY_CLASS": "step", "DRIFTLINE_SPOT_PRIORITY_CLASS": "spot"}
    result = pod(PROFILES[name].replace(priority_class=own), settings=with_variables(priorities))
    assert result["spec"]["priorityClassName"] == expected


def test_labels_and_annotations_of_a_profile_do_not_replace_those_of_the_launcher() -> None:
    size = PROFILES["gpu"].replace(labels=(("team", "x"),), annotations=(("note", "any text: ok"),))
    metadata = pod(profile=size)["metadata"]
    assert {**pod(profile=PROFILES["gpu"])["metadata"]["labels"], "team": "x"} == metadata["labels"]
    assert metadata["annotations"]["note"] == "any text: ok"


def variables_of(**changes: Any) -> dict[str, str]:
    settings = with_variables({"DRIFTLINE_GPU_MEMORY_GB": "3"})
    (container,) = pod(PROFILES["gpu"].replace(**changes), settings=settings)["spec"]["containers"]
    return {item["name"]: item["value"] for item in container["env"]}


@pytest.mark.parametrize(("gigabytes", "text"), [(None, ""), (9.5, "9.5"), (10, "10.0")])
def test_what_a_step_may_take_of_its_gpu_is_its_profiles_and_not_the_runs(gigabytes: float | None, text: str) -> None:
    assert variables_of(gpu_memory_gb=gigabytes)["DRIFTLINE_GPU_MEMORY_GB"] == text


@pytest.mark.parametrize(("cpu_limit", "threads"), [(None, "8"), (9.5, "9")])
def test_thread_pools_follow_the_processors_of_the_profile(cpu_limit: float | None, threads: str) -> None:
    variables = variables_of(cpu_limit=cpu_limit)
    assert (variables["POLARS_MAX_THREADS"], variables["OMP_NUM_THREADS"]) == (threads, threads)


def test_account_and_secret_of_a_step_may_be_its_products_own() -> None:
    names = {
        "DRIFTLINE_STEP_SERVICE_ACCOUNT": "driftline-step-{product}",
        "DRIFTLINE_STEP_SECRET": "driftline-store-step-{product}",
    }
    spec = pod(settings=with_variables(names), work=replace(WORK, product="flight_delays"))["spec"]
    assert spec["serviceAccountName"] == accounts.STEP.service_account("flight_delays")
    [source] = spec["containers"][0]["envFrom"]
    assert source["secretRef"]["name"] == accounts.STEP.store_secret("flight_delays")


def test_requests_equal_limits_except_that_processors_have_no_limit() -> None:
    for name in ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"):
        size = PROFILES["gpu_spot"].replace(accelerator_resource=name)
        resources = pod(size)["spec"]["containers"][0]["resources"]
        assert resources["limits"] == {"memory": "32000M", name: "1"}
        assert resources["requests"] == {"cpu": "8", **resources["limits"]}
    resources = pod(profile=PROFILES["cpu_small"], memory_gb=4)["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "4000M"}


def test_nothing_restarts_the_pod_nothing_owns_it_and_a_lost_node_is_given_up_soon() -> None:
    result = pod()
    assert result["kind"] == "Pod"
    assert result["spec"]["restartPolicy"] == "Never"
    assert "ownerReferences" not in result["metadata"]
    assert result["spec"]["automountServiceAccountToken"] is False
    lost = {
        item["key"]: item for item in result["spec"]["tolerations"] if item["key"].startswith("node.kubernetes.io/")
    }
    assert {item["tolerationSeconds"] for item in lost.values()} == {manifest.UNREACHABLE_S}
    assert len(lost) == 2
    toleration = Toleration(key="node.kubernetes.io/unreachable", effect="NoExecute")
    tolerations = pod(profile=PROFILES["gpu"].replace(tolerations=(toleration,)))["spec"]["tolerations"]
    assert [item["key"] for item in tolerations].count(toleration.key) == 1


def test_what_is_not_asked_for_is_left_out() -> None:
    result = pod(profile=PROFILES["cpu_small"], memory_gb=4, settings=ANONYMOUS)
    assert "envFrom" not in result["spec"]["containers"][0]
    assert not {"serviceAccountName", "nodeSelector", "priorityClassName", "affinity"} & set(result["spec"])


@pytest.mark.parametrize("shm_gb", [0.25, 1, 2, 3.21, 4, 8])
def test_a_full_shm_is_not_above_its_limit(shm_gb: float) -> None:
    """Linux rounds a tmpfs up to a page, of 4 to 64 KiB, and a kubelet evicts a pod whose volume is above its limit."""
    result = pod(profile=PROFILES["cpu_small"].replace(shm_gb=shm_gb, memory_gb=10), memory_gb=10)
    (volume,) = [item for item in result["spec"]["volumes"] if item["name"] == "shm"]
    limit = volume["emptyDir"]["sizeLimit"]
    assert limit.endswith("Ki")
    size = int(limit.removesuffix("Ki")) * 1024
    assert size % 65536 == 0
    assert 0 <= shm_gb * 1e9 - size < 65536


def test_memory_that_cannot_hold_its_shm_is_refused() -> None:
    with pytest.raises(ValueError, match="expected more than the profile's shm_gb"):
        pod(memory_gb=8)


# -- labels and names --

LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@given(st.text(min_size=1, max_size=200))
def test_a_label_is_always_valid_and_an_annotation_has_the_full_text(text: str) -> None:
    result = pod(attempt=text, run_id=text, work=Work(product=text, step=text, cutoff=text, fingerprint=text))
    metadata = result["metadata"]
    for key, value in metadata["labels"].items():
        assert LABEL.fullmatch(value)
        assert len(value) <= 63
        prefix, _, name = key.rpartition("/")
        assert re.fullmatch(r"[a-z0-9.]+", prefix)
        assert LABEL.fullmatch(name)
    for name in ("attempt", "run-id", "product", "step", "cutoff", "fingerprint"):
        key = f"driftline/{name}"
        assert metadata["annotations"].get(key, metadata["labels"][key]) == text


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
@example("a" * 80, "train", "a")
def test_a_pods_name_is_a_dns_label_and_unique_to_its_attempt(product: str, step: str, attempt: str) -> None:
    def name_of(cutoff: str = WORK.cutoff, attempt: str = attempt) -> str:
        work = replace(WORK, product=product, step=step, cutoff=cutoff)
        launch = begin(work, first_try(PROFILES["gpu"]), run_id="r", launcher="kubernetes")
        return prepare("store", msgspec.structs.replace(launch, id=attempt)).name

    name = name_of()
    assert DNS_LABEL.fullmatch(name)
    assert len(f"{name}-999") <= 63  # the host name of a Job's pod
    assert name == name_of()
    assert name != name_of(attempt=attempt + "1")
    assert name != name_of(cutoff="2013-07-02")


def test_a_step_carries_its_product_and_the_team_of_the_products_file() -> None:
    metadata = pod(work=replace(WORK, product="flight_delays", owner="team:driftline"))["metadata"]
    assert {key: metadata["labels"][key] for key in (PRODUCT, TEAM)} == {PRODUCT: "flight_delays", TEAM: "driftline"}
    assert TEAM not in pod()["metadata"]["labels"]


@given(st.lists(st.text(max_size=70), min_size=2, max_size=2, unique=True))
def test_two_teams_never_share_a_label(names: list[str]) -> None:
    first, second = (attribution_labels("shop", f"team:{name}")[TEAM] for name in names)
    assert first != second
    for value in (first, second):
        assert LABEL.fullmatch(value)
        assert len(value) <= 63


@pytest.mark.parametrize(
    ("owner", "value"),
    [("team:data-science", "data-science"), ("anna@example.com", "anna-example.com-"), ("a_@b.c", "a_-b.c-")],
)
def test_a_team_is_its_owner_with_what_a_label_cannot_hold_replaced(owner: str, value: str) -> None:
    assert attribution_labels("shop", owner)[TEAM].startswith(value)


def test_a_fingerprint_is_cut_in_the_label_and_whole_in_the_annotation() -> None:
    metadata = pod()["metadata"]
    assert metadata["labels"]["driftline/fingerprint"] == WORK.fingerprint[:40]
    assert metadata["annotations"]["driftline/fingerprint"] == WORK.fingerprint
    assert "driftline/cutoff" not in metadata["annotations"]
    assert (
        prepare("store", begin(WORK, first_try(PROFILES["cpu_small"]), run_id="r", launcher="k")).selector.items()
        <= metadata["labels"].items()
    )


# -- valid --

VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", PROFILES)
def test_the_manifest_is_strictly_valid(name: str, version: str) -> None:
    profile = PROFILES[name].replace(
        data_zone="europe-west4-b", priority_class="training", runtime_class="gvisor", storage_gb=5, cpu_limit=9.5
    )
    for settings in (SETTINGS, ANONYMOUS):
        result = pod(profile=profile, settings=settings)
        assert kubernetes_validate.validate(result, version, strict=True) == version
        assert json.loads(json.dumps(result)) == result


def test_what_the_pod_security_level_restricted_asks_for_is_stated() -> None:
    """The API server's own admission judges the whole in tests/cluster, whose namespaces enforce the level."""
    spec = pod()["spec"]
    (container,) = spec["containers"]
    user = {"runAsNonRoot": True, "runAsUser": 10_001}
    seccomp = {"seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["securityContext"] == {**user, "runAsGroup": 10_001, "fsGroup": 10_001, **seccomp}
    assert container["securityContext"] == {
        **user,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
    assert not {"ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"} & container.keys()
    assert {kind for volume in spec["volumes"] for kind in volume} == {"name", "emptyDir"}
