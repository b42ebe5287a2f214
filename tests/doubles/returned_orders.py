"""Orders of a shop as one table: which of them come back depends on price and country, and on chance."""

from datetime import datetime, timedelta

import polars as pl

COUNTRIES = ("AT", "DE", "FR")


def rows(*, days: int, a_day: int, start: str = "2024-01-01") -> pl.DataFrame:
    """Return orders as text, as pandas writes them: moments without a zone, truth values with a capital letter."""
    result = []
    for number in range(days * a_day):
        # Steps of irrational numbers fill the space evenly.
        price, luck = round(5 + 95 * (number * 2**0.5 % 1), 2), number * 3**0.5 % 1
        country = COUNTRIES[number * 7 % 3]
        returned = luck < 0.1 + 0.6 * (price > 60) + 0.2 * (country == "FR")
        at = datetime.fromisoformat(start) + timedelta(days=number // a_day, seconds=number % a_day * 86_400 // a_day)
        result.append((f"o{number:06d}", f"{at}", f"{price}", None if number % 50 == 0 else country, f"{returned}"))
    return pl.DataFrame(result, ["order_id", "ordered_at", "price", "country", "returned"], orient="row").cast(
        pl.String
    )
