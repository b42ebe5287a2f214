"""Define names that more than one file must agree on: asset keys, storage locations, tags, groups, ledgers.

Standard library only; reads and writes nothing.
"""

from __future__ import annotations

import re

OWNER_DEFAULT = "team:driftline"
UNPARTITIONED = "all"
"""The key of an unpartitioned table's record (a slow source, the releases)."""

TAG_STAGE = "driftline/stage"
TAG_PRODUCT = "driftline/product"
TAG_KEYS = "driftline/keys"
# Dagster's rows of runs hide tags that begin so: digests, lists, and what a person does not ask first.
TAG_ATTEMPT = ".dagster/driftline_attempt"
TAG_EPISODE = ".dagster/driftline_episode"
TAG_SETTLED = ".dagster/driftline_settled"
TAG_REQUESTED = ".dagster/driftline_asked"
TAG_BY_KIND = ".dagster/driftline_by_kind"
TAG_ALIVE = ".dagster/driftline_alive_at"
"""When the process of a terminal's run last said that it is alive, in seconds of the epoch; others have none."""
TAG_BY = "driftline/by"
"""Who asked for a run, and whether that is a person: stamped by `platform_assets.instance.run_coordinator` alone."""

DATA, TRAINING, SERVING, MONITORING = "data", "training", "serving", "monitor"
SYSTEMS = (DATA, TRAINING, SERVING, MONITORING)

MOST_IN_GROUP = 8
"""Letters of a product's name in its groups: Dagster's boxes cut what is longer than `12345678_training`."""

# A product's name is part of its groups' names, in which Dagster takes neither a dash nor a dot.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_name(value: str, label: str) -> str:
    """Return `value`, or raise `ValueError` if Dagster or a path would refuse it.

    Args:
        label: what the name is for, for the message: `"Product.name"`.
    """
    # Two underscores separate verb and product in the name of a job (`job` below).
    candidate: object = value  # may be of any type: it comes from a product's file
    if not isinstance(candidate, str) or not _NAME.fullmatch(value) or "__" in value:
        raise ValueError(
            f"{label} is {value!r}; expected lower-case letters, digits and single underscores, "
            "beginning with a letter, at most 63 characters."
        )
    return value


def snake_case(name: str) -> str:
    """Return a column's name as a field may be called: `Culmen Length (mm)` becomes `culmen_length_mm`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    plain = re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")[:50].strip("_")
    return plain if plain[:1].isalpha() and plain not in RESERVED else f"column_{plain}".rstrip("_")


def stage(name: str, source: str | None = None) -> str:
    """Return a stage's full name: `features`, or `raw_customers` for a stage of one source."""
    return f"{name}_{source}" if source else name


def asset_key(product: str, name: str, source: str | None = None) -> list[str]:
    """Return the path of an asset key: `["orders", "raw_customers"]`."""
    return [product, stage(name, source)]


def group(short: str, system: str) -> str:
    """Return the Dagster group of a `system` (one of `SYSTEMS`) of a product with this short name."""
    if system not in SYSTEMS:
        raise ValueError(f"system is {system!r}; expected one of {SYSTEMS}.")
    return f"{short}_{system}"


def shortened(product: str) -> str:
    """Return a short name for a product that states none: its first words, as many as fit, or the first letters."""
    if len(product) <= MOST_IN_GROUP:
        return product
    return product[: MOST_IN_GROUP + 1].rpartition("_")[0] or product[:MOST_IN_GROUP]


def job(verb: str, product: str) -> str:
    """Return a job's name: `retrain__orders`."""
    return f"{verb}__{product}"


def pool(profile: str) -> str:
    """Return the Dagster pool for runs whose steps have this profile: `driftline_gpu_spot`."""
    return f"driftline_{profile}"


def join(root: str, *parts: str) -> str:
    """Join a storage root (a folder or a URL) and parts with single slashes."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def landing_location(root: str, folder: str, key: str, suffix: str) -> str:
    """Return the location of one source's delivery for one key; `folder` is the source's `landing`."""
    return join(root, "landing", folder, f"{key}{suffix}")


def table_location(root: str, product: str, stage_name: str) -> str:
    """Return the root of a stage's Delta table."""
    return join(root, "tables", product, stage_name)


def records_location(root: str, product: str, stage_name: str) -> str:
    """Return the root of the Delta table with a stage's partition records."""
    return join(root, "records", product, stage_name)


def blob_path(sha256: str) -> str:
    """Return a blob's path below the storage root."""
    return f"artifacts/sha256/{sha256[:2]}/{sha256}"


def ledger_path(product: str, ledger: str) -> str:
    """Return a ledger's path below the storage root; `ledger` is one of the names below."""
    return f"ledgers/{product}/{ledger}"


RESERVED = (
    "key",
    "entity",
    "service_time",
    "asked_at",
    "label",
    "known_at",
    "idempotency_key",
    "source_offset",
    "is_after_closing",
)
"""Columns with another meaning next to a product's fields."""

# What a host may have too, such as a resource called `store` or a sensor called `alerts`, begins with `GUEST`.
GUEST = "driftline_"
STORE, LAUNCHER = f"{GUEST}store", f"{GUEST}launcher"

# Keyed ledgers: one record per key.
VERDICTS = "verdicts"
CHECKPOINTS = "checkpoints"
CHECKPOINT_BLOBS = ("weights", "learned", "baselines", "config")
"""Members of a checkpoint's manifest that name its blobs."""
DECISIONS = "decisions"
ALERTS = "alerts"
ATTENDANCE = "attendance"
KEY_ENDS = "key_ends"
DEFINED_IN = "defined_in"

# Numbered ledgers: the newest record counts. `FAULTS`, `LEASES` and `ANNOUNCED` have one ledger per key, fingerprint or
# unit of work: `faults/2013-03-01`.
RELEASES = "releases"
ATTEMPTS = "attempts"
TRAININGS = "trainings"
ANNOUNCED = "announced"
OVERSPENDINGS = "overspendings"
FAULTS = "faults"
REQUESTS = "requests"
ANSWERED = "answered"
FAILURES = "failures"
INTERVENTIONS = "interventions"
COMPATIBLE = "compatible"
MATERIALISED = "materialised"
RENEWALS = "renewals"
INGESTED = "ingested"
CLAIMS = "claims"
ALERT_QUEUE = "alert_queue"
LEASES = "leases"

# Not ledgers: mutable files next to them that can be recomputed.
COST = "cost"
PRUNED = "pruned"
SLOW_SOURCES = "slow_sources"
