"""Play the upstream of a product that is a recording: land its files, send its requests, move its clock.

This is the world outside the platform. It delivers files as source systems would, and sends requests like a caller who
knows only what had happened by then. It imports no Dagster and materialises nothing. Of the platform's records it reads
only those it waits for: a key's decision, and the result of a training that was decided.
"""

from platform_assets.demo.replay.callers import Answer, ask, known_tables, requests
from platform_assets.demo.replay.deliveries import end_of, first_cutoff, labelled_keys, land, move_on
from platform_assets.demo.replay.faults import Injected, draw, inject
from platform_assets.demo.replay.playing import Player
from platform_assets.demo.replay.recording import Reader, history
from platform_assets.demo.replay.waiting import Outcome, outcome_of

__all__ = [
    "Answer",
    "Injected",
    "Outcome",
    "Player",
    "Reader",
    "ask",
    "draw",
    "end_of",
    "first_cutoff",
    "history",
    "inject",
    "known_tables",
    "labelled_keys",
    "land",
    "move_on",
    "outcome_of",
    "requests",
]
