"""`driftline status` says when the daemon of a cluster no longer asks the sensors; the store is all that it has."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from platform_assets.cli import main
from platform_assets.sensors import pulse as sensor
from platform_assets.store import objects, pulse
from tests.automation.conftest import World

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("DRIFTLINE_ENV", "cluster")
    monkeypatch.setenv("DRIFTLINE_ROOT", world.settings.root)
    return world


def stopped(world: World, ago: timedelta) -> None:
    """Leave a time in the store, as a daemon that stopped has left it."""
    objects.replace(
        objects.open_store(world.settings.root), "pulse/sensors", (datetime.now(UTC) - ago).isoformat().encode()
    )


def status(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["status", *options]) == 0
    return capsys.readouterr().out


def test_a_tick_on_a_cluster_leaves_the_time_and_on_one_machine_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = sensor.watch.build([world.spec])
    assert "not a cluster's" in world.reason(watch)
    assert objects.read(objects.open_store(world.settings.root), "pulse/sensors") is None
    monkeypatch.setenv("DRIFTLINE_ENV", "cluster")
    monkeypatch.setenv("DRIFTLINE_ROOT", world.settings.root)
    world.tick(watch)
    assert objects.read(objects.open_store(world.settings.root), "pulse/sensors") is not None
    assert pulse.silence(world.settings.root) is None


def test_status_says_since_when_the_daemon_is_silent(cluster: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert "daemon" not in status(capsys)  # none was ever there
    stopped(cluster, pulse.OLD - timedelta(seconds=30))
    assert "daemon" not in status(capsys)
    stopped(cluster, timedelta(minutes=6, seconds=1))
    assert "Dagster's daemon last asked the sensors 6 minutes ago" in status(capsys).splitlines()[1]
    assert json.loads(status(capsys, "--json"))["daemon"].startswith("Dagster's daemon last asked")


def test_a_file_that_is_no_time_is_named(cluster: World, capsys: pytest.CaptureFixture[str]) -> None:
    objects.replace(objects.open_store(cluster.settings.root), "pulse/sensors", b"noon")
    assert main(["status"]) == 1
    assert "pulse/sensors cannot be read" in capsys.readouterr().err
