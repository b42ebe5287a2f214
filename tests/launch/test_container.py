"""A step's container: privileges and inputs from its command line, and how its end is classified."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from platform_assets.base.failures import INIT, PREEMPTED
from platform_assets.base.settings import AUTHORITIES, AUTHORITY_VARIABLES, Settings, SettingsProblem
from platform_assets.launch import local
from platform_assets.launch.attempt import StepRequest
from platform_assets.launch.container import State, ending, options
from platform_assets.launch.endings import Try, first_try
from platform_assets.launch.image import trainer_image
from platform_assets.launch.launchers import ContainerLauncher, launcher
from platform_assets.launch.profiles import PROFILES, StepProfile
from platform_assets.launch.tries import NotReady

IMAGE = "trainer@sha256:" + "0" * 64
SIZE = PROFILES["cpu_small"].replace(cores=3, memory_gb=5.5, shm_gb=0.25, grace_s=77.5)
GPU = PROFILES["gpu"]
FOLDER = Settings(root="/srv/store", state=Path("/srv/state"))
BUCKET = FOLDER.replace(root="s3://models/root")
USER, ROOT = (1000, 1001), (0, 0)
BEGAN, ENDED = datetime(2026, 11, 25, 9, 0, tzinfo=UTC), datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
NEVER = datetime(1, 1, 1, tzinfo=UTC)


def given(
    settings: Settings = FOLDER, size: StepProfile = SIZE, engine: str = "podman", caller: tuple[int, int] = USER
) -> list[str]:
    return options(engine, settings, first_try(size), caller)


def values(given: list[str], option: str) -> list[str]:
    return [text.removeprefix(f"{option}=") for text in given if text.startswith(f"{option}=")]


# Privileges -----------------------------------------------------------------------------------------------------------


def test_the_size_of_the_profile_is_enforced() -> None:
    argv = given()
    assert values(argv, "--cpus") == ["3"]
    assert values(argv, "--memory") == values(argv, "--memory-swap") == ["5500000000b"], "no swap beyond the memory"
    assert values(argv, "--shm-size") == ["250000000b"]
    assert values(argv, "--stop-timeout") == ["78"]
    assert values(options("podman", FOLDER, Try(profile=SIZE, memory_gb=11.0), USER), "--memory") == ["11000000000b"]


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_a_container_has_no_more_privileges_than_a_pod(engine: str) -> None:
    argv = given(engine=engine)
    assert values(argv, "--cap-drop") == ["ALL"]
    assert values(argv, "--security-opt") == ["no-new-privileges"]
    assert "--read-only" in argv
    assert values(argv, "--tmpfs") == ["/tmp:rw,mode=1777", "/scratch:rw,mode=1777"]
    assert "--privileged" not in argv


def test_memory_that_cannot_hold_its_shm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_gb is 0.25; expected more than the profile's shm_gb, 0.25"):
        options("podman", FOLDER, Try(profile=SIZE, memory_gb=0.25), USER)


def test_an_accelerator_is_handed_over_by_number() -> None:
    assert values(given(size=GPU), "--device") == ["nvidia.com/gpu=0"]
    assert values(given(size=GPU, engine="docker"), "--gpus") == ["1"]
    two = GPU.replace(accelerators=2)
    assert values(given(size=two), "--device") == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    assert values(given(size=two, engine="docker"), "--gpus") == ["2"]
    assert not [text for text in (*given(), *given(engine="docker")) if text.startswith(("--device", "--gpus"))]


def test_the_pods_user_is_mapped_to_the_owner_of_the_store() -> None:
    argv = given()
    assert (values(argv, "--user"), values(argv, "--userns")) == (["10001:10001"], ["keep-id:uid=10001,gid=10001"])
    rooted = given(caller=ROOT)
    assert values(rooted, "--user") == ["10001:10001"]
    assert (
        values(rooted, "--uidmap")
        == values(rooted, "--gidmap")
        == ["0:1000000:10001", "10001:0:1", "10002:1010002:55534"]
    )
    assert values(given(engine="docker"), "--user") == ["1000:1001"]
    for engine in ("podman", "docker"):
        alone = given(BUCKET, engine=engine, caller=ROOT)
        assert values(alone, "--user") == ["10001:10001"]
        for option in ("--userns", "--uidmap", "--gidmap"):
            assert not values(alone, option), "without a folder nobody needs to be mapped"


def test_a_map_of_users_leaves_none_out_and_names_none_twice() -> None:
    parts = [tuple(map(int, part.split(":"))) for part in values(given(caller=ROOT), "--uidmap")]
    assert [inside for start, _, count in parts for inside in range(start, start + count)] == list(range(65_536))
    outside = [user for _, start, count in parts for user in range(start, start + count)]
    assert len(set(outside)) == len(outside)
    assert [user for user in outside if user < 1_000_000] == [0], "of the machine's own users the caller alone"


# Inputs ---------------------------------------------------------------------------------------------------------------


def test_secrets_are_inherited_by_name() -> None:
    settings = BUCKET.replace(store_secrets=("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"))
    assert values(given(settings), "--env") == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_settings_know_the_names_of_secrets_and_not_their_values() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": "whisper", "AWS_SESSION_TOKEN": ""}
    result = Settings.from_environment(environ)
    assert result.store_secrets == ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert "whisper" not in repr(result) + repr(result.to_environment())


@pytest.mark.parametrize(
    ("settings", "endpoint", "expected"),
    [
        (FOLDER, "http://127.0.0.1:8333", ["none"]),
        (BUCKET, "http://127.0.0.1:8333", ["host"]),
        (BUCKET, "http://localhost:8333", ["host"]),
        (BUCKET, "http://[::1]:8333", ["host"]),
        (BUCKET, "https://127.example.com", []),
        (BUCKET, "https://store.example.com", []),
        (BUCKET, None, []),
    ],
)
def test_the_network_is_what_the_store_needs(settings: Settings, endpoint: str | None, expected: list[str]) -> None:
    environ = (("AWS_ENDPOINT_URL", endpoint),) if endpoint else ()
    assert values(given(settings.replace(store_environment=environ)), "--network") == expected


def test_the_file_of_private_authorities_is_where_the_variables_of_the_step_name_it() -> None:
    environ = tuple(dict.fromkeys(AUTHORITY_VARIABLES, f"{AUTHORITIES}/ca.crt").items())
    assert values(given(BUCKET.replace(store_environment=environ)), "--volume") == [
        "/etc/driftline-ca:/etc/driftline-ca:ro"
    ]


def test_a_folder_has_one_path_on_both_sides_and_saves_outlive_their_container() -> None:
    assert values(given(), "--volume") == ["/srv/store:/srv/store:rw", "/srv/state/scratch:/scratch/scratch:rw"]
    assert values(given(BUCKET), "--volume") == []


# Which image, which engine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["trainer", "trainer:1", "trainer@sha256:1", "sha256:" + "0" * 64, IMAGE[:-1]])
@pytest.mark.parametrize("kind", ["container", "kubernetes"])
def test_a_name_that_may_mean_another_image_tomorrow_is_refused(image: str, kind: str) -> None:
    settings = Settings.from_environment({"DRIFTLINE_LAUNCHER": kind, "DRIFTLINE_TRAINER_IMAGE": image})
    with pytest.raises(SettingsProblem, match=rf"DRIFTLINE_TRAINER_IMAGE is '{image}'; expected name@sha256:"):
        launcher(settings)


def test_an_image_by_digest_is_accepted_and_a_missing_one_is_named() -> None:
    settings = Settings.from_environment({"DRIFTLINE_LAUNCHER": "container", "DRIFTLINE_TRAINER_IMAGE": IMAGE})
    assert trainer_image(settings) == IMAGE
    with pytest.raises(SettingsProblem, match="DRIFTLINE_TRAINER_IMAGE is not set; with DRIFTLINE_LAUNCHER=container"):
        trainer_image(settings.replace(trainer_image=None))


def test_docker_is_used_if_podman_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = Settings.from_environment({"DRIFTLINE_LAUNCHER": "container", "DRIFTLINE_TRAINER_IMAGE": IMAGE})
    with pytest.raises(SettingsProblem, match="neither podman nor docker is on PATH"):
        launcher(settings)
    for program in ("docker", "podman"):
        (tmp_path / program).touch(mode=0o755)
        chosen = launcher(settings)
        assert isinstance(chosen, ContainerLauncher)
        assert chosen.engine == program


def test_a_part_of_a_gpu_is_refused_before_anything_is_on_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "podman").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = launcher(Settings.from_environment({"DRIFTLINE_LAUNCHER": "container", "DRIFTLINE_TRAINER_IMAGE": IMAGE}))
    assert isinstance(chosen, ContainerLauncher)
    for resource, is_refused in (("nvidia.com/gpu", False), ("nvidia.com/mig-1g.10gb", True)):
        plan = first_try(PROFILES["gpu"].replace(accelerator_resource=resource))
        request = StepRequest(context=None, module="m", extras=None, work=None, plan=plan)  # type: ignore[arg-type]
        refused = pytest.raises(NotReady, match=r"Profile gpu has nvidia.com/mig-1g.10gb, a part")
        with refused if is_refused else nullcontext():
            chosen.check(request)


def ended(exit_code: int, began: datetime = BEGAN, *, is_out_of_memory: bool = False, error: str = "") -> State:
    return State(exit_code=exit_code, is_out_of_memory=is_out_of_memory, started_at=began, ended_at=ENDED, error=error)


# How it ended ---------------------------------------------------------------------------------------------------------


def test_a_state_is_read_as_an_engine_shows_it() -> None:
    text = (
        '{"Running": false, "ExitCode": 137, "OOMKilled": true, "Error": "", "Pid": 0, "StartedAt": '
        '"2026-11-25T09:00:00.123456000Z", "FinishedAt": "2026-11-25T10:30:00.4+01:00"}'
    )
    result = msgspec.json.decode(text, type=State)
    assert (result.exit_code, result.is_out_of_memory) == (137, True)
    assert (result.began_at, result.ended_at) == (BEGAN.replace(microsecond=123456), ENDED.replace(microsecond=400000))
    never = text.replace("2026-11-25T09:00:00.123456000Z", "0001-01-01T00:00:00Z")
    assert msgspec.json.decode(never, type=State).began_at is None


@pytest.mark.parametrize(
    ("exit_code", "is_out_of_memory", "is_late", "failure"),
    [
        (0, False, False, None),
        (0, True, False, None),  # a child of it was killed, and it finished all the same
        (0, False, True, None),
        (137, True, False, "out_of_memory"),
        (1, True, False, "out_of_memory"),
        (137, True, True, "out_of_memory"),
        (137, False, False, "killed"),
        (143, False, False, "preempted"),
        (143, True, False, "preempted"),
        (143, True, True, "deadline"),
        (143, False, True, "deadline"),
        (137, False, True, "deadline"),
        (1, False, False, "code"),
        (125, False, False, "code"),  # a step's own: its process had begun
    ],
)
def test_an_end_is_classified_by_exit_code_and_state(
    exit_code: int, is_out_of_memory: bool, is_late: bool, failure: str | None
) -> None:
    state = ended(exit_code, is_out_of_memory=is_out_of_memory)
    result = ending(state, 99, "", late_s=60 if is_late else None)
    assert (result.failure and result.failure.name, result.exit_code) == (failure, exit_code)
    assert (result.started_at, result.ended_at) == (BEGAN, ENDED)


@pytest.mark.parametrize(
    ("state", "exit_code", "sentence"),
    [
        (None, 125, "Error: no such device"),
        (None, 126, "Error: permission denied"),
        (ended(127, NEVER, error="no such file"), 127, "Error: something"),
        (ended(0, NEVER), 143, ""),
    ],
)
def test_a_container_that_never_began_is_not_an_error_of_the_step(
    state: State | None, exit_code: int, sentence: str
) -> None:
    result = ending(state, exit_code, sentence)
    assert result.failure is INIT
    expected = (state.error if state else sentence) or "no error message"
    assert result.evidence == f"its container could not start: {expected}"


def test_a_container_that_somebody_removed_is_judged_by_its_exit_code() -> None:
    assert ending(None, 143, "").failure is PREEMPTED
    assert ending(None, 0, "").failure is None


IGNORES_FIRST_SIGNAL = """
import os, signal, time
calls = []
# At once: while Python ends in its own way, it has no handler any more, and a third signal would end it instead.
signal.signal(signal.SIGTERM, lambda *_: os._exit(143) if calls else calls.append(1))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_child_that_ignores_the_first_signal_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "AGAIN_S", 0.1)
    with local.child([sys.executable, "-c", IGNORES_FIRST_SIGNAL], {}, grace_s=50) as child:
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == "ready\n"
    assert child.returncode == 143


def test_a_child_that_will_not_end_is_killed() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with local.child([sys.executable, "-c", deaf], {}, grace_s=0.1) as child:
        assert child.stdout is not None
        with child.stdout:
            child.stdout.readline()
    assert child.returncode == -9
