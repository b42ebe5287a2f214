"""Check a product's file on its recording, or on what has landed, in seconds: `driftline check`.

Belongs here: what can be told of a product by calling its functions on a few keys, and the sentences for whoever writes
the file. Does not belong here: what a declaration alone tells (`specs` refuses it at import), stored data, judging keys
(`compute.faults`) or models (`compute.verdict`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

from platform_assets import digests, specs
from platform_assets.checking import deliveries
from platform_assets.checking.files import schema_of
from platform_assets.checking.told import WORDS, Line, Problem, counted, line_of
from platform_assets.checking.trial import Trial
from platform_assets.settings import Settings
from platform_assets.specs import money, planned
from platform_assets.specs.base import ProductSpec, RecordingMissing, Source

__all__ = ["Line", "Problem", "as_text", "of_product", "run"]


def run(product: str | None = None, settings: Settings | None = None) -> Iterator[tuple[str, list[Line]]]:
    """Yield what was found of each product, or of one, and lastly of all together (under the name `all products`)."""
    known = specs.names()
    loaded: list[ProductSpec] = []
    if product is not None and product not in known:
        specs.load(product)
    for name in known if product is None else [product]:
        try:
            loaded.append(specs.load(name))
        except ValueError as problem:
            yield name, [Line(what="file", said=str(problem), state="problem")]
        else:
            yield name, list(of_product(loaded[-1], settings))
    if product is None and len(loaded) == len(known):
        yield "all products", [_together(loaded)]


def as_text(product: str, lines: Sequence[Line]) -> str:
    """Return what was found for a terminal, a line a check."""
    width = max(len(line.what) for line in lines)
    told = (f"  {WORDS[line.state]:7}  {line.what:{width}}  {line.said}" for line in lines)
    return "\n".join([product, *told])


def of_product(spec: ProductSpec, settings: Settings | None = None) -> Iterator[Line]:
    """Yield what each check of a product finds; what rests on a problem is left out.

    Args:
        spec: of the product.
        settings: whose root has the landing folders that a product without a recording is checked on; by default those
            of the environment.
    """
    count = f"{counted(len(spec.sources), 'source')}, {counted(len(spec.fields), 'field')}"
    yield Line(what="spec", said=f"{spec.grain.describe()}; {count}, a {spec.task.kind} task")
    yield line_of(spec, "money", _money, spec)
    yield line_of(spec, "history", planned.history, spec)
    yield from _code(spec)
    try:
        given = deliveries.at_hand(spec, Settings.from_environment() if settings is None else settings)
    except RecordingMissing as missing:
        yield from _only_declared(spec, {}, str(missing))
        return
    trial = Trial(spec, given)
    if not given.is_recorded:
        count, first, last = counted(len(given.keys), "key"), given.keys[0], given.keys[-1]
        yield Line(what="landing", said=f"no recording; checked on {count} that have landed, {first} to {last}")
    yield line_of(spec, "keys", trial.keys)
    found = {source: line_of(spec, f"source {source.name}", trial.source, source) for source in spec.sources}
    unread = [line for source, line in found.items() if line.state == "skipped" and source not in given.absent]
    if unread:
        yield from _only_declared(spec, found, unread[0].said.rstrip("."))
        return
    yield from found.values()
    if not any(line.is_problem for line in found.values()):
        yield from _of_rows(spec, trial, given.absent)


def _only_declared(spec: ProductSpec, found: Mapping[Source, Line], why: str) -> Iterator[Line]:
    """Yield the lines about the declarations of sources, the problems, and why nothing else was checked."""
    for source in spec.sources:
        line = found.get(source)
        yield line if line and line.is_problem else line_of(spec, f"source {source.name}", _declared, spec, source)
    yield Line(what="recording", said=f"{why}; only the declarations were checked", state="skipped")


def _of_rows(spec: ProductSpec, trial: Trial, absent: Sequence[Source]) -> Iterator[Line]:
    """Yield what is found once every source that is there has good rows."""
    lacks_labels = spec.label_source in absent
    lacking = [source.name for source in absent if not source.is_label]
    if spec.monitors.rules:
        yield line_of(spec, "rules", trial.rules)
    built = _skipped("features", lacking) if lacking else line_of(spec, "features", trial.features)
    yield built
    labelled = _skipped("label", [spec.label_source.name]) if lacks_labels else line_of(spec, "label", trial.label)
    yield labelled
    if built.state == "ok":
        yield line_of(spec, "all keys", trial.every_key)
        yield line_of(spec, "lookback", trial.alone)
        yield line_of(spec, "point in time", trial.point_in_time)
        yield line_of(spec, "requests", trial.requests)
        if spec.slices:
            yield line_of(spec, "slices", trial.slices)
    if "skipped" in (built.state, labelled.state) and not built.is_problem and not labelled.is_problem:
        yield _skipped("entities", [source.name for source in absent])
        yield _skipped("model", [source.name for source in absent])
    elif built.state == labelled.state == "ok":
        yield line_of(spec, "entities", trial.entities)
        yield line_of(spec, "model", trial.model)


def _skipped(what: str, sources: Sequence[str]) -> Line:
    return Line(what=what, said=f"cannot be tried: no file of {' and '.join(sources)} has landed", state="skipped")


def _declared(spec: ProductSpec, source: Source) -> str:
    return counted(len(schema_of(spec, source).columns), "column")


def _money(spec: ProductSpec) -> str:
    money.check_hours(spec)
    limit, first = spec.retraining.monthly_budget_usd, money.following(spec)
    if over := money.over_budget(spec):
        raise Problem(
            f"the first training of {spec.name} will not be launched: {over} Or raise monthly_budget_usd; or give a "
            "reason as `over_budget_reason` when the retrain is launched by hand."
        )
    of = "; no month has a limit" if limit is None else f" of a month's {limit:.2f}"
    return f"the first training may cost {first.usd:.2f} USD{of} ({first.reason})"


def _code(spec: ProductSpec) -> Iterator[Line]:
    """Yield a line when more of a product's file counts as the code of its functions than they name."""
    functions: list[Any] = [spec.model, spec.features, spec.label, *(each.broken for each in spec.monitors.rules)]
    functions += [each for source in spec.sources for each in (source.schema, source.read, source.statistics) if each]
    lines = (digests.widening_line(each) for each in functions if isinstance(each, FunctionType))
    line = next((line for line in lines if line is not None), None)
    if line is not None:
        why = f"line {line[0]}, `{line[1]}`, may change what the product's functions name"
        yield Line(what="code", said=f"{why}; any change to the file makes anew what they make, models among it")


def _together(found: list[ProductSpec]) -> Line:
    try:
        specs.check_together(tuple(found))
    except ValueError as problem:
        return Line(what="together", said=str(problem), state="problem")
    return Line(what="together", said=f"{counted(len(found), 'product')}, no two of one name or folder")
