"""Note what the assets that are sources have materialised, so that their channels can read it without Dagster.

A range run and the sensor `materialisations` note alike, so a product works without sensors. What has the mark of the
materialisation before is not taken in again; closed keys with other rows than before are requested.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from msgspec.structs import replace

from platform_assets.base import naming
from platform_assets.base.keys import KeyProblem
from platform_assets.base.settings import Settings
from platform_assets.engine.metadata import Metadatum
from platform_assets.product.channels import Channel
from platform_assets.product.host_assets import PARTITION, HostAsset
from platform_assets.product.sources import Source
from platform_assets.product.spec import Product
from platform_assets.store import host_rows, landing
from platform_assets.store.host_rows import AssetProblem, AssetRows, TableRows
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.requests import REQUESTS, AdvanceRequest
from platform_assets.store.records.sources import MATERIALISED, Materialised

URI, TABLE, VERSION, CODE = "dagster/uri", "dagster/table_name", "dagster/data_version", "dagster/code_version"
IS_GIVEN = "dagster/data_version_is_user_provided"
STUB = "dagster/auto_created_stub_asset"
"""Metadata of what Dagster makes of a key that only dependencies name."""
MOST = 100
"""Events of one look."""
MOST_KEYS = 400
"""How many partitions a look from a terminal takes at most."""


@dataclass(frozen=True, kw_only=True)
class Noted:
    """What a look at an asset's materialisations came to.

    Attributes:
        clauses: what was noted.
        problems: by partition (empty without one), why its newest materialisation could not be.
        after: the number of the last event that was looked at; None before the first.
    """

    clauses: Sequence[str]
    problems: Mapping[str, str]
    after: int | None


@dataclass(frozen=True, kw_only=True)
class _News:
    """A materialisation to note.

    Attributes:
        key: whose ledger it belongs to.
        changed: the keys with other rows than before.
    """

    key: str
    record: Materialised
    changed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SourceAsset:
    """An asset that is a source, in one Dagster deployment.

    Attributes:
        graph: of the code location, whose definition of the asset may say where its rows are; None without one.
    """

    instance: dg.DagsterInstance
    product: ProductStore
    source: Source
    graph: Any

    def note_newest(self, keys: Iterable[str]) -> Sequence[str]:
        """Note the newest materialisations that the rows of some keys are from; return what was noted, as clauses.

        Raises:
            AssetProblem: a materialisation does not say where its rows are, or they cannot be read.
        """
        noted = self._note(self._newest(set(keys)), None)
        if noted.problems:
            raise AssetProblem(next(iter(noted.problems.values())))
        return noted.clauses

    def note_since(self, after: int | None, again: Iterable[str] = ()) -> Noted:
        """Note the materialisations after an event's number, and the newest of partitions to look at again."""
        if self._is_whole:
            newest = self._events(limit=1)
            is_known = newest and newest[0].storage_id == after and not [*again]
            return self._note([] if is_known else newest, after)
        since = self._events(after_storage_id=after, ascending=True)
        return self._note([*self._newest(set(again)), *since], since[-1].storage_id if since else after)

    @property
    def name(self) -> str:
        """The asset's key as Dagster shows it."""
        return self._asset.name

    @property
    def is_elsewhere(self) -> bool:
        """Whether no asset of the code location has the key: it is another location's, or was renamed."""
        return STUB in self._declared

    @property
    def _asset(self) -> HostAsset:
        assert self.source.asset is not None  # only sources of assets are noted
        return self.source.asset

    @property
    def _is_whole(self) -> bool:
        return self.source.partition_by is not None or self.source.is_slow

    @cached_property
    def _channel(self) -> AssetRows:
        channel = self.product.channels[self.source.name]
        assert isinstance(channel, AssetRows)
        return channel

    @cached_property
    def _declared(self) -> Mapping[str, Metadatum]:
        """The metadata of the asset's definition, where this code location has it."""
        key = dg.AssetKey(self._asset.path)
        return self.graph.get(key).metadata if self.graph is not None and self.graph.has(key) else {}

    def _events(self, *, limit: int = MOST, ascending: bool = False, **wanted: Any) -> Sequence[dg.EventLogRecord]:
        records = dg.AssetRecordsFilter(asset_key=dg.AssetKey(self._asset.path), **wanted)
        return self.instance.fetch_materializations(records, limit=limit, ascending=ascending).records

    def _newest(self, keys: set[str]) -> Sequence[dg.EventLogRecord]:
        """Return the newest materialisation of each of some keys, oldest first."""
        if self._is_whole:
            return self._events(limit=1)
        if self._asset.key_of is not None:
            return self._events()[::-1]
        newest: dict[str, dg.EventLogRecord] = {}
        while left := sorted(keys - newest.keys()):
            records = self._events(limit=10 * MOST, asset_partitions=left)
            for record in records:
                newest.setdefault(f"{record.partition_key}", record)
            if len(records) < 10 * MOST:
                break
        if not newest and keys and (some := self._events(limit=1)):
            self._key(some[0].partition_key)  # refuses another partition scheme
        return sorted(newest.values(), key=lambda record: record.storage_id)

    def _note(self, records: Iterable[dg.EventLogRecord], after: int | None) -> Noted:
        """Note materialisations, of each partition the newest, which comes last."""
        problems, news = dict[str, str](), dict[str, _News]()
        for record in {record.partition_key or "": record for record in records}.values():
            after = max(after or 0, record.storage_id) if self._is_whole else after
            try:
                item = self._news(record, news)
            except AssetProblem as problem:
                problems[record.partition_key or ""] = f"{problem}"
            else:
                news |= {} if item is None else {item.key: item}
        # Keys close in order, so a request for the first one covers all that are closed.
        index = self.product.spec.grain.index
        changed = {
            key: item.record.at_utc for item in news.values() for key in item.changed if key != naming.UNPARTITIONED
        }
        if changed and self.product.history.is_decided(first := min(changed, key=index)):
            reason = f"asset {self.name} was materialised again"
            request = AdvanceRequest(first=first, why=reason, by="materialisations", at_utc=changed[first])
            self.product.ledgers.of(REQUESTS).append(request)
        for item in news.values():
            # After the request: a kill in between asks twice. The other way round nobody would ask.
            self.product.ledgers.of(MATERIALISED.of(host_rows.ledger(self.source.name, item.key))).append(item.record)
        marks = [(item.record.partition, item.record.mark) for item in news.values() if item.changed]
        clauses = [f"{self.name}{'' if part is None else f' {part}'} ({mark})" for part, mark in marks]
        return Noted(clauses=clauses, problems=problems, after=after)

    def _news(self, record: dg.EventLogRecord, others: Mapping[str, _News]) -> _News | None:
        """Return what a materialisation says that is not on record; None for nothing.

        Raises:
            AssetProblem: it does not say where its rows are, or which of them are a key's, or they cannot be read.
        """
        key = self._key(record.partition_key)
        if key is None:
            return None
        before = self._channel.materialised(key)
        if before is not None and before.event >= record.storage_id:
            return None
        found = self._found(record)
        self._check_place(key, found, before, others)
        # A database's address says nothing of its rows, so they are looked at each time.
        then = before and (before.mark, before.uri, before.table, before.files)
        if then == (found.mark, found.uri, found.table, found.files) and not host_rows.is_database(found.uri):
            return None
        seen = self._channel.seen(found)
        found = replace(found, keys=seen, mark=found.mark or host_rows.digest_of(seen))
        if isinstance(self._channel, TableRows):
            known: Mapping[str, str] = {} if before is None else before.keys
            changed = tuple(name for name, mark in seen.items() if known.get(name) != mark)
        else:
            changed = (key,) if before is None or before.mark != found.mark else ()
        return _News(key=key, record=found, changed=changed)

    def _key(self, partition: str | None) -> str | None:
        """Return the key of a partition; None where it has none.

        Raises:
            AssetProblem: the asset has other partitions than the product has keys, and nothing says how they belong.
        """
        asset, grain, name = self._asset, self.product.spec.grain, self.product.name
        if self._is_whole:
            return naming.UNPARTITIONED
        if partition is None:
            raise AssetProblem(
                f"asset {asset.name} has no partitions, and source {self.source.name!r} of {name} does not say which "
                "of its rows are a key's; state partition_by, the column with a row's moment, in the product's file."
            )
        key = partition if asset.key_of is None else asset.key_of(partition)
        if key is None or grain.contains(key):
            return key
        if asset.key_of is None:
            with contextlib.suppress(KeyProblem, ValueError):
                grain.endless.instant(key, lambda _: None)
                return None  # written as the product's keys are, though it is none of them
        raise AssetProblem(
            f"asset {asset.name} has the partition {partition!r}, and the keys of {name} are {grain.describe()}; "
            "state HostAsset(key_of=...), which returns the key of a partition or None, or partition_by, the column "
            "with a row's moment."
        )

    def _found(self, record: dg.EventLogRecord) -> Materialised:
        """Return what a materialisation says; the mark is empty where the rows themselves are to give it."""
        event, asset = record.asset_materialization, self._asset
        assert event is not None
        said = {**self._declared, **event.metadata}
        values = {name: f"{getattr(said[name], 'value', said[name])}" for name in (URI, TABLE) if name in said}
        uri = asset.uri or values.get(URI)
        if uri is None:
            raise AssetProblem(
                f"asset {asset.name} does not say where its rows are, so that only its IO manager could read them; "
                "give its materialisations the metadata dagster/uri, or the source HostAsset(path=..., uri=...)."
            )
        uri = uri.replace(PARTITION, record.partition_key or "").removeprefix("file://")
        version, mark = (None, "") if host_rows.is_database(uri) else host_rows.version_of(uri, asset.name)
        tags = event.tags or {}
        if VERSION in tags and (tags.get(IS_GIVEN) == "true" or CODE not in tags):
            given = tags[VERSION]  # otherwise Dagster's own, of code and inputs: it may stay while the rows change
            # Each partition of a table has its own versions.
            mark_given = f"{record.partition_key} {given}" if self._is_whole and record.partition_key else given
        else:
            mark_given = mark
        return Materialised(
            mark=mark_given,
            uri=uri,
            table=asset.table or values.get(TABLE),
            version=version,
            files=mark if version is None and mark else None,
            partition=record.partition_key,
            event=record.storage_id,
            at_utc=datetime.fromtimestamp(record.timestamp, UTC).isoformat(),
        )

    def _check_place(
        self, key: str, found: Materialised, before: Materialised | None, others: Mapping[str, _News]
    ) -> None:
        """Refuse rows that are another key's, or not all of the key's."""
        asset, grain = self._asset, self.product.spec.grain
        place = (found.uri, found.table)
        if self._is_whole:
            if before is not None and found.partition != before.partition and place != (before.uri, before.table):
                raise AssetProblem(
                    f"each partition of asset {asset.name} has a place of its own, such as {found.uri}, and "
                    f"partition_by of source {self.source.name!r} expects one table; drop partition_by, or state "
                    "HostAsset(uri=...)."
                )
            return
        other = others[key].record if key in others else before
        if other is not None and other.partition != found.partition:
            raise AssetProblem(
                f"the partitions {other.partition!r} and {found.partition!r} of asset {asset.name} both give the key "
                f"{key}, which takes one; fix key_of, or state partition_by, the column with a row's moment."
            )
        last = grain.index(key) - 1
        neighbour = self._channel.materialised(grain.key_at(last)) if last >= 0 else None
        shared = [item for item in (neighbour, *(news.record for news in others.values())) if item is not None]
        if host_rows.is_database(found.uri) or any((item.uri, item.table) == place for item in shared):
            raise AssetProblem(
                f"the partitions of asset {asset.name} are rows of one table at {found.uri}; state partition_by, the "
                f"column with a row's moment, for source {self.source.name!r} in the product's file."
            )


@contextmanager
def newest(home: Path, spec: Product, settings: Settings) -> Iterator[Mapping[str, Channel]]:
    """Yield the channels of sources that are assets, with what Dagster knows of these now, until the block ends.

    Empty where there are none. An asset whose rows cannot be found keeps the channel of the store.

    Args:
        home: of the Dagster that materialises them.
    """
    sources = [source for source in spec.sources if source.asset is not None]
    if not sources:
        yield {}
        return
    with TemporaryDirectory() as root, dg.DagsterInstance.from_config(str(home)) as instance:
        # Noted below a root of its own: a look leaves nothing in the product's store.
        noting = ProductStore(spec, settings.model_copy(update={"root": root}))
        channels = landing.channels(spec, settings.root)
        for source in sources:
            asset = source.asset
            assert asset is not None
            partitions = instance.get_materialized_partitions(dg.AssetKey(asset.path))
            keys = partitions if asset.key_of is None else {asset.key_of(partition) for partition in partitions}
            ordered = sorted((key for key in keys if key and spec.grain.contains(key)), key=spec.grain.index)
            try:
                noted = SourceAsset(instance=instance, product=noting, source=source, graph=None)
                noted.note_newest(ordered[-MOST_KEYS:])
            except AssetProblem:  # such as one whose definition alone says where its rows are
                continue
            channels[source.name] = noting.channels[source.name]
        yield {source.name: channels[source.name] for source in sources}
