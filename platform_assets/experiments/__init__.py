"""Train outside of the loop, and list, sort and compare trainings: `driftline train` and `driftline runs`."""
