"""Pure functions over polars, numpy and torch: no files, no time, no Dagster, no product."""
