"""Check that statistics of sources, rules between sources, and slices of fields work on the sample's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from platform_assets.base.wording import counted
from platform_assets.check.messages import Problem, Skipped, call_for_frame, file_of, fix_in
from platform_assets.evaluation import slices
from platform_assets.product.spec import CrossRule, Product, Source


def check_statistics(spec: Product, source: Source, rows: pl.DataFrame) -> str:
    """Compute a source's statistics of its rows, and of no rows, because a key may be empty; return a summary."""
    if source.statistics is None:
        return ""
    name, summary = f"statistics() of the source {source.name}", ""
    for sample in (rows, rows.clear()):
        result = call_for_frame(spec, name if sample.height else f"{name}, given no rows,", source.statistics, sample)
        if result.height != sample.height:
            raise Problem(
                f"{name} of {spec.name} returns {counted(result.height, 'row')} for {sample.height:,}; expected one "
                f"each. {fix_in(spec)}"
            )
        for column in result.get_columns():
            if sample.height and not column.dtype.is_numeric():
                raise Problem(
                    f"{name} of {spec.name}: {column.name!r} is {column.dtype}; expected numbers. {fix_in(spec)}"
                )
            if missing := sample.height - column.drop_nulls().cast(pl.Float64).is_finite().sum():
                raise Problem(
                    f"{name} of {spec.name}: {column.name!r} is null or not finite in {missing:,} of "
                    f"{sample.height:,} rows; expected a number in each. {fix_in(spec)}"
                )
        summary = summary or f"; {counted(result.width, 'statistic')}"
    return summary


def check_rules(spec: Product, tables: Mapping[str, pl.DataFrame], keys: Sequence[str]) -> str:
    """Apply each rule between sources to each key; return a summary."""
    shares = {rule.name: _shares(spec, rule, tables, keys) for rule in spec.monitors.rules}
    tried = [share for by_key in shares.values() for share in by_key]
    untried = sum(not by_key for by_key in shares.values())
    if not tried:
        raise Skipped(f"{counted(len(shares), 'rule')} between sources; none could be tried")
    worst = f"at most {max(tried):.2%} of the rows of a key's largest source break one"
    more = f"; {untried} had no key with rows of all of their sources" if untried else ""
    return f"{counted(len(shares), 'rule')} between sources; {worst}{more}"


def check_slices(spec: Product, built: pl.DataFrame) -> str:
    """Group the sample's rows by each slice; return a summary."""
    return ", ".join(f"{name}: {counted(len(slices.group(built[name]).names), 'group')}" for name in spec.slices)


def _shares(spec: Product, rule: CrossRule, tables: Mapping[str, pl.DataFrame], keys: Sequence[str]) -> list[float]:
    """Return the share of broken rows in each key that has rows of all of the rule's sources."""
    if slow := [name for name in rule.sources if spec.source(name).is_slow]:
        raise Problem(
            f"the rule {rule.name!r} of {spec.name} reads {slow[0]!r}, a slow source, which has no rows per key, so "
            f"it would never be applied. {fix_in(spec)}"
        )
    if not set(rule.sources) <= set(tables):
        return []
    shares = []
    for key in keys:
        of_key = {name: tables[name].filter(pl.col("key") == key) for name in rule.sources}
        if all(frame.height for frame in of_key.values()):
            broken = call_for_frame(spec, f"the rule {rule.name!r}", rule.broken, of_key)
            shares.append(broken.height / max(frame.height for frame in of_key.values()))
    if shares and min(shares) > rule.max_share:
        raise Problem(
            f"the rule {rule.name!r} of {spec.name} is broken in each of {counted(len(shares), 'key')}, by "
            f"{min(shares):.1%} of the rows of its largest source or more; its max_share is {rule.max_share:.1%}, "
            "and such a key is faulty. `broken` returns the offending rows: fix it, max_share or deliver() in "
            f"{file_of(spec.name)}."
        )
    return shares
