"""Gather from records what decisions, launches and people go by. Nothing here concludes anything."""
