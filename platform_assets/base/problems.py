"""Define the root of the platform's exceptions, and those that records and ledgers share."""

from __future__ import annotations


class Problem(Exception):
    """Anything that the platform refuses or cannot do; the message says what came and what was expected."""


class LedgerProblem(Problem):
    """A record that cannot be written or read; the message names its location."""


class RecordExists(LedgerProblem):
    """A create-only record that exists already."""


class NewerRecord(LedgerProblem):
    """A record in a format that only newer code reads."""


class UnfitRecord(LedgerProblem):
    """A record with a member that is missing, unknown or of another type."""
