"""A day of many small products on one cluster: runs as pods, with the shipped launcher, queue, quotas and requests.

All products are in the image; they differ by name only. One of them lands a first batch alone, then a few land theirs
at once, and then fifty more, or as many as the time allows by the pace of these few (`P19_MINUTES`). Both nodes, the
control plane, the store and PostgreSQL share the cores of one machine: this shows what waits for what, not how fast a
cluster is.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import psycopg2
from kubernetes import client

from platform_assets.base import naming
from platform_assets.base.settings import REPOSITORY
from proof.benchmarks.harness import Measure
from tests.cluster import loop, opened_platform, platform_images, trainer
from tests.cluster.platform import NAMESPACE, Platform
from tests.cluster.waiting import wait_until
from tests.doubles.postgres_server import PostgresServer
from tests.doubles.products import live_parts

MANY, FEW = 50, 6
PRODUCTS = 1 + FEW + MANY
MINUTES = float(os.environ.get("P19_MINUTES", "25"))
PATIENCE_S = 3600.0
MB = 1e6
SIZE = "import os, psutil; print(sum(p.memory_info().rss for p in psutil.process_iter() if p.pid != os.getpid()))"
FILE = """\
FROM {image}
USER 0:0
RUN cd /app/platform_assets/products && ls *.py | grep -vxE '__init__[.]py' | xargs rm
COPY tests/doubles/products/live_parts.py /app/platform_assets/products/p000.py
RUN sed -i 's/name="live_parts"/name="p000"/' /app/platform_assets/products/p000.py
RUN cd /app/platform_assets/products && for number in $(seq --format=%03.0f 1 {last}); do {{ \\
    echo 'from dataclasses import replace'; \\
    echo 'from platform_assets.products.p000 import SPEC as FIRST'; \\
    echo "SPEC = replace(FIRST, name=\\"p$number\\")"; }} >p$number.py; done
USER 10001:10001
"""
ALONE, TOGETHER = "one alone", f"{FEW} at once"
RUNS = "SELECT pipeline_name, run_id, status, create_timestamp, start_time, end_time FROM runs"
SIZE_OF_DATABASE = "SELECT pg_database_size(current_database())"
shown: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Day:
    """Moments of one product's day, in seconds since 1970.

    Attributes:
        landed: its files.
        queued: its run was asked for.
        launched: the run's Job was created.
        running: the Job's container was started.
        begun, ended: by the run's own word.
    """

    landed: float
    queued: float
    launched: float
    running: float
    begun: float
    ended: float


PARTS = {
    "until the run is queued": ("landed", "queued"),
    "in the queue": ("queued", "launched"),
    "until its pod runs": ("launched", "running"),
    "until the run begins": ("running", "begun"),
    "of the run": ("begun", "ended"),
    "in all": ("landed", "ended"),
}


def run() -> list[Measure]:
    shown.clear()
    products = [f"p{number:03}" for number in range(PRODUCTS)]
    measures: list[Measure] = []
    opened_platform.check()
    image = many(platform_images.built(REPOSITORY, "platform"))
    # No step is launched: a first batch is too little to learn from.
    with opened_platform.opened_platform(image) as (platform, postgres):
        measures += _sizes(platform, postgres, "before the first run")
        alone = landed(platform, postgres, products[:1])
        few = landed(platform, postgres, products[1 : 1 + FEW])
        pace_s = (max(day.ended for day in few) - min(day.landed for day in few)) / FEW
        count = max(1, min(MANY, int(60 * MINUTES / pace_s)))
        rest = landed(platform, postgres, products[1 + FEW : 1 + FEW + count])
        for name, days in ((ALONE, alone), (TOGETHER, few), (f"{count} at once", rest)):
            for text, (begin, end) in PARTS.items():
                seconds = [getattr(day, end) - getattr(day, begin) for day in days]
                measures.append(Measure(f"{name}: s {text}, median", median(seconds), peers={"most": max(seconds)}))
        measures += _sizes(platform, postgres, "afterwards")
        took_s = max(day.ended for day in rest) - min(day.landed for day in rest)
        shown.append(f"{count} products at once took {took_s / 60:.1f} min, until the last of their runs had ended.")
        if count < MANY:
            shown.append(f"Extrapolated: {MANY} at once would take {MANY * took_s / count / 60:.0f} min at that pace.")
        most = max(sum(one.running <= day.running < one.ended for one in rest) for day in rest)
        shown.append(f"At most {most} runs were at work at once; the queue allows 16.")
        shown.append(f"The machine's load average at the end: {os.getloadavg()[0]:.0f}, on {os.cpu_count()} cores.")
    return measures


def many(image: str) -> str:
    """Return a platform image with many products, which differ by name only."""
    digest = trainer.digest(REPOSITORY, ("tests/doubles/products/live_parts.py",))
    name = f"localhost/driftline-many-{image[-12:]}-{digest}"
    return trainer.layer(REPOSITORY, name, FILE.format(image=image, last=PRODUCTS - 1))


def landed(platform: Platform, postgres: PostgresServer, products: Sequence[str]) -> list[Day]:
    """Land a first batch of some products at once, and return their days once all are closed."""
    now = datetime.now(UTC)
    texts = live_parts.files(0, live_parts.first_moments(now)[0])
    at_s = time.time()
    for product in products:
        loop.land((platform.settings,), {path.replace("live_parts", product): text for path, text in texts.items()})
    jobs = {naming.job("advance", product) for product in products}

    def is_done() -> bool:
        rows = {name: status for name, _, status, *_ in runs(postgres) if name in jobs}
        if "FAILURE" in rows.values():
            raise RuntimeError(f"a run failed: {rows}\n{platform.described()}")
        return len(rows) == len(jobs) and set(rows.values()) == {"SUCCESS"}

    wait_until(is_done, PATIENCE_S, f"the days of {len(jobs)} products are closed", platform.described)
    days = [_day(platform, at_s, row) for row in runs(postgres) if row[0] in jobs]
    print(f"{len(days)} at once: {days}", flush=True)
    return days


def runs(postgres: PostgresServer) -> list[tuple[Any, ...]]:
    return _rows(postgres, RUNS)


def _rows(postgres: PostgresServer, query: str) -> list[tuple[Any, ...]]:
    environment = postgres.environment()
    places = {name: environment[f"DAGSTER_PG_{name.upper()}"] for name in ("host", "port", "user", "password")}
    with (
        closing(psycopg2.connect(**places, dbname=environment["DAGSTER_PG_DB"])) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(query)
        return list(cursor.fetchall())


def _day(platform: Platform, at_s: float, row: Sequence[Any]) -> Day:
    _, run_id, _, queued, begun, ended = row
    (job,) = (
        client.BatchV1Api(platform.cluster.api)
        .list_namespaced_job(NAMESPACE, label_selector=f"dagster/run-id={run_id}")
        .items
    )
    (pod,) = platform.cluster.core.list_namespaced_pod(NAMESPACE, label_selector=f"dagster/run-id={run_id}").items
    state = pod.status.container_statuses[0].state
    return Day(
        landed=at_s,
        queued=queued.replace(tzinfo=UTC).timestamp(),
        launched=job.metadata.creation_timestamp.timestamp(),
        running=(state.terminated or state.running).started_at.timestamp(),
        begun=begun,
        ended=ended,
    )


def _sizes(platform: Platform, postgres: PostgresServer, when: str) -> list[Measure]:
    sizes: Mapping[str, float] = {
        f"MB of the {name}": int(platform.kubectl("exec", f"deployment/driftline-{part}", "--", "python", "-c", SIZE))
        / MB
        for part, name in (("daemon", "daemon"), ("code", "code server"))
    }
    sizes = {**sizes, "MB in PostgreSQL": _rows(postgres, SIZE_OF_DATABASE)[0][0] / MB}
    return [Measure(f"{PRODUCTS} products, {when}: {name}", value) for name, value in sizes.items()]
