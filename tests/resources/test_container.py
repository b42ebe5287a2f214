"""A step's container: privileges and inputs from its command line, and how its end is classified."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from platform_assets.failures import INIT, PREEMPTED
from platform_assets.profiles import PROFILES
from platform_assets.settings import Settings, SettingsProblem
from resources.launchers import ContainerLauncher, container, container_command, foreground, launcher
from resources.launchers.container import State, ending, read_state
from resources.launchers.endings import first_try
from resources.launchers.image import trainer_image
from resources.launchers.readiness import NotReady
from resources.launchers.tries import StepRequest

IMAGE = "trainer@sha256:" + "0" * 64
SIZE = PROFILES["cpu_small"].replace(cores=3, memory_gb=5.5, shm_gb=0.25, grace_s=77.5)
STORE = Path("/srv/store")
BEGAN, ENDED = datetime(2026, 11, 25, 9, 0, tzinfo=UTC), datetime(2026, 11, 25, 9, 30, tzinfo=UTC)


def command(**changes: object) -> list[str]:
    inputs = {
        "engine": "podman",
        "name": "driftline-tiny-train-1",
        "image": IMAGE,
        "module": "platform_assets.steps.train",
        "profile": SIZE,
        "memory_gb": 5.5,
        "labels": {"driftline/step": "train"},
        "environment": {"DRIFTLINE_ROOT": "/srv/store"},
        "secrets": (),
        "folders": {STORE: "/srv/store"},
        "caller": (1000, 1001),
        "network": "none",
    }
    return container_command.run(**(inputs | changes))


def values(words: list[str], option: str) -> list[str]:
    return [after for word, after in pairwise(words) if word == option]


# Privileges -----------------------------------------------------------------------------------------------------------


def test_the_size_of_the_profile_is_enforced() -> None:
    argv = command()
    assert values(argv, "--cpus") == ["3"]
    assert values(argv, "--memory") == values(argv, "--memory-swap") == ["5500000000b"], "no swap beyond the memory"
    assert values(argv, "--shm-size") == ["250000000b"]
    assert values(argv, "--stop-timeout") == ["78"]
    assert values(command(memory_gb=11.0), "--memory") == ["11000000000b"]


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_a_container_has_no_more_privileges_than_a_pod(engine: str) -> None:
    argv = command(engine=engine)
    assert values(argv, "--cap-drop") == ["ALL"]
    assert values(argv, "--security-opt") == ["no-new-privileges"]
    assert "--read-only" in argv
    assert values(argv, "--tmpfs") == ["/tmp:rw,mode=1777", "/scratch:rw,mode=1777"]
    assert "--privileged" not in argv
    assert argv[-4:] == [IMAGE, "python", "-m", "platform_assets.steps.train"]


def test_memory_that_cannot_hold_its_shm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_gb is 0.25; expected more than the profile's shm_gb, 0.25"):
        command(memory_gb=0.25)


def test_an_accelerator_is_handed_over_by_number() -> None:
    gpu = PROFILES["gpu"]
    assert values(command(profile=gpu, memory_gb=32), "--device") == ["nvidia.com/gpu=0"]
    assert values(command(profile=gpu, memory_gb=32, engine="docker"), "--gpus") == ["1"]
    assert not {"--device", "--gpus"} & {*command(), *command(engine="docker")}


def test_the_pods_user_is_mapped_to_the_owner_of_the_store() -> None:
    argv = command()
    assert (values(argv, "--user"), values(argv, "--userns")) == (["10001:10001"], ["keep-id:uid=10001,gid=10001"])
    rooted = command(caller=(0, 0))
    assert values(rooted, "--user") == ["10001:10001"]
    assert (
        values(rooted, "--uidmap")
        == values(rooted, "--gidmap")
        == ["0:1000000:10001", "10001:0:1", "10002:1010002:55534"]
    )
    assert values(command(engine="docker"), "--user") == ["1000:1001"]
    for engine in ("podman", "docker"):
        alone = command(engine=engine, folders={}, caller=(0, 0))
        assert values(alone, "--user") == ["10001:10001"]
        assert not {"--userns", "--uidmap", "--gidmap"} & set(alone), "without a folder nobody needs to be mapped"


def test_a_map_of_users_leaves_none_out_and_names_none_twice() -> None:
    parts = [tuple(map(int, part.split(":"))) for part in values(command(caller=(0, 0)), "--uidmap")]
    assert [inside for start, _, count in parts for inside in range(start, start + count)] == list(range(65_536))
    outside = [user for _, start, count in parts for user in range(start, start + count)]
    assert len(set(outside)) == len(outside)
    assert [user for user in outside if user < 1_000_000] == [0], "of the machine's own users the caller alone"


# Inputs ---------------------------------------------------------------------------------------------------------------


def test_secrets_are_inherited_by_name() -> None:
    argv = command(secrets=("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"), folders={}, network=None)
    assert values(argv, "--env") == ["DRIFTLINE_ROOT=/srv/store", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_settings_know_the_names_of_secrets_and_not_their_values() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": "whisper", "AWS_SESSION_TOKEN": ""}
    result = Settings.from_environment(environ)
    assert result.store_secrets == ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert "whisper" not in repr(result) + repr(result.to_environment())


@pytest.mark.parametrize(
    ("root", "endpoint", "expected"),
    [
        ("/srv/store", "http://127.0.0.1:8333", "none"),
        ("s3://models/root", "http://127.0.0.1:8333", "host"),
        ("s3://models/root", "http://localhost:8333", "host"),
        ("s3://models/root", "http://[::1]:8333", "host"),
        ("s3://models/root", "https://127.example.com", None),
        ("s3://models/root", "https://store.example.com", None),
        ("s3://models/root", None, None),
    ],
)
def test_the_network_is_what_the_store_needs(root: str, endpoint: str | None, expected: str | None) -> None:
    environ = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    assert container_command.network_of(root, environ) == expected


def test_a_folder_has_one_path_on_both_sides_and_saves_outlive_their_container(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    assert container.folders_of(settings) == {
        tmp_path / "store": str(tmp_path / "store"),
        tmp_path / "state" / "scratch": "/scratch/scratch",
    }
    assert container.folders_of(settings.replace(root="s3://models/root")) == {}


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


# How it ended ---------------------------------------------------------------------------------------------------------


def test_a_state_is_read_as_an_engine_shows_it() -> None:
    state = {"Running": False, "ExitCode": 137, "OOMKilled": True, "Error": "", "Pid": 0}
    times = {"StartedAt": "2026-11-25T09:00:00.123456789Z", "FinishedAt": "2026-11-25T10:30:00.4+01:00"}
    result = read_state({"State": state | times})
    assert (result.exit_code, result.is_out_of_memory, result.is_running) == (137, True, False)
    assert (result.started_at, result.ended_at) == (
        BEGAN.replace(microsecond=123456),
        ENDED.replace(microsecond=400000),
    )
    never = {"ExitCode": 127, "Error": "no such file", "StartedAt": "0001-01-01T00:00:00Z"}
    assert read_state({"State": never}) == State(exit_code=127, error="no such file")


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
        (143, False, True, "deadline"),
        (137, False, True, "deadline"),
        (1, False, False, "code"),
        (125, False, False, "code"),  # a step's own: its process had begun
    ],
)
def test_an_end_is_classified_by_exit_code_and_state(
    exit_code: int, is_out_of_memory: bool, is_late: bool, failure: str | None
) -> None:
    state = State(exit_code=exit_code, is_out_of_memory=is_out_of_memory, started_at=BEGAN, ended_at=ENDED)
    result = ending(state, 99, is_late=is_late, last_output="", deadline_s=60)
    assert (result.failure and result.failure.name, result.exit_code) == (failure, exit_code)
    assert (result.started_at, result.ended_at) == (BEGAN, ENDED)


@pytest.mark.parametrize(
    ("state", "exit_code", "sentence"),
    [
        (None, 125, "Error: no such device"),
        (None, 126, "Error: permission denied"),
        (State(exit_code=127, error="no such file"), 127, "Error: something"),
        (State(), 143, ""),
    ],
)
def test_a_container_that_never_began_is_not_an_error_of_the_step(
    state: State | None, exit_code: int, sentence: str
) -> None:
    result = ending(state, exit_code, is_late=False, last_output=sentence, deadline_s=60)
    assert result.failure is INIT
    expected = (state.error if state else sentence) or "no error message"
    assert result.evidence == f"its container could not start: {expected}"


def test_a_container_that_somebody_removed_is_judged_by_its_exit_code() -> None:
    assert ending(None, 143, is_late=False, last_output="", deadline_s=60).failure is PREEMPTED
    assert ending(None, 0, is_late=False, last_output="", deadline_s=60).failure is None


IGNORES_FIRST_SIGNAL = """
import signal, sys, time
calls = []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143) if calls else calls.append(1))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_child_that_ignores_the_first_signal_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "AGAIN_S", 0.1)
    with foreground.child([sys.executable, "-c", IGNORES_FIRST_SIGNAL], {}, grace_s=50) as child:
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == "ready\n"
    assert child.returncode == 143


def test_a_child_that_will_not_end_is_killed() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with foreground.child([sys.executable, "-c", deaf], {}, grace_s=0.1) as child:
        assert child.stdout is not None
        with child.stdout:
            child.stdout.readline()
    assert child.returncode == -9
