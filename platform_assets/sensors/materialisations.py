"""Note what assets that are sources have materialised, so that `landings` finds a product's keys eligible."""

from __future__ import annotations

import msgspec

from platform_assets.base.wording import counted
from platform_assets.data import source_calls
from platform_assets.data.materialisations import MOST, SourceAsset
from platform_assets.sensors import ticks


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at.

    Attributes:
        after: by source, the number of the last event.
        again: by source, the partitions whose newest materialisation could not be noted.
    """

    after: dict[str, int] = msgspec.field(default_factory=dict)
    again: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


@ticks.Sensor("materialisations", ticks.PerProduct(State), every_s=5)
def watch(tick: ticks.ProductTick, state: State) -> ticks.Result[State]:
    """Note the materialisations since the last tick. A table is read in a thread, which a tick does not wait out."""
    names = [source.name for source in tick.spec.sources if source.asset is not None]
    if not names:
        return ticks.Result(state=state, reason="no source is an asset")
    repository = tick.context.repository_def
    graph = None if repository is None else repository.asset_graph
    after, again, clauses = dict(state.after), dict(state.again), list[str]()
    for name in names:
        source = tick.spec.source(name)
        asset = SourceAsset(instance=tick.context.instance, product=tick.product, source=source, graph=graph)
        look = (after.get(name), again.get(name, ()))
        try:
            noted = source_calls.ask(
                tick.store.settings.root,
                tick.spec.name,
                f"asset of {name}",
                ("note", f"{look}"),
                lambda asset=asset, look=look: asset.note_since(*look),  # type: ignore[misc]
                tick.until_s,
            )
        except source_calls.SourceProblem as problem:
            clauses.append(f"asset {asset.name} {problem}")
            continue
        except source_calls.OutOfTime as problem:
            reason = "; ".join([*clauses, f"goes on in the next tick: {name}: {problem}"])
            return ticks.Result(state=State(after=after, again=again), reason=reason, is_complete=False)
        clauses += [f"noted {clause}" for clause in noted.clauses]
        problems = [problem.rstrip(".") for problem in dict.fromkeys(noted.problems.values())]
        clauses += problems[:1]
        if problems[1:]:
            clauses.append(f"{counted(len(problems) - 1, 'more partition')} cannot be noted")
        again[name] = tuple(sorted(noted.problems))[-MOST:]
        if noted.after is not None:
            after[name] = noted.after
        else:
            clauses.append(
                f"nothing was materialised as asset {asset.name}; materialise it, or fix asset of source {name!r} in "
                "the product's file if it has another name now"
            )
        if asset.is_elsewhere:
            clauses.append(f"asset {asset.name} is of another code location, or has another name now")
    return ticks.Result(state=State(after=after, again=again), reason="; ".join(clauses) or "nothing new")
