"""A pod's manifest holds every field of profile and work, is valid, and passes the level "restricted"."""

import copy
import json
import re
from collections.abc import Callable, Iterator
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
from platform_assets.launch.attempt import begin, prepare, selector
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
    settings = settings or Settings.from_environment(ENVIRONMENT)
    a_try = replace(first_try(profile), **plan)
    launch = msgspec.structs.replace(begin(work, a_try, run_id=run_id, launcher="kubernetes"), id=attempt)
    return manifest.pod(
        settings, module, a_try, prepare(settings.root, launch, work.owner), pipes or {"DAGSTER_PIPES_CONTEXT": "x"}
    )


def without_identity() -> Settings:
    return Settings.from_environment(ENVIRONMENT).replace(step_secret=None, step_service_account=None)


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
    result = pod(settings=Settings.from_environment({**ENVIRONMENT, **AUTHORITIES}))
    assert kubernetes_validate.validate(result, "1.35", strict=True) == "1.35"
    (container,) = result["spec"]["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert variables.items() >= AUTHORITIES.items()
    (volume,) = [item for item in result["spec"]["volumes"] if "emptyDir" not in item]
    assert volume == {"name": "ca", "configMap": {"name": "driftline-ca", "optional": True}}
    assert {"name": "ca", "mountPath": "/etc/driftline-ca"} in container["volumeMounts"]


def test_a_step_gets_no_file_of_the_machine_that_starts_it() -> None:
    files = dict.fromkeys(AUTHORITIES, "/usr/local/share/ca.pem")
    assert pod(settings=Settings.from_environment({**ENVIRONMENT, **files}))["spec"] == pod()["spec"]


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
    settings, plan = Settings.from_environment(ENVIRONMENT), first_try(size)
    prepared = prepare(settings.root, begin(WORK, plan, run_id="r", launcher="kubernetes"))
    commands = []
    for is_shared in (True, False):
        spec = manifest.pod(settings, "step", plan, prepared, {}, is_shared=is_shared)["spec"]
        (container,) = spec["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
        commands.append(container["command"])
    options = ["--processes=4", f"--grace-s={size.grace_s:g}"]
    assert commands == [
        ["python", "-m", "platform_assets.launch.torchrun", *options, "step"],
        ["python", "-m", "step"],
    ]


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


@pytest.mark.parametrize("field", ["product", "step", "cutoff", "fingerprint"])
def test_a_field_of_the_work_is_found_in_the_manifest(field: str) -> None:
    assert "sentinel" in list(leaves(pod(work=replace(WORK, **{field: "sentinel"}))))


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("module", "sentinel", "sentinel"),
        ("pipes", {"SENTINEL": "x"}, "SENTINEL"),
        ("pipes", {"X": "sentinel"}, "sentinel"),
        ("memory_gb", 54.321, "54321M"),
        ("attempt", "sentinel", "sentinel"),
        ("run_id", "sentinel", "sentinel"),
    ],
)
def test_an_argument_is_found_in_the_manifest(argument: str, value: Any, expected: str) -> None:
    assert expected in list(leaves(pod(**{argument: value})))


@pytest.mark.parametrize("field", ["namespace", "trainer_image", "step_secret", "step_service_account"])
def test_a_setting_is_found_in_the_manifest(field: str) -> None:
    value = "sentinel@sha256:" + "0" * 64 if field == "trainer_image" else "sentinel"
    settings = Settings.from_environment(ENVIRONMENT)
    assert value in list(leaves(pod(settings=settings.replace(**{field: value}))))


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


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"])
def test_a_pod_asks_for_the_resource_under_which_the_cluster_counts_its_device(resource: str) -> None:
    result = pod(profile=PROFILES["gpu"].replace(accelerator_resource=resource))
    resources = result["spec"]["containers"][0]["resources"]
    assert resources["requests"][resource] == resources["limits"][resource] == "1"
    assert [name for name in resources["limits"] if name.startswith("nvidia.com/")] == [resource]


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
def test_a_profile_without_a_priority_class_gets_that_of_the_installation(
    name: str, own: str | None, expected: str
) -> None:
    settings = Settings.from_environment(
        {
            "DRIFTLINE_TRAINER_IMAGE": "trainer@sha256:" + "0" * 64,
            "DRIFTLINE_STEP_PRIORITY_CLASS": "step",
            "DRIFTLINE_SPOT_PRIORITY_CLASS": "spot",
        }
    )
    plan = first_try(PROFILES[name].replace(priority_class=own))
    launch = begin(WORK, plan, run_id="r", launcher="kubernetes")
    assert (
        manifest.pod(settings, "m", plan, prepare(settings.root, launch), {})["spec"]["priorityClassName"] == expected
    )


def test_labels_and_annotations_of_a_profile_do_not_replace_those_of_the_launcher() -> None:
    size = PROFILES["gpu"].replace(labels=(("team", "x"),), annotations=(("note", "any text: ok"),))
    metadata = pod(profile=size)["metadata"]
    assert {**pod(profile=PROFILES["gpu"])["metadata"]["labels"], "team": "x"} == metadata["labels"]
    assert metadata["annotations"]["note"] == "any text: ok"


def variables_of(**changes: Any) -> dict[str, str]:
    settings = Settings.from_environment(
        {"DRIFTLINE_TRAINER_IMAGE": "trainer@sha256:" + "0" * 64, "DRIFTLINE_GPU_MEMORY_GB": "3"}
    )
    plan = first_try(PROFILES["gpu"].replace(**changes))
    launch = begin(WORK, plan, run_id="r", launcher="kubernetes")
    (container,) = manifest.pod(settings, "m", plan, prepare(settings.root, launch), {})["spec"]["containers"]
    return {item["name"]: item["value"] for item in container["env"]}


@pytest.mark.parametrize(("gigabytes", "text"), [(None, ""), (9.5, "9.5"), (10, "10.0")])
def test_what_a_step_may_take_of_its_gpu_is_its_profiles_and_not_the_runs(gigabytes: float | None, text: str) -> None:
    assert variables_of(gpu_memory_gb=gigabytes)["DRIFTLINE_GPU_MEMORY_GB"] == text


@pytest.mark.parametrize(("cpu_limit", "threads"), [(None, "8"), (9.5, "9")])
def test_thread_pools_follow_the_processors_of_the_profile(cpu_limit: float | None, threads: str) -> None:
    variables = variables_of(cpu_limit=cpu_limit)
    assert (variables["POLARS_MAX_THREADS"], variables["OMP_NUM_THREADS"]) == (threads, threads)


def test_account_and_secret_of_a_step_may_be_its_products_own() -> None:
    settings = Settings.from_environment(
        {
            "DRIFTLINE_TRAINER_IMAGE": "trainer@sha256:" + "0" * 64,
            "DRIFTLINE_STEP_SERVICE_ACCOUNT": "driftline-step-{product}",
            "DRIFTLINE_STEP_SECRET": "driftline-store-step-{product}",
        }
    )
    plan = first_try(PROFILES["cpu_small"])
    launch = begin(replace(WORK, product="flight_delays"), plan, run_id="r", launcher="kubernetes")
    spec = manifest.pod(settings, "m", plan, prepare(settings.root, launch), {})["spec"]
    assert spec["serviceAccountName"] == accounts.STEP.service_account("flight_delays")
    [source] = spec["containers"][0]["envFrom"]
    assert source["secretRef"]["name"] == accounts.STEP.store_secret("flight_delays")


def test_requests_equal_limits_except_that_processors_have_no_limit() -> None:
    resources = pod()["spec"]["containers"][0]["resources"]
    assert resources["limits"] == {"memory": "32000M", "nvidia.com/gpu": "1"}
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
    result = pod(profile=PROFILES["cpu_small"], memory_gb=4, settings=without_identity())
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
    assert selector(WORK).items() <= metadata["labels"].items()


# -- valid --

VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", PROFILES)
def test_the_manifest_is_strictly_valid(name: str, version: str) -> None:
    profile = PROFILES[name].replace(
        data_zone="europe-west4-b", priority_class="training", runtime_class="gvisor", storage_gb=5, cpu_limit=9.5
    )
    for settings in (None, without_identity()):
        result = pod(profile=profile, settings=settings)
        assert kubernetes_validate.validate(result, version, strict=True) == version
        assert json.loads(json.dumps(result)) == result


def test_strict_validation_finds_a_field_that_does_not_exist() -> None:
    result = pod()
    result["spec"]["backoffLimit"] = 0
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(result, VERSIONS[-1], strict=True)


# -- the Pod Security Standards, level "restricted": each of its rules, by its name --


def containers(spec: Json) -> list[Json]:
    return [
        container
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for container in spec.get(kind) or []
    ]


def contexts(spec: Json) -> list[Json]:
    return [container.get("securityContext") or {} for container in containers(spec)]


def everywhere(spec: Json, field: str) -> list[Any]:
    """Return a field of the pod's security context and of every container's, None where it is not set."""
    return [(spec.get("securityContext") or {}).get(field), *(context.get(field) for context in contexts(spec))]


def decided(spec: Json, field: str) -> list[Any]:
    """Return what holds for each container: its own value, or else the pod's."""
    original = (spec.get("securityContext") or {}).get(field)
    return [context.get(field, original) for context in contexts(spec)]


def has_no_handler_with_host(spec: Json) -> bool:
    handlers = [
        handler
        for container in containers(spec)
        for handler in (
            *(container.get(probe) or {} for probe in ("livenessProbe", "readinessProbe", "startupProbe")),
            *((container.get("lifecycle") or {}).values()),
        )
    ]
    return not any((handler.get(how) or {}).get("host") for handler in handlers for how in ("httpGet", "tcpSocket"))


VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SE_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

RULES: dict[str, Callable[[Json], bool]] = {
    "HostProcess": lambda spec: (
        not any((options or {}).get("hostProcess") for options in everywhere(spec, "windowsOptions"))
    ),
    "Host Namespaces": lambda spec: not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
    "Privileged Containers": lambda spec: not any(context.get("privileged") for context in contexts(spec)),
    "Capabilities": lambda spec: all(
        "ALL" in (context.get("capabilities") or {}).get("drop", [])
        and set((context.get("capabilities") or {}).get("add") or []) <= {"NET_BIND_SERVICE"}
        for context in contexts(spec)
    ),
    "HostPath Volumes": lambda spec: not any("hostPath" in volume for volume in spec.get("volumes") or []),
    "Host Ports": lambda spec: (
        not any(port.get("hostPort") for container in containers(spec) for port in container.get("ports") or [])
    ),
    "Host Probes / Lifecycle Hooks": has_no_handler_with_host,
    "AppArmor": lambda spec: all(
        (value or {}).get("type") in (None, "RuntimeDefault", "Localhost")
        for value in everywhere(spec, "appArmorProfile")
    ),
    "SELinux": lambda spec: all(
        (value or {}).get("type") in SE_TYPES and not (value or {}).get("user") and not (value or {}).get("role")
        for value in everywhere(spec, "seLinuxOptions")
    ),
    "/proc Mount Type": lambda spec: all(context.get("procMount") in (None, "Default") for context in contexts(spec)),
    "Seccomp": lambda spec: all(
        (value or {}).get("type") in ("RuntimeDefault", "Localhost") for value in decided(spec, "seccompProfile")
    ),
    "Sysctls": lambda spec: (
        {value["name"] for value in (spec.get("securityContext") or {}).get("sysctls") or []} <= SYSCTLS
    ),
    "Volume Types": lambda spec: all(set(volume) - {"name"} <= VOLUMES for volume in spec.get("volumes") or []),
    "Privilege Escalation": lambda spec: all(
        context.get("allowPrivilegeEscalation") is False for context in contexts(spec)
    ),
    "Running as Non-root": lambda spec: all(value is True for value in decided(spec, "runAsNonRoot")),
    "Running as Non-root user": lambda spec: all(value != 0 for value in everywhere(spec, "runAsUser")),
}

BREACHES: dict[str, tuple[str, Json]] = {
    "HostProcess": ("container security", {"windowsOptions": {"hostProcess": True}}),
    "Host Namespaces": ("spec", {"hostIPC": True}),
    "Privileged Containers": ("container security", {"privileged": True}),
    "Capabilities": ("container security", {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}),
    "HostPath Volumes": ("spec", {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}),
    "Host Ports": ("container", {"ports": [{"containerPort": 1, "hostPort": 1}]}),
    "Host Probes / Lifecycle Hooks": ("container", {"livenessProbe": {"httpGet": {"host": "example.org"}}}),
    "AppArmor": ("container security", {"appArmorProfile": {"type": "Unconfined"}}),
    "SELinux": ("security", {"seLinuxOptions": {"type": "spc_t"}}),
    "/proc Mount Type": ("container security", {"procMount": "Unmasked"}),
    "Seccomp": ("security", {"seccompProfile": {"type": "Unconfined"}}),
    "Sysctls": ("security", {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
    "Volume Types": ("spec", {"volumes": [{"name": "x", "nfs": {"server": "s", "path": "/"}}]}),
    "Privilege Escalation": ("container security", {"allowPrivilegeEscalation": True}),
    "Running as Non-root": ("container security", {"runAsNonRoot": False}),
    "Running as Non-root user": ("security", {"runAsUser": 0}),
}
"""Rule -> where and what would break it."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PROFILES)
def test_the_manifest_passes_the_level_restricted(name: str, rule: str) -> None:
    profile = PROFILES[name]
    assert RULES[rule](pod(profile=profile, memory_gb=profile.memory_gb)["spec"])


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_of_the_level_finds_its_breach(rule: str) -> None:
    spec = copy.deepcopy(pod()["spec"])
    where, breach = BREACHES[rule]
    path = {
        "spec": spec,
        "security": spec["securityContext"],
        "container": spec["containers"][0],
        "container security": spec["containers"][0]["securityContext"],
    }[where]
    path.update(breach)
    assert not RULES[rule](spec)
