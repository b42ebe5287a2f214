"""Have keys made again whose rows an earlier version of the product made, before a training reads them.

`retrain` asks for a renewal when it is cheap enough, and raises an alert otherwise; a person asks with
`rebuild__product`. `landings` works it off in runs of a bounded number of keys, the newest keys first, while no key is
waiting to be closed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from platform_assets.base.wording import counted
from platform_assets.data.closing import Renewed
from platform_assets.launch import rebuilding
from platform_assets.monitoring.alert_kinds import Alert, Kind, episode_id
from platform_assets.product.spec import Product
from platform_assets.store.artifacts import canonical, sha256
from platform_assets.store.product_store import ProductStore
from platform_assets.training import renewal, versions
from platform_assets.training.requests import left_out


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a training waits for older keys of its window; with the alert to raise, if a person must act."""

    reason: str
    alert: Alert | None = None


def reason_to_wait(product: ProductStore, cutoff: str) -> Wait | None:
    """Return why a training waits for older keys of its window, or None; ask for their renewal if it is cheap."""
    spec = product.spec
    try:
        training, holdout = spec.split(cutoff, left_out(product, cutoff))
    except ValueError:
        return None  # the run says which keys are missing
    older = versions.older(product, (*training, *holdout))
    if older is None:
        return None
    number, usd = versions.renewing(product, older), rebuilding.usd(older)
    if number is None and usd <= rebuilding.limit_usd(product):
        why = f"the training for cutoff {cutoff} needs rows of one version"
        number = renewal.request(product, older, usd=usd, reason=why, author="retrain")
    if number is not None:
        return Wait(reason=f"waits until renewal {number} has made {counted(len(older.keys), 'older key')} again")
    text = (
        f"the training of {spec.name} for cutoff {cutoff} waits: {older.describe()}. Until they are made again, "
        f"{rebuilding.outlook(product, older)}. {versions.advice(product.name)}"
    )
    alert = Alert(
        id=episode_id("older_rows", cutoff, _id(versions.current(spec))),
        kind=Kind.OLDER_ROWS,
        text=text,
        details={"cutoff": cutoff, "keys": len(older.keys), "usd": usd},
    )
    return Wait(reason=f"waits for a person: {older.describe()}", alert=alert)


def following(product: ProductStore, done: int, most: int) -> tuple[Renewed | None, int]:
    """Return the next keys to make again, and the number up to which renewals are over.

    Args:
        done: the number up to which they were over before.
        most: how many keys a run takes.
    """
    newest = product.history.renewal(done)
    if newest is None:
        return None, done
    number, record = newest
    spec, present = product.spec, versions.current(product.spec)
    if record.versions != present:
        return None, number
    keys = spec.grain.span(record.first, record.last)
    older = versions.older(product, keys)
    if older is None:
        return None, number
    return chunk_of(spec, older.keys, reach=versions.reach(spec, older), most=most, version=_id(present)), number - 1


def chunk_of(spec: Product, older: Sequence[str], *, reach: int, most: int, version: str) -> Renewed:
    """Return the newest older keys, with those before them that they look back on.

    Args:
        reach: how many keys before an older key must be made again too.
        most: how many keys a run takes; at least half of a run's keys are ones that were asked for.
    """
    grain = spec.grain
    last = grain.index(older[-1])
    lowest = last - max(most - reach, reach + 1) + 1
    taken = [key for key in older if grain.index(key) >= lowest]
    first = grain.key_at(max(0, grain.index(taken[0]) - reach))
    return Renewed(first=first, last=older[-1], keys=len(taken), keys_left=len(older) - len(taken), id=version)


def _id(present: Mapping[str, str]) -> str:
    return sha256(canonical(present))[:12]
