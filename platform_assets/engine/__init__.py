"""Make Dagster assets of stages: plan, tell what is stale, make in chunks, write, record, report."""
