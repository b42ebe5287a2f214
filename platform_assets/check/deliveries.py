"""Choose the files on which a product is checked: its recording, or without one what has been delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.check.messages import CHANNEL, call
from platform_assets.product.channels import Channel
from platform_assets.product.spec import Deliver, History, Product, RecordingMissing, Source
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
    return _landed(spec, settings.root, assets or {}) if spec.history is None else _recorded(spec, spec.history)


def _recorded(spec: Product, history: History) -> Deliveries:
    first, last = spec.grain.index(history.demo_first), spec.grain.index(history.demo_last) - spec.label_delay
    keys = tuple(spec.grain.key_at(index) for index in range(first, last + 1))
    return Deliveries(deliver=history.deliver, keys=keys, labelled=keys)


def _landed(spec: Product, root: str, assets: Mapping[str, Channel]) -> Deliveries:
    channels = {**landing.channels(spec, root), **assets}
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
    keys = _newest(spec, complete)
    labelled = tuple(key for key in complete if key in set(landed[spec.label_source]) and key in set(keys))
    return Deliveries(
        deliver=_Landing(spec, root, channels).deliver,
        keys=keys,
        labelled=labelled,
        absent=tuple(source for source in spec.sources if not (labelled if source.is_label else landed[source])),
        is_recorded=False,
        origin="the delivery",
    )


def _newest(spec: Product, complete: list[str]) -> tuple[str, ...]:
    """Return the newest keys, contiguous; the first and the last have a file of each source."""
    last = spec.grain.index(complete[-1])
    least = last - max(MOST_KEYS, 2 * (spec.lookback + 1)) + 1
    first = next(key for key in complete if spec.grain.index(key) >= least)
    return spec.grain.span(first, complete[-1])


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
            raise RecordingMissing(
                f"there is no recording, and {root} cannot be read: {objects.reason(root, error)}"
            ) from None
    return [key for key in keys if (key == naming.UNPARTITIONED if source.is_slow else spec.grain.contains(key))]


class _Landing:
    """Reads deliveries."""

    def __init__(self, spec: Product, root: str, channels: Mapping[str, Channel]) -> None:
        self._spec, self._channels, self._root = spec, channels, root

    def deliver(self, source: str, key: str) -> bytes | None:
        """Return a delivery; raise `RecordingMissing` when the store cannot be read, `Problem` for an own channel."""
        import obstore

        channel = self._channels[source]
        if self._spec.source(source).channel is not None:
            return call(self._spec, f"{CHANNEL} {source}", _fetched, channel, key)
        try:
            return _fetched(channel, key)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise RecordingMissing(f"{channel.cite(key)}: {objects.reason(self._root, error)}") from None


def _fetched(channel: Channel, key: str) -> bytes | None:
    try:
        return channel.fetch(key).data
    except FileNotFoundError:
        return None
