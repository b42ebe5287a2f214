"""The content of a disk after a power failure: replays a log of `r1_shim.c` and drops what was not synced to the disk.

A file's bytes are safe after its fsync, a name after its folder's. Of everything else anything may survive; three disks
are shown: one that lost all of it, one that kept every name but no bytes, one that kept names and half the bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOSSES = ("all", "bytes", "half")
"""Losses of data not synced to the disk: names and bytes, only bytes, or half of each file's bytes."""


@dataclass(frozen=True)
class Call:
    """One call of the log: see `r1_shim.c` for the kinds."""

    kind: str
    inode: int
    offset: int
    path: str
    more: bytes


@dataclass
class File:
    """The written bytes of a file, and the safe ones."""

    data: bytearray = field(default_factory=bytearray)
    safe: bytes = b""


class Disk:
    """A folder as its processes see it, and as its disk has it."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._files: dict[str, File] = {}
        self._folders: set[str] = {self.root}
        self._safe_files: dict[str, File] = {}
        self._safe_folders: set[str] = {self.root}
        self._by_inode: dict[int, File] = {}

    def apply(self, call: Call) -> None:
        more = call.more.decode() if call.kind in "lr" else ""
        match call.kind:
            case "c":
                self._files[call.path] = self._by_inode[call.inode] = File()
            case "w":
                data = self._by_inode[call.inode].data
                data.extend(bytes(max(0, call.offset - len(data))))
                data[call.offset : call.offset + len(call.more)] = call.more
            case "t":
                data = self._by_inode[call.inode].data
                data.extend(bytes(max(0, call.offset - len(data))))
                del data[call.offset :]
            case "s":
                file = self._by_inode[call.inode]
                file.safe = bytes(file.data)
            case "d":
                self._make_safe(call.path)
            case "l":
                self._files[more] = self._files[call.path]
            case "r":
                self._files[more] = self._files.pop(call.path)
            case "u":
                del self._files[call.path]
            case "m":
                self._folders.add(call.path)
            case "x":
                self._folders.discard(call.path)
            case _:
                raise AssertionError(call)

    def now(self) -> dict[str, bytes]:
        """Return the view of processes: bytes by path below the root."""
        return {self._below(path): bytes(file.data) for path, file in self._files.items()}

    def after(self, loss: str) -> dict[str, bytes]:
        """Return the content after a power loss."""
        if loss == "all":
            safe = {path: file.safe for path, file in self._safe_files.items() if self._leads_to(path)}
        elif loss == "bytes":
            safe = {path: file.safe for path, file in self._files.items()}
        else:
            halves = {
                path: bytes(file.data[: (len(file.data) + len(file.safe)) // 2]) for path, file in self._files.items()
            }
            safe = {path: file.safe if file.safe == file.data else halves[path] for path, file in self._files.items()}
        return {self._below(path): data for path, data in safe.items()}

    def _make_safe(self, folder: str) -> None:
        self._safe_files = {path: file for path, file in self._safe_files.items() if _folder_of(path) != folder}
        self._safe_files |= {path: file for path, file in self._files.items() if _folder_of(path) == folder}
        self._safe_folders -= {path for path in self._safe_folders if _folder_of(path) == folder}
        self._safe_folders |= {path for path in self._folders if _folder_of(path) == folder}

    def _leads_to(self, path: str) -> bool:
        folder = _folder_of(path)
        while folder != self.root:
            if folder not in self._safe_folders:
                return False
            folder = _folder_of(folder)
        return True

    def _below(self, path: str) -> str:
        return path.removeprefix(self.root).lstrip("/")


def calls_of(log: Path) -> Iterator[Call]:
    data = log.read_bytes()
    location = 0
    while location < len(data):
        end = data.index(b"\n", location)
        kind, inode, offset, length, more = data[location:end].decode().split(" ")
        begins = end + 1
        middle, location = begins + int(length), begins + int(length) + int(more)
        path = data[begins:middle].decode()
        yield Call(kind=kind, inode=int(inode), offset=int(offset), path=path, more=data[middle:location])


def disk_at(root: Path, calls: Sequence[Call]) -> Disk:
    disk = Disk(root)
    for call in calls:
        disk.apply(call)
    return disk


def lay_out(files: dict[str, bytes], folder: Path) -> None:
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]  # pathlib would take half of a replay's time
