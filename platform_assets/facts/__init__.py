"""Collect from records the facts that decisions, launches and people rely on. Draws no conclusions."""
