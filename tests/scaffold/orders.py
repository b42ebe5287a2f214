"""Made-up orders with an id, a customer who comes back, a range, codes, nulls, and columns that give the label away."""

from datetime import UTC, datetime, timedelta

import polars as pl

DAYS = 60


def orders(rows: int = 600) -> pl.DataFrame:
    """Return orders of 30 customers over 60 days as text; every third one is returned, a week later."""
    at = [datetime(2024, 1, 1, 8, tzinfo=UTC) + timedelta(days=DAYS * row / rows) for row in range(rows)]
    back = [row % 3 == 0 for row in range(rows)]
    return pl.DataFrame(
        {
            "order_id": [f"o-{row}" for row in range(rows)],
            "ordered_at": [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in at],
            "customer_id": [str(row * 7 % 30) for row in range(rows)],
            "price": [f"{5 + row % 37}.50" for row in range(rows)],
            "month": [str(1 + row % 12) for row in range(rows)],
            "country": [(None, "DE", "FR")[row % 5 % 3] for row in range(rows)],
            "shop": ["one"] * rows,
            "remark": [f"a remark that nobody reads {row}" * 3 for row in range(rows)],
            "return_reason": ["late" if is_back else None for is_back in back],
            "label_copy": ["yes" if is_back else "no" for is_back in back],
            "code": ["a" if is_back else "b" for is_back in back],
            "returned_at": [
                (moment + timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ") if is_back else None
                for moment, is_back in zip(at, back, strict=True)
            ],
            "returned": [str(int(is_back)) for is_back in back],
        }
    )
