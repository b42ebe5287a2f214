"""The top of a product's page: title, news, tiles."""

from __future__ import annotations

from platform_assets.base.wording import counted, plural, span
from platform_assets.evaluation import releases
from platform_assets.evaluation.measures.of_task import measures_of
from platform_assets.operations.report.blocks import Mark, Tile, moment
from platform_assets.operations.status import text
from platform_assets.operations.status.facts import Reported


def news(facts: Reported) -> Mark | None:
    """Return the sentence at the top: the held keys by name, or what else there is to do; None before any decision."""
    held = text.held_keys(facts.held)
    others = len([one for one in facts.todo if one.about != "held"])
    if held:
        more = f", and {counted(others, 'other thing')} to do" if others else ""
        return Mark(f"Held: {text.list_keys(held)}{more}", "red")
    if others:
        return Mark(f"{counted(others, 'thing')} to do", "red")
    return None if facts.newest_closed_key is None else Mark(f"No {facts.noun} is held", "green")


def covered(facts: Reported) -> str:
    """Return what the numbers cover, and when the page was written."""
    keys = f"No {facts.noun} has been answered yet"
    if facts.keys:
        keys = f"{counted(facts.answered, facts.noun)} with answers, {span(facts.keys)}"
    clock = "wall clock" if facts.spec.is_live else "the recording's clock"
    return f"{keys}. Written at {moment(facts.now_utc)} ({clock})."


def tiles(facts: Reported) -> list[Tile]:
    """Return the numbers at the top."""
    headline, release, quality = measures_of(facts.spec.task).headline, facts.release, facts.quality
    answered = sum(numbers.rows for numbers in facts.measured.values())
    recent = quality.quality.get(headline.name) if quality else None
    model, window = ("–", "nothing is released"), "no labels yet"
    if quality is not None:
        window = f"{text.describe_interval(recent)}, newest {counted(quality.keys, facts.noun)} with labels"
        window += f"; held {plural(facts.noun)} left out: {text.describe_held(quality)}" if quality.held else ""
    if release is not None:
        age = text.describe_age(release, facts.grain)
        model = (f"release {release.number}", f"{age}; model {release.digest[: releases.SHORT_DIGEST]}")
    rare = []
    if facts.rare is not None:
        more = f"of the live model's holdout; {facts.rare.base_rate:.3f} without skill"
        rare = [Tile(name="Average precision", value=f"{facts.rare.average_precision:.3f}", more=more)]
    faults = len(facts.episodes)
    faulty = counted(sum(len(episode.keys) for episode in facts.episodes), facts.noun)
    return [
        Tile(name="Live model", value=model[0], more=model[1]),
        Tile(name=f"Recent {headline.title}", value="–" if recent is None else f"{recent.value:.3f}", more=window),
        *rare,
        Tile(name="Answers", value=f"{answered:,}", more=f"over {counted(facts.answered, facts.noun)}"),
        Tile(
            name="Faulty deliveries caught",
            value=str(faults),
            more=f"on {faulty}" if faults else "every delivery was sound" if facts.keys else "nothing was judged yet",
        ),
    ]
