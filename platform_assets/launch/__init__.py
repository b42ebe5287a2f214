"""Launch a step outside of Dagster: profiles and prices, attempts, how they end, and what they cost."""
