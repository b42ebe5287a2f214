"""Read what a product's report shows, from records and ledgers, over its newest keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.base import naming
from platform_assets.base.wording import NOUNS, plural
from platform_assets.operations import status
from platform_assets.operations.report.links import Links
from platform_assets.operations.status import slices
from platform_assets.operations.status.state import State
from platform_assets.product.spec import Product
from platform_assets.store.history.faults import judgement
from platform_assets.store.history.performance import measured
from platform_assets.store.history.reader import History
from platform_assets.store.product_store import ProductStore
from platform_assets.store.records import notes
from platform_assets.store.records.attempts import Overspending
from platform_assets.store.records.decisions import Decision
from platform_assets.store.records.faults import Fault, FaultRecord
from platform_assets.store.records.judgements import Judgement
from platform_assets.store.records.performance import Measured
from platform_assets.store.records.releases import Release
from platform_assets.store.records.verdicts import Verdict
from platform_assets.store.tables import TableStore

if TYPE_CHECKING:
    import polars as pl

MOST_KEYS = 92
"""How many of the newest keys a report covers."""
MOST_OVERSPENDINGS = 12
"""The newest records of spending beyond the budget that are read."""
KEYED_STAGES = ("features", "outcomes", "performance", "drift")
MODEL_STAGES = ("checkpoint", "onnx", "evaluation", "service")


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A fault on contiguous keys, and what was done about it.

    Attributes:
        keys: the keys on which the same check of the same source failed, in order.
        fault: the first key's record.
        later: the records that followed, of all keys, as (key, record), oldest first.
    """

    keys: tuple[str, ...]
    fault: Fault
    later: tuple[tuple[str, FaultRecord], ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report shows.

    Attributes:
        state: from `status.of_product`.
        links: to Dagster's UI.
        keys: the keys that it covers, in order: from the first with answers on, including those nobody asked about.
        measured: by key.
        judged: by key.
        decisions: by key.
        episodes: faults on the covered keys, oldest first.
        releases: (number, record), oldest first.
        verdicts: by digest.
        attempts: trainings and exports, by `store.history.attempts.SCHEMA`.
        overspendings: what someone allowed beyond the budget, and why, oldest first.
        answers: label and answer of the newest window's labelled rows, for calibration; None before labels.
        cpu_s: by stage.
    """

    spec: Product
    state: State
    links: Links
    keys: tuple[str, ...]
    measured: Mapping[str, Measured]
    judged: Mapping[str, Judgement]
    decisions: Mapping[str, Decision]
    episodes: tuple[Episode, ...]
    releases: tuple[tuple[int, Release], ...]
    verdicts: Mapping[str, Verdict]
    attempts: pl.DataFrame
    overspendings: tuple[Overspending, ...]
    answers: pl.DataFrame | None
    cpu_s: Mapping[str, float]

    @property
    def answered(self) -> int:
        """How many of the keys have answers."""
        return sum(numbers.rows > 0 for numbers in self.measured.values())

    @property
    def noun(self) -> str:
        """What a key of the product is: `day`, `hour` or `batch`."""
        return NOUNS[self.spec.grain.kind]

    @property
    def nouns(self) -> str:
        """Its plural."""
        return plural(self.noun)


def gather(product: ProductStore, *, dagster: str | None = None) -> Facts:
    """Read a product's facts.

    Args:
        dagster: the address of Dagster's UI, for links.
    """
    spec, tables, history = product.spec, product.tables, product.history
    performance = tables.records("performance")
    recorded = sorted(performance, key=spec.grain.index)
    first = next((position for position, key in enumerate(recorded) if performance[key].rows), len(recorded))
    keys = tuple(recorded[first:])[-MOST_KEYS:]
    judged = {key: judgement(record) for key, record in tables.records("drift", keys).items()}
    released = tuple(history.releases())
    window = status.newest_window(product)
    digests = {record.digest for _, record in released}
    verdicts = {digest: history.verdict(digest) for digest in sorted(digests)}
    return Facts(
        spec=spec,
        state=status.of_product(product),
        links=Links(spec.name, dagster),
        keys=keys,
        measured={key: measured(performance[key]) for key in keys},
        judged=judged,
        # The decision on the key before them led to the first model.
        decisions=history.decisions(spec.grain.with_lookback(keys, 1) if keys else ()),
        episodes=_episodes(history, [key for key in keys if key in judged and judged[key].was_ever_faulty]),
        releases=released,
        verdicts={digest: verdict for digest, verdict in verdicts.items() if verdict is not None},
        attempts=history.attempts(),
        overspendings=tuple(history.overspendings(MOST_OVERSPENDINGS)),
        answers=None if window is None else slices.labelled_rows(product, window),
        cpu_s=_cpu_s(product),
    )


def _episodes(history: History, faulty: Sequence[str]) -> tuple[Episode, ...]:
    """Return the episodes of the faulty keys; a key's records come oldest first."""
    episodes: dict[tuple[str, str, str], tuple[list[str], list[tuple[str, FaultRecord]]]] = {}
    firsts: dict[tuple[str, str, str], Fault] = {}
    for key in faulty:
        name = None
        for _, record in history.faults(key):
            if isinstance(record, Fault) and name is None:
                name = (record.episode, record.source, record.check)
                firsts.setdefault(name, record)
                episodes.setdefault(name, ([], []))[0].append(key)
            elif name is not None:
                episodes[name][1].append((key, record))
    return tuple(
        Episode(keys=tuple(keys), fault=firsts[name], later=tuple(later)) for name, (keys, later) in episodes.items()
    )


def _cpu_s(product: ProductStore) -> dict[str, float]:
    """Return the CPU seconds that making all keys took, by stage, as their records say."""
    of_source = {
        stage: sum(_sum(product.tables, naming.stage(stage, source.name)) for source in product.spec.sources)
        for stage in ("raw", "validated")
    }
    return of_source | {stage: _sum(product.tables, stage) for stage in (*KEYED_STAGES, *MODEL_STAGES)}


def _sum(tables: TableStore, stage: str) -> float:
    return sum(float(notes.Notes.of(record).cpu_s) for record in tables.records(stage).values())
