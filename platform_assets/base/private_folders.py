"""Create folders for the user of this process alone: they hold what callers sent."""

from __future__ import annotations

from pathlib import Path

FILE_MODE, _FOLDER_MODE = 0o600, 0o700


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, none of which another user may enter; leave existing ones as they are.

    Raises:
        OSError: a folder cannot be created.
    """
    try:
        folder.mkdir(_FOLDER_MODE, exist_ok=True)
    except FileNotFoundError:
        # Not mkdir(parents=True), which makes parents with the default mode, open to others.
        make_folder(folder.parent)
        folder.mkdir(_FOLDER_MODE, exist_ok=True)
