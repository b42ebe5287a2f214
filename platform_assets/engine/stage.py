"""Declare a stage, and build its Dagster asset: key, group, owners, kinds, tags, version and description."""
# No postponed annotations here: Dagster compares the annotation of `context` as an object.

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import dagster as dg

from platform_assets.base import extras, naming
from platform_assets.base.problems import Problem
from platform_assets.engine import digests, key_checks, metadata
from platform_assets.engine.metadata import Metadata, Metadatum
from platform_assets.engine.outputs import RowMaker
from platform_assets.engine.outside import ALONE, Launcher, Outside, Shown, plain
from platform_assets.engine.store_resource import StoreResource
from platform_assets.product.spec import Product, Source
from platform_assets.store import objects
from platform_assets.store.product_store import ProductStore
from platform_assets.store.tables import PartitionRecord

M = TypeVar("M")
Partitions = tuple[dg.PartitionsDefinition[str] | None, dg.BackfillPolicy | None]
MOST_KINDS = 3


@dataclass(frozen=True)
class Table:
    """A table with its own asset that a stage writes before its main one.

    Attributes:
        name: bare, as a stage is named.
        metadata: known before any run.
    """

    name: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[M]):
    """One stage of a product: its asset, its maker and its run.

    Attributes:
        name: the bare stage, `raw`.
        source: for stages with one asset per source.
        system: `naming.DATA`, `TRAINING`, `SERVING` or `MONITORING`.
        kinds: at most three technologies.
        doc: the stage module's docstring, used as its catalog page; the source's description is appended.
        maker: computes the stage's bytes; its digest is the stage's code digest.
        modules: for a stage without a maker, the modules whose code counts, with all that it names.
        run: its class; one instance per run.
        deps: from `dep`.
        metadata: known before any run, such as `column_schema`.
        also: tables written before the stage's own.
        checks: descriptions by name.
        config: the run's config for a person.
        needs: resources besides the store.
        pool: Dagster pool that limits how many runs are in this stage at once.
        outside: views, budget and tracking.
    """

    spec: Product
    name: str
    source: Source | None = None
    system: str
    kinds: Sequence[str]
    doc: str | None
    maker: M | None = None
    modules: Sequence[str] = ()
    run: type["Run[M]"]
    deps: Sequence[dg.AssetDep] = ()
    metadata: Metadata = field(default_factory=dict)
    also: Sequence[Table] = ()
    checks: Mapping[str, str] = field(default_factory=dict)
    config: type[dg.Config] | None = None
    needs: Sequence[str] = ()
    pool: str | None = None
    outside: Outside = ALONE

    @cached_property
    def code(self) -> str:
        """The stage's code digest."""
        return digests.modules_digest(*self.modules) if self.maker is None else digests.code_digest(self.maker)

    @cached_property
    def version(self) -> str | None:
        """The version of the stage's rows; None for a stage whose rows no training reads."""
        return digests.version(self.maker) if isinstance(self.maker, RowMaker) else None

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables in the order of writing; the stage's own comes last."""
        return (*self.also, Table(self.name, self.metadata))

    def full_name(self, table: str | None = None) -> str:
        """Return the name under which a table is stored, including its source."""
        table = table or self.name
        return naming.stage(table, self.source.name) if self.source else table

    def key(self, table: str | None = None) -> Sequence[str]:
        """Return the asset key of a table."""
        return naming.asset_key(self.spec.name, table or self.name, self.source.name if self.source else None)

    def asset_fields(self, table: Table) -> dict[str, Any]:
        """Return the arguments that `dg.asset` and `dg.AssetSpec` share: everything except partitions."""
        kinds = set(self.kinds)
        if len(kinds) > MOST_KINDS:
            raise ValueError(f"stage {self.name!r} has kinds {sorted(kinds)}; expected at most three technologies.")
        sentence, _, rest = inspect.cleandoc(self.doc or "").partition("\n")
        about = self.source.description if self.source else self.spec.description
        # The lineage shows the first sentence too, from where the link leads to the whole page.
        first = f"{sentence} [Its page](/assets/{'/'.join(self.key(table.name))})"
        return {
            "key": self.key(table.name),
            "group_name": self.spec.group(self.system),
            "owners": [self.spec.owner],
            "kinds": kinds,
            "tags": {naming.TAG_STAGE: table.name, naming.TAG_PRODUCT: self.spec.name},
            "code_version": digests.short(self.code),
            "description": "\n\n".join(filter(None, (first, rest.strip(), inspect.cleandoc(about)))),
            "deps": list(self.deps),
            "metadata": dict(table.metadata),
        }

    def assets(self) -> list[dg.AssetsDefinition]:
        """Return the stage as Dagster definitions: one definition, with one asset per table."""
        definition, policy = self.run.partitions(self)
        by_key = definition if self.run.is_checked_by_key else None
        checks = key_checks.specs(dg.AssetKey(self.key()), self.checks, by_key)
        needs, resources = {naming.STORE, *self.needs}, self.outside.resources
        shared: dict[str, Any] = {
            "required_resource_keys": needs - resources.keys(),
            # Bound here and not by `dg.with_resources`, which would bind an IO manager too, and stop a host
            # that has its own.
            "resource_defs": {key: resources[key] for key in sorted(needs & resources.keys())},
            "check_specs": checks,
            "pool": self.pool,
            "partitions_def": definition,
            "backfill_policy": policy,
        }
        assets = [self.asset_fields(table) for table in reversed(self.tables)]

        def body(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            import obstore

            try:
                yield from self.run(self, context).work()
            except ModuleNotFoundError as problem:
                raise extras.named(problem) from problem
            except obstore.exceptions.BaseError as problem:
                root = getattr(context.resources, naming.STORE).settings.root
                raise Problem(
                    f"the store {root} failed: {objects.reason(root, problem)}. Fix DRIFTLINE_ROOT."
                ) from None

        decorate: Any = (
            dg.multi_asset(name="__".join(self.key()), specs=[dg.AssetSpec(**fields) for fields in assets], **shared)
            if self.also
            else dg.asset(
                **assets[0], **shared, config_schema=None if self.config is None else self.config.to_config_schema()
            )
        )
        return [decorate(body)]


class Run(Generic[M]):
    """One run of a stage.

    Attributes:
        is_checked_by_key: whether its checks are results by key.
    """

    is_checked_by_key = False

    def __init__(self, stage: Stage[M], context: dg.AssetExecutionContext) -> None:
        """Prepare the run without reading anything."""
        self.stage, self.context = stage, context
        self.spec, self.code = stage.spec, stage.code
        store: StoreResource = getattr(context.resources, naming.STORE)
        self.product = ProductStore(stage.spec, store.settings)
        self.tables = self.product.tables

    @classmethod
    def partitions(cls, stage: Stage[M]) -> Partitions:
        """Return the assets' partitions and backfill policy; none by default."""
        del stage
        return None, None

    @property
    def maker(self) -> M:
        """The stage's maker; only for stages that have one."""
        assert self.stage.maker is not None, self.stage.name
        return self.stage.maker

    @property
    def source(self) -> Source:
        """The source; only for stages with one asset per source."""
        assert self.stage.source is not None, self.stage.name
        return self.stage.source

    @property
    def launcher(self) -> Launcher:
        """The launcher of steps; only for stages that need it."""
        launcher: Launcher = getattr(self.context.resources, naming.LAUNCHER)
        return launcher

    @property
    def config(self) -> Any:
        """The run's config."""
        assert self.stage.config is not None, self.stage.name
        return self.stage.config(**self.context.op_execution_context.op_config)

    def add_metadata(
        self, shown: Mapping[str, Metadatum], key: str = naming.UNPARTITIONED, table: str | None = None
    ) -> None:
        """Add metadata to the event of a key, or of an unpartitioned asset."""
        partition = {} if key == naming.UNPARTITIONED else {"partition_key": key}
        self.context.add_asset_metadata(shown, asset_key=self.stage.key(table), **partition)

    def view(
        self, record: PartitionRecord | None = None, facts: Any = None, table: str | None = None
    ) -> tuple[str, Metadata | None]:
        """Return what Dagster shows of a key or cutoff."""
        table = table or self.stage.name
        show = self.stage.outside.views.get(table, plain)
        return show(Shown(spec=self.spec, table=table, source=self.stage.source, record=record, facts=facts))

    def page(self, facts: Any) -> Metadata:
        """Return the metadata of a stage whose run has one page."""
        sentence, shown = self.view(facts=facts)
        return metadata.readable(sentence, shown or {})

    def work(self) -> Iterable[Any]:
        """Read, compute, write, and return one result per table and check."""
        raise NotImplementedError


def dep(
    spec: Product, stage: str, source: str | None = None, *, mapping: dg.PartitionMapping | None = None
) -> dg.AssetDep:
    """Return a dependency on another stage of the product, on the same key unless `mapping` says otherwise."""
    return dg.AssetDep(dg.AssetKey(naming.asset_key(spec.name, stage, source)), partition_mapping=mapping)
