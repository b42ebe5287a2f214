"""A step's container: what it may and how it is told, by the command alone, and what its end means."""

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


# What it may ----------------------------------------------------------------------------------------------------------


def test_the_size_is_the_profiles_and_is_enforced() -> None:
    text = command()
    assert values(text, "--cpus") == ["3"]
    assert values(text, "--memory") == values(text, "--memory-swap") == ["5500000000b"], "no swap beyond the memory"
    assert values(text, "--shm-size") == ["250000000b"]
    assert values(text, "--stop-timeout") == ["78"]
    assert values(command(memory_gb=11.0), "--memory") == ["11000000000b"]


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_it_may_no_more_than_a_pod(engine: str) -> None:
    text = command(engine=engine)
    assert values(text, "--cap-drop") == ["ALL"]
    assert values(text, "--security-opt") == ["no-new-privileges"]
    assert "--read-only" in text
    assert values(text, "--tmpfs") == ["/tmp:rw,mode=1777", "/scratch:rw,mode=1777"]
    assert "--privileged" not in text
    assert text[-4:] == [IMAGE, "python", "-m", "platform_assets.steps.train"]


def test_memory_that_cannot_hold_its_shm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_gb is 0.25; expected more than the profile's shm_gb, 0.25"):
        command(memory_gb=0.25)


def test_an_accelerator_is_handed_over_by_number() -> None:
    gpu = PROFILES["gpu"]
    assert values(command(profile=gpu, memory_gb=32), "--device") == ["nvidia.com/gpu=0"]
    assert values(command(profile=gpu, memory_gb=32, engine="docker"), "--gpus") == ["1"]
    assert not {"--device", "--gpus"} & {*command(), *command(engine="docker")}


def test_whoever_owns_the_store_is_outside_whom_the_pods_user_is_inside() -> None:
    text = command()
    assert (values(text, "--user"), values(text, "--userns")) == (["10001:10001"], ["keep-id:uid=10001,gid=10001"])
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


# What it is told ------------------------------------------------------------------------------------------------------


def test_secrets_are_inherited_by_name() -> None:
    text = command(secrets=("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"), folders={}, network=None)
    assert values(text, "--env") == ["DRIFTLINE_ROOT=/srv/store", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


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
    messages = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    assert container_command.network_of(root, messages) == expected


def test_a_folder_has_one_path_on_both_sides_and_saves_outlive_their_container(tmp_path: Path) -> None:
    original = Settings(root=str(tmp_path / "store"), state=tmp_path / "state")
    assert container.folders_of(original) == {
        tmp_path / "store": str(tmp_path / "store"),
        tmp_path / "state" / "scratch": "/scratch/scratch",
    }
    assert container.folders_of(original.replace(root="s3://models/root")) == {}


# Which image, which engine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["trainer", "trainer:1", "trainer@sha256:1", "sha256:" + "0" * 64, IMAGE[:-1]])
@pytest.mark.parametrize("kind", ["container", "kubernetes"])
def test_a_name_that_may_mean_another_image_tomorrow_is_refused(image: str, kind: str) -> None:
    messages = Settings.from_environment({"DRIFTLINE_LAUNCHER": kind, "DRIFTLINE_TRAINER_IMAGE": image})
    with pytest.raises(SettingsProblem, match=rf"DRIFTLINE_TRAINER_IMAGE is '{image}'; expected name@sha256:"):
        launcher(messages)


def test_an_image_by_digest_is_taken_and_none_is_missed_by_name() -> None:
    messages = Settings.from_environment({"DRIFTLINE_LAUNCHER": "container", "DRIFTLINE_TRAINER_IMAGE": IMAGE})
    assert trainer_image(messages) == IMAGE
    with pytest.raises(SettingsProblem, match="DRIFTLINE_TRAINER_IMAGE is not set; with DRIFTLINE_LAUNCHER=container"):
        trainer_image(messages.replace(trainer_image=None))


def test_docker_stands_in_where_podman_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    messages = Settings.from_environment({"DRIFTLINE_LAUNCHER": "container", "DRIFTLINE_TRAINER_IMAGE": IMAGE})
    with pytest.raises(SettingsProblem, match="neither podman nor docker is on PATH"):
        launcher(messages)
    for program in ("docker", "podman"):
        (tmp_path / program).touch(mode=0o755)
        chosen = launcher(messages)
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
    output = {"Running": False, "ExitCode": 137, "OOMKilled": True, "Error": "", "Pid": 0}
    times = {"StartedAt": "2026-11-25T09:00:00.123456789Z", "FinishedAt": "2026-11-25T10:30:00.4+01:00"}
    result = read_state({"State": output | times})
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
def test_what_an_end_means(exit_code: int, is_out_of_memory: bool, is_late: bool, failure: str | None) -> None:
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


SLOW_TO_LISTEN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(0.5)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
time.sleep(60)
"""


def test_a_child_that_does_not_listen_yet_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "AGAIN_S", 0.1)
    with foreground.child([sys.executable, "-c", SLOW_TO_LISTEN], {}, grace_s=50) as child:
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
