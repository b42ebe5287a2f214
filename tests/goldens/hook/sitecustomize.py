"""Python imports this by itself, before anything else, in a process whose PYTHONPATH names this folder."""

from tests.goldens import watched

watched.begin()
