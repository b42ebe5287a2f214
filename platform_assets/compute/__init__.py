"""Pure functions over polars, numpy and torch: no files, no clock, no Dagster, no product."""
