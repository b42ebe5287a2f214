"""Marks that a step and its test leave for each other: in a shared folder, or on S3 if the step is a pod."""

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Marks(Protocol):
    def begin(self) -> int:
        """Record the start of a step, and return how many have started."""

    def touch(self, name: str) -> None:
        """Leave a mark."""

    def exists(self, name: str) -> bool:
        """Return whether a mark exists."""


class FolderMarks:
    """Marks in a folder. `starts` has the process id of each started step."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def begin(self) -> int:
        starts = self.folder / "starts"
        with starts.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
        return len(starts.read_text(encoding="utf-8").splitlines())

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def exists(self, name: str) -> bool:
        return (self.folder / name).exists()


class BucketMarks:
    """Marks below a URL of S3, whose server the `AWS_*` variables name."""

    def __init__(self, url: str) -> None:
        from platform_assets.store.objects import open_store

        self.url = url
        self._store = open_store(url)

    def begin(self) -> int:
        self.touch(f"starts/{uuid.uuid4()}")
        return self.starts()

    def starts(self) -> int:
        return sum(1 for _ in self._names("starts"))

    def touch(self, name: str) -> None:
        import obstore

        obstore.put(self._store, name, b"1")  # SeaweedFS lists an empty object as a folder

    def exists(self, name: str) -> bool:
        import obstore

        try:
            obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        import obstore

        with suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def _names(self, prefix: str) -> Iterator[str]:
        import obstore

        for batch in obstore.list(self._store, prefix):
            yield from (item["path"] for item in batch)


def marks_in(location: str) -> Marks:
    return BucketMarks(location) if "://" in location else FolderMarks(location)
