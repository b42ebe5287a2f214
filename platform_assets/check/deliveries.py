"""Choose the files on which a product is checked: its recording, or without one what has been delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.check.messages import CHANNEL, call
from platform_assets.product.channels import Channel
from platform_assets.product.spec import Deliver, Product, RecordingMissing, Source
from platform_assets.store import landing, objects

MOST_KEYS = 400
"""How many of the newest landed keys are used; more only where `lookback` needs them."""


@dataclass(frozen=True, kw_only=True)
class Deliveries:
    """The files that are available.

    Attributes:
        deliver: `(source name, key) -> bytes`, None when there is no file.
        keys: contiguous, in order: those that features are built for.
        labelled: those of `keys` that have labels, in order; need not be contiguous.
        absent: sources without a file for any of `keys`.
        is_recorded: whether they are a recording, which must be enough for a first training.
        origin: what delivers them, for messages: `deliver()`, or `the delivery`.
    """

    deliver: Deliver
    keys: tuple[str, ...]
    labelled: tuple[str, ...]
    absent: tuple[Source, ...] = ()
    is_recorded: bool = True
    origin: str = "deliver()"


def locate(spec: Product, settings: Settings, assets: Mapping[str, Channel] | None = None) -> Deliveries:
    """Return the recording's files, or for a product without one those of its channels and landing folders.

    Args:
        assets: channels of sources that are assets, by name, see `check.assets`; by default those of the store.

    Costs one listing per source for landed files.

    Raises:
        RecordingMissing: there is neither, or the store cannot be read; names the reason.
        Problem: the own channel of a source fails.
    """
    if (history := spec.history) is not None:
        ends = spec.grain.index(history.demo_first), spec.grain.index(history.demo_last) - spec.label_delay
        keys = tuple(spec.grain.key_at(index) for index in range(ends[0], ends[1] + 1))
        return Deliveries(deliver=history.deliver, keys=keys, labelled=keys)
    root, channels = settings.root, {**landing.channels(spec, settings.root), **(assets or {})}
    has_own = any(not source.is_landed for source in spec.sources)
    folders = ", ".join(dict.fromkeys(channel.cite() for channel in channels.values()))
    if not has_own and not objects.is_there(root):
        raise RecordingMissing(f"there is no recording, and no file has landed: the folder {root} does not exist")
    landed = {source: _keys_of(spec, root, source, channels[source.name]) for source in spec.sources}
    keyed = [set(landed[source]) for source in spec.feature_sources if not source.is_slow and landed[source]]
    complete = sorted(set.intersection(*keyed) if keyed else set(), key=spec.grain.index)
    if not complete:
        nothing = "nothing is delivered" if has_own else "no file has landed"
        if any(source.asset is not None for source in spec.sources) and not assets:
            nothing = "no run has taken in anything (and DAGSTER_HOME names no Dagster, to look at its assets)"
        reason = "no key has a file of each source" if keyed else nothing
        raise RecordingMissing(f"there is no recording, and {reason} in {folders}")
    # The newest ones, contiguous; the first and the last have a file of each source.
    least = spec.grain.index(complete[-1]) - max(MOST_KEYS, 2 * (spec.lookback + 1)) + 1
    recent = [key for key in complete if spec.grain.index(key) >= least]
    keys = spec.grain.span(recent[0], recent[-1])
    labelled = tuple(key for key in complete if key in set(landed[spec.label_source]) and key in set(keys))
    return Deliveries(
        deliver=partial(_deliver, spec, root, channels),
        keys=keys,
        labelled=labelled,
        absent=tuple(source for source in spec.sources if not (labelled if source.is_label else landed[source])),
        is_recorded=False,
        origin="the delivery",
    )


def _keys_of(spec: Product, root: str, source: Source, channel: Channel) -> list[str]:
    """Return the keys with a delivery. Other names, such as of a file that is still written, are left out."""
    import obstore

    if source.channel is not None:
        keys = call(spec, f"{CHANNEL} {source.name}", channel.keys)
    elif source.asset is None and not objects.is_there(root):  # a listing would create it
        return []
    else:
        try:
            keys = channel.keys()
        except (obstore.exceptions.BaseError, OSError) as error:
            reason = objects.reason(root, error)
            raise RecordingMissing(f"there is no recording, and {root} cannot be read: {reason}") from None
    return [key for key in keys if (key == naming.UNPARTITIONED if source.is_slow else spec.grain.contains(key))]


def _deliver(spec: Product, root: str, channels: Mapping[str, Channel], source: str, key: str) -> bytes | None:
    """Return a delivery; raise `RecordingMissing` when the store cannot be read, `Problem` for an own channel."""
    import obstore

    channel = channels[source]
    if spec.source(source).channel is not None:
        return call(spec, f"{CHANNEL} {source}", _fetched, channel, key)
    try:
        return _fetched(channel, key)
    except (obstore.exceptions.BaseError, OSError) as error:
        raise RecordingMissing(f"{channel.cite(key)}: {objects.reason(root, error)}") from None


def _fetched(channel: Channel, key: str) -> bytes | None:
    try:
        return channel.fetch(key).data
    except FileNotFoundError:
        return None
