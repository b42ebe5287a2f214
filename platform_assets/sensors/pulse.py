"""Leave in the store of a cluster when the daemon last asked the sensors, for `driftline status`."""

from platform_assets.sensors import ticks
from platform_assets.store import pulse


@ticks.Sensor("pulse", ticks.NO_CURSOR, every_s=pulse.EVERY_S)
def watch(tick: ticks.Tick, state: None) -> ticks.Result[None]:
    """Write the time; a store on one machine needs none, because whoever reads it sees the processes."""
    settings = tick.store.settings
    if settings.environment != "cluster":
        return ticks.Result(state=state, reason="this store is not a cluster's")
    pulse.write(settings.root)
    return ticks.Result(state=state, reason="wrote the time")
