"""Call what a product's monitors call: statistics of its sources, rules between them, slices of its fields.

Belongs here: that these work on the sample's rows. Does not belong here: judging a key by them (`compute.faults`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from platform_assets.checking.told import Problem, Skipped, counted, file_of, mend_of, own_frame
from platform_assets.compute import slices
from platform_assets.specs.base import CrossRule, ProductSpec, Source


def check_statistics(spec: ProductSpec, source: Source, rows: pl.DataFrame) -> str:
    """Take a source's statistics of its rows and of none, since a key may be empty; return what to tell of them."""
    if source.statistics is None:
        return ""
    whose, told = f"statistics() of the source {source.name}", ""
    for given in (rows, rows.clear()):
        found = own_frame(spec, whose if given.height else f"{whose}, given no rows,", source.statistics, given)
        if found.height != given.height:
            raise Problem(
                f"{whose} of {spec.name} returns {counted(found.height, 'row')} for {given.height:,}; expected one "
                f"each. {mend_of(spec)}"
            )
        for column in found.get_columns():
            if given.height and not column.dtype.is_numeric():
                raise Problem(
                    f"{whose} of {spec.name}: {column.name!r} is {column.dtype}; expected numbers. {mend_of(spec)}"
                )
            if strange := given.height - column.drop_nulls().cast(pl.Float64).is_finite().sum():
                raise Problem(
                    f"{whose} of {spec.name}: {column.name!r} is null or no finite number in {strange:,} of "
                    f"{given.height:,} rows; expected a number in each. {mend_of(spec)}"
                )
        told = told or f"; {counted(found.width, 'statistic')}"
    return told


def check_rules(spec: ProductSpec, tables: Mapping[str, pl.DataFrame], keys: Sequence[str]) -> str:
    """Apply each rule between sources to each key; return what to tell of them."""
    shares = {rule.name: _shares(spec, rule, tables, keys) for rule in spec.monitors.rules}
    tried = [share for each in shares.values() for share in each]
    untried = sum(not each for each in shares.values())
    if not tried:
        raise Skipped(f"{counted(len(shares), 'rule')} between sources; none could be tried")
    worst = f"at most {max(tried):.2%} of a key's rows break one"
    more = f"; {untried} had no key with rows of all of their sources" if untried else ""
    return f"{counted(len(shares), 'rule')} between sources; {worst}{more}"


def check_slices(spec: ProductSpec, built: pl.DataFrame) -> str:
    """Put the sample's rows into the groups by which quality is broken down."""
    return ", ".join(f"{name}: {counted(len(slices.group(built[name]).names), 'group')}" for name in spec.slices)


def _shares(spec: ProductSpec, rule: CrossRule, tables: Mapping[str, pl.DataFrame], keys: Sequence[str]) -> list[float]:
    """Return the share of broken rows in each key that has rows of all of the rule's sources."""
    if slow := [name for name in rule.sources if spec.source(name).is_slow]:
        raise Problem(
            f"the rule {rule.name!r} of {spec.name} reads {slow[0]!r}, a slow source, which has no rows of a key: it "
            f"would never be applied. {mend_of(spec)}"
        )
    if not set(rule.sources) <= set(tables):
        return []
    found = []
    for key in keys:
        given = {name: tables[name].filter(pl.col("key") == key) for name in rule.sources}
        if all(frame.height for frame in given.values()):
            broken = own_frame(spec, f"the rule {rule.name!r}", rule.broken, given)
            found.append(broken.height / given[rule.sources[0]].height)
    if found and min(found) > rule.max_share:
        raise Problem(
            f"the rule {rule.name!r} of {spec.name} is broken in each of {counted(len(found), 'key')}, by "
            f"{min(found):.1%} of the rows or more; its max_share is {rule.max_share:.1%}, and such a key is faulty. "
            f"`broken` returns the offending rows: mend it, max_share or deliver() in {file_of(spec.name)}."
        )
    return found
