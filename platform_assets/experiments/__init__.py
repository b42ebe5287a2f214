"""Train outside of the loop, search for settings, and list trainings: `driftline train`, `tune` and `runs`."""
