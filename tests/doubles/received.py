"""What a store has received of a product's prediction log, read segment by segment."""

import json
from collections import defaultdict
from dataclasses import dataclass, field

import obstore

from platform_assets.store import objects, segments
from platform_assets.store.segments import Segment


def read(root: str, product: str) -> list[Segment]:
    """Return all segments of a product by name, each verified."""
    store = objects.open_store(root)
    listed = obstore.list(store, segments.folder(product)).collect()
    paths = sorted(item["path"] for item in listed)
    return [segments.decode(path, bytes(obstore.get(store, path).bytes()), product) for path in paths]


def kinds(root: str, product: str) -> list[str]:
    return [segment.header.kind for segment in read(root, product)]


def lines(root: str, product: str) -> list[bytes]:
    """Return the lines of all segments by stream and offset; fails if a stream has a gap."""
    by_stream: dict[str, dict[int, bytes]] = defaultdict(dict)
    for segment in read(root, product):
        if segment.body:
            by_stream[segment.header.stream][segment.header.first] = segment.body
    received = []
    for stream, parts in sorted(by_stream.items()):
        end = 0
        for first, body in sorted(parts.items()):
            assert first == end, (stream, first, end)
            received += body.splitlines(keepends=True)
            end += len(body)
    return received


def ids(root: str, product: str) -> list[str]:
    bodies = [segment.body for segment in read(root, product)]
    return [json.loads(line)["prediction_id"] for body in bodies for line in body.splitlines()]


@dataclass
class Arrived:
    """The prediction ids of all segments, read again and again.

    Attributes:
        ids: as of the last look.
    """

    root: str
    product: str
    ids: set[str] = field(default_factory=set)
    _paths: set[str] = field(default_factory=set)

    def look(self) -> set[str]:
        store = objects.open_store(self.root)
        paths = {item["path"] for item in obstore.list(store, segments.folder(self.product)).collect()}
        for path in paths - self._paths:
            body = segments.decode(path, bytes(obstore.get(store, path).bytes()), self.product).body
            self.ids |= {json.loads(line)["prediction_id"] for line in body.splitlines()}
        self._paths |= paths
        return self.ids
