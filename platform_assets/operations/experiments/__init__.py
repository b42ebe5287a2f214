"""Trainings outside of the loop: `driftline train`, `tune`, `backtest` and `runs`."""
