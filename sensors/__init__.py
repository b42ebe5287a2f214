"""Sensors: what watches the assets and asks for runs, one file a concern.

Belongs here: a pure `plan()` that says which runs are wanted and why, and a `build()` that wires it to Dagster, with
a cursor a product. Does not belong here: decisions (`platform_assets.compute`) and work (the runs do it).
"""
