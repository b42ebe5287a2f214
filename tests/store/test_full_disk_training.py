"""A training whose disk is full ends with one sentence, leaves nothing half-written, and goes on when there is room."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from platform_assets import cli
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.store.ledgers import Ledgers
from platform_assets.training.steps import train
from tests.doubles import tiny_product as tiny

pytestmark = pytest.mark.slow

Leave = Callable[[int], AbstractContextManager[None]]


@pytest.mark.costly
@pytest.mark.parametrize("full", ["state", "store"])
def test_a_disk_that_is_full_while_saving_stops_the_training_which_resumes_later(
    small_disk: tuple[str, Leave], tmp_path: Path, full: str
) -> None:
    small, leave = Path(small_disk[0]).parent, small_disk[1]
    folders = {"state": tmp_path / "state", "store": tmp_path / "store"} | {full: small / full}
    settings = Settings(root=str(folders["store"]), state=folders["state"])
    job = train.Job.from_extras(tiny.store(settings))

    def run() -> str:
        result = train.Training(tiny.SPEC, job, settings, log=lambda _: None, save_every_s=0.0).run()
        assert isinstance(result, dict)
        return str(result["checkpoint"])

    folders["state"].mkdir(parents=True, exist_ok=True)
    with leave(0), pytest.raises((OSError, Problem)) as raised:
        run()
    sentence = cli._sentence(raised.value)
    assert sentence is not None, raised.value
    # The last is of the limit on file sizes, where this process may mount no small disk.
    assert any(reason in sentence for reason in ("No space left", "disk is full", os.strerror(errno.EFBIG)))
    assert Ledgers(settings.root, "tiny").read("checkpoints", job.fingerprint) is None
    untouched = Settings(root=str(tmp_path / "other"), state=tmp_path / "other_state")
    expected = train.Training(
        tiny.SPEC, train.Job.from_extras(tiny.store(untouched)), untouched, log=lambda _: None
    ).run()
    assert isinstance(expected, dict)
    assert run() == expected["checkpoint"]
