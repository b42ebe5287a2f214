"""Raise alerts about data that is late by the product's own clock, and ask for a decision when the model is too old.

Deadlines are those of the product's sources and `Monitors`; drift of the model's age is `Retraining.max_age`. Decided
in `platform_assets/automation/sensors/freshness.py`.
"""

from platform_assets.automation.sensors import freshness

SENSOR = freshness.watch.declared("freshness", every_s=10)
