"""Look at landed files over several ticks, and say of each why it is not known to be whole.

Belongs here: what a tick remembers of the files that it saw. Does not belong here: what makes a file whole
(`intake.arrivals`), or what follows from one that is not (`landings`).
"""

from collections.abc import Collection, Mapping, Sequence

from platform_assets import clock, naming
from platform_assets.handle import Product
from platform_assets.intake import arrivals
from platform_assets.specs.base import Source
from sensors import closed_keys
from sensors.changes import Asked, Mark, Unfinished

MOST_BYTES = 256 * 2**20
"""How much one tick reads to compare files with their manifests; the others are compared in the next one."""

Look = tuple[str | float | None, ...]
"""Of a file that must settle: its mark, the moment of the first look at that, and that of the first look of all. Of a
file with a manifest: the marks of both, and how they compared."""


class Watch:
    """One tick's looks at the files of a product.

    Attributes:
        looks: what the next tick must know, by `source key`.
        unfinished: by source and key why a file is not known to be whole.
        settled: by key the short names of files that have settled, for the runs that take them in.
    """

    def __init__(self, product: Product, mark: Mark, looks: Mapping[str, Look]) -> None:
        """Look at nothing yet.

        Args:
            product: whose files; they settle by the wall clock, of recordings too.
            mark: looks for a landed file.
            looks: `looks` of the tick before.
        """
        self.looks: dict[str, Look] = {}
        self.unfinished: dict[tuple[str, str], str] = {}
        self.settled: dict[str, tuple[str, ...]] = {}
        self._product, self._spec, self._mark, self._before = product, product.spec, mark, looks
        self._root, self._read_bytes = product.settings.root, 0
        self._at_s = clock.now(product.settings, product.name, is_live=True).timestamp()

    def why_not(self, source: Source, key: str, mark: str) -> Unfinished | None:
        """Return why a file that is there is not known to be whole, None when it is; a `WhyNot`."""
        kind = arrivals.kind(self._spec, source, self._root)
        found: Unfinished | None = None
        if kind == "settled":
            found = self._unsettled(source, key, mark)
        elif kind == "marker" and self._mark(source, key, arrivals.MARKER) is None:
            found = Unfinished(arrivals.no_marker(source, key))
        elif kind == "manifest":
            found = self._unlike_manifest(source, key, mark)
        if found is not None:
            self.unfinished[source.name, key] = found.why
        return found

    def look_ahead(self, after: str | None, most: int) -> None:
        """Look at the files of the keys after one that must settle: in order, they settle together.

        Args:
            after: the last key whose files need no look; None for none.
            most: how many keys.
        """
        spec = self._spec
        sources = [
            source
            for source in spec.feature_sources
            if not source.is_slow and arrivals.kind(spec, source, self._root) == "settled"
        ]
        for key in closed_keys.following(spec.grain, after, most):
            found = [(source, mark) for source in sources if (mark := self._mark(source, key)) is not None]
            if not found:
                return
            for source, mark in found:
                self.why_not(source, key, mark)

    def labels(self) -> list[str]:
        """Return which labels are not known to be whole, and why, as clauses."""
        label = self._spec.label_source.name
        of = {key: why for (source, key), why in self.unfinished.items() if source == label}
        told = [f"{label} of {key} {why}" for key, why in of.items()]
        return told[:1] + ([f"{len(told) - 1} more labels are not whole"] if len(told) > 1 else [])

    def _unsettled(self, source: Source, key: str, mark: str) -> Unfinished | None:
        name, settle_s = f"{source.name} {key}", source.settle.total_seconds()
        first_s = since_s = self._at_s
        match self._before.get(name):
            case (seen, float(before_s), float(begun_s)):
                # A wall clock that was set back begins anew.
                is_same = seen == mark and before_s <= self._at_s
                first_s, since_s = (before_s, begun_s) if is_same else (first_s, min(begun_s, since_s))
        self.looks[name] = (mark, first_s, since_s)
        waited_s = self._at_s - first_s
        if waited_s < settle_s:
            why = f"waits until it has settled: the same in two looks {settle_s:g} s apart, {waited_s:.0f} s are over"
            # A file that grows on and on is late; one that was merely never looked at before is not.
            return Unfinished(why, is_open=self._at_s - since_s <= arrivals.MOST_LOOKS * settle_s)
        short = arrivals.settled_name(source.name, key, mark)
        self.settled[key] = (*(each for each in self.settled.get(key, ()) if each != short), short)
        return None

    def _unlike_manifest(self, source: Source, key: str, mark: str) -> Unfinished | None:
        manifest = self._mark(source, key, arrivals.MANIFEST)
        if manifest is None:
            return Unfinished(arrivals.no_manifest(source, key))
        name, marks = f"{source.name} {key}", f"{mark} {manifest}"
        match self._before.get(name):
            case (seen, str() | None as why) if seen == marks:
                pass
            case _:
                if self._read_bytes > MOST_BYTES:
                    return Unfinished("is compared with its manifest in the next tick", is_open=True)
                try:
                    why = self._compared(source, key)
                except FileNotFoundError:
                    return Unfinished("was there and has gone", is_open=True)
        self.looks[name] = (marks, why)
        return None if why is None else Unfinished(why)

    def _compared(self, source: Source, key: str) -> str | None:
        channel = self._product.channels[source.name]
        file, manifest = channel.fetch(key), channel.fetch(key, arrivals.MANIFEST)
        self._read_bytes += len(file.data)
        return arrivals.unlike_manifest(source, file, manifest.data)


def tags(keys: Collection[str], settled: Mapping[str, Sequence[str]], requests: Asked) -> dict[str, str]:
    """Return what a run over some keys is told: which files have settled, and which keys a request names.

    Args:
        keys: the run's.
        settled: by key the names of files that have settled.
        requests: to advance keys again.
    """
    names = sorted(name for key in (naming.UNPARTITIONED, *keys) for name in settled.get(key, ()))
    asked = sorted({record.first for _, record in requests} & set(keys))
    found = {naming.TAG_SETTLED: names, naming.TAG_ASKED: asked}
    return {tag: " ".join(each) for tag, each in found.items() if each}
