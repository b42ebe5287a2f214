"""A million answers of 89 fields for one key, ingested in a run pod whose memory is limited to 1 GB.

The run is launched as the UI launches it, with the shipped launcher, image and manifests; only the pod's limit differs.
A second product gets the same answers in twice as many segments: the content must be the same.
"""

import time
from dataclasses import dataclass
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from platform_assets.base import naming
from platform_assets.base.settings import REPOSITORY
from platform_assets.store.tables import TableStore
from proof.benchmarks.harness import Disagreement, Measure
from proof.benchmarks.limited_stage import FIELDS, KEY
from proof.benchmarks.million_answers import ANSWERS, LIMIT_BYTES, SEGMENT_BYTES, fill
from tests.cluster import graphql, opened_platform, platform_images, proxy, trainer
from tests.cluster.platform import PARTS, Platform
from tests.cluster.waiting import wait_until

STAGE = "predictions"
SIZES = {"whole": SEGMENT_BYTES, "halved": SEGMENT_BYTES // 2}
"""Bytes of a segment before it is compressed, by product."""
PATIENCE_S, LOOK_S = 1200.0, 2.0
FILE = """\
FROM {image}
USER 0:0
RUN cd /app/platform_assets/products && ls *.py | grep -vxE '__init__[.]py' | xargs rm
COPY tests/doubles/recorded.py /app/platform_assets/products/recorded.py
RUN cd /app/platform_assets/products && for name in {names}; do {{ \\
    echo 'from dataclasses import replace'; \\
    echo 'from platform_assets.product.spec import Field'; \\
    echo 'from platform_assets.products.recorded import SPEC as FIRST'; \\
    echo 'NAMES = [f"field_{{number:02d}}" for number in range({fields})]'; \\
    echo 'NUMBER = {{"dtype": "float", "description": "a number", "is_nullable": True}}'; \\
    echo 'FIELDS = tuple(Field(name=name, **NUMBER) for name in NAMES)'; \\
    echo 'MONITORS = replace(FIRST.monitors, drift_window=1)'; \\
    echo "SPEC = replace(FIRST, name=\\"$name\\", fields=FIELDS, monitors=MONITORS)"; }} >$name.py; done
USER 10001:10001
"""
shown: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of a process, in bytes.

    Attributes:
        own: what it holds now, and the kernel cannot drop.
        resident: the peak of all that was in memory for it until now.
    """

    own: int = 0
    resident: int = 0


def run() -> list[Measure]:
    shown.clear()
    opened_platform.check()
    image = wide(platform_images.built(REPOSITORY, "platform"))
    digests, peaks = set(), list[Memory]()
    with opened_platform.opened_platform(image) as (platform, _):
        # Limit the memory of run pods in the copied manifests.
        file = platform.folder / "kubernetes/base/dagster.yaml"
        before = "memory: 1Gi\n      limits:\n        memory: 4Gi"
        text = file.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise RuntimeError(f"{file.name} does not limit the memory of runs as this row expects: {before!r}")
        limited = f"memory: '{LIMIT_BYTES}'"
        file.write_text(text.replace(before, f"{limited}\n      limits:\n        {limited}"), encoding="utf-8")
        platform.apply_all()
        platform.kubectl("rollout", "restart", "deployment")  # they read the instance's settings when they start
        for part in PARTS:
            platform.wait_for(f"driftline-{part}")
        for product, size in SIZES.items():
            count = fill(platform.settings.root, size, product)
            print(f"{count} segments of {product} are in the store", flush=True)
            started_s = time.monotonic()
            peaks.append(ingested(platform, product))
            record = TableStore(platform.settings.root, product).records(STAGE)[KEY]
            if record.rows != ANSWERS:
                raise Disagreement(f"{record.rows:,} answers of {ANSWERS:,} arrived")
            digests.add(record.content_digest)
            took_s = time.monotonic() - started_s
            shown.append(
                f"{ANSWERS:,} answers in {count} segments: at most {peaks[-1].own / 1e6:.0f} MB of the run's own, "
                f"{peaks[-1].resident / 1e6:.0f} MB with what it had mapped of files, which the kernel may drop; "
                f"{took_s:.0f} s from the launch to the end."
            )
            print(shown[-1], flush=True)
    if len(digests) > 1:
        raise Disagreement(f"the content differs: {digests}")
    shown.append("The limit is the kernel's, and a process that needs more is killed: both runs ended with success.")
    target = f"<= {LIMIT_BYTES / 1e6:.0f} MB"
    own, resident = (max(getattr(peak, name) for peak in peaks) / 1e6 for name in ("own", "resident"))
    return [
        Measure("answers that arrived under the limit, per product", ANSWERS, target=">= 1000000"),
        Measure("MB, most of the run's own memory, by a look every 2 s", own, target=target),
        Measure("MB, peak of its resident memory, mapped files included", resident),
    ]


def wide(image: str) -> str:
    """Return a platform image with two products that have the benchmark's fields and differ by name only."""
    text = FILE.format(image=image, names=" ".join(SIZES), fields=len(FIELDS))
    content = trainer.digest(REPOSITORY, ("tests/doubles/recorded.py", "proof/chaos/r11.py"))
    return trainer.layer(REPOSITORY, f"localhost/driftline-wide-{image[-12:]}-{content}", text)


def ingested(platform: Platform, product: str) -> Memory:
    """Ingest a product's answers in a run pod, and return the most memory that the run was seen to have."""
    webserver = platform.address(proxy.NAME)
    tags = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    params: dict[str, Any] = {
        "selector": {
            **graphql.selector(naming.job("advance", product)),
            "assetSelection": [{"path": [product, STAGE]}],
        },
        "executionMetadata": {"tags": [{"key": tag, "value": KEY} for tag in tags]},
    }
    launched = graphql.ask(webserver, graphql.LAUNCH, params=params)["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise RuntimeError(launched)
    run_id, limits, seen = str(launched["run"]["runId"]), set[int](), [Memory()]

    def is_over() -> bool:
        for pod in platform.pods(f"dagster/run-id={run_id}"):
            (container,) = pod.spec.containers
            limits.add(int(parse_quantity(container.resources.limits["memory"])))
            seen.append(_memory(platform, pod.metadata.name))
        time.sleep(LOOK_S)
        return graphql.status(webserver, run_id) in ("SUCCESS", "FAILURE", "CANCELED")

    wait_until(is_over, PATIENCE_S, f"the answers of {product} are in", platform.described)
    if graphql.status(webserver, run_id) != "SUCCESS":
        raise RuntimeError(f"the run failed\n{platform.described()}")
    if limits != {LIMIT_BYTES}:
        raise Disagreement(f"run pods were limited to {limits}, and not to {LIMIT_BYTES}")
    return Memory(own=max(look.own for look in seen), resident=max(look.resident for look in seen))


def _memory(platform: Platform, pod: str) -> Memory:
    """Return the memory of the pod's first process; nothing before it starts and after it ends."""
    try:
        text = platform.kubectl("exec", pod, "--", "grep", "-E", "^(VmHWM|RssAnon):", "/proc/1/status")
        names = dict(line.split(":") for line in text.splitlines())
        own, resident = (1024 * int(names[name].split()[0]) for name in ("RssAnon", "VmHWM"))
    except (RuntimeError, KeyError):
        return Memory()
    return Memory(own=own, resident=resident)
