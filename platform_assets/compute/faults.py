"""Check one key's sketch against the accepted keys before it: what is broken, said with numbers.

Belongs here: hard checks, each of which alone makes a key faulty. Does not belong here: sketching rows
(`compute.sketch`), drift (`compute.drift`), or what follows from a fault (`stages.drift`).

A check is hard because no honest day trips it: a threshold stands where broken deliveries and a year of sound ones
(storms, holidays and clock changes included) are far apart. Nothing is compared with keys that are held or dropped.
It is over 300 lines because whoever is called by a check finds all of them, and their order, in one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from platform_assets.compute.overlaps import repeat
from platform_assets.records.judgements import Primary

if TYPE_CHECKING:
    from platform_assets.product.monitoring import CrossRule, Monitors
    from platform_assets.records.sketches import RuleCount, SourceSketch

ORDER = (
    "missing_delivery",
    "empty_delivery",
    "repeated_rows",
    "overlap",
    "vanished_categories",
    "unknown_categories",
    "cross_rule",
    "frozen_columns",
    "shifted_statistics",
    "quarantined_share",
    "volume",
)
"""The checks, the most telling first: of a key's failing ones the first is the primary.

Except that `quarantined_share` comes before the categories that vanished into quarantine (`_ranked`).
"""

STRANGE_SHARE = 0.02
"""A category counts as vanished or unknown when it makes up this share of the rows: seasonal ones come and go below."""

STANDSTILL = 0.5
"""A column stands still when it takes at most this share of the fewest values that it took in an accepted key."""

NO_SPREAD = 1e-6
"""Of its mean: a statistic whose rows differ by less has no spread to be measured in."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found.

    Attributes:
        source: the source that it blames.
        check: one of `ORDER`.
        column: of the source, or one of its statistics; None when the check is about the whole delivery.
        is_failing: whether the key is faulty for this alone.
        came, expected: for a person, with numbers.
        is_in_quarantine: whether the delivery's rows in quarantine are enough to hold what is missing.
    """

    source: str
    check: str
    column: str | None = None
    is_failing: bool
    came: str
    expected: str
    is_in_quarantine: bool = False

    def told(self) -> Primary:
        """Return what a record tells of it."""
        return msgspec.convert(self, Primary, from_attributes=True)


@dataclass(frozen=True, kw_only=True)
class Past:
    """One accepted key before the one that is checked.

    Attributes:
        phase: its place in the season.
        sources: its sketches; a source that had not landed, or was nulled, is absent.
    """

    phase: int
    sources: Mapping[str, SourceSketch]


def check(
    sources: Mapping[str, SourceSketch],
    rules: Mapping[str, RuleCount],
    *,
    phase: int,
    record: Sequence[Past],
    before: Sequence[Mapping[str, SourceSketch]],
    monitors: Monitors,
) -> tuple[Check, ...]:
    """Return every check of every source, the failing ones first, the most telling of them at the front.

    Args:
        sources: sketches of the sources that have landed, or whose deadline has passed.
        rules: from `sketch.of_rules`.
        phase: the key's place in the season.
        record: the accepted keys before it, oldest first; a source is compared only when `min_record_keys` have it.
        before: the sketches of the keys right before it, accepted or not, oldest first; empty for one without any.
        monitors: the product's thresholds and rules.
    """
    found = [_rule(rule, rules[rule.name]) for rule in monitors.rules if rule.name in rules]
    for source, came in sources.items():
        past = [(each.phase, each.sources[source]) for each in record if source in each.sources]
        found += _delivered(source, came, [each for _, each in past])
        if not came.rows:
            continue
        found += [_quarantined(source, came, monitors), _repeated(source, came, monitors)]
        kept = [each for _, each in past if each.good]
        if not monitors.is_comparing or len(past) < monitors.min_record_keys or not kept or not came.good:
            continue
        found += _vanished(source, came, kept, monitors) + _unknown(source, came, kept)
        found.append(_frozen(source, came, kept, monitors))
        found += _shifted(source, came, kept, monitors)
        found += _volume(source, came, [each for at, each in past if at == phase], monitors)
        found += _overlap(source, came, before, [(at, each) for at, each in past if each.good], monitors)
    return _ranked(found)


def failing(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the failing ones, in order: the first is the primary."""
    return tuple(each for each in checks if each.is_failing)


def _ranked(found: Sequence[Check]) -> tuple[Check, ...]:
    """Sort the checks; a quarantine that holds what vanished is the cause, so it comes right before that."""
    held = {each.source for each in found if each.is_failing and each.is_in_quarantine}

    def rank(each: Check) -> tuple[bool, int, int]:
        if each.is_failing and each.source in held and each.check == "quarantined_share":
            return False, ORDER.index("vanished_categories"), 1
        return not each.is_failing, ORDER.index(each.check), 2 if each.is_in_quarantine else 0

    return tuple(sorted(found, key=rank))


def _rule(rule: CrossRule, count: RuleCount) -> Check:
    share = count.broken / count.rows
    return Check(
        source=rule.sources[0],
        check="cross_rule",
        is_failing=share > rule.max_share,
        came=f"{count.broken:,} rows break it, {share:.1%} of the {count.rows:,} that "
        + (f"{rule.sources[0]} has" if len(rule.sources) == 1 else f"the largest of {' and '.join(rule.sources)} has"),
        expected=f"{rule.name}; at most {rule.max_share:.1%} may not",
    )


def _delivered(source: str, came: SourceSketch, past: Sequence[SourceSketch]) -> list[Check]:
    if came.is_missing:
        return [
            Check(
                source=source,
                check="missing_delivery",
                is_failing=True,
                came=f"before the deadline a file that {came.missing_why}"
                if came.missing_why
                else "no file before the deadline",
                expected="a file a key",
            )
        ]
    empty = sum(1 for each in past if not each.rows)
    return [
        Check(
            source=source,
            check="empty_delivery",
            is_failing=not came.rows and not empty,
            came=f"a file with {came.rows:,} rows",
            expected="rows" if not empty else f"rows, or none as in {empty} of {len(past)} keys",
        )
    ]


def _quarantined(source: str, came: SourceSketch, monitors: Monitors) -> Check:
    bad = came.quarantined - came.repeated
    share = bad / came.rows
    return Check(
        source=source,
        check="quarantined_share",
        is_failing=share > monitors.max_quarantined_share,
        came=f"{bad:,} of {came.rows:,} rows in quarantine ({share:.1%}), repeated ones left out",
        expected=f"at most {monitors.max_quarantined_share:.1%}",
    )


def _repeated(source: str, came: SourceSketch, monitors: Monitors) -> Check:
    share = came.repeated / came.rows
    return Check(
        source=source,
        check="repeated_rows",
        is_failing=share > monitors.max_repeated_share,
        came=f"{came.repeated:,} of {came.rows:,} rows repeat another row of the delivery ({share:.1%})",
        expected=f"at most {monitors.max_repeated_share:.1%}",
    )


def _overlap(
    source: str,
    came: SourceSketch,
    before: Sequence[Mapping[str, SourceSketch]],
    kept: Sequence[tuple[int, SourceSketch]],
    monitors: Monitors,
) -> list[Check]:
    earlier = {back: of[source].content for back, of in enumerate(reversed(before), start=1) if source in of}
    told = repeat(came.content, earlier, [(at, each.content) for at, each in kept], monitors)
    if told is None:
        return []
    where = "the key before" if told.keys_back == 1 else f"the key {told.keys_back} before"
    return [
        Check(
            source=source,
            check="overlap",
            is_failing=told.is_stale,
            came=f"{told.share:.0%} of what the rows say stood in {where} too",
            expected=f"at most {told.limit:.0%}",
        )
    ]


def _vanished(source: str, came: SourceSketch, kept: Sequence[SourceSketch], monitors: Monitors) -> list[Check]:
    refused = (came.quarantined - came.repeated) / came.rows

    def gone(counts: _Categories, past: Sequence[_Categories]) -> _Judged:
        shares = {
            value: min(each.get(value, 0) / sketch.good for each, sketch in zip(past, kept, strict=True))
            for value in past[-1]
        }
        usual = {value: share for value, share in shares.items() if share >= STRANGE_SHARE}
        lost = [value for value in usual if value not in counts]
        told = ", ".join(f"{value!r} ({usual[value]:.1%} or more of the rows)" for value in lost)
        return (
            lost,
            f"no row with {', '.join(map(repr, lost))}" if lost else f"all {len(usual)} usual values",
            (f"{told}, as in each of {len(kept)} keys" if lost else f"what each of {len(kept)} keys had"),
            # The margin, because a key's share may be somewhat below the smallest one of the keys before it.
            bool(lost) and monitors.margin * refused >= sum(usual[value] for value in lost),
        )

    return _by_category(source, "vanished_categories", came, kept, gone)


def _unknown(source: str, came: SourceSketch, kept: Sequence[SourceSketch]) -> list[Check]:
    def new(counts: _Categories, past: Sequence[_Categories]) -> _Judged:
        known = {value for each in past for value in each}
        strange = sorted((value for value in counts if value not in known), key=lambda value: -counts[value])
        share = sum(counts[value] for value in strange) / came.good
        told = ", ".join(f"{value!r}" for value in strange[:5])
        text = f"{share:.1%} of the rows with values never seen" + (f": {told}" if strange else "")
        expected = f"at most {STRANGE_SHARE:.0%} besides the {len(known)} values of {len(kept)} keys"
        return strange if share > STRANGE_SHARE else [], text, expected, False

    return _by_category(source, "unknown_categories", came, kept, new)


_Judged = tuple[list[str], str, str, bool]
"""The strange values, what came, what was expected, and whether the rows in quarantine may hold the values."""
_Categories = Mapping[str, int]
"""Rows by value, every value counted."""
_Judge = Callable[[_Categories, Sequence[_Categories]], _Judged]


def _by_category(
    source: str, name: str, came: SourceSketch, kept: Sequence[SourceSketch], judge: _Judge
) -> list[Check]:
    """Judge each column whose every value is counted, then and now: of names of things nothing can be said."""
    found = []
    for column, told in came.columns.items():
        past = [
            counts
            for each in kept
            if column in each.columns and (counts := each.columns[column].categories) is not None
        ]
        if not told.categories or len(past) < len(kept):
            continue
        values, text, expected, is_held = judge(told.categories, past)
        found.append(
            Check(
                source=source,
                check=name,
                column=column,
                is_failing=bool(values),
                came=text,
                expected=expected,
                is_in_quarantine=is_held,
            )
        )
    return found


def _frozen(source: str, came: SourceSketch, kept: Sequence[SourceSketch], monitors: Monitors) -> Check:
    """Count the columns that stand still though they varied in every accepted key; fewer rows may show fewer values."""
    part = min(1.0, came.good / min(each.good for each in kept))
    fewest = {
        column: min(each.columns[column].distinct if column in each.columns else 0 for each in kept)
        for column in came.columns
    }
    still = {
        column: told.distinct
        for column, told in came.columns.items()
        if fewest[column] > 1 and told.distinct <= STANDSTILL * part * fewest[column]
    }
    told = ", ".join(f"{name} with {count} values (never under {fewest[name]})" for name, count in still.items())
    varied = sum(1 for count in fewest.values() if count > 1)
    return Check(
        source=source,
        check="frozen_columns",
        is_failing=len(still) >= monitors.min_frozen_columns,
        came=f"{len(still)} columns stand still" + (f": {told}" if still else ""),
        expected=f"fewer than {monitors.min_frozen_columns} of the {varied} that varied in each of {len(kept)} keys",
    )


def _shifted(source: str, came: SourceSketch, kept: Sequence[SourceSketch], monitors: Monitors) -> list[Check]:
    """Judge the statistic whose mean has moved farthest, in standard deviations of single rows, from the usual."""
    moves = []
    for name, told in came.statistics.items():
        past = [each.statistics[name] for each in kept if name in each.statistics]
        means = [each.mean for each in past if each.mean is not None]
        if len(means) >= monitors.min_record_keys:
            usual, spread = median(means), median(each.std for each in past if each.std is not None)
            mean, std = (math.nan if value is None else value for value in (told.mean, told.std))
            moves.append((abs(mean - usual) / _unit(usual, spread, std), name, usual, spread, len(means)))
    if not moves:
        return []
    limit = monitors.max_statistic_shift
    others = sum(1 for move, *_ in moves if not move <= limit) - 1
    # A mean that is no number fails too, and first: it compares with nothing.
    move, name, usual, spread, keys = max(moves, key=lambda each: (math.isnan(each[0]), each[0]))
    newest = came.statistics[name].mean
    told_mean = "no number" if newest is None else f"{newest:,.4g}"
    return [
        Check(
            source=source,
            check="shifted_statistics",
            column=name,
            is_failing=not move <= limit,
            came=f"the mean {name} of {came.good:,} rows is {told_mean}, {move:,.2f} standard deviations of "
            "single rows away" + (f"; {others} more moved too far" if others > 0 else ""),
            expected=f"{usual:,.4g}, the median of {keys} keys, give or take {limit:g} standard deviations of "
            f"{spread:,.4g}",
        )
    ]


def _unit(usual: float, spread: float, came: float) -> float:
    """Return the spread of single rows; what never varied is measured by how it varies now, so that one row is few."""
    least = NO_SPREAD * abs(usual) or NO_SPREAD**2
    return spread if spread > least else max(came, least)


def _volume(source: str, came: SourceSketch, alike: Sequence[SourceSketch], monitors: Monitors) -> list[Check]:
    usual = median(each.rows for each in alike) if alike else 0
    if not usual:
        return []
    ratio = math.exp(monitors.max_volume_log_ratio)
    return [
        Check(
            source=source,
            check="volume",
            is_failing=abs(math.log(came.rows / usual)) > monitors.max_volume_log_ratio,
            came=f"{came.rows:,} rows",
            expected=f"{usual / ratio:,.0f} to {usual * ratio:,.0f} rows: the median of {len(alike)} keys of the same "
            f"phase is {usual:,.0f}",
        )
    ]
