"""Compose the training step's request: keys, the digests of their rows, and what makes two trainings the same.

Shared by checkpoints, backtests and experiments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

import msgspec

from platform_assets.base import naming
from platform_assets.base.problems import Problem
from platform_assets.data import unlabelled
from platform_assets.data.stage_inputs import require
from platform_assets.engine import digests
from platform_assets.engine.outside import Size
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records.trainings import LOOP
from platform_assets.training import versions
from platform_assets.training.checkpoint_maker import Learning
from platform_assets.training.learners.network import check_processes
from platform_assets.training.steps.jobs import Job, Request


class OlderRows(Problem, ValueError):
    """Rows of a training that an earlier version of the product made.

    Attributes:
        behind: their keys.
    """

    def __init__(self, text: str, behind: versions.Older) -> None:
        super().__init__(text)
        self.behind = behind


def left_out(product: ProductStore, cutoff: str) -> tuple[str, ...]:
    """Return the keys of a cutoff's window that training leaves out: held, dropped, or given up unlabelled."""
    spec = product.spec
    window = spec.grain.window(cutoff, width=spec.window, label_delay=spec.label_delay)
    given_up = unlabelled.excluded(product.tables, spec.grain, window, cutoff)
    return tuple(sorted({*product.history.excluded(window), *given_up}))


def training_request(product: ProductStore, cutoff: str, size: Size, out: Collection[str] = ()) -> Request:
    """Compose a training step's request: device, keys, their rows' digests, and the moment by which data must be known.

    Args:
        size: what the step runs on.
        out: keys of the window to leave out; see `left_out`.

    Raises:
        ValueError: fewer labelled keys than the spec's `min_keys`, or a learner that cannot use the size.
        OlderRows: an earlier version of the product made rows of a key.
        MissingPartitions: a key of the window has no features or outcomes.
    """
    return request_of(product, cutoff, size, *product.spec.split(cutoff, out))


def job(
    product: ProductStore,
    cutoff: str,
    out: Collection[str],
    libraries: Mapping[str, str],
    size: Size,
    *,
    purpose: str = LOOP,
) -> Job:
    """Compose the job of a training; see `training_request` and `fingerprint`."""
    request = training_request(product, cutoff, size, out)
    code = digests.code_digest(Learning.for_product(product.spec))
    return Job(
        **msgspec.structs.asdict(request),
        module=product.spec.module,
        fingerprint=fingerprint(product.spec, code, request, libraries),
        purpose=purpose,
    )


def request_of(
    product: ProductStore, cutoff: str, size: Size, training_keys: Sequence[str], holdout_keys: Sequence[str]
) -> Request:
    """Compose the request of a step that learns from some keys and is judged on others; see `training_request`."""
    check_processes(product.spec, size.name, size.world_size)
    keys = (*training_keys, *holdout_keys)
    if (behind := versions.older(product, keys)) is not None:
        raise OlderRows(
            f"{product.name}: the training for cutoff {cutoff} would mix rows of two versions: {behind.describe()}. "
            f"{behind.work()[0].upper()}{behind.work()[1:]}. {versions.advice(product.name)}",
            behind,
        )
    features, outcomes = (
        {key: record.content_digest for key, record in require(product.tables, stage, keys).items()}
        for stage in ("features", "outcomes")
    )

    # Batches have no clock: the moment of one is when the newest of its rows became known.
    def arrival_of(key: str) -> datetime | None:
        arrivals = [
            product.tables.read(naming.stage("validated", source.name), [key], columns=[source.known_at])[
                source.known_at
            ].max()
            for source in product.spec.sources_of_a_batch
            if source.known_at is not None
        ]
        return max((moment for moment in arrivals if isinstance(moment, datetime)), default=None)

    return Request(
        product=product.name,
        cutoff=cutoff,
        device=size.device,
        precision=size.precision,
        known_before=product.spec.grain.instant(cutoff, arrival_of).isoformat(),
        world_size=size.world_size,
        training_keys=list(training_keys),
        holdout_keys=list(holdout_keys),
        features=features,
        outcomes=outcomes,
    )


def fingerprint(spec: Product, code: str, request: Request, libraries: Mapping[str, str], **more: str) -> str:
    """Hash what makes two trainings the same: code, configuration, data and library versions.

    Not the number of processes, which changes roundings and what dropout draws: with another one a training goes on.

    Args:
        code: digest of the maker.
        request: the step's keys and their content.
        libraries: from the launcher.
        more: distinguishes other kinds of steps.
    """
    document = msgspec.to_builtins(request)
    del document["world_size"]
    inputs = {"training": asdict(spec.training), "request": document, "libraries": dict(libraries)}
    return sha256(canonical({"code": code, **inputs, **more}))
