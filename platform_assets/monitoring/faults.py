"""Check one key's sketch against the accepted keys before it, and describe what is broken with numbers.

A check is hard: it alone makes a key faulty, because no honest day trips it. Thresholds lie where broken deliveries and
a year of sound ones (storms, holidays and clock changes included) are far apart. Held and dropped keys are never
compared with. Sketching rows is `monitoring.sketch`, drift is `monitoring.drift_index`.
The module is over 300 lines so that whoever is alerted by a check finds all checks, and their order, in one place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from platform_assets.monitoring.overlaps import repeat
from platform_assets.store.records.faults import Primary

if TYPE_CHECKING:
    from platform_assets.product.monitoring import CrossRule, Monitors
    from platform_assets.store.records.sketches import RuleCount, SourceSketch

UNREADABLE = "unreadable_delivery"
AWAITED = "awaited_delivery"
"""The check of a key without features because it looks back on a delivery that is waited for (`Source.unreadable`)."""

ORDER = (
    "missing_delivery",
    UNREADABLE,
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
"""The checks, most telling first: the first failing one is a key's primary check.

Exception: `quarantined_share` comes before the categories that vanished into quarantine (`_ranked`).
"""

STRANGE_SHARE = 0.02
"""A category counts as vanished or unknown from this share of the rows on. Seasonal ones come and go below it."""

STANDSTILL = 0.5
"""A column is frozen when its distinct values are at most this share of the fewest in any accepted key."""

NO_SPREAD = 1e-6
"""Relative to the mean: a statistic whose rows differ by less has no usable spread."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check.

    Attributes:
        source: the source it blames.
        check: one of `ORDER`.
        column: of the source, or one of its statistics; None when the check covers the whole delivery.
        is_failing: whether this check alone makes the key faulty.
        came, expected: sentences for a person, with numbers.
        is_in_quarantine: whether the delivery has enough quarantined rows to explain what is missing.
    """

    source: str
    check: str
    column: str | None = None
    is_failing: bool
    came: str
    expected: str
    is_in_quarantine: bool = False

    def to_record(self) -> Primary:
        """Return the check as records store it."""
        return msgspec.convert(self, Primary, from_attributes=True)


@dataclass(frozen=True, kw_only=True)
class Past:
    """One accepted key before the checked one.

    Attributes:
        phase: its position in the season.
        sources: its sketches, without sources that had not landed or were nulled.
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
    """Run every check on every source; return them with failing ones first, most telling first.

    Args:
        sources: sketches of the sources that have landed, or whose deadline has passed.
        rules: from `sketch.of_rules`.
        phase: the key's position in the season.
        record: earlier accepted keys, oldest first; a source is compared only if `min_record_keys` of them have it.
        before: sketches of the keys right before this one, accepted or not, oldest first; empty for a key without one.
        monitors: the product's thresholds and rules.
    """
    checks = [_rule(rule, rules[rule.name]) for rule in monitors.rules if rule.name in rules]
    for source, current in sources.items():
        history = [(earlier.phase, earlier.sources[source]) for earlier in record if source in earlier.sources]
        checks += _delivered(source, current, [earlier for _, earlier in history])
        if not current.rows:
            continue
        checks += _unusable(source, current, monitors)
        accepted = [earlier for _, earlier in history if earlier.good]
        if not monitors.is_comparing or len(history) < monitors.min_record_keys or not accepted or not current.good:
            continue
        checks += _vanished(source, current, accepted, monitors) + _unknown(source, current, accepted)
        checks.append(_frozen(source, current, accepted, monitors))
        # No sound batch comes near half a single row's spread, and a turned, blurred or inverted one exceeds it.
        checks += _shifted(source, current, accepted, monitors)
        alike = [earlier for earlier_phase, earlier in history if earlier_phase == phase]
        checks += _volume(source, current, alike, monitors)
        # All recent keys, not only the one before: a file of a week ago would pass.
        landed = enumerate((sketches.get(source) for sketches in reversed(before)), start=1)
        contents = {back: sketch.content for back, sketch in landed if sketch is not None}
        samples = [(earlier_phase, earlier.content) for earlier_phase, earlier in history if earlier.good]
        repetition = repeat(current.content, contents, samples, monitors)
        if repetition is not None:
            where = "the previous key" if repetition.keys_back == 1 else f"the key {repetition.keys_back} keys back"
            checks.append(
                Check(
                    source=source,
                    check="overlap",
                    is_failing=repetition.is_stale,
                    came=f"{repetition.share:.0%} of the rows' content was already in {where}",
                    expected=f"at most {repetition.limit:.0%}",
                )
            )
    return _ranked(checks)


def awaited(awaits: Mapping[str, Sequence[str]]) -> tuple[Check, ...]:
    """Return one failing check per source that the features of a key wait for.

    Args:
        awaits: the keys whose delivery cannot be read, by source.
    """
    return tuple(
        Check(
            source=source,
            check=AWAITED,
            is_failing=True,
            came=f"no features: they look back on {source} of {', '.join(keys)}, which cannot be read",
            expected=f"features once it is delivered again, or {', '.join(keys)} is accepted or dropped",
        )
        for source, keys in awaits.items()
    )


def failing(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the failing checks, in order: the first is the primary."""
    return tuple(check for check in checks if check.is_failing)


def _ranked(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Sort the checks. A failing quarantine that explains vanished categories is their cause, so it comes first."""
    explained = {check.source for check in checks if check.is_failing and check.is_in_quarantine}

    def rank(check: Check) -> tuple[bool, int, int]:
        if check.is_failing and check.source in explained and check.check == "quarantined_share":
            return False, ORDER.index("vanished_categories"), 1
        return not check.is_failing, ORDER.index(check.check), 2 if check.is_in_quarantine else 0

    return tuple(sorted(checks, key=rank))


def _rule(rule: CrossRule, count: RuleCount) -> Check:
    share = count.broken / count.rows
    return Check(
        source=rule.sources[0],
        check="cross_rule",
        is_failing=share > rule.max_share,
        came=f"{count.broken:,} rows break the rule, {share:.1%} of the {count.rows:,} rows of "
        + (rule.sources[0] if len(rule.sources) == 1 else f"the largest of {' and '.join(rule.sources)}"),
        # A fault that a person accepted is recognised by this sentence (`fault_records`): it must not be reworded.
        expected=f"{rule.name}; at most {rule.max_share:.1%} may not",
    )


def _delivered(source: str, current: SourceSketch, past: Sequence[SourceSketch]) -> list[Check]:
    if current.is_missing:
        return [
            Check(
                source=source,
                check="missing_delivery",
                is_failing=True,
                came=f"before the deadline a file that {current.missing_why}"
                if current.missing_why
                else "no file before the deadline",
                expected="one file per key",
            )
        ]
    if current.unreadable:
        return [
            Check(
                source=source,
                check=UNREADABLE,
                is_failing=True,
                came=f"a file that cannot be taken in: {current.unreadable.rstrip('.')}",
                expected="a file with rows of the source's schema",
            )
        ]
    empty = sum(1 for earlier in past if not earlier.rows)
    return [
        Check(
            source=source,
            check="empty_delivery",
            is_failing=not current.rows and not empty,
            came=f"a file with {current.rows:,} rows",
            expected="at least one row" if not empty else f"rows, or none as in {empty} of {len(past)} keys",
        )
    ]


def _unusable(source: str, current: SourceSketch, monitors: Monitors) -> list[Check]:
    bad = current.quarantined - current.repeated
    bad_share, repeated_share = bad / current.rows, current.repeated / current.rows
    return [
        Check(
            source=source,
            check="quarantined_share",
            is_failing=bad_share > monitors.max_quarantined_share,
            came=f"{bad:,} of {current.rows:,} rows in quarantine ({bad_share:.1%}), not counting repeated rows",
            expected=f"at most {monitors.max_quarantined_share:.1%}",
        ),
        Check(
            source=source,
            check="repeated_rows",
            is_failing=repeated_share > monitors.max_repeated_share,
            came=f"{current.repeated:,} of {current.rows:,} rows repeat another row of the delivery "
            f"({repeated_share:.1%})",
            expected=f"at most {monitors.max_repeated_share:.1%}",
        ),
    ]


def _vanished(source: str, current: SourceSketch, accepted: Sequence[SourceSketch], monitors: Monitors) -> list[Check]:
    refused = (current.quarantined - current.repeated) / current.rows
    checks = []
    for column, counts, past in _categories(current, accepted):
        shares = {
            value: min(earlier.get(value, 0) / sketch.good for earlier, sketch in zip(past, accepted, strict=True))
            for value in past[-1]
        }
        usual = {value: share for value, share in shares.items() if share >= STRANGE_SHARE}
        lost = [value for value in usual if value not in counts]
        lost_shares = ", ".join(f"{value!r} ({usual[value]:.1%} or more of the rows)" for value in lost)
        each = f"each of {len(accepted)} keys"
        checks.append(
            Check(
                source=source,
                check="vanished_categories",
                column=column,
                is_failing=bool(lost),
                came=f"no row with {', '.join(map(repr, lost))}" if lost else f"all {len(usual)} usual values",
                expected=f"{lost_shares}, as in {each}" if lost else f"the values that {each} had",
                # The margin allows for a share somewhat below the smallest one of the keys before it.
                is_in_quarantine=bool(lost) and monitors.margin * refused >= sum(usual[value] for value in lost),
            )
        )
    return checks


def _unknown(source: str, current: SourceSketch, accepted: Sequence[SourceSketch]) -> list[Check]:
    checks = []
    for column, counts, past in _categories(current, accepted):
        usual = {value for earlier in past for value in earlier}
        strange = sorted((value for value in counts if value not in usual), key=lambda value: -counts[value])
        share = sum(counts[value] for value in strange) / current.good
        examples = ", ".join(f"{value!r}" for value in strange[:5])
        checks.append(
            Check(
                source=source,
                check="unknown_categories",
                column=column,
                is_failing=share > STRANGE_SHARE,
                came=f"{share:.1%} of the rows have new values" + (f": {examples}" if strange else ""),
                expected=f"at most {STRANGE_SHARE:.0%} outside the {len(usual)} values of {len(accepted)} keys",
            )
        )
    return checks


def _categories(
    current: SourceSketch, accepted: Sequence[SourceSketch]
) -> Iterator[tuple[str, dict[str, int], list[dict[str, int]]]]:
    """Yield each column whose values are all counted, with the rows by value of the key and of every accepted key."""
    for column, sketch in current.columns.items():
        columns = [earlier.columns[column] for earlier in accepted if column in earlier.columns]
        past = [counts for earlier in columns if (counts := earlier.categories) is not None]
        if sketch.categories and len(past) == len(accepted):
            yield column, sketch.categories, past


def _frozen(source: str, current: SourceSketch, accepted: Sequence[SourceSketch], monitors: Monitors) -> Check:
    """Count the columns that are frozen but varied in every accepted key. Fewer rows may show fewer values."""
    part = min(1.0, current.good / min(earlier.good for earlier in accepted))
    fewest = {
        column: min(earlier.columns[column].distinct if column in earlier.columns else 0 for earlier in accepted)
        for column in current.columns
    }
    still = {
        column: sketch.distinct
        for column, sketch in current.columns.items()
        if fewest[column] > 1 and sketch.distinct <= STANDSTILL * part * fewest[column]
    }
    text = ", ".join(
        (f"{name} has {count} distinct {'value' if count == 1 else 'values'}" if count else f"{name} has no value")
        + f" (usually {fewest[name]} or more)"
        for name, count in still.items()
    )
    varied = sum(1 for count in fewest.values() if count > 1)
    return Check(
        source=source,
        check="frozen_columns",
        is_failing=len(still) >= monitors.min_frozen_columns,
        came=f"{len(still)} columns are frozen" + (f": {text}" if still else ""),
        expected=f"fewer than {monitors.min_frozen_columns} of the {varied} columns that varied in each of "
        f"{len(accepted)} keys",
    )


def _shifted(source: str, current: SourceSketch, accepted: Sequence[SourceSketch], monitors: Monitors) -> list[Check]:
    """Check the statistic whose mean moved farthest from its usual value, in standard deviations of single rows."""
    moves = []
    for name, moments in current.statistics.items():
        past = [earlier.statistics[name] for earlier in accepted if name in earlier.statistics]
        means = [earlier.mean for earlier in past if earlier.mean is not None]
        if len(means) >= monitors.min_record_keys:
            usual, spread = median(means), median(earlier.std for earlier in past if earlier.std is not None)
            mean, std = (math.nan if value is None else value for value in (moments.mean, moments.std))
            # A statistic that never varied is measured by its current spread: else a single odd row fails the check.
            least = NO_SPREAD * abs(usual) or NO_SPREAD**2
            unit = spread if spread > least else max(std, least)
            moves.append((abs(mean - usual) / unit, name, usual, spread, len(means)))
    if not moves:
        return []
    limit = monitors.max_statistic_shift
    others = sum(1 for move, *_ in moves if not move <= limit) - 1
    # A mean that is not a number fails too, and comes first: it compares with nothing.
    move, name, usual, spread, keys = max(moves, key=lambda entry: (math.isnan(entry[0]), entry[0]))
    newest = current.statistics[name].mean
    mean_text = "not a number" if newest is None else f"{newest:,.4g}"
    return [
        Check(
            source=source,
            check="shifted_statistics",
            column=name,
            is_failing=not move <= limit,
            came=f"the mean {name} of {current.good:,} rows is {mean_text}, {move:,.2f} standard deviations of "
            "single rows from the usual"
            + (f"; {others} other statistic{'s' * (others > 1)} moved too far" if others > 0 else ""),
            expected=f"{usual:,.4g} (median of {keys} keys), plus or minus {limit:g} standard deviations of "
            f"{spread:,.4g}",
        )
    ]


def _volume(source: str, current: SourceSketch, alike: Sequence[SourceSketch], monitors: Monitors) -> list[Check]:
    usual = median(earlier.rows for earlier in alike) if alike else 0
    if not usual:
        return []
    ratio = math.exp(monitors.max_volume_log_ratio)
    return [
        Check(
            source=source,
            check="volume",
            is_failing=abs(math.log(current.rows / usual)) > monitors.max_volume_log_ratio,
            came=f"{current.rows:,} rows",
            expected=f"{usual / ratio:,.0f} to {usual * ratio:,.0f} rows: the median of {len(alike)} keys of the same "
            f"phase is {usual:,.0f}",
        )
    ]
