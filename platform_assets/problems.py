"""The root of the platform's exceptions, and those of the ledgers.

Belongs here: the root, and what records and ledgers share. Does not belong here: an exception that one module raises.
"""

from __future__ import annotations


class Problem(Exception):
    """Anything that the platform itself refuses or cannot do; the message says what came and what was expected."""


class LedgerProblem(Problem):
    """A record that cannot be written or read; the message names its place."""


class RecordExists(LedgerProblem):
    """A create-only record that somebody wrote before."""


class NewerRecord(LedgerProblem):
    """A record in a format that only later code reads."""


class UnfitRecord(LedgerProblem):
    """A record with a member that is missing, unknown or of another type."""
