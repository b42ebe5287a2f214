"""Check a product's file on its recording, or on what has landed, in seconds: `driftline check`.

It calls the product's functions on a few keys and reports what they return. Mistakes that a declaration alone shows are
refused earlier, when the file is imported (`specs`). It reads no stored data and judges neither keys nor models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from types import FunctionType
from typing import Any

from platform_assets.base import clock
from platform_assets.base.settings import Settings
from platform_assets.base.wording import counted, span
from platform_assets.check import clocks, deliveries, monitored, names, requests
from platform_assets.check.files import schema_of
from platform_assets.check.messages import LABELS, Line, Problem, line_of
from platform_assets.check.trial import Trial
from platform_assets.engine import digests, product_files
from platform_assets.engine.digests.modules import is_ours
from platform_assets.launch import prices, rebuilding
from platform_assets.launch.profiles import profile
from platform_assets.product import planned
from platform_assets.product.channels import Channel
from platform_assets.product.spec import Product, RecordingMissing, Source
from platform_assets.store.product_store import ProductStore
from platform_assets.training import changes, versions
from platform_assets.training.learners.network import check_processes, learner_of

__all__ = ["Line", "Problem", "as_text", "of_product", "run"]


Look = Callable[[Product, Settings], AbstractContextManager[Mapping[str, Channel]]]
"""Gives channels of the sources that are assets; see `data.newest_materialisations`, which needs Dagster."""


def run(
    product: str | None = None, settings: Settings | None = None, look: Look | None = None
) -> Iterator[tuple[str, list[Line]]]:
    """Yield the lines of each product, or of one; last, under `all products`, those about all of them together."""
    known = product_files.names()
    loaded: list[Product] = []
    if product is not None and product not in known:
        product_files.load(product)
    for name in known if product is None else [product]:
        try:
            loaded.append(product_files.load(name))
        except ValueError as problem:
            yield name, [Line(check="file", message=str(problem), state="problem")]
        else:
            yield name, list(of_product(loaded[-1], settings, look))
    if product is None and len(loaded) == len(known):
        yield "all products", [_together(loaded)]


def as_text(product: str, lines: Sequence[Line]) -> str:
    """Return the lines as text for a terminal, one per check."""
    width = max(len(line.check) for line in lines)
    rows = (f"  {LABELS[line.state]:7}  {line.check:{width}}  {line.message}" for line in lines)
    return "\n".join([product, *rows])


def of_product(spec: Product, settings: Settings | None = None, look: Look | None = None) -> Iterator[Line]:
    """Yield the line of each check of a product; checks that depend on one with a problem are left out.

    Args:
        settings: where landed files are, for a product without a recording; by default those of the environment.
        look: at the sources that are assets; without it, what runs took in of them is looked at.
    """
    count = f"{counted(len(spec.sources), 'source')}, {counted(len(spec.fields), 'field')}"
    yield Line(check="spec", message=f"{spec.grain.describe()}; {count}, a {spec.task.kind} task")
    yield line_of(spec, "money", _money, spec)
    if (problem := _unused(spec)) is not None:
        yield problem
    yield line_of(spec, "history", planned.history, spec)
    if spec.search:
        yield line_of(spec, "search", changes.check_search, spec)
    yield from _code(spec)
    files = line_of(spec, "data files", _data_files, spec)
    if files.message:
        yield files
    settings = Settings.from_environment() if settings is None else settings
    product = ProductStore(spec, settings)
    if (behind := versions.of_next_training(product)) is not None:
        yield Line(
            check="versions", message=f"{behind.describe()}; {rebuilding.outlook(product, behind)}", state="note"
        )
    now = clock.now(settings, spec.name, is_live=True)
    ended = clocks.ended(spec, now)
    if ended is not None:
        yield Line(check="clock", message=ended, state="note")
    with nullcontext[Mapping[str, Channel]]({}) if look is None else look(spec, settings) as channels:
        yield from _of_deliveries(spec, settings, channels, ended, now)


def _of_deliveries(
    spec: Product, settings: Settings, channels: Mapping[str, Channel], ended: str | None, now: datetime
) -> Iterator[Line]:
    """Yield the lines about what is delivered."""
    try:
        available = deliveries.locate(spec, settings, channels)
    except RecordingMissing as missing:
        yield from _only_declared(spec, {}, str(missing))
        return
    except Problem as problem:
        yield Line(check="channels", message=str(problem), state="problem")
        return
    past = None if ended is not None else clocks.past(spec, available.keys[-1], now)
    if past is not None:
        yield Line(check="clock", message=past, state="note")
    trial = Trial(spec, available)
    if not available.is_recorded:
        count, keys = counted(len(available.keys), "landed key"), available.keys
        yield Line(check="landing", message=f"no recording; checked on {count}, {span(keys)}")
    yield line_of(spec, "keys", trial.keys)
    lines = {source: line_of(spec, f"source {source.name}", trial.source, source) for source in spec.sources}
    unread = [line for source, line in lines.items() if line.state == "skipped" and source not in available.absent]
    if unread:
        yield from _only_declared(spec, lines, unread[0].message.rstrip("."))
        return
    yield from lines.values()
    if not any(line.is_problem for line in lines.values()):
        yield from _of_rows(spec, trial, available.absent)


def _only_declared(spec: Product, lines: Mapping[Source, Line], reason: str) -> Iterator[Line]:
    """Yield the problems of sources, lines about the declarations of the others, and why no rows were checked."""
    for source in spec.sources:
        line = lines.get(source)
        yield line if line and line.is_problem else line_of(spec, f"source {source.name}", _declared, spec, source)
    yield Line(check="recording", message=f"{reason}; only the declarations were checked", state="skipped")


def _of_rows(spec: Product, trial: Trial, absent: Sequence[Source]) -> Iterator[Line]:
    """Yield the lines about rows, once every source with files has good ones."""
    lacks_labels = spec.label_source in absent
    lacking = [source.name for source in absent if not source.is_label]
    if spec.monitors.rules:
        yield line_of(spec, "rules", monitored.check_rules, spec, trial.tables, trial.window.keys)
    built = _skipped("features", lacking) if lacking else line_of(spec, "features", trial.features)
    yield built
    labelled = _skipped("label", [spec.label_source.name]) if lacks_labels else line_of(spec, "label", trial.label)
    yield labelled
    if built.state == "ok":
        yield line_of(spec, "all keys", trial.every_key)
        yield line_of(spec, "lookback", trial.alone)
        yield line_of(spec, "point in time", trial.point_in_time)
        yield line_of(spec, "requests", requests.check_requests, spec, trial.built)
        if about := names.notes(spec, trial.all_built):
            yield Line(check="names", message=about, state="note")
        if spec.slices:
            yield line_of(spec, "slices", monitored.check_slices, spec, trial.built)
    if "skipped" in (built.state, labelled.state) and not built.is_problem and not labelled.is_problem:
        yield _skipped("entities", [source.name for source in absent])
        yield _skipped("model", [source.name for source in absent])
    elif built.state == "ok" and labelled.state in ("ok", "note"):
        yield line_of(spec, "entities", trial.entities)
        yield line_of(spec, "leaks", trial.leaks)
        yield line_of(spec, "model", trial.model)


def _skipped(check: str, sources: Sequence[str]) -> Line:
    return Line(check=check, message=f"cannot be tried: no file of {' and '.join(sources)} has landed", state="skipped")


def _declared(spec: Product, source: Source) -> str:
    return counted(len(schema_of(spec, source).columns), "column")


def _money(spec: Product) -> str:
    prices.check_hours(spec)
    limit, first = spec.retraining.monthly_budget_usd, prices.next_training(spec)
    if over := prices.over_budget(spec):
        raise Problem(
            f"the first training of {spec.name} will not be launched: {over} Or raise monthly_budget_usd, or give "
            f"`over_budget_reason` when you launch retrain__{spec.name} yourself."
        )
    budget = "; no monthly limit" if limit is None else f" of the monthly budget of {limit:.2f} USD"
    if not isinstance(first, prices.Limit):
        return f"the first training may cost {first.usd:.2f} USD{budget} ({first.reason})"
    size, tries = profile(spec.training.profile), first.reason.rpartition(": ")[2]
    minute_usd = size.usd_per_hour_in_all / 60
    return (
        f"a minute of training costs {minute_usd:.2g} USD at the list price of {size.name}, which is "
        f"recorded for a machine of your own too; the first training costs at most {first.usd:.2f} USD{budget} "
        f"({tries})"
    )


def _unused(spec: Product) -> Line | None:
    """Return a line where the training cannot use its profile."""
    try:
        size = profile(spec.training.profile)
        check_processes(spec, size.name, size.world_size)
    except ValueError as problem:
        return Line(check="profile", message=str(problem), state="problem")
    return None


def _code(spec: Product) -> Iterator[Line]:
    """Yield a line when a statement of the product's file makes all of it count as the code of its functions."""
    for function in _functions(spec):
        if (line := digests.widening_line(function)) is not None:
            cause = f"line {line[0]}, `{line[1]}`, may change what the product's functions use"
            effect = "so any change to the file recomputes everything, including models"
            yield Line(check="code", message=f"{cause}, {effect}", state="note")
            return


def _data_files(spec: Product) -> str:
    """List the product's data files with their sizes and the functions that use them, as far as names show."""
    users: dict[str, list[str]] = {}
    for function in _functions(spec):
        for name in digests.data_files_of(function):
            users.setdefault(name, []).append(f"{function.__name__}()")
    return "; ".join(
        f"{name} ({counted(file.stat().st_size, 'byte')}) counts in {', '.join(dict.fromkeys(users[name]))}"
        if name in users
        else f"{name} ({counted(file.stat().st_size, 'byte')}) counts in no function; a declared value counts itself"
        for name, file in digests.data_files_in(spec.module).items()
    )


def _functions(spec: Product) -> list[FunctionType]:
    """Return the functions of the product's own code."""
    functions: list[Any] = [*learner_of(spec).functions, spec.features, spec.label]
    functions += [rule.broken for rule in spec.monitors.rules]
    for source in spec.sources:
        functions += filter(None, (source.schema, source.read, source.statistics))
    return [item for item in functions if isinstance(item, FunctionType) and is_ours(item.__module__)]


def _together(loaded: list[Product]) -> Line:
    try:
        product_files.check_together(tuple(loaded))
    except ValueError as problem:
        return Line(check="together", message=str(problem), state="problem")
    return Line(check="together", message=f"{counted(len(loaded), 'product')}, no two with the same name or folder")
