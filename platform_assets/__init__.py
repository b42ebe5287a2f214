"""Keep models fresh: every step from a landed file to an answered prediction is a Dagster asset."""
