"""Try a candidate for a release with the requests that callers sent in the last days, and record a refusal.

Its records may be good, and its answers on the holdout too, while a value, a list or a combination of fields of a real
request is one that it cannot answer. A rollback is not tried: its model has answered requests, and it must not wait.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from platform_assets.base.problems import Problem
from platform_assets.data import answer_rows
from platform_assets.data.stage_inputs import is_large
from platform_assets.serving.follow.background import Overdue
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.releases import REFUSALS, Refusal

if TYPE_CHECKING:
    from platform_assets.serving.answer.contract import ContractField
    from platform_assets.serving.follow.logged_requests import Logged
    from platform_assets.store.artifacts import Bundle
    from platform_assets.store.tables import PartitionRecord

ROWS, KEYS = 2_000, 7
"""At least so many rows, and those of so many keys, or all there are; see `_chosen`."""
VALUES = 100
"""Of each field so many different values are asked, however rare."""
_ABOUT = ("entity", "service_time", "asked_at")
_REQUEST = ("answered_at_utc", "latency_us")
"""Rows answered at one moment with one latency came from one request."""
_GIGABYTE = 1024**3


class Refused(Problem):
    """A candidate that does not answer logged requests; the message has the row that shows it."""


class Untried(Problem):
    """A candidate about which the trial says nothing."""


def trial_of(product: ProductStore, digest: str) -> str:
    """Return how a candidate answered logged requests, or why it was not asked, as a sentence.

    Costs no process where no request is logged; otherwise a CPU second, and twice what the rows take.

    Raises:
        Refused: it must not be released.
        Untried: the trial did not take place; it is worth another.
        ArtifactProblem: a blob of the bundle is missing or changed.
    """
    # What serves is loaded when it is needed: loading the definitions must not load numpy.
    from platform_assets.serving.answer.contract import ContractProblem
    from platform_assets.serving.follow.candidate import Starved, Trial, TrialProblem
    from platform_assets.serving.follow.follower import LOAD_S
    from platform_assets.serving.service_memory import PROCESS_BYTES
    from platform_assets.training.sealed import ModelProblem, Sealed

    if not product.spec.service.logs_features:
        return "Its contract logs no features, so it was not asked logged requests."
    newest = product.tables.records("predictions").values()
    records: list[PartitionRecord] = []  # of the newest keys with answers
    for record in sorted(newest, key=lambda record: product.spec.grain.index(record.key), reverse=True):
        is_enough = len(records) >= KEYS and sum(item.rows for item in records) >= ROWS
        if is_enough or (records and is_large(record)):
            break
        if record.rows:
            records.append(record)
    if not records:
        return "No request is logged yet, so it was asked none."
    bundle = product.artifacts.bundle(digest)
    try:
        logged = _logged(product, bundle, records)
        if not logged.rows:
            return "No logged request has features, so it was asked none."
        bytes_max = max(1, round(product.spec.pods.memory_gb * _GIGABYTE) - PROCESS_BYTES)
        answered = Trial(LOAD_S, bytes_max).ask(Sealed.read(product.artifacts, digest), logged)
    except (TrialProblem, Starved) as problem:  # before the classes that they extend, which refuse
        raise Untried(f"{digest} is not released, because it could not be tried: {problem} Release it again.") from None
    except (ContractProblem, ModelProblem, Overdue) as problem:
        raise Refused(f"It does not answer logged requests as a service must: {problem}") from None
    return f"{answered}."


def refuse(product: ProductStore, digest: str, cutoff: str, reason: str, author: str) -> None:
    """Record that a candidate was not released; `driftline status` names it until another release follows."""
    record = Refusal(
        product=product.name,
        digest=digest,
        cutoff=cutoff,
        reason=reason,
        by=author,
        at_utc=product.now.astimezone(UTC).isoformat(),
        release=product.history.newest_release(),
    )
    product.ledgers.of(REFUSALS).append(record)


def _logged(product: ProductStore, bundle: Bundle, records: list[PartitionRecord]) -> Logged:
    """Return what callers asked, as requests that the candidate's contract decodes."""
    from platform_assets.serving.answer.contract import Contract
    from platform_assets.serving.follow.logged_requests import Logged
    from platform_assets.training.sealed import CONTRACT

    contract, limit_ms = Contract.from_bytes(bundle.read(CONTRACT)), product.spec.service.latency_ms
    if not contract.logs_features:
        return Logged(rows=[], lists=[], limit_ms=limit_ms)
    types = {item.name: answer_rows.FIELD_TYPES[item.dtype] for item in contract.fields}
    columns = {name: answer_rows.ABOUT[name] for name in (*_ABOUT, *_REQUEST)} | types
    frames = []
    for record in records:  # null where a column had another type or was not there
        frame = product.tables.read_record(record, [name for name in columns if name in record.columns])
        values = (
            pl.col(name) if frame.schema.get(name) == dtype else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in columns.items()
        )
        frames.append(frame.select(values))
    # A row without any feature is one whose features were not logged.
    rows = pl.concat(frames).filter(pl.any_horizontal(pl.col(name).is_not_null() for name in types))
    rows = rows.with_row_index("place")
    # The newest list of each length that callers sent.
    requests = rows.group_by(*_REQUEST).agg("place").with_columns(length=pl.col("place").list.len())
    several = requests.filter(pl.col("length").is_between(2, contract.max_rows)).sort(*_REQUEST, descending=True)
    lists = several.unique("length", keep="first", maintain_order=True).sort("length")["place"].to_list()
    chosen = sorted(_chosen(rows, list(types)) | {place for places in lists for place in places})
    position = {place: index for index, place in enumerate(chosen)}
    return Logged(
        # Without the idempotency key, by which a second request would not be scored.
        rows=[
            msgspec.json.encode(
                {
                    **{name: row[name] for name in _ABOUT},
                    "features": {item.name: _value(item, row[item.name]) for item in contract.fields},
                }
            )
            for row in rows[chosen].iter_rows(named=True)
        ],
        lists=[[position[place] for place in places] for places in lists],
        limit_ms=limit_ms,
    )


def _chosen(rows: pl.DataFrame, fields: list[str]) -> set[int]:
    """Return places of `ROWS` rows, evenly spread, and of the extremes and different values of each field."""
    count = rows.height
    places = {index * count // ROWS for index in range(min(ROWS, count))} if count > ROWS else set(range(count))
    if count > ROWS:
        for name in fields:
            column = rows.select("place", name).drop_nulls()
            if column.is_empty() or column.schema[name] == pl.Binary:
                continue
            values = column.unique(name, keep="first", maintain_order=True)
            places |= set(values.head(VALUES)["place"]) | set(values.bottom_k(1, by=name)["place"])
            places |= set(values.top_k(1, by=name)["place"])
            places |= set(rows.filter(pl.col(name).is_null()).head(1)["place"])
    return places


def _value(item: ContractField, value: object) -> object:
    """Return a value as a caller's JSON has it."""
    if not isinstance(value, bytes):
        return value
    height, width = item.sized
    return [list(value[start : start + width]) for start in range(0, height * width, width)]
