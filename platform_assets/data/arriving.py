"""Watch landed files over several ticks, and say why a file is not known to be complete.

`data.arrivals` defines what makes a file complete; `landings` decides what follows from one that is not.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from platform_assets.base import clock, naming
from platform_assets.base.wording import counted
from platform_assets.data import arrivals, closed_keys
from platform_assets.data.key_changes import Incomplete, Mark, OpenRequests
from platform_assets.data.source_calls import SourceProblem
from platform_assets.product.channels import Landed
from platform_assets.product.spec import Source
from platform_assets.store.product_store import ProductStore

MOST_BYTES = 256 * 2**20
"""How much one tick reads to compare files with their manifests; the rest is compared in the next tick."""

Fetch = Callable[..., list[Landed]]
"""`(source, key, *suffixes) -> the landed file, or a file next to it, for each suffix`."""

Look = tuple[str | float | None, ...]
"""What is remembered of a file. If it must settle: its mark, when this mark was first seen, and when the file was first
seen. If it has a manifest: the marks of both, and the result of the comparison."""


class Watch:
    """One tick's checks of a product's files.

    Attributes:
        looks: what the next tick must know, by `source key`.
        unfinished: by source and key, why a file is not known to be complete.
        complete: by `source key`, the marks of files that are.
        settled: by key, the short names of files that have settled, for the runs that read them.
    """

    def __init__(self, product: ProductStore, mark: Mark, looks: Mapping[str, Look], fetch: Fetch) -> None:
        """Start a tick; nothing is checked yet.

        Args:
            product: the product; its files settle by the wall clock, even in a recording.
            mark: looks for a landed file.
            looks: `looks` of the previous tick.
            fetch: reads landed files.
        """
        self.looks: dict[str, Look] = {}
        self.unfinished: dict[tuple[str, str], str] = {}
        self.complete: dict[str, str] = {}
        self.settled: dict[str, tuple[str, ...]] = {}
        self._product, self._spec, self._mark, self._before = product, product.spec, mark, looks
        self._fetch, self._root, self._read_bytes = fetch, product.settings.root, 0
        # Files settle by the wall clock, those of a recording as well.
        self._at_s = clock.now(product.settings, product.name, is_live=True).timestamp()

    def check(self, source: Source, key: str, mark: str) -> Incomplete | None:
        """Return why a landed file is not known to be complete, None when it is; a `Check`."""
        kind = arrivals.arrival_kind(self._spec, source, self._root)
        problem: Incomplete | None = None
        if kind == "settled":
            problem = self._check_settled(source, key, mark)
        elif kind == "marker" and self._mark(source, key, arrivals.MARKER) is None:
            problem = Incomplete(arrivals.no_marker(source, key))
        elif kind == "manifest":
            problem = self._check_manifest(source, key, mark)
        if problem is None:
            self.complete[f"{source.name} {key}"] = mark
        else:
            self.unfinished[source.name, key] = problem.reason
        return problem

    def look_ahead(self, after: str | None, most: int) -> None:
        """Check files of later keys that must settle, so that they settle at the same time instead of one by one.

        Args:
            after: the last key whose files need no check; None for none.
            most: how many keys.
        """
        spec = self._spec
        sources = [
            source
            for source in spec.feature_sources
            if not source.is_slow and arrivals.arrival_kind(spec, source, self._root) == "settled"
        ]
        for key in closed_keys.following(spec.grain, after, most):
            # A file that stands still while its period runs has not settled: it may still be added to.
            over = [source for source in sources if self._product.awaited_until(source, key) is None]
            try:
                landed = [(source, mark) for source in over if (mark := self._mark(source, key)) is not None]
            except SourceProblem:
                return
            if not landed:
                return
            for source, mark in landed:
                self.check(source, key, mark)

    def labels(self) -> list[str]:
        """Return which labels are not known to be complete, and why, as clauses."""
        label = self._spec.label_source.name
        reasons = {key: reason for (source, key), reason in self.unfinished.items() if source == label}
        clauses = [f"{label} of {key} {reason}" for key, reason in reasons.items()]
        return clauses[:1] + (
            [f"labels of {counted(len(clauses) - 1, 'more key')} are incomplete"] if len(clauses) > 1 else []
        )

    def _check_settled(self, source: Source, key: str, mark: str) -> Incomplete | None:
        name, settle_s = f"{source.name} {key}", source.settle.total_seconds()
        first_s = since_s = self._at_s
        match self._before.get(name):
            case (old_mark, float(before_s), float(begun_s)):
                # After the wall clock was set back, the wait starts over.
                is_same = old_mark == mark and before_s <= self._at_s
                first_s, since_s = (before_s, begun_s) if is_same else (first_s, min(begun_s, since_s))
        self.looks[name] = (mark, first_s, since_s)
        waited_s = self._at_s - first_s
        if waited_s < settle_s:
            reason = f"has not settled: unchanged for {waited_s:.0f} s of {settle_s:g} s"
            # A file that never stops growing is late; one that was first seen just now is not.
            return Incomplete(reason, is_open=self._at_s - since_s <= arrivals.MOST_LOOKS * settle_s)
        short = arrivals.settled_name(source.name, key, mark)
        self.settled[key] = (*(name for name in self.settled.get(key, ()) if name != short), short)
        return None

    def _check_manifest(self, source: Source, key: str, mark: str) -> Incomplete | None:
        manifest = self._mark(source, key, arrivals.MANIFEST)
        if manifest is None:
            return Incomplete(arrivals.no_manifest(source, key))
        name, marks = f"{source.name} {key}", f"{mark} {manifest}"
        match self._before.get(name):
            case (old_marks, str() | None as reason) if old_marks == marks:
                pass
            case _:
                if self._read_bytes > MOST_BYTES:
                    return Incomplete("is compared with its manifest in the next tick", is_open=True)
                try:
                    file, listing = self._fetch(source, key, "", arrivals.MANIFEST)
                except FileNotFoundError:
                    return Incomplete("disappeared while it was read", is_open=True)
                self._read_bytes += len(file.data)
                reason = arrivals.unlike_manifest(source, file, listing.data)
        self.looks[name] = (marks, reason)
        return None if reason is None else Incomplete(reason)


def tags(keys: Collection[str], settled: Mapping[str, Sequence[str]], requests: OpenRequests) -> dict[str, str]:
    """Return the tags that tell a run which files have settled, and which of its keys a request names.

    Args:
        keys: the keys of the run.
        settled: by key, the names of files that have settled.
        requests: to advance keys again.
    """
    names = sorted(name for key in (naming.UNPARTITIONED, *keys) for name in settled.get(key, ()))
    requested = sorted({record.first for _, record in requests} & set(keys))
    values = {naming.TAG_SETTLED: names, naming.TAG_REQUESTED: requested}
    return {tag: " ".join(value) for tag, value in values.items() if value}
