"""The scripts that build images name what they cannot build, before anything is built."""

import subprocess

import pytest

from platform_assets.settings import REPOSITORY


@pytest.mark.parametrize("command", [["deploy/images/build.sh"], ["python3", "deploy/images/twice.py"]])
def test_an_unknown_image_is_named(command: list[str]) -> None:
    ended = subprocess.run([*command, "service", "nosuch"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    expected = "IMAGES names nosuch; expected some of platform, service, trainer\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", expected)
