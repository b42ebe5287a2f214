"""Keep in the store when Dagster's daemon last asked the sensors: people with the store alone see whether it works.

A file that is overwritten, once per deployment. Not a record: nothing depends on it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from platform_assets.base.problems import LedgerProblem
from platform_assets.store import objects

_PATH = "pulse/sensors"
"""Below the root, where only the code server may write."""
EVERY_S = 10
OLD = timedelta(minutes=4)
"""A daemon that stands still is restarted by its probe within this time."""


def write(root: str) -> None:
    """Write the present time.

    Raises:
        obstore.exceptions.BaseError, OSError: it could not be written.
    """
    objects.replace(objects.open_store(root), _PATH, datetime.now(UTC).isoformat().encode())


def silence(root: str) -> str | None:
    """Return what to say about a daemon that has not asked the sensors for long; None for one that has, or never did.

    Raises:
        LedgerProblem: the file cannot be read.
    """
    import obstore

    try:
        data = objects.read(objects.open_store(root), _PATH)
        at = None if data is None else datetime.fromisoformat(data.decode())
    except (obstore.exceptions.BaseError, OSError, ValueError) as error:
        raise LedgerProblem(f"{root}/{_PATH} cannot be read: {objects.reason(root, error)}.") from error
    age = timedelta(0) if at is None else datetime.now(UTC) - at
    if at is None or age <= OLD:
        return None
    return (
        f"Dagster's daemon last asked the sensors {age // timedelta(minutes=1)} minutes ago, at "
        f"{at:%Y-%m-%d %H:%M} UTC; expected every {EVERY_S} s. Nothing is taken in, trained or released meanwhile. See "
        "`kubectl --namespace driftline describe pods`, for driftline-daemon and driftline-code."
    )
