"""Mark a member of a product's file whose default depends on other members."""

from __future__ import annotations

from typing import Any


class Later:
    """The default that is derived when the product is made; see `defaults`."""

    def __repr__(self) -> str:
        return "derived"

    def __call__(self) -> Any:
        """Refuse to stand for a schema outside of a product.

        Raises:
            ValueError: always.
        """
        raise ValueError("a source without a schema is part of no product, whose fields would tell its columns.")


LATER: Any = Later()
"""Fits every annotation; never seen in a product."""
