"""Name and label the pods and containers of attempts, so that the next run finds them."""

from __future__ import annotations

import hashlib
import re

from platform_assets.engine.outside import Work
from platform_assets.launch import records
from platform_assets.store.records.attempts import Launch


def name_of(launch: Launch) -> str:
    """Return the name of an attempt's pod or container, a DNS label that starts with product and step.

    The same attempt has the same name, so creating its pod twice is a conflict instead of a second pod.
    """
    work = records.work_of(launch)
    identity = "\n".join([work.product, work.step, work.cutoff, work.fingerprint, launch.id])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", f"{work.product}-{work.step}".lower()).strip("-")
    return "-".join(part for part in ("driftline", readable[:36].strip("-"), digest) if part)


def label(value: str) -> str:
    """Return the nearest valid label value: at most 63 characters, invalid ones replaced by dashes."""
    allowed = re.sub(r"[^A-Za-z0-9_.-]", "-", value)
    return re.sub(r"[^A-Za-z0-9]+$", "", re.sub(r"^[^A-Za-z0-9]+", "", allowed)[:63])


def selector(work: Work) -> dict[str, str]:
    """Return the labels that find the pods and containers of all attempts at the same work."""
    return {"driftline/fingerprint": label(work.fingerprint[:40]), "driftline/step": label(work.step)}


def labels(launch: Launch) -> dict[str, str]:
    """Return the labels of an attempt's pod or container."""
    return {key: label(value) for key, value in facts(launch).items()} | selector(records.work_of(launch))


def facts(launch: Launch) -> dict[str, str]:
    """Return the facts that the pod's labels and annotations contain, unabridged."""
    work = records.work_of(launch)
    return {
        "app.kubernetes.io/name": "driftline-step",
        "app.kubernetes.io/component": "step",
        "app.kubernetes.io/managed-by": "driftline",
        "driftline/product": work.product,
        "driftline/step": work.step,
        "driftline/cutoff": work.cutoff,
        "driftline/fingerprint": work.fingerprint,
        "driftline/attempt": launch.id,
        "driftline/run-id": launch.run_id,
        "driftline/profile": launch.profile,
        "driftline/spot": str(launch.is_spot).lower(),
    }
