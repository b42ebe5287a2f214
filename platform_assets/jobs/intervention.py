"""Settle a held key: `accept__product` accepts or drops it, `repair__product` takes in its new delivery.

`rebuild__product` has keys built again: all with the slow tables of today, or those that an earlier version of the
product made; or it records that rows of both versions may train together.

Accepting, dropping and repairing write one record with the person who asked and a reason to the key's fault ledger, a
rebuild to the product's rebuilds. Accepting (or dropping) changes nothing else. For a repaired key and every key that
looks back on it, and for all keys of a rebuild, new runs are requested, and the keys are judged again.
"""

# No postponed annotations here: Dagster compares the annotation of `context` as an object.

from contextlib import suppress
from typing import Any, Literal

import dagster as dg

from platform_assets.automation.resources import Resources
from platform_assets.base import naming
from platform_assets.engine.requesters import person_of
from platform_assets.engine.store_resource import StoreResource
from platform_assets.jobs import job_of
from platform_assets.launch import rebuilding
from platform_assets.monitoring.faults import AWAITED
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.faults import FAULTS, Accepted, Dropped, Fault, Repair
from platform_assets.store.records.notes import Raw
from platform_assets.store.records.requests import INTERVENTIONS, REQUESTS, AdvanceRequest, Intervention
from platform_assets.store.records.versions import REBUILDS, Rebuild
from platform_assets.training import renewal, versions


class RepairConfig(dg.Config):
    """Which key has a new delivery, and why.

    Attributes:
        key: a partition key.
        why: for readers of the ledger.
    """

    key: str
    why: str


class AcceptConfig(RepairConfig):
    """Which key is settled, and why; see `RepairConfig`.

    Attributes:
        outcome: `accept` makes the key usable as it is; `drop` excludes it from training permanently.
    """

    outcome: Literal["accept", "drop"] = "accept"


class RebuildConfig(dg.Config):
    """Which keys are built again, and why.

    Attributes:
        why: for readers of the record.
        keys: `all` with the slow tables of today; `older` for those of the next training that an earlier version of the
            product made; `compatible` for none: rows of both versions may train together.
    """

    why: str
    keys: Literal["all", "older", "compatible"] = "all"


def build(spec: Product, resources: Resources) -> list[Any]:
    """Return the product's jobs for a person."""

    @dg.op(name=naming.job("accept_key", spec.name), description=f"Accept or drop a held key of {spec.title}.")
    def accept(context: dg.OpExecutionContext, driftline_store: StoreResource, config: AcceptConfig) -> None:
        by = person_of(context, driftline_store.settings, context.job_name)
        number = settle(ProductStore(spec, driftline_store.settings), config.key, config.outcome, why=config.why, by=by)
        outcome = "accepted" if config.outcome == "accept" else "dropped"
        context.log.info(f"{config.key} was {outcome}: record {number} of its faults.")

    @dg.op(name=naming.job("repair_key", spec.name), description=f"Take in the new delivery of a key of {spec.title}.")
    def repair(context: dg.OpExecutionContext, driftline_store: StoreResource, config: RepairConfig) -> None:
        by = person_of(context, driftline_store.settings, context.job_name)
        number = request_repair(ProductStore(spec, driftline_store.settings), config.key, why=config.why, by=by)
        context.log.info(f"{config.key}: its new delivery is requested, request {number}.")

    rebuilding = f"Build keys of {spec.title} again: all with the slow tables of today, or those of an earlier version."

    @dg.op(name=naming.job("rebuild_keys", spec.name), description=rebuilding)
    def rebuild(context: dg.OpExecutionContext, driftline_store: StoreResource, config: RebuildConfig) -> None:
        by = person_of(context, driftline_store.settings, context.job_name)
        context.log.info(
            request_rebuild(ProductStore(spec, driftline_store.settings), config.keys, why=config.why, by=by)
        )

    accepting = f"Accept a held key of {spec.title} because it is sound, or drop it permanently."
    repairing = f"Process a key of {spec.title} again from its new delivery, and all keys that look back on it."
    return [
        job_of(accept, spec, resources, "accept", accepting),
        job_of(repair, spec, resources, "repair", repairing),
        job_of(rebuild, spec, resources, "rebuild", rebuilding),
    ]


def settle(product: ProductStore, key: str, kind: Literal["accept", "drop"], *, why: str, by: str) -> int:
    """Record that a key is accepted or dropped; return the record's number.

    Raises:
        Failure: the key is unknown, or has no fault to accept.
    """
    _check_key(product.spec, key)
    ledgers, hold = product.ledgers, product.history.hold(key)
    if hold is None and kind == "accept":
        raise dg.Failure(f"{key} of {product.name} has no fault on record, so there is nothing to accept.")
    checks = hold.record.checks if hold is not None and isinstance(hold.record, Fault) else ()
    if kind == "accept" and (waits := [check for check in checks if check.check == AWAITED]):
        raise dg.Failure(f"{key} of {product.name} cannot be accepted: {waits[0].came}; accept or repair that key.")
    ledgers.of(INTERVENTIONS).append(Intervention(key=key, kind=kind))
    settled, outcome = (Accepted, "accepted") if kind == "accept" else (Dropped, "dropped")
    at_utc = product.now.isoformat()
    number = ledgers.of(FAULTS.of(key)).append(settled(product=product.name, key=key, why=why, by=by, at_utc=at_utc))
    is_awaited = any(
        source.unreadable == "wait" and Raw.of(record).unreadable
        for source in product.spec.feature_sources
        if not source.is_slow
        for record in product.tables.records(naming.stage("raw", source.name), [key]).values()
    )
    if is_awaited:
        _request(product, key, why=f"{key} was {outcome}, and features wait for it: {why}", by=by)
    return number


def request_repair(product: ProductStore, key: str, *, why: str, by: str) -> int:
    """Hold a key for its new delivery and request its intake; return the request's number.

    Raises:
        Failure: the key is unknown, or none of its files differs from what was taken in.
    """
    spec, ledgers, tables = product.spec, product.ledgers, product.tables
    _check_key(spec, key)
    closed = max(tables.records("decision"), key=spec.grain.index, default=None)
    if closed is None or spec.grain.index(closed) < spec.grain.index(key):
        raise dg.Failure(f"{key} of {spec.name} is not closed yet; its files are taken in when it is.")
    changed = []
    for source in (source for source in spec.sources if not source.is_slow):
        record = tables.records(naming.stage("raw", source.name), [key]).get(key)
        with suppress(FileNotFoundError):
            landed = sha256(product.channels[source.name].fetch(key).data)
            # A file that could not be read was never taken in: the product's file may have been fixed since.
            if record is None or record.inputs.get("file") != landed or Raw.of(record).unreadable:
                changed.append(source.name)
    if not changed:
        raise dg.Failure(
            f"no file of {key} differs from what was taken in; deliver a new file first, into "
            + " or ".join(product.channels[source.name].cite(key) for source in spec.sources if not source.is_slow)
            + "."
        )
    if product.history.hold(key) is not None:
        repair = Repair(product=product.name, key=key, why=why, by=by, at_utc=product.now.isoformat())
        ledgers.of(FAULTS.of(key)).append(repair)
    return _request(product, key, why=f"{', '.join(changed)} of {key} delivered again: {why}", by=by)


def _request(product: ProductStore, key: str, *, why: str, by: str) -> int:
    """Request that a key and the closed keys that look back on it are advanced again; return the request's number."""
    spec = product.spec
    closed = max(product.tables.records("decision"), key=spec.grain.index, default=key)
    last = max(spec.grain.index(key), min(spec.grain.index(key) + spec.lookback, spec.grain.index(closed)))
    request = AdvanceRequest(first=key, last=spec.grain.key_at(last), why=why, by=by, at_utc=product.now.isoformat())
    return product.ledgers.of(REQUESTS).append(request)


def request_rebuild(product: ProductStore, keys: Literal["all", "older", "compatible"], *, why: str, by: str) -> str:
    """Record which keys are built again, or that versions go together; return what was recorded.

    For a rebuild of all keys, the first run that builds features afterwards decides which snapshots and keys that
    means.

    Raises:
        Failure: there is nothing to build again.
    """
    if keys == "all":
        grain, at_utc = product.spec.grain, product.now.isoformat()
        built = sorted(filter(grain.contains, product.tables.records("features")), key=grain.index)
        if not built:
            raise dg.Failure(
                f"no features of {product.name} have been built yet; the first run takes the newest tables."
            )
        number = product.ledgers.of(REBUILDS).append(Rebuild(why=why, by=by, at_utc=at_utc))
        request = AdvanceRequest(
            first=built[0],
            last=built[-1],
            why=f"rebuild {number} with the slow tables of today: {why}",
            by=by,
            at_utc=at_utc,
        )
        product.ledgers.of(REQUESTS).append(request)
        return f"All keys are requested with the slow tables of today, rebuild {number}."
    older = versions.of_next_training(product)
    if older is None:
        raise dg.Failure(f"all keys of {product.name} that the next training reads are of the present version.")
    if keys == "older":
        number = renewal.request(product, older, usd=rebuilding.usd(older), reason=why, author=by)
        return f"Renewal {number}: {older.describe()}; {rebuilding.price(older)}."
    marks = renewal.mark_compatible(product, older, reason=why, author=by)
    pairs = ", ".join(f"{mark.versions[0]} and {mark.versions[1]} of {mark.stage}" for mark in marks)
    return f"These versions train together now: {pairs}."


def _check_key(spec: Product, key: str) -> None:
    if not spec.grain.contains(key):
        raise dg.Failure(f"{key!r} is not a key of {spec.name}; expected {spec.grain.describe()}.")
