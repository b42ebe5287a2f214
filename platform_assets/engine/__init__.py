"""Build Dagster assets from stages: plan, find stale keys, compute in chunks, write, record, report."""
